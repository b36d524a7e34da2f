"""The recipe of an adapter: a TOML file with the settings that differ from these defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realrag import SMALL_ENCODER
from realrag.errors import RealRAGError

from ..sections import CONFIGS, read_sections
from .bases import DIFFUSERS, PRECISIONS
from .new_adapter import AdapterConfig

MINIATURE = "miniature"
RECIPES = CONFIGS / "adapter"  # those that ship
OPTIMISERS = ("adamw", "adamw8bit")


@dataclass(frozen=True)
class BaseConfig:
    """The generator. Paths are relative to the recipe's folder, or absolute."""

    kind: str = MINIATURE
    path: str = ""  # miniature: its .safetensors; of diffusers: the folder of a saved pipeline
    family: str = ""  # "sd3" or "flux": a new miniature, trained jointly, where no path is given
    autoencoder: str = ""  # miniatures only
    name: str = ""  # readable, for the adapter's metadata; "" for the default of the kind
    precision: str = "fp32"
    checkpointing: bool = False  # recompute activations in the backward pass: slower, less memory
    guidance: float = 1.0  # the guidance input of FLUX.1 dev while training
    shift: float = 0.0  # of the noise levels toward more noise; 0 for the default of the kind

    paths = ("path", "autoencoder")

    def __post_init__(self) -> None:
        if self.kind not in (MINIATURE, *DIFFUSERS) or self.precision not in PRECISIONS:
            raise RealRAGError(
                f"Base kind {self.kind!r}, precision {self.precision!r}: kinds are {', '.join((MINIATURE, *DIFFUSERS))}, "
                f"precisions {', '.join(PRECISIONS)}."
            )
        if self.kind == MINIATURE and self.precision != "fp32":
            raise RealRAGError("A miniature is trained in fp32; leave out precision.")


@dataclass(frozen=True)
class DataConfig:
    """Photos by class. In `photos` every sub-folder is a class; the other folders are the miniatures' three sets."""

    photos: str = ""
    grocery: str = ""
    clothing: str = ""
    subjects: str = ""
    held_out: tuple[str, ...] = ()  # names of classes that are only measured on
    aside: float = 0.15  # fraction of each class's photos that are only measured on (grocery has its own split)
    size: int = 128  # of the pictures, in pixels
    plain: float = 0.5  # fraction of pairs without augmentation
    looks: int = 4  # augmentations of each class, the plain photos among them
    sentences: int = 6  # captions of each class
    kinds: float = 0.5  # fraction of captions with the kind only ("milk"), so that the photo must show which
    # Fraction of captions beside a reference replaced by that of a confusable class, so that the adapter learns to trust
    # the photo over the words.
    cousins: float = 0.0
    encoder: str = SMALL_ENCODER
    seed: int = 0

    paths = ("photos", "grocery", "clothing", "subjects")


@dataclass(frozen=True)
class AdapterFitConfig:
    """Our choices, unless marked. Drops are fractions of rows (without the reference, the text, or both)."""

    steps: int = 20_000
    batch: int = 16
    accumulate: int = 1  # batches per step
    rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 200
    cool_down: float = 0.25  # fraction of the steps, at the end, over which the learning rate decays
    clip: float = 1.0
    averaging: float = 0.999
    optimiser: str = "adamw"
    autocast: bool = False  # bf16 matrix products; always use it on a GPU
    drop_image: float = 0.1  # IP-Adapter drops 5 % each
    drop_text: float = 0.1
    drop_both: float = 0.1
    together: bool = False  # train the generator jointly (miniatures only) and write it beside the adapter
    spread: float = 1.0  # of the normal distribution behind the noise levels (arXiv 2403.03206, section 3.1)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise RealRAGError(f"No optimizer is called {self.optimiser!r}; known are {', '.join(OPTIMISERS)}.")
        drops = self.drop_image, self.drop_text, self.drop_both
        if min(self.steps, self.batch, self.accumulate) < 1 or min(drops) < 0 or sum(drops) >= 1 or self.rate <= 0:
            raise RealRAGError(
                f"{self}: steps, batch and accumulate start at 1, drops sum to less than 1, the rate is above 0."
            )


@dataclass(frozen=True)
class GuardConfig:
    """The reference-shuffle gap: how often it is measured, and when its absence ends the training."""

    every: int = 1000  # steps
    tuples: int = 128
    patience: int = 6000  # steps without a positive gap on seen classes before stopping; 0 never stops


@dataclass(frozen=True)
class AdapterRecipe:
    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    fit: AdapterFitConfig = field(default_factory=AdapterFitConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def metadata(self) -> dict[str, Any]:
        """The settings that decide the result, without paths of this machine."""
        settings = asdict(self)
        for section, kind in (("base", BaseConfig), ("data", DataConfig)):
            settings[section] = {key: value for key, value in settings[section].items() if key not in kind.paths}
        return settings

    def settled(self) -> dict[str, Any]:
        """The settings that must stay the same when a run is resumed."""
        settings = self.metadata()
        settings["fit"] = {key: value for key, value in settings["fit"].items() if key not in ("steps", "cool_down")}
        return settings


SECTIONS = {
    "base": BaseConfig,
    "data": DataConfig,
    "adapter": AdapterConfig,
    "fit": AdapterFitConfig,
    "guard": GuardConfig,
}


def read_adapter_recipe(name: str, given: dict[str, dict[str, Any]] | None = None) -> AdapterRecipe:
    """From a file, or by the name of one that ships ("miniature-sd3"). given: by section, from the command line."""
    path = Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.toml"))
        if name not in known:
            raise RealRAGError(f"No recipe {name}. Give a TOML file, or one of those that ship: {', '.join(known)}.")
        path = RECIPES / f"{name}.toml"
    return AdapterRecipe(**read_sections(path, SECTIONS, given))
