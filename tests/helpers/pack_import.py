"""What importing the pack drags in, in a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

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

# In place of ComfyUI the stand-in of declared_nodes, which imports nothing but Python's own.
COMFYUI_STUB = f"""
import importlib.util, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from declared_nodes import Finder
del sys.path[0]
sys.meta_path.insert(0, Finder())

import numpy, PIL.Image, safetensors.torch, torch  # as ComfyUI has them loaded before any pack
"""

# As ComfyUI loads a pack: by its path, under a name that is no package on sys.path.
LOAD_PACK = """
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


def modules_imported(python: str, code: str, *flags: str, cwd: Path) -> set[str]:
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


def assert_light(modules: set[str]) -> None:
    """The pack is there, and nothing that a start of ComfyUI would wait for."""
    assert "pack_x_realrag.realrag.retriever" in modules
    assert not modules & HEAVY
    assert not modules & {f"pack_x_realrag.realrag.{name}" for name in LATER}
