"""The faiss side of search: build inverted lists of 4-bit codes, keep them in the cache, and map them again.

The file is derived from the embeddings and free to delete. It is parsed only if its sha256 is the one written down when
it was made: a damaged faiss file may load without a word and then answer wrongly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import Verdicts, canonical_json, sweep_temporaries, write_atomic
from ..locks import FolderLock

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

FAISS_MIN = (1, 15, 1)  # older ones crash on damaged files
FILE, METADATA = "ivf.faiss", "ivf.json"
VERSION = 2  # of the recipe below; a change makes every cached file be built anew
MAX_LISTS = 16_384
ITERATIONS = 8  # of k-means
SAMPLE = 64  # rows per list that k-means and the codes are trained on
BITS = 4
CODES = 1 << BITS
FEWEST = 256  # rows of which lists are made: a table of 16 codes needs as many rows to learn from
SEED = 0
BLOCK = 16_384  # rows made float32 at once
# Fixed, so that the bytes do not depend on how many threads the program uses. On macOS two OpenMP runtimes, torch's and
# faiss's, crash each other with more than one thread (faiss-wheels #73).
THREADS = 1 if sys.platform == "darwin" else 4
MAPPED = sys.platform in ("linux", "win32")  # where faiss can map a file without copying; elsewhere it is read whole

_limits = threading.Lock()


def usable_faiss():
    """The faiss module, or None with a line in the log where it is missing or too old to read files safely."""
    if sys.platform == "darwin":
        import torch  # noqa: F401  must come first there: see THREADS
    try:
        import faiss
    except ImportError:
        log.warning("faiss is not installed: searching exactly, slower on large libraries. Install faiss-cpu>=1.15.1.")
        return None
    if tuple(int(part) for part in faiss.__version__.split(".")[:3] if part.isdigit()) < FAISS_MIN:
        log.warning("faiss %s is too old to be safe: searching exactly. Install faiss-cpu>=1.15.1.", faiss.__version__)
        return None
    if sys.platform == "darwin":
        faiss.omp_set_num_threads(1)
    return faiss


def open_lists(
    embeddings: np.ndarray,
    folder: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> faiss.IndexIVF:
    """The lists of `embeddings` (N, D): mapped from `folder` where they are there and right, else built and kept there.

    Raises BusyError while another process builds them. A folder that cannot be written costs a new build next time.
    """
    if folder is None:
        return build_lists(embeddings, progress)
    recipe = _recipe(embeddings)
    lists = _read(folder, recipe)
    if lists is not None:
        return lists
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder / "ivf.lock"):
            sweep_temporaries(folder)
            lists = build_lists(embeddings, progress)
            _write(folder, recipe, lists)
        return _read(folder, recipe) or lists  # mapped: the memory of the build is given back
    except OSError as error:
        log.warning("The index cannot be kept: %s", error)
    return build_lists(embeddings, progress) if lists is None else lists


def list_count(rows: int) -> int:
    """sqrt(N): a list then has about as many rows as there are lists."""
    return max(1, min(round(math.sqrt(rows)), rows // 8, MAX_LISTS))


def table_bytes(rows: int, dim: int) -> int:
    """faiss asks for room for a table of so many bytes when it reads the file, although inner products need none."""
    return list_count(rows) * _parts(dim) * CODES * 4 + 64


def _parts(dim: int) -> int:
    """Of a row's dimensions, each with a code: pairs, or single ones where their number is odd."""
    return dim if dim % 2 else dim // 2


def build_lists(embeddings: np.ndarray, progress: Callable[[int, int], None] | None = None) -> faiss.IndexIVF:
    """Lists round spherical k-means centers, of codes of half a byte for two dimensions of a row's difference from its
    center, laid out so that a processor looks up 32 at once (product quantization in registers, André et al. 2017). The same
    embeddings, faiss and processor give the same bytes.

    Memory: the codes, the sample and one block. embeddings: (N, D), N >= FEWEST.
    """
    import faiss

    count, dim = embeddings.shape
    lists = list_count(count)
    chosen = np.random.Generator(np.random.PCG64(SEED)).choice(count, min(count, SAMPLE * lists), replace=False)
    total, done = ITERATIONS * len(chosen) + count, 0
    progress = progress or (lambda done, total: None)

    def step(rows: int) -> None:
        nonlocal done
        progress(done, total)
        done += rows

    with _threads(faiss):
        sample = np.ascontiguousarray(embeddings[np.sort(chosen)], np.float32)
        centers = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQFastScan(centers, dim, lists, _parts(dim), BITS, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = True
        index.pq.cp.min_points_per_centroid = 1  # else a line on stderr for a small library
        _train(faiss, sample, centers, lists, lambda: step(len(sample)))
        index.train(sample)
        for start in range(0, count, BLOCK):
            block = np.ascontiguousarray(embeddings[start : start + BLOCK], np.float32)
            step(len(block))
            index.add(block)
    progress(total, total)
    return index


def _train(faiss, sample: np.ndarray, centers: faiss.IndexFlatIP, lists: int, step: Callable[[], None]) -> None:
    """Put the k-means centers of `sample` (N, D) into `centers`."""
    means = faiss.Clustering(sample.shape[1], lists)
    means.spherical, means.seed, means.niter = True, SEED, 1
    means.min_points_per_centroid, means.max_points_per_centroid = 1, SAMPLE
    for _ in range(ITERATIONS):  # each call goes on from the centers of the last
        step()
        means.train(sample, centers)


def _recipe(embeddings: np.ndarray) -> dict:
    """What the file must have been made of. The caller's key names the embeddings; 64 rows catch one that does not."""
    import faiss

    some = np.linspace(0, len(embeddings) - 1, 64).astype(np.int64)
    rows = hashlib.sha256(np.ascontiguousarray(embeddings[some], np.float32).tobytes()).hexdigest()
    return {"version": VERSION, "faiss": faiss.__version__, "shape": list(embeddings.shape), "rows": rows}


def _write(folder: Path, recipe: dict, lists: faiss.IndexIVF) -> None:
    import faiss

    digest = hashlib.sha256()

    def write(file) -> None:
        def both(data: bytes) -> int:
            digest.update(data)
            return file.write(data)

        faiss.write_index(lists, faiss.PyCallbackIOWriter(both, 1 << 20))

    write_atomic(folder / FILE, write)
    write_atomic(folder / METADATA, canonical_json({"recipe": recipe, "sha256": digest.hexdigest()}))


def _read(folder: Path, recipe: dict) -> faiss.IndexIVF | None:
    """The lists in `folder`, mapped; None, with a line in the log, where they are missing, damaged or of other rows."""
    import faiss

    path = folder / FILE
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        if metadata["recipe"] != recipe:
            log.info("The index in %s is of other vectors or of another version: building it anew.", folder)
            return None
        if Verdicts(folder).sha256(path) != metadata["sha256"]:
            log.warning("The index in %s is damaged: building it anew.", folder)
            return None
        with _tight_limits(faiss, path.stat().st_size + table_bytes(*recipe["shape"])):
            lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if MAPPED else 0)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        log.warning("The index in %s cannot be read (%s): building it anew.", folder, error)
        return None
    return lists


@contextmanager
def _tight_limits(faiss, size: int):
    """Let faiss allocate no more than `size` bytes. The limits belong to the process, so they are put back."""
    with _limits:
        old = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(1 << 20)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(old[0])
            faiss.set_deserialization_loop_limit(old[1])


@contextmanager
def _threads(faiss):
    old = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(THREADS)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(old)
