"""A starting encoder with headroom: noise in its captions is raised or lowered until its R@1 on validation photos lies
between two bounds. Nothing else is tuned, and nothing but the validation photos is looked at: an encoder that finds
everything already leaves no negative anything to teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from realrag.encoders.small_net import load_small_encoder, save_small_encoder
from realrag.errors import RealRAGError

from .captioned_photos import PhotoSet
from .model_card import training_of
from .train import Say, train_encoder
from .trainer import EncoderConfig

MEASURE = "R@1"
TRIALS = 6  # the last step is then 1/64 of noise


def tune(
    measure: Callable[[float], float], least: float, most: float, trials: int = TRIALS
) -> list[tuple[float, float]]:
    """[(noise, measure(noise))]: the middle of what is left of 0..1, until one lies from `least` to `most`.

    Where all are too low, the last trial is without noise: the best that can be had."""
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
    config: EncoderConfig,
    data: PhotoSet,
    val: PhotoSet,
    mobilenet: Path,
    out: Path,
    bounds: tuple[float, float],
    *,
    trials: int = TRIALS,
    about: dict[str, Any] | None = None,
    scratch: Path | None = None,
    say: Say = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Trains encoders until one lies within `bounds`, writes that one (else the nearest) to `out`, and returns the
    search.

    Each trial is a file in `scratch`, and a finished one is not trained again. The search stands in the metadata of
    `out`: {"tuned", "measure", "bounds", "trials": [[noise, R@1]], "within"}."""
    least, most = bounds
    if not 0 <= least < most <= 1:
        raise RealRAGError(f"headroom is {least} to {most}; it needs 0 <= LEAST < MOST <= 1, for example 0.45 0.7.")
    scratch, about = scratch or out.parent, about or {}
    scratch.mkdir(parents=True, exist_ok=True)

    def trial(noise: float) -> float:
        say(f"captions with noise {noise:.4f}")
        asked, path = replace(config, noise=noise), _trial(scratch, noise)
        facts = training_of(path) if path.is_file() else {}
        if facts.get("config") != asdict(asked) or any(facts.get(name) != value for name, value in about.items()):
            facts = {"validation": train_encoder(
                asked, data, val, mobilenet, path, about=about, scratch=scratch, say=say, **options
            )}  # fmt: skip
        path.with_suffix(".checkpoint.safetensors").unlink(missing_ok=True)
        return facts["validation"][MEASURE]

    tried = tune(trial, least, most, trials)
    noise, reached = chosen(tried, least, most)
    search = {
        "tuned": "noise", "measure": f"{MEASURE} on the validation photos", "bounds": [least, most],
        "trials": [list(one) for one in tried], "within": least <= reached <= most,
    }  # fmt: skip
    best = _trial(scratch, noise)
    save_small_encoder(load_small_encoder(best), out, {**training_of(best), "search": search})
    found = "lies within" if search["within"] else "is the nearest to"
    say(f"{out}: noise {noise:.4f}, {MEASURE} {reached:.3f} on validation photos {found} {least:g} to {most:g}")
    return search


def _trial(scratch: Path, noise: float) -> Path:
    return scratch / f"noise-{noise:.6f}.safetensors"
