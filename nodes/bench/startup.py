"""What `realrag bench startup` runs inside ComfyUI: python startup.py JSON. It loads one node pack as ComfyUI does, and its last
line is the answer as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import logging
import sys
import time


def main(job: dict) -> dict:
    """job: comfyui and base, folders; pack, the folder to load, or "" for none."""
    sys.path[0] = job["comfyui"]
    begun = time.perf_counter(), time.process_time()
    import comfy.options

    flags = ["--cpu", "--base-directory", job["base"], "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    sys.argv = [sys.argv[0], *flags]
    comfy.options.enable_args_parsing()
    logging.disable(logging.CRITICAL)
    # What ComfyUI loads before a pack, in its order; and what it reads the first pack's pyproject.toml with.
    importlib.import_module("utils.extra_config")
    importlib.import_module("execution")
    server, nodes = importlib.import_module("server"), importlib.import_module("nodes")
    with contextlib.suppress(ImportError):
        importlib.import_module("comfy_config.config_parser")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    ready, before = (time.perf_counter(), time.process_time()), set(sys.modules)
    loaded = True
    if job["pack"]:
        loaded = nodes.load_custom_node(job["pack"], module_parent="custom_nodes")
        loaded = loop.run_until_complete(loaded) if inspect.isawaitable(loaded) else loaded
    done = time.perf_counter(), time.process_time()
    new = sorted({name.split(".")[0] for name in set(sys.modules) - before if "/" not in name and "\\" not in name})
    return {
        "loaded": bool(loaded), "comfyui_s": ready[0] - begun[0], "comfyui_cpu_s": ready[1] - begun[1],
        "pack_s": done[0] - ready[0], "pack_cpu_s": done[1] - ready[1], "new_modules": new,
    }  # fmt: skip


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # packs print what they like
        answer = main(json.loads(sys.argv[1]))
    print(json.dumps(answer))
