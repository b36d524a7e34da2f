"""The figures of `bench-fit`: what it counts is what a step does, and what was not measured is not claimed."""

import json

import pytest
from torch.utils.flop_counter import FlopCounterMode

from realrag_train.__main__ import main
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig
from realrag_train.maintainer_tools import tool

bench = tool("bench_fit")

pytestmark = pytest.mark.slow


def test_the_products_counted_are_those_of_a_step():
    material, rows = bench._made(64, bench.BenchSize(dim=12, classes=8, negatives=2), 0)
    fitting = ContrastiveTraining(material, rows, FitConfig(batch=32, hidden=20))
    with FlopCounterMode(display=False) as counted:
        fitting.advance()
    # The products of each prompt with its own negatives, forward and back, are left out: they do not grow with the
    # batch's square.
    prompts = len(fitting._rows(0)[1])
    assert prompts == 8 == bench.prompts_of_a_step(fitting)
    assert counted.get_total_flops() - 2 * (2 * prompts * 2 * 12) == bench.work(32, prompts, 12, 20, 2)[0]


@pytest.fixture
def small():
    return {"pairs": 500, "epochs": 2, "dim": 12, "hidden": 10, "batch": 64, "classes": 9, "steps": 3}


def test_the_whole_run_is_estimated_from_the_step(small):
    result = bench.bench_fit(bench.BenchSize(**small), device="cpu")
    assert result["steps"] == 14 and result["whole_run_s"] >= 14 * result["step_s"]
    assert set(result["bounds_s"]) == {"products", "memory", "launches"} and min(result["bounds_s"].values()) > 0


def test_a_machine_without_a_gpu_says_that_the_aim_is_unmeasured(small, tmp_path, capsys):
    flags = [text for name, value in small.items() for text in (f"--{name}", str(value))]
    main(["bench-fit", *flags, "--device", "cpu", "--json", str(tmp_path / "figures.json")])
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["gpu"] == "unmeasured on a GPU here" and "unmeasured on a GPU here" in capsys.readouterr().out
    assert bench.format_report(result).startswith(result["machine"])


def test_another_checkout_is_timed_in_turns_with_this_one(small, tmp_path, capsys):
    flags = [text for name, value in small.items() for text in (f"--{name}", str(value))]
    command = ["bench-fit", *flags, "--device", "cpu", "--json", str(tmp_path / "figures.json")]
    assert main([*command, "--before", str(bench.HERE)]) == 0
    both = json.loads((tmp_path / "figures.json").read_text())["compared"]
    assert both["turns"] == 3 and "3 steps of each in turns" in capsys.readouterr().out
    assert all(len(both[name]) == 2 and min(both[name]) > 0 for name in ("before_s", "now_s", "times"))
    assert main([*command, "--before", str(tmp_path)]) == 1
    assert f"{tmp_path} cannot be timed" in capsys.readouterr().err
