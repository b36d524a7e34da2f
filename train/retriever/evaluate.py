"""Stage 6: how well the arms (zero, normal, hard, reflective) find real photos for prompts, with intervals over
classes.

Every figure is computed per prompt, averaged over seeds, and given an interval over classes. Differences are paired by
prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import RealRAGError
from realrag.interval_text import with_interval
from realrag.library import through_head

from ..contrastive.tuned_encoder import TunedVectors
from ..retrieval_metrics import DEPTH, ranked_rows, ranking_figures
from ..stats import FEWEST, interval, json_row
from .drawings import usable

# About what the generator draws instead: lower is better for "reflective hits" and "sibling@10".
REFLECTIVE = ("reflective hits", "sibling@10", "sibling margin")
CONTROLS = ("random", "oracle")  # floor and ceiling: chance, and all right photos first, the drawn ones last


@dataclass(frozen=True)
class Questions:
    """Prompts and the gallery that they are asked of.

    queries (P, D), photos (N, D): float32 unit vectors of the encoder without a head. query_classes (P,), photo_classes
    (N,): class numbers. siblings (P,): the class that the generator draws instead of the prompt's, -1 if it draws the
    right one or that is unknown. drawn (P, N): bools, the photos of other classes nearest to the drawings; None without
    drawings."""

    queries: np.ndarray
    photos: np.ndarray
    query_classes: np.ndarray
    photo_classes: np.ndarray
    siblings: np.ndarray
    drawn: np.ndarray | None = None

    def splits(self) -> dict[str, np.ndarray]:
        """{split: (P,) bools}: all prompts, and those whose class the generator lacks (unseen), draws instead of another
        (sibling), or neither (seen). Prompts without a photo in the gallery are in no split."""
        asked = np.isin(self.query_classes, self.photo_classes)
        unseen = asked & (self.siblings >= 0)
        sibling = asked & ~unseen & np.isin(self.query_classes, self.siblings[self.siblings >= 0])
        parts = {"all": asked, "unseen": unseen, "sibling": sibling, "seen": asked & ~unseen & ~sibling}
        return {name: part for name, part in parts.items() if part.any()}


# Figures of one ranking


def figures(
    questions: Questions, vectors: np.ndarray | None = None, scores: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """{measure: (P,) values} for gallery vectors (N, D) after a head, or for scores (P, N)."""
    scores = questions.queries @ vectors.T if scores is None else scores
    rows = ranked_rows(scores)
    right = questions.query_classes[:, None] == questions.photo_classes[None]
    values = ranking_figures(np.take_along_axis(right, rows, 1))
    if questions.drawn is not None:
        values["reflective hits"] = np.take_along_axis(questions.drawn, rows[:, :DEPTH], 1).mean(1)
    other = questions.siblings[:, None] == questions.photo_classes[None]
    both = right.any(1) & other.any(1)
    values["sibling@10"] = np.where(both, np.take_along_axis(other, rows[:, :DEPTH], 1).mean(1), np.nan)

    def mean(part):
        return (scores * part).sum(1) / np.maximum(1, part.sum(1))

    values["sibling margin"] = np.where(both, mean(right) - mean(other), np.nan)
    return values


def drawn_photos(questions: Questions, drawn: np.ndarray, depth: int = DEPTH) -> np.ndarray:
    """(P, N) bools: of the `depth` photos nearest to a prompt's drawings (P, S, D), those of another class. Nearness is
    the mean cosine over seeds in the encoder's own space, so that no arm defines its own measure."""
    drawn = drawn.astype(np.float32)
    unit = drawn / np.maximum(np.linalg.norm(drawn, axis=2, keepdims=True), 1e-9)  # 0 for what was not drawn
    near = ranked_rows(unit.mean(1) @ questions.photos.T)[:, :depth]
    marked = np.zeros((len(drawn), len(questions.photos)), bool)
    np.put_along_axis(marked, near, True, 1)
    marked[~usable(drawn).any(1)] = False  # nothing was drawn, so nothing is near to it
    return marked & (questions.query_classes[:, None] != questions.photo_classes[None])


# Arms


def head_vectors(photos: np.ndarray, head: ReflectiveHead | None) -> np.ndarray:
    with torch.inference_mode():
        return through_head(head, np.ascontiguousarray(photos, np.float32))


def arm_scores(questions: Questions, arm: ReflectiveHead | TunedVectors | None) -> np.ndarray:
    """(P, N) scores of the gallery for each prompt, with a head or with the vectors of a tuned encoder."""
    if isinstance(arm, TunedVectors):
        return arm.queries @ arm.photos.T
    return questions.queries @ head_vectors(questions.photos, arm).T


