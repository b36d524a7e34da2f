"""What one reproduction is: the world, the retriever's recipe, who paints, how much is painted, and which gates stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from realrag.errors import RealRAGError

from ..retriever.recipe import Recipe, Start, read_recipe
from ..sections import find_recipe, read_sections
from .procedural.world import World

WORLDS = Path(__file__).parent.parent / "worlds"
JUDGES = ("cnn", "gradients")


@dataclass(frozen=True)
class Retriever:
    # of `python -m train run`: starting encoder, mining, loss, fit, arms and their seeds
    recipe: str = "retrievers/procedural.toml"


@dataclass(frozen=True)
class Painting:
    """Who paints: "miniature", with its three files, or "stand-in"."""

    kind: str = "stand-in"
    generator: str = ""
    adapter: str = ""
    autoencoder: str = ""
    strength: float = 1.0
    steps: int = 20  # of the sampler
    cfg: float = 3.0
    # of the stand-in
    heeds: float = 0.9  # probability that a right reference is heeded for a class it does not know
    seed: int = 7

    paths = ("generator", "adapter", "autoencoder")

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise RealRAGError(f"A sampler takes 1 to 1000 steps, not {self.steps}. Change `steps` in [painting].")
        if self.kind == "miniature" and not all(getattr(self, name) for name in self.paths):
            raise RealRAGError(f"A miniature paints with {', '.join(self.paths)}. Name the three files in [painting].")


@dataclass(frozen=True)
class Experiment:
    """The registered numbers; the reason for each stands in docs/registration.md."""

    photos: str = ""  # a world's folder made before; empty: the procedural one of [world] is drawn
    k: int = 3  # references a prompt
    arms: tuple[str, ...] = ()  # those that are painted; empty for all
    noises: int = 10  # pictures a prompt and arm
    unseen_noises: int = 40  # the same for U1, which holds the endpoints
    first_noise: int = 1000  # so that no picture is judged that the negatives were mined from
    pictures: int = 2000  # U1 pictures an arm below which nothing is said
    seed: int = 0  # of the random, the oracle and the shuffled arm
    judges: tuple[str, ...] = JUDGES  # the first decides, the others stand beside it
    judge_width: int = 24
    judge_epochs: int = 12
    ceiling: float = 0.80  # gate: the judge's accuracy on real photos
    seen_share: float = 0.60  # gate: of that ceiling, on G-seen classes without references
    oracle_times: float = 4.0  # gate: U1 accuracy with right references, in times of that without
    normal_most: float = 0.90  # gate: R@1 of the plainly trained retriever; above it nothing is left to win
    same_sign: float = 0.8  # of the seeds that must agree with the endpoint

    paths = ("photos",)

    def __post_init__(self) -> None:
        if self.arms and not {"none", "normal", "hard", "reflective", "oracle"} <= set(self.arms):
            raise RealRAGError(
                f"The arms {', '.join(self.arms)} lack one that an endpoint or a gate needs: none, normal, hard, reflective, oracle."
            )
        if min(self.k, self.noises, self.unseen_noises) < 1 or not self.judges or set(self.judges) - set(JUDGES):
            raise RealRAGError(f"k, noises and unseen_noises start at 1, judges are among {', '.join(JUDGES)}: {self}.")

    def taught(self, arms: Sequence[str]) -> tuple[str, ...]:
        """Those of a recipe's arms that a head is taught for: all, or what a shorter table asks; `zero` is always
        measured."""
        return tuple(arm for arm in arms if not self.arms or arm in ("zero", *self.arms))


@dataclass(frozen=True)
class Plan:
    world: World = World()
    retriever: Retriever = Retriever()
    painting: Painting = Painting()
    experiment: Experiment = field(default_factory=Experiment)

    def as_json(self, recipe: Recipe) -> str:
        return json.dumps({**asdict(self), "recipe": asdict(recipe)}, indent=1) + "\n"


def find_world(name: str) -> Path:
    """A world's file: a path, or the name of one that comes with the trainer ("procedural")."""
    known = sorted(file.stem for file in WORLDS.glob("*.toml"))
    if Path(name).is_file():
        return Path(name)
    if name in known:
        return WORLDS / f"{name}.toml"
    raise RealRAGError(f"No world {name}. Give a TOML file, or one of those that come along: {', '.join(known)}.")


def read_plan(path: Path, painting: dict[str, str] | None = None) -> Plan:
    """painting: in place of what the file says of it. RealRAGError names the section and field that are wrong."""
    kinds = {"world": World, "retriever": Retriever, "painting": Painting, "experiment": Experiment}
    return Plan(**read_sections(path, kinds, {"painting": painting or {}}))


def recipe_of(plan: Plan, path: Path, given: dict[str, str]) -> Recipe:
    """The retriever's recipe, seen from the world's file; its arms are those that the endpoints and the table need."""
    near = (home / plan.retriever.recipe for home in (Path(path).parent, WORLDS))
    recipe = read_recipe(
        next((file for file in near if file.is_file()), None) or find_recipe(plan.retriever.recipe), given
    )
    if given.get("encoder") and not given.get("mobilenet"):
        recipe = replace(recipe, start=Start())  # it comes in place of one trained here; the usual bounds stand
    if missing := sorted({"zero", "normal", "hard", "reflective"} - set(recipe.evaluate.arms)):
        raise RealRAGError(f"The recipe lacks the arm {missing[0]!r}, which an endpoint needs. Add it to its `arms`.")
    if recipe.fit.mode != "head":
        raise RealRAGError(
            f'The recipe\'s mode is {recipe.fit.mode!r}; only heads are compared here. Set mode to "head".'
        )
    return replace(recipe, evaluate=replace(recipe.evaluate, arms=plan.experiment.taught(recipe.evaluate.arms)))


def deviations(plan: dict) -> list[str]:
    """What a plan, as `as_json` writes it, has otherwise than was registered: "section.field: value, registered value".
    Paths and the world's seed, by which the replication differs, do not count."""
    recipe = asdict(read_recipe(WORLDS / Retriever.recipe))
    recipe["evaluate"]["arms"] = Experiment(arms=tuple(plan["experiment"]["arms"])).taught(recipe["evaluate"]["arms"])
    registered = {
        **asdict(Plan()),
        **{name: recipe[name] for name in ("start", "imagine", "mine", "fit", "loss", "evaluate")},
    }
    free = {f"painting.{name}" for name in ("kind", *Painting.paths)}
    free |= {
        "world.generator",
        "experiment.arms",
        "retriever.recipe",
        "experiment.photos",
        "world.seed",
        "start.mobilenet",
        "start.validation",
    }
    found = []
    for section, values in registered.items():
        there = plan[section] if section in plan else plan["recipe"][section]
        for name, value in values.items():
            given = tuple(there[name]) if isinstance(value, tuple) else there[name]
            if given != value and f"{section}.{name}" not in free:
                found.append(f"{section}.{name}: {given}, registered {value}")
    return found
