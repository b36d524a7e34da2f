"""The page in another language: our nodes are in it, and what is saved and sent is the same as in English."""

from __future__ import annotations

import json
import re

import pytest
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


def test_buttons_are_in_french(speaking):
    english = json.loads((ROOT / "tools" / "locales" / "en.json").read_text(encoding="utf-8"))["page"]
    french = json.loads((ROOT / "tools" / "locales" / "fr.json").read_text(encoding="utf-8"))["page"]
    words = {key: french[text] for key, text in english.items()}
    page = speaking("fr")
    page.load(graph())
    page.page.get_by_text(words["cards.empty"]).wait_for()
    page.run(
        f"""() => {{ const node = app.graph.nodes.find((each) => each.type === "{KIND}"); node.realragCards.look(); }}"""
    )
    card = page.page.locator(".realrag-card").first
    card.wait_for()
    assert card.locator(".realrag-choices button").all_text_contents() == [
        words["cards.pin"], words["cards.ban"], words["cards.mask"]]  # fmt: skip
    assert words["cards.by_name"] in card.locator(".realrag-score").text_content()
    for button in card.locator(".realrag-choices button").all():  # none is cut off at the card's edge
        assert button.evaluate("(button) => button.scrollWidth <= button.clientWidth")
        assert button.evaluate(
            "(button) => { const card = button.closest('.realrag-card').getBoundingClientRect();"
            " const own = button.getBoundingClientRect(); return own.right <= card.right && own.bottom <= card.bottom; }"
        )
    card.get_by_role("button", name=words["cards.mask"], exact=True).evaluate("(button) => button.click()")
    drawing = page.page.locator("dialog.realrag-drawing")
    assert drawing.locator("button").all_text_contents() == [
        words[f"drawing.{name}"] for name in ("left", "right", "top", "bottom", "clear", "cancel", "save")]  # fmt: skip
    drawing.get_by_role("button", name=words["drawing.cancel"], exact=True).click()
    if not page.nodes2:
        labels = page.evaluate(
            "() => app.graph.nodes.flatMap((node) => node.widgets ?? []).map((widget) => widget.label)"
        )
        assert words["fold.show"] in labels
    page.assert_quiet()


SELECT = f"""() => {{ app.canvas.selectNode(app.graph.nodes.find((each) => each.type === "{KIND}"));
    app.canvas.setDirty(true, true); }}"""


@pytest.mark.parametrize("language, name", [("fr", f"{KIND}/fr.md"), ("zh-TW", f"{KIND}.md")])
def test_a_help_page_is_in_french_and_in_english_where_there_is_no_other(speaking, language, name):
    headings = re.findall("^#+ (.+)$", (ROOT / "web" / "docs" / name).read_text(encoding="utf-8"), re.MULTILINE)
    page = speaking(language)
    page.load(graph())
    page.evaluate(SELECT)
    page.page.get_by_test_id("info-button").first.click()
    shown = page.page.locator(".node-help-content").first
    shown.get_by_role("heading", name=headings[0], exact=True).wait_for()
    assert [text.strip() for text in shown.locator("h1, h2").all_text_contents()] == headings
