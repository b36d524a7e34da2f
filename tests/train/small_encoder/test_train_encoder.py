"""Training of the small encoder: the TFLite reader, the pairs, the loss and its formula, a tiny run that resumes."""

import csv
import json
import math
import random
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from realrag.encoders.load import load_encoder
from realrag.encoders.small_net import BLOCKS, MobileNet, SmallDualEncoder
from realrag_train.small_encoder.captioned_photos import (
    Group,
    Photo,
    choose_left_out,
    is_true,
    read_grocery,
    read_subjects,
    read_train,
    sample_text,
)
from realrag_train.small_encoder.convert_mobilenet import convert, load_mobilenet
from realrag_train.small_encoder.model_card import (
    card,
    names_to_photos,
    photos_to_photos,
    random_scores,
    random_vectors_to_photos,
    shuffled_names_to_photos,
)
from realrag_train.small_encoder.tflite import read_convolutions
from realrag_train.small_encoder.trainer import EncoderConfig, Training, info_nce, pair_loss
from realrag_train.small_encoder.views import RELU6_STEP, FrontCache, augmented_view, to_features, views_of

# A FlatBuffer writer for the few things a TFLite file needs. A field is (kind, value): a struct letter and a number,
# "array" and a numpy array, "table" and a dict of fields, or "tables" and a list of such dicts.


def write_table(data: bytearray, fields: dict) -> int:
    slots = max(fields, default=-1) + 1
    vtable = len(data)
    data += struct.pack("<HH", 4 + 2 * slots, 4 + 8 * len(fields))
    places = {field: 4 + 8 * i for i, field in enumerate(sorted(fields))}
    data += b"".join(struct.pack("<H", places.get(slot, 0)) for slot in range(slots))
    start = len(data)
    data += struct.pack("<i", start - vtable) + bytes(8 * len(fields))
    for field, (kind, value) in fields.items():
        at = start + places[field]
        if kind in ("array", "table", "tables"):
            struct.pack_into("<I", data, at, len(data) - at) if kind != "table" else None
            if kind == "array":
                data += struct.pack("<I", len(value)) + value.tobytes()
            elif kind == "table":
                struct.pack_into("<I", data, at, write_table(data, value) - at)
            else:
                vector = len(data)
                data += struct.pack("<I", len(value)) + bytes(4 * len(value))
                for i, child in enumerate(value):
                    slot = vector + 4 + 4 * i
                    struct.pack_into("<I", data, slot, write_table(data, child) - slot)
        else:
            struct.pack_into("<" + kind, data, at, value)
    return start


def tflite_bytes(layers: list[dict]) -> bytes:
    """`layers`: depthwise, kernel (uint8 in TFLite's layout), bias (int32), scale, zero, stride, padding."""

    def quantised(scale, zero):
        return ("table", {2: ("array", np.float32([scale])), 3: ("array", np.int64([zero]))})

    tensors = [{0: ("array", np.int32([1, 8, 8, 3])), 1: ("b", 3), 4: quantised(0.0078125, 128)}]
    buffers, operators = [{}], []
    for layer in layers:
        for values, kind, zero in ((layer["kernel"], 3, layer["zero"]), (layer["bias"], 2, 0)):
            buffers.append({0: ("array", np.frombuffer(values.tobytes(), np.uint8))})
            fields = {0: ("array", np.int32(values.shape)), 1: ("b", kind), 2: ("I", len(buffers) - 1)}
            tensors.append(fields | {4: quantised(layer["scale"], zero)})
        options = {0: ("b", layer.get("padding", 0)), 1: ("i", layer["stride"]), 2: ("i", layer["stride"])}
        options[4 if layer["depthwise"] else 3] = ("b", 3)
        inputs = np.int32([0, len(tensors) - 2, len(tensors) - 1])
        operators.append({0: ("I", int(layer["depthwise"])), 1: ("array", inputs), 4: ("table", options)})
    graph = {0: ("tables", tensors), 1: ("array", np.int32([0])), 3: ("tables", operators)}
    codes = [{0: ("b", 3)}, {0: ("b", 4), 3: ("i", 4)}]  # as old files say it, and as new ones do
    data = bytearray(b"\0\0\0\0TFL3")
    root = write_table(data, {1: ("tables", codes), 2: ("tables", [graph]), 4: ("tables", buffers)})
    struct.pack_into("<I", data, 0, root)
    return bytes(data)


