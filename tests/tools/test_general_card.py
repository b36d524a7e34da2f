"""The model card of realrag-general: its figures are those of its JSON, its measures find what is there, its prompts stand."""

import csv
import json
from pathlib import Path

import pytest
import torch

from realrag.encoders.load import load_encoder
from realrag_train.maintainer_tools import tool

general_card = tool("general_card")
Photos = general_card.Photos
KINDS = {
    "clothing": {"dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"},
    "subjects": {
        "backpack", "stuffed animal", "bowl", "can", "candle", "cat", "clock", "sneaker", "dog", "toy", "boot", "glasses",
        "cartoon", "teapot", "vase",
    },
}  # fmt: skip


@pytest.mark.slow
def test_every_figure_of_the_card_is_the_one_in_its_json():
    docs = Path(__file__).parents[2] / "docs"
    report = json.loads((docs / "model-card-general.json").read_text(encoding="utf-8"))
    assert general_card.card(report) == (docs / "model-card-general.md").read_text(encoding="utf-8")
    assert report["fingerprint"] == load_encoder("realrag-general").fingerprint, "the card is of other weights"


def test_there_are_a_hundred_prompts_and_each_names_kinds_that_there_are():
    with open(general_card.PAIRS, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["prompt"] for row in rows}) == 100
    for row in rows:
        for right in row["right"].split(";"):
            place, kind = right.split("/")
            assert place == "grocery" or kind in KINDS[place], row


def test_right_names_are_of_classes_that_there_are():
    for kind in general_card.RIGHT:
        place, name = kind.split("/")
        assert name in KINDS[place]


def apart(centers: torch.Tensor, each: int = 6) -> Photos:
    labels = [f"clothing/{n}" for n in range(len(centers)) for _ in range(each)]
    vectors = centers.repeat_interleave(each, 0) + 0.05 * torch.randn(len(labels), centers.shape[1])
    return Photos(vectors, labels, labels)


def test_photos_of_classes_that_lie_apart_find_each_other_and_others_do_not():
    torch.manual_seed(0)
    photos = apart(torch.eye(6))
    for centered in (True, False):
        assert general_card.photo_to_photo(photos, photos.kinds, centered)[0] == 1
    mixed = Photos(torch.randn(36, 16), photos.kinds, photos.groups)
    assert general_card.photo_to_photo(mixed, mixed.kinds, False)[0] < 0.5


def test_a_shared_direction_is_taken_away_by_centering():
    torch.manual_seed(0)
    photos = apart(torch.cat([0.1 * torch.eye(6), torch.full((6, 1), 5.0)], 1))
    plain, centered = (general_card.photo_to_photo(photos, photos.kinds, each)[0] for each in (False, True))
    assert centered > plain


def test_the_text_tower_is_measured_against_the_classifier_of_the_tower(monkeypatch):
    labels = [f"name {n}" for n in range(1000)]
    labels[7], labels[9] = "cowboy hat, ten-gallon hat", "miniskirt, mini"
    names = torch.eye(1000)
    monkeypatch.setattr(general_card, "asked", lambda encoder, asked: names)
    kinds = ["clothing/hat"] * 4 + ["clothing/skirt"] * 4 + ["subjects/can"]  # nothing among the 1,000 is a can
    vectors = torch.stack([names[7]] * 4 + [names[9]] * 2 + [names[7]] * 2 + [names[7]])
    rows = torch.eye(1000)
    photos = Photos(vectors, kinds, kinds, rows[[7, 7, 7, 3, 9, 9, 9, 9, 7]])
    found = general_card.imagenet_names(None, [photos], labels, rows, torch.zeros(1000))
    assert found["photos"] == 8
    assert found["classifier"][0] == pytest.approx(7 / 8) and found["text tower"][0] == pytest.approx(6 / 8)
    assert found["ratio"][0] == pytest.approx(6 / 7)
    assert found["of the classifier's right answers"] == pytest.approx(5 / 7)


def test_realrag_small_of_version_010_gives_the_vectors_of_today():
    small = load_encoder("realrag-small")
    pixels = torch.randint(0, 256, (2, 3, small.preprocess.size, small.preprocess.size), dtype=torch.uint8)
    with torch.inference_mode():
        before = general_card.small_before(small)(small.preprocess.normalize(pixels, torch.float32))
    torch.testing.assert_close(before, small.encode_images(pixels), rtol=1e-4, atol=1e-4)
