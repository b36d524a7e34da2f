"""The example graphs fit this ComfyUI: nodes known, widgets and links right, and the script still writes them."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from comfy_server import ROOT, Server
from PIL import Image

from realrag_train.maintainer_tools import tool

FRONTEND_ONLY = {"MarkdownNote"}
make_workflows = tool("make_workflows")


@pytest.fixture(scope="module", params=make_workflows.TEMPLATES)
def name(request, server: Server) -> str:
    required = make_workflows.TEMPLATES[request.param].requires
    if required and not server.json(f"/object_info/{required}"):
        pytest.skip("this ComfyUI is older than the model that the graph is for")
    return request.param


@pytest.fixture
def workflow(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text())


def test_the_graphs_are_what_the_script_writes(server: Server, name: str, workflow: dict):
    assert make_workflows.workflow(name, server.json("/object_info")) == workflow


def test_every_node_is_known_and_has_its_widgets(server: Server, workflow: dict):
    info = server.json("/object_info")
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        known = info[node["type"]]
        inputs = {**known["input"].get("required", {}), **known["input"].get("optional", {})}
        widgets = []
        for key, (kind, *options) in inputs.items():
            options = options[0] if options else {}
            if (isinstance(kind, list) or kind in make_workflows.WIDGETS) and not options.get("forceInput"):
                more = ("control_after_generate", "image_upload")
                widgets += [key, *(word for word in more if options.get(word))]
        values = node["widgets_values"]
        assert len(values) == len(widgets), node["type"]
        assert {socket["name"] for socket in node["inputs"]} <= set(inputs)
        for key, value in zip(widgets, values, strict=True):
            kind = str(inputs.get(key, ["STRING"])[0])
            right = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}.get(kind, str)
            assert isinstance(value, right), (node["type"], key)


def test_links_join_sockets_of_one_type(workflow: dict):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for identity, source, output, target, slot, kind in workflow["links"]:
        out, into = nodes[source]["outputs"][output], nodes[target]["inputs"][slot]
        assert identity in out["links"] and into["link"] == identity
        assert (kind == into["type"] and out["type"] in (kind, "*")) or kind == "*"


def test_our_nodes_say_where_they_come_from_and_loaders_where_their_models_are(workflow: dict):
    for node in workflow["nodes"]:
        properties = node["properties"]
        if node["type"].startswith("RealRAG_"):
            assert properties["cnr_id"] == "realrag" and properties["ver"] == make_workflows.VERSION
        for model in properties.get("models", ()):
            assert model["url"].startswith("https://") and model["url"].endswith(".safetensors")
            assert model["name"] in node["widgets_values"] and model["directory"]


def test_each_graph_has_a_thumbnail(name: str):
    with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
        assert picture.format == "JPEG" and picture.size == (400, 400)
    assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size <= 25_000


def test_comfyui_offers_the_graph_with_its_thumbnail(server: Server, name: str, workflow: dict):
    assert name in server.json("/workflow_templates")["realrag"]
    assert server.json(f"/api/workflow_templates/realrag/{quote(name)}.json") == workflow
    assert server.get(f"/api/workflow_templates/realrag/{quote(name)}.jpg").startswith(b"\xff\xd8")


def test_the_subgraph_is_what_the_script_writes(server: Server):
    there = {path.stem: json.loads(path.read_text()) for path in (ROOT / "subgraphs").iterdir()}
    assert there == {make_workflows.NAME: make_workflows.blueprint(server.json("/object_info"))}
