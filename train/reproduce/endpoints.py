"""The endpoints and gates of the claim.

The endpoint is whether the judge names each picture's class: paired between arms by prompt and noise, averaged over
seeds, with classes resampled. Without all gates passed there is no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.encoders.base import Encoder

from ..dataset import photo_classes
from ..judge.classifiers import ridge_classifier
from ..pictures.arms import Picture, Progress, class_key, photo_vectors, picture_vectors
from ..stats import bootstrap
from .config import Experiment
from .judge_encoders import confusions

PRIMARY, SECOND, SPLIT = ("reflective", "normal"), ("reflective", "hard"), "U1"
CONTROLS = ("none", "oracle", "shuffled")  # the arms that the gates are about
FURTHER = ("reflective-ten", "reflective"), ("utility", "normal")  # registered on 2026-11-30, for the replication
PAIRS = (
    PRIMARY,
    SECOND,
    *FURTHER,
    ("normal", "zero"),
    ("zero", "none"),
    ("oracle", "none"),
    ("oracle", "shuffled"),
    ("random", "none"),
)


@dataclass(frozen=True)
class Verdicts:
    """One judge's answers.

    right: {arm: (S, N)}, 1 where the picture's class was named, else 0, for each seed of the arm's retriever. classes
    (N,): codes. splits (N,): names. even (N,): bools, pictures with a noise that every prompt has, so that classes weigh
    alike over all splits. real: accuracy on real photos, {split: [mean, low, high]}. confusions: see `confusions`. far:
    {code: distance of the class's mean picture of `none` from its mean real photo, both of unit vectors}."""

    right: dict[str, np.ndarray]
    classes: np.ndarray
    splits: np.ndarray
    even: np.ndarray
    real: dict[str, list[float]]
    confusions: dict[str, float]
    far: dict[int, float] = field(default_factory=dict)


def verdicts(
    arms: dict[str, list[Picture]],
    real: Bundle,
    taught: Bundle,
    world: dict[str, tuple[str, str]],
    encoder: Encoder,
    vectors: Path,
    progress: Progress = lambda done, total: None,
) -> Verdicts:
    """Trains the judge's classifier on `taught` and applies it to the pictures and to `real`.

    arms: aligned pictures by name; NAME-0, NAME-1 ... are the seeds of one arm. world: {class: (family, split)}.
    vectors: the folder that caches encoded pictures."""
    names = [class_key(name) for name in world]
    families, splits = (np.array([row[at] for row in world.values()]) for at in (0, 1))

    def codes(bundle):
        return np.array([names.index(class_key(name)) for name in photo_classes(bundle)])

    classifier, _ = ridge_classifier(unit_rows(photo_vectors(taught, encoder, vectors, progress)), codes(taught))
    real_classes, real_rows = codes(real), unit_rows(photo_vectors(real, encoder, vectors, progress))
    named, far = classifier.predict(real_rows), {}
    first = next(iter(arms.values()))
    classes = np.array([names.index(class_key(picture.class_name)) for picture in first])
    right: dict[str, list[np.ndarray]] = {}
    painted, rows = picture_vectors(arms, encoder, real.manifest.picture_longest, vectors, progress)
    painted = unit_rows(painted)
    for name in arms:
        seen = painted[rows[name]]
        right.setdefault(arm_of(name), []).append(classifier.correct(seen, classes))
        if name == "none":
            far = {int(c): _apart(seen[classes == c], real_rows[real_classes == c]) for c in np.unique(classes)}
    of_real = (named == real_classes).astype(float)
    parts = _parts(splits[real_classes], np.ones(len(real_classes), bool))
    by_split = {split: bootstrap(of_real[part], real_classes[part]) for split, part in parts.items()}
    _, family_codes = np.unique(families, return_inverse=True)
    return Verdicts(
        {name: np.stack(each) for name, each in right.items()}, classes, splits[classes], _even(first), by_split,
        confusions(named, real_classes, family_codes), far,
    )  # fmt: skip


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one.mean(0, dtype=np.float64) - two.mean(0, dtype=np.float64)))


def _even(pictures: Sequence[Picture]) -> np.ndarray:
    seeds: dict[str, set[int]] = {}
    for picture in pictures:
        seeds.setdefault(picture.prompt, set()).add(picture.seed)
    shared = set.intersection(*seeds.values())
    return np.array([picture.seed in shared for picture in pictures])


def arm_of(name: str) -> str:
    stem, dash, seed = name.rpartition("-")
    return stem if dash and seed.isdigit() else name


def _parts(splits: np.ndarray, even: np.ndarray) -> dict[str, np.ndarray]:
    return {"all": even, **{str(name): splits == name for name in np.unique(splits)}}


