"""The generator draws: pictures kept one by one, embedded as photos are, through each of its back ends."""

import json
import random

import numpy as np
import pytest
from fake_comfyui import FakeComfyUI
from made_photos import COLORS, photo_bytes
from PIL import Image
from safetensors import safe_open

from realrag.photos.decode import decode
from realrag_train.dataset import Prompt, read_prompts
from realrag_train.generators.comfyui import ComfyUI
from realrag_train.generators.errors import GeneratorError
from realrag_train.generators.folder import DrawnFolder
from realrag_train.generators.stand_in import StandIn, altered, choose_unknown, nearest_known
from realrag_train.retriever.imagine import auc, imagine, separability
from realrag_train.retriever.prompts import class_prompts, write_prompts

PROMPTS = class_prompts(["red", "Dark-Green"])


class Painter:
    """Draws a square on one color a prompt and counts; stops after `most` pictures as a killed run does."""

    def __init__(self, most=99, size=(60, 40)):
        self.metadata, self.drawn, self.most, self.size = {"name": "painter"}, 0, most, size

    def draw(self, prompt, seed):
        if self.drawn == self.most:
            raise KeyboardInterrupt
        self.drawn += 1
        rng = random.Random(f"{prompt}/{seed}")
        picture = Image.new("RGB", self.size, tuple(rng.randrange(256) for _ in range(3)))
        picture.paste((255, 255, 255), (self.size[0] // 6, self.size[1] // 6, self.size[0] // 2, self.size[1] // 2))
        return picture


def workflow(path, **extra):
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2}, "_meta": {"title": "Seed"}},
        "6": {
            "class_type": "CLIPTextEncodeFlux",
            "inputs": {"clip_l": "", "t5xxl": "", "clip": ["4", 1]},
            "_meta": {"title": "Prompt"},
        },
        "7": {"class_type": "PreviewImage", "inputs": {}, "_meta": {"title": "Preview"}},
        "9": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Save"}},
        **extra,
    }
    path.write_text(json.dumps(graph))
    return path


def test_the_class_names_become_spoken_prompts_and_are_read_back(tmp_path):
    assert PROMPTS[1] == Prompt("a photo of a dark green", "Dark-Green")
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    assert read_prompts(tmp_path / "prompts.jsonl") == PROMPTS


def test_a_stopped_drawing_goes_on_with_the_next_picture_and_ends_the_same(tmp_path, encoder):
    with pytest.raises(KeyboardInterrupt):
        imagine(tmp_path / "a", PROMPTS, Painter(most=2), encoder, seeds=2)
    painter = Painter()
    resumed = imagine(tmp_path / "a", PROMPTS, painter, encoder, seeds=2)
    assert painter.drawn == 2
    whole = imagine(tmp_path / "b", PROMPTS, Painter(), encoder, seeds=2)
    assert resumed.shape == (2, 2, 13) and resumed.dtype == np.float16
    np.testing.assert_array_equal(resumed, whole)
    again = Painter(most=0)
    np.testing.assert_array_equal(imagine(tmp_path / "a", PROMPTS, again, encoder, seeds=2), whole)
    with safe_open(tmp_path / "a" / "drawn.safetensors", "np") as file:
        assert json.loads(file.metadata()["generator"]) == {"name": "painter"}
        assert file.metadata()["encoder_fingerprint"] == encoder.fingerprint


def test_another_generator_draws_its_own_pictures_in_the_same_folder(tmp_path, encoder):
    first = imagine(tmp_path, PROMPTS, Painter(), encoder)
    other = Painter(size=(40, 60))
    other.metadata = {"name": "another"}
    imagine(tmp_path, PROMPTS, other, encoder)
    assert other.drawn == 4
    np.testing.assert_array_equal(imagine(tmp_path, PROMPTS, Painter(most=0), encoder), first)


def test_drawn_pictures_are_kept_as_jpeg_of_the_library_s_size(tmp_path, encoder):
    imagine(tmp_path, PROMPTS, Painter(size=(2000, 900)), encoder, seeds=1)
    files = sorted(tmp_path.glob("*.jpg"))
    assert len(files) == 2 and all(decode(file.read_bytes()).size == (768, 346) for file in files)


def test_the_probe_tells_drawn_from_real_only_where_they_differ():
    rng = np.random.default_rng(0)
    real, same, apart = (rng.normal(size=(200, 8)) for _ in range(3))
    apart[:, 0] += 6
    assert abs(separability(real, same) - 0.5) < 0.1
    assert separability(real, apart) > 0.97


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))


# ComfyUI


def test_prompt_and_seed_go_into_the_titled_nodes_and_the_saved_picture_comes_back(tmp_path):
    with FakeComfyUI() as server:
        generator = ComfyUI(workflow(tmp_path / "flow.json"), server.url)
        picture = generator.draw("a photo of a pear", 41)
        inputs = {name: node["inputs"] for name, node in server.graphs[0].items()}
        assert inputs["3"] == {"seed": 41, "steps": 2}
        assert inputs["6"] == {"clip_l": "a photo of a pear", "t5xxl": "a photo of a pear", "clip": ["4", 1]}
        expected = decode(server.picture(server.graphs[0]))
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
        assert np.asarray(generator.draw("a photo of a pear", 42)).tobytes() != np.asarray(picture).tobytes()


def test_one_input_of_a_node_can_be_named(tmp_path):
    with FakeComfyUI() as server:
        ComfyUI(workflow(tmp_path / "flow.json"), server.url, prompt_node="prompt.t5xxl").draw("pear", 1)
        assert server.graphs[0]["6"]["inputs"]["clip_l"] == ""


