"""Measures of painted pictures: similarity to real photos and to the prompt, class, copying, diversity, FID and KID.

Every arm has the same prompts and seeds. Differences are paired by them, and intervals are over classes, as in
`evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..stats import interval, json_row, relative_change
from .classifiers import Classifier
from .fid_kid import jackknifed, real_floor, reference_rows, scaled

ORDER = ("oracle", "reflective-ten", "reflective", "hard", "normal", "zero", "random", "none")
ROWS = 4096


@dataclass(frozen=True)
class Photos:
    """Real photos: (M, D) float32 unit vectors of one encoder, and (M,) class codes."""

    vectors: np.ndarray
    classes: np.ndarray

    def of(self, chosen: np.ndarray) -> Photos:
        return Photos(self.vectors[chosen], self.classes[chosen])


@dataclass(frozen=True)
class Arm:
    """N pictures of one arm: (N, D) float32 unit vectors of one encoder, and for each the library rows that it was
    painted with, None if unknown."""

    vectors: np.ndarray
    references: tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True)
class Bench:
    """What pictures are compared with.

    real: photos of the prompts' classes that no arm was shown. held (M,): bools, the photos of `real` that no
    classifier was trained on. classes (N,): of the pictures, in the same order in each arm. prompts (N, D): unit
    vectors of their prompts, None without a text tower. real_prompts (M, D): for each real photo the mean vector of its
    class's prompts. threshold: the cosine from which a picture counts as copied."""

    real: Photos
    held: np.ndarray
    library: Photos
    classifiers: dict[str, Classifier]
    classes: np.ndarray
    prompts: np.ndarray | None
    real_prompts: np.ndarray | None
    threshold: float


def nearest(vectors: np.ndarray, library: np.ndarray) -> np.ndarray:
    """(N,) cosine of each vector to its nearest in the library."""
    return np.concatenate([(vectors[at : at + ROWS] @ library.T).max(1) for at in range(0, len(vectors), ROWS)])


def class_means(photos: Photos) -> dict[int, np.ndarray]:
    return {int(c): photos.vectors[photos.classes == c].mean(0) for c in np.unique(photos.classes)}


def diversity(vectors: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, classes): the mean of 1 - cosine over the pairs of each class that has two vectors or more."""
    values, names = [], []
    for c in np.unique(classes):
        part = vectors[classes == c].astype(np.float64)
        if (n := len(part)) > 1:
            values.append(1 - ((part.sum(0) ** 2).sum() - (part**2).sum()) / (n * (n - 1)))
            names.append(c)
    return np.array(values), np.array(names)


def picture_figures(arm: Arm, bench: Bench) -> dict[str, np.ndarray]:
    """Measure -> (N,) values, NaN where a picture has none.

    CLIP-I: mean cosine to the real photos of its class. CLIP-T: cosine to its prompt. accuracy: whether a classifier
    names its class. copied: whether its nearest library photo reaches `threshold`. to references: cosine to the nearest
    reference. references copied: whether that reaches `threshold`."""
    means = class_means(bench.real)
    values = {"CLIP-I": np.einsum("nd,nd->n", arm.vectors, np.stack([means[int(c)] for c in bench.classes]))}
    if bench.prompts is not None:
        values["CLIP-T"] = np.einsum("nd,nd->n", arm.vectors, bench.prompts)
    values |= {
        f"accuracy ({name})": each.correct(arm.vectors, bench.classes) for name, each in bench.classifiers.items()
    }
    values["copied"] = (nearest(arm.vectors, bench.library.vectors) >= bench.threshold).astype(float)
    shown = [max((float(v @ bench.library.vectors[r]) for r in rows or ()), default=np.nan)
             for v, rows in zip(arm.vectors, arm.references, strict=True)]  # fmt: skip
    values["to references"] = np.array(shown)
    values["references copied"] = np.where(np.isnan(shown), np.nan, np.array(shown) >= bench.threshold)
    return values


def real_figures(bench: Bench) -> dict[str, np.ndarray]:
    """Measure -> (M,) values of the real photos: what a picture would get that is a photo. CLIP-I is to the other
    photos of the class. Accuracy is only of photos that the classifiers were not trained on."""
    real, sums = (
        bench.real,
        {c: bench.real.vectors[bench.real.classes == c].sum(0) for c in np.unique(bench.real.classes)},
    )
    count = np.array([(real.classes == c).sum() for c in real.classes])
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.einsum("nd,nd->n", real.vectors, np.stack([sums[c] for c in real.classes])) - 1
        values = {"CLIP-I": np.where(count > 1, others / (count - 1), np.nan)}
    if bench.real_prompts is not None:
        values["CLIP-T"] = np.einsum("nd,nd->n", real.vectors, bench.real_prompts)
    for name, classifier in bench.classifiers.items():
        untaught = bench.held | (name == "names")
        values[f"accuracy ({name})"] = np.where(untaught, classifier.correct(real.vectors, real.classes), np.nan)
    values["copied"] = (nearest(real.vectors, bench.library.vectors) >= bench.threshold).astype(float)
    return values


def ordered(names) -> list[str]:
    """Arms with the best expected first: unknown names, then ORDER."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else -1, name))


