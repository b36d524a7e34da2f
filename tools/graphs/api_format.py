"""A graph as the page queues it, so that it runs without a page."""

from __future__ import annotations

from .canvas import WIDGETS

FRONTEND_ONLY = {"MarkdownNote"}


def as_prompt(workflow: dict, object_info: dict, only: set[str] | None = None) -> dict:
    """The API format: widgets in their order under their names, links by node and slot; muted nodes stay out.

    only: the types of nodes to take, of a graph whose other ones cannot run here.
    """
    links, graph = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}, {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY or node["mode"] != 0 or (only is not None and node["type"] not in only):
            continue
        linked = {socket["name"]: links[socket["link"]] for socket in node["inputs"] if socket["link"] is not None}
        values, inputs = iter(node["widgets_values"]), {}
        described = object_info[node["type"]]["input"]
        for name, (kind, *options) in {**described.get("required", {}), **described.get("optional", {})}.items():
            options = options[0] if options else {}
            if (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
                inputs[name] = next(values)
                for more in ("control_after_generate", "image_upload"):
                    if options.get(more):
                        next(values)
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": {**inputs, **linked}}
    return graph
