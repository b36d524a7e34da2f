"""Learning-rate schedules, as the fraction of the highest learning rate at a step. Warm-up is counted in steps."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warm_up: float) -> float:
    """Linear warm-up times half a cosine over all steps, down to 0 (SGDR without restarts, arXiv 1608.03983)."""
    return min(1.0, (step + 1) / max(1, warm_up)) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


def warmup_stable_decay(step: int, steps: int, warm_up: float, cool_down: float) -> float:
    """Linear warm-up, constant, and a linear decay over the last `cool_down` (a fraction) of the steps.

    A run can be extended or ended at any step, since the constant part does not depend on `steps` (arXiv 2405.18392).
    """
    return min(1.0, (step + 1) / max(1, warm_up), (steps - step) / max(1.0, cool_down * steps))
