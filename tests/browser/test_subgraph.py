"""The subgraph that the pack offers as a node: the page takes it, and it finds photos and lets a model see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfy_server import COMFYUI, ROOT
from real_page import RealPage

NAME = "Find and inject real photos"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
WIDGETS = {"bundle", "look_for", "top_k", "strength", "preset"}
# The miniature before it, its report shown behind it, and what it is asked for.
CONNECT = """(name) => {
    const node = app.graph.nodes.find(({ title }) => title === name);
    const add = (kind) => { const made = LiteGraph.createNode(kind); app.graph.add(made); return made; };
    const slot = (list, wanted) => list.findIndex((each) => each.name === wanted);
    const [mini, prompt] = [add("RealRAG_LoadMiniature"), add("PrimitiveStringMultiline")];
    prompt.widgets[0].value = "a photo of garlic";
    for (const part of ["model", "vae"]) mini.connect(slot(mini.outputs, part), node, slot(node.inputs, part));
    prompt.connect(0, node, slot(node.inputs, "prompt"));
    for (const part of ["report", "credits"]) {
        const shown = add("PreviewAny"); shown.title = part; node.connect(slot(node.outputs, part), shown, 0);
    }
    return node.widgets.map((widget) => widget.name);
}"""
TEXTS = """() => Object.fromEntries(app.graph.nodes.filter(({ type }) => type === "PreviewAny")
    .map((node) => [node.title, app.nodeOutputs[node.id]?.text?.[0] ?? ""]))"""


pytestmark = pytest.mark.skipif(
    not (Path(COMFYUI or "") / "app" / "subgraph_manager.py").is_file(),
    reason="this ComfyUI offers no subgraphs of packs",
)


def test_the_server_offers_it(page: RealPage):
    offered = {entry["name"]: key for key, entry in page.server.json("/global_subgraphs").items()}
    assert json.loads(page.server.json(f"/global_subgraphs/{offered[NAME]}")["data"]) == json.loads(FILE.read_text())


def test_it_finds_photos_and_lets_a_model_see_them(page: RealPage):
    page.load(json.loads(FILE.read_text()))
    assert set(page.evaluate(CONNECT, NAME)) >= WIDGETS
    page.run()
    shown = page.evaluate(TEXTS)
    assert "Path: shared attention" in shown["report"] and "Garlic" in shown["credits"], shown
