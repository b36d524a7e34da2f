"""The page in another language: our nodes are in it, and what is saved and sent is the same as in English."""

from __future__ import annotations

import json

from comfy_server import ROOT, Graph

KIND = "RealRAG_RetrieveReferences"
SHOWN = f"""() => {{
    const node = app.graph.nodes.find((each) => each.type === "{KIND}");
    const label = (slot) => slot.label ?? slot.localized_name ?? slot.name;
    return {{ title: node.title, inputs: node.inputs.map(label), outputs: node.outputs.map(label),
        widgets: node.widgets.map((widget) => widget.label ?? widget.name) }};
}}"""
SENT = """async () => Object.values((await app.graphToPrompt()).output)
    .map((node) => [node.class_type, node.inputs])"""


def graph() -> Graph:
    made = Graph()
    loader = made.add("RealRAG_LoadRetriever", bundle="sample (shipped)", head="auto")
    found = made.add(KIND, retriever=[loader, 0], prompt="granny smith", top_k=1, min_score=0.0, diversity=0.0)
    made.add("PreviewImage", images=[found, 1])
    return made


def test_a_node_is_in_french_and_what_is_sent_is_the_same(speaking):
    words = json.loads((ROOT / "locales" / "fr" / "nodeDefs.json").read_text(encoding="utf-8"))[KIND]
    english, french = speaking("en"), None
    english.load(graph())
    before = english.evaluate(SENT)
    french = speaking("fr")
    french.load(graph())
    shown = french.evaluate(SHOWN)
    assert shown["title"] == words["display_name"] != english.evaluate(SHOWN)["title"]
    assert words["inputs"]["retriever"]["name"] in shown["inputs"]
    assert words["inputs"]["top_k"]["name"] in shown["widgets"]
    assert shown["outputs"] == [part["name"] for part in words["outputs"].values()]
    assert french.evaluate(SENT) == before
    french.run()
    french.assert_quiet()
