"""Photos -> one vector each, with the pictures to keep, in shards that are written whole: a killed run loses one shard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .. import artifact
from ..encoders.adaptive_batch import AdaptiveBatch
from ..encoders.base import Encoder
from ..errors import PhotoError
from ..files import canonical_json, sha256_bytes
from ..photos.blank import one_color
from ..photos.decode import decode
from ..photos.keep import encode_jpeg, encode_kept, shrink, shrink_to_area
from ..photos.scan import Candidate, Progress, in_order

# Small enough that a killed run repeats seconds of work, large enough that the shard files do not matter.
SHARD = 256


@dataclass(frozen=True)
class Sizes:
    """Bounds in pixels on the kept pictures and thumbnails, and their JPEG quality.

    bound: what `picture` bounds: "longest" the longest side, "area" the pixels in all, as many as a square of that side
    has, so that a panorama keeps its height. thumbnail: always the longest side."""

    picture: int = 768
    thumbnail: int = 256
    quality: int = 92
    bound: str = "longest"


# Of new bundles where nobody asks for another size.
DEFAULT_SIZES = Sizes(bound="area")


@dataclass(frozen=True)
class Item:
    """What is kept of one photo: raw embedding (D,) fp16, the bytes of its pictures; `thumbnail` is None where the picture is as
    small."""

    sha256: str
    embedding: np.ndarray
    picture: bytes
    thumbnail: bytes | None


def prepare(candidate: Candidate, encoder: Encoder, sizes: Sizes):
    """Read and decode one photo: (pixels, picture, thumbnail). PhotoError when it cannot be used, or shows nothing."""
    data, side = candidate.source.read(), max(sizes.picture, 2 * encoder.preprocess.size)
    exact = side == sizes.picture
    if sizes.bound == "area":
        picture = decode(data, candidate.file, area=side * side, exact=exact)
        picture = shrink_to_area(picture, sizes.picture * sizes.picture)
    else:
        picture = shrink(decode(data, candidate.file, longest=side, exact=exact), sizes.picture)
    if color := one_color(picture):
        what = "white, or transparent, all over" if color == "white" else f"{color} all over"
        raise PhotoError(
            "blank",
            f"{candidate.file}: shows nothing, it is {what}. In an answer it would take the place of a photo that does.",
        )
    thumbnail = None
    if max(picture.size) > sizes.thumbnail:
        thumbnail = encode_jpeg(shrink(picture, sizes.thumbnail, gap=1.5), sizes.quality)
    return encoder.prepare(picture), encode_kept(picture, sizes.quality), thumbnail


def suited(encoder: Encoder, batch: int, workers: int, processes: int = 1) -> tuple[int, int]:
    """(batch, workers) with what suits the encoder's device in place of 0: a CPU is kept busy by few photos, a GPU
    takes a whole shard at once if it fits, and all cores to decode for it. `processes` share this machine's cores."""
    on_cpu = encoder.place[0].type == "cpu"
    cores = max(4, (os.cpu_count() or 4) // processes)
    return batch or (32 if on_cpu else SHARD), workers or (4 if on_cpu else cores)


def encode_shard(
    prepared, encoder: Encoder, batch: int, adaptive: AdaptiveBatch, tick: Callable[[], None] = lambda: None
):
    """One shard -> (items, {sha256: (reason, message)}). Batches are cut by position, so a resumed run gives equal
    bytes.

    prepared: (candidate, what `prepare` gave or the PhotoError it raised) in order. tick() comes after each batch.
    """
    items: list[Item] = []
    rejected: dict[str, tuple[str, str]] = {}
    waiting: list[tuple[Candidate, tuple]] = []

    def flush() -> None:
        vectors = adaptive.encode(encoder, [pixels for _, (pixels, _, _) in waiting])
        for (candidate, (_, picture, thumbnail)), vector in zip(
            waiting, vectors.to(torch.float16).numpy(), strict=True
        ):
            if not np.isfinite(vector).all() or not vector.any():
                rejected[candidate.sha256] = ("no_vector", f"{candidate.file}: the encoder gave no usable vector.")
            else:
                items.append(Item(candidate.sha256, vector, picture, thumbnail))
        waiting.clear()
        tick()

    for candidate, result in prepared:
        if isinstance(result, PhotoError):
            rejected[candidate.sha256] = (result.reason, str(result))
            continue
        waiting.append((candidate, result))
        if len(waiting) == batch:
            flush()
    if waiting:
        flush()
    return items, rejected


def shard_key(candidates: list[Candidate], encoder: Encoder, sizes: Sizes, batch: int) -> str:
    """Names a shard by all that decides its bytes, so that a shard of another run is never taken for this one's."""
    recipe = [encoder.fingerprint, asdict(sizes), batch, [candidate.sha256 for candidate in candidates]]
    return sha256_bytes(canonical_json(recipe))[:32]


def write_shard(path: Path, items: list[Item], rejected: dict[str, tuple[str, str]], dim: int) -> None:
    def blob(parts: list[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(parts), np.uint8) if any(parts) else np.zeros(0, np.uint8)

    pictures, thumbnails = [item.picture for item in items], [item.thumbnail or b"" for item in items]
    tensors = {
        "embeddings": np.stack([item.embedding for item in items]) if items else np.zeros((0, dim), np.float16),
        "pictures": blob(pictures),
        "thumbnails": blob(thumbnails),
        "lengths": np.array([[len(a), len(b)] for a, b in zip(pictures, thumbnails, strict=True)], np.int64).reshape(
            -1, 2
        ),
    }
    metadata = {"items": json.dumps([item.sha256 for item in items]), "rejected": json.dumps(rejected)}
    artifact.write(path, tensors, metadata)


def shard_contents(path: Path) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """(hashes of the encoded photos, {hash: (reason, message)} of the refused ones), without loading the rest."""
    return _contents(artifact.read_header(path, "a shard of encoded photos", "Delete it and run again.").metadata)


def _contents(metadata: dict[str, str]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    return json.loads(metadata["items"]), {sha: tuple(why) for sha, why in json.loads(metadata["rejected"]).items()}


def read_shard(path: Path) -> list[Item]:
    tensors, metadata = artifact.read_arrays(path)
    pictures, thumbnails = tensors["pictures"].tobytes(), tensors["thumbnails"].tobytes()
    items, at, small = [], 0, 0
    for sha256, embedding, (length, little) in zip(
        _contents(metadata)[0], tensors["embeddings"], tensors["lengths"].tolist(), strict=True
    ):
        thumbnail = thumbnails[small : small + little] if little else None
        items.append(Item(sha256, embedding, pictures[at : at + length], thumbnail))
        at, small = at + length, small + little
    return items


def shard_parts(
    candidates: list[Candidate], encoder: Encoder, folder: Path, sizes: Sizes, batch: int
) -> list[tuple[Path, list[Candidate]]]:
    """The shards of `candidates`, in order: the file of each in `folder`, and what goes into it."""
    parts = (candidates[start : start + SHARD] for start in range(0, len(candidates), SHARD))
    return [(folder / f"{shard_key(part, encoder, sizes, batch)}.safetensors", part) for part in parts]


@contextmanager
def _reused_blocks(count: int):
    """Let Pillow keep this many of its blocks of 16 MiB between pictures: memory that comes new from the system for each
    large photo costs a tenth of its time."""
    from PIL import Image

    before = Image.core.get_blocks_max()
    Image.core.set_blocks_max(max(before, count))
    try:
        yield
    finally:
        Image.core.set_blocks_max(before)
        Image.core.clear_cache(before)


def encode_all(
    parts: list[tuple[Path, list[Candidate]]],
    encoder: Encoder,
    sizes: Sizes = Sizes(),
    *,
    batch: int = 32,
    workers: int = 4,
    progress: Progress = lambda done, total: None,
) -> int:
    """Encode and write the shards that are not there yet; returns how many photos were encoded now.

    Photos are decoded ahead, across the shards' bounds, so that the encoder need not wait. progress(done, total) counts
    photos in written shards; it is called at least once a batch, and may raise to stop.
    """
    total = sum(len(part) for _, part in parts)
    missing = [(path, part) for path, part in parts if not path.is_file()]
    done, encoded = total - sum(len(part) for _, part in missing), 0
    if total:
        progress(done, total)

    def work(candidate: Candidate):
        try:
            return candidate, prepare(candidate, encoder, sizes)
        except PhotoError as error:
            return candidate, error

    adaptive = AdaptiveBatch(batch)
    candidates = (candidate for _, part in missing for candidate in part)
    with _reused_blocks(2 * workers), closing(in_order(candidates, work, workers, batch + 2 * workers)) as prepared:
        for path, part in missing:
            here = islice(prepared, len(part))
            items, rejected = encode_shard(here, encoder, batch, adaptive, lambda: progress(done, total))
            write_shard(path, items, rejected, encoder.dim)
            done, encoded = done + len(part), encoded + len(items)
            progress(done, total)
    return encoded
