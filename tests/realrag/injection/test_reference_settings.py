"""What an artist sets for references: kept with them, by rank, and refused where it means nothing."""

import math

import pytest
import torch
from PIL import Image

from realrag.errors import QueryError
from realrag.injection.reference_settings import ReferenceSettings, edit, effective, score_weights
from realrag.references import Reference, References


def found(*scores):
    items = [
        Reference(str(i), score, f"photo {i}", "", "", "", "", f"{i}.jpg", 4, 4, Image.new("RGB", (4, 4)))
        for i, score in enumerate(scores)
    ]
    return References("a cup", "bundle", tuple(items), "")


def test_references_are_plain_as_retrieved_and_the_record_cannot_change():
    references = found(0.9, 0.8)
    assert all(item.settings == ReferenceSettings() for item in references.items)
    with pytest.raises(AttributeError):
        references.items[0].settings.weight = 2


def test_one_rank_is_edited_and_the_others_stay_as_they_were():
    references = found(0.9, 0.8, 0.7)
    edited = edit(references, 2, weight=2.0, negative=True)
    assert [item.settings.weight for item in edited.items] == [1, 2, 1]
    assert edited.items[1].settings.negative and not edited.items[0].settings.negative
    assert references.items[1].settings == ReferenceSettings() and edited.query == "a cup"


def test_rank_0_edits_all_and_a_batch_of_masks_goes_by_rank():
    references, masks = found(0.9, 0.8), torch.stack((torch.zeros(3, 5), torch.ones(3, 5)))
    edited = edit(references, 0, masks, start=0.2)
    assert [item.settings.mask.mean().item() for item in edited.items] == [0, 1]
    assert [item.settings.start for item in edited.items] == [0.2, 0.2]
    same = edit(references, 0, masks[1:])
    assert all(item.settings.mask.mean() == 1 for item in same.items)


def test_later_edits_keep_a_mask_set_before():
    edited = edit(edit(found(0.9), 1, torch.ones(1, 2, 2)), 1, weight=0.5)
    assert edited.items[0].settings.mask is not None and edited.items[0].settings.describe() == "weight 0.5, masked"


@pytest.mark.parametrize(
    "rank, masks, changes, words",
    [
        (3, None, {}, "no reference of rank 3: there are 2"),
        (-1, None, {}, "no reference of rank -1"),
        (0, torch.ones(3, 2, 2), {}, "3 masks for 2 references"),
        (1, torch.ones(2, 2, 2), {}, "2 masks for 1 references"),
        (1, None, {"weight": -1.0}, "negative flag"),
        (1, None, {"weight": math.nan}, "weight"),
        (1, None, {"end": 1.5}, "both are 0 to 1"),
    ],
)
def test_what_means_nothing_is_refused_with_the_rule(rank, masks, changes, words):
    with pytest.raises(QueryError, match=words):
        edit(found(0.9, 0.8), rank, masks, **changes)


def test_scores_weigh_equally_until_a_temperature_is_set():
    assert score_weights([0.9, 0.1], 0.0) == [1.0, 1.0]
    assert effective(found(0.9, 0.1)) == [ReferenceSettings(), ReferenceSettings()]


def test_score_weights_are_a_softmax_with_mean_1():
    weights = score_weights([0.5, 0.4, 0.1], 0.1)
    expected = 3 * torch.softmax(torch.tensor([5.0, 4.0, 1.0]), 0)
    assert weights == pytest.approx(expected.tolist(), rel=1e-6)
    assert score_weights([0.3, 0.3], 0.05) == [1.0, 1.0]


def test_own_weight_times_score_weight_and_negative_ones_keep_their_own():
    references = edit(edit(found(0.5, 0.4, 0.1), 1, weight=2.0), 3, weight=3.0, negative=True)
    first, second, negative = effective(references, 0.1)
    share = math.e / (1 + math.e)
    assert first.weight == pytest.approx(2 * 2 * share) and second.weight == pytest.approx(2 * (1 - share))
    assert negative.weight == 3