def evaluate(
    questions: Questions, arms: dict[str, Sequence[ReflectiveHead | TunedVectors | None]], *, controls: bool = True
) -> dict:
    """JSON-able figures of the arms. arms: {name: one head, or a tuned encoder's vectors, per seed}; [None] for zero.

    {"arms": {arm: {"seeds", "splits": {split: {measure: [mean, low, high]}}, "by_class": {measure: [P]}, "by_seed"}},
     "differences": {"a - b": {split: {measure: [mean, low, high, seeds above 0]}}}, "splits": {split: prompts}}

    Bounds are None for too few classes. RealRAGError if there is no arm.
    """
    if not arms or not all(arms.values()):
        raise RealRAGError("No arm to evaluate. Fit at least one head, or evaluate the arm `zero`.")
    runs = {
        name: [figures(questions, scores=arm_scores(questions, head)) for head in heads] for name, heads in arms.items()
    }
    if controls:
        rng, right = np.random.default_rng(0), questions.query_classes[:, None] == questions.photo_classes[None]
        runs["random"] = [figures(questions, scores=rng.random(right.shape)) for _ in range(5)]
        worst = questions.siblings[:, None] == questions.photo_classes[None]
        worst = worst if questions.drawn is None else worst | questions.drawn
        ideal = figures(questions, scores=right.astype(float) - worst)
        runs["oracle"] = [
            {m: v for m, v in ideal.items() if m != "sibling margin"}
        ]  # it ranks; its scores mean nothing
    splits = questions.splits()
    report: dict = {"splits": {name: int(part.sum()) for name, part in splits.items()}, "arms": {}, "differences": {}}
    means = {name: _mean(each) for name, each in runs.items()}
    for name, values in means.items():
        rows = {split: _intervals(values, part, questions) for split, part in splits.items()}
        by_seed = {m: [_number(np.nanmean(run[m])) for run in runs[name]] for m in ("mAP", "R@1")}
        by_class = {m: [_number(v) for v in values[m]] for m in ("mAP", "R@1", "P@10")}
        report["arms"][name] = {"seeds": len(runs[name]), "splits": rows, "by_seed": by_seed, "by_class": by_class}
    order = [name for name in ("reflective-ten", "utility", "reflective", "hard", "normal", "zero") if name in runs]
    for at, first in enumerate(order):
        for second in order[at + 1 :]:
            values = {m: means[first][m] - means[second][m] for m in means[first]}
            rows = {split: _intervals(values, part, questions) for split, part in splits.items()}
            if len(runs[first]) == len(runs[second]):
                for split, part in splits.items():
                    for m in rows[split]:
                        each = [a[m][part] - b[m][part] for a, b in zip(runs[first], runs[second], strict=True)]
                        rows[split][m].append(int(sum(np.nanmean(d) > 0 for d in each if not np.isnan(d).all())))
            report["differences"][f"{first} - {second}"] = rows
    return report


def _mean(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}


def _intervals(values: dict[str, np.ndarray], part: np.ndarray, questions: Questions) -> dict[str, list]:
    rows = {name: interval(each[part], questions.query_classes[part]) for name, each in values.items()}
    return {name: json_row(row, 5) for name, row in rows.items() if not np.isnan(row[0])}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def ann_loss(queries: np.ndarray, vectors: np.ndarray, cache: Path, key: str, depth: int = DEPTH) -> float | None:
    """The fraction of the exact first `depth` answers that the IVF index misses; None if no IVF index can be built."""
    from realrag.search.index import ExactIndex, open_index

    try:
        fast = open_index(vectors, cache, key, kind="ivf")
    except Exception:  # without faiss, or with too few rows for an index, nothing can be lost
        return None
    if fast.kind == "exact":
        return None
    exact = ExactIndex(vectors).search(queries, depth)[1]
    found = fast.search(queries, depth)[1]
    return float(1 - np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))


def table(report: dict, measures: Sequence[str] = ("R@1", "R@10", "P@10", "mAP", "nDCG@10", "MRR", *REFLECTIVE)) -> str:
    """The figures as text: one line per arm and split, then the differences with their intervals."""
    lines = [f"{'arm':<12}{'split':<9}{'prompts':>8}" + "".join(f"{m:>17}" for m in measures)]
    for split, prompts in report["splits"].items():
        for arm, metadata in report["arms"].items():
            row = metadata["splits"].get(split, {})
            cells = (f"{row[m][0]:>17.3f}" if m in row else f"{'-':>17}" for m in measures)
            lines.append(f"{arm:<12}{split:<9}{prompts:>8}" + "".join(cells))
    if report["differences"]:
        lines += [
            "",
            f"differences, with 95 % intervals over classes (none below {FEWEST} classes; not resolved if 0 lies inside)",
        ]
    for pair, splits in report["differences"].items():
        for split, row in splits.items():
            cells = ", ".join(
                f"{m} {with_interval(row[m], '+.3f')}"
                for m in ("R@1", "mAP", "reflective hits", "sibling margin")
                if m in row
            )
            lines.append(f"{pair:<22}{split:<9}{cells}")
    return "\n".join(lines)
