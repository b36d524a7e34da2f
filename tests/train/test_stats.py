"""Intervals over classes: against slow twins, against scipy, and by how often they cover a known truth."""

import numpy as np
import pytest

from realrag_train.stats import (
    FEWEST,
    MANY,
    Jackknifed,
    bootstrap,
    bootstrap_of,
    crossed_weights,
    interval,
    json_row,
    relative_change,
    t_975,
)


def test_the_bootstrap_equals_one_drawn_class_by_class():
    rng = np.random.default_rng(3)
    values, classes = rng.random(30), rng.integers(0, 7, 30)
    mean, low, high = bootstrap(values, classes, seed=5, resamples=500)
    names, means = np.unique(classes), []
    for pick in np.random.default_rng(5).integers(0, len(names), (500, len(names))):
        means.append(np.concatenate([values[classes == names[c]] for c in pick]).mean())
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))


def test_the_bootstrap_of_one_value_a_class_resamples_the_values():
    values = np.random.default_rng(0).random(40)
    drawn = np.random.default_rng(2).integers(0, 40, (300, 40))
    expected = values.mean(), *np.quantile(values[drawn].mean(1), (0.025, 0.975))
    assert bootstrap(values, np.arange(40), 2, 300) == pytest.approx(expected)


def test_the_bootstrap_resamples_classes_and_not_single_values():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 50)
    values = rng.normal(size=10)[classes] + 0.01 * rng.normal(size=500)
    _, low, high = bootstrap(values, classes, 0, 2000)
    _, *alone = bootstrap(values, np.arange(500), 0, 2000)
    assert low < values.mean() < high
    assert high - low > 3 * (alone[1] - alone[0])


def test_the_bootstrap_of_any_figure_draws_what_that_of_the_mean_draws():
    rng = np.random.default_rng(1)
    values, classes = rng.random(60), rng.integers(0, 9, 60)
    low, high = bootstrap_of(lambda rows: values[rows].mean(), classes, seed=4, resamples=400)
    assert (low, high) == pytest.approx(bootstrap(values, classes, 4, 400)[1:], abs=0.01)  # another kind of quantile
    assert bootstrap_of(lambda rows: np.inf, classes, resamples=10) == (np.inf, np.inf)


def test_values_that_are_missing_are_left_out():
    values = np.array([1.0, np.nan, 3.0])
    for each in (interval, bootstrap):
        assert each(values, np.arange(3))[0] == 2
        assert np.isnan(each(np.array([np.nan]), np.zeros(1))).all()


def test_few_classes_have_no_interval_some_have_students_t_and_many_have_the_bootstrap():
    values = np.random.default_rng(2).random(MANY)
    few = interval(values[: FEWEST - 1], np.arange(FEWEST - 1))
    assert few[0] == pytest.approx(values[: FEWEST - 1].mean())
    assert np.isnan(few[1:]).all()
    some = values[:FEWEST]
    wide = 2.776 * some.std(ddof=1) / np.sqrt(FEWEST)  # Student's t of 4 degrees of freedom
    assert interval(some, np.arange(FEWEST))[1:] == pytest.approx([some.mean() - wide, some.mean() + wide], rel=1e-2)
    assert interval(values, np.arange(MANY)) == bootstrap(values, np.arange(MANY))


def test_many_pictures_of_few_classes_do_not_narrow_an_interval():
    values, classes = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]), np.arange(6)
    once, often = interval(values, classes), interval(values.repeat(50), classes.repeat(50))
    assert often == pytest.approx(once)


@pytest.mark.parametrize("classes", [5, 10, 20, 40])
@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_promise(classes):
    """2,000 worlds with `classes` classes of 8 right or wrong pictures, whose accuracies differ much between classes.
    The plain percentile bootstrap of 5 classes, which reports gave before, covers far less."""
    rng, labels, held, plain = np.random.default_rng(classes), np.repeat(np.arange(classes), 8), 0, 0
    for _ in range(2000):
        chance = rng.beta(2, 3, classes)  # their mean is 0.4
        values = (rng.random(8 * classes) < chance[labels]).astype(float)
        _, low, high = interval(values, labels, 0, 300)
        held += low <= 0.4 <= high
        if classes == FEWEST:
            _, low, high = bootstrap(values, labels, 0, 300)
            plain += low <= 0.4 <= high
    assert 0.925 <= held / 2000 <= 0.97
    if classes == FEWEST:
        assert plain / 2000 < 0.88


def test_the_jackknife_of_a_mean_is_its_students_interval():
    values = np.random.default_rng(2).normal(size=12)
    without = np.array([np.delete(values, i).mean() for i in range(12)])
    wide = 2.200985 * values.std(ddof=1) / np.sqrt(12)  # Student's t of 11 degrees of freedom
    expected = [values.mean() - wide, values.mean() + wide]
    assert Jackknifed(values.mean(), without).interval()[1:] == pytest.approx(expected, rel=1e-4)


def test_students_t_is_that_of_the_tables():
    for freedom, printed in (
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (10, 2.228),
        (19, 2.093),
        (29, 2.045),
    ):
        assert t_975(freedom) == pytest.approx(printed, rel=5e-3)


def test_a_relative_change_is_resampled_as_a_ratio_of_paired_means():
    rng = np.random.default_rng(1)
    classes, second = np.arange(60) // 3, rng.random(60)
    first = np.clip(second + rng.normal(0.05, 0.1, 60), 0, None)
    ratios = [
        first[rows].mean() / second[rows].mean() - 1
        for pick in np.random.default_rng(4).integers(0, 20, (300, 20))
        for rows in [np.concatenate([np.flatnonzero(classes == c) for c in pick])]
    ]
    expected = [first.mean() / second.mean() - 1, *np.quantile(ratios, (0.025, 0.975))]
    assert relative_change(first, second, classes, 4, 300) == pytest.approx(expected)
    assert relative_change(second, second, classes) == [0, 0, 0]
    assert np.isnan(relative_change(first, np.zeros(60), classes)).all()
    rare = (classes == 0).astype(float)  # a third of the resamples have nothing to divide by
    assert np.isnan(relative_change(first, rare, classes)[1:]).all()


def test_a_jackknifed_ratio_is_that_of_each_group_left_out():
    one, two = (
        Jackknifed(3.0, np.array([2.0, 3.0, 4.0, 3.0, 3.5])),
        Jackknifed(2.0, np.array([2.0, 2.5, 2.0, 1.5, 2.0])),
    )
    ratio = one.over(two)
    assert ratio.value == 0.5 and ratio.without == pytest.approx([0, 0.2, 1, 1, 0.75])


def test_a_jackknife_of_few_groups_has_no_interval():
    value, low, high = Jackknifed(1.0, np.ones(FEWEST - 1)).interval()
    assert value == 1
    assert np.isnan([low, high]).all()


def test_prompts_and_voters_are_resampled_each_by_itself():
    prompts, voters = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    weights = crossed_weights((prompts, voters), np.random.default_rng(0), 2000)
    assert weights.shape == (2000, 4)
    assert (weights[:, 0] * weights[:, 3] == weights[:, 1] * weights[:, 2]).all()  # a product of prompt and voter
    assert weights.mean(0) == pytest.approx(np.ones(4), abs=0.1)
    alone = crossed_weights((prompts, np.zeros(4, int)), np.random.default_rng(0), 5)
    assert set(alone.sum(1)) == {4.0}  # with one voter, the prompts alone are resampled


def test_json_holds_no_nan():
    assert json_row([0.123456, float("nan"), 1], 3) == [0.123, None, 1]
