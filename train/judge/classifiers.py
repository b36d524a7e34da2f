"""The judges that name the class of a picture: linear, nearest class mean, and (with a text tower) nearest class name.

The first two are trained on real photos alone. None is the retriever, but a judge on the retriever's own encoder shares
its blind spots: name another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from realrag.errors import RealRAGError

STRENGTHS = tuple(10.0**power for power in range(-6, 2))  # of the ridge, as shares of the mean variance


@dataclass(frozen=True)
class Judge:
    """classes (C,) codes; a picture's class is that of the largest of its scores vectors @ weights + bias, (N, C)."""

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray | float = 0.0

    def name(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) unit vectors -> (N,) class codes; ties go to the smaller code."""
        return self.classes[(vectors @ self.weights + self.bias).argmax(1)]

    def right(self, vectors: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(N,) 1 where the class is named rightly, 0 where not, NaN for classes the judge has never seen."""
        return np.where(np.isin(classes, self.classes), (self.name(vectors) == classes).astype(float), np.nan)


def linear_judge(vectors: np.ndarray, classes: np.ndarray) -> tuple[Judge, dict]:
    """Ridge regression on the classes, one column each. Its strength is the one of STRENGTHS with the most photos named
    rightly by the regression without them (exact leave-one-out; the stronger of equals), on these photos alone."""
    known, code = np.unique(classes, return_inverse=True)
    if len(known) < 2:
        raise RealRAGError(
            f"The judge is taught {len(known)} class; it needs two or more. Give photos of more classes."
        )
    x, y = np.asarray(vectors, np.float64), np.eye(len(known))[code]
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    spread, axes = np.linalg.eigh(x.T @ x)
    spread, turned = np.maximum(spread, 0), x @ axes
    target, best = turned.T @ y, None
    for strength in sorted(STRENGTHS, reverse=True):
        shrunk = 1 / (spread + strength * spread.mean() + 1e-12)
        fitted = turned @ (shrunk[:, None] * target)
        lever = (turned**2 @ shrunk + 1 / len(x))[:, None]  # the photo's own share in its answer; 1/N is the mean's
        without = fitted - lever / np.maximum(1 - lever, 1e-9) * (y - fitted)
        share = float(((without + y_mean).argmax(1) == code).mean())
        if best is None or share > best[0]:
            best = share, strength, axes @ (shrunk[:, None] * target)
    share, strength, weights = best
    facts = {"photos": len(x), "classes": len(known), "ridge": strength, "leave_one_out": round(share, 5)}
    return Judge(known, weights, y_mean - x_mean @ weights), facts


def mean_judge(vectors: np.ndarray, classes: np.ndarray) -> Judge:
    """The class whose mean vector, made unit, is nearest by cosine."""
    known, code = np.unique(classes, return_inverse=True)
    means = np.stack([vectors[code == i].mean(0) for i in range(len(known))]).astype(np.float64)
    return Judge(known, (means / np.linalg.norm(means, axis=1, keepdims=True)).T)


def name_judge(said: np.ndarray, classes: np.ndarray) -> Judge:
    """The class whose prompt is nearest by cosine (zero-shot, as the paper's accuracy): said (C, D) unit, one a
    class."""
    order = np.argsort(classes)
    return Judge(np.asarray(classes)[order], said[order].T)
