"""A real ComfyUI server draws for the trainer: a workflow in API format, filled by title, fetched as a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfy_server import Graph, Server
from test_server import inject, model_and_vae, retrieval, sample

# The trainer talks to ComfyUI from outside and needs not be installed in ComfyUI's own Python.
pytest.importorskip("realrag_train", reason="the trainer is not installed here: `pip install -e .`")
from realrag_train.generators.comfyui import ComfyUI
from realrag_train.generators.errors import GeneratorError


@pytest.fixture(scope="module")
def workflow(server: Server, tmp_path_factory):
    """Prompt -> references -> tiny SD3 -> saved picture, with titles as an artist gives them."""
    graph = Graph()
    words = retrieval(graph, prompt="nothing yet", top_k=1)
    model, vae = model_and_vae(graph, server, "sd3")
    latent = sample(graph, inject(graph, model, vae, words))
    decoded = graph.add("VAEDecode", samples=[latent, 0], vae=[vae, 0])
    graph.add("PreviewImage", images=[words, 1])
    graph.add("SaveImage", images=[decoded, 0], filename_prefix="drawn")
    for node, title in ((words, "My words"), (latent, "My seed")):
        graph[node]["_meta"] = {"title": title}
    path = tmp_path_factory.mktemp("flow") / "flow.json"
    path.write_text(json.dumps(graph))
    return path


def test_a_comfyui_server_draws_what_prompt_and_seed_say(server: Server, workflow):
    generator = ComfyUI(workflow, server.url, prompt_node="My words", seed_node="My seed")
    apples, again, seeded, milk = (
        np.asarray(generator.draw(prompt, seed))
        for prompt, seed in (("green apples", 1), ("green apples", 1), ("green apples", 2), ("a carton of milk", 1))
    )
    assert apples.shape == (64, 64, 3)
    np.testing.assert_array_equal(apples, again)
    assert (apples != seeded).any() and (apples != milk).any()


def test_what_the_server_refuses_or_cannot_run_is_told_with_its_words(server: Server, workflow, tmp_path):
    graph = json.loads(workflow.read_text())
    for node in graph.values():
        if node["class_type"] == "UNETLoader":
            node["inputs"]["unet_name"] = "not-here.safetensors"
    (tmp_path / "refused.json").write_text(json.dumps(graph))
    with pytest.raises(GeneratorError, match="not-here"):
        ComfyUI(tmp_path / "refused.json", server.url, prompt_node="My words", seed_node="My seed").draw("pear", 1)
    generator = ComfyUI(workflow, server.url, prompt_node="My words", seed_node="My seed")
    with pytest.raises(GeneratorError, match="RealRAG_RetrieveReferences"):
        generator.draw("", 1)
