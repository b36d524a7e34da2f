"""Objects of a prompt, and what it leaves out."""

import re

import pytest

from realrag.prompts.objects import Wish, negations, wish

KNOWN = {"lemon", "garlic", "apple", "robot"}


def sure(parts):
    return [any(word.rstrip("s") in KNOWN for word in part.lower().split()) for part in parts]


@pytest.mark.parametrize(
    "text, objects",
    [
        ("a lemon", ("a lemon",)),
        ("a lemon\ngarlic", ("a lemon", "garlic")),
        ("a puffin\na gull", ("a puffin", "a gull")),
        ("a lemon next to a garlic", ("a lemon", "a garlic")),
        ("a lemon and a garlic", ("a lemon", "a garlic")),
        ("a lemon, garlic and apples", ("a lemon", "garlic", "apples")),
        ("lemon, garlic, and a robot", ("lemon", "garlic", "a robot")),
        ("a lemon, on a table, soft light", ("a lemon, on a table, soft light",)),
        ("a lemon and sunshine", ("a lemon and sunshine",)),
        ("in a kitchen, a lemon and a garlic, soft light", ("in a kitchen, a lemon", "a garlic, soft light")),
        ("black and white photo of a lemon", ("black and white photo of a lemon",)),
    ],
)
def test_a_line_is_an_object_and_parts_are_where_each_is_certain(text, objects):
    assert wish(text, sure).objects == objects


def test_a_name_with_and_in_it_stays_whole():
    text = "salt and pepper and a lemon"
    spans = [(0, len("salt and pepper"))]
    assert wish(text, lambda parts: [True] * len(parts), lambda line: spans).objects == ("salt and pepper", "a lemon")


@pytest.mark.parametrize(
    "text, rest, left_out",
    [
        ("fruit without bananas", "fruit", ["bananas"]),
        ("fruit without bananas, on a table", "fruit, on a table", ["bananas"]),
        ("not a banana", "", ["banana"]),
        ("not a banana but an apple", "apple", ["banana"]),
        ("an apple, no leaves", "an apple", ["leaves"]),
        ("a street with no cars", "a street", ["cars"]),
        ("fruit without apples or pears", "fruit", ["apples", "pears"]),
        ("fruit without bananas and a cat", "fruit and a cat", ["bananas"]),
        ("fruit except a red apple", "fruit", ["red apple"]),
        ("a knot in a nobleman's notebook", "a knot in a nobleman's notebook", []),
        ("a forest without Mr. Fox, dark", "a forest, dark", ["Mr. Fox"]),
        ("a desk, no 3.5 inch disk, dust", "a desk, dust", ["3.5 inch disk"]),
        ("no", "no", []),
        ("he would never do what nobody else around here ever did", "he would never do what nobody else around here ever did", []),
    ],
)  # fmt: skip
def test_what_is_left_out_is_parted_from_what_is_asked(text, rest, left_out):
    assert negations(text) == (rest, left_out)


@pytest.mark.parametrize(
    "text, rest, left_out",
    [
        ("Study No 4 on a wall", "Study No 4 on a wall", []),
        ("Study No 4 on a wall, no frame", "Study No 4 on a wall", ["frame"]),
        ("a table without salt and pepper and a cat", "a table and a cat", ["salt and pepper"]),
        ("No Smoking", "No Smoking", []),
    ],
)
def test_a_name_leaves_nothing_out_and_is_left_out_whole(text, rest, left_out):
    names = [re.search(name, text) for name in ("Study No 4", "salt and pepper", "No Smoking")]
    assert negations(text, [match.span() for match in names if match]) == (rest, left_out)


def test_only_something_left_out_asks_for_no_object():
    assert wish("without bananas", sure) == Wish((), ("bananas",))


def test_many_parts_end():
    assert len(wish("lemon, " * 5000, sure).objects) >= 1
