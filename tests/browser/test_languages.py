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


START = ROOT / "workflows" / "RealRAG 01 Start here.json"
# The texts of the graph that the page shows, and what the nodes hold and send besides.
TEXTS = """() => ({
    note: app.graph.nodes.find((node) => node.type === "MarkdownNote").widgets[0].value,
    titles: Object.fromEntries(app.graph.nodes.map((node) => [node.id, node.title])),
    groups: app.graph.groups.map((group) => group.title),
})"""
VALUES = """() => Object.fromEntries(app.graph.serialize().nodes.filter((node) => node.type !== "MarkdownNote")
    .map((node) => [node.id, node.widgets_values ?? null]))"""


def shown_as(texts: dict, graph: dict, note: str, titles: dict, groups: dict) -> None:
    """The page shows this note, and the titles of the file in the words of these tables; {} leaves them as they are."""
    assert texts["note"] == note
    named = {str(node["id"]): node["title"] for node in graph["nodes"] if "title" in node}
    assert {each: texts["titles"][each] for each in named} == {
        each: titles.get(text, text) for each, text in named.items()
    }
    assert texts["groups"] == [groups.get(each["title"], each["title"]) for each in graph["groups"]]


def test_an_example_graph_is_in_french_and_runs_with_the_same_values(speaking):
    graph = json.loads(START.read_text(encoding="utf-8"))
    words = json.loads((ROOT / "web" / "graph_words" / "fr.json").read_text(encoding="utf-8"))
    english_note, french_note = words["notes"]["Start here"]
    english, asked = speaking("en"), []
    english.page.on("request", lambda request: asked.append(request.url))
    english.load(graph)
    shown_as(english.evaluate(TEXTS), graph, english_note, {}, {})
    assert [url for url in asked if "graph_words" in url] == []
    sent, values = english.evaluate(SENT), english.evaluate(VALUES)

    french = speaking("fr")
    french.load(graph)
    shown_as(french.evaluate(TEXTS), graph, french_note, words["titles"], words["groups"])
    assert (french.evaluate(SENT), french.evaluate(VALUES)) == (sent, values)
    french.run()
    french.assert_quiet()

    saved = english.evaluate("() => app.graph.serialize()")  # what an artist saved in English, with nothing changed
    french.clear()
    french.load(saved)
    shown_as(french.evaluate(TEXTS), graph, english_note, {}, {})
    changed = json.loads(json.dumps(graph))
    (note,) = (node for node in changed["nodes"] if node["type"] == "MarkdownNote")
    note["widgets_values"] = ["My own note."]
    french.clear()
    french.load(changed)
    shown_as(french.evaluate(TEXTS), graph, "My own note.", {}, {})
    french.assert_quiet()
    english.assert_quiet()


def test_an_unknown_language_leaves_an_example_graph_in_english(speaking):
    graph = json.loads(START.read_text(encoding="utf-8"))
    page = speaking("ko")
    page.load(graph)
    (note,) = (node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")
    shown_as(page.evaluate(TEXTS), graph, note, {}, {})
    page.assert_quiet()