def random_layer(depthwise: bool, shape: tuple[int, ...], stride: int, seed: int) -> dict:
    dice = np.random.default_rng(seed)
    out = shape[3] if depthwise else shape[0]
    bias = dice.integers(-99, 99, out, dtype=np.int32)
    return dict(
        depthwise=depthwise,
        kernel=dice.integers(0, 256, shape, dtype=np.uint8),
        bias=bias,
        scale=0.02,
        zero=120,
        stride=stride,
    )


def test_the_reader_gives_back_what_a_tflite_file_holds():
    wide, deep = random_layer(False, (4, 3, 3, 2), 2, 0), random_layer(True, (1, 3, 3, 4), 1, 1)
    (first, second), (scale, zero) = read_convolutions(tflite_bytes([wide, deep]))
    assert (scale, zero) == (0.0078125, 128)
    assert (first.depthwise, first.stride, second.depthwise, second.stride) == (False, 2, True, 1)
    assert first.weight.shape == (4, 2, 3, 3) and second.weight.shape == (4, 1, 3, 3)
    assert first.weight[3, 1, 2, 0] == pytest.approx(0.02 * (int(wide["kernel"][3, 2, 0, 1]) - 120))
    assert second.weight[3, 0, 2, 0] == pytest.approx(0.02 * (int(deep["kernel"][0, 2, 0, 3]) - 120))
    np.testing.assert_allclose(second.bias, 0.02 * deep["bias"], rtol=1e-6)


def test_the_reader_refuses_other_files_and_other_networks():
    with pytest.raises(ValueError, match="TFL3"):
        read_convolutions(b"PK\x03\x04 this is a zip")
    with pytest.raises(ValueError, match="layer 0"):
        read_convolutions(tflite_bytes([random_layer(False, (4, 3, 3, 2), 2, 0) | {"padding": 1}]))


def test_a_converted_mobilenet_loads_into_the_tower(tmp_path):
    channels = MobileNet(0.25).channels
    layers = [random_layer(False, (channels[0], 3, 3, 3), 2, 0)]
    for i, (_, stride) in enumerate(BLOCKS):
        layers.append(random_layer(True, (1, 3, 3, channels[i]), stride, 2 * i + 1))
        layers.append(random_layer(False, (channels[i + 1], 1, 1, channels[i]), 1, 2 * i + 2))
    (tmp_path / "m.tflite").write_bytes(tflite_bytes(layers))
    convert(tmp_path / "m.tflite", tmp_path / "m.safetensors", width=0.25)
    state, about = load_mobilenet(tmp_path / "m.safetensors")
    MobileNet(0.25).load_state_dict(state)
    assert about["mean"] * 255 == pytest.approx(128) and about["std"] * 255 == pytest.approx(128)
    np.testing.assert_allclose(
        state["blocks.12.pointwise.weight"][:, :, 0, 0], 0.02 * (layers[-1]["kernel"][:, 0, 0] - 120.0), rtol=1e-5
    )


# Pairs

APPLES = Group("g/1", "granny smith", "apple", "A green apple. Sour."), Group("g/2", "pink lady", "apple")


def test_a_coarse_name_is_true_of_all_its_kinds_and_a_description_of_one():
    assert is_true("apple", *APPLES) and is_true("pink lady", APPLES[1], APPLES[1])
    assert not is_true("granny smith", *APPLES) and not is_true("", *APPLES) and is_true("", APPLES[0], APPLES[0])


def test_sampled_sentences_hold_the_phrase_they_claim():
    dice = random.Random(0)
    seen = set()
    for _ in range(300):
        text, phrase = sample_text(APPLES[0], dice, 0.3, 0.3)
        assert phrase in text
        seen.add(phrase)
    assert seen == {"", "apple", "granny smith"}


def make_sets(root: Path) -> tuple[Path, Path, Path]:
    """Coloured squares in the shape of the three photo sets."""
    colours = {"Red-Apple": "red", "Green-Apple": "green", "Blue-Milk": "blue", "Grey-Milk": "grey"}
    rows = []
    for name, colour in colours.items():
        for split, count in (("train", 6), ("val", 2), ("test", 2)):
            for i in range(count):
                path = Path("photos") / split / name / f"{i}.jpg"
                (root / "grocery" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + i, 48), colour).save(root / "grocery" / path)
                rows.append((path.as_posix(), name, name.split("-")[1], split))
    about = [(name, name.split("-")[1], "", f"{name}, described.") for name in colours]
    for file, header, lines in (
        ("labels.csv", ("path", "class", "coarse_class", "split"), rows),
        ("classes.csv", ("class", "coarse_class", "iconic", "description"), about),
    ):  # fmt: skip
        with open(root / "grocery" / file, "w", newline="") as out:
            csv.writer(out).writerows([header, *lines])
    for path, colour in (
        ("clothing/hat", "yellow"),
        ("subjects/dog", "brown"),
        ("subjects/dog2", "tan"),
        ("subjects/fancy_boot", "black"),
    ):
        (root / path).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 40), colour).save(root / path / f"{i}.jpg")
    (root / "subjects" / "prompts_and_classes.txt").write_text(
        "Classes\n\nsubject_name,class\ndog,dog\ndog2,dog\nfancy_boot,boot\n\nPrompts\n"
    )
    return root / "grocery", root / "clothing", root / "subjects"


