"""`realrag bench inject`: the count of operations against PyTorch's own counter, and clear refusals."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from realrag.bench import inject
from realrag.bench.inject import Shape, extra_operations, operations, shape_of
from realrag.commands.main import main


def attention(rows, keys, width):
    q, k, v = (torch.zeros(1, 1, n, width, device="meta") for n in (rows, keys, keys))
    return nn.functional.softmax(q @ k.transpose(-1, -2), -1) @ v


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


SMALL = Shape(width=8, double=2, single=3, text=5, image=7)


def test_the_operations_of_a_step_are_those_that_pytorch_counts():
    def linear(into, out, rows):
        nn.Linear(into, out, device="meta")(torch.zeros(rows, into, device="meta"))

    def step():
        width, tokens = SMALL.width, SMALL.text + SMALL.image
        for _ in range(SMALL.double):
            for rows in (SMALL.text, SMALL.image):
                linear(width, 3 * width, rows), linear(width, width, rows)
                linear(width, 4 * width, rows), linear(4 * width, width, rows)
            attention(tokens, tokens, width)
        for _ in range(SMALL.single):
            linear(width, 7 * width, tokens), linear(5 * width, width, tokens)
            attention(tokens, tokens, width)

    assert counted(step) == operations(SMALL)


@pytest.mark.parametrize("family, tokens", [("flux-xlabs", 16), ("flux-instantx", 128)])
def test_the_extra_operations_are_those_of_attention_to_the_references(family, tokens):
    def extra():
        for _ in range(SMALL.double):
            attention(SMALL.image, 3 * tokens, SMALL.width)
        for _ in range(SMALL.single if family == "flux-instantx" else 0):
            attention(SMALL.text + SMALL.image, 3 * tokens, SMALL.width)

    assert counted(extra) == extra_operations(SMALL, family, 3)


def test_sd35_instantx_attends_to_the_pictures_own_keys_once_more():
    shape = Shape(width=8, double=2, single=0, text=5, image=7)

    def extra():
        for _ in range(shape.double):
            attention(shape.image, shape.image + 2 * 64, shape.width)

    assert counted(extra) == extra_operations(shape, "sd35-instantx", 2)
    full = shape_of("full", 1024, "sd35-instantx")
    assert 0.2 < extra_operations(full, "sd35-instantx", 1) / operations(full) < 0.22


def test_shared_attention_runs_the_model_on_each_reference_and_attends_to_its_tokens():
    def extra():
        for _ in range(SMALL.double + SMALL.single):
            attention(SMALL.image, SMALL.image, SMALL.width)

    assert extra_operations(SMALL, "flux-shared", 1) == counted(extra) + operations(SMALL)


def test_at_full_size_an_xlabs_reference_is_a_tiny_share_of_a_step():
    shape = shape_of("full", 1024)
    assert shape.image == 4096 and 0 < extra_operations(shape, "flux-xlabs", 1) / operations(shape) < 0.001


def test_without_comfyui_the_command_says_what_to_set(monkeypatch, capsys, tmp_path):
    for value in ("", str(tmp_path)):
        monkeypatch.setenv("COMFYUI_PATH", value)
        assert main(["bench", "inject", "--size", "tiny"]) == 1
        assert "must name a ComfyUI folder" in capsys.readouterr().err


def test_numbers_that_mean_nothing_are_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "comfy").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    for wrong in (["--references", "0"], ["--side", "100"], ["--rounds", "0"]):
        assert main(["bench", "inject", *wrong]) == 1
        assert "1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--other-pack", "x"], "belong together"),
        (["--other-node", "X"], "belong together"),
        (["--other-inputs", "{"], "not JSON"),
        (["--other-inputs", "[1]"], "must be an object"),
    ],
)
def test_another_pack_is_named_by_folder_node_and_an_object_of_inputs(monkeypatch, capsys, tmp_path, wrong, said):
    (tmp_path / "comfy").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert main(["bench", "inject", *wrong]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_comfyui_that_does_not_start_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "comfy").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    assert main(["bench", "inject", "--size", "tiny", "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "The benchmark stopped" in said and len(said.splitlines()) == 1


def test_the_report_compares_measured_and_theoretical(monkeypatch, capsys, tmp_path):
    (tmp_path / "comfy").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    answer = dict(without_ms=100.0, with_ms=104.0, ratio=1.03, device="cpu", dtype="float32", comfyui="0.33.0")
    monkeypatch.setattr(
        subprocess, "run",
        lambda *args, **kwargs: SimpleNamespace(returncode=0, stdout=f"noise\n{json.dumps(answer)}\n", stderr=""),
    )  # fmt: skip
    assert main(["bench", "inject", "--size", "tiny", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ratio"] == pytest.approx(1.03)
    assert result["over_theory"] == pytest.approx(1.03 / (1 + result["theoretical_share"]))
    assert "goal: at most 1.05" in inject.format_report(result)
