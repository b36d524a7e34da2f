"""Another node pack's apply node for `realrag bench inject`: loaded and called as ComfyUI does it, in this process."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path


def load(folder: str) -> dict:
    """Load a folder as one of custom_nodes -> every node class that is now known, by name."""
    import utils.extra_config  # noqa: F401, I001  first, as in main.py: nodes puts another "utils" onto the path
    import nodes as core
    import server

    async def loading() -> bool:
        if not hasattr(server.PromptServer, "instance"):  # many packs add routes to it when they are imported
            server.PromptServer(asyncio.get_running_loop())
        return await core.load_custom_node(folder)

    path = Path(folder).expanduser().resolve()
    if not path.exists():
        raise SystemExit(f"There is no node pack at {path}")
    folder = str(path)
    if not asyncio.run(loading()):
        raise SystemExit(f"ComfyUI could not load the node pack {path}; start ComfyUI with it to read why")
    return core.NODE_CLASS_MAPPINGS


def call(known: dict, name: str, inputs: dict) -> tuple:
    """A node's outputs. An input {"node": NAME, "inputs": {...}, "output": 0} is another node's, called first."""
    if name not in known:
        raise SystemExit(f"No node class is called {name!r} in ComfyUI or that pack")
    given = {key: linked(known, value) for key, value in inputs.items()}
    node = known[name]
    modern = hasattr(node, "GET_SCHEMA")
    made = node.execute(**given) if modern else getattr(node(), node.FUNCTION)(**given)
    if inspect.isawaitable(made):
        made = asyncio.run(_waited(made))
    made = made.get("result") if isinstance(made, dict) else getattr(made, "result", made)
    return tuple(made or ())


def linked(known: dict, value):
    if not (isinstance(value, dict) and "node" in value):
        return value
    return call(known, value["node"], value.get("inputs", {}))[value.get("output", 0)]


def apply(job: dict, model):
    """The MODEL that the other pack's node makes of this one."""
    from comfy.model_patcher import ModelPatcher

    known = load(job["pack"])
    if job["node"] not in known:
        raise SystemExit(f"No node class is called {job['node']!r} in ComfyUI or that pack")
    groups = known[job["node"]].INPUT_TYPES()
    kinds = {key: kind[0] for group in ("required", "optional") for key, kind in groups.get(group, {}).items()}
    sockets = [key for key, kind in kinds.items() if kind == "MODEL"]
    if not sockets:
        raise SystemExit(f"The node {job['node']} takes no MODEL")
    given = {**defaults(groups), **job["inputs"], sockets[0]: model}
    found = [one for one in call(known, job["node"], given) if isinstance(one, ModelPatcher)]
    if not found:
        raise SystemExit(f"The node {job['node']} gives no MODEL")
    return found[0]


def defaults(groups: dict) -> dict:
    """What ComfyUI's interface would fill in for required widgets."""
    filled = {}
    for key, (kind, *options) in groups.get("required", {}).items():
        options = options[0] if options else {}
        if "default" in options:
            filled[key] = options["default"]
        elif isinstance(kind, list) and kind:
            filled[key] = kind[0]
    return filled


async def _waited(made):
    return await made
