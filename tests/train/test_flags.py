"""Flags made from a settings dataclass: defaults, booleans, older names, and values of a recipe."""

import argparse
from dataclasses import dataclass

import pytest

from realrag_train.flags import add_flags, chosen


@dataclass(frozen=True)
class Settings:
    kind: str = "plain"
    save_steps: int = 500
    rate: float = 0.1
    symmetric: bool = False
    bf16: bool = True


def parsed(words, **options):
    parser = argparse.ArgumentParser()
    add_flags(parser, Settings, **options)
    return parser.parse_args(words)


def test_flags_that_are_not_given_leave_the_defaults():
    assert chosen(parsed([]), Settings()) == Settings()


def test_each_type_is_read_from_its_flag():
    words = ["--kind", "x", "--save-steps", "7", "--rate", "1e-3", "--symmetric", "--no-bf16"]
    assert chosen(parsed(words), Settings()) == Settings("x", 7, 1e-3, True, False)


def test_an_older_name_of_a_flag_still_works():
    assert chosen(parsed(["--every", "3"], aliases={"save_steps": "every"}), Settings()).save_steps == 3


def test_a_field_that_is_skipped_keeps_its_value():
    assert chosen(parsed([], skip=("kind",)), Settings("other")) == Settings("other")


def test_flags_replace_the_recipe_s_values_only_where_they_are_given():
    recipe = Settings(save_steps=9, rate=0.5)
    assert chosen(parsed(["--rate", "0.2"], from_recipe=True), recipe) == Settings(save_steps=9, rate=0.2)


@pytest.mark.parametrize(("words", "value"), [(["--bf16", "0"], False), (["--bf16=1"], True), (["--no-bf16"], False)])
def test_numeric_booleans_take_0_and_1_too(words, value):
    assert chosen(parsed(words, numeric=True), Settings()).bf16 is value


def test_a_numeric_boolean_of_another_value_is_refused(capsys):
    with pytest.raises(SystemExit):
        parsed(["--bf16", "2"], numeric=True)
    assert "not 0 or 1" in capsys.readouterr().err
