"""A real ComfyUI server for tests: started on an empty base folder with this pack in it, and driven over HTTP."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = os.environ.get("COMFYUI_PATH", "")
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
PATIENCE = 300  # seconds for a start or a run on a busy machine; hit only when something is broken


class Graph(dict):
    """A workflow in API format, grown node by node: `add` returns the id, and `[id, slot]` is a link."""

    def add(self, class_type: str, **inputs) -> str:
        identity = str(len(self) + 1)
        self[identity] = {"class_type": class_type, "inputs": inputs}
        return identity


@dataclass(frozen=True)
class Run:
    """One finished prompt: its status ("success", "error"), what each node showed, what was cached, its events."""

    status: str
    outputs: dict[str, dict]
    cached: set[str]
    events: dict[str, dict]


class Refused(Exception):
    """The server answered with an error before running anything."""

    def __init__(self, code: int, body: dict):
        super().__init__(f"{code}: {json.dumps(body)[:2000]}")
        self.code, self.body = code, body


class Server:
    def __init__(self, base: Path, *flags: str, pack: Path = ROOT):
        """Start ComfyUI with `base` as its base folder: `custom_nodes`, `models`, `input`, `output` lie there."""
        self.base = base
        for name, folder in {"realrag": pack, "realrag_test_nodes": ROOT / "tests" / "comfyui" / "test_nodes"}.items():
            link = base / "custom_nodes" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "server.log"
        self.command = [
            PYTHON,
            str(Path(COMFYUI) / "main.py"),
            "--cpu",
            "--port",
            str(port),
            "--base-directory",
            str(base),
        ]
        self.command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *flags]
        self._start()

    def _start(self) -> None:
        # one thread: on tiny tensors more of them only wait for each other
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, cwd=self.base, env=offline
            )
        self._until(self._answers, "start")

    def crash_and_restart(self) -> None:
        """Kill the process, then start another at the same address."""
        self.process.kill()
        self.process.wait()
        self._start()

    @cached_property
    def detects_tiny_flux(self) -> bool:
        """Newer versions read a Flux's sizes from its file; older ones take every Flux for the full-sized one."""
        version = self.json("/system_stats")["system"]["comfyui_version"]
        return tuple(map(int, version.split(".")[:2])) >= (0, 10)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def get(self, path: str, **query) -> bytes:
        return self._request(f"{path}?{urlencode(query)}" if query else path)

    def json(self, path: str) -> dict:
        return json.loads(self.get(path))

    def post(self, path: str, body: dict) -> bytes:
        return self._request(path, json.dumps(body).encode())

    def queue(self, graph: Graph) -> str:
        """Queue a workflow; returns the prompt's id. Raises Refused where it does not validate."""
        return json.loads(self.post("/prompt", {"prompt": graph}))["prompt_id"]

    def wait(self, prompt: str) -> Run:
        # the entry appears a moment after the success event, so it is the history that says when a run has ended
        entry = self._until(lambda: self.json(f"/history/{prompt}").get(prompt), "finish a prompt")
        events = dict(entry["status"]["messages"])
        cached = set(events.get("execution_cached", {}).get("nodes", ()))
        return Run(entry["status"]["status_str"], entry["outputs"], cached, events)

    def run(self, graph: Graph) -> Run:
        """Run a workflow to its end, which must be a success."""
        run = self.wait(self.queue(graph))
        assert run.status == "success", json.dumps(run.events.get("execution_error", run.events), indent=1)[:4000]
        return run

    def interrupt(self, prompt: str, after: float = 3) -> Run:
        """Press Cancel `after` seconds into a run."""
        self._until(lambda: any(item[1] == prompt for item in self.json("/queue")["queue_running"]), "begin a prompt")
        time.sleep(after)
        self.post("/interrupt", {})
        return self.wait(prompt)

    def forget(self) -> None:
        """Drop every cached node output and loaded model."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        nothing = Graph()
        nothing.add("RealRAGTest_ShowText", text="")
        self.run(nothing)  # the request is acted upon after this prompt at the latest, and before the next

    def picture(self, image: dict) -> np.ndarray:
        """A picture that a node saved or previewed -> (H, W, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.get("/view", **image))).convert("RGB"))

    def _request(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
            raise Refused(error.code, json.loads(body) if body.startswith(b"{") else {"text": body.decode()}) from None

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system_stats"))
        except OSError:
            return False

    def _until(self, done, what: str):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            if result := done():
                return result
            time.sleep(0.1)
        raise AssertionError(f"ComfyUI did not {what}; its log ends:\n{self.log.read_text(errors='replace')[-4000:]}")
