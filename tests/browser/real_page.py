"""A real page of ComfyUI in a headless Chromium: opened, given a workflow, run, looked at."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from comfy_server import PATIENCE, Server

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
ANSWERS = 20  # seconds within which a page that is open does what it was asked for
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip
# What ComfyUI's own page says on an empty server, whatever pack is there; and that it may not look for models elsewhere.
NOISE = re.compile(
    r"/user\.css|/api/userdata|Content Security Policy|ComfyApp graph accessed before initialization"
    r"|ERR_NAME_NOT_RESOLVED|Error fetching file size"
)
READY = """() => window.app?.graph && window.app.extensionManager && window.LiteGraph
    && Object.keys(window.LiteGraph.registered_node_types).length > 100"""
WATCH = """() => {
    window.realragRuns = [];
    for (const event of ["execution_success", "execution_error", "execution_interrupted"])
        app.api.addEventListener(event, ({ detail }) => window.realragRuns.push({ event, detail }));
}"""
# Newer pages give a node the values of the last node that had its id in a graph without a name: the defaults are set again.
LOAD = """async (graph) => {
    await app.loadApiJson(graph, "test");
    const given = Object.values(graph);
    for (const node of app.graph.nodes) {
        const { input } = LiteGraph.registered_node_types[node.type].nodeData;
        const known = given.filter((each) => each.class_type === node.type);
        for (const [name, [, options]] of Object.entries({ ...input.required, ...input.optional })) {
            const widget = node.widgets?.find((each) => each.name === name);
            if (widget && options?.default !== undefined && !known.some((each) => name in each.inputs))
                widget.value = options.default;
        }
    }
    app.graph.arrange(60);
}"""


class RealPage:
    """One page on one server. `page` is Playwright's; `errors` what the console and uncaught exceptions said, without
    ComfyUI's own noise."""

    def __init__(self, browser, server: Server, nodes2: bool, width: int = 1600, height: int = 1000):
        self.server, self.nodes2, self.errors = server, nodes2, []
        server.post(
            "/settings",
            {"Comfy.VueNodes.Enabled": nodes2, "Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": False},
        )
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(1000 * ANSWERS)
        self.page.on("pageerror", lambda error: self._heard(f"uncaught: {error}"))
        self.page.on(
            "console",
            lambda line: self._heard(f"{line.text} ({line.location.get('url', '')})") if line.type == "error" else None,
        )
        self.page.goto(server.url, wait_until="domcontentloaded", timeout=1000 * PATIENCE)
        self.page.wait_for_function(READY, timeout=1000 * PATIENCE)
        self.page.wait_for_timeout(2000)  # dialogs of the first visit
        self.page.keyboard.press("Escape")
        self.page.evaluate(WATCH)

    @property
    def version(self) -> str:
        return self.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")

    def evaluate(self, script: str, value=None):
        """Run a JavaScript function in the page, with one value that JSON can carry; its answer, awaited."""
        return self.page.evaluate(script, value)

    def clear(self) -> None:
        """An empty graph and no errors so far."""
        self.evaluate("() => { document.querySelector('dialog[open]')?.close(); app.graph.clear(); }")
        self.errors.clear()

    def load(self, workflow: dict) -> None:
        """A workflow in the page's own format (with `nodes`) or in the API's, which is arranged."""
        if "nodes" in workflow:
            self.evaluate("async (graph) => { await app.loadGraphData(graph); }", workflow)
        else:
            self.evaluate(LOAD, workflow)
        self.page.wait_for_timeout(1000)  # sizes settle

    def run(self, start: str = "() => app.queuePrompt(0, 1)") -> None:
        """Press Run and wait for the end, which must be a success. start: another way to begin a run."""
        begun = self.evaluate("() => window.realragRuns.length")
        self.evaluate(start)
        refused = self.evaluate("() => JSON.stringify(app.lastNodeErrors ?? {})")
        assert refused == "{}", refused[:3000]
        self.page.wait_for_function("(begun) => window.realragRuns.length > begun", arg=begun, timeout=1000 * PATIENCE)
        ended = self.evaluate("(begun) => window.realragRuns[begun]", begun)
        assert ended["event"] == "execution_success", str(ended["detail"])[:3000]
        self.page.wait_for_timeout(500)  # pictures are fetched

    def show(self, left: float, top: float, scale: float = 1.0) -> None:
        """Put this point of the canvas in the upper left corner, at this zoom."""
        self.evaluate(
            """([left, top, scale]) => { const { ds } = app.canvas; ds.scale = scale; ds.offset[0] = -left;
                ds.offset[1] = -top; app.canvas.setDirty(true, true); }""",
            [left, top, scale],
        )
        self.page.wait_for_timeout(800)

    def screenshot(self, path: Path, **options) -> Path:
        self.page.screenshot(path=path, **options)
        return path

    def widgets(self, kind: str) -> dict:
        """Widget values by name of the first node of this type."""
        return self.evaluate(
            """(kind) => Object.fromEntries((app.graph.nodes.find((node) => node.type === kind).widgets ?? [])
                .map((widget) => [widget.name, widget.value ?? null]))""",
            kind,
        )

    def assert_quiet(self) -> None:
        assert not self.errors, "\n".join(self.errors)

    def close(self) -> None:
        self.page.close()

    def _heard(self, line: str) -> None:
        if not NOISE.search(line):
            self.errors.append(line[:600])
