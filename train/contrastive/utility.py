"""Measured utility: how much each candidate photo of a prompt helped the picture, measured by a generator.

The idea is REPLUG's (arXiv 2301.12652), where a language model's own loss trains its retriever; using it for pictures is
our step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from realrag import artifact
from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sweep_temporaries
from realrag.validation import is_hex

from ..dataset import Material, Prompt, prompts_hash

FORMAT, VERSION = "realrag-utility", "1"
METADATA = ("measured_by", "unit", "bundle_id", "encoder_fingerprint", "prompts", "key")


class Meter(Protocol):
    """Measures with a generator. name: what is measured, and with what. Larger values are better."""

    name: str
    unit: str

    def __call__(self, prompt: str, photo, id: str) -> float:
        """How much the PIL photo with this id in the bundle, as the only reference, helps the picture of this prompt.

        For example the fall of the generator's loss on a real photo of the class, or of a judge's score with the
        reference minus without it."""


@dataclass(frozen=True)
class Utility:
    """rows (P, C) int64 bundle rows, -1 where there is none; utility (P, C) float32, larger is better, 0 where there is
    no row. metadata: measured_by, unit, bundle_id, encoder_fingerprint, prompts (hash), key (of all inputs)."""

    rows: np.ndarray
    utility: np.ndarray
    metadata: dict[str, str]

    @property
    def spread(self) -> float:
        """Standard deviation of utility within prompts; 1 where nothing differs."""
        there = self.rows >= 0
        means = (self.utility * there).sum(1, keepdims=True) / np.maximum(1, there.sum(1, keepdims=True))
        return float(np.sqrt((((self.utility - means) * there) ** 2).sum() / max(1, there.sum()))) or 1.0


def candidates(material: Material, count: int) -> np.ndarray:
    """(P, count) int64: the photos nearest to each prompt, best first, ties by row; -1 where there are no more.

    Candidates are what would be retrieved, whatever their class: the generator decides, not the label."""
    rows = np.full((len(material.queries), count), -1, np.int64)
    for at, query in enumerate(material.queries):
        best = np.argsort(-(material.photos @ query), kind="stable")[:count]
        rows[at, : len(best)] = best
    return rows


def measure_utility(
    bundle: Bundle,
    prompts: list[Prompt],
    rows: np.ndarray,
    meter: Meter,
    out: Path,
    *,
    save_seconds: float = 20.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Utility:
    """Measure each candidate in `rows` (P, C) of each prompt with `meter` and write `out`.

    An existing file with the same inputs stays; a stopped run resumes from its state, saved every `save_seconds`."""
    metadata = {
        "measured_by": meter.name, "unit": meter.unit, "bundle_id": bundle.id,
        "encoder_fingerprint": bundle.manifest.encoder["fingerprint"], "prompts": prompts_hash(prompts),
    }  # fmt: skip
    rows = np.ascontiguousarray(rows, np.int64)
    metadata["key"] = sha256_bytes(
        canonical_json({**metadata, "rows": sha256_bytes(rows.tobytes()), "shape": rows.shape})
    )
    _check(rows, np.zeros(rows.shape, np.float32), len(prompts), len(bundle.records), "the candidates")
    out, part = Path(out), Path(out).with_suffix(".part.safetensors")
    sweep_temporaries(out.parent)
    if (existing := _existing(out, metadata["key"], len(prompts), len(bundle.records))) is not None:
        return existing[0]
    before = _existing(part, metadata["key"], len(prompts), len(bundle.records))
    values, done = (before[0].utility, before[1]) if before else (np.zeros(rows.shape, np.float32), 0)
    saved_at = time.monotonic()
    for number, (prompt, row) in enumerate(np.argwhere(rows >= 0).tolist()):
        if number < done:
            continue
        record = bundle.records[int(rows[prompt, row])]
        value = float(meter(prompts[prompt].prompt, bundle.image(record), record.id))
        if not np.isfinite(value):
            raise RealRAGError(
                f"{meter.name} gave {value} for {prompts[prompt].prompt!r}; a utility is a finite number."
            )
        values[prompt, row] = value
        progress(number + 1, int((rows >= 0).sum()))
        if time.monotonic() - saved_at >= save_seconds:
            write_utility(Utility(rows, values, metadata), part, done=number + 1)
            saved_at = time.monotonic()
    found = Utility(rows, values, metadata)
    write_utility(found, out)
    part.unlink(missing_ok=True)
    return found


def _existing(path: Path, key: str, prompts: int, photos: int) -> tuple[Utility, int] | None:
    try:
        found, done = _read(path, prompts, photos)
    except RealRAGError:
        return None
    return (found, done) if found.metadata["key"] == key else None


def write_utility(found: Utility, path: Path, *, done: int = -1) -> None:
    """done: how many candidates are measured so far; -1 for all."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "done": str(done),
        **{name: found.metadata[name] for name in METADATA},
    }
    artifact.write(path, {"rows": found.rows, "utility": found.utility}, metadata)


def read_utility(path: Path, prompts: int, photos: int) -> Utility:
    """A finished table for that many prompts and photos. RealRAGError names what is wrong with it."""
    found, done = _read(path, prompts, photos)
    if done != -1:
        raise RealRAGError(f"{path} is unfinished: {done} candidates were measured. Run the measurement to its end.")
    return found


def _read(path: Path, prompts: int, photos: int) -> tuple[Utility, int]:
    tensors, metadata = artifact.read(path, FORMAT, VERSION, "measured utility", "Measure it again.")
    try:
        if set(tensors) != {"rows", "utility"}:
            raise ValueError(f"tensors {sorted(tensors)}")
        rows, values = tensors["rows"].numpy(), tensors["utility"].numpy()
        stated, done = {name: metadata[name] for name in METADATA}, int(metadata["done"])
        if not stated["measured_by"] or not all(is_hex(stated[name], 64) for name in METADATA[2:]):
            raise ValueError("its metadata do not name the meter, bundle, encoder and prompts")
        _check(rows, values, prompts, photos, str(path))
    except (ValueError, KeyError) as error:
        raise RealRAGError(f"{path} holds no usable utility ({error}). Measure it again.") from None
    return Utility(rows, values, stated), done


def _check(rows: np.ndarray, values: np.ndarray, prompts: int, photos: int, what: str) -> None:
    if rows.dtype != np.int64 or rows.ndim != 2 or values.dtype != np.float32 or values.shape != rows.shape:
        raise RealRAGError(f"{what}: rows {rows.shape} of {rows.dtype}, utility {values.shape} of {values.dtype}.")
    if len(rows) != prompts or rows.min(initial=0) < -1 or rows.max(initial=-1) >= photos:
        raise RealRAGError(f"{what}: {len(rows)} prompts with rows up to {rows.max(initial=-1)}; there are {prompts} prompts "
                           f"and {photos} photos.")  # fmt: skip
    if not np.isfinite(values).all() or values[rows < 0].any():
        raise RealRAGError(f"{what}: a utility is not finite, or is set where there is no candidate.")
    ordered = np.sort(np.where(rows < 0, -1 - np.arange(rows.shape[1]), rows), axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise RealRAGError(f"{what}: a prompt has the same candidate twice.")
