"""The words of the nodes and of the page in other languages: no text is missing, none is left over, and the files are those that
the script writes."""

import copy
import json
import re
from pathlib import Path

import pytest
from declared_nodes import declared

from realrag_train.maintainer_tools import tool

ROOT = Path(__file__).parents[2]
make_locales = tool("make_locales")
ENGLISH = make_locales.english(declared())
every_language = pytest.mark.parametrize("language", make_locales.TRANSLATED)


def keys(content: dict, path: str = "") -> set[str]:
    """Every key with a text, as "RealRAG_Credits.inputs.images.tooltip"."""
    found = set()
    for key, value in content.items():
        found |= (
            keys(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}"} if value.strip() else set()
        )
    return found


@pytest.mark.parametrize("language", [make_locales.ENGLISH, *make_locales.TRANSLATED])
def test_a_language_has_every_key_of_the_schemas_and_no_other(language):
    there = keys(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8")))
    wanted = keys(ENGLISH)
    assert sorted(wanted - there) == [], "translate these in tools/locales, then: python -m tools.make_locales"
    assert sorted(there - wanted) == [], "python -m tools.make_locales"


def test_the_files_are_those_that_the_script_writes():
    files = make_locales.files(declared())
    there = [*(ROOT / "locales").rglob("*.json"), *(ROOT / "web" / "words").rglob("*")]
    assert {path.relative_to(ROOT).as_posix() for path in there} == set(files)
    changed = [name for name, text in files.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert changed == [], "python -m tools.make_locales"


@every_language
def test_every_text_is_translated_and_no_translation_is_left_over(language):
    table = make_locales.table(language)
    assert make_locales.missing(ENGLISH, table) == []
    assert make_locales.stale(ENGLISH, table) == []


def test_a_text_that_changes_in_english_asks_to_be_translated_again():
    changed, table = copy.deepcopy(ENGLISH), make_locales.table("de")
    changed["RealRAG_Credits"]["inputs"]["images"]["tooltip"] = "Something else."
    assert make_locales.missing(changed, table) == ["texts: Something else."]
    assert len(make_locales.stale(changed, table)) == 1
    left_out = keys(ENGLISH) - keys(make_locales.translated(changed, table))
    assert left_out == {"RealRAG_Credits.inputs.images.tooltip"}


# What stands in a graph, on a disk or on a button, and is written the same in every language.
FIXED = re.compile(
    r"models/\w+|ComfyUI/[\w/]+|input/[\w/]+|(?<![\w.])\d+(?:\.\d+)?(?![\w])|\.(?:safetensors|bin|pt|zip)\b|[A-Z]\w*[A-Z0-9]\w*"
)
SPELLED_OTHERWISE = {"CFG", "IDs"}


@every_language
def test_numbers_paths_and_names_of_models_are_the_same_in_a_translation(language):
    table = make_locales.table(language)
    lost = []
    for english, text in table["texts"].items():
        for fixed in set(FIXED.findall(english)) - SPELLED_OTHERWISE:
            if fixed.removesuffix("s") not in text:
                lost.append(f"{fixed}: {text}")
    assert lost == []


def choices() -> set[str]:
    """The values of the nodes' lists, which the page shows as they are."""
    return {value for node in declared().values() for each in node["inputs"] if each["kind"] == "COMBO"
            for value in each.get("options", []) if re.fullmatch(r"[a-z][a-z ]+", str(value))}  # fmt: skip


@every_language
def test_a_value_that_a_text_explains_is_named_as_the_list_shows_it(language):
    table, lost = make_locales.table(language), []
    for english, text in table["texts"].items():
        explained = {
            value for value in choices() if re.search(rf"(?:^|[.;] |, ){re.escape(value)}(?:,[\w ]+)?:", english)
        }
        lost += [f"{value}: {text}" for value in explained if value not in text]
    assert lost == []


@every_language
def test_nodes_have_names_of_their_own_and_texts_end_as_sentences_do(language):
    table = make_locales.table(language)
    assert len(set(table["titles"].values())) == len(table["titles"])
    assert [text for text in table["texts"].values() if text[-1] not in ".。"] == []


SCRIPTS = sorted((ROOT / "web").glob("*.js"))
KEY = re.compile(r"""["'`]((?:library|fold|cards|drawing)\.\w+)["'`]""")


def test_every_word_of_the_page_has_its_key_and_every_key_is_used():
    used = {key for path in SCRIPTS for key in KEY.findall(path.read_text(encoding="utf-8"))}
    assert used == set(make_locales.page_words())


COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
ENGLISH_IN_QUOTES = re.compile(r"""["'`]([A-Z][a-z]+(?:[ ,:][^"'`]*)?)["'`]|`([a-z]{2,} \$\{)|\} (of|is|are|files?) """)
NO_WORDS = {"Show advanced inputs", "Arial"}  # the name of a widget, and a font


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_english_is_left_in_a_script_of_the_page(path):
    found = [hit[0] or hit[1] for hit in ENGLISH_IN_QUOTES.findall(COMMENT.sub("", path.read_text(encoding="utf-8")))]
    assert [words for words in found if words not in NO_WORDS] == []


@pytest.mark.parametrize("line", ['"Look"', "'Not all of them'", "`page ${page}`", "`${a} of ${b}`", '"For: it"'])
def test_the_check_knows_english(line):
    assert ENGLISH_IN_QUOTES.search(line)


@every_language
def test_a_translation_holds_the_same_values_as_the_english(language):
    table, held = make_locales.table(language)["page"], re.compile(r"\{\w+\}|ComfyUI/input|\.zip")
    changed = [text for english, text in table.items() if sorted(held.findall(english)) != sorted(held.findall(text))]
    assert changed == []


@every_language
def test_buttons_that_a_text_names_are_on_the_page(language):
    """ "Press Look, or Run": a translated sentence quotes the button's own translation."""
    table = make_locales.table(language)
    look, mask = table["page"]["Look"], table["page"]["Mask"]
    (empty,) = (text for english, text in table["page"].items() if english.startswith("Press Look"))
    (drawn,) = (text for english, text in table["texts"].items() if "as drawn with Mask" in english)
    assert look in empty and mask in drawn


def test_unreviewed_languages_are_marked():
    page = (ROOT / "locales" / "README.md").read_text()
    marked = dict(re.findall(r"^\| (\w\w) \| (not yet|yes)", page, re.MULTILINE))
    assert set(marked) == {make_locales.ENGLISH, *make_locales.TRANSLATED}
    assert marked["en"] == "yes"
