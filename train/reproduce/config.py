"""The plan of one reproduction: the world, the retriever's recipe, the painter, how much is painted, and the gates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from realrag.errors import RealRAGError
from realrag.search.hybrid import BOTH, NAME

from ..retriever.recipe import Recipe, Start, read_recipe
from ..sections import find_recipe, read_sections
from .procedural.world import World

WORLDS = Path(__file__).parent.parent / "worlds"
JUDGES = ("cnn", "gradients")  # the registered ones
OF_PHOTOS = "lite0"  # needs a file, and is for worlds of real photos
FURTHER_ARMS, FURTHER_RANKINGS = ("reflective-ten",), (NAME, BOTH)  # registered on 2026-11-30, for the replication


@dataclass(frozen=True)
class Retriever:
    # of `python -m train run`: starting encoder, mining, loss, fit, arms and their seeds
    recipe: str = "retrievers/procedural.toml"
    further: tuple[str, ...] = ()  # arms beside those of the recipe


@dataclass(frozen=True)
class Painting:
    """The painter: "miniature", with its three files, or "stand-in"."""

    kind: str = "stand-in"
    generator: str = ""
    adapter: str = ""
    autoencoder: str = ""
    strength: float = 1.0
    steps: int = 20  # of the sampler
    cfg: float = 3.0
    # For the stand-in only:
    heeds: float = 0.9  # probability that a right reference works for a class that it does not know
    seed: int = 7

    paths = ("generator", "adapter", "autoencoder")

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise RealRAGError(f"`steps` in [painting] is {self.steps}; a sampler takes 1 to 1000. Change it.")
        if self.kind == "miniature" and not all(getattr(self, name) for name in self.paths):
            raise RealRAGError(f"A miniature paints with {', '.join(self.paths)}. Name the three files in [painting].")


@dataclass(frozen=True)
class Experiment:
    """The registered numbers. docs/registration.md gives the reason for each."""

    photos: str = ""  # the folder of an existing world; if empty, the procedural one of [world] is drawn
    k: int = 3  # references per prompt
    arms: tuple[str, ...] = ()  # the arms to paint; empty for all
    noises: int = 10  # pictures per prompt and arm
    unseen_noises: int = 40  # the same on U1, where the endpoints are measured
    first_noise: int = 1000  # so that no judged picture has a noise that negatives were mined from
    pictures: int = 2000  # U1 pictures per arm below which there is no verdict
    seed: int = 0  # of the random, the oracle and the shuffled arm
    judges: tuple[str, ...] = JUDGES  # the first decides, the others are reported beside it
    lite0: str = ""  # the file of the judge of that name
    judge_width: int = 24
    judge_epochs: int = 12
    ceiling: float = 0.80  # gate: least accuracy of the judge on real photos
    seen_share: float = 0.60  # gate: least fraction of that ceiling on G-seen classes without references
    oracle_times: float = 4.0  # gate: least ratio of U1 accuracy with right references to that without
    normal_most: float = 0.90  # gate: largest R@1 of plain contrastive training; above it nothing is left to gain
    find_by: tuple[str, ...] = ()  # rankings beside the one by look, for the primary endpoint's arms: "name", "both"
    same_sign: float = 0.8  # least fraction of the seeds that must agree with the endpoint

    paths = ("photos", "lite0")

    def __post_init__(self) -> None:
        if self.arms and not {"none", "normal", "hard", "reflective", "oracle"} <= set(self.arms):
            raise RealRAGError(
                f"The arms {', '.join(self.arms)} lack one that an endpoint or a gate needs: none, normal, hard, reflective, oracle."
            )
        if (
            min(self.k, self.noises, self.unseen_noises) < 1
            or not self.judges
            or set(self.judges) - {*JUDGES, OF_PHOTOS}
        ):
            raise RealRAGError(
                f"k, noises and unseen_noises start at 1, judges are among {', '.join((*JUDGES, OF_PHOTOS))}: {self}."
            )
        if strange := sorted(set(self.find_by) - {NAME, BOTH}):
            raise RealRAGError(f"`find_by` in [experiment] has {strange[0]!r}; give {NAME}, {BOTH}, or both of them.")
        if OF_PHOTOS in self.judges and not self.lite0:
            raise RealRAGError(f"The judge {OF_PHOTOS} needs its file. Name it as `lite0` in [experiment].")

    def taught(self, arms: Sequence[str]) -> tuple[str, ...]:
        """The arms that need a trained head: all of a recipe's, or those of a shorter table. `zero` is always there."""
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
    """A world's file: a path, or the name of a built-in one ("procedural"). RealRAGError lists the built-in ones."""
    known = sorted(file.stem for file in WORLDS.glob("*.toml"))
    if Path(name).is_file():
        return Path(name)
    if name in known:
        return WORLDS / f"{name}.toml"
    raise RealRAGError(f"There is no world {name}. Give a TOML file or one of the built-in names: {', '.join(known)}.")


def read_plan(path: Path, painting: dict[str, str] | None = None) -> Plan:
    """The plan in a TOML file. painting: values that replace those of [painting]. RealRAGError names the section and
    field that are wrong."""
    kinds = {"world": World, "retriever": Retriever, "painting": Painting, "experiment": Experiment}
    return Plan(**read_sections(path, kinds, {"painting": painting or {}}))


def recipe_of(plan: Plan, path: Path, given: dict[str, str]) -> Recipe:
    """The retriever's recipe. Its path is relative to the world's file, and its arms are cut to those that the table
    needs. RealRAGError if it lacks an arm of an endpoint or trains anything but heads."""
    near = (home / plan.retriever.recipe for home in (Path(path).parent, WORLDS))
    recipe = read_recipe(
        next((file for file in near if file.is_file()), None) or find_recipe(plan.retriever.recipe), given
    )
    if given.get("encoder") and not given.get("mobilenet"):
        recipe = replace(recipe, start=Start())  # a given encoder replaces the one trained here; the bounds stay
    if missing := sorted({"zero", "normal", "hard", "reflective"} - set(recipe.evaluate.arms)):
        raise RealRAGError(f"The recipe lacks the arm {missing[0]!r}, which an endpoint needs. Add it to its `arms`.")
    if recipe.fit.mode != "head":
        raise RealRAGError(
            f'The recipe\'s mode is {recipe.fit.mode!r}; the experiment compares heads only. Set mode to "head".'
        )
    arms = plan.experiment.taught((*recipe.evaluate.arms, *plan.retriever.further))
    return replace(recipe, evaluate=replace(recipe.evaluate, arms=arms))


def deviations(plan: dict) -> list[str]:
    """How a plan, as `as_json` writes it, differs from the registered one: "section.field: value, registered value".
    Paths do not count, nor does the world's seed, which the replication changes: further arms and rankings were registered
    for worlds of another seed."""
    again = plan["world"]["seed"] != World.seed
    retriever = Retriever(further=FURTHER_ARMS if again else ())
    experiment = Experiment(find_by=FURTHER_RANKINGS if again else ())
    recipe = asdict(read_recipe(WORLDS / Retriever.recipe))
    arms = (*recipe["evaluate"]["arms"], *retriever.further)
    recipe["evaluate"]["arms"] = Experiment(arms=tuple(plan["experiment"]["arms"])).taught(arms)
    registered = {
        **asdict(Plan(retriever=retriever, experiment=experiment)),
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
