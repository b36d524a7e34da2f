"""What must hold for an example graph, as functions that list what does not: so a test can also break a graph and see it."""

from __future__ import annotations

import re

from declared_nodes import declared, in_order

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
MODEL_FILE = re.compile(r".+\.(safetensors|sft|bin|pt|pth|gguf)")
HTML = re.compile(r"<[a-zA-Z/]|^\s*\|", re.MULTILINE)  # not every frontend shows tags and tables in a note
# Widgets whose list is made of files: what is in it differs from one machine to the next.
FILES = {
    ("RealRAG_LoadRetriever", "bundle"), ("RealRAG_LoadRetriever", "head"), ("RealRAG_LoadReferenceAdapter", "adapter"),
    ("RealRAG_LoadReferenceAdapter", "vision_file"), ("RealRAG_LoadReferencePack", "pack"),
    ("RealRAG_BuildLibrary", "encoder"),
}  # fmt: skip


def nodes_and_widgets(graph: dict) -> list[str]:
    """Nodes of ours that are not there, and widget values that are too few, too many, of another type or not allowed."""
    faults = []
    for node in graph["nodes"]:
        if not node["type"].startswith("RealRAG_"):
            continue
        known = declared().get(node["type"])
        if known is None:
            faults.append(f"there is no node {node['type']}")
            continue
        inputs, where = in_order(known), node["type"]
        names, outputs = [each["id"] for each in inputs], [each["id"] for each in known["outputs"]]
        faults += [f"{where} has no input {s['name']}" for s in node["inputs"] if s["name"] not in names]
        if [socket["name"] for socket in node["outputs"]] != outputs:
            faults.append(f"{where} has the outputs {outputs}")
        widgets = [each for each in inputs if each["kind"] in WIDGETS]
        if len(node["widgets_values"]) != len(widgets):
            faults.append(f"{where} has {len(widgets)} widgets, not {len(node['widgets_values'])}")
        for widget, value in zip(widgets, node["widgets_values"], strict=False):
            if not fits(widget, value, free=(where, widget["id"]) in FILES):
                faults.append(f"{where}.{widget['id']} cannot be {value!r}")
    return faults


def fits(widget: dict, value, free: bool) -> bool:
    kind = widget["kind"]
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        right = isinstance(value, int if kind == "INT" else (int, float)) and not isinstance(value, bool)
        return right and widget.get("min", value) <= value <= widget.get("max", value)
    return isinstance(value, str) and (kind != "COMBO" or free or value in widget["options"])


def models(graph: dict, known: dict[str, dict]) -> list[str]:
    """Model files without a place to get them. known: file -> name, url and directory, of all files in graphs."""
    faults, notes = (
        [],
        "\n".join(note["widgets_values"][0] for note in graph["nodes"] if note["type"] == "MarkdownNote"),
    )
    for node in graph["nodes"]:
        linked = {model["name"]: model for model in node["properties"].get("models", [])}
        if node["type"] in ("MarkdownNote", "RealRAG_LoadReferencePack"):
            continue
        for value in node["widgets_values"]:
            if not isinstance(value, str) or not MODEL_FILE.fullmatch(value):
                continue
            if value not in known:
                faults.append(f"nobody knows where {value} comes from")
            elif value.endswith(".safetensors") and linked.get(value) != known[value]:
                faults.append(f"{node['type']} does not link {value}")
            elif not value.endswith(".safetensors") and value not in notes:
                faults.append(f"no note names {value}, which the page does not fetch")
        faults += [
            f"{node['type']} links {name}, which it does not use"
            for name in linked
            if name not in node["widgets_values"]
        ]
    return faults


def notes(graph: dict, names: set[str]) -> list[str]:
    """A note that is missing, unreadable somewhere, or names a graph that is not there."""
    texts = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    if len(texts) != 1:
        return [f"there are {len(texts)} notes"]
    faults = ["the note has tags or a table"] if HTML.search(texts[0]) else []
    return faults + [f"there is no graph {name}" for name in re.findall(r"RealRAG \d\d [^*\n]+|realrag_\w+", texts[0])
                     if name not in names | {"realrag_adapters", "realrag_packs"}]  # fmt: skip


def reports(graph: dict) -> list[str]:
    """A report that nobody shows, and pictures saved under one title."""
    nodes, links = {node["id"]: node for node in graph["nodes"]}, {link[0]: link for link in graph["links"]}
    faults = []
    for node in graph["nodes"]:
        if node["type"] in ("RealRAG_InjectReferences", "RealRAG_BuildLibrary"):
            shown = [link for out in node["outputs"] if out["name"] == "report" for link in out["links"]]
            if not any(nodes[links[link][3]]["type"] == "PreviewAny" for link in shown):
                faults.append(f"nothing shows the report of {node['type']}")
    titles = [node.get("title", "") for node in graph["nodes"] if node["type"] == "SaveImage"]
    if "" in titles or len(set(titles)) != len(titles):
        faults.append(f"pictures are saved under the titles {titles}")
    return faults


def overlaps(graph: dict, title: int = 30) -> list[str]:
    """Nodes that lie on each other. A title stands above the place of its node; a closed node is a title."""
    boxes = []
    for node in graph["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        boxes.append((x, y - title, x + width, y + (0 if node["flags"].get("collapsed") else height), node))
    return [
        f"{one[4]['type']} lies on {other[4]['type']}"
        for number, one in enumerate(boxes)
        for other in boxes[number + 1 :]
        if min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])
    ]
