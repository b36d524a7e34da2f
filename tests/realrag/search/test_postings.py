"""Word lists over captions: what they find, that they are kept, and that a damaged file is made anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrag.prompts.words import grams, unspaced, words
from realrag.search import postings, postings_file
from realrag.search.postings_file import FILE, METADATA, build_postings, open_postings
from realrag.search.word_hashes import hash_of

TEXTS = ["a red car", "a blue car", "two red apples", "RedBarn_2", "苹果在桌子上", "bus stop", "", "audi 100"]


def rows(text, made=None, **options):
    hits = (made or build_postings(TEXTS, len(TEXTS))).ask(text).hits(**options)
    return dict(zip(hits.rows.tolist(), hits.matched.tolist(), strict=True))


def test_words_are_found_in_either_number_and_any_case():
    assert set(rows("CARS")) == {0, 1} and set(rows("an apple")) == {2} and set(rows("red")) == {0, 2, 3}
    assert set(rows("buses")) == {5} and rows("sub") == {}


def test_what_is_matched_is_weighed_by_how_rare_it_is_and_unknown_words_count_too():
    assert rows("a red car")[0] == pytest.approx(1)
    half = rows("a red car")
    assert half[1] > 0.4 > 0 and half[1] < 1 and half[2] < half[1]  # "car" stands beside two photos, "red" beside three
    assert rows("a 1994 audi 100")[7] < 0.75 and rows("audi 100")[7] == pytest.approx(1)
    assert rows("a zeppelin") == {} and rows("the of and") == {} and rows("") == {}


def test_a_script_without_spaces_is_found_by_one_and_two_characters():
    assert set(rows("苹果")) == {4} and rows("苹果")[4] == pytest.approx(1)
    assert rows("苹")[4] == pytest.approx(1)
    assert 0 < rows("苹果汁")[4] < 1


def test_only_allowed_rows_answer():
    allowed = np.ones(len(TEXTS), bool)
    allowed[0] = False
    assert set(rows("car", allowed=allowed)) == {1}


def test_a_word_beside_most_photos_tells_nothing_and_is_dropped(monkeypatch):
    monkeypatch.setattr(postings_file, "FEW", 3)
    made = build_postings([f"photo {name}" for name in ("red", "blue", "red", "green", "red")], 5)
    assert rows("photo", made) == {} and made.knows("photo") and set(rows("photo red", made)) == {0, 2, 4}
    assert rows("photo red", made)[0] == pytest.approx(1)


def test_the_rarest_words_are_looked_at_first_and_no_more_rows_than_the_budget(monkeypatch):
    monkeypatch.setattr(postings, "BUDGET", 3)
    assert set(rows("a red car stop")) == {5, 0, 1}  # "stop", then "car"; "red" would be too many


def test_the_lists_are_kept_and_read_again_without_the_texts(tmp_path):
    first = open_postings(tmp_path, "abc", lambda: TEXTS, len(TEXTS))
    again = open_postings(tmp_path, "abc", lambda: pytest.fail("built again"), len(TEXTS))
    assert rows("a red car", first) == rows("a red car", again)


@pytest.mark.parametrize("place", [10, 200, -1])
def test_a_damaged_file_is_built_anew(tmp_path, place):
    open_postings(tmp_path, "abc", lambda: TEXTS, len(TEXTS))
    data = bytearray((tmp_path / FILE).read_bytes())
    data[place] ^= 1
    (tmp_path / FILE).write_bytes(data)
    assert rows("a red car", open_postings(tmp_path, "abc", lambda: TEXTS, len(TEXTS)))[0] == pytest.approx(1)
    assert (tmp_path / FILE).read_bytes() != bytes(data)


def test_lists_of_other_records_or_of_an_older_version_are_built_anew(tmp_path, monkeypatch):
    open_postings(tmp_path, "abc", lambda: TEXTS, len(TEXTS))
    assert set(rows("zebra", open_postings(tmp_path, "def", lambda: ["a zebra"], 1))) == {0}
    monkeypatch.setattr(postings_file, "WORDS_VERSION", 99)
    assert set(rows("zebra", open_postings(tmp_path, "def", lambda: ["no", "zebra"], 2))) == {1}
    (tmp_path / METADATA).write_text("[]")
    assert set(rows("zebra", open_postings(tmp_path, "def", lambda: ["zebra"], 1))) == {0}


def test_many_chunks_are_one(monkeypatch):
    monkeypatch.setattr(postings_file, "CHUNK", 3)
    whole = build_postings(TEXTS, len(TEXTS))
    assert rows("a red car", whole) == rows("a red car") and len(whole.rows) == len(build_postings(TEXTS, 8).rows)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from("abzABZ019 _-.'\n\r\té苹"), max_size=20), min_size=1, max_size=8))
def test_many_texts_at_once_give_the_words_of_each(texts):
    """The words of a chunk are hashed together; one by one, they are the same words of the same photos."""
    made = build_postings(texts, len(texts))
    expected: dict[int, set[int]] = {}
    for row, text in enumerate(texts):
        for word in words(text):
            for part in grams(word) if unspaced(word) else [word]:
                expected.setdefault(hash_of(part) >> max(1, (len(texts) - 1).bit_length()), set()).add(row)
    found = {
        int(key): set(made.rows[made.starts[i] : made.starts[i + 1]].tolist()) for i, key in enumerate(made.hashes)
    }
    assert found == expected
