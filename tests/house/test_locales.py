"""The words of the nodes and of the page in other languages: no text is missing, none is left over, and the files are those that
the script writes."""

import copy
import json
import re
from functools import cache
from pathlib import Path

import pytest
from declared_nodes import declared

from realrag_train.maintainer_tools import tool

ROOT = Path(__file__).parents[2]
make_locales = tool("make_locales")
every_language = pytest.mark.parametrize("language", make_locales.TRANSLATED)


@cache
def english() -> dict[str, dict]:
    """The English words of every node."""
    return make_locales.english(declared())


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
    wanted = keys(english())
    assert sorted(wanted - there) == [], "translate these in tools/locales, then: python -m tools.make_locales"
    assert sorted(there - wanted) == [], "python -m tools.make_locales"


def test_the_files_are_those_that_the_script_writes():
    files = make_locales.files(declared())
    there = [path for folder in ("words", "graph_words") for path in (ROOT / "web" / folder).rglob("*")]
    there += (ROOT / "locales").rglob("*.json")
    assert {path.relative_to(ROOT).as_posix() for path in there} == set(files)
    changed = [name for name, text in files.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert changed == [], "python -m tools.make_locales"


@every_language
def test_every_text_is_translated_and_no_translation_is_left_over(language):
    table = make_locales.table(language)
    assert make_locales.missing(english(), table) == []
    assert make_locales.stale(english(), table) == []


def test_a_text_that_changes_in_english_asks_to_be_translated_again():
    changed, table = copy.deepcopy(english()), make_locales.table("de")
    changed["RealRAG_Credits"]["inputs"]["images"]["tooltip"] = "Something else."
    assert make_locales.missing(changed, table) == ["texts: Something else."]
    assert len(make_locales.stale(changed, table)) == 1
    left_out = keys(english()) - keys(make_locales.translated(changed, table))
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


HELP = sorted((ROOT / "web" / "docs").glob("*.md"))
every_page = pytest.mark.parametrize("page", HELP, ids=lambda page: page.stem)


def in_language(page: Path, language: str) -> str:
    """The page as ComfyUI looks for it first: docs/NODE/LANGUAGE.md, before docs/NODE.md."""
    return (page.parent / page.stem / f"{language}.md").read_text(encoding="utf-8")


def reviewed() -> dict[str, bool]:
    """Language -> whether locales/README.md says that a native speaker has reviewed it."""
    page = (ROOT / "locales" / "README.md").read_text(encoding="utf-8")
    return {each: answer == "yes" for each, answer in re.findall(r"^\| (\w\w) \| (not yet|yes)", page, re.MULTILINE)}


def body(translated: str, language: str) -> str:
    """All but the last line of a page that nobody has reviewed, which says so."""
    return translated if reviewed()[language] else translated.rstrip().rpartition("\n\n")[0] + "\n"


def shape(page: str) -> dict:
    """What is the same in every language: how many there are of some things, and what others say."""
    lines = page.splitlines()
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    return {
        "headings": [len(line.split()[0]) for line in lines if line.startswith("#")],
        "bullet points": sum(line.startswith("- ") for line in lines),
        "numbered points": re.findall(r"^ *(\d+)\.(?= |$)", page, re.MULTILINE),
        "rows of tables": [line.count("|") for line in lines if line.startswith("|")],
        "blocks of code": fence.findall(page),
        "code": sorted(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", fence.sub("", page))),
        "links": sorted(re.findall(r"\]\(([^)\s]+)\)", page)),
        "numbers": sorted(re.findall(r"\d+(?:\.\d+)?", page)),
    }


def unnamed(page: str, translated: str, table: dict) -> list[str]:
    """Inputs and outputs that the English has in bold and the translation has not, and nodes that only one of both names."""
    bold = set(re.findall(r"\*\*([^*\n]+)\*\*", translated))
    lost = [
        name
        for name in re.findall(r"\*\*(\w+)\*\*", page)
        if name in table["names"] and table["names"][name] not in bold
    ]
    flat, own = " ".join(page.split()), " ".join(translated.split())
    return lost + [title for title, there in table["titles"].items() if (title in flat) != (there in own)]


@every_language
@every_page
def test_a_help_page_is_there_and_says_as_much_as_the_english(page, language):
    english, translated = page.read_text(encoding="utf-8"), in_language(page, language)
    table = make_locales.table(language)
    assert shape(body(translated, language)) == shape(english)
    assert unnamed(english, translated, table) == []
    title = english.partition("\n")[0].removeprefix("# ")
    assert translated.startswith(f"# {table['titles'][title]}\n")


def test_no_help_page_is_left_of_a_page_or_language_that_is_gone():
    there = {path.relative_to(ROOT / "web" / "docs").as_posix() for path in (ROOT / "web" / "docs").glob("*/*")}
    assert there == {f"{page.stem}/{each}.md" for page in HELP for each in make_locales.TRANSLATED}


# English sentence or page -> the buttons that it names
NAMED = {
    "RealRAG_RetrieveReferences": ("Look", "Pin", "Ban", "Mask", "Left", "Right", "Top", "Bottom"),
    "RealRAG_InjectReferences": ("Show advanced inputs",),
    "Press Look, or Run, to see the photos here.": ("Look",),
    "Where in the new picture single photos count, as drawn with Mask on their cards.": ("Mask",),
}


@every_language
@pytest.mark.parametrize("where", NAMED)
def test_a_button_is_named_as_the_page_shows_it(where, language):
    table = make_locales.table(language)
    page = ROOT / "web" / "docs" / f"{where}.md"
    if page.is_file():
        english, translated = page.read_text(encoding="utf-8"), in_language(page, language)
    else:
        english, translated = where, {**table["texts"], **table["page"]}[where]
    assert [button for button in NAMED[where] if button not in english] == []
    assert [button for button in NAMED[where] if table["page"][button] not in translated] == []


@every_language
def test_a_help_page_that_nobody_has_reviewed_says_so_at_its_end(language):
    last = {in_language(page, language).rstrip().rpartition("\n\n")[2] for page in HELP}
    marked = len(last) == 1 and re.fullmatch(r"\*[^*\n]+[.。]\*", last.pop()) is not None
    assert marked != reviewed()[language], "one line, the same on every page, until locales/README.md says yes"


@pytest.mark.parametrize(
    "change, noticed",
    [
        (lambda page: page.replace("## ", "**", 1), "headings"),
        (lambda page: page.replace("\n- **page**", "\n**page**"), "bullet points"),
        (lambda page: page.replace("`keep`", "keep", 1), "code"),
        (lambda page: page.replace("64 x 64", "32 x 32"), "numbers"),
        (lambda page: f"{page}[more](docs/photos.md)\n", "links"),
        (lambda page: f"{page}```\nrealrag demo\n```\n", "blocks of code"),
        (lambda page: f"{page}| a | b |\n", "rows of tables"),
        (lambda page: f"{page}1. More.\n", "numbered points"),
    ],
)
def test_a_change_of_the_english_page_is_noticed(change, noticed):
    page = (ROOT / "web" / "docs" / "RealRAG_RetrieveReferences.md").read_text(encoding="utf-8")
    assert change(page) != page
    assert shape(change(page))[noticed] != shape(page)[noticed]


def test_an_input_or_a_node_that_a_translation_leaves_out_is_noticed():
    table, page = make_locales.table("fr"), ROOT / "web" / "docs" / "RealRAG_RetrieveReferences.md"
    english, french = page.read_text(encoding="utf-8"), in_language(page, "fr")
    assert unnamed(english, french.replace("**diversité**", "diversité"), table) == ["diversity"]
    assert unnamed(english, french.replace("Modifier les références", "le node"), table) == ["Edit References"]


def test_unreviewed_languages_are_marked():
    assert set(reviewed()) == {make_locales.ENGLISH, *make_locales.TRANSLATED}
    assert reviewed()["en"]
