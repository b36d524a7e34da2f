"""`realrag bench inject` in the real ComfyUI, on a tiny Flux; no figure is asserted."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("family", ["flux-xlabs", "flux-instantx"])
def test_a_tiny_flux_is_timed_with_and_without_references(plugin, family, monkeypatch, capsys):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    job = f"--family {family} --size tiny --side 128 --device cpu --rounds 2 --references 2 --json"
    assert plugin("realrag.cli").main(["bench", "inject", *job.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["without_ms"] > 0 and result["with_ms"] > 0
    assert result["family"] == family and result["device"] == "cpu" and 0 < result["theoretical_share"] < 1
