"""FID and KID against their definitions, scipy and torchmetrics, and the intervals against simulation."""

import numpy as np
import pytest
import torch

from realrag_train.judge.fid_kid import fid, jackknifed, kid, real_floor, reference_rows, scaled


def two_sets(n=60, m=45, dim=7, seed=0):
    rng = np.random.default_rng(seed)
    turn = rng.normal(size=(dim, dim))
    return rng.normal(size=(n, dim)) @ turn, 0.7 * rng.normal(size=(m, dim)) + 0.4


def slow_fid(x, y):
    """As the formula reads, with a root of each covariance by its eigenvalues."""

    def root(c):
        values, vectors = np.linalg.eigh(c)
        return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T

    a, b = np.cov(x.T), np.cov(y.T)
    middle = root(root(a) @ b @ root(a))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(middle)


def slow_kid(x, y):

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("n, dim", [(60, 7), (9, 20)])  # more pictures than dimensions, and fewer
def test_fid_equals_its_formula(n, dim):
    x, y = two_sets(n, 45, dim)
    assert fid(x, y) == pytest.approx(slow_fid(x, y), rel=1e-6)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_fid_equals_the_one_with_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    x, y = two_sets()
    a, b = np.cov(x.T), np.cov(y.T)
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    assert fid(x, y) == pytest.approx(apart + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real), rel=1e-9)


def test_fid_of_two_normal_distributions_in_one_dimension_is_known():
    x, y = np.array([[-3.0], [3.0]]), np.array([[4.0], [6.0]])  # means 0 and 5, deviations sqrt(18) and sqrt(2)
    assert fid(x, y) == pytest.approx(25 + (np.sqrt(18) - np.sqrt(2)) ** 2)


def test_kid_equals_its_formula_however_it_is_cut(monkeypatch):
    x, y = two_sets(23, 17)
    assert kid(x, y) == pytest.approx(slow_kid(x, y), rel=1e-12)
    monkeypatch.setattr("realrag_train.judge.fid_kid.ROWS", 5)
    assert kid(x, y) == pytest.approx(slow_kid(x, y), rel=1e-12)


def test_kid_has_no_bias_where_fid_has():
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=(20, 6)), rng.normal(size=(20, 6))) for _ in range(300)]
    kids, fids = (np.array([measure(x, y) for x, y in pairs]) for measure in (kid, fid))
    assert abs(kids.mean()) < 3 * kids.std() / np.sqrt(300)
    assert fids.mean() > 20 * fids.std() / np.sqrt(300)


@pytest.mark.slow
def test_fid_and_kid_equal_torchmetrics():
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1)[:, :12].double()

    rng = torch.Generator().manual_seed(0)
    real, drawn = (torch.rand(40, 3, 4, 4, generator=rng, dtype=torch.float64) ** p for p in (1, 2))
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=40, normalize=True)
    for metric in (theirs, kernel):
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    x, y = (Flat()(each).numpy() for each in (real, drawn))
    assert fid(x, y) == pytest.approx(float(theirs.compute()), rel=1e-6)
    assert kid(x, y) == pytest.approx(float(kernel.compute()[0]), rel=1e-5)


def test_the_left_out_groups_are_left_out_of_both_sides():
    x, y = two_sets()
    x_classes, y_classes = np.arange(60) % 5, np.arange(45) % 5
    fids, kids = jackknifed(x, x_classes, y, y_classes)
    assert (fids.value, kids.value) == (pytest.approx(fid(x, y)), pytest.approx(kid(x, y)))
    alone = [(fid(x[x_classes != c], y[y_classes != c]), kid(x[x_classes != c], y[y_classes != c])) for c in range(5)]
    np.testing.assert_allclose(sorted(fids.without), sorted(a for a, _ in alone))
    np.testing.assert_allclose(sorted(kids.without), sorted(b for _, b in alone))


@pytest.mark.slow
def test_the_interval_of_a_difference_holds_the_truth_about_as_often_as_it_says():
    """Two arms at equal distance from the real photos, 20 classes as clusters: 0 lies inside in 95 of 100 worlds, more
    or less; a far worse arm is told apart in all of them."""
    inside = apart = 0
    for world in range(60):
        rng = np.random.default_rng(world)
        centers, classes = rng.normal(size=(20, 4)), np.arange(20).repeat(6)
        real, a, b = (centers[classes] + 0.5 * rng.normal(size=(120, 4)) for _ in range(3))
        far = jackknifed(b + 1.5, classes, real, classes)
        a, b = jackknifed(a, classes, real, classes), jackknifed(b, classes, real, classes)
        for first, second, worse in zip(a, b, far, strict=True):
            _, low, high = (first - second).interval()
            inside += low <= 0 <= high
            apart += (worse - first).interval()[1] > 0
    assert inside >= 0.88 * 120 and apart == 120


def test_the_floor_is_taken_at_the_number_of_the_arms():
    rows, n = reference_rows(100, [80, 30])
    assert n == 30 and len(rows) == 70 and len(set(rows)) == 70
    assert reference_rows(41, [80])[1] == 20
    real = scaled(np.random.default_rng(0).normal(size=(120, 6)))
    assert np.linalg.norm(real, axis=1) == pytest.approx(np.full(120, np.sqrt(6)))
    few, many = real_floor(real, 10)["FID"], real_floor(real, 60)["FID"]
    assert few[0] > many[0] > 0  # fewer pictures, larger FID, though all are of one kind
