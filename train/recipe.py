"""A recipe: a TOML file of what differs from the defaults, read into frozen dataclasses and written whole beside the result."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from realrag import DEFAULT_ENCODER
from realrag.errors import RealRAGError

from .small_encoder.encoder import EncoderConfig
from .contrastive.fit_config import FitConfig
from .contrastive.loss import LossConfig
from .mine import MineConfig

ARMS = ("zero", "normal", "hard", "reflective", "utility")
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Data:
    """Paths are relative to the recipe's folder, or absolute; the command line can give them too."""

    photos: str = ""
    captions: str = ""  # a table with file, class, caption; without it the folder names are the classes
    test_photos: str = ""  # the gallery of the evaluation; without it the library itself
    groups: str = ""  # CSV with class, coarse_class: which classes are siblings (only the stand-in asks)
    group_words: int = 0  # without that CSV, classes are siblings whose names begin with the same so many words
    prompts: str = ""  # lines of {prompt, class}; without it one prompt a class
    utility: str = ""  # what references were worth, for the arm `utility` and for lambda_utility
    template: str = "a photo of a {}"  # paper, sec. 3.1
    encoder: str = DEFAULT_ENCODER  # the paper does not say which CLIP
    picture_size: int = 768
    max_rejected: float = 10.0  # per cent of unusable photos that stop the run

    paths = ("photos", "captions", "test_photos", "groups", "prompts", "utility")


@dataclass(frozen=True)
class Start:
    """A starting encoder of the recipe's own, trained on noisy captions so that it leaves headroom; all are our choices.

    Where the section is left out nothing of this happens, and [data] names the encoder."""

    mobilenet: str = ""  # made by convert-mobilenet
    validation: str = ""  # photos on which noise is tuned; with `parts` they are parted off
    parts: tuple[float, ...] = ()  # shares of library, validation and gallery, where one folder holds them all
    split_seed: int = 7
    least: float = 0.45  # R@1 on the validation photos: below, the encoder knows too little to be refined
    most: float = 0.70  # above, it finds nearly all already
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
    """Which generator draws. The fields after `seeds` belong to one of the generators each."""

    generator: str = "comfyui"  # comfyui, diffusers, folder, stand-in
    seeds: int = 2  # our choice; the paper does not say how many pictures a prompt
    workflow: str = ""
    url: str = "http://127.0.0.1:8188"
    prompt_node: str = "Prompt"
    seed_node: str = "Seed"
    output_node: str = ""
    timeout: float = 600.0
    remote: bool = False
    model: str = ""
    revision: str = ""
    download: bool = False
    steps: int = 0  # 0 leaves the pipeline's own
    guidance: float = -1.0  # below 0 leaves the pipeline's own
    size: int = 0
    folder: str = ""
    label: str = ""
    unknown: int = 16  # classes that the stand-in does not know
    unknown_seed: int = 7
    unknown_classes: tuple[str, ...] = ()  # these, and not `unknown` ones drawn by seed

    paths = ("workflow", "model", "folder")


@dataclass(frozen=True)
class Evaluate:
    arms: tuple[str, ...] = ARMS[:4]  # paper: zero, normal and reflective; `hard` is our control, `utility` goes beyond
    seeds: int = 5  # our choice; the paper shows one
    ship: str = "reflective"  # the arm whose head or encoder of the first seed goes into the bundle

    def __post_init__(self) -> None:
        strange = sorted(set(self.arms) - set(ARMS))
        if strange or not self.arms or self.seeds < 1 or self.ship not in self.arms:
            raise RealRAGError(
                f"arms {self.arms}, seeds {self.seeds}, ship {self.ship!r}: arms are among {', '.join(ARMS)}, `ship` is one "
                "of them, seeds starts at 1."
            )


@dataclass(frozen=True)
class Index:
    name: str = ""  # of this run's head in the bundle; empty: its generator's
    others: tuple[str, ...] = ()  # folders of other runs with this encoder, whose heads go into the bundle as well

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
    encoder: EncoderConfig | None = None  # of `train encoder` alone

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def find_recipe(name: str) -> Path:
    """A recipe's file: a path, or the name of one that comes with the trainer ("tiny-cpu")."""
    path = Path(name)
    if path.is_file():
        return path
    known = sorted(file.stem for file in CONFIGS.glob("*.toml"))
    if path.stem in known and path.parent == Path("."):
        return CONFIGS / f"{path.stem}.toml"
    raise RealRAGError(f"No recipe {name}. Give a TOML file, or one of those that come along: {', '.join(known)}.")


def read_recipe(path: Path, given: dict[str, str] | None = None) -> Recipe:
    """The recipe in a TOML file. given: paths of the command line, which replace those of [data] and [start]. RealRAGError
    names the section and field that are wrong."""
    sections = {
        each.name: type(each.default if each.default is not MISSING else each.default_factory())
        for each in fields(Recipe)
    } | {"encoder": EncoderConfig}
    places = {"data": given or {}, "start": given or {}}
    return Recipe(**read_sections(path, sections, places, optional=("encoder",)))


def read_sections(
    path: Path, sections: dict[str, type], given: dict[str, dict] | None = None, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Section -> its dataclass, of a TOML file that says what differs from the defaults; those of `optional` only where they
    are in the file. given: by section, what replaces what the file says."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError:
            raise RealRAGError("Reading a recipe needs Python 3.11, or `pip install realrag[train]`.") from None
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RealRAGError(f"The recipe {path} cannot be read: {error}") from None
    if strange := sorted(content.keys() - sections.keys()):
        raise RealRAGError(
            f"{path} has the section [{strange[0]}]; sections are {', '.join(f'[{s}]' for s in sections)}."
        )
    return {
        name: _section(path, name, kind, content.get(name, {}), (given or {}).get(name, {}))
        for name, kind in sections.items()
        if name not in optional or name in content
    }


def _section(path: Path, name: str, kind: type, values: Any, given: dict[str, str]):
    defaults = asdict(kind())
    if not isinstance(values, dict) or (strange := sorted(values.keys() - defaults.keys())):
        named = strange[0] if isinstance(values, dict) else name
        raise RealRAGError(f"{path}, [{name}]: {named!r} is not known. Known are {', '.join(defaults)}.")
    chosen = {}
    for key, value in values.items():
        right = type(defaults[key])
        value = tuple(value) if right is tuple and isinstance(value, list) else value
        value = float(value) if right is float and type(value) is int else value
        if type(value) is not right:
            raise RealRAGError(f"{path}, [{name}]: {key} is {value!r}; it must be like {defaults[key]!r}.")
        if key in getattr(kind, "paths", ()):
            places = [_near(path, each, key) for each in (value if right is tuple else (value,))]
            value = tuple(places) if right is tuple else places[0]
        chosen[key] = value
    chosen |= {key: value for key, value in given.items() if value and key in defaults}
    return kind(**chosen)


def _near(recipe: Path, value: str, key: str) -> str:
    """A path of a recipe, seen from the recipe's folder. A hub name such as "someone/model" is no path unless it is there."""
    near = Path(recipe).parent / str(value)
    return str(near) if value and (key != "model" or near.exists()) else value
