"""One command for a newcomer: what is cheap to check is checked first, and the plan is said before the work begins."""

import json
from dataclasses import replace

import pytest
from fake_comfyui import FakeComfyUI
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes

from realrag_train.__main__ import main
from realrag_train.retriever import preflight as checks
from realrag_train.retriever import run as stages
from realrag_train.retriever.preflight import Plan

CLIP = "CLIP Text Encode (Prompt)"


def workflow(path):
    """As ComfyUI opens: both text nodes have one title, and none is called Prompt."""
    graph = {
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {}}, "5": {"class_type": "EmptyLatentImage", "inputs": {}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}, "_meta": {"title": CLIP}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["4", 1]}, "_meta": {"title": CLIP}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }  # fmt: skip
    path.write_text(json.dumps(graph))
    return path


@pytest.fixture
def photos(tmp_path):
    for name, color in COLORS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for seed in range(6):
            (tmp_path / "photos" / name / f"{seed}.jpg").write_bytes(photo_bytes(color, seed, cells=6))
    return tmp_path / "photos"


@pytest.fixture
def encoder(monkeypatch):
    """Counts how often an encoder was loaded."""
    loaded = []

    def load(name, device):
        loaded.append(name)
        return ColorEncoder()

    monkeypatch.setattr(stages, "load_encoder", load)
    return loaded


def run(photos, tmp_path, *more):
    return main(["run", "--photos", str(photos), "--out", str(tmp_path / "out"), *map(str, more)])


def test_the_plan_is_said_with_times_after_all_checks(photos, encoder, tmp_path, capsys):
    with FakeComfyUI() as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url, "--check") == 0
        assert [graph["6"]["inputs"]["text"] for graph in server.graphs] == ["a photo of a blue", "a photo of a green"]
        assert {graph["7"]["inputs"]["text"] for graph in server.graphs} == {"bad"}
    said = capsys.readouterr().out
    for line in (
        f"ComfyUI fake answers at {server.url}.",
        f'The prompt goes into "{CLIP}" (node 6, input text).', 'The seed goes into "KSampler" (node 3, input seed).',
        "18 photos of 3 classes; 3 prompts, such as 'a photo of a blue'.",
        f"Encoder {ColorEncoder.name}: of your 3 class names it finds the right photo first for 100%, among 18 photos; chance finds 33%.",
        "It finds nearly everything already", "The plan:", "6 drawings of 3 prompts, 4 not drawn yet", "15 trainings",
    ):  # fmt: skip
        assert line in said, line
    assert (tmp_path / "out" / "first-drawing.jpg").is_file() and str(tmp_path / "out" / "first-drawing.jpg") in said
    assert not (tmp_path / "out" / "library").exists() and encoder == ["realrag-general"]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (("--workflow", "missing.json"), "cannot be read .*--workflow FILE"),
        ((), "Which generator draws.*--workflow FILE"),
        (("--workflow", "FLOW", "--url", "http://127.0.0.1:9"), "No ComfyUI answers.*--url"),
        (("--workflow", "FLOW", "--prompt-node", CLIP), "feeds the negative prompt"),
        (("--workflow", "FLOW", "--seed-node", "Nobody"), "no node titled 'Nobody'"),
        (("--recipe", "tiny-cpu", "paper"), "Two recipes"),
        (("--workflow", "FLOW", "--seeds", "-1"), "--seeds is -1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_a_photo_is_encoded_or_a_folder_made(
    photos, encoder, tmp_path, capsys, wrong, said
):
    import re

    flow = workflow(tmp_path / "flow.json")
    assert run(photos, tmp_path, *(flow if word == "FLOW" else word for word in wrong)) == 1
    assert re.search(said, capsys.readouterr().err)
    assert encoder == [] and not (tmp_path / "out").exists()


