"""Finds the maintainer's tools of a checkout, which are not installed, as the sub-package `tools` of this one."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from realrag.errors import RealRAGError

FOLDER = Path(__file__).resolve().parents[1] / "tools"


def tool(name: str) -> ModuleType:
    """The module tools/NAME.py. RealRAGError where this is not a checkout."""
    if not (FOLDER / f"{name}.py").is_file():
        raise RealRAGError(
            f"This command is for maintainers and runs from a checkout of RealRAG: {FOLDER / f'{name}.py'} is missing. "
            "Clone the repository and run `python -m train` there."
        )
    package = f"{__package__}.tools"
    if package not in sys.modules:
        spec = spec_from_file_location(package, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)])
        assert spec and spec.loader
        sys.modules[package] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return import_module(f"{package}.{name}")
