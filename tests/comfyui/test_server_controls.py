"""Edited references, the further settings and reference packs in a real ComfyUI server, over HTTP."""

from __future__ import annotations

import pytest
import synthetic_adapters
from comfy_server import Graph, Refused, Server
from safetensors.torch import save_file
from test_server import inject, model_and_vae, retrieval, sample, shown_hash, shown_text


def edit(graph: Graph, references: str, **changes) -> str:
    plain = dict(rank=1, weight=1.0, start_percent=0.0, end_percent=1.0, negative=False)
    return graph.add("RealRAG_EditReferences", references=[references, 0], **{**plain, **changes})


@pytest.mark.parametrize("family", ["flux", "sd35"])
def test_every_dial_works_and_the_plain_ones_change_nothing(server: Server, family: str):
    graph = Graph()
    model, vae = model_and_vae(graph, server, family)
    found = retrieval(graph, top_k=2)
    mask = graph.add("SolidMask", value=0.5, width=40, height=24)
    edited = {
        "plain": edit(graph, found), "weight": edit(graph, found, weight=3.0), "mask": edit(graph, found, mask=[mask, 0]),
        "window": edit(graph, found, end_percent=0.3), "negative": edit(graph, found, rank=2, negative=True),
    }  # fmt: skip
    arms = {name: inject(graph, model, vae, node) for name, node in edited.items()}
    settings = {
        "usual": dict(preset="as set below", combine="concat", profile="linear", custom_profile="", apply_to="positive"),
        "usual too": dict(batch="all", text_rows=True, balance=0.0, score_temperature=0.0),
        "preset": dict(preset="subtle"), "sum": dict(combine="sum"), "ease": dict(profile="ease out"),
        "custom": dict(profile="custom", custom_profile="0.5, 1"), "both": dict(apply_to="both"),
        "one": dict(batch="one per latent"), "balance": dict(balance=0.1), "scores": dict(score_temperature=0.01),
    }  # fmt: skip
    for name, more in settings.items():
        arms[name] = inject(graph, model, vae, found)
        graph[arms[name]]["inputs"] |= more
    arms["untouched"] = inject(graph, model, vae, found)
    shown = {name: shown_hash(graph, sample(graph, node)) for name, node in arms.items()}
    report = graph.add("RealRAGTest_ShowText", text=[arms["weight"], 1])
    settings = graph.add("RealRAGTest_ShowText", text=[edited["negative"], 1])
    run = server.run(graph)
    hashes = {name: shown_text(run, node) for name, node in shown.items()}
    same = {name for name, value in hashes.items() if value == hashes["untouched"]}
    assert same == {"untouched", "plain", "usual", "usual too"}
    assert "Reference 1: weight 3." in shown_text(run, report)
    assert "2. negative" in shown_text(run, settings)


@pytest.mark.parametrize(
    "wrong",
    [dict(combine="multiply"), dict(profile="zigzag"), dict(preset="loud"), dict(batch="two"), dict(balance=-1.0)],
)
def test_values_that_mean_nothing_never_give_a_picture(server: Server, wrong: dict):
    graph = Graph()
    model, vae = model_and_vae(graph, server, "sd3")
    arm = inject(graph, model, vae, retrieval(graph))
    graph[arm]["inputs"] |= wrong
    picture = shown_hash(graph, sample(graph, arm))
    try:
        run = server.wait(server.queue(graph))
    except Refused:
        return
    # ComfyUI runs what does not need the wrong node: Retrieve Real References, which shows its photos.
    assert picture not in run.outputs


def test_a_pack_is_saved_listed_and_gives_the_same_picture(server: Server):
    folder = server.base / "models" / "realrag_adapters"
    folder.mkdir(exist_ok=True)
    save_file(synthetic_adapters.xlabs(width=256, blocks=2, encoder=24), folder / "tiny_xlabs.safetensors")
    graph = Graph()
    model, vae = model_and_vae(graph, server, "flux")
    parts = {
        "adapter": [graph.add("RealRAG_LoadReferenceAdapter", adapter="tiny_xlabs.safetensors"), 0],
        "clip_vision": [graph.add("RealRAGTest_TinyClipVision"), 0],
    }
    found = edit(graph, retrieval(graph, top_k=2), weight=2.0)
    plain = dict(model=[model, 0], name="apples", precision="full", overwrite=True)
    graph.add("RealRAG_SaveReferencePack", references=[found, 0], **plain, **parts)
    arm = inject(graph, model, vae, found)
    graph[arm]["inputs"] |= parts
    shown = shown_hash(graph, sample(graph, arm))
    expected = shown_text(server.run(graph), shown)
    assert (server.base / "models" / "realrag_packs" / "apples.safetensors").is_file()

    graph = Graph()
    model, _ = model_and_vae(graph, server, "flux")
    pack = graph.add("RealRAG_LoadReferencePack", pack="apples.safetensors")
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    arm = graph.add("RealRAG_InjectReferences", model=[model, 0], pack=[pack, 0], **settings)
    shown = shown_hash(graph, sample(graph, arm))
    credits = graph.add("RealRAGTest_ShowText", text=[pack, 1])
    run = server.run(graph)
    assert shown_text(run, shown) == expected
    assert "weight 2" in shown_text(run, credits)


@pytest.mark.parametrize("name", ["../../secrets.safetensors", "/etc/passwd", "C:\\x.safetensors", "no-such-pack", ""])
def test_a_pack_that_is_not_in_the_list_is_never_opened(server: Server, name: str):
    graph = Graph()
    model, _ = model_and_vae(graph, server, "sd3")
    pack = graph.add("RealRAG_LoadReferencePack", pack=name)
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    shown_hash(
        graph, sample(graph, graph.add("RealRAG_InjectReferences", model=[model, 0], pack=[pack, 0], **settings))
    )
    with pytest.raises(Refused):
        server.queue(graph)
