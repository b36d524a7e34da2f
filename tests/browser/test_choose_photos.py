"""The cards in Retrieve Real References: looked at, pinned, banned, paged and opened, and what the workflow keeps of it."""

from __future__ import annotations

import csv
import json

import pytest
from comfy_server import ROOT, Graph, Server
from made_photos import photo_bytes
from real_page import RealPage

from realrag.injection.drawn_masks import read_masks

KIND = "RealRAG_RetrieveReferences"
SAVED = [*sorted((ROOT / "workflows").glob("*.json")),
         *sorted((ROOT / "tests" / "data" / "saved-by-0.1.0").glob("realrag_*.json"))]  # fmt: skip
NODE = f"app.graph.nodes.find((node) => node.type === '{KIND}')"
LOOK = f"() => {NODE}.realragCards.look()"
CARDS = """() => [...document.querySelectorAll(".realrag-card")].map((card) => {
    const [box, photo] = [card, card.querySelector("img")].map((part) => part.getBoundingClientRect());
    const { naturalWidth } = card.querySelector("img");
    return { id: card.dataset.id, text: card.innerText, width: box.width, height: box.height, photo: photo.width,
        loaded: naturalWidth > 0 };
})"""
HOSTILE = {
    "caption": "<img src=x onerror=\"window.hurt = 1\"><b>an apple</b>",
    "author": "\"><script>window.hurt = 2</script>",
    "license": "javascript:window.hurt=3 <svg onload=window.hurt=4>",
    "source": "https://example.org/\" onmouseover=\"window.hurt=5",
}  # fmt: skip


def asked(prompt: str, bundle: str = "sample (shipped)", **options) -> Graph:
    graph = Graph()
    loader = graph.add("RealRAG_LoadRetriever", bundle=bundle, head="auto")
    options = {"top_k": 3, "min_score": 0.0, "diversity": 0.0, "doubt": "keep", **options}
    graph.add(KIND, retriever=[loader, 0], prompt=prompt, **options)
    return graph


def cards(page: RealPage) -> list[dict]:
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('.realrag-card img')].every((photo) => photo.complete)"
    )
    page.page.wait_for_timeout(300)  # laid out
    return page.evaluate(CARDS)


def ids(page: RealPage) -> list[str]:
    return [card["id"] for card in cards(page)]


def press(page: RealPage, card: int, what: str) -> None:
    page.page.locator(".realrag-card").nth(card).get_by_role("button", name=what, exact=True).click()


def open_graph(page: RealPage, graph: dict) -> None:
    page.load(graph)
    page.evaluate(f"() => {{ const node = {NODE}; node.pos = [40, 60]; node.setSize([520, 760]); }}")
    page.show(0, 0)


@pytest.fixture(scope="session")
def odd_library(servers):
    """A library of small, wide and tall photos whose words are markup, made once on each server."""
    made: set[str] = set()

    def library(server: Server) -> str:
        if server.url not in made:
            folder = server.base / "input" / "odd photos" / "<i>apples"
            folder.mkdir(parents=True)
            with open(folder.parent / "captions.csv", "w", newline="") as file:
                table = csv.DictWriter(file, ["file", *HOSTILE])
                table.writeheader()
                for number, size in enumerate(((24, 18), (900, 300), (300, 900), (64, 64))):
                    (folder / f"{number}.jpg").write_bytes(photo_bytes((40 * number, 200, 20), number, size=size))
                    table.writerow({"file": f"<i>apples/{number}.jpg", **HOSTILE})
            graph = Graph()
            graph.add(
                "RealRAG_BuildLibrary", photos="odd photos", name="odd", mode="add these photos", encoder="automatic"
            )
            server.run(graph)
            made.add(server.url)
        return "odd"

    return library


def test_looking_shows_cards_without_making_a_picture(page: RealPage):
    graph = asked("a photo of garlic")
    graph.add("PreviewImage", images=["2", 1])
    open_graph(page, graph)
    page.page.get_by_text("Press Look, or Run, to see the photos here.").wait_for()
    page.run(LOOK)
    shown = cards(page)
    assert len(shown) == 3 and all(card["loaded"] for card in shown)
    assert [card["text"].split("\n")[0] for card in shown] == ["1", "2", "3"]
    assert all("by name" in card["text"] and "Garlic" in card["text"] and "MIT" in card["text"] for card in shown)
    ran = page.evaluate("() => window.realragRuns.at(-1).detail.prompt_id")
    (output,) = page.server.json(f"/history/{ran}")[ran]["outputs"].values()
    assert len(output["realrag_photos"]) == 3, "the node alone ran"
    assert (
        page.evaluate(f"() => {NODE}.imgs?.length ? {NODE}.widgets.some((w) => w.name.startsWith('$$')) : false")
        is False
    )


