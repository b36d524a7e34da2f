"""Masks drawn on cards: read from a workflow's text as they were drawn, and given to their own photo alone."""

import pytest
import torch
from PIL import Image

from realrag.errors import QueryError
from realrag.injection.drawn_masks import read_masks, with_masks, write_mask
from realrag.references import Reference, References


def reference(id: str) -> Reference:
    return Reference(id, 0.5, "", "", "", "", "", "f.jpg", 8, 8, Image.new("RGB", (8, 8)))


def left_half() -> torch.Tensor:
    mask = torch.zeros(64, 64)
    mask[:, :32] = 1
    return mask


def test_a_mask_comes_back_as_it_was_drawn():
    random = (torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    text = f"{write_mask('a' * 16, random)},\n {write_mask('b' * 16, left_half())} ,"
    masks = read_masks(text)
    assert list(masks) == ["a" * 16, "b" * 16]
    assert torch.equal(masks["a" * 16], random) and torch.equal(masks["b" * 16], left_half())
    assert read_masks(" \n,") == {}


def test_bits_are_rows_from_the_upper_left_corner():
    """As web/mask_drawing.js writes them: the first byte's highest bit is the upper left corner."""
    (mask,) = read_masks("x:gA" + "A" * 680 + "A=").values()
    assert mask[0, 0] == 1 and mask.sum() == 1


def test_each_photo_gets_its_own_mask_and_others_wait():
    references = References("q", "b", (reference("a" * 16), reference("b" * 16)))
    masked = with_masks(references, {"b" * 16: left_half(), "c" * 16: torch.ones(64, 64)})
    assert masked.items[0].settings.mask is None and torch.equal(masked.items[1].settings.mask, left_half())
    assert masked.items[1].settings.describe() == "masked" and references.items[1].settings.mask is None


@pytest.mark.parametrize(
    "text",
    ["x", "x:", ":", "x:AAAA", "x:" + "A" * 683 + "!", "x:" + "A" * 100_000, "x:../../etc/passwd", "x:\ud800", "\0:\0"],
)
def test_what_is_no_mask_is_refused_with_the_rule(text):
    with pytest.raises(QueryError, match="512 bytes in base64") as refusal:
        read_masks(text)
    assert len(str(refusal.value)) < 300


def test_endless_masks_are_refused():
    with pytest.raises(QueryError, match="at most 1000"):
        read_masks("x:A," * 1001)
