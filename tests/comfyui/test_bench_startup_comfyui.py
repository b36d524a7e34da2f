"""`realrag bench startup` in the real ComfyUI: what it prints is what happened; no time is asserted."""

from __future__ import annotations

import json
import os

import pytest

SLOW_PACK = """
import time
import xml.sax.expatreader

time.sleep(0.5)
NODE_CLASS_MAPPINGS = {}
"""


@pytest.mark.slow
def test_the_pack_and_another_are_measured_beside_each_other(plugin, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    other = tmp_path / "sleeper"
    other.mkdir()
    (other / "__init__.py").write_text(SLOW_PACK)
    job = ["bench", "startup", "--rounds", "1", "--other-pack", str(other), "--json"]
    assert plugin("realrag.commands.main").main(job) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["comfyui_cpu_s"] > 0
    assert len(result["packs"]) == 2
    sleeper = result["packs"].pop("sleeper")
    (own,) = result["packs"].values()
    assert sleeper["added_s"] >= 0.5, "it sleeps that long"
    assert sleeper["added_cpu_s"] < sleeper["added_s"]
    assert own["added_s"] > 0
    assert "torch" not in own["new_modules"]


def test_a_pack_that_fails_is_no_figure(plugin, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "__init__.py").write_text("raise RuntimeError")
    bench = plugin("realrag.bench.startup")
    with pytest.raises(plugin("realrag.errors").RealRAGError, match=f"ComfyUI could not import {tmp_path.name}"):
        bench._measured(os.environ["COMFYUI_PATH"], str(tmp_path / "base"), tmp_path)
