"""Which classes a text names, as people write names."""

import pytest

from realrag.search.names import NameTable, asked_as

CLASSES = [
    "Granny-Smith", "Lemon", "can", "Salt and pepper", "001.Black_footed_Albatross", "garlic", "Berry", "t-shirt", "Bus",
    "Iris", "shorts", "Orange", "Crème Fraîche", "Jaguar (animal)", "tench, Tinca tinca", "glass", "1994 Audi 100",
]  # fmt: skip
TABLE = NameTable(
    CLASSES,
    [
        (5, "de", "Knoblauch"),
        (5, "zh", "大蒜"),
        (5, "ja", "ニンニク"),
        (1, "fr", "citron"),
        (12, "ja", "サワークリーム"),
        (10, "fr", "short"),
        (8, "de", "Bus"),
        (1, "en", "sour"),
        (10, "de", "Hose"),
    ],
)


def named(text):
    return [CLASSES[code] for hit in TABLE.find(text) for code in hit.codes]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("10_zoecat cat", "zoecat cat"), ("02 - Duckie", "Duckie"), ("2023-07-14 Baltic Sea", "Baltic Sea"), ("K-9 mk2", "K-9 mk2"),
        ("Granny-Smith", "Granny Smith"), ("wolf_plushie v2", "wolf plushie v2"), ("Bello (my dog)", "Bello (my dog)"),
        ("1994 Audi 100", "Audi 100"), ("08", "08"), ("Mia_2024", "Mia 2024"),
    ],
)  # fmt: skip
def test_a_name_is_shown_as_one_asks_for_it_and_found_so(name, asked):
    assert asked_as(name) == asked
    table = NameTable([name])
    assert table.find(f"a photo of {asked}") or not any(map(str.isalpha, name))


@pytest.mark.parametrize(
    "text, classes",
    [
        ("a Granny Smith apple", ["Granny-Smith"]),
        ("GRANNY_SMITH", ["Granny-Smith"]),
        ("GrannySmith", ["Granny-Smith"]),
        ("two grannysmiths", ["Granny-Smith"]),
        ("some berries in a bowl", ["Berry"]),
        ("tshirts and buses", ["t-shirt", "Bus"]),
        ("a T shirt", ["t-shirt"]),
        ("irises", ["Iris"]),
        ("creme fraiche", ["Crème Fraîche"]),
        ("CRÈME-FRAÎCHE", ["Crème Fraîche"]),
        ("a black-footed albatross at sea", ["001.Black_footed_Albatross"]),
        ("a jaguar in the jungle", ["Jaguar (animal)"]),
        ("Tinca tinca", ["tench, Tinca tinca"]),
        ("a tench", ["tench, Tinca tinca"]),
        ("a 1994 Audi 100 in the rain", ["1994 Audi 100"]),
        ("salt and pepper, lemon", ["Salt and pepper", "Lemon"]),
        ("lemon lemon", ["Lemon", "Lemon"]),
        ("the farmer's garlic", ["garlic"]),
        # other languages, and scripts without spaces
        ("Knoblauch auf dem Tisch", ["garlic"]),
        ("un citron", ["Lemon"]),
        ("一个大蒜在桌子上", ["garlic"]),
        ("ニンニクの写真", ["garlic"]),
        ("サワークリームとニンニク", ["Crème Fraîche", "garlic"]),
        # a name in another language that is an English word, where the text is in that language
        ("un short sur une table", ["shorts"]),
        ("eine Hose auf dem Bett", ["shorts"]),
        ("sour, please", ["Lemon"]),
        # one typo in a long word, none in a short one
        ("a gerlic bulb", ["garlic"]),
        ("granny smiht", []),
        ("garlicc", ["garlic"]),
        ("grlic", []),  # five letters
        ("albatros", []),  # a part of a name is no name
        ("black footed albatros", ["001.Black_footed_Albatross"]),
    ],
)
def test_a_class_is_named_however_it_is_written(text, classes):
    assert named(text) == classes


@pytest.mark.parametrize(
    "text",
    [
        "an american flag", "you can see it", "a lemonade", "a woman with short hair", "an orange cat", "orange walls",
        "a bust of marble", "buster", "the german shepherd", "planets", "", ".", "  ", "日本語", "canyon", "a garland",
        "a garden hose", "short", "Hose",
    ],
)  # fmt: skip
def test_what_only_resembles_a_name_names_nothing(text):
    assert named(text) == []


def test_a_class_called_by_a_word_of_grammar_counts_after_an_article_or_alone():
    assert named("a can of soup") == named("the can") == named("can") == ["can"]


def test_a_color_that_is_a_thing_counts_where_no_noun_follows():
    assert named("an orange") == named("an orange on a table") == named("orange, sliced") == ["Orange"]


def test_names_do_not_lie_inside_each_other():
    table = NameTable(["pepper", "bell pepper", "red bell pepper"])
    assert [hit.codes for hit in table.find("a red bell pepper, a bell pepper and pepper")] == [(2,), (1,), (0,)]


def test_two_classes_of_one_name_are_both_named():
    assert NameTable(["Jaguar", "jaguar"]).find("a jaguar")[0].codes == (0, 1)


def test_marks_that_make_another_letter_stay():
    table = NameTable(["がく", "かく"])
    assert [hit.codes for hit in table.find("がく")] == [(0,)]


def test_no_names_name_nothing():
    assert NameTable(["", ""]).find("anything") == [] and NameTable([]).find("") == []


def test_a_name_in_another_language_is_read_as_the_classs_own():
    hits = {
        hit.text: hit.meant for text in ("Knoblauch", "一个大蒜", "un citron", "a gerlic") for hit in TABLE.find(text)
    }
    assert hits == {"Knoblauch": "garlic", "大蒜": "garlic", "citron": "lemon", "gerlic": "garlic"}


def test_a_year_is_no_part_of_a_name_that_another_class_has():
    table = NameTable(["Rex_2021", "Rex", "BMW M3 2012", "Boeing 747", "2019"])
    assert [hit.codes for hit in table.find("Rex on a beach")] == [(1,)]
    assert [hit.codes for hit in table.find("Rex 2021 on a beach")] == [(0,)]
    assert [hit.codes for hit in table.find("a BMW M3 in the rain")] == [(2,)]
    assert not table.find("a Boeing in the rain") and not table.find("2019")