def judge_arms(arms: dict[str, Arm], bench: Bench, seed: int = 0) -> dict:
    """JSON-able figures of one encoder, with 95 % intervals over classes: {"real": {measure: [mean, low, high]},
    "arms": {arm: ...}, "differences": {"a - b": ...}, "relative": {"a / b": {measure: [a / b - 1, low, high]}} of CLIP-I
    and FID, "distances": how FID and KID were taken}."""
    values = {name: picture_figures(arms[name], bench) for name in ordered(arms)}
    varied = {name: diversity(arms[name].vectors, bench.classes) for name in values}
    report = {
        "real": _intervals(real_figures(bench), bench.real.classes, diversity(bench.real.vectors, bench.real.classes))
    }
    report["arms"] = {name: _intervals(each, bench.classes, varied[name]) for name, each in values.items()}
    report["differences"] = {}
    pairs = [(a, b) for at, a in enumerate(values) for b in list(values)[at + 1 :]]
    for a, b in pairs:
        apart = {m: values[a][m] - values[b][m] for m in values[a]}
        of_class = varied[a][0] - varied[b][0], varied[a][1]
        report["differences"][f"{a} - {b}"] = _intervals(apart, bench.classes, of_class)
    report["relative"] = {
        f"{a} / {b}": {"CLIP-I": json_row(relative_change(values[a]["CLIP-I"], values[b]["CLIP-I"], bench.classes), 6)}
        for a, b in pairs
    }
    _distances(report, arms, bench, pairs, seed)
    return report


def _intervals(values: dict[str, np.ndarray], classes: np.ndarray, varied) -> dict[str, list[float]]:
    rows = {name: interval(each, classes) for name, each in values.items()}
    if len(varied[0]):
        rows["diversity"] = interval(*varied)
    return {name: json_row(row, 6) for name, row in rows.items() if not np.isnan(row[0])}


def _distances(report: dict, arms: dict[str, Arm], bench: Bench, pairs, seed: int) -> None:
    """Adds FID and KID to the report: all arms with the same number of pictures, against the same real photos."""
    rows, n = reference_rows(len(bench.real.vectors), [len(bench.classes)], seed)
    if n < 2:
        report["distances"] = None
        return
    chosen = np.sort(np.random.default_rng(seed + 1).permutation(len(bench.classes))[:n])
    real, real_classes = scaled(bench.real.vectors), bench.real.classes
    floor = real_floor(real, n, seed=seed)
    report["distances"] = {"pictures": n, "photos": len(rows), "dim": real.shape[1], "floor": floor}
    report["real"] |= {name: json_row([mean, mean - 2 * sd, mean + 2 * sd], 6) for name, (mean, sd) in floor.items()}
    found = {
        name: jackknifed(scaled(arm.vectors[chosen]), bench.classes[chosen], real[rows], real_classes[rows], seed)
        for name, arm in arms.items()
    }
    for at, measure in enumerate(("FID", "KID")):
        for name in report["arms"]:
            report["arms"][name][measure] = json_row(found[name][at].interval(), 6)
        for a, b in pairs:
            report["differences"][f"{a} - {b}"][measure] = json_row((found[a][at] - found[b][at]).interval(), 6)
    for a, b in pairs:
        report["relative"][f"{a} / {b}"]["FID"] = json_row(found[a][0].over(found[b][0]).interval(), 6)
