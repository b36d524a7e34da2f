"""A starting encoder with headroom: caption noise is tuned until its R@1 on validation photos lies between two bounds.

An encoder that already finds everything leaves nothing for negatives to teach. Only the noise is tuned, and only on the
validation photos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from realrag.encoders.small_net import load_small_encoder, save_small_encoder
from realrag.errors import RealRAGError

from .train import EncoderJob, train_encoder, training_of
from .trainer import EncoderConfig

MEASURE = "R@1"
TRIALS = 6  # the last step is then 1/64 of noise


def tune(
    measure: Callable[[float], float], least: float, most: float, trials: int = TRIALS
) -> list[tuple[float, float]]:
    """[(noise, measure(noise))]: bisects 0..1 until a measure lies from `least` to `most`.

    Where all are too low, the last trial has no noise, which is the best possible encoder."""
    low, high, tried = 0.0, 1.0, []
    while len(tried) < trials:
        hopeless = len(tried) == trials - 1 and low == 0.0
        noise = 0.0 if hopeless else (low + high) / 2
        tried.append((noise, measure(noise)))
        if least <= tried[-1][1] <= most:
            break
        low, high = (noise, high) if tried[-1][1] > most else (low, noise)
    return tried


def chosen(tried: list[tuple[float, float]], least: float, most: float) -> tuple[float, float]:
    """The trial nearest to the bounds, of equals the first."""
    return min(tried, key=lambda trial: max(least - trial[1], trial[1] - most, 0.0))


def find_headroom(
    config: EncoderConfig, job: EncoderJob, out: Path, bounds: tuple[float, float], *, trials: int = TRIALS
) -> dict[str, Any]:
    """Train encoders until one lies within `bounds`, write that one (else the nearest) to `out`, and return the search.

    Each trial is a file in the scratch folder, and a finished one is not trained again. The metadata of `out` hold the
    search: {"tuned", "measure", "bounds", "trials": [[noise, R@1]], "within"}."""
    least, most = bounds
    if not 0 <= least < most <= 1:
        raise RealRAGError(f"headroom is {least} to {most}; it needs 0 <= LEAST < MOST <= 1, for example 0.45 0.7.")
    scratch, log = job.scratch or out.parent, job.log
    scratch.mkdir(parents=True, exist_ok=True)
    job = replace(job, scratch=scratch)

    def trial(noise: float) -> float:
        log(f"captions with noise {noise:.4f}")
        asked, path = replace(config, noise=noise), _trial(scratch, noise)
        metadata = training_of(path) if path.is_file() else {}
        if metadata.get("config") != asdict(asked) or any(
            metadata.get(name) != value for name, value in job.about.items()
        ):
            metadata = {"validation": train_encoder(asked, job, path)}
        path.with_suffix(".checkpoint.safetensors").unlink(missing_ok=True)
        return metadata["validation"][MEASURE]

    tried = tune(trial, least, most, trials)
    noise, reached = chosen(tried, least, most)
    search = {
        "tuned": "noise", "measure": f"{MEASURE} on the validation photos", "bounds": [least, most],
        "trials": [list(one) for one in tried], "within": least <= reached <= most,
    }  # fmt: skip
    best = _trial(scratch, noise)
    save_small_encoder(load_small_encoder(best), out, {**training_of(best), "search": search})
    found = "lies within" if search["within"] else "is the nearest to"
    log(f"{out}: noise {noise:.4f}, {MEASURE} {reached:.3f} on validation photos {found} {least:g} to {most:g}")
    return search


def _trial(scratch: Path, noise: float) -> Path:
    return scratch / f"noise-{noise:.6f}.safetensors"