def test_photos_without_words_are_refused_before_anything_is_encoded(encoder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(photo_bytes((9, 99, 9), seed, cells=6))
    with FakeComfyUI() as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(tmp_path / "photos", tmp_path, "--workflow", flow, "--url", server.url) == 1
    assert "neither classes nor captions" in capsys.readouterr().err and encoder == []


@pytest.mark.parametrize(
    "picture, said",
    [
        (lambda graph: photo_bytes((0, 0, 0), format="PNG", size=(1, 1)), "is black all over"),
        (lambda graph: photo_bytes((200, 20, 20), format="PNG", cells=6), "give the same picture: the prompt does not reach"),
    ],
)  # fmt: skip
def test_a_first_drawing_that_cannot_be_one_stops_the_run(photos, encoder, tmp_path, capsys, picture, said):
    if "black" in said:

        def picture(graph):
            import io

            from PIL import Image

            buffer = io.BytesIO()
            Image.new("RGB", (64, 64)).save(buffer, "PNG")
            return buffer.getvalue()

    with FakeComfyUI(picture=picture) as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out" / "library").exists()


def test_an_encoder_that_does_not_know_the_names_is_said_with_its_measured_level(photos, monkeypatch, tmp_path, capsys):
    class Blind(ColorEncoder):
        def _texts(self, texts):
            return super()._texts(["blue"] * len(texts))  # every name means blue

    monkeypatch.setattr(stages, "load_encoder", lambda name, device: Blind())
    with FakeComfyUI() as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url, "--check") == 0
    said = capsys.readouterr().out
    assert "finds the right photo first for 33%" in said and "It hardly knows these names" in said
    assert "--encoder ViT-L-14:openai" in said


def test_a_disk_that_is_too_small_is_said_before_the_work(photos, encoder, monkeypatch, tmp_path, capsys):
    usage = checks.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with FakeComfyUI() as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url) == 1
    assert "its disk has 0.0 GB free. Give --out on another disk" in capsys.readouterr().err
    assert not (tmp_path / "out" / "library").exists()


def test_a_plan_says_what_it_does_not_know():
    plan = Plan(1000, 200, 400, 400, 15, {"embed": 90.0, "imagine": None, "fit": 7200.0}, 10**9)
    lines = plan.lines(5 * 10**9)
    assert lines[1:] == [
        "  embed     1,000 photos, about 2 min",
        "  imagine   400 drawings of 200 prompts, 400 not drawn yet, time not known",
        "  fit       15 trainings, about 2 h 00 min",
        "  in all    about 2 h 02 min; about 1.0 GB on the disk, where 5.0 GB are free",
    ]
    assert replace(plan, seconds={"embed": 0.0, "imagine": 1.0, "fit": None}).lines(1)[3].endswith("time not known")


@pytest.mark.slow
def test_the_whole_way_needs_nothing_but_photos_and_a_workflow(photos, encoder, tmp_path, capsys):
    """Black pictures on the way are left out by name; the end is a verdict and what to do next."""
    import io

    from PIL import Image

    def picture(graph):
        if (graph["6"]["inputs"]["text"], graph["3"]["inputs"]["seed"]) != ("a photo of a red", 1):
            return FakeComfyUI.picture(graph)
        buffer = io.BytesIO()
        Image.new("RGB", (48, 48)).save(buffer, "PNG")
        return buffer.getvalue()

    with FakeComfyUI(picture=picture) as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url, "--seeds", "1") == 0
        drawn = len(server.graphs)
        assert run(photos, tmp_path, "--workflow", flow, "--url", server.url, "--seeds", "1") == 0
        assert drawn == len(server.graphs) == 6  # the second run draws nothing again
    said, report = capsys.readouterr().out, json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert (
        report["facts"]["bad_drawings"] == 1
        and "'a photo of a red', seed 1: it is black all over" in report["facts"]["bad_named"]
    )
    assert report["verdict"]["status"] == "none" and "fewer than 5 classes" in report["verdict"]["headline"]
    assert "Verdict (none): No verdict" in said and "Next: Keep the plain encoder" in said
    assert [path.name for path in sorted((tmp_path / "out").glob("*.[hm][td]*"))] == ["model-card.md", "report.html"]


def test_captions_of_photos_that_are_kept_aside_are_not_planned_to_be_drawn(encoder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    rows = ["file,caption"]
    for seed in range(20):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(photo_bytes((9, 99, 9), seed, cells=6))
        rows.append(f"{seed}.jpg,a green field number {seed}")
    (tmp_path / "photos" / "captions.csv").write_text("\n".join(rows))
    with FakeComfyUI() as server:
        flow = workflow(tmp_path / "flow.json")
        assert run(tmp_path / "photos", tmp_path, "--workflow", flow, "--url", server.url, "--check") == 0
    said = capsys.readouterr().out
    assert "20 photos without classes, asked for by their captions; 20 prompts" in said
    assert "28 drawings of 14 prompts, 26 not drawn yet" in said