def accuracy(found: Verdicts) -> dict[str, dict[str, dict]]:
    """{split: {arm: {"accuracy": [mean, low, high], "by_seed": [...], "pictures": n}}}."""
    table: dict[str, dict[str, dict]] = {}
    for split, part in _parts(found.splits, found.even).items():
        table[split] = {
            arm: {"accuracy": bootstrap(each[:, part].mean(0), found.classes[part]),
                  "by_seed": [float(run.mean()) for run in each[:, part]], "pictures": int(part.sum())}
            for arm, each in found.right.items()
        }  # fmt: skip
    return table


def difference(found: Verdicts, first: str, second: str, split: str) -> dict:
    """{"difference": [mean, low, high], "seeds_above": n, "seeds": n, "by_seed", "classes": [above, equal, below 0]}.

    Paired by prompt and noise and, if both arms have equally many seeds, by seed. The 95 % interval resamples classes.
    """
    part = _parts(found.splits, found.even)[split]
    one, two = found.right[first][:, part], found.right[second][:, part]
    by_seed = one.mean(1) - (two.mean(1) if len(one) == len(two) else two.mean())
    each, codes = gains(found, first, second, split)
    codes = np.unique(codes, return_inverse=True)[1]
    signs = np.sign(np.bincount(codes, each).round(9))
    return {
        "difference": bootstrap(each, codes),
        "seeds_above": int((by_seed > 0).sum()),
        "seeds": len(by_seed),
        "by_seed": by_seed.tolist(),
        "classes": [int((signs == sign).sum()) for sign in (1, 0, -1)],
    }


def gains(found: Verdicts, first: str, second: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) by how much more often the seeds of one arm have a picture right than those of another; (N,) class codes."""
    part = _parts(found.splits, found.even)[split]
    return found.right[first][:, part].mean(0) - found.right[second][:, part].mean(0), found.classes[part]


def by_class_and_seed(found: Verdicts) -> list[list[float]]:
    """(C, S) the primary endpoint's difference for each class of its split and each seed; the power of another
    experiment follows from how they vary. A single column where the arms have unequal numbers of seeds."""
    part = _parts(found.splits, found.even)[SPLIT]
    one, two = (found.right[arm][:, part] for arm in PRIMARY)
    each = one - two if len(one) == len(two) else (one.mean(0) - two.mean(0))[None]
    classes = found.classes[part]
    return [each[:, classes == code].mean(1).round(6).tolist() for code in np.unique(classes)]


def gates(found: Verdicts, retrieval: dict, bounds: tuple[float, float], plan: Experiment) -> list[dict]:
    """[{"gate", "rule", "measured", "passed"}] in the registered order. retrieval: evaluate.json of the retriever."""
    table, ceiling = accuracy(found), found.real["all"][0]

    def on(arm, split=SPLIT):
        return table[split][arm]["accuracy"][0]

    r1 = {arm: retrieval["arms"][arm]["splits"]["all"]["R@1"][0] for arm in ("zero", "normal")}
    seen = on("none", "G-seen")
    without, count = on("none"), table[SPLIT]["none"]["pictures"]
    rows = [
        ("ceiling", f"the judge names at least {plan.ceiling:.0%} of real photos", ceiling, ceiling >= plan.ceiling),
        ("headroom", f"R@1 of Zero lies from {bounds[0]:g} to {bounds[1]:g}", r1["zero"], bounds[0] <= r1["zero"] <= bounds[1]),
        ("room above Normal", f"R@1 of Normal is below {plan.normal_most:g}", r1["normal"], r1["normal"] < plan.normal_most),
        ("G-seen without references", f"at least {plan.seen_share:.0%} of the ceiling", seen, seen >= plan.seen_share * ceiling),
        ("right references help", f"oracle on U1 is at least {plan.oracle_times:g} x none ({without:.4f})", on("oracle"),
         on("oracle") > 0 and on("oracle") >= plan.oracle_times * without),
        ("enough pictures", f"at least {plan.pictures} U1 pictures an arm", count, count >= plan.pictures),
    ]  # fmt: skip
    if "shuffled" in found.right:
        low = difference(found, "oracle", "shuffled", SPLIT)["difference"][1]
        rows.insert(-1, ("wrong references do not", "oracle - shuffled on U1, lower end above 0", low, low > 0))
    return [
        {"gate": gate, "rule": rule, "measured": float(value), "passed": bool(passed)}
        for gate, rule, value, passed in rows
    ]


def conclusion(found: dict, stand: Sequence[dict], painter: str, same_sign: float) -> str:
    """The verdict on the primary endpoint, in the registered words."""
    if painter.startswith("stand-in"):
        return "machinery only: a stand-in painted, so this says nothing of the claim"
    if failed := [gate["gate"] for gate in stand if not gate["passed"]]:
        return f"no verdict: the gates failed: {', '.join(failed)}"
    (_, low, high), above, seeds = found["difference"], found["seeds_above"], found["seeds"]
    if low > 0 and above >= same_sign * seeds:
        return "the claim holds here: the interval lies above 0, and the seeds agree"
    if high < 0:
        return "reversed: the reflective retriever is worse than the plain one"
    return "not shown: 0 lies in the interval, or the seeds disagree"
