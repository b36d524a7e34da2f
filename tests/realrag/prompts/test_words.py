"""Texts become the same words however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag.prompts.words import (
    fold,
    forms,
    function_words,
    grams,
    is_a_name,
    names_something,
    read_list,
    tokens,
    unspaced,
    words,
)


@pytest.mark.parametrize(
    "text, found",
    [
        ("Crème-Fraîche!", ["creme", "fraiche"]),
        ("RedCar_2", ["red", "car", "2"]),
        ("HTMLPage 0A", ["html", "page", "0a"]),
        ("the farmer's T-Shirt", ["the", "farmer", "t", "shirt"]),
        ("Straße \ufb01ne \uff21\uff22\uff23", ["strasse", "fine", "abc"]),
        ("がぎ", ["がぎ"]),
        ("Й ё", ["й", "ё"]),
        ("苹果 in 桌子上", ["苹果", "in", "桌子上"]),
        ("a\u200bb", ["a", "b"]),
        ("", []),
    ],
)
def test_case_accents_and_separators_make_no_difference(text, found):
    assert words(text) == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("IMG 1234", False), ("DSC00012", False), ("P1010001", False), ("WhatsApp Image 2021 05 01 at 10.11.12", False),
        ("20210304 101112", False), ("IMG 20210304 WA0003", False), ("", False), ("granny smith 2", True), ("robot (1)", True),
        ("IMG 1234 Mimi", True), ("苹果", True),
    ],
)  # fmt: skip
def test_the_name_that_a_camera_gives_says_nothing(name, says):
    assert names_something(name) is says


@given(st.text(max_size=60))
def test_tokens_are_the_words_and_say_where_they_stand(text):
    found = tokens(text)
    assert [token.word for token in found] == words(text) or text.isascii()
    assert all(fold(text[token.start : token.end]) == token.word for token in found)


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_short_way_for_plain_texts_finds_the_same_words(text):
    assert words(text) == [token.word for token in tokens(text)]


@pytest.mark.parametrize("one, other", [("berry", "berries"), ("bus", "buses"), ("leaf", "leaves"), ("man", "men"), ("car", "cars"), ("tomato", "tomatoes"), ("box", "boxes")])  # fmt: skip
def test_singular_and_plural_find_each_other(one, other):
    assert other in forms(one) and one in forms(other)


@pytest.mark.parametrize("word, other", [("short", "shorts"), ("glass", "glas"), ("bus", "bu" * 2), ("a", "as")])
def test_what_is_no_plural_is_no_form(word, other):
    assert other not in forms(word)


def test_scripts_without_spaces_are_cut_by_one_and_two():
    assert unspaced("苹果") and not unspaced("apple") and grams("红苹果") == ["红", "苹", "果", "红苹", "苹果"]


@pytest.mark.parametrize("name", ["function_words.txt", "quality_words.txt", "color_words.txt", "unrelated.txt"])
def test_lists_say_each_thing_once_in_words_that_are_found(name):
    lines = read_list(name)
    assert len(lines) > 20 and len(set(lines)) == len(lines) and all(words(line) for line in lines)
    assert "can" in function_words()


@pytest.mark.parametrize(("folder", "name"), [("Bello", True), ("T3", True), ("07 Baltic Sea", True), ("ねこ", True), ("08", False),
    ("2023-07-14", False), ("", False), ("100CANON", False), ("101_PANA", False), ("DCIM", False), ("Camera2", True)])  # fmt: skip
def test_a_folder_that_says_when_or_by_what_has_no_name_to_ask_for(folder, name):
    assert is_a_name(folder) == name
