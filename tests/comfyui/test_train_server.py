"""From photos to a verdict and to painted arms, with a miniature behind a real ComfyUI."""

from __future__ import annotations

import json
import shutil

import pytest
from comfy_server import ROOT, Graph, Server

pytest.importorskip("realrag_train", reason="the trainer is not installed here: `pip install -e .`")
from realrag_train.__main__ import main

pytestmark = pytest.mark.slow
PHOTOS = ROOT / "realrag" / "assets" / "photos" / "grocery"
CLASSES = 5
RECIPE = """
[data]
encoder = "realrag-small"
[imagine]
seeds = 1
[fit]
epochs = 2
hidden = 16
[evaluate]
arms = ["zero", "normal", "reflective"]
seeds = 1
ship = "reflective"
"""


def workflow(path, library: str = ""):
    """Load Miniature -> both prompts, under one title -> KSampler -> picture; with a library, references between them."""
    graph = Graph()
    mini = graph.add("RealRAG_LoadMiniature", family="SD3 miniature")
    words = [graph.add("CLIPTextEncode", clip=[mini, 1], text=text) for text in ("nothing yet", "")]
    model = mini
    if library:
        loader = graph.add("RealRAG_LoadRetriever", bundle=library)
        found = graph.add(
            "RealRAG_RetrieveReferences", retriever=[loader, 0], prompt="", top_k=1, min_score=0.0, diversity=0.0
        )
        model = graph.add("RealRAG_InjectReferences", model=[mini, 0], references=[found, 0], vae=[mini, 2], strength=1.0,
                          start_percent=0.0, end_percent=1.0)  # fmt: skip
    latent = graph.add("EmptySD3LatentImage", width=128, height=128, batch_size=1)
    sampled = graph.add(
        "KSampler", model=[model, 0], positive=[words[0], 0], negative=[words[1], 0], latent_image=[latent, 0], seed=7,
        steps=2, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    decoded = graph.add("VAEDecode", samples=[sampled, 0], vae=[mini, 2])
    graph.add("SaveImage", images=[decoded, 0], filename_prefix="drawn")
    for node in words:
        graph[node]["_meta"] = {"title": "CLIP Text Encode (Prompt)"}
    path.write_text(json.dumps(graph))
    return str(path)


def test_one_command_goes_from_photos_to_a_verdict_and_two_more_to_painted_arms(server: Server, tmp_path, capsys):
    for folder in sorted(path for path in PHOTOS.iterdir() if path.is_dir())[:CLASSES]:
        shutil.copytree(folder, tmp_path / "photos" / folder.name)
    (tmp_path / "small.toml").write_text(RECIPE)
    given = ["--recipe", str(tmp_path / "small.toml"), "--photos", str(tmp_path / "photos"), "--url", server.url]
    out = tmp_path / "out"
    assert (
        main(["run", *given, "--workflow", workflow(tmp_path / "flow.json"), "--out", str(out), "--threads", "1"]) == 0
    )
    said = capsys.readouterr().out
    for text in (
        "ComfyUI ",
        'goes into "CLIP Text Encode (Prompt)" (node 2, input text)',
        "The plan:",
        "Verdict (",
        "Next: ",
    ):
        assert text in said, text
    report = json.loads((out / "evaluate.json").read_text())
    assert (
        report["verdict"]["status"] in ("shown", "helped", "not shown", "none")
        and report["facts"]["gallery_photos"] == CLASSES
    )
    assert (
        report["facts"]["bad_drawings"] == 0
        and "<h1>Did reflective training help?" in (out / "report.html").read_text()
    )

    shutil.copytree(out / "retriever", server.base / "models" / "realrag" / "trained-here")
    assert main(["choose", str(out), "--out", str(tmp_path / "choices"), "--k", "1"]) == 0
    paint = [
        "paint",
        str(tmp_path / "choices"),
        "--workflow",
        workflow(tmp_path / "paint.json", "trained-here"),
        "--url",
        server.url,
    ]
    assert main([*paint, "--out", str(tmp_path / "painted"), "--seeds", "1", "--arm", "none", "--arm", "oracle"]) == 0
    none, oracle = (
        {file.read_bytes() for file in (tmp_path / "painted" / arm).glob("*.png")} for arm in ("none", "oracle")
    )
    assert len(none) == len(oracle) == CLASSES and not none & oracle
    arms = [word for arm in ("none", "oracle") for word in ("--arm", f"{arm}={tmp_path / 'painted' / arm}.csv")]
    judged = [
        "--real",
        str(out / "gallery"),
        "--library",
        str(out / "library"),
        "--prompts",
        str(out / "prompts.jsonl"),
    ]
    more = ["--judge-photos", str(out / "validation"), "--encoder", "realrag-small", "--out", str(tmp_path / "judged")]
    assert main(["judge", *arms, *judged, *more]) == 0
    assert list((tmp_path / "judged").glob("*.html"))
