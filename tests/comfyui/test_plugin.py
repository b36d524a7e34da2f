"""The pack as ComfyUI meets it: what importing it drags in, and what installing its requirements would change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from comfy_server import PYTHON, ROOT

# What RealRAG uses somewhere and ComfyUI's start must not wait for.
HEAVY = {
    "open_clip", "faiss", "huggingface_hub", "torchvision", "timm", "transformers", "tokenizers", "scipy", "matplotlib",
    "pandas", "sklearn", "cv2", "onnxruntime", "c2pa", "pyarrow", "pillow_heif", "license_expression", "defusedxml",
    "filelock", "tqdm", "tensorboard",
}  # fmt: skip
# Our own code that starts when a node asks for it.
LATER = {
    "indexing",
    "photos.scan",
    "encoders.open_clip",
    "encoders.transformers_encoder",
    "hub",
    "demo",
    "commands",
    "bench",
}

# Stands in for ComfyUI: every module of these names exists and holds whatever is asked of it.
STUB = """
import importlib.abc, importlib.machinery, importlib.util, sys, types

class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub
    def __call__(cls, *args, **kwargs):
        return cls
    def __or__(cls, other):
        return cls

class Stub(metaclass=Anything):
    pass

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("comfy", "comfy_api", "comfy_extras", "folder_paths"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: Stub if not name.startswith("__") else None
        module.models_dir, module.folder_names_and_paths = "models", {}
        return module
    def exec_module(self, module):
        pass

class Registered(dict):
    def __missing__(self, key):
        return ([], set())

sys.meta_path.insert(0, Finder())
import folder_paths
folder_paths.folder_names_and_paths = Registered()

import numpy, PIL.Image, safetensors.torch, torch  # as ComfyUI has them loaded before any pack
"""

# As ComfyUI loads a pack: by its path, under a name that is no package on sys.path.
LOAD = """
root = sys.argv[1]
file = root + "/__init__.py"
spec = importlib.util.spec_from_file_location("pack_x_realrag", file, submodule_search_locations=[root])
module = importlib.util.module_from_spec(spec)
sys.modules["pack_x_realrag"] = module
before = set(sys.modules)
spec.loader.exec_module(module)
assert callable(module.comfy_entrypoint) and not hasattr(module, "NODE_CLASS_MAPPINGS")
new = set(sys.modules) - before
print(*sorted({name.split(".")[0] for name in new} | {name for name in new if name.startswith("pack_x_realrag.")}))
"""


def imported(python: str, code: str, *flags: str, cwd: Path) -> set[str]:
    """The top-level modules that loading the pack adds, in a fresh process."""
    result = subprocess.run(
        [python, "-c", code, str(ROOT), *flags],
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_pack_imports_nothing_heavy(tmp_path: Path):
    modules = imported(sys.executable, STUB + LOAD, cwd=tmp_path)
    assert "pack_x_realrag.realrag.retriever" in modules
    assert not modules & HEAVY
    assert not modules & {f"pack_x_realrag.realrag.{name}" for name in LATER}


def test_importing_the_pack_in_the_real_comfyui_imports_nothing_heavy(comfyui: Path, tmp_path: Path):
    start = """
import importlib.util, sys
sys.path.insert(0, sys.argv.pop(2))
sys.argv, root = [sys.argv[0], "--cpu"], sys.argv[1]
import comfy.options; comfy.options.enable_args_parsing()
import comfy.sample, comfy.sd, comfy.model_patcher, comfy_api.latest, folder_paths
sys.argv = [sys.argv[0], root]
"""
    modules = imported(PYTHON, start + LOAD, str(comfyui), cwd=tmp_path)
    assert "pack_x_realrag.realrag.retriever" in modules
    assert not modules & HEAVY
    assert not modules & {f"pack_x_realrag.realrag.{name}" for name in LATER}


def test_installing_the_requirements_changes_no_installed_package(comfyui: Path):
    listed = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    installed = subprocess.run([PYTHON, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    command = [PYTHON, "-m", "pip", "install", "--dry-run", "--no-input", "-r", str(ROOT / "requirements.txt")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    line = next((line for line in result.stdout.splitlines() if line.startswith("Would install")), "")
    new = {plain(word.rsplit("-", 1)[0]) for word in line.split()[2:]}
    changed = new & {plain(name) for name in installed}
    assert not changed, f"`pip install -r requirements.txt` would change {sorted(changed)}"


def plain(name: str) -> str:
    """A package name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
