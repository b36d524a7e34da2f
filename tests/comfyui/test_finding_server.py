"""What an artist gets for a prompt in a real ComfyUI server: photos by name, doubt, objects with masks, older graphs."""

from __future__ import annotations

import json

import pytest
from comfy_server import ROOT, Graph, Refused, Server
from test_server import inject, model_and_vae, retrieval, sample, shown_hash, shown_text

from realrag_train.maintainer_tools import tool

make_workflows = tool("make_workflows")

# The photos that commit fa6ddab, the last before there were names and doubt, gave for these prompts, best first.
BEFORE = {
    "a photo of garlic": ["65c57a01aeaeebfa", "fc6dec4c3836bbcd", "fb9247e91b6ccfbe"],
    "green apples": ["e398332c69e3cb80", "9bfc95d9670269ae", "07b643214154d083"],
    "a puffin": ["c53371deb8e9e1f3", "683a7bdd622d36c0", "0684f1bc30060d48"],
    "a red car next to a lemon, masterpiece, 8k": ["9c16053bc3fda25d", "68716636898364b0", "7d88b09c1a6d67e6"],
}


def scores(server: Server, graph: Graph, found: str) -> list[str]:
    """Run the graph; the lines of this node's scores text."""
    shown = graph.add("RealRAGTest_ShowText", text=[found, 2])
    return shown_text(server.run(graph), shown).splitlines()


def photos(lines: list[str]) -> list[str]:
    return [line.split()[2] for line in lines if line[:1].isdigit() and line.split()[0].endswith(".")]


@pytest.mark.parametrize("prompt", BEFORE)
def test_by_look_without_doubt_the_photos_are_those_of_before(server: Server, prompt: str):
    graph = Graph()
    found = retrieval(graph, prompt, top_k=3, find_by="look", doubt="keep")
    assert photos(scores(server, graph, found)) == BEFORE[prompt]


@pytest.mark.parametrize("name", ["realrag_start_here", "realrag_controlnet_sd35"])
def test_a_graph_saved_by_the_page_before_still_finds_its_photos(server: Server, name: str):
    """The retrieval of a saved graph as the page sends it: values by position, links by name."""
    info = server.json("/object_info")
    saved = json.loads((ROOT / "tests" / "data" / "saved-by-0.1.0" / f"{name}.json").read_text())
    nodes = {node["id"]: node for node in saved["nodes"]}
    origins = {link[0]: [str(link[1]), link[2]] for link in saved["links"]}
    wanted = ("RealRAG_LoadRetriever", "PrimitiveStringMultiline", "RealRAG_RetrieveReferences")
    graph = Graph()
    for identity, node in nodes.items():
        if node["type"] in wanted:
            known = info[node["type"]]["input"]
            inputs = {**known["required"], **known.get("optional", {})}
            named = [
                key for key, (kind, *_) in inputs.items() if isinstance(kind, list) or kind in make_workflows.WIDGETS
            ]
            values = dict(zip(named, node["widgets_values"], strict=False))  # inputs that came later are not sent
            values |= {slot["name"]: origins[slot["link"]] for slot in node["inputs"] if slot["link"] in origins}
            graph[str(identity)] = {"class_type": node["type"], "inputs": values}
    found = next(key for key, node in graph.items() if node["class_type"] == "RealRAG_RetrieveReferences")
    assert not {"look_for", "find_by", "doubt"} & set(graph[found]["inputs"])
    graph["900"] = {"class_type": "RealRAGTest_ShowText", "inputs": {"text": [found, 2]}}
    lines = shown_text(server.run(graph), "900").splitlines()
    assert len(photos(lines)) == graph[found]["inputs"]["top_k"] and all("by name" in line for line in lines)
    if name == "realrag_start_here":
        assert photos(lines) == BEFORE["a photo of garlic"]


def test_what_the_library_lacks_gives_one_card_and_a_picture_without_references(server: Server):
    graph = Graph()
    found = retrieval(graph, "a puffin")
    shown = graph.add("RealRAGTest_ShowText", text=[found, 2])
    edited = graph.add(
        "RealRAG_EditReferences", references=[found, 0], rank=1, weight=2.0, start_percent=0.0, end_percent=1.0,
        negative=False, object="lemon",
    )  # fmt: skip
    model, vae = model_and_vae(graph, server, "sd3")
    arms = {"found": inject(graph, model, vae, found), "edited": inject(graph, model, vae, edited), "plain": model}
    hashes = {name: shown_hash(graph, sample(graph, node)) for name, node in arms.items()}
    report = graph.add("RealRAGTest_ShowText", text=[arms["found"], 1])
    run = server.run(graph)
    assert shown_text(run, shown).startswith("Nothing here fits: best 0.")
    (card,) = run.outputs[found]["images"]
    assert server.picture(card).shape == (256, 512, 3)
    assert len({shown_text(run, node) for node in hashes.values()}) == 1
    assert "Nothing here fits" in shown_text(run, report)


