"""One real ComfyUI server for all integration tests; without COMFYUI_PATH they are skipped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from comfy_server import COMFYUI, PYTHON, ROOT, Server


@pytest.fixture(scope="session")
def comfyui() -> Path:
    if not COMFYUI:
        pytest.skip("COMFYUI_PATH does not name a ComfyUI folder (and COMFYUI_PYTHON, if needed, its Python)")
    return Path(COMFYUI)


@pytest.fixture(scope="session")
def server(comfyui: Path, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    maker = ROOT / "tests" / "comfyui" / "tiny_models.py"
    subprocess.run([PYTHON, str(maker), str(comfyui), str(base / "models")], check=True, env={**os.environ, "PYTHONPATH": ""})
    server = Server(base)
    yield server
    server.stop()
