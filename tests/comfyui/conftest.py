"""A real ComfyUI, as one server for tests over HTTP and imported into this process; skipped without COMFYUI_PATH."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from comfy_server import COMFYUI, PYTHON, ROOT, Server


@pytest.fixture(scope="session")
def comfyui() -> Path:
    return Path(COMFYUI)


@pytest.fixture(autouse=True)
def forgotten_folders():
    """ComfyUI remembers when each folder of models last changed, and a test's folder is gone after it."""
    yield
    if "folder_paths" in sys.modules:
        sys.modules["folder_paths"].filename_list_cache.clear()


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    maker = ROOT / "tests" / "comfyui" / "tiny_models.py"
    subprocess.run(
        [PYTHON, str(maker), str(comfyui), str(base / "models")], check=True, env={**os.environ, "PYTHONPATH": ""}
    )
    elsewhere = base / "elsewhere.yaml"
    elsewhere.write_text(f"mine:\n  base_path: {base}\n  realrag: my-libraries\n")
    server = Server(base, "--extra-model-paths-config", str(elsewhere))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def plugin(comfyui: Path):
    """This pack inside ComfyUI, imported here as ComfyUI imports it: by path, under a name of its own."""
    pytest.importorskip("torch")
    tiny_models.import_comfyui(comfyui)
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda path: importlib.import_module(f"{name}.{path}")


@pytest.fixture(scope="session")
def tiny(plugin):
    """One tiny model of each kind, by name."""
    return {kind: tiny_models.model(kind) for kind in ("flux", "sd3", "sd35", "sd35m")}


@pytest.fixture
def world(plugin, tiny):
    """Injection in this process, in inference mode as in ComfyUI's executor."""
    import torch
    from injection_world import World

    torch.set_num_threads(1)
    with torch.inference_mode():
        yield World(plugin, tiny)
