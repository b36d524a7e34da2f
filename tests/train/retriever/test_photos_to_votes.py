"""From photos to "did the pictures get better": run, choose, paint, judge and votes, each reading what the last one wrote; and
a run whose photos are in Parquet files."""

import json
import re

import pytest
from fake_comfyui import FakeComfyUI
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes

from realrag_train.__main__ import main
from realrag_train.dataset import read_prompts
from realrag_train.retriever import run as stages
from realrag_train.votes.read import read_key

pytestmark = pytest.mark.slow
CLASSES = {**COLORS, "yellow": (220, 220, 30), "white": (230, 230, 230)}
RECIPE = """
[data]
encoder = "realrag-small"
[imagine]
seeds = 1
[fit]
epochs = 2
hidden = 8
[evaluate]
arms = ["zero", "normal", "reflective"]
seeds = 1
ship = "reflective"
"""


def workflow(path):
    """A real ComfyUI's graph in small: references are retrieved and injected before the sampler."""
    graph = {
        "1": {"class_type": "RealRAG_RetrieveReferences", "inputs": {"retriever": ["8", 0], "prompt": "", "top_k": 4}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["8", 1]}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 0, "model": ["8", 0], "positive": ["2", 0], "latent_image": ["8", 2]}},
        "8": {"class_type": "Loader", "inputs": {}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }  # fmt: skip
    path.write_text(json.dumps(graph))
    return str(path)


def test_painted_tables_go_through_judge_and_votes(tmp_path, capsys):
    for name, color in CLASSES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for seed in range(8):
            (tmp_path / "photos" / name / f"{seed}.jpg").write_bytes(photo_bytes(color, seed, cells=6))
    (tmp_path / "small.toml").write_text(RECIPE)
    out, choices, painted = (str(tmp_path / name) for name in ("out", "choices", "painted"))
    given = ["--recipe", str(tmp_path / "small.toml"), "--photos", str(tmp_path / "photos"), "--threads", "1"]
    with FakeComfyUI() as server:
        here = ["--workflow", workflow(tmp_path / "flow.json"), "--url", server.url]
        assert main(["run", *given, *here, "--out", out]) == 0
        assert main(["choose", out, "--out", choices, "--k", "1"]) == 0
        assert main(["paint", choices, *here, "--out", painted, "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    arms = re.findall(r"--arm (\w+)=(\S+\.csv)", said)
    assert [arm for arm, _ in arms] == ["none", "random", "oracle", "zero", "normal", "reflective"]
    files = [word for arm, file in arms if arm in ("none", "zero", "reflective") for word in ("--arm", f"{arm}={file}")]

    of_run = ["--real", f"{out}/gallery", "--prompts", f"{out}/prompts.jsonl"]
    judged = ["--library", f"{out}/library", "--judge-photos", f"{out}/validation", "--choices", choices]
    assert (
        main(["judge", *files, *of_run, *judged, "--encoder", "realrag-small", "--out", str(tmp_path / "judged")]) == 0
    )
    (page,) = (tmp_path / "judged").glob("*.html")
    assert all(arm in page.read_text() for arm in ("none", "zero", "reflective"))

    assert main(["votes", "make", *files, *of_run, "--out", str(tmp_path / "vote"), "--pairs", "30"]) == 0
    key = read_key(tmp_path / "vote" / "key.json")
    pairs = key["pairs"].values()
    assert len(pairs) == 30 and {pair["prompt"] for pair in pairs} == {
        p.prompt for p in read_prompts(tmp_path / "out" / "prompts.jsonl")
    }
    votes = [
        {
            "pair": id,
            "choice": "left" if pair["left"] == "reflective" else "right" if pair["right"] == "reflective" else "tie",
        }
        for id, pair in key["pairs"].items()
    ]
    (tmp_path / "fan.json").write_text(
        json.dumps({"format": "realrag-votes", "version": 1, "page": key["page"], "voter": "fan", "votes": votes})
    )
    capsys.readouterr()
    assert main(["votes", "read", str(tmp_path / "vote" / "key.json"), str(tmp_path / "fan.json")]) == 0
    assert "reflective - none: 10, 0, 0; 100.0%" in capsys.readouterr().out


def test_photos_and_captions_come_from_parquet_files(tmp_path, monkeypatch, capsys):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as tables

    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    names = list(CLASSES)
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
    (tmp_path / "data").mkdir()
    for part in range(2):
        labels = [number % len(names) for number in range(30)]
        photos = [photo_bytes(CLASSES[names[label]], 100 * part + n, cells=6) for n, label in enumerate(labels)]
        captions = [
            [f"a {names[label]} thing, number {part} {n}", f"{names[label]} again {part} {n}"]
            for n, label in enumerate(labels)
        ]
        table = pyarrow.table({
            "image": pyarrow.array([{"bytes": data, "path": None} for data in photos], picture),
            "label": labels, "caption": captions,
        })  # fmt: skip
        file = tmp_path / "data" / f"train-{part:05}-of-00002.parquet"
        tables.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), file, row_group_size=8)
    with FakeComfyUI() as server:
        given = [
            "--photos",
            str(tmp_path / "data"),
            "--workflow",
            workflow(tmp_path / "flow.json"),
            "--url",
            server.url,
        ]
        assert main(["run", *given, "--out", str(tmp_path / "out"), "--seeds", "1"]) == 0
    assert f"60 photos of {len(names)} classes" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    trained = report["facts"]["library_photos"]
    assert trained + report["facts"]["validation_photos"] + report["facts"]["gallery_photos"] == 60
    prompts = read_prompts(tmp_path / "out" / "prompts.jsonl")
    assert len(prompts) == len(names) + 2 * trained  # both captions of each photo
    assert sorted({prompt.class_name for prompt in prompts}) == sorted(names)
