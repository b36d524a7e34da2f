"""Every input has words, every node a help page, and every example graph holds what there is: without a ComfyUI."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import template_rules as rules
from declared_nodes import declared, in_order
from PIL import Image

from realrag_train.maintainer_tools import tool

ROOT = Path(__file__).parents[2]
HELP = ROOT / "web" / "docs"
make_workflows = tool("make_workflows")
NAMES = set(make_workflows.TEMPLATES)
GRAPHS = {name: json.loads((ROOT / "workflows" / f"{name}.json").read_text()) for name in sorted(NAMES)}
every_node = pytest.mark.parametrize(
    "node_id", sorted(page.stem for page in HELP.glob("*.md"))
)  # each has a page: below
every_graph = pytest.mark.parametrize("name", GRAPHS)


def silent(node: dict) -> list[str]:
    """Inputs and outputs without a tooltip, and what the node itself lacks."""
    missing = [word for word in ("display_name", "description", "category") if not node.get(word)]
    parts = [*node["inputs"], *node["outputs"]]
    return missing + [
        each["id"] for each in parts if not re.search(r"\w.*[.:?]$", each.get("tooltip") or "", re.DOTALL)
    ]


@every_node
def test_every_input_and_output_has_a_tooltip(node_id: str):
    node = declared()[node_id]
    assert silent(node) == []
    for part in ("inputs", "outputs"):
        broken = copy.deepcopy(node)
        if broken[part]:
            broken[part][-1].pop("tooltip")
            assert silent(broken) == [broken[part][-1]["id"]]


def unexplained(node: dict, page: str) -> list[str]:
    """Inputs and outputs that a help page does not name in bold."""
    bold = set(re.findall(r"\*\*(\w+)\*\*", page))
    return [each["id"] for each in [*node["inputs"], *node["outputs"]] if each["id"] not in bold]


@every_node
def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(node_id: str):
    node, page = declared()[node_id], (HELP / f"{node_id}.md").read_text()
    assert page.startswith(f"# {node['display_name']}\n")
    assert unexplained(node, page) == []
    first = in_order(node)[0]["id"]
    assert first in unexplained(node, page.replace(f"**{first}**", first))


def test_no_help_page_is_left_of_a_node_that_is_gone():
    assert {page.stem for page in HELP.glob("*.md")} == set(declared())


def test_the_graphs_are_those_that_are_listed_each_with_a_name_words_and_a_small_picture():
    assert {path.stem for path in (ROOT / "workflows").glob("*.json")} == NAMES
    assert {path.stem for path in (ROOT / "workflows").glob("*.jpg")} == NAMES and len(NAMES) >= 12
    for name, template in make_workflows.TEMPLATES.items():
        info = GRAPHS[name]["extra"]["info"]
        assert (info["name"], info["description"]) == (template.title, template.description)
        assert re.fullmatch(r"[A-Z].{20,110}\.", template.description)
        with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
            assert picture.format == "JPEG" and picture.size == (400, 400)
        assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size <= 25_000
    titles = [template.title for template in make_workflows.TEMPLATES.values()]
    assert len(set(titles)) == len(titles)


def test_an_artist_meets_the_graphs_in_order():
    """First what runs at once and one's own photos, then a graph for each model, then what else the nodes can do."""
    order = list(make_workflows.TEMPLATES)
    assert order[:2] == ["RealRAG 01 Start here", "RealRAG 02 Your own photos"]
    assert [name for name in order if "ControlNet" in name] == order[-3:]
    runs_at_once = [
        name for name, graph in GRAPHS.items() if "Nothing to download." in graph["extra"]["info"]["description"]
    ]
    for name, graph in GRAPHS.items():
        mini = any(node["type"] == "RealRAG_LoadMiniature" for node in graph["nodes"])
        assert mini == (name in runs_at_once), name


@every_graph
def test_a_graph_holds_nodes_widgets_models_and_notes_that_are_there(name: str):
    graph, known = GRAPHS[name], make_workflows.KNOWN
    assert rules.nodes_and_widgets(graph) == []
    assert rules.models(graph, known) == []
    assert rules.notes(graph, NAMES) == []
    assert rules.reports(graph) == []
    assert rules.overlaps(graph) == []