def test_cards_are_alike_in_size_and_words_of_a_library_are_never_markup(page: RealPage, odd_library):
    open_graph(page, asked("green", odd_library(page.server), top_k=4))
    page.run(LOOK)
    shown = cards(page)
    assert len(shown) == 4 and all(card["loaded"] for card in shown)
    for measure in ("width", "height", "photo"):
        assert len({round(card[measure]) for card in shown}) == 1, measure
    assert shown[0]["photo"] > 90
    assert "<i>apples" in shown[0]["text"] and "<script>" in shown[0]["text"]
    press(page, 0, "Open large: 1")
    large = page.page.locator("dialog.realrag-large")
    for words in (HOSTILE["caption"], HOSTILE["author"]):
        assert words in large.inner_text()
    assert page.evaluate("""() => [window.hurt ?? null, document.querySelectorAll(
        ".realrag-cards :is(script, svg, b, i, a), .realrag-large :is(script, svg, b, i, a), img[src='x']").length]""") == [
        None, 0]  # fmt: skip
    page.page.keyboard.press("Escape")


def test_a_pin_comes_first_a_ban_never_and_the_workflow_keeps_both(page: RealPage):
    open_graph(page, asked("a photo of garlic"))
    page.run(LOOK)
    first, second, third = ids(page)
    press(page, 1, "Pin")
    press(page, 2, "Ban")
    assert (page.widgets(KIND)["pinned"], page.widgets(KIND)["exclude_ids"]) == (second, third)
    page.run()
    shown = ids(page)
    assert shown[:2] == [second, first] and third not in shown and len(shown) == 3
    assert "pinned" in cards(page)[0]["text"]
    kept = json.loads(json.dumps(page.evaluate("() => app.graph.serialize()")))
    page.evaluate("() => app.graph.clear()")
    open_graph(page, kept)
    page.page.get_by_text("1 pinned").wait_for()
    page.run(LOOK)
    assert ids(page) == shown, "what was seen is what runs"
    sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    (inputs,) = [node["inputs"] for node in sent.values() if node["class_type"] == KIND]
    assert (inputs["pinned"], inputs["exclude_ids"], inputs["page"]) == (second, third, 1)
    assert "realrag_cards" not in inputs
    shown_by_api = page.server.run(Graph(sent))
    (photos,) = [out["realrag_photos"] for out in shown_by_api.outputs.values() if "realrag_photos" in out]
    assert [photo["id"] for photo in photos] == shown
    press(page, 0, "Pin")  # again: taken back
    page.page.get_by_text("1 banned").click()
    assert (page.widgets(KIND)["pinned"], page.widgets(KIND)["exclude_ids"]) == ("", "")
    page.run(LOOK)
    assert ids(page) == [first, second, third]


def test_pin_and_ban_of_one_photo_exclude_each_other(page: RealPage):
    open_graph(page, asked("a photo of garlic"))
    page.run(LOOK)
    one = ids(page)[0]
    press(page, 0, "Pin")
    press(page, 0, "Ban")
    assert (page.widgets(KIND)["pinned"], page.widgets(KIND)["exclude_ids"]) == ("", one)
    press(page, 0, "Pin")
    assert (page.widgets(KIND)["pinned"], page.widgets(KIND)["exclude_ids"]) == (one, "")


def test_the_next_page_shows_the_following_photos_and_pins_stay(page: RealPage):
    open_graph(page, asked("a photo of garlic"))
    page.run(LOOK)
    first = ids(page)
    press(page, 0, "Pin")
    turn = "(title) => document.querySelector(`.realrag-bar button[title='${title}']`).click()"
    page.run(f"() => ({turn})('Next photos')")
    second = ids(page)
    assert page.widgets(KIND)["page"] == 2
    assert second[0] == first[0] and not set(second[1:]) & set(first)
    page.run(f"() => ({turn})('Previous photos')")
    assert ids(page) == first and page.widgets(KIND)["page"] == 1


def test_a_photo_opens_large_with_its_credit_and_keys_reach_no_node(page: RealPage):
    open_graph(page, asked("a photo of garlic"))
    page.run(LOOK)
    expected = ids(page)
    page.evaluate(f"() => app.canvas.selectNode?.({NODE})")
    press(page, 0, "Open large: 1")
    large = page.page.locator("dialog.realrag-large")
    assert expected[0] in large.inner_text() and "by Klasson et al." in large.inner_text()
    page.page.keyboard.press("Delete")
    page.page.keyboard.press("ArrowRight")
    assert expected[1] in large.inner_text() and "2 of 3" in large.inner_text()
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("ArrowLeft")
    assert expected[2] in large.inner_text()
    page.page.keyboard.press("Escape")
    large.wait_for(state="detached")
    assert ids(page) == expected, "the node is still there"


