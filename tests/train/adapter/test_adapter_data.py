"""Augmentations, classes, pairs and caches: what an adapter is trained on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from PIL import Image

from realrag.errors import RealRAGError
from realrag_train.adapter import class_photos as class_photos_file
from realrag_train.adapter.augmentations import PLAIN, Augmentation, augment, augmentation_of, color_matrix
from realrag_train.adapter.cache import cached
from realrag_train.adapter.class_photos import HELD_OUT, SEEN, TRAIN, ClassPhotos, read_class_photos
from realrag_train.adapter.pairs import Drawing
from realrag_train.adapter.recipe import DataConfig, read_adapter_recipe
from realrag_train.small_encoder.captioned_photos import Group


def test_a_look_depends_on_thing_number_and_seed_alone_and_number_0_is_plain():
    assert augmentation_of("pear", 0, 1) == PLAIN and augmentation_of("pear", 3, 1) == augmentation_of("pear", 3, 1)
    assert (
        len({augmentation_of(name, number, seed) for name in ("pear", "apple") for number in (1, 2) for seed in (0, 1)})
        == 8
    )
    image = Image.effect_noise((30, 20), 60).convert("RGB")
    assert augment(image, PLAIN) is image


def test_colours_turn_round_the_greys_which_stay():
    matrix = color_matrix(Augmentation(turn=2 * math.pi / 3))
    assert matrix @ (0.3, 0.3, 0.3) == pytest.approx((0.3, 0.3, 0.3))
    turned = {tuple(np.round(matrix @ np.eye(3)[i], 6)) for i in range(3)}
    assert turned == {(1, 0, 0), (0, 1, 0), (0, 0, 1)} and matrix[0, 0] == pytest.approx(0)
    gray = color_matrix(Augmentation(saturation=0.0)) @ (1.0, 0.5, 0.2)
    assert gray == pytest.approx([0.299 + 0.587 * 0.5 + 0.114 * 0.2] * 3)


def test_a_look_shows_the_named_part_and_mirrors_it():
    image = Image.new("RGB", (40, 20))
    image.paste((200, 200, 200), (0, 0, 20, 20))
    left = np.asarray(augment(image, Augmentation(corners=(0, 0, 0, 1, 0.5, 1, 0.5, 0)))).mean()
    right = np.asarray(augment(image, Augmentation(corners=(0.5, 0, 0.5, 1, 1, 1, 1, 0)))).mean()
    assert left > 190 and right < 10
    mirrored = np.asarray(augment(image, Augmentation(mirrored=True)))
    assert mirrored[:, 21:].mean() > 190 and mirrored[:, :19].mean() < 10
    for number in range(1, 30):  # no border of black comes into view
        assert (
            np.asarray(augment(Image.new("RGB", (40, 30), (255, 255, 255)), augmentation_of("x", number, 0))).min()
            > 250
        )


@pytest.fixture
def config(photos):
    return DataConfig(photos=str(photos), held_out=("green",), aside=0.4, looks=2, sentences=3, size=32)


def test_things_are_parted_for_training_and_measuring(config, monkeypatch):
    parts = read_class_photos(config)
    names = {part: sorted({things.groups[row].name for row in things.rows}) for part, things in parts.items()}
    assert names == {TRAIN: ["blue", "red"], SEEN: ["blue", "red"], HELD_OUT: ["green"]}
    assert [len(parts[part].photos) for part in (TRAIN, SEEN, HELD_OUT)] == [6, 4, 5]
    monkeypatch.setattr(class_photos_file, "MEASURED", 3)
    assert [len(read_class_photos(config)[part].photos) for part in (TRAIN, SEEN, HELD_OUT)] == [6, 4, 3]
    assert not {p.path for p in parts[TRAIN].photos} & {p.path for p in parts[SEEN].photos}
    with pytest.raises(RealRAGError, match="No class is called 'violet'"):
        read_class_photos(DataConfig(photos=config.photos, held_out=("violet",)))
    with pytest.raises(RealRAGError, match="at least two classes"):
        read_class_photos(DataConfig(photos=config.photos, held_out=("green", "blue")))


class Flat:
    """Latents are mean colors, states the length of a sentence."""

    key = words_key = "flat"

    def __init__(self):
        self.pictures = 0

    def latents(self, pixels):
        self.pictures += len(pixels)
        return torch.nn.functional.avg_pool2d(pixels, 8)

    def texts(self, sentences):
        lengths = torch.tensor([[float(len(s))] for s in sentences])
        return lengths[:, None], lengths


def test_caches_hold_every_photo_in_every_look_and_are_made_once(config, tmp_path):
    things, inputs, encoder = read_class_photos(config)[TRAIN], Flat(), ColorEncoder()
    made = cached(things, config, 2, inputs, encoder, tmp_path / "scratch")
    assert inputs.pictures == 12
    photos = np.arange(6)
    for look in (0, 1):
        looks = np.full(6, look)
        assert made.target_latents(photos, looks).shape == (6, 3, 4, 4) and made.image_features(
            photos, looks
        ).shape == (6, 4, 3)
    first = augment(
        Image.open(things.photos[2].path).convert("RGB"), augmentation_of(things.groups[things.rows[2]].key, 1, 0)
    )
    expected = encoder.encode_features(encoder.prepare(first)[None]).penultimate[0]
    torch.testing.assert_close(made.image_features(np.array([2]), np.array([1]))[0], expected, rtol=1e-2, atol=2e-2)
    color = np.asarray(first, np.float32).mean((0, 1)) / 255
    assert made.target_latents(np.array([2]), np.array([1])).mean((0, 2, 3)).numpy() == pytest.approx(color, abs=0.05)

    # one look of one thing moves all its photos alike
    def moved(place):
        plain, turned = (made.target_latents(np.array([place]), np.array([look])).mean((0, 2, 3)) for look in (0, 1))
        return (turned - plain).numpy()

    assert moved(0) == pytest.approx(moved(1), abs=0.12) and np.abs(moved(0)).max() > 0.2
    assert made.states.shape == (len(things.groups) * 3 + 1, 1, 1) and made.states[-1].item() == 0
    again = cached(things, config, 2, inputs, encoder, tmp_path / "scratch")
    assert inputs.pictures == 12 and np.array_equal(again.latents[1], made.latents[1])
    cached(things, replace(config, seed=1), 2, inputs, ColorEncoder(), tmp_path / "scratch")
    assert inputs.pictures == 18  # another seed has other looks, but the plain one is the same


def test_some_sentences_say_the_kind_alone():
    groups = (Group("g/a", "arla milk", "milk"), Group("g/b", "gala", "apple"))
    things = ClassPhotos(TRAIN, groups, (), ())
    assert all("arla milk" in s for s in things.sentences(50, 0.0, 0)[0])
    said = things.sentences(400, 0.25, 0)[1]
    kinds, names = (sum(word in s for s in said) for word in ("apple", "gala"))
    assert kinds + names == 400 and 60 < kinds < 140
    assert said == things.sentences(400, 0.25, 0)[1] != things.sentences(400, 0.25, 1)[1]


def test_a_photo_is_never_its_own_reference_and_the_wrong_one_shows_another_thing(config, tmp_path):
    made = cached(read_class_photos(config)[TRAIN], config, 2, Flat(), ColorEncoder(), tmp_path)
    rows, drawing = np.array(made.class_photos.rows), Drawing(made, (0.1, 0.2, 0.3), plain=0.7)
    pairs = drawing.draw(4000, np.random.default_rng(0))
    assert (pairs.targets != pairs.references).all() and (rows[pairs.targets] == rows[pairs.references]).all()
    assert (pairs.sentences // 3 == rows[pairs.targets]).all() and not pairs.looks[~pairs.image].any()
    misnamed = Drawing(made, (0.1, 0.2, 0.3), confusable=0.4).draw(4000, np.random.default_rng(0))
    own, wrong = rows[misnamed.targets], misnamed.sentences // 3 != rows[misnamed.targets]
    assert not wrong[~misnamed.image].any() and wrong[misnamed.image].mean() == pytest.approx(0.4, abs=0.03)
    assert set(np.unique(misnamed.sentences // 3)) <= set(own)
    assert (pairs.looks[pairs.image] == 0).mean() == pytest.approx(0.7, abs=0.03)
    shares = [
        (~pairs.image & pairs.text).mean(),
        (pairs.image & ~pairs.text).mean(),
        (~pairs.image & ~pairs.text).mean(),
    ]
    assert shares == pytest.approx([0.1, 0.2, 0.3], abs=0.03)
    assert (rows[drawing.others(pairs, np.random.default_rng(1))] != rows[pairs.targets]).all()
    again = drawing.draw(4000, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(vars(pairs).values(), vars(again).values(), strict=True))


@pytest.mark.parametrize("name", ["miniature-sd3", "miniature-flux", "flux-dev", "sd35"])
def test_the_recipes_that_come_along_are_read(name):
    from pathlib import Path

    recipe = read_adapter_recipe(name, {"data": {"photos": "/somewhere"}, "fit": {"steps": 0}})
    assert recipe.data.photos == "/somewhere" and recipe.fit.steps > 0
    assert "/somewhere" not in str(recipe.metadata())
    if name.startswith("miniature"):
        listed = Path(__file__).parents[3] / "train" / "miniature" / "held_out.txt"
        assert sorted(recipe.data.held_out) == listed.read_text().split("\n")[:-1]


@pytest.mark.parametrize(
    "text, words",
    [
        ('[fit]\noptimiser = "sgd"', "No optimizer is called 'sgd'"),
        ("[fit]\ndrop_text = 0.9", "drops sum to less than 1"),
        ('[base]\nkind = "sdxl"', "kinds are miniature, diffusers-sd3"),
        ('[base]\nprecision = "fp8"', "A miniature is trained in fp32"),
        ("[fits]\n", r"section \[fits\]"),
        ('[data]\nlooks = "six"', "looks is 'six'"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_by_name(text, words, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RealRAGError, match=words):
        read_adapter_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(
        RealRAGError, match=r"No recipe nothing. .*miniature-flux, miniature-sd3, procedural-flux, procedural-sd3, sd35"
    ):
        read_adapter_recipe("nothing")