def test_only_train_photos_are_read_and_left_out_names_take_everything_with_them(tmp_path):
    grocery, clothing, subjects = make_sets(tmp_path)
    everything = read_train(grocery, clothing, subjects)
    assert len(everything.photos) == 4 * 6 + 2 + 6 and not [
        p for p in everything.photos if "val" in p.path.parts or "test" in p.path.parts
    ]
    assert [(g.name, g.coarse) for g in read_subjects(subjects).groups] == [
        ("dog", "dog"),
        ("dog", "dog"),
        ("fancy boot", "boot"),
    ]
    (name,) = choose_left_out(grocery, 1, seed=7)
    assert (name,) == choose_left_out(grocery, 1, seed=7)
    rest = read_train(grocery, clothing, subjects, (name,))
    assert len(rest.photos) == len(everything.photos) - 6 and len(rest.groups) == len(everything.groups) - 1
    assert (
        not [g for g in rest.groups if name in (g.name, g.description.lower())]
        and len(read_grocery(grocery, "test").photos) == 8
    )


# The loss


def slow_info_nce(scores, positive) -> float:
    rows = []
    for s, p in zip(scores.tolist(), positive.tolist(), strict=True):
        negatives = sum(math.exp(x) for x, yes in zip(s, p, strict=True) if not yes)
        each = [-math.log(math.exp(x) / (math.exp(x) + negatives)) for x, yes in zip(s, p, strict=True) if yes]
        if each:
            rows.append(sum(each) / len(each))
    return sum(rows) / len(rows)


def test_the_loss_equals_its_formula_written_out():
    torch.manual_seed(0)
    scores, positive = torch.randn(9, 7) * 3, torch.rand(9, 7) < 0.4
    positive[0], positive[1] = True, False  # no negative; no positive
    assert info_nce(scores, positive).item() == pytest.approx(slow_info_nce(scores, positive), rel=1e-5)


def test_the_pair_loss_is_the_mean_of_both_directions_and_its_gradient_is_finite():
    torch.manual_seed(0)
    photos, texts, positive = (
        torch.randn(6, 4, requires_grad=True),
        torch.randn(3, 4),
        torch.eye(3, dtype=torch.bool).repeat(2, 1),
    )
    loss = pair_loss(photos, texts, positive, 0.1)
    cosines = torch.tensor([[torch.cosine_similarity(a, b, dim=0) / 0.1 for b in texts] for a in photos.detach()])
    assert loss.item() == pytest.approx(
        (slow_info_nce(cosines, positive) + slow_info_nce(cosines.T, positive.T)) / 2, rel=1e-4
    )
    pair_loss(photos, texts, torch.ones(6, 3, dtype=torch.bool), 0.1).backward()
    assert photos.grad.isfinite().all()


# A tiny run

TINY = EncoderConfig(
    size=32,
    cut=2,
    views=2,
    epochs=20,
    batch=8,
    dim=8,
    buckets=4096,
    text_width=8,
    bf16=False,
    tower_rate=1e-3,
    new_rate=1e-2,
)


def tiny_training(root: Path, config: EncoderConfig = TINY) -> Training:
    data = read_train(*(root / name for name in ("grocery", "clothing", "subjects")))
    torch.manual_seed(config.seed)
    model = SmallDualEncoder(config.model_config(0.5, 0.5) | {"width": 0.25})
    for (
        part
    ) in model.mobilenet.modules():  # with torch's own start a tower without batch norm hardly answers to its input
        if isinstance(part, torch.nn.Conv2d):
            part.weight.data = 1.5 * torch.nn.init.kaiming_normal_(part.weight.data)
            torch.nn.init.zeros_(part.bias)
    cache = FrontCache(
        root / "front", model.mobilenet, config.cut, data.photos, size=config.size, seed=config.seed, mean=0.5, std=0.5
    )
    return Training(model, config, data, cache.views(config.views + 1)[1:])


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    make_sets(root)
    return root


