"""Pooling of experiments: closed forms, what statsmodels and scipy gave for one example, and both again where installed."""

import math

import numpy as np
import pytest

from realrag.errors import RealRAGError
from realrag_train.meta_analysis import chi2_above, paule_mandel, pool

EFFECTS, ERRORS = [0.61, 0.28, 0.41, -0.05, 0.33], [0.12, 0.09, 0.15, 0.20, 0.11]


def test_two_experiments_have_the_closed_form_and_no_random_effects():
    found = pool([0.024, 0.010], [0.009, 0.012])
    weights = 1 / 0.009**2, 1 / 0.012**2
    mean, error = (0.024 * weights[0] + 0.010 * weights[1]) / sum(weights), sum(weights) ** -0.5
    assert found.fixed == pytest.approx([mean, mean - 1.96 * error, mean + 1.96 * error], abs=1e-5)
    assert found.q == pytest.approx(0.014**2 / (0.009**2 + 0.012**2))  # of two, the squared difference in its errors
    assert found.p == pytest.approx(math.erfc(math.sqrt(found.q / 2)))
    assert found.tau2 is None and found.random is None and found.i2 == 0


def test_the_example_that_statsmodels_0_15_and_scipy_1_17_were_asked():
    """combine_effects(..., method_re="iterated"); for three experiments its iteration ends at 0 though Q is above 2, so the
    variance there is the root that scipy.optimize.brentq finds."""
    two, three, five = (pool(EFFECTS[:n], ERRORS[:n]) for n in (2, 3, 5))
    assert [two.fixed[0], two.error, two.q, two.p, two.i2] == pytest.approx(
        [0.3988, 0.072, 4.84, 0.0278068950, 0.7933884298]
    )
    assert [three.q, three.p] == pytest.approx([4.8445311371, 0.0887203875])
    assert [three.tau2, *three.random] == pytest.approx([0.0160418017, 0.4218249242, -0.0079735168, 0.8516233652])
    assert [five.fixed[0], five.error, five.q, five.p] == pytest.approx(
        [0.3512387431, 0.0538389465, 9.4919111850, 0.0499137202]
    )
    assert [five.tau2, *five.random] == pytest.approx(
        [0.0300683594, 0.3402669149, 0.0702080852, 0.6103257446], rel=2e-3
    )


def test_pooling_is_that_of_statsmodels():
    analysis = pytest.importorskip("statsmodels.stats.meta_analysis")
    found = analysis.combine_effects(np.array(EFFECTS), np.array(ERRORS) ** 2, method_re="iterated", atol=1e-15)
    own = pool(EFFECTS, ERRORS)
    assert [own.fixed[0], own.error, own.q, own.tau2, own.random[0]] == pytest.approx(
        [found.mean_effect_fe, found.sd_eff_w_fe, found.q, found.tau2, found.mean_effect_re]
    )


def test_chi_squared_is_that_of_the_tables():
    for value, freedom in ((3.841, 1), (5.991, 2), (9.488, 4), (18.307, 10)):
        assert chi2_above(value, freedom) == pytest.approx(0.05, abs=5e-5)
    assert chi2_above(0, 1) == 1


def test_experiments_that_agree_vary_by_nothing_and_those_that_differ_widen_the_interval():
    agree, differ = pool([0.02] * 4, [0.01] * 4), pool([0.00, 0.05, -0.04, 0.09], [0.01] * 4)
    assert agree.q == 0 and agree.p == 1 and agree.tau2 == 0 and agree.random[0] == pytest.approx(agree.fixed[0])
    assert differ.tau2 == pytest.approx(
        np.var([0.00, 0.05, -0.04, 0.09], ddof=1) - 0.01**2
    )  # equal errors: a closed form
    assert differ.random[2] - differ.random[1] > 3 * (differ.fixed[2] - differ.fixed[1])
    assert paule_mandel(np.array([0.0, 1e3, -1e3]), np.full(3, 1e-3)) == pytest.approx(1e6, rel=1e-6)


@pytest.mark.slow
def test_the_random_effects_interval_covers_the_mean_of_worlds_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        errors = rng.uniform(0.008, 0.012, 4)
        effects = rng.normal(0.02, 0.02, 4) + rng.normal(0, errors)
        _, low, high = pool(effects, errors).random
        hits += low <= 0.02 <= high
    assert 0.92 <= hits / trials <= 0.98


@pytest.mark.parametrize(
    ("effects", "errors"), [([0.1], [0.1]), ([0.1, 0.2], [0.1, 0]), ([0.1, 0.2], [0.1]), ([0.1, float("nan")], [1, 1])]
)
def test_what_cannot_be_pooled_is_refused(effects, errors):
    with pytest.raises(RealRAGError, match=r"pooling needs two|must be above 0"):
        pool(effects, errors)
