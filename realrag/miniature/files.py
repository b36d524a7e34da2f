"""Where the miniatures lie in the package: one generator a family, the autoencoder they share, one adapter a family."""

from __future__ import annotations

from pathlib import Path

from ..errors import RealRAGError

FOLDER = Path(__file__).parent.parent / "assets" / "miniature"
NAMES = {"SD3 miniature": "sd3", "Flux miniature": "flux"}  # in words -> family


def generator_file(family: str) -> Path:
    """The generator of a family of NAMES."""
    return FOLDER / f"{family}.safetensors"


def adapter_file(family: str) -> Path:
    """The reference adapter of a family of NAMES."""
    return FOLDER / f"{family}_adapter.safetensors"


def autoencoder_file() -> Path:
    return FOLDER / "autoencoder.safetensors"


def judge_file() -> Path:
    """Who tells what a picture shows."""
    return FOLDER / "judge.safetensors"


def families_there() -> list[str]:
    """Those of NAMES that can be loaded: their generator and the autoencoder are in the package."""
    found = [name for name, family in NAMES.items() if generator_file(family).is_file()]
    return found if autoencoder_file().is_file() else []


def check_there(path: Path) -> Path:
    """The path; RealRAGError where no file is."""
    if not path.is_file():
        raise RealRAGError(
            f"{path} is not there, though it comes with RealRAG. Fetch the pack again: `git pull` in its folder, or "
            "install it anew."
        )
    return path
