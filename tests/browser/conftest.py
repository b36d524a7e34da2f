"""ComfyUI's page in a headless Chromium, with both of its renderers: skipped, with the reason, where anything is missing.

Needs COMFYUI_PATH (and COMFYUI_PYTHON), playwright (`pip install -e ".[browser]"`) and a Chromium (on the PATH, or named by
CHROMIUM).
COMFYUI_FRONTENDS adds other builds of the page to the one that this ComfyUI comes with: the `static` folders of unpacked
comfyui-frontend-package wheels, separated as PATH is.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from comfy_server import COMFYUI, PYTHON, ROOT, Server
from made_photos import photo_bytes
from real_page import CHROMIUM, FLAGS, RealPage

FRONTENDS = ["own", *filter(None, os.environ.get("COMFYUI_FRONTENDS", "").split(os.pathsep))]
RENDERERS = [(frontend, nodes2) for frontend in FRONTENDS for nodes2 in (False, True)]


def _name(renderer: tuple[str, bool]) -> str:
    frontend, nodes2 = renderer
    return f"{'own' if frontend == 'own' else f'other{FRONTENDS.index(frontend)}'}-{'nodes2' if nodes2 else 'classic'}"


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    if not CHROMIUM:
        pytest.skip("there is no Chromium on the PATH; install one, or name it in CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def servers(browser, tmp_path_factory):
    """frontend -> a server that serves it, started when it is first asked for. Models are tiny and random."""
    started: dict[str, Server] = {}

    def serve(frontend: str) -> Server:
        if frontend not in started:
            base = tmp_path_factory.mktemp("page")
            maker = ROOT / "tests" / "comfyui" / "tiny_models.py"
            alone = {**os.environ, "PYTHONPATH": ""}
            subprocess.run([PYTHON, str(maker), COMFYUI, str(base / "models")], check=True, env=alone)
            (base / "input").mkdir(parents=True, exist_ok=True)
            (base / "input" / "example.png").write_bytes(photo_bytes((90, 160, 60), format="PNG"))  # as ComfyUI has one
            flags = [] if frontend == "own" else ["--front-end-root", str(Path(frontend).resolve())]
            started[frontend] = Server(base, *flags)
        return started[frontend]

    yield serve
    for server in started.values():
        server.stop()


@pytest.fixture(scope="session", params=RENDERERS, ids=_name)
def opened(request, browser, servers):
    """One page for each renderer, for all tests: opening takes ten seconds."""
    frontend, nodes2 = request.param
    page = RealPage(browser, servers(frontend), nodes2)
    yield page
    page.close()


@pytest.fixture
def page(opened: RealPage):
    """The page of one renderer with an empty graph; whatever a test does, the console stays quiet."""
    opened.clear()
    yield opened
    opened.assert_quiet()


class Speaking:
    """A browser whose language is this one: a page that is opened for the first time takes it."""

    def __init__(self, browser, language: str):
        self._browser, self._language = browser, language

    def new_page(self, **options):
        return self._browser.new_page(locale=self._language, **options)


@pytest.fixture(params=RENDERERS, ids=_name)
def speaking(request, browser, servers):
    """language -> a page in it, in each renderer."""
    frontend, nodes2 = request.param
    server, pages = servers(frontend), []

    def speak(language: str) -> RealPage:
        server.post("/settings", {"Comfy.Locale": language})
        pages.append(RealPage(Speaking(browser, language), server, nodes2))
        pages[-1].clear()
        return pages[-1]

    yield speak
    server.post("/settings", {"Comfy.Locale": "en"})
    for page in pages:
        page.close()
