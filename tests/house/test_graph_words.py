"""The example graphs in other languages: each note, title and group is translated, says as much as the English, and calls nodes,
inputs and buttons as the page does."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from declared_nodes import declared

from realrag_train.maintainer_tools import tool

ROOT = Path(__file__).parents[2]
make_locales, graph_words = tool("make_locales"), tool("graph_words")
GRAPHS = graph_words.graphs()
every_language = pytest.mark.parametrize("language", make_locales.TRANSLATED)
every_graph = pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)


@cache
def english() -> dict[str, dict]:
    """The English words of every node."""
    return make_locales.english(declared())


def shown(language: str) -> dict:
    """What the page gets."""
    return json.loads((ROOT / "web" / "graph_words" / f"{language}.json").read_text(encoding="utf-8"))


def body(note: str, language: str) -> str:
    """All but the line which says that nobody has reviewed it."""
    return note.removesuffix(make_locales.unreviewed(language) + "\n").rstrip() + "\n"


def shape(note: str) -> dict:
    """What is the same in every language."""
    lines = note.strip().splitlines()
    return {
        "paragraphs": len(re.findall(r"\n\s*\n", note.strip())),
        "numbered points": [line.split(".")[0] for line in lines if re.match(r"\d+\. ", line)],
        "bullet points": sum(line.startswith("- ") for line in lines),
        "bold": note.count("**"),
        "code": sorted(re.findall(r"`[^`]+`", note)),
        "links": sorted(re.findall(r"\[[^\]]+\]\([^)\s]+\)", note)),
        "numbers": sorted(re.findall(r"\d+(?:\.\d+)?", note)),
        "keys": sorted(re.findall(r"Ctrl\+\w|\*\*R\*\*", note)),
        "graphs": sorted(re.findall(r"RealRAG \d\d (?:[A-Z][\w.]*|with|your|own|here|photos|adapter| )+", note)),
    }


# Names that the translation has from the page itself: those of ComfyUI's own nodes and what an artist types.
THE_PAGES = {"Load Image", "Apply ControlNet", "Canny", "cfg", "image 1", "image 2"}


def unnamed(note: str, translated: str, table: dict) -> list[str]:
    """What the English calls by a name, in italics, and the translation does not call by the name it has in the language."""
    names = {**table["names"], **table[graph_words.TITLES], **table["titles"]}
    foreign = re.compile(r"[^.\n]*Apply ControlNet[^.\n]*")  # its inputs are not ours
    called = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", foreign.sub("", " ".join(note.split())))
    own = [name for name in called if name not in THE_PAGES and not name.startswith("RealRAG ")]
    assert [name for name in own if name not in names] == []
    return [name for name in own if names[name] not in translated]


@every_language
def test_every_graph_is_there_with_its_note_and_all_its_titles(language):
    there = shown(language)
    assert {name: english for name, (english, _) in there["notes"].items()} == {each.name: each.note for each in GRAPHS}
    for kind, wanted in (
        ("titles", {text for each in GRAPHS for text in each.titles}),
        ("groups", {text for each in GRAPHS for text in each.groups}),
    ):
        assert set(there[kind]) == wanted
        assert len(set(there[kind].values())) == len(wanted), "two English texts are one"


@every_language
@every_graph
def test_a_note_says_as_much_as_the_english(graph, language):
    translated = body(shown(language)["notes"][graph.name][1], language)
    assert shape(translated) == shape(graph.note)
    assert unnamed(graph.note, translated, make_locales.table(language)) == []


# The page's button, as the help pages call it.
RUN = {"zh": "运行", "ja": "実行", "de": "Ausführen", "fr": "Exécuter", "es": "Ejecutar"}


@every_language
def test_the_button_is_called_as_the_help_pages_call_it(language):
    assert RUN[language] in (ROOT / "web/docs/RealRAG_RetrieveReferences" / f"{language}.md").read_text(
        encoding="utf-8"
    )
    for graph in GRAPHS:
        translated = shown(language)["notes"][graph.name][1]
        assert translated.count(f"**{RUN[language]}**") == graph.note.count("**Run**")


@every_language
def test_titles_keep_numbers_and_the_names_of_models(language):
    kept = re.compile(r"^\d  |\||FLUX\.2|Flux|Kontext|SDXL|Stable Diffusion")
    table = make_locales.table(language)
    texts = {**table[graph_words.TITLES], **table[graph_words.GROUPS]}
    assert [text for english, text in texts.items() if kept.findall(english) != kept.findall(text)] == []


@every_language
def test_a_note_that_nobody_has_reviewed_says_so_as_the_help_pages_do(language):
    line = make_locales.unreviewed(language)
    for _, note in shown(language)["notes"].values():
        assert note.endswith(f"\n\n{line}\n") if line else not re.search(r"\n\*[^*\n]+\*\n$", note)
    page = (ROOT / "locales" / "README.md").read_text(encoding="utf-8")
    assert bool(line) == (f"| {language} | not yet |" in page)


def test_a_note_or_title_that_changes_in_english_asks_to_be_translated_again():
    table = make_locales.table("de")
    first = GRAPHS[0]
    old = list(graph_words.blocks(first.note))[1][0]  # the second paragraph is of this graph alone
    note = "\n\n".join("\n".join(part) for part in graph_words.blocks(first.note)).replace(old, f"{old} More.")
    titled = replace(first, note=note, titles=("Something else", *first.titles), groups=("4  More", *first.groups))
    changed = (titled, *GRAPHS[1:])
    assert make_locales.missing(english(), table, changed) == [
        f"graph notes: {old} More.",
        "graph titles: Something else",
        "graph groups: 4  More",
    ]
    assert make_locales.stale(english(), table, changed) == [f"graph notes: {old}"]
    left = graph_words.translated(changed, table, "")
    assert set(left["notes"]) == {each.name for each in GRAPHS[1:]}, "a graph is in one language, whole"
    assert make_locales.missing(english(), table, GRAPHS[1:]) == []
    assert make_locales.stale(english(), table, GRAPHS[1:]) != []


def test_a_file_to_get_is_written_once_for_all_graphs():
    line = "- [a.bin](https://example.org/a) in `models/x`, saved under this name (there: `b.bin`)"
    found, values = graph_words.pattern(line)
    assert found == "- {file} in {folder}, saved under this name (there: {name})"
    assert values == {"file": "[a.bin](https://example.org/a)", "folder": "`models/x`", "name": "`b.bin`"}
    assert graph_words.pattern("- a file in a folder") == ("- a file in a folder", {})


def test_a_note_is_put_together_as_it_was_taken_apart():
    for graph in GRAPHS:
        parts = ["\n".join(part) for part in graph_words.blocks(graph.note)]
        assert " ".join("\n\n".join(parts).split()) == " ".join(graph.note.split())
        assert shape("\n\n".join(parts)) == shape(graph.note)


@pytest.mark.parametrize(
    "change, noticed",
    [
        (lambda note: note.replace("1. Choose", "Choose"), "numbered points"),
        (lambda note: note.replace("\n- [ip", "\n[ip"), "bullet points"),
        (lambda note: note.replace("**Needs**", "Needs"), "bold"),
        (lambda note: note.replace("`models/clip_vision`", "models/clip_vision"), "code"),
        (lambda note: note.replace("XLabs-AI/flux-ip-adapter-v2", "XLabs-AI/flux"), "links"),
        (lambda note: note.replace("0.2", "0.3"), "numbers"),
        (lambda note: note.replace("Ctrl+M", "Ctrl+B"), "keys"),
        (lambda note: note.replace("RealRAG 09 No adapter", "RealRAG 09 Ohne Adapter"), "graphs"),
        (lambda note: f"{note}\n\nMore.\n", "paragraphs"),
    ],
)
def test_a_change_is_noticed(change, noticed):
    (note,) = (each.note for each in GRAPHS if each.name == "Flux with XLabs")
    assert change(note) != note
    assert shape(change(note))[noticed] != shape(note)[noticed]


def test_a_name_that_a_translation_leaves_out_is_noticed():
    table, french = make_locales.table("fr"), shown("fr")["notes"]["Flux with XLabs"]
    assert unnamed(french[0], french[1].replace("*force*", "l'effet"), table) == ["strength"]
    assert unnamed(french[0], french[1].replace("*Sans références*", "*Without references*"), table) == [
        "Without references"
    ]


def test_the_script_knows_the_languages_that_have_a_file():
    script = (ROOT / "web" / "graph_words.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"LANGUAGES = new Set\((\[[^\]]+\])\)", script)
    assert set(json.loads(listed)) == set(make_locales.TRANSLATED)
    # The page runs every script below web/, in each language: what only one of them needs is no script.
    assert {path.suffix for path in (ROOT / "web" / "graph_words").iterdir()} == {".json"}


@every_graph
def test_a_graph_as_it_ships_has_no_mark_of_a_page_that_saved_it(graph):
    (workflow,) = (
        made
        for path in (ROOT / "workflows").glob("*.json")
        for made in [json.loads(path.read_text(encoding="utf-8"))]
        if made["extra"]["info"]["name"] == graph.name
    )
    assert "frontendVersion" not in workflow["extra"]
    slots = [slot for node in workflow["nodes"] for slot in (*node.get("inputs", ()), *node.get("outputs", ()))]
    assert slots and not [slot for slot in slots if "localized_name" in slot]
