"""FID and KID between two sets of vectors, in float64 with numpy only, and their jackknife over classes.

Both are defined for any features. Here the features are an encoder's unit vectors times sqrt(D), which takes the
encoder's scale out. Compare figures only within one encoder, and FID only at equal numbers of pictures: few pictures
raise it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..stats import Jackknifed

ROWS = 1024  # rows of the kernel matrix computed at once
GROUPS = 20  # groups of classes that the jackknife leaves out in turn; each costs one FID


@dataclass(frozen=True)
class Gaussian:
    """The mean (D,) of N vectors and a root (K, D) of their covariance: root.T @ root is the covariance, N - 1
    degrees."""

    mean: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Gaussian:
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(0)
        return cls(mean, np.linalg.qr(rows - mean, mode="r") / np.sqrt(len(rows) - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) (Heusel et al., arXiv 1706.08500).

    With C = R.T R, the eigenvalues of C_a C_b are the squared singular values of R_a R_b.T. So no matrix root is
    needed.
    """
    apart = ((a.mean - b.mean) ** 2).sum()
    shared = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    return float(apart + (a.root**2).sum() + (b.root**2).sum() - 2 * shared)


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """The Frechet distance of x (N, D) and y (M, D), N and M at least 2."""
    return frechet(Gaussian.of(x), Gaussian.of(y))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD of x (N, D) and y (M, D) with the kernel (x.y / D + 1)^3 (Binkowski et al., arXiv
    1801.01401). It runs over all pairs instead of random blocks, which has the same expectation and less noise. It may
    be below 0."""
    one = np.zeros(len(x), int), np.zeros(len(y), int)
    return float(_mmd2(*_kernel_sums(x, one[0], y, one[1], 1)))


def _kernel_sums(x, x_groups, y, y_groups, groups: int) -> tuple[np.ndarray, ...]:
    """Sums of the kernel without its diagonal for xx, yy and xy, (G, G) by group of rows and columns, and the counts of
    rows by group."""

    def sums(a, a_groups, b, b_groups, same: bool) -> np.ndarray:
        members, total = np.eye(groups)[b_groups], np.zeros((groups, groups))
        for start in range(0, len(a), ROWS):
            part = slice(start, start + ROWS)
            kernel = (a[part] @ b.T / a.shape[1] + 1) ** 3
            if same:
                kernel[np.arange(len(kernel)), start + np.arange(len(kernel))] = 0
            np.add.at(total, a_groups[part], kernel @ members)
        return total

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    counts = np.bincount(x_groups, minlength=groups), np.bincount(y_groups, minlength=groups)
    return (sums(x, x_groups, x, x_groups, True), sums(y, y_groups, y, y_groups, True),
            sums(x, x_groups, y, y_groups, False), *counts)  # fmt: skip


def _mmd2(xx, yy, xy, n, m, kept: np.ndarray | None = None) -> float:
    """The squared MMD from the sums of the groups in `kept`; None for all."""
    kept = np.ones(len(n), bool) if kept is None else kept
    inside = np.ix_(kept, kept)
    n, m = n[kept].sum(), m[kept].sum()
    return xx[inside].sum() / (n * (n - 1)) + yy[inside].sum() / (m * (m - 1)) - 2 * xy[inside].sum() / (n * m)


def jackknifed(
    x: np.ndarray, x_classes: np.ndarray, y: np.ndarray, y_classes: np.ndarray, seed: int = 0
) -> tuple[Jackknifed, Jackknifed]:
    """FID and KID of x and y, and both again without each of up to GROUPS random groups of classes (left out of x and
    y). A bootstrap would draw pictures twice, which both measures take for a lack of diversity."""
    classes = np.unique(np.concatenate([x_classes, y_classes]))
    groups = min(GROUPS, len(classes))
    group_of = np.random.default_rng(seed).permutation(len(classes)) % groups
    x_groups, y_groups = (group_of[np.searchsorted(classes, each)] for each in (x_classes, y_classes))
    parts = _kernel_sums(x, x_groups, y, y_groups, groups)
    fids, kids = [], []
    for group in range(groups) if groups > 1 else ():
        in_x, in_y = x_groups != group, y_groups != group
        enough = min(in_x.sum(), in_y.sum()) > 1
        fids.append(fid(x[in_x], y[in_y]) if enough else np.nan)
        kids.append(_mmd2(*parts, np.arange(groups) != group) if enough else np.nan)
    return Jackknifed(fid(x, y), np.array(fids)), Jackknifed(float(_mmd2(*parts)), np.array(kids))


def scaled(rows: np.ndarray) -> np.ndarray:
    """(N, D) raw vectors -> float64, each of length sqrt(D)."""
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(rows.shape[1])


def real_floor(real: np.ndarray, count: int, splits: int = 5, seed: int = 0) -> dict[str, list[float]]:
    """{"FID": [mean, sd], "KID": [mean, sd]} between `count` real photos and the other ones, over random splits."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(splits):
        order = rng.permutation(len(real))
        found.append((fid(real[order[:count]], real[order[count:]]), kid(real[order[:count]], real[order[count:]])))
    values = np.array(found)
    return {
        name: [float(values[:, i].mean()), float(values[:, i].std(ddof=1))] for i, name in enumerate(("FID", "KID"))
    }


def reference_rows(count: int, wanted: Sequence[int], seed: int = 0) -> tuple[np.ndarray, int]:
    """The rows of the real photos that every arm is compared with, and the number of pictures N per arm: the smallest
    of `wanted`, at most half of the photos, so that N real photos remain to measure the floor."""
    n = min([*wanted, count // 2])
    return np.sort(np.random.default_rng(seed).permutation(count)[n:]), n
