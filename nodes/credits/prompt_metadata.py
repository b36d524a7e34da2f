"""A place for credits in every prompt that asks for them: a prompt sent through the API has no metadata of its own."""

from __future__ import annotations

import sys

from ...realrag.credits.record import KEY

NODE = "RealRAG_Credits"


def with_metadata(request: dict) -> dict:
    """What is sent to /prompt; where Add Credits is in it, with an `extra_pnginfo`, and without traces of an earlier run."""
    prompt = request.get("prompt")
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    ours = [node for node in nodes if isinstance(node, dict) and node.get("class_type") == NODE]
    for node in ours:
        node.pop("is_changed", None)  # the fingerprint, in a prompt that was taken from a saved picture
    if ours:
        extra = request.setdefault("extra_data", {})
        if isinstance(extra, dict):
            metadata = extra["extra_pnginfo"] = extra.get("extra_pnginfo") or {}
            if isinstance(metadata, dict):
                metadata.pop(KEY, None)
    return request


def register() -> None:
    """Let ComfyUI's server pass each prompt by `with_metadata`; where no server runs, nobody sends one."""
    served = sys.modules.get("server")
    server = getattr(getattr(served, "PromptServer", None), "instance", None)
    if server is not None:
        server.add_on_prompt_handler(with_metadata)
