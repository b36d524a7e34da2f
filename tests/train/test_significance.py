"""P-values, Holm's correction and slopes: against slow twins, printed examples, statsmodels where it is installed, and by
how often they hold what they promise."""

import numpy as np
import pytest

from realrag_train.significance import holm, p_value, slope
from realrag_train.stats import FEWEST, bootstrap


def test_the_p_value_counts_means_of_classes_drawn_one_by_one():
    rng = np.random.default_rng(3)
    values, classes = rng.normal(0.3, 1, 30), rng.integers(0, 7, 30)
    names, means = np.unique(classes), []
    for pick in np.random.default_rng(5).integers(0, len(names), (500, len(names))):
        means.append(np.concatenate([values[classes == names[c]] for c in pick]).mean())
    below, above = sum(mean < 0 for mean in means), sum(mean > 0 for mean in means)
    assert 0 < below < above and p_value(values, classes, 5, 500) == pytest.approx(2 * below / 500)
    assert p_value(-values, classes, 5, 500) == p_value(values, classes, 5, 500)


def test_the_p_value_is_below_five_percent_where_the_interval_leaves_out_nothing():
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 0.6, 25):
        values = rng.normal(shift, 1, 40)
        _, low, high = bootstrap(values, np.arange(40))
        p = p_value(values, np.arange(40))
        assert (p < 0.05) == (low > 0 or high < 0) or abs(p - 0.05) < 0.001


def test_arms_that_do_not_differ_have_the_p_value_one_whatever_their_seeds_average_to():
    assert p_value(np.zeros(40), np.arange(40) // 4) == 1
    assert p_value(np.full(40, (0.1 + 0.2) - 0.3), np.arange(40) // 4) == 1  # a remainder of floating point is no sign


def test_holm_is_that_of_the_printed_example():
    """Four hypotheses with p 0.01, 0.04, 0.03 and 0.005: times 3, 1, 2 and 4, and never below a smaller one's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == [] and holm([0.02]) == [0.02]
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(1)
    for count in (2, 3, 10):
        values = rng.random(count) ** 3
        assert holm(values.tolist()) == pytest.approx(multitest.multipletests(values, method="holm")[1])


def test_the_slope_and_its_interval_are_those_of_a_slow_twin():
    rng = np.random.default_rng(2)
    x = rng.random(30)
    y = 0.4 * x + rng.normal(0, 0.1, 30)
    slow = []
    for pick in np.random.default_rng(7).integers(0, 30, (300, 30)):
        slow.append(np.polyfit(x[pick], y[pick], 1)[0])
    expected = [np.polyfit(x, y, 1)[0], *np.quantile(slow, (0.025, 0.975))]
    assert slope(x, y, 7, 300) == pytest.approx(expected)


def test_the_interval_of_a_slope_covers_the_truth_about_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(4), 0, 300
    for _ in range(trials):
        x = rng.random(60)
        y = 0.1 * x + rng.normal(0, 0.05 + 0.1 * x)  # the spread varies with x, as accuracies do
        _, low, high = slope(x, y, resamples=400)
        hits += low <= 0.1 <= high
    assert 0.89 <= hits / trials <= 0.985


def test_a_slope_needs_an_x_that_varies_and_classes_enough():
    assert np.isnan(slope(np.ones(20), np.arange(20.0))).all()
    value, *bounds = slope(np.arange(FEWEST - 1.0), 2 * np.arange(FEWEST - 1.0))
    assert value == pytest.approx(2) and np.isnan(bounds).all()
    lone = np.array([0.0] * 9 + [1.0])  # a third of the resamples draw no 1
    assert not np.isnan(slope(lone, lone)).any()
