"""The model card: its figures are those of its JSON, and its measures find what is there and nothing by chance."""

import json
from pathlib import Path

import pytest
import torch

from realrag.encoders.load import load_encoder
from realrag_train.maintainer_tools import tool

model_card = tool("model_card")
card = model_card.card
names_to_photos, photos_to_photos = model_card.names_to_photos, model_card.photos_to_photos
random_scores, random_vectors_to_photos = model_card.random_scores, model_card.random_vectors_to_photos
shuffled_names_to_photos = model_card.shuffled_names_to_photos


def test_every_figure_of_the_card_is_the_one_in_its_json():
    docs = Path(__file__).parents[2] / "docs"
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
