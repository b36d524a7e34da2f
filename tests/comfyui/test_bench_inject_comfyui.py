"""`realrag bench inject` in the real ComfyUI, on a tiny Flux and SD3.5; no figure is asserted."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("family", ["flux-xlabs", "flux-instantx", "sd35-instantx", "flux-shared", "sd35-shared"])
def test_a_tiny_model_is_timed_with_and_without_references(plugin, family, monkeypatch, capsys):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    job = f"--family {family} --size tiny --side 128 --device cpu --rounds 2 --references 2 --json"
    assert plugin("realrag.commands.main").main(["bench", "inject", *job.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["without_ms"] > 0 and result["with_ms"] > 0
    assert result["family"] == family and result["device"] == "cpu" and 0 < result["theoretical_share"] < 5
    assert result["held_bytes"] == 0, "after the references are gone nothing of theirs is alive"


PACK = """
class Scale:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"amount": ("FLOAT", {"default": 0.0})}}

    RETURN_TYPES, FUNCTION = ("AMOUNT",), "make"

    def make(self, amount):
        return (amount,)


class Apply:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pipe": ("MODEL",), "amount": ("AMOUNT",), "dirty": ("BOOLEAN", {"default": False})}}

    RETURN_TYPES, FUNCTION = ("MODEL",), "go"

    def go(self, pipe, amount, dirty):
        pipe = pipe.clone()

        def block(args, extra):
            out = extra["original_block"](args)
            return {**out, "img": out["img"] * (1 + amount)}

        pipe.set_model_patch_replace(block, "dit", "double_block", 0)
        if dirty:
            next(pipe.model.diffusion_model.parameters()).add_(1.0)
        return (pipe,)


NODE_CLASS_MAPPINGS = {"MadeUpScale": Scale, "MadeUpApply": Apply}
"""


@pytest.fixture
def timed(plugin, tmp_path, monkeypatch, capsys):
    """Time the made-up pack's apply node with these inputs -> exit code, answer or message."""
    pack = tmp_path / "made.up pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACK)
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(node, inputs):
        job = "--family sd35-instantx --size tiny --side 128 --device cpu --rounds 1 --json".split()
        job += ["--other-pack", str(pack), "--other-node", node, "--other-inputs", json.dumps(inputs)]
        code = plugin("realrag.commands.main").main(["bench", "inject", *job])
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return run


@pytest.mark.parametrize("amount, dirty", [(0.0, False), (0.5, True)])
def test_another_packs_node_is_timed_in_the_same_turns(timed, plugin, amount, dirty):
    linked = {"node": "MadeUpScale", "inputs": {"amount": amount}}
    result = timed("MadeUpApply", {"amount": linked, **({"dirty": True} if dirty else {})})
    assert result["other_ms"] > 0 and result["other_at_work"] == (amount > 0)
    assert result["other_leaves_model_clean"] == (not dirty)
    said = plugin("realrag.bench.inject").format_report(result)
    assert ("check its inputs" in said) == (amount == 0) and ("changed the model it was given" in said) == dirty


def test_another_packs_node_that_cannot_be_timed_is_said(timed):
    assert "takes no MODEL" in timed("MadeUpScale", {})
