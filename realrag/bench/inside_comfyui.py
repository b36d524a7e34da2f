"""For the benchmarks that measure inside ComfyUI: which one is meant, and a job in a process of its own there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import RealRAGError

JOBS = Path(__file__).resolve().parents[2] / "nodes" / "bench"


def comfyui_folder(job: str) -> str:
    """The folder that COMFYUI_PATH names. RealRAGError where it is no ComfyUI, or where nodes/bench has no script `job`."""
    folder = os.environ.get("COMFYUI_PATH", "")
    if not folder or not (Path(folder) / "comfy").is_dir():
        raise RealRAGError(
            f"COMFYUI_PATH is {folder!r}; it must name a ComfyUI folder (and COMFYUI_PYTHON its Python, if another)."
        )
    if not (JOBS / job).is_file():
        raise RealRAGError("This benchmark needs RealRAG's whole folder, as it lies in custom_nodes.")
    return folder


def in_comfyui(job: str, given: dict, failed: Callable[[str], str], patience: float | None = None) -> dict:
    """What the script `job` of nodes/bench prints last, as JSON, for `given`. failed: makes the message of a RealRAGError
    from the last line of its errors. patience: seconds that it may take."""
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    done = subprocess.run(
        [python, str(JOBS / job), json.dumps(given)], capture_output=True, text=True, timeout=patience
    )
    if done.returncode:
        raise RealRAGError(failed((done.stderr.strip().splitlines() or ["no message"])[-1]))
    return json.loads(done.stdout.strip().splitlines()[-1])
