"""Pinned photos come first and stay on every page; pages never repeat a photo; bans, filters and doubt hold beside them."""

import numpy as np
import pytest
from made_photos import photo_bytes

from realrag.bundle.records import Filters
from realrag.errors import QueryError
from realrag.indexing.build import build
from realrag.retriever import Retriever, shipped_bundle


@pytest.fixture
def retriever(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    return Retriever.open(tmp_path / "b", encoder=encoder, cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def shipped():
    return Retriever.open(shipped_bundle())


def ids(answer) -> list[str]:
    return [item.id for item in answer.items]


@pytest.mark.parametrize("find_by", ["both", "look"])
def test_a_pinned_photo_comes_first_with_its_true_score(retriever, find_by):
    everything = {item.id: item.score for item in retriever.search("red", k=15, find_by=find_by, min_score=None).items}
    plain = retriever.search("red", k=4, find_by=find_by)
    blue = retriever.search("blue", k=2).items
    pinned = retriever.search("red", k=4, find_by=find_by, pinned=[item.id for item in reversed(blue)])
    assert ids(pinned) == [blue[1].id, blue[0].id, *ids(plain)[:2]]
    assert [item.found for item in pinned.items[:2]] == ["pinned", "pinned"]
    assert [item.score for item in pinned.items[:2]] == pytest.approx([everything[item.id] for item in reversed(blue)])
    assert "pinned" not in {item.found for item in pinned.items[2:]}


def test_a_pinned_photo_that_is_found_as_well_comes_once(retriever):
    plain = retriever.search("red", k=3)
    pinned = retriever.search("red", k=3, pinned=[plain.items[1].id, plain.items[1].id])
    assert ids(pinned) == [plain.items[1].id, plain.items[0].id, plain.items[2].id]


@pytest.mark.parametrize("options", [
    {}, {"find_by": "look"}, {"find_by": "name"}, {"diversity": 0.7}, {"min_score": None}, {"min_score": 0.2},
    {"filters": Filters(classes=("Garlic", "Lemon", "Ginger"))}, {"filters": Filters(exclude_ids=("65c57a01aeaeebfa",))},
], ids=str)  # fmt: skip
def test_pages_never_repeat_a_photo_and_the_first_is_what_it_was(shipped, options):
    pages = [shipped.search("a photo of garlic", k=3, page=page, **options) for page in range(1, 6)]
    assert ids(pages[0]) == ids(shipped.search("a photo of garlic", k=3, **options))
    seen = [id for page in pages for id in ids(page)]
    assert len(set(seen)) == len(seen) >= 2
    classes = options["filters"].classes if "filters" in options else ()
    assert all(item.class_name in classes for page in pages for item in page.items if classes)
    assert "65c57a01aeaeebfa" not in seen or not options.get("filters", Filters()).exclude_ids
    if options == {"find_by": "look"}:  # one ranking, cut into pages
        assert seen[:9] == ids(shipped.search("a photo of garlic", k=9, find_by="look"))[: len(seen[:9])]


def test_pinned_photos_stay_while_the_other_places_are_paged_through(shipped):
    lemon = shipped.search("a lemon", k=1).items[0].id
    everything = ids(shipped.search("a photo of garlic", k=6, find_by="look", min_score=None))
    for page in (1, 2, 3):
        answer = shipped.search(
            "a photo of garlic", k=3, find_by="look", min_score=None, pinned=[lemon], page=page,
        )  # fmt: skip
        assert ids(answer) == [lemon, *everything[2 * page - 2 : 2 * page]]


def test_after_the_last_page_it_says_which_was_the_last(retriever):
    last = retriever.search("red", k=4, find_by="look", min_score=None, page=4)
    assert len(last) == 3 and "no more photos" in last.note
    beyond = retriever.search("red", k=4, find_by="look", min_score=None, page=50)
    assert not beyond.items and "Page 50 is empty: page 4 is the last one." in beyond.note
    pin = ids(last)[:1]
    assert ids(retriever.search("red", k=4, find_by="look", min_score=None, page=50, pinned=pin)) == pin
    full = retriever.search("red", k=1, pinned=pin, page=2)
    assert ids(full) == pin and "All 1 photos are pinned" in full.note


def test_a_pin_that_cannot_come_is_said_and_the_rest_is_as_without(retriever):
    plain, blue = retriever.search("red", k=4), retriever.search("blue", k=2).items
    for pins, note in (
        (["0" * 16], "not in this library: '0000000000000000'"),
        (["../../etc/passwd", "\0", "x" * 4000], "not in this library"),
        ([""], "not in this library"),
    ):
        answer = retriever.search("red", k=4, pinned=pins)
        assert ids(answer) == ids(plain) and note in answer.note and len(answer.note) < 400
    banned = retriever.search("red", k=4, pinned=[blue[0].id], filters=Filters(exclude_ids=(blue[0].id,)))
    assert ids(banned) == ids(plain) and "Pinned, but left out by a filter" in banned.note
    other_class = retriever.search("red", k=4, pinned=[blue[0].id], filters=Filters(classes=("red",)))
    assert ids(other_class) == ids(plain) and "left out by a filter" in other_class.note
    too_many = retriever.search("red", k=1, pinned=[item.id for item in blue])
    assert ids(too_many) == [blue[0].id] and "2 photos are pinned and 1 asked for" in too_many.note


def test_pinned_photos_are_beyond_doubt_and_any_bound(shipped):
    pin = shipped.search("garlic", k=1).items[0].id
    for options in ({}, {"min_score": 0.999}, {"find_by": "name"}, {"find_by": "look"}):
        answer = shipped.search("a puffin", k=3, pinned=[pin], **options)
        assert ids(answer) == [pin] and not answer.doubtful and not answer.doubts(answer.items[0])
        assert "1 of 3" in answer.note
    kept = shipped.search("a puffin", k=3, pinned=[pin], min_score=None)
    assert ids(kept)[0] == pin and len(kept) == 3 and kept.doubtful


def test_what_the_words_leave_out_may_still_be_pinned(shipped):
    pin = shipped.search("garlic", k=1).items[0].id
    answer = shipped.search("vegetables without garlic", k=3, pinned=[pin], min_score=None)
    assert ids(answer)[0] == pin and "Garlic" not in {item.class_name for item in answer.items[1:]}


def test_each_pin_belongs_to_an_object_and_counts_among_its_photos(shipped):
    _, mango, garlic = (shipped.search(f"a {name}", k=4).items for name in ("lemon", "mango", "garlic"))
    pins = [mango[2].id, garlic[0].id]
    answer = shipped.search("a lemon\na mango", k=4, pinned=pins)
    assert ids(answer)[:2] == pins and answer.items[0].object == "a mango"
    assert answer.items[1].object in ("a lemon", "a mango")
    of = {name: [item for item in answer.items if item.object == name] for name in ("a lemon", "a mango")}
    assert {name: len(items) for name, items in of.items()} == {"a lemon": 2, "a mango": 2}
    assert not set(ids(answer)[2:]) & set(pins) and len(set(ids(answer))) == 4
    pages = [shipped.search("a lemon\na mango", k=2, page=page) for page in (1, 2, 3)]
    assert len({id for page in pages for id in ids(page)}) == 6
    for page in pages:
        assert [(item.object, item.class_name) for item in page.items] == [("a lemon", "Lemon"), ("a mango", "Mango")]


def test_every_text_of_a_batch_gets_its_pins_and_its_page(retriever):
    pin = retriever.search("blue", k=1).items[0].id
    texts = ["red", "green", "blue"]
    for options in ({"find_by": "look"}, {}):
        options = {"k": 3, "pinned": [pin], "page": 2, "min_score": None, **options}
        batch = retriever.search_batch(texts, **options)
        assert [answer.as_json() for answer in batch] == [retriever.search(t, **options).as_json() for t in texts]
        assert all(ids(answer)[0] == pin and len(answer) == 3 for answer in batch)


def test_a_picture_asks_with_pins_and_pages_too(shipped):
    lemon = shipped.search("a lemon", k=1).items[0]
    ranked = ids(shipped.search(image=lemon.image, k=5))
    assert ids(shipped.search(image=lemon.image, k=2, page=2)) == ranked[2:4]
    assert ids(shipped.search(image=lemon.image, k=2, pinned=[ranked[4]])) == [ranked[4], ranked[0]]


def test_copies_of_a_pinned_photo_or_of_an_earlier_page_come_last(photos, tmp_path, encoder, monkeypatch):
    for quality in range(60, 70):
        (photos / "red" / f"again{quality}.jpg").write_bytes(photo_bytes((255, 0, 0), 1, quality=quality))
    build(photos, tmp_path / "many", encoder)
    retriever = Retriever.open(tmp_path / "many", encoder=encoder)
    monkeypatch.setattr("realrag.choosing.NEAR_DUPLICATE", 0.9999)
    copies = {record.id for record in retriever.bundle.records if "again" in record.file}
    pin = min(copies)
    pinned = retriever.search("red", k=4, pinned=[pin], find_by="look", min_score=None)
    assert not copies & set(ids(pinned)[1:])
    first, second = (retriever.search("red", k=4, find_by="look", page=page, min_score=None) for page in (1, 2))
    assert len(copies & set(ids(first))) == 1 and not copies & set(ids(second))


@pytest.mark.slow
def test_large_libraries_page_alike(photos, tmp_path, encoder):
    """Through inverted lists as well: exclusions reach the search, and nothing is repeated."""
    pytest.importorskip("faiss")
    for number in range(300):
        color = tuple(int(c) for c in np.random.default_rng(number).integers(0, 255, 3))
        (photos / f"{number}.jpg").write_bytes(photo_bytes(color, number))
    build(photos, tmp_path / "large", encoder)
    exact, lists = (
        Retriever.open(tmp_path / "large", encoder=encoder, kind=kind, cache=tmp_path / kind)
        for kind in ("exact", "ivf")
    )
    assert lists.index.kind == "ivf"
    for page in (1, 2, 5):
        a, b = (each.search("red", k=3, page=page, find_by="look", min_score=None) for each in (exact, lists))
        assert ids(a) == ids(b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page": 0}, "page is 0"), ({"page": 101}, "1, the best photos, to 100"), ({"page": 1.0}, "page is 1.0"),
        ({"page": True}, "page is True"), ({"pinned": "65c57a01aeaeebfa"}, "give a list"), ({"pinned": [7]}, "give a list"),
    ],
)  # fmt: skip
def test_a_page_or_pin_that_makes_no_sense_is_refused_with_the_rule(retriever, options, message):
    with pytest.raises(QueryError, match=message):
        retriever.search("red", **options)