@pytest.mark.parametrize(
    "mood, told",
    [
        ("refuses", "Value not in list"), ("fails", "KSampler.*Allocation failed"), ("no picture", "Save Image"),
        ("silent", "drew nothing in 0.3 seconds"), ("gone", "error 500"),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_comfyui_is_said(tmp_path, mood, told):
    with FakeComfyUI(mood) as server, pytest.raises(GeneratorError, match=told):
        ComfyUI(workflow(tmp_path / "flow.json"), server.url, timeout=0.3 if mood == "silent" else 60).draw("pear", 1)


def test_no_server_is_said_with_its_address(tmp_path):
    with FakeComfyUI() as server:
        url = server.url
    with pytest.raises(GeneratorError, match="No ComfyUI answers"):
        ComfyUI(workflow(tmp_path / "flow.json"), url).draw("pear", 1)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8188", "http://example.org:8188", "http://127.0.0.1.example.org"])
def test_another_machine_is_refused_unless_allowed(tmp_path, url):
    with pytest.raises(GeneratorError, match="another machine"):
        ComfyUI(workflow(tmp_path / "flow.json"), url)
    assert ComfyUI(workflow(tmp_path / "flow.json"), url, remote=True).url == url


@pytest.mark.parametrize("url", ["file:///etc/hostname", "127.0.0.1:8188", "http://"])
def test_what_is_no_address_is_refused(tmp_path, url):
    with pytest.raises(GeneratorError, match="is not the address of a ComfyUI server"):
        ComfyUI(workflow(tmp_path / "flow.json"), url, remote=True)


def test_a_workflow_that_cannot_be_filled_is_refused_with_its_titles(tmp_path):
    with pytest.raises(GeneratorError, match="'Preview', 'Prompt', 'Save', 'Seed'"):
        ComfyUI(workflow(tmp_path / "flow.json"), prompt_node="Words")
    with pytest.raises(GeneratorError, match="no free input"):
        ComfyUI(workflow(tmp_path / "flow.json"), seed_node="Save")
    (tmp_path / "saved.json").write_text('{"nodes": [], "links": []}')
    with pytest.raises(GeneratorError, match=r"Export \(API\)"):
        ComfyUI(tmp_path / "saved.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(GeneratorError, match="nested too deeply"):
        ComfyUI(tmp_path / "deep.json")
    odd = {"1": {"class_type": "A", "inputs": {"text": ""}, "_meta": "x"}, "2": {"class_type": ["B"], "inputs": {}}}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.raises(GeneratorError, match="not a workflow in API format"):
        ComfyUI(tmp_path / "odd.json")
    odd.pop("2")
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.raises(GeneratorError, match=r"No sampler of the workflow .* Titles are 'A'"):
        ComfyUI(tmp_path / "odd.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(GeneratorError, match="not JSON"):
        ComfyUI(tmp_path / "text.json")


# Folder and stand-in


def test_pictures_drawn_elsewhere_are_found_by_prompt_or_class(tmp_path, encoder):
    for color, name in enumerate(("a_photo_of_a_red", "dark green")):
        (tmp_path / "drawn" / name).mkdir(parents=True)
        for seed in range(2):
            (tmp_path / "drawn" / name / f"{seed}.png").write_bytes(photo_bytes((9, 90 * color, 9), seed, format="PNG"))
    generator = DrawnFolder(tmp_path / "drawn", {p.prompt: p.class_name for p in PROMPTS})
    assert imagine(tmp_path / "run", PROMPTS, generator, encoder, seeds=2).shape == (2, 2, 13)
    with pytest.raises(GeneratorError, match="has 2 pictures for 'a photo of a red', seed 2 needs 3"):
        generator.draw(PROMPTS[0].prompt, 2)


def test_the_stand_in_draws_a_sibling_for_what_it_does_not_know(encoder):
    asked = []

    def pictures(name):
        asked.append(name)
        return [photo_bytes(COLORS[name], seed) for seed in range(3)]

    classes = {"a photo of a red": "red", "a photo of a blue": "blue"}
    generator = StandIn(pictures, classes, {"blue": "green"})
    first = generator.draw("a photo of a blue", 0)
    assert asked == ["green"] and np.asarray(first).mean((0, 1)).argmax() == 1
    assert np.asarray(generator.draw("a photo of a blue", 0)).tobytes() == np.asarray(first).tobytes()
    assert generator.metadata["name"].startswith("stand-in") and generator.metadata["drawn_as"] == {"blue": "green"}


def test_an_altered_photo_is_smaller_and_not_the_same():
    image = decode(photo_bytes((200, 30, 30), size=(80, 60)))
    for seed in range(20):
        other = altered(image, random.Random(seed))
        assert 56 <= other.width <= 76 and 42 <= other.height <= 57


def test_unknown_classes_keep_a_known_sibling_and_are_drawn_as_the_nearest_one():
    groups = ["apple"] * 3 + ["pear"] * 2 + ["milk"]
    for seed in range(20):
        unknown = choose_unknown(3, 6, groups, seed)
        assert len(unknown) == 3 and 5 not in unknown and not {3, 4} <= set(unknown) and not {0, 1, 2} <= set(unknown)
    with pytest.raises(GeneratorError, match="Only 3 of 4"):
        choose_unknown(4, 6, groups, 0)
    vectors = np.eye(6, dtype=np.float32)
    vectors[0, 2], vectors[0, 5] = 0.5, 0.9  # class 0 is nearest to 5, but of its own group to 2
    assert nearest_known(vectors, np.arange(6), groups, [0]) == {0: 2}
    assert nearest_known(vectors, np.arange(6), None, [0]) == {0: 5}
