"""The pack as ComfyUI meets it: what importing it drags in, and what installing its requirements would change."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from comfy_server import PYTHON, ROOT
from pack_import import LOAD_PACK, assert_light, modules_imported


def test_importing_the_pack_in_the_real_comfyui_imports_nothing_heavy(comfyui: Path, tmp_path: Path):
    start = """
import importlib.util, sys
sys.path.insert(0, sys.argv.pop(2))
sys.argv, root = [sys.argv[0], "--cpu"], sys.argv[1]
import comfy.options; comfy.options.enable_args_parsing()
import comfy.sample, comfy.sd, comfy.model_patcher, comfy_api.latest, folder_paths
sys.argv = [sys.argv[0], root]
"""
    assert_light(modules_imported(PYTHON, start + LOAD_PACK, str(comfyui), cwd=tmp_path))


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
