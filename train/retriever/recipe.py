"""A recipe: a TOML file with everything that differs from the defaults. It is read into frozen dataclasses and written
in full beside the result."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from realrag import SMALL_ENCODER
from realrag.errors import RealRAGError

from ..contrastive.fit_config import FitConfig
from ..contrastive.loss import LossConfig
from ..contrastive.mine import MineConfig
from ..sections import read_sections
from ..small_encoder.trainer import EncoderConfig
from .prompts import Wording

ARMS = ("zero", "normal", "hard", "reflective", "utility", "reflective-ten")


@dataclass(frozen=True)
class Mined:
    """The negatives that an arm learns from: their kind, their file, and how many a prompt (0: as [mine] says)."""

    kind: str
    file: str
    k: int = 0


NEGATIVES = {  # the arms that learn from mined negatives
    "reflective": Mined("reflective", "negatives.safetensors"),
    "hard": Mined("hard", "hard-negatives.safetensors"),
    "reflective-ten": Mined(
        "reflective", "reflective-ten-negatives.safetensors", k=10
    ),  # our choice; the paper takes one
}


@dataclass(frozen=True)
class Data:
    """Photos, prompts and encoder. Paths are absolute or relative to the recipe's folder; the command line overrides
    them."""

    photos: str = ""
    captions: str = ""  # a table with file, class, caption; if empty, folder names are the classes
    test_photos: str = ""  # the gallery of the evaluation; if empty, `parts` splits it off
    validation: str = ""  # photos to choose the head by; if empty, `parts` splits them off
    # Train, validation and test; near-copies stay together. With test_photos the first two. Our choice. [] parts nothing,
    # and without test_photos the figures are then of the photos that were trained on.
    parts: tuple[float, ...] = (0.7, 0.15, 0.15)
    split_seed: int = 7
    groups: str = ""  # a CSV with class, coarse_class: which classes are siblings (only the stand-in uses it)
    group_words: int = 0  # without that CSV, classes are siblings if this many first words of their names agree
    prompts: str = ""  # lines of {prompt, class}; if empty, one prompt per class, and all captions of the photos
    caption_prompts: bool = True  # captions are prompts too; the paper asks for classes only
    most_prompts: int = 2000  # our choice: above it, captions are left out by chance, since each is drawn; 0 keeps all
    utility: str = ""  # measured utility of references, for the arm `utility` and for lambda_utility
    template: str = "a photo of a {}"  # paper, sec. 3.1
    articles: bool = True  # our choice: the template's "a" becomes "an", or goes before a plural
    encoder: str = SMALL_ENCODER  # the paper does not say which CLIP
    picture_size: int = 768
    max_rejected: float = 10.0  # percentage of unusable photos above which the run stops

    paths = ("photos", "captions", "test_photos", "validation", "groups", "prompts", "utility")

    @property
    def wording(self) -> Wording:
        return Wording(self.template, self.articles, self.caption_prompts, self.most_prompts)

    def __post_init__(self) -> None:
        if self.parts and len(self.parts) != 3:
            raise RealRAGError(f"parts is {list(self.parts)}; it needs three fractions, or none.")


@dataclass(frozen=True)
class Start:
    """A starting encoder of the recipe's own, trained on noisy captions so that it leaves headroom. All values are our
    choices.

    Without this section, [data] names the encoder."""

    mobilenet: str = ""  # made by convert-mobilenet
    validation: str = ""  # photos that the noise is tuned on; `parts` splits them off instead
    parts: tuple[float, ...] = ()  # fractions of library, validation and gallery, if one folder holds them all
    split_seed: int = 7
    least: float = 0.45  # R@1 on the validation photos: below it, the encoder knows too little to be refined
    most: float = 0.70  # above it, the encoder already finds nearly everything
    trials: int = 6
    seed: int = 0
    noise_seed: int = 7
    size: int = 160  # pixels
    cut: int = 11  # first trained block of thirteen
    views: int = 5
    epochs: int = 15
    tower_rate: float = 2e-4

    paths = ("mobilenet", "validation")


@dataclass(frozen=True)
class Imagine:
    """The generator that draws. Each field after `max_bad` belongs to one of the generators."""

    generator: str = "comfyui"  # comfyui, diffusers, folder, stand-in
    seeds: int = 2  # drawings per prompt; our choice, the paper gives no number
    max_bad: float = 0.1  # fraction of drawings that are of one color, equal or failed, above which the run stops
    workflow: str = ""
    url: str = "http://127.0.0.1:8188"
    prompt_node: str = ""  # "": the node titled Prompt, else what feeds the sampler's positive
    seed_node: str = ""  # "": the node titled Seed, else every seed and noise_seed
    output_node: str = ""
    timeout: float = 600.0
    remote: bool = False
    model: str = ""
    revision: str = ""
    download: bool = False
    steps: int = 0  # 0 keeps the pipeline's default
    guidance: float = -1.0  # below 0 keeps the pipeline's default
    size: int = 0
    folder: str = ""
    label: str = ""
    unknown: int = 16  # number of classes that the stand-in does not know
    unknown_seed: int = 7
    unknown_classes: tuple[str, ...] = ()  # these classes, instead of `unknown` random ones

    paths = ("workflow", "model", "folder")


@dataclass(frozen=True)
class Evaluate:
    arms: tuple[str, ...] = ARMS[:4]  # paper: zero, normal and reflective; `hard` is our control, `utility` goes beyond
    seeds: int = 5  # our choice; the paper shows one
    # What goes into the bundle: "best" takes the head or encoder that is best on the validation photos, and none where the
    # plain encoder is; an arm's name takes its first seed.
    ship: str = "best"

    def __post_init__(self) -> None:
        strange = sorted(set(self.arms) - set(ARMS))
        if strange or not self.arms or self.seeds < 1 or self.ship not in ("best", *self.arms):
            raise RealRAGError(
                f"arms {self.arms}, seeds {self.seeds}, ship {self.ship!r}: arms are among {', '.join(ARMS)}, `ship` is one "
                "of them or best, seeds starts at 1."
            )


@dataclass(frozen=True)
class Index:
    """The heads of the finished bundle."""

    name: str = ""  # of this run's head in the bundle; if empty, its generator's name
    others: tuple[str, ...] = ()  # folders of other runs with this encoder whose heads go into the bundle too

    paths = ("others",)


@dataclass(frozen=True)
class Recipe:
    data: Data = Data()
    start: Start = Start()
    imagine: Imagine = Imagine()
    mine: MineConfig = MineConfig()
    fit: FitConfig = FitConfig()
    loss: LossConfig = LossConfig()
    evaluate: Evaluate = field(default_factory=Evaluate)
    index: Index = Index()
    encoder: EncoderConfig | None = None  # for `train encoder` only

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_recipe(path: Path, given: dict[str, str] | None = None) -> Recipe:
    """The recipe in a TOML file. given: paths from the command line, which replace those of [data] and [start].
    RealRAGError names the section and field that are wrong."""
    sections = {
        each.name: type(each.default if each.default is not MISSING else each.default_factory())
        for each in fields(Recipe)
    } | {"encoder": EncoderConfig}
    places = {"data": given or {}, "start": given or {}}
    return Recipe(**read_sections(path, sections, places, optional=("encoder",)))
