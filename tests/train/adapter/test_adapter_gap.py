"""The reference-shuffle gap, its interval, and the end of a training without one."""

import numpy as np
import pytest
import torch

from realrag_train.adapter.shuffle_gap import NoGap, Tuples, check, losses, measure


def tuples(count=12, places=3):
    rng = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=rng)

    targets = draw(count, 2, 4, 4)
    right = targets.flatten(1)[:, : places * 2].unflatten(1, (places, 2))
    return Tuples(
        targets, right, right.roll(1, 0), draw(count, 2, 2), draw(count, 2), draw(count, 2, 4, 4),
        torch.linspace(0.1, 0.9, count), np.arange(count) // 3,
    )  # fmt: skip


def test_the_losses_are_those_of_the_formula_row_by_row():
    fixed = tuples()

    def velocity(x, sigma, states, pooled, features):
        return x * 0.5 + (0 if features is None else features.mean((1, 2))[:, None, None, None])

    for features in (fixed.right, fixed.wrong, None):
        found = losses(velocity, fixed, features, batch=5)
        for i in range(len(fixed)):
            x = (1 - fixed.sigma[i]) * fixed.targets[i] + fixed.sigma[i] * fixed.noise[i]
            made = 0.5 * x + (0 if features is None else features[i].mean())
            assert found[i] == pytest.approx(
                ((made - (fixed.noise[i] - fixed.targets[i])) ** 2).mean().item(), rel=1e-5
            )


def test_a_generator_that_knows_the_target_has_a_gap_and_one_that_looks_away_has_none():
    fixed = tuples()

    def knows(x, sigma, states, pooled, features):
        """The noise is what is left of x when the target, as far as the features tell, is taken away."""
        known = torch.zeros_like(x)
        if features is not None:
            known = known.flatten(1)
            known[:, :6] = features.flatten(1)
            known = known.view_as(x)
        level = sigma[:, None, None, None]
        return (x - (1 - level) * known) / level - known

    gap = measure(knows, fixed)
    assert gap.mean > 0 and gap.low > 0 and gap.right_wins == 1 and gap.saved > 0 and gap.low <= gap.mean <= gap.high
    blind = measure(lambda x, *rest: x, fixed)
    assert (blind.mean, blind.low, blind.high, blind.right_wins, blind.saved) == (0, 0, 0, 0, 0)


def test_a_training_ends_when_the_gap_stays_away_and_not_before():

    def line(step, seen):
        return {"step": step, "seen": seen}

    history = [line(100, -0.1), line(200, 0.1), line(300, 0.0), line(400, -0.2)]
    for stop in range(1, 4):
        check(history[:stop], 200)
    with pytest.raises(NoGap, match=r"not been above 0 for 200 steps \(now -0.200000\)"):
        check(history, 200)
    check([*history[:3], {**line(400, -0.2), "seen in looks": 0.01}], 200)
    check(history, 0)
    check(history, 201)
    with pytest.raises(NoGap):
        check([line(300, 0.0)], 300)
