"""Paths of the miniatures in the package: one generator and one adapter per family, and the autoencoder they share."""

from __future__ import annotations

from pathlib import Path

from ..errors import RealRAGError

FOLDER = Path(__file__).parent.parent / "assets" / "miniature"
NAMES = {"SD3 miniature": "sd3", "Flux miniature": "flux"}  # display name -> family


def generator_file(family: str) -> Path:
    """The generator of a family of NAMES."""
    return FOLDER / f"{family}.safetensors"


def adapter_file(family: str) -> Path:
    """The reference adapter of a family of NAMES."""
    return FOLDER / f"{family}_adapter.safetensors"


def autoencoder_file() -> Path:
    return FOLDER / "autoencoder.safetensors"


def judge_file() -> Path:
    """The classifier that names what a picture shows (classifier.py)."""
    return FOLDER / "judge.safetensors"


def families_there() -> list[str]:
    """Names from NAMES whose generator is in the package; empty without the autoencoder."""
    found = [name for name, family in NAMES.items() if generator_file(family).is_file()]
    return found if autoencoder_file().is_file() else []


def check_there(path: Path) -> Path:
    """The path itself. RealRAGError if there is no such file."""
    if not path.is_file():
        raise RealRAGError(
            f"{path} is missing, although it ships with RealRAG. Run `git pull` in the pack's folder, or "
            "reinstall the pack."
        )
    return path
