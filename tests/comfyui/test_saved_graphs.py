"""Graphs saved by version 0.1.0 still fit: inputs and outputs are only ever added, after those that were there."""

import json

import pytest
from comfy_server import ROOT, Server

from realrag_train.maintainer_tools import tool

WIDGETS = tool("make_workflows").WIDGETS

SAVED = ROOT / "tests" / "data" / "saved-by-0.1.0"


@pytest.mark.parametrize("name", ["realrag_start_here", "realrag_controlnet_sd35"])
def test_a_saved_graph_finds_its_nodes_inputs_and_outputs(server: Server, name: str):
    info = server.json("/object_info")
    ours = [node for node in json.loads((SAVED / f"{name}.json").read_text())["nodes"] if "RealRAG" in node["type"]]
    assert len(ours) >= 2
    for node in ours:
        known = info[node["type"]]
        inputs = {**known["input"].get("required", {}), **known["input"].get("optional", {})}
        widgets = []
        for key, (kind, *options) in inputs.items():
            options = options[0] if options else {}
            if (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
                widgets += [(key, kind)] + [(key, "COMBO")] * bool(options.get("control_after_generate"))
        assert len(node["widgets_values"]) <= len(widgets), node["type"]
        for (key, kind), value in zip(widgets, node["widgets_values"], strict=False):  # new widgets keep their defaults
            right = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}.get(str(kind), str)
            assert isinstance(value, right), (node["type"], key)
        assert {socket["name"] for socket in node["inputs"]} <= set(inputs)
        was = [output["type"] for output in node["outputs"]]
        assert known["output"][: len(was)] == was, node["type"]