def test_training_lowers_the_loss_and_leaves_the_front_alone(squares):
    training = tiny_training(squares)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    losses = [loss for _, loss in training.run()]
    assert losses[-1] < 0.8 * losses[0]
    after = training.averaged().state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if re.match(r"mobilenet\.(stem|blocks\.[01])\.", name)}


def test_words_of_the_training_are_heard_and_no_others(squares):
    model = tiny_training(squares).averaged()
    for text, loud in (("green apple", True), ("described", True), ("quixotic", False)):
        assert bool(model.text.embedding.weight[model.tokenize([text])[0, 0]].any()) is loud, text


def test_a_stopped_training_goes_on_to_the_very_same_weights(squares, tmp_path):
    config = replace(TINY, epochs=2)
    straight = tiny_training(squares, config)
    list(straight.run())
    halves = tiny_training(squares, config)
    for _ in range(3):
        halves.advance()
    halves.save(tmp_path / "c.safetensors")
    rest = tiny_training(squares, config)
    rest.resume(tmp_path / "c.safetensors")
    assert rest.step == 3
    list(rest.run())
    for one, other in ((straight.model, rest.model), (straight.averaged(), rest.averaged())):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(squares, tmp_path):
    tiny_training(squares).save(tmp_path / "c.safetensors")
    with pytest.raises(SystemExit, match="other settings"):
        tiny_training(squares, replace(TINY, seed=1)).resume(tmp_path / "c.safetensors")


def test_views_depend_on_the_seed_and_photo_alone(squares):
    photos = list(read_train(squares / "grocery", squares / "clothing", squares / "subjects").photos)
    alone, together = views_of(photos[3:4], 1, 32, seed=5)[0], views_of(photos, 1, 32, seed=5)[3]
    assert alone.tobytes() == together.tobytes() and alone.size == (32, 32)


def test_cached_answers_are_the_fronts_to_within_half_a_step(squares):
    torch.manual_seed(0)
    tower, photos = MobileNet(0.25), (Photo(squares / "clothing" / "hat" / "0.jpg", "hat"),)
    cache = FrontCache(squares / "one", tower, 2, photos, size=32, seed=0, mean=0.5, std=0.5, bf16=False)
    from realrag_train.small_encoder.views import pixels

    answer = tower.front(pixels(views_of(list(photos), 0, 32, 0), 0.5, 0.5), 2)
    assert (to_features(cache.view(0)) - answer).abs().max() <= RELU6_STEP / 2 + 1e-6


def test_augmentation_keeps_to_the_photo():
    image = Image.new("RGB", (50, 30), (200, 10, 10))
    for seed in range(20):
        view = np.asarray(augmented_view(image, 16, random.Random(seed)))
        assert view.shape == (16, 16, 3) and view[..., 0].min() > view[..., 1].max()


# The card


def test_every_figure_of_the_card_is_the_one_in_its_json():
    docs = Path(__file__).parents[3] / "docs"
    report = json.loads((docs / "model-card.json").read_text(encoding="utf-8"))
    assert card(report) == (docs / "model-card.md").read_text(encoding="utf-8")
    assert report["weights_sha256"] == load_encoder().weights_sha256, (
        "the card speaks of other weights than those that ship"
    )


def separate_classes(count: int = 12, each: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texts (C, C), photos (N, C) near their text, labels (N,)."""
    torch.manual_seed(0)
    labels = torch.arange(count).repeat_interleave(each)
    return (
        torch.eye(count),
        torch.nn.functional.normalize(torch.eye(count)[labels] + 0.1 * torch.randn(count * each, count), dim=1),
        labels,
    )


def test_classes_that_lie_apart_are_found_by_name_and_by_photo_and_never_by_another_name():
    texts, photos, labels = separate_classes()
    assert names_to_photos(texts, photos, labels)["mAP"].min() == 1
    by_photo = photos_to_photos(photos, labels)
    assert (
        by_photo["mAP"].min() == 1 and by_photo["R@1"].min() == 1 and by_photo["P@10"].max() == pytest.approx(0.7)
    )  # 7 others
    assert shuffled_names_to_photos(texts, photos, labels)["R@1"].max() == 0
    for by_chance in (random_scores(labels, 12), random_vectors_to_photos(texts, photos, labels)):
        assert by_chance["P@10"].mean() == pytest.approx(1 / 12, abs=0.03)
