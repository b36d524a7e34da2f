import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from made_photos import photo_bytes

from realrag.bundle.records import Filters
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import EncoderError, QueryError
from realrag.indexing.build import build
from realrag.library import unit_vectors
from realrag.photos.decode import decode
from realrag.retriever import Retriever


@pytest.fixture
def retriever(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    return Retriever.open(tmp_path / "b", encoder=encoder, cache=tmp_path / "cache")


def slow_search(retriever, query, k):
    """[(score, row)] by numpy over all raw rows, nothing clever."""
    rows = np.asarray(retriever.bundle.embeddings, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = rows @ query
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    return [(scores[row], row) for row in order]


def test_a_prompt_finds_photos_of_its_colour_best_first(retriever):
    answer = retriever.search("a red thing", k=5)
    assert [item.class_name for item in answer.items] == ["red"] * 5
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert answer.bundle_id == retriever.bundle.id and answer.note == ""


def test_the_answer_is_the_slow_one(retriever):
    query = retriever.query(["green"])[0]
    expected = slow_search(retriever, query.astype(np.float64), 3)
    found = retriever.search("green", k=3)
    assert [item.id for item in found.items] == [retriever.bundle.records[row].id for _, row in expected]
    assert np.allclose([item.score for item in found.items], [score for score, _ in expected], atol=1e-5)


def test_a_picture_asks_for_its_like(retriever):
    answer = retriever.search(image=decode(photo_bytes((10, 10, 235), 77)), k=3)
    assert {item.class_name for item in answer.items} == {"blue"}


def test_text_and_picture_together_lie_between(retriever):
    image = decode(photo_bytes((10, 10, 235), 77))
    red, blue = retriever.query(["red"])[0], retriever.query([""], image)[0]
    both = retriever.query(["red"], image)[0]
    expected = (red + blue) / np.linalg.norm(red + blue)
    assert np.allclose(both, expected, atol=1e-6)
    assert np.allclose(retriever.query(["red"], image, image_weight=0.0)[0], red, atol=1e-6)


def test_a_batch_answers_like_one_by_one(retriever):
    texts = ["red", "green", "blue"]
    batch = retriever.search_batch(texts, k=3)
    assert [answer.as_json() for answer in batch] == [retriever.search(text, k=3).as_json() for text in texts]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ""}, "Nothing is asked"),
        ({"text": "  "}, "Nothing is asked"),
        ({"text": "x", "k": 0}, "1 to 1000"),
        ({"text": "x", "k": 2.5}, "1 to 1000"),
        ({"text": "x", "min_score": 3}, "-1 to 1"),
        ({"text": "x", "min_score": float("nan")}, "-1 to 1"),
        ({"text": "x", "diversity": -0.1}, "0 .*to 1"),
        ({"text": "x", "image_weight": 2}, "0 .*to 1"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_the_rule(retriever, options, message):
    with pytest.raises(QueryError, match=message):
        retriever.search(**options)


def test_few_answers_say_why(retriever):
    assert "no more photos" in retriever.search("red", k=100, min_score=None).note
    strict = retriever.search("red", k=4, min_score=0.9999)
    assert not strict.items and "0.9999" in strict.note and "best" in strict.note
    nothing = retriever.search("red", filters=Filters(classes=("banana",)))
    assert not nothing.items and "banana" in nothing.note


def test_filters_and_pins_are_kept(retriever):
    blue = retriever.search("red", k=3, min_score=None, filters=Filters(classes=("blue",)))
    assert {item.class_name for item in blue.items} == {"blue"}
    pinned = retriever.search("red", k=2, filters=Filters(include_ids=tuple(item.id for item in blue.items[:2])))
    assert {item.id for item in pinned.items} == {item.id for item in blue.items[:2]}
    without = retriever.search("red", k=15, min_score=None, filters=Filters(exclude_ids=(pinned.items[0].id,)))
    assert pinned.items[0].id not in {item.id for item in without.items}


def test_near_duplicates_do_not_fill_the_answer(photos, tmp_path, encoder, monkeypatch):
    """Fifty copies of one shot, saved again and again, count once; the pool is widened until others are found; they
    come last, where all is asked for."""
    for quality in range(40, 90):
        (photos / "red" / f"again{quality}.jpg").write_bytes(photo_bytes((255, 0, 0), 1, quality=quality))
    build(photos, tmp_path / "many", encoder)
    retriever = Retriever.open(tmp_path / "many", encoder=encoder)
    monkeypatch.setattr("realrag.choosing.NEAR_DUPLICATE", 0.9999)
    answer = retriever.search("red", k=4)
    assert sum(item.file.startswith("red/again") for item in answer.items) == 1 and len(answer) == 4
    everything = retriever.search("red", k=100, min_score=None).items
    assert len(everything) == 65 and all(item.file.startswith("red/again") for item in everything[-49:])


def test_diversity_leaves_the_best_and_mixes_the_rest(retriever):
    plain = retriever.search("red green", k=4)
    mixed = retriever.search("red green", k=4, diversity=0.9)
    assert mixed.items[0].id == plain.items[0].id
    assert len({item.class_name for item in mixed.items}) > 1


def test_another_encoder_than_the_bundles_is_refused(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    with pytest.raises(EncoderError, match="noise"):
        Retriever.open(tmp_path / "b", encoder=ColorEncoder(scale=3.0))


def test_a_strangers_bundle_cannot_name_a_file_of_yours(photos, tmp_path, encoder):
    for name in (f"ViT-B-32:{tmp_path}/mine.pt", str(tmp_path), "ViT-B-32", "/etc/passwd", "..\\x:y"):
        encoder.name = name
        out = tmp_path / f"b{abs(hash(name))}"
        build(photos, out, encoder)
        with pytest.raises(EncoderError, match="does not carry its weights"):
            Retriever.open(out)


def test_the_head_moves_photos_and_pictures_but_not_words(photos, tmp_path, encoder):
    torch.manual_seed(0)
    head = ReflectiveHead(13, 8)
    torch.nn.init.normal_(head.fc2.weight)
    save_head(head, tmp_path / "head.safetensors")
    build(photos, tmp_path / "b", encoder, head=tmp_path / "head.safetensors")
    plain = Retriever.open(tmp_path / "b", encoder=encoder)
    raw = torch.from_numpy(np.asarray(plain.bundle.embeddings, np.float32))
    with torch.inference_mode():
        expected = head(torch.nn.functional.normalize(raw, dim=1)).numpy()
    assert np.allclose(unit_vectors(plain.bundle, plain.head), expected, atol=1e-5)
    assert np.allclose(
        plain.query(["red"])[0], torch.nn.functional.normalize(encoder.encode_texts(["red"])[0], dim=0), atol=1e-6
    )
    record = plain.bundle.records[4]
    best = plain.search(image=plain.bundle.image(record), k=1).items[0]
    assert best.id == record.id and best.score > 0.99


def test_large_libraries_are_mapped_and_answer_alike(photos, tmp_path, encoder, monkeypatch):
    build(photos, tmp_path / "b", encoder)
    small = Retriever.open(tmp_path / "b", encoder=encoder).search("red", k=5)
    monkeypatch.setattr("realrag.library.EXACT_LIMIT", 3)
    for _ in range(2):
        large = Retriever.open(tmp_path / "b", encoder=encoder, cache=tmp_path / "cache", kind="ivf")
        assert isinstance(large.vectors, np.memmap)
        found = large.search("red", k=5)
        assert [item.id for item in found.items] == [item.id for item in small.items]
    path = next((tmp_path / "cache").rglob("vectors.safetensors"))
    right = path.read_bytes()
    path.write_bytes(right[:-8] + bytes(8))
    Retriever.open(tmp_path / "b", encoder=encoder, cache=tmp_path / "cache", kind="ivf")
    assert path.read_bytes() == right, "a damaged cache is made anew, not believed"


def test_references_show_themselves(retriever):
    answer = retriever.search("red", k=3)
    images, batch = answer.images(), answer.batch()
    assert images[0].shape == (36, 48, 3) and batch.shape == (3, 36, 48, 3)
    assert 0 <= batch.min() and batch.max() <= 1 and torch.allclose(batch[0], images[0])
    square = answer.batch(64)
    assert square.shape == (3, 64, 64, 3) and abs(float(square[0, 0, 0, 0]) - 128 / 255) < 1e-6
    assert answer.scores_text().startswith("1. ") and len(answer.credits_text().splitlines()) == 3 + (
        not answer.licensed
    )
    empty = retriever.search("red", filters=Filters(classes=("none",)))
    assert empty.batch().shape == (1, 256, 256, 3) and "none" in empty.credits_text()
