"""Ridge regression: the linear probe that every judgment of vectors here rests on."""

from __future__ import annotations

import numpy as np


class Ridge:
    """The regression of y (N, C) on x (N, D), in float64, for any strength from one eigendecomposition.

    Strengths are fractions of the mean eigenvalue of the covariance. weight (N,): of the rows, with sum 1; None weighs
    them alike. x_mean and y_mean are what x and y are centered by."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.x_mean, self.y_mean = (x.mean(0), y.mean(0)) if weight is None else (weight @ x, weight @ y)
        scale = 1.0 if weight is None else np.sqrt(weight)[:, None]
        x, self.y = (x - self.x_mean) * scale, (y - self.y_mean) * scale
        spread, self.axes = np.linalg.eigh(x.T @ x)
        self.spread, self.turned = np.maximum(spread, 0), x @ self.axes
        self.target = self.turned.T @ self.y

    def _shrunk(self, strength: float) -> np.ndarray:
        return 1 / (self.spread + strength * self.spread.mean() + 1e-12)

    def weights(self, strength: float) -> np.ndarray:
        """(D, C): predictions are (x - x_mean) @ weights + y_mean."""
        return self.axes @ (self._shrunk(strength)[:, None] * self.target)

    def left_out(self, strength: float) -> np.ndarray:
        """(N, C): what the regression without a row predicts for it, exactly. Rows must weigh alike."""
        shrunk = self._shrunk(strength)
        fitted = self.turned @ (shrunk[:, None] * self.target)
        # The fraction of a row's prediction that is its own value; 1/N of it comes from the mean.
        lever = (self.turned**2 @ shrunk + 1 / len(self.turned))[:, None]
        return fitted - lever / np.maximum(1 - lever, 1e-9) * (self.y - fitted) + self.y_mean
