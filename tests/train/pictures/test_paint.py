"""The arms' pictures by a ComfyUI workflow: which references it is shown, resumed, and read by `judge` and `votes`."""

import json

import pytest
from fake_comfyui import FakeComfyUI
from made_photos import photo_bytes

from realrag.errors import RealRAGError
from realrag_train.__main__ import main
from realrag_train.dataset import Prompt
from realrag_train.generators.errors import GeneratorError
from realrag_train.loop.stages import STOPPED
from realrag_train.pictures.arms import read_arm
from realrag_train.pictures.paint import NOBODY, Shown, how_shown, read_lines_of_arms

A, B = "a" * 16, "b" * 16


def graph(**extra):
    return {
        "1": {"class_type": "RealRAG_RetrieveReferences",
              "inputs": {"retriever": ["8", 0], "prompt": "old", "top_k": 4, "min_score": 0.3, "page": 2}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["8", 1]}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 0, "model": ["8", 0], "positive": ["2", 0], "latent_image": ["8", 2]}},
        "8": {"class_type": "Loader", "inputs": {}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
        **extra,
    }  # fmt: skip


LOADS = {
    "4": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "Reference"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "Reference"}},
}


@pytest.fixture
def choices(tmp_path):
    """Three arms, two prompts."""
    (tmp_path / "choices" / "photos").mkdir(parents=True)
    for color, id in enumerate((A, B)):
        (tmp_path / "choices" / "photos" / f"{id}.jpg").write_bytes(photo_bytes((90 * color, 9, 9)))
    lines = []
    for arm, ids in (("none", ()), ("zero", (A,)), ("reflective", (B, A))):
        for prompt in ("a pear", "an owl"):
            shown = [{"id": id, "file": "x", "class": "c", "score": None, "picture": f"photos/{id}.jpg"} for id in ids]
            lines.append({"arm": arm, "prompt": prompt, "class": prompt[2:].strip(), "references": shown})
    (tmp_path / "choices" / "choices.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "flow.json").write_text(json.dumps(graph()))
    return tmp_path / "choices"


def paint(choices, url, *more):
    folder = choices.parent
    return main(
        [
            "paint",
            str(choices),
            "--workflow",
            str(folder / "flow.json"),
            "--out",
            str(folder / "painted"),
            "--url",
            url,
            *more,
        ]
    )


@pytest.mark.slow
def test_each_arm_is_painted_with_its_references_and_the_same_seeds(choices, tmp_path, capsys):
    with FakeComfyUI() as server:
        assert paint(choices, server.url) == 0
        shown = {
            (g["1"]["inputs"]["include_ids"], g["1"]["inputs"]["pinned"], g["1"]["inputs"]["top_k"])
            for g in server.graphs
        }
        assert shown == {(NOBODY, "", 1), (A, A, 1), (f"{B}, {A}", f"{B}, {A}", 2)}
        assert len(server.graphs) == 12
        for each in server.graphs:
            inputs = each["1"]["inputs"]
            assert inputs["prompt"] == each["2"]["inputs"]["text"] in ("a pear", "an owl")
            assert (inputs["min_score"], inputs["page"], inputs["retriever"]) == (0.0, 1, ["8", 0])
    prompts = [Prompt("a pear", "pear"), Prompt("an owl", "owl")]
    for arm, references in (("none", ()), ("zero", (A,)), ("reflective", (B, A))):
        pictures = read_arm(tmp_path / "painted" / f"{arm}.csv", prompts)
        assert [(p.prompt, p.seed, p.references) for p in pictures] == [
            (prompt, seed, references) for prompt in ("a pear", "an owl") for seed in range(2)
        ]
        assert all(p.file.is_file() for p in pictures)
    assert f"--arm reflective={tmp_path / 'painted' / 'reflective'}.csv" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_painting_resumes_and_paints_nothing_twice(choices, tmp_path):
    with FakeComfyUI() as server:
        assert paint(choices, server.url, "--max-minutes", "1e-9") == STOPPED
        runs = len(server.graphs)
        while paint(choices, server.url, "--max-minutes", "0.01") == STOPPED:
            pass
        assert len(server.graphs) == 12 and runs == 0
        assert paint(choices, server.url) == 0
        assert len(server.graphs) == 12
        assert paint(choices, server.url, "--arm", "zero", "--seeds", "3") == 0
        assert len(server.graphs) == 14


def test_load_image_nodes_get_the_references_in_order(choices, tmp_path, capsys):
    (tmp_path / "flow.json").write_text(json.dumps(graph(**LOADS)))
    more = ("--reference-node", "Reference", "--seeds", "1")
    with FakeComfyUI() as server:
        assert paint(choices, server.url, *more) == 1
        assert "'none' shows no reference" in capsys.readouterr().err
        server.graphs.clear()
        assert paint(choices, server.url, *more, "--arm", "reflective") == 0
        assert {(g["4"]["inputs"]["image"], g["10"]["inputs"]["image"]) for g in server.graphs} == {
            (f"realrag-{B}.jpg", f"realrag-{A}.jpg")
        }
        assert server.uploads[f"realrag-{A}.jpg"] == (choices / "photos" / f"{A}.jpg").read_bytes()


def test_an_arm_whose_pictures_are_all_alike_stops_the_work(choices, tmp_path, capsys):
    with FakeComfyUI(picture=lambda graph: photo_bytes((200, 20, 20), format="PNG", cells=6)) as server:
        assert paint(choices, server.url) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_what_cannot_be_painted_is_said_first(choices, tmp_path, capsys):
    with pytest.raises(GeneratorError, match=r"no Retrieve Real References node.*--reference-node"):
        how_shown({name: node for name, node in graph().items() if name != "1"})
    with pytest.raises(GeneratorError, match="is no Load Image node"):
        how_shown(graph(), "KSampler")
    assert how_shown(graph(**LOADS), "reference") == Shown(load=("4", "10"))
    with pytest.raises(RealRAGError, match="no arm 'hard'; its arms are none, zero, reflective"):
        read_lines_of_arms(choices, ["hard"])
    assert paint(choices, "http://127.0.0.1:9", "--seeds", "0") == 1
    (choices / "choices.jsonl").write_text('{"arm": 3}')
    assert paint(choices, "http://127.0.0.1:9") == 1
    assert "line 1" in capsys.readouterr().err
