"""`realrag bench retrieve` in the real ComfyUI, on a seeded library; no figure is asserted."""

from __future__ import annotations

import json

import pytest


def test_the_node_is_timed_on_a_seeded_library(plugin, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    job = f"--rows 1200 --prompts 2 --rounds 1 --top-k 3 --scratch {tmp_path} --json"
    assert plugin("realrag.commands.main").main(["bench", "retrieve", *job.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 1200 and result["answers"] == 2 and result["index"] == "exact" and result["open_s"] > 0
    assert all(part > 0 for name in ("first", "again", "encoder") for part in result[f"{name}_ms"])
    assert "photos not shown before" in plugin("realrag.bench.retrieve").format_report(result)
    assert not list(tmp_path.iterdir())


def test_a_seeded_library_is_a_right_bundle(plugin, tmp_path):
    bundle = plugin("realrag.bench.retrieve").seeded_bundle(1000, tmp_path / "b")
    opened = plugin("realrag.bundle.bundle").Bundle(bundle)
    opened.verify()
    assert len(opened.records) == 1000


@pytest.mark.parametrize("words", [["--rows", "10"], ["--prompts", "0"]])
def test_a_measurement_of_nothing_is_refused(plugin, capsys, words):
    assert plugin("realrag.commands.main").main(["bench", "retrieve", *words]) == 1
    assert "1,000 or more" in capsys.readouterr().err
