"""Rows of length 1."""

import numpy as np


def unit(rows, dtype=np.float32):
    """(..., D) -> the same directions, of length 1."""
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(dtype)
