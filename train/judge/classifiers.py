"""Classifiers that name the class of a picture: ridge regression, nearest class mean and, with a text tower, nearest
class name.

The first two are trained on real photos only. None is the retriever. But a classifier on the retriever's own encoder
shares its blind spots, so judge with another encoder too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from realrag.errors import RealRAGError

from ..ridge import Ridge

STRENGTHS = tuple(10.0**power for power in range(-6, 2))  # of the ridge, as fractions of the mean variance


@dataclass(frozen=True)
class Classifier:
    """classes (C,) codes. A picture gets the class with the largest of its scores vectors @ weights + bias, (N, C)."""

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray | float = 0.0

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) unit vectors -> (N,) class codes. Ties go to the smaller code."""
        return self.classes[(vectors @ self.weights + self.bias).argmax(1)]

    def correct(self, vectors: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(N,) 1 if the prediction is the picture's class, else 0. NaN for classes that were not in training."""
        known = np.isin(classes, self.classes)
        return np.where(known, (self.predict(vectors) == classes).astype(float), np.nan)


def ridge_classifier(vectors: np.ndarray, classes: np.ndarray) -> tuple[Classifier, dict]:
    """Ridge regression on one column per class, and how it was trained.

    Among STRENGTHS it takes the one with the best exact leave-one-out accuracy on these photos; the stronger if equal.
    RealRAGError for fewer than two classes."""
    known, code = np.unique(classes, return_inverse=True)
    if len(known) < 2:
        raise RealRAGError(f"A classifier got photos of {len(known)} class; it needs two or more. Add other classes.")
    ridge, best = Ridge(vectors, np.eye(len(known))[code]), (-1.0, 0.0)
    for strength in sorted(STRENGTHS, reverse=True):
        accuracy = float((ridge.left_out(strength).argmax(1) == code).mean())
        best = (accuracy, strength) if accuracy > best[0] else best
    accuracy, strength = best
    weights = ridge.weights(strength)
    report = {"photos": len(code), "classes": len(known), "ridge": strength, "leave_one_out": round(accuracy, 5)}
    return Classifier(known, weights, ridge.y_mean - ridge.x_mean @ weights), report


def mean_classifier(vectors: np.ndarray, classes: np.ndarray) -> Classifier:
    """The class whose normalized mean vector is nearest by cosine."""
    known, code = np.unique(classes, return_inverse=True)
    means = np.stack([vectors[code == i].mean(0) for i in range(len(known))]).astype(np.float64)
    return Classifier(known, (means / np.linalg.norm(means, axis=1, keepdims=True)).T)


def name_classifier(prompts: np.ndarray, classes: np.ndarray) -> Classifier:
    """The class whose prompt is nearest by cosine (zero-shot, as the paper measures accuracy). prompts (C, D): unit
    vectors, one per class."""
    order = np.argsort(classes)
    return Classifier(np.asarray(classes)[order], prompts[order].T)