FLUX = "RealRAG 03 Flux with XLabs"


def broken(name: str, kind: str, **changes) -> dict:
    graph = copy.deepcopy(GRAPHS[name])
    next(node for node in graph["nodes"] if node["type"] == kind).update(changes)
    return graph


def test_a_graph_that_is_broken_is_found_out():
    inject, flux = "RealRAG_InjectReferences", GRAPHS[FLUX]
    values = next(node for node in flux["nodes"] if node["type"] == inject)["widgets_values"]
    for changes in (
        {"type": "RealRAG_Gone"}, {"widgets_values": values[:-1]}, {"widgets_values": [9.0, *values[1:]]},
        {"widgets_values": [*values[:3], "no such path", *values[4:]]}, {"outputs": []},
        {"inputs": [{"name": "gone", "type": "MODEL", "link": None}]},
    ):  # fmt: skip
        assert rules.nodes_and_widgets(broken(FLUX, inject, **changes)), changes
    known = make_workflows.KNOWN
    assert rules.models(broken(FLUX, "VAELoader", widgets_values=["gone.safetensors"]), known)
    assert rules.models(broken(FLUX, "VAELoader", properties={}), known)
    assert rules.models(broken("RealRAG 08 SD3.5 with InstantX", "MarkdownNote", widgets_values=["nothing"]), known)
    for text in ("| a | b |", "<b>bold</b>", "see *RealRAG 03 Flux with Nobody*"):
        assert rules.notes(broken(FLUX, "MarkdownNote", widgets_values=[text]), NAMES), text
    assert rules.reports(broken(FLUX, "PreviewAny", type="PreviewImage")) == []  # that shows the credits
    assert rules.reports(broken(FLUX, inject, outputs=[{"name": "report", "links": []}]))
    assert rules.reports(broken(FLUX, "SaveImage", title=""))
    assert rules.overlaps(broken(FLUX, inject, pos=[0, 100]))


def test_the_readme_names_the_files_that_the_graphs_ask_for():
    """Those of the table of adapters and vision models; a file may be called otherwise where it is fetched."""
    readme = (ROOT / "README.md").read_text()
    table = {file: folder for file, folder in re.findall(r"\| `([\w.-]+\.\w+)`[^|]*\|[^|]*\| `(\w+)` \|", readme)}
    assert len(table) >= 4
    for file, folder in table.items():
        assert make_workflows.KNOWN[file]["directory"] == folder, file


@every_graph
def test_no_graph_sends_the_words_of_style_into_the_search_by_a_wire(name: str):
    """look_for is a box of the node itself, empty unless the graph is about several objects or one part of the prompt."""
    found = next(node for node in GRAPHS[name]["nodes"] if node["type"] == "RealRAG_RetrieveReferences")
    assert "look_for" not in {slot["name"] for slot in found["inputs"]}


def test_the_graph_to_start_with_asks_for_what_the_miniatures_were_never_shown():
    unseen = (ROOT / "train" / "miniature" / "held_out.txt").read_text().splitlines()
    assert {"garlic", "lemon", "mango", "red beet"} <= set(unseen) and '"a photo of garlic"' in json.dumps(
        GRAPHS["RealRAG 01 Start here"]
    )
    assert not {"conference", "red bell pepper", "pear", "red pepper"} & set(unseen)


def test_the_graph_to_start_with_fits_a_small_screen_at_readable_size():
    """1366 x 768 pixels, of which the page takes 58 on the left, 76 above and 8 below."""
    graph = GRAPHS["RealRAG 01 Start here"]
    scale, (left, top) = graph["extra"]["ds"]["scale"], graph["extra"]["ds"]["offset"]
    right = max(node["pos"][0] + node["size"][0] for node in graph["nodes"])
    below = max(node["pos"][1] + (0 if node["flags"].get("collapsed") else node["size"][1]) for node in graph["nodes"])
    assert scale > 0.6
    assert left * scale >= 58 and top * scale >= 76
    assert (left + right) * scale <= 1366 and (top + below) * scale <= 760
