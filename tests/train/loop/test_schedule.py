"""The schedules beside torch's own: the cosine, the linear warm-up and the linear decay."""

import pytest
import torch

from realrag_train.loop.schedule import warmup_cosine, warmup_stable_decay


def torch_rates(make, steps):
    """The learning rates that a scheduler of torch gives, as fractions of the highest."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_without_a_warm_up_the_cosine_is_that_of_torch():
    rates = torch_rates(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50), 51)
    assert [warmup_cosine(step, 50, 0) for step in range(51)] == pytest.approx(rates, abs=1e-9)


def test_the_warm_up_is_linear_as_torch_s_and_multiplies_the_cosine():
    rates = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9), 20
    )
    found = [warmup_cosine(step, 100, 10) / warmup_cosine(step, 100, 0) for step in range(20)]
    assert found == pytest.approx(rates, abs=1e-9)


def test_the_last_part_decays_linearly_as_torch_s_and_the_middle_is_constant():
    rates = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=25
        ),
        26,
    )
    found = [warmup_stable_decay(step, 100, 0, 0.25) for step in range(101)]
    assert found[:76] == [1.0] * 76 and found[75:] == pytest.approx(rates, abs=1e-9)


def test_more_steps_do_not_change_the_constant_part():
    """So a run may be given more steps when it resumes."""
    short, long = ([warmup_stable_decay(step, steps, 5, 0.25) for step in range(60)] for steps in (80, 400))
    assert short == long
