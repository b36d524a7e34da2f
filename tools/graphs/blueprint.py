"""The subgraph that the page offers as a node of its own: finds photos for a prompt and lets a model see them."""

from __future__ import annotations

import uuid

from .canvas import VERSION, Canvas

NAME = "Find and inject real photos"
DESCRIPTION = "Finds real photos for the prompt in a library, and lets the model see them while it paints."
INPUT, OUTPUT = -10, -20  # how a subgraph calls its own sides
# What comes in: name -> (node inside, its input); what goes out: name -> (node inside, its output).
TAKES = {"model": "inject", "prompt": "found", "adapter": "inject", "clip_vision": "inject", "vae": "inject",
         "conditioning": "inject", "negative": "inject"}  # fmt: skip
GIVES = {"model": "inject", "references": "found", "report": "inject", "credits": "found", "conditioning": "inject",
         "negative": "inject"}  # fmt: skip
WIDGETS = [
    ("loader", "bundle"),
    ("found", "look_for"),
    ("found", "top_k"),
    ("inject", "strength"),
    ("inject", "preset"),
]


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"realrag blueprint {name}"))


def blueprint(object_info: dict) -> dict:
    """The file of the subgraph: one node, and what is inside of it."""
    canvas = Canvas(object_info)
    left, right = canvas.column(400), canvas.column(400)
    loader = canvas.node("RealRAG_LoadRetriever", left, bundle="sample (shipped)")
    found = canvas.node("RealRAG_RetrieveReferences", left, links={"retriever": (loader, "retriever")}, shows=280)
    inject = canvas.node("RealRAG_InjectReferences", right, links={"references": (found, "references")})
    inside = {"loader": loader, "found": found, "inject": inject}
    links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
             for link in canvas.links]  # fmt: skip
    inputs, outputs = [], []
    for name, where in TAKES.items():
        node = inside[where]
        slot = next((i for i, socket in enumerate(node["inputs"]) if socket["name"] == name), len(node["inputs"]))
        if slot == len(node["inputs"]):
            node["inputs"].append({"name": name, "type": "STRING", "widget": {"name": name}, "link": None})
        node["inputs"][slot]["link"] = identity = len(links) + 1
        kind = node["inputs"][slot]["type"]
        ends = {"origin_id": INPUT, "origin_slot": len(inputs), "target_id": node["id"], "target_slot": slot}
        links.append({"id": identity, **ends, "type": kind})
        inputs.append(_side(name, kind, identity, (-200, 100 + 20 * len(inputs))))
    for name, where in GIVES.items():
        slot, socket = next((i, s) for i, s in enumerate(inside[where]["outputs"]) if s["name"] == name)
        identity = len(links) + 1
        socket["links"].append(identity)
        ends = {"origin_id": inside[where]["id"], "origin_slot": slot, "target_id": OUTPUT, "target_slot": len(outputs)}
        links.append({"id": identity, **ends, "type": socket["type"]})
        outputs.append(_side(name, socket["type"], identity, (960, 100 + 20 * len(outputs))))
    definition = {
        "id": _uuid(NAME), "version": 1, "revision": 0, "config": {}, "name": NAME, "category": "RealRAG",
        "description": DESCRIPTION, "widgets": [], "groups": [], "nodes": canvas.nodes, "links": links,
        "state": {"lastGroupId": 0, "lastNodeId": len(canvas.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "inputNode": {"id": INPUT, "bounding": [-300, 80, 120, 40 + 20 * len(inputs)]}, "inputs": inputs,
        "outputNode": {"id": OUTPUT, "bounding": [940, 80, 120, 40 + 20 * len(outputs)]}, "outputs": outputs, "extra": {},
    }  # fmt: skip
    node = {
        "id": len(canvas.nodes) + 1, "type": definition["id"], "title": NAME, "pos": [0, 0], "size": [380, 420], "flags": {},
        "order": 0, "mode": 0, "widgets_values": [], "inputs": [{"name": each["name"], "type": each["type"], "link": None} for each in inputs],
        "outputs": [{"name": each["name"], "type": each["type"], "links": []} for each in outputs],
        "properties": {"proxyWidgets": [[str(inside[where]["id"]), name] for where, name in WIDGETS], "cnr_id": "realrag", "ver": VERSION},
    }  # fmt: skip
    return {
        "id": _uuid("file"), "revision": 0, "last_node_id": node["id"], "last_link_id": len(links), "nodes": [node], "links": [],
        "version": 0.4, "extra": {}, "definitions": {"subgraphs": [definition]},
    }  # fmt: skip


def _side(name: str, kind: str, link: int, place: tuple[int, int]) -> dict:
    return {"id": _uuid(f"{name} {place[0]}"), "name": name, "type": kind, "linkIds": [link], "pos": list(place)}
