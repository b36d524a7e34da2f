"""Photos and prompts of a few classes in the plane of their largest variance, before a head and after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from realrag.encoders.reflective_head import ReflectiveHead

from ..charts import chart, scatter
from ..contrastive.tuned_encoder import TunedVectors
from ..dataset import Prompt
from .evaluate import Questions, head_vectors

SHOWN_CLASSES, SHOWN_PHOTOS = 6, 60
PANEL = 500, 400  # pixels


def principal_axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, D) -> mean (D,), the first two principal axes (2, D), and the fraction of the variance along each (2,). The
    largest component of an axis is positive, so that axes do not flip between runs."""
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(0)
    _, spread, axes = np.linalg.svd(rows - mean, full_matrices=False)
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(1)])
    return mean, axes[:2] * signs[:, None], spread[:2] ** 2 / (spread**2).sum()


def shown_prompts(asked: Questions, order: Sequence[int]) -> list[int]:
    """Prompts to show, one per class: the first of `order` whose class the generator draws as another, one of that
    other class, then the next of `order`."""
    first = {}
    for p in order:
        first.setdefault(int(asked.query_classes[p]), int(p))
    chosen: list[int] = []
    for p in first.values():
        if (other := int(asked.siblings[p])) in first:
            chosen = [p, first[other]]
            break
    return (chosen + [p for p in first.values() if p not in chosen])[:SHOWN_CLASSES]


def arm_vectors(asked: Questions, arm: ReflectiveHead | TunedVectors | None, prompt: int, rows: np.ndarray):
    """An arm's vectors of some gallery photos (M, D) and of a prompt (1, D)."""
    if isinstance(arm, TunedVectors):
        return arm.photos[rows], arm.queries[prompt][None]
    return head_vectors(asked.photos[rows], arm), asked.queries[prompt][None]


def projection(
    asked: Questions,
    arms: dict[str, Sequence[ReflectiveHead | TunedVectors | None]],
    prompts: Sequence[Prompt],
    order: Sequence[int],
) -> tuple[Callable[[], Image.Image], str] | None:
    """(a function that draws the chart, a sentence about it): one panel per arm, first seed, all in the plane of the
    shown photos of every arm together. None if there are too few photos for a plane."""
    chosen = shown_prompts(asked, order)
    rows = {p: np.flatnonzero(asked.photo_classes == asked.query_classes[p])[:SHOWN_PHOTOS] for p in chosen}
    if sum(map(len, rows.values())) < 3 or asked.photos.shape[1] < 2:
        return None
    vectors = {arm: {p: arm_vectors(asked, heads[0], p, rows[p]) for p in chosen} for arm, heads in arms.items()}
    mean, axes, variance = principal_axes(
        np.concatenate([photos for each in vectors.values() for photos, _ in each.values()])
    )

    def place(v):
        return (np.asarray(v, np.float64) - mean) @ axes.T

    placed = {
        arm: {p: (place(photos), place(query)) for p, (photos, query) in each.items()} for arm, each in vectors.items()
    }
    everything = np.concatenate([points for each in placed.values() for pair in each.values() for points in pair])
    bounds = everything.min(0), everything.max(0)
    drawn = {int(asked.siblings[p]) for p in chosen if asked.siblings[p] >= 0}
    marks = {p: "* " if asked.siblings[p] >= 0 else "(*) " if asked.query_classes[p] in drawn else "" for p in chosen}
    panels = []
    for arm, each in placed.items():
        groups = [(marks[p] + prompts[p].class_name, *each[p]) for p in chosen]
        title = "zero: the plain encoder" if arm == "zero" else arm
        panels.append(lambda axes, groups=groups, title=title: scatter(axes, groups, title, bounds))
    note = (
        f"The plane holds {variance.sum():.0%} of the variance of these photos. Dots are photos. Diamonds are prompts, which a "
        "head does not move. * the generator draws something else, (*) what it draws instead. Nearness in a plane is only a hint."
    )
    return lambda: chart(panels, 2, PANEL), note
