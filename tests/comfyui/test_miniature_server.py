"""The miniatures in a real ComfyUI server: the node is in the menu, and the graph to start with runs as it ships."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfy_server import ROOT, Graph, Refused, Server
from miniature_files import pack_with_random_miniatures
from PIL import Image
from tiny_encoders import write_tiny_clip, write_tiny_general, write_tiny_vit

from realrag.encoders.load import load_encoder
from realrag.indexing.build import build
from realrag.indexing.options import IndexOptions
from realrag_train.maintainer_tools import tool

START = ROOT / "workflows" / "RealRAG 01 Start here.json"
make_workflows = tool("make_workflows")


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    """A server whose pack holds miniatures of random weights, whatever ships."""
    base = tmp_path_factory.mktemp("comfyui-miniature")
    server = Server(base, pack=pack_with_random_miniatures(base / "pack"))
    yield server
    server.stop()


def loaded(graph: Graph, family: str) -> str:
    """Load Miniature -> prompt -> KSampler -> VAE Decode -> Save Image; returns the last."""
    mini = graph.add("RealRAG_LoadMiniature", family=family)
    said = [graph.add("CLIPTextEncode", clip=[mini, 1], text=text) for text in ("a (red:1.2) apple", "")]
    latent = graph.add("EmptySD3LatentImage", width=128, height=128, batch_size=2)
    sampled = graph.add(
        "KSampler", model=[mini, 0], positive=[said[0], 0], negative=[said[1], 0], latent_image=[latent, 0], seed=7,
        steps=2, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    decoded = graph.add("VAEDecode", samples=[sampled, 0], vae=[mini, 2])
    return graph.add("SaveImage", images=[decoded, 0], filename_prefix="miniature")


def test_the_node_offers_the_families_that_are_there_as_model_clip_vae_and_clip_vision(server: Server):
    info = server.json("/object_info/RealRAG_LoadMiniature")["RealRAG_LoadMiniature"]
    assert info["output"] == ["MODEL", "CLIP", "VAE", "CLIP_VISION"]
    assert info["input"]["required"]["family"][1]["options"] == ["SD3 miniature", "Flux miniature"]


def test_the_miniatures_are_in_no_list_of_the_artists_own_models(server: Server):
    for folder in server.json("/models"):
        assert not {"sd3.safetensors", "flux.safetensors", "autoencoder.safetensors"} & set(
            server.json(f"/models/{folder}")
        )


@pytest.mark.parametrize("family", ["SD3 miniature", "Flux miniature"])
def test_a_prompt_ends_as_saved_pictures_and_memory_comes_back(server: Server, family: str):
    graph = Graph()
    saved = loaded(graph, family)
    pictures = [server.picture(image) for image in server.run(graph).outputs[saved]["images"]]
    assert len(pictures) == 2 and all(picture.shape == (128, 128, 3) and picture.std() > 0 for picture in pictures)
    server.forget()
    again = server.run(graph)
    assert not again.cached
    for picture, image in zip(pictures, again.outputs[saved]["images"], strict=True):
        assert (server.picture(image) == picture).all()


@pytest.mark.parametrize("family", ["", "sd3", "../../sd3", "SD3 miniature/..", "SD3\0miniature"])
def test_an_unknown_family_is_refused_before_anything_runs(server: Server, family: str):
    graph = Graph()
    loaded(graph, family)
    with pytest.raises(Refused) as refusal:
        server.queue(graph)
    assert refusal.value.code == 400 and "No miniature is called" in str(refusal.value)


OTHERS = {"general": write_tiny_general, "open_clip": write_tiny_clip, "transformers": write_tiny_vit}


@pytest.fixture(scope="module", params=OTHERS)
def other_library(server: Server, request, tmp_path_factory) -> str:
    """The name of an artist's own library, of photos of noise, made with an encoder that is not the miniatures'."""
    kind, base = request.param, tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    for number in range(6):
        path = base / "photos" / ("garlic", "lemon")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    encoder = load_encoder(str(OTHERS[kind](base / "encoder")))
    folder = server.base / "models" / "realrag" / f"own-{kind}"
    build(base / "photos", folder, encoder, IndexOptions(with_encoder=True))
    return folder.name


def pictures(server: Server, graph: dict, **changed: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture without references and the one with them, after two steps each. graph: in API format; `changed`: other
    values of widgets, by what they were."""
    for node in graph.values():
        inputs = {
            name: changed.get(value, value) if isinstance(value, str) else value
            for name, value in node["inputs"].items()
        }
        node["inputs"] = inputs | ({"steps": 2} if node["class_type"] == "KSampler" else {})
    run = server.run(graph)
    shown = {inner["class_type"]: run.outputs.get(node, {}) for node, inner in graph.items()}
    texts = [run.outputs[node]["text"][0] for node, inner in graph.items() if inner["class_type"] == "PreviewAny"]
    assert shown["RealRAG_RetrieveReferences"]["images"] and any("Path: " in text for text in texts)
    (pair,) = (server.picture(image) for image in shown["SaveImage"]["images"])
    half = pair.shape[1] // 2
    return pair[:, :half], pair[:, half:]


def start(server: Server) -> dict:
    return make_workflows.as_prompt(json.loads(START.read_text()), server.json("/object_info"))


def test_the_graph_to_start_with_runs_as_it_ships_and_its_two_pictures_differ(server: Server):
    plain, steered = pictures(server, start(server))
    assert steered.shape == plain.shape == (384, 384, 3) and (steered != plain).any()


def test_the_graph_to_start_with_takes_a_library_of_any_encoder(server: Server, other_library: str):
    """Load Miniature hands out the encoder that the miniature's adapter was trained on, whatever the library's is."""
    plain, steered = pictures(server, start(server), **{"sample (shipped)": other_library})
    assert (steered != plain).any()


@pytest.mark.parametrize("name", ["SD3 miniature", "Flux miniature"])
@pytest.mark.parametrize("adapter", [True, False])
def test_it_runs_with_each_family_with_its_adapter_and_without_one(server: Server, name: str, adapter: bool):
    graph = start(server)
    if not adapter:
        inject = next(node for node in graph.values() if node["class_type"] == "RealRAG_InjectReferences")
        for part in ("adapter", "clip_vision"):
            del inject["inputs"][part]
        mini = next(key for key, node in graph.items() if node["class_type"] == "RealRAG_LoadMiniature")
        inject["inputs"]["vae"] = [mini, 2]
    plain, steered = pictures(server, graph, **{"SD3 miniature": name, "SD3 miniature (shipped)": f"{name} (shipped)"})
    assert (steered != plain).any()
