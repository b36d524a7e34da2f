"""A real ComfyUI server gives the page our nodes in other languages, and they fit the nodes that it serves."""

from __future__ import annotations

import pytest
from comfy_server import Server


@pytest.mark.parametrize("language", ["en", "zh", "ja", "de", "fr", "es"])
def test_every_input_and_output_that_the_server_knows_has_its_words(server: Server, language: str):
    words = server.json("/i18n")[language]["nodeDefs"]
    for name, info in server.json("/object_info").items():
        if not name.startswith("RealRAG_"):
            continue
        node = words[name]
        assert node["display_name"] and node["description"]
        inputs = {*info["input"].get("required", {}), *info["input"].get("optional", {})}
        assert set(node["inputs"]) == inputs
        assert list(node["outputs"]) == [str(slot) for slot in range(len(info["output"]))]
        parts = [*node["inputs"].values(), *node["outputs"].values()]
        assert all(part["name"] and part["tooltip"] for part in parts)
        if language == "en":
            assert node["display_name"] == info["display_name"]
            assert [part["tooltip"] for part in node["outputs"].values()] == info["output_tooltips"]
