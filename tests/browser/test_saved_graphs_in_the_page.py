"""A graph that version 0.1.0 saved, in the page: each saved value is in the widget that it was saved from, and saved again there."""

from __future__ import annotations

import json

import pytest
from comfy_server import ROOT
from real_page import RealPage

SAVED = ROOT / "tests" / "data" / "saved-by-0.1.0"
# The widgets of version 0.1.0 in their order, by which a page hands out saved values.
WIDGETS = {
    "RealRAG_LoadRetriever": ["bundle", "head"],
    "RealRAG_RetrieveReferences": [
        "prompt", "top_k", "min_score", "diversity", "class_filter", "licence_filter", "include_ids", "exclude_ids",
    ],
    "RealRAG_LoadReferenceAdapter": ["adapter"],
    "RealRAG_LoadMiniature": ["family"],
    "RealRAG_InjectReferences": [
        "strength", "start_percent", "end_percent", "path", "downsampling", "preset", "combine", "profile",
        "custom_profile", "apply_to", "batch", "text_rows", "balance", "score_temperature",
    ],
}  # fmt: skip
# Values as no default is, so that a widget of another place is seen.
ODD = {
    "strength": 0.35, "start_percent": 0.15, "end_percent": 0.85, "path": "shared attention", "downsampling": 5, "combine": "sum",
    "custom_profile": "1, 0.5", "apply_to": "both", "batch": "cycle", "text_rows": False, "balance": 1.5,
    "score_temperature": 0.25, "top_k": 7, "min_score": 0.45, "diversity": 0.55, "class_filter": "lemon",
    "licence_filter": "MIT", "include_ids": "a", "exclude_ids": "b",
}  # fmt: skip
NODES = """() => app.graph.nodes.filter((node) => node.type.startsWith("RealRAG_")).map((node) => ({
    id: String(node.id), saved: node.serialize().widgets_values, size: Array.from(node.size),
    values: Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value ?? null])) }))"""
OPEN_AND_CLOSE = """() => { for (const node of app.graph.nodes)
    node.widgets?.find(({ name }) => name === "Show advanced inputs")?.callback?.(); }"""


@pytest.mark.parametrize("name", ["realrag_start_here", "realrag_controlnet_sd35"])
def test_each_saved_value_is_where_it_was_also_after_opening_and_closing_the_advanced_inputs(page: RealPage, name: str):
    graph = json.loads((SAVED / f"{name}.json").read_text())
    expected = {}
    for node in graph["nodes"]:
        if node["type"] in WIDGETS:
            names = WIDGETS[node["type"]]
            node["widgets_values"] = [
                ODD.get(n, value) for n, value in zip(names, node["widgets_values"], strict=False)
            ]
            expected[str(node["id"])] = dict(zip(names, node["widgets_values"], strict=False))
    page.load(graph)
    assert len(expected) >= 2
    first = page.evaluate(NODES)
    for _ in range(2):
        for node in page.evaluate(NODES):
            want = expected[str(node["id"])]
            assert {key: node["values"][key] for key in want} == want
            assert node["saved"][: len(want)] == list(want.values())
        page.evaluate(OPEN_AND_CLOSE)
    assert [node["size"] for node in page.evaluate(NODES)] == [node["size"] for node in first]
