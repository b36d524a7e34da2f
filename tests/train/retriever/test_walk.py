"""The walk in docs/training.md is what the program prints, but for its numbers and names."""

import json
import re
from pathlib import Path

import pytest
from fake_comfyui import FakeComfyUI
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes

from realrag_train.__main__ import main
from realrag_train.retriever import run as stages
from realrag_train.retriever.verdict import as_text, verdict

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
WALK = PAGE.read_text().split("$ realrag-train run --photos cars", 1)[1].split("```")[0].splitlines()[1:]


def skeleton(line):
    """A line without numbers, times, names in quotes, addresses, folders, and the names of encoder and server."""
    line = re.sub(r"'[^']*'|\"[^\"]*\"|https?:\S+\w|\S+/[^\s:]+", "X", line)
    line = re.sub(r"\d[\d,.]*( h \d+ min| s| min)?\b", "N", line)
    line = re.sub(r"^(ComfyUI|Encoder) [^:]+?(?=:| answers)", r"\1", line)
    return re.sub(r"^\S+(?=: N photos, )", "X", line)


@pytest.mark.slow
def test_every_line_but_the_verdict_is_one_that_a_run_prints(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())
    for name, color in COLORS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for seed in range(12):
            (tmp_path / "photos" / name / f"{seed}.jpg").write_bytes(photo_bytes(color, seed, cells=6))
        (tmp_path / "photos" / name / "again.png").write_bytes(photo_bytes(color, 0, format="PNG", cells=6))
    graph = {
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}, "_meta": {"title": "CLIP Text Encode (Prompt)"}},
        "5": {"class_type": "KSampler", "inputs": {"seed": 0, "positive": ["2", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(graph))

    def picture(graph):
        text, seed = graph["2"]["inputs"]["text"], graph["5"]["inputs"]["seed"]
        return FakeComfyUI.picture(
            {"same": 1} if (text, seed) in (("a photo of a red", 1), ("a photo of a green", 1)) else graph
        )

    with FakeComfyUI(picture=picture) as server:
        given = ["--photos", str(tmp_path / "photos"), "--workflow", str(tmp_path / "flow.json"), "--url", server.url]
        assert main(["run", *given, "--seeds", "1", "--out", str(tmp_path / "out")]) == 0
    printed = {skeleton(line) for line in capsys.readouterr().out.splitlines() + caplog.messages}
    shown = [line for line in WALK if line and not line.startswith(("Verdict", "Next"))]
    assert len(shown) > 15
    assert [line for line in shown if skeleton(line) not in printed and " a second, " not in line] == []


def test_the_verdict_of_the_walk_is_what_its_figures_give():
    row = {"R@1": [0.3333, 0.1667, 0.5], "mAP": [0.25, 0.14, 0.35]}
    same = {"R@1": [0.0, -0.028, 0.028], "mAP": [0.006, -0.004, 0.015]}
    report = {
        "arms": {"zero": {}, "normal": {"seeds": 3}, "hard": {"seeds": 3}, "reflective": {"seeds": 3}},
        "differences": {"reflective - normal": {"all": same}, "reflective - zero": {"all": row}},
        "shipped": {"reflective - zero": {"all": row}},
        "selection": {"shipped": "hard-1", "by_validation": True},
    }
    wanted = "\n".join(line for line in WALK if line.startswith(("Verdict", "Next")))
    assert as_text(verdict(report).as_json(), "my-retriever").strip() == wanted
