"""A picture against its references: copies are known however they were changed, other photos are none."""

import pytest
from PIL import Image, ImageFilter, ImageOps

from realrag.likeness import COPY, layout, likeness, report
from realrag.references import Reference
from realrag.retriever import Retriever, shipped_bundle


@pytest.fixture(scope="module")
def shipped():
    return Retriever.open(shipped_bundle())


@pytest.fixture(scope="module")
def items(shipped):
    """Every sixth photo as a reference."""
    found = []
    for row in range(0, len(shipped.bundle.records), 6):
        record = shipped.bundle.records[row]
        found.append(
            Reference(record.id, 0.5, record.caption, record.class_name, "MIT", "Ada", "", "f.jpg", 1, 1,
                      shipped.bundle.image(record))
        )  # fmt: skip
    return found


def cut(image, part):
    width, height = int(image.width * part), int(image.height * part)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((160, 160)),
        lambda image: image.filter(ImageFilter.GaussianBlur(4)),
        ImageOps.mirror,
        lambda image: cut(image, 0.9),
        lambda image: image.point([min(255, 20 + value) for value in range(256)] * 3),
    ],
    ids=["itself", "small", "blurred", "mirrored", "cut", "brighter"],
)
def test_a_copy_is_known_whatever_was_done_to_it(shipped, items, change):
    for item in items[:4]:
        found = likeness(shipped.encoder, change(item.image.convert("RGB")), [item])[0]
        assert found.layout > COPY + 0.05 and "Warning: the picture is nearly a copy of reference 1" in report([found])


@pytest.mark.slow
def test_no_photo_of_the_library_is_a_copy_of_another(items):
    assert (
        max(layout(one.image, other.image) for one in items[::4] for other in items if other is not one) < COPY - 0.05
    )


def test_the_same_thing_looks_more_alike_than_another(shipped):
    garlic = shipped.search("garlic", k=3).items
    lemon = shipped.search("lemon", k=2).items
    found = likeness(shipped.encoder, garlic[0].image, [*garlic[1:], *lemon])
    assert min(each.look for each in found[:2]) > max(each.look for each in found[2:])


def test_a_picture_of_one_color_is_a_copy_of_nothing(shipped, items):
    gray = Image.new("RGB", (64, 64), (128, 128, 128))
    assert [each.layout for each in likeness(shipped.encoder, gray, items[:3])] == [0, 0, 0]
    assert likeness(shipped.encoder, gray, []) == [] and "no references" in report([])


def test_objects_are_reported_one_by_one(shipped, items):
    from dataclasses import replace

    pair = [replace(items[0], object="a lemon"), replace(items[1], object="a mango")]
    lines = report(likeness(shipped.encoder, items[1].image, pair)).splitlines()
    assert lines[0].startswith("a lemon: looks") and lines[2].startswith("a mango: looks 1.00")
    assert any("Warning" in line for line in lines)
