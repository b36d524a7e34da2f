"""From photos to a verdict and to painted arms, with a miniature behind a real ComfyUI."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from comfy_server import ROOT, Graph, Server

pytest.importorskip("realrag_train", reason="the trainer is not installed here: `pip install -e .`")
from realrag_train.__main__ import main
from realrag_train.generators.comfyui import CLEARED, RESTARTED, ComfyUI
from realrag_train.generators.server import Waiting
from realrag_train.votes.read import read_key

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


def workflow(path, library: str = "", steps: int = 2):
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
        steps=steps, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
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
    asked = ["--real", str(out / "gallery"), "--prompts", str(out / "prompts.jsonl"), "--out", str(tmp_path / "vote")]
    assert main(["votes", "make", *arms, *asked]) == 0
    pairs = read_key(tmp_path / "vote" / "key.json")["pairs"].values()
    assert len(pairs) == CLASSES and {frozenset((p["left"], p["right"])) for p in pairs} == {
        frozenset(("none", "oracle"))
    }


def until(done, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "a busy server did not change in time"
        time.sleep(0.05)


def test_a_cleared_queue_and_a_restart_are_told_apart(comfyui, tmp_path):
    lines, slow = [], json.loads(open(workflow(tmp_path / "slow.json", steps=10_000)).read())
    server = Server(tmp_path / "base")
    generator = ComfyUI(workflow(tmp_path / "flow.json"), server.url, waiting=Waiting(lost=1), log=lines.append)

    def pending() -> bool:
        """The slow job runs, and ours is behind it."""
        queue = server.json("/queue")
        return bool(queue["queue_running"] and queue["queue_pending"])

    def causes() -> list[str]:
        return [line for line in lines if "no longer had our picture" in line]

    try:
        with ThreadPoolExecutor() as thread:
            before = generator.draw("a pear", 1)
            server.queue(slow)
            drawing = thread.submit(generator.draw, "a pear", 1)
            until(pending)
            server.post("/queue", {"clear": True})
            until(causes)
            server.post("/interrupt", {})
            assert drawing.result().tobytes() == before.tobytes()
            assert causes() == [f"{server.url} no longer had our picture: {CLEARED}. It is queued again."]

            lines.clear()
            server.queue(slow)
            drawing = thread.submit(generator.draw, "a pear", 1)
            until(pending)
            server.crash_and_restart()
            assert drawing.result().size == before.size
            assert causes() == [f"{server.url} no longer had our picture: {RESTARTED}. It is queued again."]
    finally:
        server.stop()
