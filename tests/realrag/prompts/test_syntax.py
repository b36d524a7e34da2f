"""Weights, tags, wildcards and quality words go; the subject stays."""

import pytest

from realrag.prompts.syntax import plain, without_quality_words


@pytest.mark.parametrize(
    "text, found",
    [
        ("a (red:1.3) car", "a red car"),
        ("((shiny)) [old] car", "shiny old car"),
        ("a car <lora:carModel_v2:0.8> <hypernet:x:1>", "a car"),
        ("embedding:easynegative, a car", ", a car"),
        ("a {red|blue|green} car", "a red car"),
        ("{2$$red|blue} car", "red car"),
        ("{0.3::red|0.7::blue} car", "red car"),
        ("{a {small|big}|one} car", "a small car"),
        ("a __color__ car", "a car"),
        ("a [cat:dog:0.5] here", "a dog here"),
        ("a car BREAK a house AND a tree", "a car , a house , a tree"),
        ("salt and pepper", "salt and pepper"),
        (r"rocket \(vehicle\)", "rocket (vehicle)"),
        ("// a note\na car /* red */", "a car"),
        ("a car\na house", "a car\na house"),
        ("12:30 at noon, ratio 16:9", "12:30 at noon, ratio 16:9"),
        ("{", "{"),
        (")(:1.2", ":1.2"),
        ("", ""),
    ],
)
def test_only_the_words_stay(text, found):
    assert plain(text) == found


def test_deep_and_broken_syntax_ends():
    assert plain("{" * 5000 + "a" + "}" * 5000).replace("{", "").replace("}", "").strip() == "a"
    assert plain("(" * 5000 + "a") == "a" and plain("[a:" * 1000).count("a") == 1000


def test_quality_words_go_where_they_stand_alone():
    text = "masterpiece, best quality, a Granny Smith, 8K UHD, (sharp focus), Trending on ArtStation"
    assert without_quality_words(plain(text)) == "a Granny Smith"
    assert without_quality_words("a detailed map, detailed") == "a detailed map"


def test_a_quality_word_that_means_something_here_stays():
    assert without_quality_words("canon, 8k", keep=lambda part: part == "canon") == "canon"


def test_nothing_but_quality_words_leaves_nothing():
    assert without_quality_words("masterpiece, 8k") == ""
