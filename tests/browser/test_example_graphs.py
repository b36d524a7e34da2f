"""Every example graph in a real page: it opens as it ships with nothing overlapping, and it runs with tiny models in the places
of its loaders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from comfy_server import ROOT
from real_page import RealPage
from tiny_graph import kind_of, put_files, tiny

from realrag_train.maintainer_tools import tool

TEMPLATES = tool("make_workflows").TEMPLATES
# Where each node lies on the canvas, title included, as the renderer of this page has it.
BOXES = """() => app.graph.nodes.map((node) => {
    const { scale, offset } = app.canvas.ds;
    const place = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    if (!LiteGraph.vueNodesMode || !place) return { title: node.title, box: Array.from(node.boundingRect) };
    const canvas = app.canvas.canvas.getBoundingClientRect();
    const [left, top] = [(place.x - canvas.x) / scale - offset[0], (place.y - canvas.y) / scale - offset[1]];
    return { title: node.title, box: [left, top, place.width / scale, place.height / scale] };
})"""
# The texts that a page draws itself stay readable above this zoom: below it, classic draws blank boxes.
READABLE = 0.6


@pytest.fixture
def graph(request, page: RealPage) -> dict:
    name = request.getfixturevalue("name")
    required = TEMPLATES[name].requires
    if required and not page.server.json(f"/object_info/{required}"):
        pytest.skip("this ComfyUI is older than the model that the graph is for")
    if not (page.server.base / "input" / "birds").is_dir():
        put_files(page.server.base)
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text())


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where the screenshots go: REALRAG_SHOTS, to look at them."""
    folder = Path(os.environ.get("REALRAG_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def overlaps(boxes: list[dict], spare: float = 2) -> list[str]:
    """Nodes that lie on each other by more than two pixels."""
    found = []
    for number, one in enumerate(boxes):
        left, top, width, height = one["box"]
        for other in boxes[number + 1 :]:
            x, y, w, h = other["box"]
            if min(left + width, x + w) - max(left, x) > spare and min(top + height, y + h) - max(top, y) > spare:
                found.append(f"{one['title']} lies on {other['title']}")
    return found


def pictures(page: RealPage) -> list[str]:
    """The titles of the nodes that show a picture."""
    return page.evaluate("() => app.graph.nodes.filter((node) => node.imgs?.length || app.nodeOutputs[node.id]?.images)"
                         ".map((node) => node.title)")  # fmt: skip


def texts(page: RealPage) -> dict[str, str]:
    """What the nodes that show a text show, by their titles."""
    return page.evaluate("""() => Object.fromEntries(app.graph.nodes.filter((node) => node.type === "PreviewAny")
        .map((node) => [node.title, String(app.nodeOutputs[node.id]?.text?.[0] ?? "")]))""")


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_opens_as_it_ships_and_runs_with_tiny_models(page: RealPage, name: str, graph: dict, shots: Path):
    page.load(graph)
    shown = page.evaluate(BOXES)
    assert len(shown) == len(graph["nodes"]) and overlaps(shown) == []
    page.screenshot(shots / f"{name}-{page.version}-{'nodes2' if page.nodes2 else 'classic'}-open.png")
    page.clear()
    page.load(tiny(graph))
    page.run()
    assert overlaps(page.evaluate(BOXES)) == []
    page.screenshot(shots / f"{name}-{page.version}-{'nodes2' if page.nodes2 else 'classic'}-run.png")
    painted = {node["title"] for node in graph["nodes"] if node["type"] == "SaveImage" and node["mode"] == 0}
    assert painted | {"Retrieve Real References"} <= set(pictures(page))
    found = texts(page)
    assert all(found.values()), found
    if "Report" in found and "RealRAG_InjectReferences" in {node["type"] for node in graph["nodes"]}:
        assert "Path: " in found["Report"] and "passes through unchanged" not in found["Report"]


def test_the_graphs_that_need_nothing_run_as_they_ship():
    """`tiny` changes nothing in them but the artist's folder of photos."""
    unchanged = []
    for name in TEMPLATES:
        graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
        if not kind_of(graph):
            unchanged.append(name)
            assert [node for node in tiny(graph)["nodes"] if node["type"] != "RealRAG_BuildLibrary"] == [
                node for node in graph["nodes"] if node["type"] != "RealRAG_BuildLibrary"
            ]
    assert {"RealRAG 01 Start here", "RealRAG 02 Your own photos", "RealRAG 14 Reference packs"} <= set(
        unchanged
    ) and len(unchanged) == 6


@pytest.mark.parametrize(
    "name, width, height", [(name, *((1366, 768) if name < "RealRAG 03" else (1920, 1080))) for name in TEMPLATES]
)
def test_a_graph_that_the_templates_dialog_opens_is_readable(
    page: RealPage, name: str, width: int, height: int, graph: dict
):
    """The dialog ignores the zoom that a graph was saved with: it fits the graph to the page. The first two graphs are
    readable on a small screen, the others on a common one. Nodes 2.0 draws text at every zoom."""
    if page.nodes2:
        pytest.skip("only classic draws blank boxes")
    before = page.page.viewport_size
    page.page.set_viewport_size({"width": width, "height": height})
    page.evaluate("async (name) => app.loadGraphData("
                  "await (await app.api.fetchApi(`/workflow_templates/realrag/${name}.json`)).json(),"
                  " true, true, name, { openSource: 'template' })", name)  # fmt: skip
    page.page.wait_for_timeout(1000)
    scale = page.evaluate("() => app.canvas.ds.scale")
    page.page.set_viewport_size(before)
    assert scale > READABLE
