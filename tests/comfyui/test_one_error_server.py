"""One error for one fault in a real ComfyUI server, in a sentence with what there is; and sizes and files that are wrong."""

from __future__ import annotations

import json

import pytest
from comfy_server import Graph, Refused, Server

SHIPPED = "sample (shipped)"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Welcome</body></html>" * 40
# A node with one wrong name -> what its one error says of what there is.
WRONG_NAME = {
    "a library": ("LoadRetriever", {"bundle": "gone", "head": "auto"}, f"There are: {SHIPPED}"),
    "a library to describe": ("LibraryInfo", {"bundle": "gone"}, f"There are: {SHIPPED}"),
    "an adapter": ("LoadReferenceAdapter", {"adapter": "gone", "vision_file": "automatic"}, "SD3 miniature (shipped)"),
    "a miniature": ("LoadMiniature", {"family": "gone"}, "there are SD3 miniature and Flux miniature"),
    "a pack": ("LoadReferencePack", {"pack": "gone.safetensors"}, "There are: "),
    "a folder of photos": (
        "BuildLibrary",
        {"photos": "gone", "name": "new", "mode": "add these photos", "encoder": "automatic"},
        "under ComfyUI's input folder. There",
    ),
}


def fault(server: Server, kind: str, inputs: dict) -> list[str]:
    """What the page would show for a graph with this node, by validation or by running it."""
    graph = Graph()
    node = graph.add(f"RealRAG_{kind}", **inputs)
    graph.add("RealRAGTest_Sink", value=[node, 0])
    try:
        run = server.wait(server.queue(graph))
    except Refused as error:
        nodes = error.body["node_errors"].values()
        return [each["details"] for one in nodes for each in one["errors"]]
    return [run.events["execution_error"]["exception_message"]] if run.status == "error" else []


@pytest.mark.parametrize("kind, inputs, there", WRONG_NAME.values(), ids=WRONG_NAME)
def test_a_wrong_name_is_one_error_that_lists_what_there_is(server: Server, kind: str, inputs: dict, there: str):
    (only,) = fault(server, kind, inputs)
    assert "gone" in only
    assert there in only


# The second widget of a node is wrong: newer versions of ComfyUI look it up themselves, older ones leave it to the node.
SECOND = {
    "a head": ("LoadRetriever", {"bundle": SHIPPED, "head": "gone"}),
    "a vision file": ("LoadReferenceAdapter", {"adapter": "SD3 miniature (shipped)", "vision_file": "gone"}),
    "an encoder": (
        "BuildLibrary",
        {"photos": "(none: use the images)", "name": "new", "mode": "add these photos", "encoder": "gone"},
    ),
}


@pytest.mark.parametrize("kind, inputs", SECOND.values(), ids=SECOND)
def test_a_wrong_second_name_is_one_error_as_well(server: Server, kind: str, inputs: dict):
    (only,) = fault(server, kind, inputs)
    assert "gone" in only or "There are no photos" in only


def test_two_wrong_names_are_two_faults_and_each_is_said_once(server: Server):
    found = fault(server, "LoadReferenceAdapter", {"adapter": "gone", "vision_file": "missing"})
    assert len([each for each in found if each.startswith("adapter - No adapter named 'gone'")]) == 1
    assert len([each for each in found if "vision_file: 'missing' not in" in each]) <= 1
    assert len(found) <= 2


def test_a_web_page_in_the_place_of_a_model_is_called_so(server: Server):
    models = server.base / "models"
    for folder in ("realrag_adapters", "realrag_packs", "realrag/a page"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    (models / "realrag_adapters" / "page.safetensors").write_bytes(PAGE)
    (models / "realrag_adapters" / "page.bin").write_bytes(PAGE)
    (models / "realrag_packs" / "page.safetensors").write_bytes(PAGE)
    (models / "realrag" / "a page" / "manifest.json").write_bytes(PAGE)
    try:
        for kind, inputs in (
            ("LoadReferenceAdapter", {"adapter": "page.safetensors"}),
            ("LoadReferenceAdapter", {"adapter": "page.bin"}),
            ("LoadReferencePack", {"pack": "page.safetensors"}),
            ("LoadRetriever", {"bundle": "a page"}),
        ):
            (only,) = fault(server, kind, inputs)
            assert "it is a web page that was saved under this name" in only, (kind, only)
            assert "log in" in only
    finally:
        for path in [*models.rglob("page.*"), models / "realrag" / "a page" / "manifest.json"]:
            path.unlink()


@pytest.mark.parametrize(
    "size, refused", [((128, 128), False), ((256, 256), False), ((1024, 1024), True), ((128, 512), True)]
)
def test_a_picture_too_large_for_the_miniature_is_refused_in_a_sentence(server: Server, size, refused):
    info = json.dumps(server.json("/object_info/RealRAG_LoadMiniature"))
    if "SD3 miniature" not in info:
        pytest.skip("the SD3 miniature's weights are not in the package")
    graph = Graph()
    miniature = graph.add("RealRAG_LoadMiniature", family="SD3 miniature")
    prompt = graph.add("CLIPTextEncode", clip=[miniature, 1], text="a lemon")
    latent = graph.add("EmptySD3LatentImage", width=size[0], height=size[1], batch_size=1)
    sampled = graph.add(
        "KSampler", model=[miniature, 0], positive=[prompt, 0], negative=[prompt, 0], latent_image=[latent, 0],
        seed=7, steps=1, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    graph.add("RealRAGTest_Sink", value=[sampled, 0])
    run = server.wait(server.queue(graph))
    assert (run.status == "error") == refused
    if refused:
        error = run.events["execution_error"]
        assert error["exception_type"].endswith("realrag.errors.RealRAGError")
        assert (
            error["exception_message"]
            .strip()
            .startswith(f"The latent is for a picture of {size[0]} x {size[1]} pixels")
        )
        assert "Set the empty latent to 128 x 128" in error["exception_message"]
