"""Stage 2: the generator draws every prompt, and the drawings are embedded (paper, eq. 3; several seeds are our choice).

Each drawing is written as a JPEG and read back like the library's photos, so that the file format gives nothing away."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from realrag import artifact
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sweep_temporaries, write_atomic, write_json
from realrag.indexing.shards import Sizes
from realrag.photos.decode import decode
from realrag.photos.keep import encode_jpeg, shrink

from ..dataset import Prompt
from ..generators import Generator
from ..generators.errors import DrawingFailed, GeneratorError
from ..ridge import Ridge
from .drawings import Drawings

log = logging.getLogger(__name__)

DRAWN = "drawn.safetensors"
BATCH = 32
NAMED = 10  # bad drawings that are named in the log
PROBE = 1e-2  # strength of the probe that tells real from drawn


def picture_name(metadata: dict, prompt: str, seed: int, sizes: Sizes) -> str:
    """The file name of one drawing: a hash of everything that it depends on, so a changed workflow or prompt draws it
    again."""
    return sha256_bytes(canonical_json([metadata, prompt, seed, sizes.picture, sizes.quality]))[:32] + ".jpg"


def imagine(
    folder: Path,
    prompts: Sequence[Prompt],
    generator: Generator,
    encoder: Encoder,
    *,
    seeds: int = 2,
    sizes: Sizes = Sizes(),
    real: np.ndarray | None = None,
    max_bad: float = 0.1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Draws and embeds into `folder`. Returns (P, S, D) float16 raw embeddings of P prompts x S seeds, also in DRAWN.

    Existing pictures are not drawn again. Drawings of one color, equal ones and failed ones are named in the log and left
    out: their vectors are 0. real: (N, D) raw embeddings of the library, for the real-versus-drawn AUC, which is logged and
    written to imagine.json. Raises GeneratorError, also where more than `max_bad` of the drawings are left out.
    """
    if not prompts or seeds < 1:
        raise GeneratorError(
            f"{len(prompts)} prompts x {seeds} seeds leave nothing to draw. Give at least one of each."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(folder)
    names = [[picture_name(generator.metadata, p.prompt, seed, sizes) for seed in range(seeds)] for p in prompts]
    seen = _draw_missing(folder, prompts, names, generator, sizes, max_bad, progress)
    bad = [[(prompt.prompt, seed) in seen.bad for seed in range(seeds)] for prompt in prompts]
    for line in seen.named(NAMED):
        log.warning("left out: %s", line)
    if len(seen.bad) > NAMED:
        log.warning("left out: %d more, all in imagine.json", len(seen.bad) - NAMED)
    key = sha256_bytes(canonical_json([encoder.fingerprint, sizes.picture, names, *([bad] if seen.bad else [])]))
    if (cached := _cached(folder / DRAWN, key)) is not None:
        return cached
    if not len(good := np.flatnonzero(~np.array(bad).reshape(-1))):
        raise GeneratorError(f"None of the {len(prompts) * seeds} drawings can be used. {seen.cause()}")
    files = [folder / name for row in names for name in row]
    vectors = _embed([files[at] for at in good], encoder, sizes)
    drawn = np.zeros((len(files), vectors.shape[1]), np.float16)
    drawn[good] = vectors
    drawn = drawn.reshape(len(prompts), seeds, -1)
    metadata = {
        "generator": generator.metadata,
        "prompts": len(prompts),
        "seeds": seeds,
        "pictures": names,
        **seen.report(),
    }
    if real is not None and len(real) > 1 and len(vectors) > 1:
        metadata["real_versus_drawn_auc"] = auc = round(separability(real, vectors), 4)
        log.info("Real-versus-drawn AUC %.3f (0.5: indistinguishable to a linear probe, 1: fully apart).", auc)
    _save(folder / DRAWN, drawn, generator, encoder, key)
    write_json(folder / "imagine.json", metadata)
    return drawn


def _draw_missing(
    folder: Path, prompts: Sequence[Prompt], names: list[list[str]], generator: Generator, sizes: Sizes, max_bad: float,
    progress: Callable[[int, int], None],
) -> Drawings:  # fmt: skip
    """Draws what is not there yet, and looks at every picture."""
    places = [(folder / name, prompt.prompt, seed) for prompt, row in zip(prompts, names, strict=True)
              for seed, name in enumerate(row)]  # fmt: skip
    seen, missing = Drawings(len(places), max_bad), [place for place in places if not place[0].is_file()]
    for file, prompt, seed in places:
        if file.is_file():
            seen.add((prompt, seed), file.read_bytes())
    done = len(places) - len(missing)
    progress(done, len(places))  # what was there does not count toward the speed
    for file, prompt, seed in missing:
        try:
            seen.add((prompt, seed), draw_one(file, generator, prompt, seed, sizes))
        except DrawingFailed as error:
            seen.failed((prompt, seed), error)
        done += 1
        progress(done, len(places))
    return seen


def draw_one(file: Path, generator: Generator, prompt: str, seed: int, sizes: Sizes) -> bytes:
    """The JPEG bytes of one drawing, which are in `file` afterward, and are taken from there if it exists."""
    if not file.is_file():
        picture = generator.draw(prompt, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, encode_jpeg(shrink(picture.convert("RGB"), sizes.picture), sizes.quality))
    return file.read_bytes()


def _save(path: Path, drawn: np.ndarray, generator: Generator, encoder: Encoder, key: str) -> None:
    metadata = {
        "generator": json.dumps(generator.metadata, sort_keys=True),
        "encoder_fingerprint": encoder.fingerprint,
        "key": key,
    }
    artifact.write(path, {"embeddings": drawn}, metadata)


def _cached(path: Path, key: str) -> np.ndarray | None:
    """The cached embeddings of the same pictures, or None."""
    try:
        arrays, metadata = artifact.read_arrays(path)
    except RealRAGError:
        return None
    return arrays.get("embeddings") if metadata.get("key") == key else None


def _embed(files: list[Path], encoder: Encoder, sizes: Sizes) -> np.ndarray:
    """(N, D) float16 raw embeddings, with the steps of `realrag.indexing.shards.prepare`."""
    rows = []
    for start in range(0, len(files), BATCH):
        batch = []
        for file in files[start : start + BATCH]:
            image = decode(file.read_bytes(), file.name, longest=max(sizes.picture, 2 * encoder.preprocess.size))
            batch.append(encoder.prepare(shrink(image, sizes.picture)))
        rows.append(encoder.encode_images(torch.stack(batch)).to(torch.float16).numpy())
    drawn = np.concatenate(rows)
    bad = ~np.isfinite(drawn.astype(np.float32)).all(1) | ~drawn.any(1)
    if bad.any():
        raise GeneratorError(f"The encoder gives no usable vector for {files[int(bad.argmax())]}. Look at the picture.")
    return drawn


def separability(real: np.ndarray, drawn: np.ndarray, seed: int = 0) -> float:
    """AUC with which a ridge probe tells real (N, D) from drawn (M, D) vectors, by two-fold cross-validation. Both kinds
    weigh alike."""
    rows = np.concatenate([real, drawn]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    is_drawn = np.arange(len(rows)) >= len(real)
    fold = np.empty(len(rows), int)
    rng = np.random.default_rng(seed)
    for part in (~is_drawn, is_drawn):
        fold[rng.permutation(np.flatnonzero(part))] = np.arange(part.sum()) % 2
    aucs = []
    for held in (0, 1):
        learn, test = fold != held, fold == held
        weight = np.where(is_drawn[learn], 0.5 / max(1, is_drawn[learn].sum()), 0.5 / max(1, (~is_drawn[learn]).sum()))
        ridge = Ridge(rows[learn], np.where(is_drawn[learn], 1.0, -1.0)[:, None], weight)
        scores = (rows[test] - ridge.x_mean) @ ridge.weights(PROBE)
        aucs.append(auc(scores[:, 0], is_drawn[test]))
    return float(np.mean(aucs))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann-Whitney)."""
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return 0.5
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / 2 / len(positives) / len(negatives))
