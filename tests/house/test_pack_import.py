"""What ComfyUI's start waits for when it loads the pack, with a stand-in for ComfyUI."""

import sys
from pathlib import Path

import pytest
from pack_import import COMFYUI_STUB, LOAD_PACK, assert_light, modules_imported


@pytest.mark.slow
def test_importing_the_pack_imports_nothing_heavy(tmp_path: Path):
    assert_light(modules_imported(sys.executable, COMFYUI_STUB + LOAD_PACK, cwd=tmp_path))
