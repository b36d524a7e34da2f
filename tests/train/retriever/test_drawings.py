"""Drawings that teach nothing are named and left out; when they are many, the run stops with the cause."""

import json

import numpy as np
import pytest
from fake_encoder import ColorEncoder
from PIL import Image
from speckles import speckled

from realrag_train.contrastive.mine import read_drawn
from realrag_train.dataset import Material
from realrag_train.generators.errors import DrawingFailed, GeneratorError
from realrag_train.retriever.choose_generator import drawn_instead
from realrag_train.retriever.drawings import one_color
from realrag_train.retriever.evaluate import Questions, drawn_photos
from realrag_train.retriever.imagine import DRAWN, imagine
from realrag_train.retriever.prompts import class_prompts

PROMPTS = class_prompts([f"thing {n}" for n in range(20)])


class Painter:
    """Speckles of its own for every prompt and seed, but for the places in `odd`: {(prompt, seed): picture or error}."""

    def __init__(self, odd=None):
        self.metadata, self.odd, self.drawn = {"name": "painter"}, odd or {}, 0

    def draw(self, prompt, seed):
        self.drawn += 1
        made = self.odd.get((prompt, seed), self.odd.get(prompt))
        if isinstance(made, Exception):
            raise made
        return made or speckled(hash_of(prompt, seed))


def hash_of(prompt, seed):
    return int.from_bytes(f"{prompt}{seed}".encode()[-4:], "big")


BLACK = Image.new("RGB", (48, 48))


def test_bad_drawings_are_named_and_left_out(tmp_path, caplog):
    names = [prompt.prompt for prompt in PROMPTS]
    one = speckled(1)
    odd = {
        (names[0], 0): BLACK,
        (names[7], 0): DrawingFailed("out of memory"),
        (names[14], 1): one,
        (names[19], 1): one,
    }
    drawn = imagine(tmp_path, PROMPTS, Painter(odd), ColorEncoder(), seeds=2)
    left_out = {(p, s) for p in range(20) for s in range(2) if not drawn[p, s].any()}
    assert left_out == {(0, 0), (7, 0), (14, 1), (19, 1)}
    report = json.loads((tmp_path / "imagine.json").read_text())
    assert report["bad"] == 4
    for text in (
        f"{names[0]!r}, seed 0: it is black all over", f"{names[7]!r}, seed 0: it failed: out of memory",
        f"{names[19]!r}, seed 1: it equals that of {names[14]!r}",
    ):  # fmt: skip
        assert text in report["named"] and any(text in line for line in caplog.messages)
    np.testing.assert_array_equal(read_drawn(tmp_path / DRAWN, ColorEncoder().fingerprint)[0], drawn)


def test_a_failed_drawing_is_tried_again_by_the_next_run_and_others_are_not(tmp_path):
    first = (PROMPTS[0].prompt, 0)
    imagine(tmp_path, PROMPTS, Painter({first: DrawingFailed("busy")}), ColorEncoder(), seeds=1)
    again = Painter()
    drawn = imagine(tmp_path, PROMPTS, again, ColorEncoder(), seeds=1)
    assert again.drawn == 1 and drawn.any(-1).all()


@pytest.mark.parametrize(
    "odd, seeds, cause",
    [
        (BLACK, 1, r"black all over\n.*safety filter"), (speckled(3), 1, r"equals that of .*\n.*--prompt-node"),
        (Image.new("RGB", (48, 48), (90, 90, 90)), 1, r"#[0-9a-f]{6} all over\n.*samples no steps"),
        (DrawingFailed("Allocation failed"), 1, r"Allocation failed\n.*The generator fails"),
    ],
)  # fmt: skip
def test_where_all_are_bad_the_run_stops_after_the_first_few_with_the_cause(tmp_path, odd, seeds, cause):
    painter = Painter({prompt.prompt: odd for prompt in PROMPTS})
    with pytest.raises(GeneratorError, match=rf"(?s)drawings cannot be used, more than max_bad 0.1.*{cause}"):
        imagine(tmp_path, PROMPTS, painter, ColorEncoder(), seeds=seeds)
    assert painter.drawn == 3


def test_a_seed_that_reaches_nothing_is_told_from_a_prompt_that_does(tmp_path):
    painter = Painter({prompt.prompt: speckled(at) for at, prompt in enumerate(PROMPTS)})
    with pytest.raises(GeneratorError, match=r"(?s)equals that of seed 0.*--seed-node TITLE"):
        imagine(tmp_path, PROMPTS, painter, ColorEncoder(), seeds=4)


def test_one_color_is_told_from_a_dim_picture():
    import io

    def data(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        return buffer.getvalue()

    assert one_color(data(BLACK)) == "black" and one_color(data(Image.new("RGB", (8, 8), "white"))) == "white"
    dim = Image.fromarray(np.asarray(speckled(1)) // 8)
    assert one_color(data(dim)) == "" == one_color(data(speckled(2)))


def test_a_prompt_without_a_drawing_has_no_sibling_and_marks_no_photo():
    photos = np.eye(4, dtype=np.float32)
    codes = np.arange(4)
    prompts = class_prompts(["a", "b"])
    drawn = np.zeros((2, 1, 4), np.float16)
    drawn[0, 0, 2] = 1
    material = Material(photos, codes, photos[:2], codes[:2])
    assert drawn_instead(prompts, material, drawn, {"name": "x"}).tolist() == [2, -1]
    asked = Questions(photos[:2], photos, codes[:2], codes, np.array([2, -1]))
    marked = drawn_photos(asked, drawn, depth=1)
    assert marked[0].tolist() == [False, False, True, False] and not marked[1].any()