def test_a_mask_drawn_on_a_card_belongs_to_that_photo(page: RealPage):
    graph = asked("a lemon\na mango", top_k=2)
    edited = graph.add("RealRAG_EditReferences", references=["2", 0], rank=1, weight=1.0, start_percent=0.0,
                       end_percent=1.0, negative=False)  # fmt: skip
    graph.add("PreviewAny", source=[edited, 1])
    open_graph(page, graph)
    page.run(LOOK)
    second = ids(page)[1]
    press(page, 1, "Mask")
    drawing = page.page.locator("dialog.realrag-drawing")
    assert "Where Mango counts" in drawing.inner_text()
    drawing.get_by_role("button", name="Right", exact=True).click()
    box = drawing.locator("canvas").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.3, steps=8)
    page.page.mouse.up()
    drawing.get_by_role("button", name="Save", exact=True).click()
    drawing.wait_for(state="detached")
    ((id, mask),) = read_masks(page.widgets(KIND)["masks"]).items()
    assert id == second and bool(mask[:, 32:].all()), "the right half"
    assert bool((mask[8:18, 4:9] == 1).all()) and mask[40:, :32].sum() == 0, "a stroke in the upper left"
    page.run()
    ran = page.evaluate("() => window.realragRuns.at(-1).detail.prompt_id")
    outputs = page.server.json(f"/history/{ran}")[ran]["outputs"].values()
    (text,) = [output["text"][0] for output in outputs if "text" in output]
    assert text.splitlines()[0].startswith("1. plain") and text.splitlines()[1].startswith("2. masked")
    press(page, 1, "Mask")
    drawing.get_by_role("button", name="Clear", exact=True).click()
    drawing.get_by_role("button", name="Save", exact=True).click()
    assert page.widgets(KIND)["masks"] == "", "no mask is everywhere"


def test_a_pin_that_is_gone_is_said_and_hides_nothing(page: RealPage):
    open_graph(page, asked("a photo of garlic", pinned="0123456789abcdef"))
    page.run(LOOK)
    assert len(ids(page)) == 3
    page.page.get_by_text("Pinned, but not in this library: '0123456789abcdef'.").wait_for()
    page.page.get_by_text("1 pinned").click()
    assert page.widgets(KIND)["pinned"] == ""


def test_nothing_found_is_said_in_words(page: RealPage):
    open_graph(page, asked("a puffin", doubt="leave out"))
    page.run(LOOK)
    assert ids(page) == []
    page.page.get_by_text("Nothing here fits: best 0.").wait_for()


def test_what_another_node_gives_is_not_changed_by_a_click(page: RealPage):
    graph = asked("a photo of garlic")
    graph["2"]["inputs"]["pinned"] = [graph.add("PrimitiveString", value="65c57a01aeaeebfa"), 0]
    open_graph(page, graph)
    page.run(LOOK)
    assert ids(page)[0] == "65c57a01aeaeebfa"
    pin = page.page.locator(".realrag-card").first.get_by_role("button", name="Pin", exact=True)
    assert pin.is_disabled() and "another node" in pin.get_attribute("title")


def test_it_looks_from_within_a_subgraph(page: RealPage):
    open_graph(page, asked("a photo of garlic"))
    page.evaluate(
        f"""() => {{ const node = {NODE}; window.within = app.graph.convertToSubgraph(new Set([node])).node;
        app.canvas.openSubgraph(window.within.subgraph, window.within); }}"""
    )
    page.page.wait_for_timeout(500)
    inner = f"window.within.subgraph.nodes.find((node) => node.type === '{KIND}')"
    page.run(f"() => {inner}.realragCards.look()")
    assert page.evaluate(f"() => {inner}.realragCards.photos.length") == 3
    page.evaluate("() => app.canvas.setGraph(app.rootGraph ?? app.graph.rootGraph)")


def test_graphs_that_were_saved_before_load_unchanged(page: RealPage):
    """What the page saves again is what was saved, with the new inputs at their defaults; the cards are not saved."""
    for path in SAVED:
        saved = json.loads(path.read_text())
        befores = [node for node in saved["nodes"] if node["type"] == KIND]
        afters = page.evaluate(
            """async ([graph, kind]) => {
                await app.loadGraphData(graph);
                return app.graph.serialize().nodes.filter((node) => node.type === kind);
            }""",
            [saved, KIND],
        )
        assert befores and len(befores) == len(afters), path.name
        for before, after in zip(befores, afters, strict=True):
            values = before["widgets_values"]
            assert after["widgets_values"][: len(values)] == values, path.name
            assert after["widgets_values"][11:] == ["", 1, ""], path.name
            for part in ("inputs", "outputs"):
                names = [[slot["name"] for slot in node[part] if slot.get("link")] for node in (before, after)]
                assert names[0] == names[1], path.name


def test_text_boxes_that_another_node_fills_leave_no_hole(page: RealPage):
    if page.nodes2:
        pytest.skip("Nodes 2.0 gives a linked box one line by itself")
    graph = asked("", top_k=1)
    words = graph.add("PrimitiveStringMultiline", value="a lemon")
    graph["2"]["inputs"] |= {"prompt": [words, 0], "look_for": [words, 0]}
    open_graph(page, graph)
    heights = f"""() => Object.fromEntries({NODE}.widgets.filter((widget) => ["prompt", "look_for"].includes(widget.name))
        .map((widget) => [widget.name, widget.computedHeight]))"""
    linked = page.evaluate(heights)
    assert set(linked) == {"prompt", "look_for"} and all(height <= 24 for height in linked.values()), linked
    page.evaluate(f"() => {NODE}.disconnectInput({NODE}.inputs.findIndex((slot) => slot.name === 'prompt'))")
    page.show(0, 0)
    assert page.evaluate(heights)["prompt"] > 40, "its own text again"