def test_doubt_and_min_score_decide_what_is_left_out(server: Server):
    def found(**options) -> list[str]:
        graph = Graph()
        return scores(server, graph, retrieval(graph, "a puffin", **options))

    assert photos(found()) == photos(found(min_score=0.99)) == []
    kept = found(doubt="keep")
    assert len(photos(kept)) == 2 and all("by look" in line for line in kept[:2])
    best, second = (float(line.split()[1]) for line in kept[:2])
    assert best > second
    for doubt in ("keep", "leave out"):  # a bound of one's own counts alone
        assert photos(found(min_score=round((best + second) / 2, 4), doubt=doubt)) == photos(kept)[:1]
    assert f"best {best:.2f}" in " ".join(found(min_score=0.99, doubt="keep"))


def test_what_to_look_for_takes_the_place_of_the_prompt(server: Server):
    graph = Graph()
    long = "a dreamy still life in a wooden bowl, morning light, masterpiece, best quality, 8k, (bokeh:1.3)"
    alone, both, blank = (
        retrieval(graph, "a lemon"),
        retrieval(graph, long, look_for="a lemon"),
        retrieval(graph, "a lemon", look_for=" \n "),
    )
    shown = [graph.add("RealRAGTest_ShowText", text=[node, 2]) for node in (alone, both, blank)]
    run = server.run(graph)
    texts = {shown_text(run, node) for node in shown}
    assert len(texts) == 1 and "(by name; look alone " in texts.pop()


def test_a_mask_reaches_the_photos_of_its_object_alone(server: Server):
    graph = Graph()
    found = retrieval(graph, "a lemon next to a mango", top_k=4)
    mask = graph.add("SolidMask", value=0.0, width=64, height=64)
    settings = {"weight": 1.0, "start_percent": 0.0, "end_percent": 1.0, "negative": False}
    edited = graph.add(
        "RealRAG_EditReferences", references=[found, 0], rank=0, mask=[mask, 0], object="mango", **settings
    )
    model, vae = model_and_vae(graph, server, "flux")
    unmasked = inject(graph, model, vae, found)
    masked = inject(graph, model, vae, edited)
    hashes = {
        name: shown_hash(graph, sample(graph, node)) for name, node in {"unmasked": unmasked, "masked": masked}.items()
    }
    lines = [graph.add("RealRAGTest_ShowText", text=[node, slot]) for node, slot in ((found, 2), (edited, 1))]
    run = server.run(graph)
    answer, set_for = (shown_text(run, node).splitlines() for node in lines)
    assert [line.rpartition("[")[2] for line in answer[:4]] == ["a lemon]", "a lemon]", "a mango]", "a mango]"]
    assert ["masked" in line for line in set_for] == [False, False, True, True]
    assert [line.rpartition("[")[2] for line in set_for] == ["a lemon]", "a lemon]", "a mango]", "a mango]"]
    texts = {name: shown_text(run, node) for name, node in hashes.items()}
    assert texts["masked"] != texts["unmasked"]

    other = Graph(graph)
    other[edited] = {**graph[edited], "inputs": {**graph[edited]["inputs"], "object": "pear"}}
    stopped = server.wait(server.queue(other))
    assert stopped.status == "error"
    assert "'a lemon', 'a mango'" in stopped.events["execution_error"]["exception_message"]


@pytest.mark.parametrize("name", ["find_by", "doubt", "look_for"])
def test_odd_values_of_the_new_inputs_are_refused_or_answered_in_words(server: Server, name: str):
    for value in (None, 5, "", "nonsense", "\ud800", "a\0b", {"a": 1}, ["a", "b", "c"], True, float("nan")):
        graph = Graph()
        found = retrieval(graph, **{name: value})
        graph.add("RealRAGTest_ShowText", text=[found, 2])
        try:
            run = server.wait(server.queue(graph))
        except Refused as refusal:
            assert refusal.code == 400, value
            continue
        if run.status == "error":
            assert run.events["execution_error"]["exception_type"].endswith("QueryError"), (value, run.events)
    graph = Graph()
    graph.add("RealRAGTest_ShowText", text=[retrieval(graph), 2])
    server.run(graph)
