"""A recipe for an adapter: a TOML file of what differs from these defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realrag import DEFAULT_ENCODER
from realrag.errors import RealRAGError

from ..sections import CONFIGS, read_sections
from .bases import DIFFUSERS, PRECISIONS
from .new_adapter import AdapterConfig

MINIATURE = "miniature"
RECIPES = CONFIGS / "adapter"  # those that come along
OPTIMISERS = ("adamw", "adamw8bit")


@dataclass(frozen=True)
class BaseConfig:
    """The frozen generator. Paths are relative to the recipe's folder, or absolute."""

    kind: str = MINIATURE
    path: str = ""  # miniature: its .safetensors; of diffusers: the folder of a saved pipeline
    family: str = ""  # "sd3" or "flux": a miniature that begins anew and learns along, where no path is given
    autoencoder: str = ""  # miniature alone
    name: str = ""  # in words, for the adapter's file; "" for the kind's own
    precision: str = "fp32"
    checkpointing: bool = False  # work activations out again in the backward pass: slower, less memory
    guidance: float = 1.0  # what FLUX.1 dev is told while training
    shift: float = 0.0  # of the noise levels towards more noise; 0 for the kind's own

    paths = ("path", "autoencoder")

    def __post_init__(self) -> None:
        if self.kind not in (MINIATURE, *DIFFUSERS) or self.precision not in PRECISIONS:
            raise RealRAGError(
                f"Base kind {self.kind!r}, precision {self.precision!r}: kinds are {', '.join((MINIATURE, *DIFFUSERS))}, "
                f"precisions {', '.join(PRECISIONS)}."
            )
        if self.kind == MINIATURE and self.precision != "fp32":
            raise RealRAGError("A miniature is trained on in fp32; leave out precision.")


@dataclass(frozen=True)
class DataConfig:
    """Things: each has some photos. In `photos` every sub-folder is one; the others are the three sets of the
    miniatures."""

    photos: str = ""
    grocery: str = ""
    clothing: str = ""
    subjects: str = ""
    held_out: tuple[str, ...] = ()  # names of things that are only measured on
    aside: float = 0.15  # share of each thing's photos that are only measured on (grocery has a split of its own)
    size: int = 128  # of the pictures, in pixels
    plain: float = 0.5  # share of pairs in the plain look
    looks: int = 4  # of each thing, the plain one among them
    sentences: int = 6  # of each thing
    kinds: float = 0.5  # share of sentences that say the kind alone ("milk"), so that the photo has to say which
    cousins: float = (
        0.0  # share of sentences beside a reference that name a thing with a name near to the right one: the
    )
    # words for something that the generator does not know mean something else to it, and the photo has to overrule them
    encoder: str = DEFAULT_ENCODER
    seed: int = 0

    paths = ("photos", "grocery", "clothing", "subjects")


@dataclass(frozen=True)
class FitConfig:
    """Our choices, unless marked. Drops are shares of rows (the reference's, the words', both)."""

    steps: int = 20_000
    batch: int = 16
    accumulate: int = 1  # batches a step
    rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 200
    cool_down: float = 0.25  # the share of the steps, at the end, over which the rate comes down
    clip: float = 1.0
    averaging: float = 0.999
    optimiser: str = "adamw"
    autocast: bool = False  # bf16 in the adapter's products; on by all means on a GPU
    drop_image: float = 0.1  # IP-Adapter drops 5 % each
    drop_text: float = 0.1
    drop_both: float = 0.1
    together: bool = False  # the generator learns along (a miniature alone), and is written beside the adapter
    spread: float = 1.0  # of the normal distribution behind the noise levels (arXiv 2403.03206, section 3.1)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise RealRAGError(f"No optimiser is called {self.optimiser!r}; there are {', '.join(OPTIMISERS)}.")
        drops = self.drop_image, self.drop_text, self.drop_both
        if min(self.steps, self.batch, self.accumulate) < 1 or min(drops) < 0 or sum(drops) >= 1 or self.rate <= 0:
            raise RealRAGError(
                f"{self}: steps, batch and accumulate start at 1, drops sum to less than 1, the rate is above 0."
            )


@dataclass(frozen=True)
class GuardConfig:
    """The reference-shuffle gap: when it is measured, and when its absence ends the training."""

    every: int = 1000  # steps
    tuples: int = 128
    patience: int = 6000  # steps without a gap above 0 on seen things before stopping; 0 never stops


@dataclass(frozen=True)
class AdapterRecipe:
    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def facts(self) -> dict[str, Any]:
        """What decides about the result, without where things lie on this machine."""
        said = asdict(self)
        for section, kind in (("base", BaseConfig), ("data", DataConfig)):
            said[section] = {key: value for key, value in said[section].items() if key not in kind.paths}
        return said

    def settled(self) -> dict[str, Any]:
        """The facts that are fixed with the first step; the others may change between two runs of one training."""
        said = self.facts()
        said["fit"] = {key: value for key, value in said["fit"].items() if key not in ("steps", "cool_down")}
        return said


SECTIONS = {"base": BaseConfig, "data": DataConfig, "adapter": AdapterConfig, "fit": FitConfig, "guard": GuardConfig}


def read_adapter_recipe(name: str, given: dict[str, dict[str, Any]] | None = None) -> AdapterRecipe:
    """From a file, or by the name of one that comes along ("miniature-sd3"). given: by section, from the command line."""
    path = Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.toml"))
        if name not in known:
            raise RealRAGError(
                f"No recipe {name}. Give a TOML file, or one of those that come along: {', '.join(known)}."
            )
        path = RECIPES / f"{name}.toml"
    return AdapterRecipe(**read_sections(path, SECTIONS, given))
