"""References through the prompt in a real ComfyUI server: the CONDITIONING output feeds a sampler, or says why not."""

from __future__ import annotations

import pytest
import synthetic_adapters
from comfy_server import Graph, Server
from safetensors.torch import save_file
from test_server import model_and_vae, retrieval, sample, shown_hash, shown_text
from test_server_controls import edit


def through_prompt(graph: Graph, model: str, color: int, **links) -> str:
    picture = graph.add("EmptyImage", width=64, height=48, batch_size=1, color=color)
    prompt = graph.add("RealRAGTest_Conditioning", seed=1)
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "downsampling": 1, **links}
    inputs = {"model": [model, 0], "image": [picture, 0], "conditioning": [prompt, 0], **settings}
    return graph.add("RealRAG_InjectReferences", **inputs)


def hashes(server: Server, graph: Graph, model: str, arms: dict[str, str]) -> dict[str, str]:
    """Sampled with each arm's model and prompt; "plain" with neither."""
    shown = {"plain": shown_hash(graph, sample(graph, model))}
    for name, arm in arms.items():
        latent = sample(graph, arm)
        graph[latent]["inputs"]["positive"] = [arm, 2]
        shown[name] = shown_hash(graph, latent)
    run = server.run(graph)
    return {name: shown_text(run, node) for name, node in shown.items()}


def test_redux_steers_the_picture_through_the_prompt(server: Server):
    folder = server.base / "models" / "realrag_adapters"
    folder.mkdir(exist_ok=True)
    save_file(synthetic_adapters.redux(width=64, encoder=24), folder / "tiny_redux.safetensors")
    graph = Graph()
    model, _ = model_and_vae(graph, server, "flux")
    links = {
        "adapter": [graph.add("RealRAG_LoadReferenceAdapter", adapter="tiny_redux.safetensors"), 0],
        "clip_vision": [graph.add("RealRAGTest_TinyClipVision"), 0],
    }
    arms = {name: through_prompt(graph, model, color, **links) for name, color in (("red", 0xFF0000), ("blue", 0xFF))}
    arms["strength 0"] = through_prompt(graph, model, 0xFF, **{**links, "strength": 0.0})
    found = hashes(server, graph, model, arms)
    assert found["strength 0"] == found["plain"] and len(set(found.values())) == 3


def test_masks_windows_and_negatives_of_retrieved_photos_count_through_the_prompt(server: Server):
    graph = Graph()
    model, vae = model_and_vae(graph, server, "flux")
    found = retrieval(graph, top_k=2)
    mask = graph.add("SolidMask", value=0.5, width=40, height=24)
    edited = {
        "plain": found, "mask": edit(graph, found, mask=[mask, 0]), "window": edit(graph, found, end_percent=0.3),
        "negative": edit(graph, found, rank=2, negative=True),
    }  # fmt: skip
    shown = {}
    for name, references in edited.items():
        positive, negative = (graph.add("RealRAGTest_Conditioning", seed=seed) for seed in (1, 2))
        links = {
            "references": [references, 0],
            "vae": [vae, 0],
            "conditioning": [positive, 0],
            "negative": [negative, 0],
        }
        settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "path": "reference latents"}
        arm = graph.add("RealRAG_InjectReferences", model=[model, 0], **links, **settings)
        latent = sample(graph, arm)
        graph[latent]["inputs"] |= {"positive": [arm, 2], "negative": [arm, 4]}
        shown[name] = shown_hash(graph, latent)
    run = server.run(graph)
    assert len({shown_text(run, node) for node in shown.values()}) == len(edited)


def test_reference_latents_steer_a_model_of_kontexts_kind(server: Server):
    graph = Graph()
    model, vae = model_and_vae(graph, server, "flux")
    links = {"vae": [vae, 0], "path": "reference latents"}
    arms = {name: through_prompt(graph, model, color, **links) for name, color in (("red", 0xFF0000), ("blue", 0xFF))}
    assert len(set(hashes(server, graph, model, arms).values())) == 3


@pytest.mark.parametrize("used", [False, True])
def test_a_prompt_that_is_used_but_not_connected_stops_in_words(server: Server, used: bool):
    graph = Graph()
    model, vae = model_and_vae(graph, server, "flux")
    arm = through_prompt(graph, model, 0xFF, vae=[vae, 0])
    del graph[arm]["inputs"]["conditioning"]
    latent = sample(graph, arm)
    if used:
        graph[latent]["inputs"]["positive"] = [arm, 2]
    shown, report = shown_hash(graph, latent), graph.add("RealRAGTest_ShowText", text=[arm, 1])
    run = server.run(graph)
    # ComfyUI tells the browser why it stopped there, and goes on with what does not hang on it.
    assert (shown in run.outputs) != used and "Path: shared attention" in shown_text(run, report)
