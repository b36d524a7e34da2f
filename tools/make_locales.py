"""Write `locales/`, which ComfyUI shows the nodes from, `web/words/`, the words of our own buttons and messages, and
`web/graph_words/`, those of the example graphs, in each language: python -m tools.make_locales

English comes from the nodes' own schemas, from the graphs, and for the page from `tools/locales/en.json`, by key. `tools/locales/LANGUAGE.json`
holds each English text with its translation, so a text that stands in several nodes is translated once, and a text that changes
in English asks to be translated again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from . import graph_words
from .graph_words import Graph, graphs

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "tools" / "locales"
DECLARED = ROOT / "tests" / "helpers" / "declared_nodes.py"
ENGLISH, TRANSLATED = "en", ("zh", "ja", "de", "fr", "es")


def english(declared: dict[str, dict]) -> dict[str, dict]:
    """What the nodes declare, in the form of a nodeDefs.json: node -> display_name, description, inputs, outputs."""
    return {name: _node(node) for name, node in sorted(declared.items())}


def _node(node: dict) -> dict:
    inputs = {each["id"]: _part(each) for each in node["inputs"]}
    outputs = {str(slot): _part(each) for slot, each in enumerate(node["outputs"])}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def _part(each: dict) -> dict:
    return {"name": each.get("display_name") or each["id"], "tooltip": each["tooltip"]}


def words(definitions: dict[str, dict], examples: tuple[Graph, ...]) -> dict[str, list[str]]:
    """All English that has to be translated, by section of a table, each once and in order."""
    titles: dict[str, None] = {}
    names: dict[str, None] = {}
    texts: dict[str, None] = {}
    for node in definitions.values():
        titles[node["display_name"]] = texts[node["description"]] = None
        for part in (*node["inputs"].values(), *node["outputs"].values()):
            names[part["name"]] = texts[part["tooltip"]] = None
    page = dict.fromkeys(page_words().values())
    found = {"titles": list(titles), "names": list(names), "texts": list(texts), "page": list(page)}
    return found | graph_words.words(examples)


def page_words() -> dict[str, str]:
    """The English words of web/*.js, by key; `{name}` stands for a value."""
    return table(ENGLISH)["page"]


def table(language: str) -> dict[str, dict[str, str]]:
    return json.loads((TABLES / f"{language}.json").read_text(encoding="utf-8"))


def missing(
    definitions: dict[str, dict], known: dict[str, dict[str, str]], examples: tuple[Graph, ...] | None = None
) -> list[str]:
    """The English texts that a table lacks, with their section. examples: the graphs; None takes those of workflows/."""
    return [
        f"{section}: {text}"
        for section, texts in words(definitions, graphs() if examples is None else examples).items()
        for text in texts
        if not known.get(section, {}).get(text, "").strip()
    ]


def stale(
    definitions: dict[str, dict], known: dict[str, dict[str, str]], examples: tuple[Graph, ...] | None = None
) -> list[str]:
    """The English texts of a table that no node and no graph says any more."""
    said = words(definitions, graphs() if examples is None else examples)
    return [f"{section}: {text}" for section, texts in known.items() for text in texts if text not in said[section]]


def translated(definitions: dict[str, dict], known: dict[str, dict[str, str]]) -> dict[str, dict]:
    """The same in another language; what its table lacks is left out, and the page shows it in English."""

    def part(each: dict) -> dict:
        found = {"name": known["names"].get(each["name"]), "tooltip": known["texts"].get(each["tooltip"])}
        return {key: text for key, text in found.items() if text}

    made = {}
    for name, node in definitions.items():
        title, text = known["titles"].get(node["display_name"]), known["texts"].get(node["description"])
        head = {key: value for key, value in (("display_name", title), ("description", text)) if value}
        parts = {side: {key: part(each) for key, each in node[side].items()} for side in ("inputs", "outputs")}
        made[name] = {**head, **parts}
    return made


def files(declared: dict[str, dict]) -> dict[str, str]:
    """The path of each file that is written here -> its content."""
    definitions = english(declared)
    nodes = {ENGLISH: definitions, **{language: translated(definitions, table(language)) for language in TRANSLATED}}
    page = {ENGLISH: page_words(), **{language: _page(table(language)) for language in TRANSLATED}}
    examples = {
        language: graph_words.translated(graphs(), table(language), unreviewed(language)) for language in TRANSLATED
    }
    return {
        **{f"locales/{language}/nodeDefs.json": _json(content) for language, content in nodes.items()},
        **{f"web/words/{language}.js": _module(content) for language, content in page.items()},
        **{f"web/graph_words/{language}.json": _json(content) for language, content in examples.items()},
    }


def unreviewed(language: str) -> str:
    """The last line of the help pages while nobody has reviewed the language, which says so; empty after that."""
    page = min((ROOT / "web" / "docs").glob(f"*/{language}.md"))
    last = page.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    return last if re.fullmatch(r"\*[^*]+[.。]\*", last) else ""


def _page(known: dict[str, dict[str, str]]) -> dict[str, str]:
    found = {key: known["page"].get(text, "") for key, text in page_words().items()}
    return {key: text for key, text in found.items() if text.strip()}


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _module(content: dict) -> str:
    return f"// Written by tools/make_locales.py from tools/locales.\nexport default {_json(content).rstrip()};\n"


def main() -> int:
    declared = json.loads(subprocess.run([sys.executable, str(DECLARED)], capture_output=True, check=True).stdout)
    for name, content in files(declared).items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for language in TRANSLATED:
        known = table(language)
        for what, found in (
            ("to be translated", missing(english(declared), known)),
            ("gone", stale(english(declared), known)),
        ):
            for text in found:
                print(f"tools/locales/{language}.json, {what}: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
