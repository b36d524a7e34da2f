"""What the pack's nodes declare, without a ComfyUI: as a script, prints it as JSON; `declared()` runs that script.

A stand-in for comfy_api keeps the words that each input and output was declared with; everything else of ComfyUI is hollow.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOLLOW = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "latent_preview")


class Declared:
    """An input or an output: its type, and all that it was declared with."""

    def __init__(self, kind: str, identity: str = "", **words):
        self.kind, self.id, self.words, self.extra_dict = kind, identity or words.get("display_name", ""), words, {}

    def plain(self) -> dict:
        words = {key: value for key, value in self.words.items() if key not in ("types", "lazy")}
        return {"id": self.id, "kind": self.kind, **words, **self.extra_dict}


class Kind:
    """A type on a wire, such as io.Float."""

    def __init__(self, name: str):
        self.name = name

    def Input(self, identity: str, *_values, **words) -> Declared:
        return Declared(self.name, identity, **words)

    def Output(self, identity: str = "", **words) -> Declared:
        return Declared(self.name, identity, **words)


class Io(types.ModuleType):
    """comfy_api's io: `io.Float.Input(...)`, `io.Schema(...)`, `io.Custom("X")`."""

    ComfyNode = type("ComfyNode", (), {"hidden": None})
    NodeOutput = type("NodeOutput", (), {})

    def Custom(self, name: str) -> Kind:
        return Kind(name)

    def Schema(self, **words) -> dict:
        return words

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("Hidden", "NumberDisplay", "FolderType", "UploadType"):
            return Hollow
        return Kind(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper())


def in_order(node: dict) -> list[dict]:
    """A node's inputs as the page gets them: those that must be there first."""
    return sorted(node["inputs"], key=lambda each: bool(each.get("optional")))


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Hollow

    def __call__(cls, *_values, **_named):
        return cls

    def __or__(cls, _other):
        return cls


class Hollow(metaclass=Anything):
    pass


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HOLLOW:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: Hollow if not name.startswith("__") else None  # type: ignore[method-assign]
        if spec.name == "comfy_api.latest":
            module.io = Io("io")  # type: ignore[attr-defined]
            module.ComfyExtension = type("ComfyExtension", (), {})  # type: ignore[attr-defined]
        if spec.name == "folder_paths":
            module.__dict__.update(
                models_dir="models", folder_names_and_paths=Registered(), add_model_folder_path=lambda *_names: None,
                get_filename_list=lambda _kind: [], get_folder_paths=lambda _kind: [], get_input_directory=lambda: "no-input",
                get_temp_directory=lambda: "no-temp", get_output_directory=lambda: "no-output",
            )  # fmt: skip
        return module

    def exec_module(self, module):
        pass


class Registered(dict):
    def __missing__(self, _key):
        return ([], set())


def schemas() -> dict[str, dict]:
    """Node id -> its schema, with inputs and outputs as plain dicts. Only in a process of its own."""
    import torch

    torch.compiler.disable = lambda work: work  # the real one imports torch's compiler, for words alone
    sys.meta_path.insert(0, Finder())
    name = "pack_of_declared_nodes"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def nodes():
        return await (await module.comfy_entrypoint()).get_node_list()

    found = {}
    for node in asyncio.run(nodes()):
        schema = node.define_schema()
        parts = {part: [each.plain() for each in schema.get(part, [])] for part in ("inputs", "outputs")}
        found[schema["node_id"]] = {**schema, **parts, "hidden": []}
    return found


@cache
def declared() -> dict[str, dict]:
    """What `schemas` gives, from a fresh process."""
    result = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


if __name__ == "__main__":
    json.dump(schemas(), sys.stdout, default=str)
