"""Every node of the pack on the page: what a bypass hands on, names linked in, fingerprints, and what runs write."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from controls_world import retrieved
from injection_world import DIALS, photo, synthetic
from safetensors.torch import save_file

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.fixture
def nodes(world):
    """Every node class of the pack, by id."""
    found = asyncio.run(world.plugin("nodes").RealRAGExtension().get_node_list())
    return {node.define_schema().node_id: node for node in found}


def sockets(node) -> list[tuple[str, str]]:
    """Names and types of a node's input slots as the page orders them: sockets first, then the widgets' own."""
    inputs = node.INPUT_TYPES()
    named = [(n, spec) for part in ("required", "optional") for n, spec in inputs.get(part, {}).items()]
    typed = [(n, "COMBO" if isinstance(spec[0], list) else spec[0]) for n, spec in named]
    return [one for one in typed if one[1] not in WIDGETS] + [one for one in typed if one[1] in WIDGETS]


def bypassed(node, slot: int) -> str | None:
    """The input that the page hands on for an output of a bypassed node: that at its slot, else the first of its type."""
    found, kind = sockets(node), node.RETURN_TYPES[slot]
    if slot < len(found) and found[slot][1] == kind:
        return found[slot][0]
    return next((name for name, other in found if other == kind), None)


# What a bypass hands on: output -> input. Outputs that are not named here have none.
BYPASSED = {
    "RealRAG_Credits": {"images": "images"},
    "RealRAG_InjectReferences": {
        "model": "model", "conditioning": "conditioning", "latent": "latent", "negative": "negative",
        "report": "custom_profile",  # a widget: nothing, unless a text is linked to it
    },
    "RealRAG_EditReferences": {"references": "references"},
    "RealRAG_RetrieveReferences": {
        "images": "image", "scores": "prompt", "credits": "class_filter",
        "best_score": "diversity",  # a widget: nothing, unless a number is linked to it
    },
    "RealRAG_CheckReferences": {"sheet": "image"},
}  # fmt: skip


def test_a_bypassed_node_hands_on_what_came_in_for_each_output(nodes):
    for name, node in nodes.items():
        found = {out: bypassed(node, slot) for slot, out in enumerate(node.RETURN_NAMES)}
        handed = {out: into for out, into in found.items() if into is not None}
        assert {o: i for o, i in handed.items() if i not in texts(node)} == {
            o: i for o, i in BYPASSED.get(name, {}).items() if i not in texts(node)
        }, name


def texts(node) -> set[str]:
    """Widgets that hold a text: a bypass hands on what is linked to them, and mostly nothing is."""
    return {name for name, kind in sockets(node) if kind == "STRING"}


OUTPUTS = {  # the order on the wire of graphs that were saved before; later outputs come behind
    "RealRAG_InjectReferences": ["model", "report", "conditioning", "latent", "negative"],
    "RealRAG_LoadReferenceAdapter": ["adapter"],
    "RealRAG_LoadRetriever": ["retriever", "clip_vision"],
    "RealRAG_RetrieveReferences": ["references", "images", "scores", "credits"],
    "RealRAG_EditReferences": ["references", "settings"],
    "RealRAG_SaveReferencePack": ["pack"],
    "RealRAG_LoadReferencePack": ["pack", "credits"],
    "RealRAG_LoadMiniature": ["model", "clip", "vae", "clip_vision"],
}
WIDGET_ORDER = [  # of the values in graphs that were saved before
    "strength", "start_percent", "end_percent", "path", "downsampling", "preset", "combine", "profile",
    "custom_profile", "apply_to", "batch", "text_rows", "balance", "score_temperature",
]  # fmt: skip


def test_graphs_that_were_saved_before_find_their_outputs_and_values_where_they_were(nodes):
    for name, outputs in OUTPUTS.items():
        assert list(nodes[name].RETURN_NAMES)[: len(outputs)] == outputs, name
    found = [name for name, kind in sockets(nodes["RealRAG_InjectReferences"]) if kind in WIDGETS]
    assert found[: len(WIDGET_ORDER)] == WIDGET_ORDER


def test_every_name_may_be_linked_in_and_no_fingerprint_raises(nodes):
    """A linked input is None, or absent, when a node is validated and fingerprinted; so is whatever else went wrong."""
    for name, node in nodes.items():
        combos = [n for n, kind in sockets(node) if kind == "COMBO"]
        for given in ({}, dict.fromkeys(combos), dict.fromkeys(combos, "no such name")):
            if "fingerprint_inputs" in vars(node):
                known = [n for n in given if n in node.fingerprint_inputs.__func__.__code__.co_varnames]
                first, again = (node.fingerprint_inputs(**{n: given[n] for n in known}) for _ in range(2))
                # Add Credits has something to do in every prompt; nothing else runs again for nothing
                assert (json.dumps(first) == json.dumps(again)) == (name != "RealRAG_Credits"), name
        if "validate_inputs" in vars(node):
            known = [n for n in combos if n in node.validate_inputs.__func__.__code__.co_varnames]
            assert node.validate_inputs(**dict.fromkeys(known)) is True, name
            assert node.validate_inputs() is True, name


def test_a_linked_name_that_is_not_listed_is_refused_in_words_when_it_arrives(world, nodes):
    errors = world.plugin("realrag.errors").RealRAGError
    for name, given in {
        "RealRAG_LoadReferenceAdapter": dict(adapter="../secret.safetensors"),
        "RealRAG_LoadReferencePack": dict(pack="../secret.safetensors"),
        "RealRAG_LoadRetriever": dict(bundle="../secret"),
        "RealRAG_LoadMiniature": dict(family="../secret"),
    }.items():
        if name in nodes:
            with pytest.raises(errors, match="secret"):
                nodes[name].execute(**given)


def test_the_same_photos_are_written_for_the_page_once(world, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path / "temp"))
    preview = world.plugin("nodes.retrieval.preview")
    first = preview.shown(retrieved(world, 1, 2))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "temp").iterdir()}
    again = preview.shown(retrieved(world, 1, 2))
    assert first == again and len(first["images"]) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "temp").iterdir()} == written
    preview.shown(retrieved(world, 2, 1))  # other ranks: other cards of the same photos
    assert len(list((tmp_path / "temp").iterdir())) == len(written) + 2


def vision_weights(width=24, embedding=None, head=None, places=5):
    """The names and shapes by which a vision file is told."""
    weights = {
        "vision_model.embeddings.patch_embedding.weight": torch.zeros(width, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": torch.zeros(places, width),
    }
    if embedding:
        weights["visual_projection.weight"] = torch.zeros(embedding, width)
    if head:
        weights["vision_model.head.probe"] = torch.zeros(1, 1, head)
    return weights


@pytest.fixture
def models(world, tmp_path, monkeypatch):
    """Folders of adapters and vision models: `put(kind, name, weights)` writes a file."""
    import folder_paths

    folders = {"realrag_adapters": tmp_path / "adapters", "clip_vision": tmp_path / "vision"}
    for name, folder in folders.items():
        folder.mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(folder)], {".safetensors"}))

    def put(kind, name, weights):
        save_file(weights, folders[kind] / name)
        folder_paths.filename_list_cache.clear()

    yield put
    folder_paths.filename_list_cache.clear()


def test_the_loader_finds_the_vision_model_by_its_content(world, models):
    node = world.plugin("nodes.injection.load_adapter").LoadReferenceAdapter
    models("realrag_adapters", "flux.safetensors", synthetic.xlabs(encoder=24))
    models("realrag_adapters", "sd35.safetensors", synthetic.instantx(encoder=24))
    models("clip_vision", "a - other width.safetensors", vision_weights(width=16, embedding=32))
    models("clip_vision", "b - not a vision model.safetensors", {"weight": torch.zeros(2)})
    _, missing, report = node.execute("flux.safetensors").result
    assert type(missing).__name__ == "ExecutionBlocker" and "models/clip_vision" in missing.message
    assert "press R" in report
    models("clip_vision", "c - hidden states.safetensors", vision_weights(width=24))
    models("clip_vision", "d - embeds.safetensors", vision_weights(width=40, embedding=24))
    _, vision, report = node.execute("flux.safetensors").result
    assert vision.path.name == "d - embeds.safetensors" and vision.path.name in report
    assert node.execute("sd35.safetensors").result[1].path.name == "c - hidden states.safetensors"
    chosen = node.execute("flux.safetensors", "a - other width.safetensors").result[1]
    assert chosen.path.name == "a - other width.safetensors"
    with pytest.raises(world.adapter_error, match="cannot read"):  # sizes that no published model has
        vision.encode_image(photo(1))


def test_what_comfyui_asks_of_every_output_reads_no_vision_file(world, models):
    """Its memory management does; an error there ends the thread that runs prompts, and every later one waits for ever."""
    node = world.plugin("nodes.injection.load_adapter").LoadReferenceAdapter
    models("realrag_adapters", "flux.safetensors", synthetic.xlabs(encoder=24))
    models("clip_vision", "broken.safetensors", {"weight": torch.zeros(2)})
    vision = node.execute("flux.safetensors", "broken.safetensors").result[1]
    assert getattr(vision, "patcher", None) is None and getattr(vision, "get_models", None) is None
    with pytest.raises(world.adapter_error, match=r"cannot read broken\.safetensors"):
        vision.encode_image(photo(1))
    vision.__dict__["loaded"] = type("Loaded", (), {"patcher": "its patcher"})()
    assert vision.patcher == "its patcher"


def test_the_published_sizes_are_told_from_their_neighbors(world):
    files = world.plugin("realrag.adapters.vision_files")
    spec = world.plugin("realrag.adapters").detect(synthetic.xlabs(encoder=768))

    def serves(**sizes):
        shapes = {key: tuple(tensor.shape) for key, tensor in vision_weights(**sizes).items()}
        return files.inspect_vision(shapes).serves(spec)

    assert serves(width=1024, embedding=768, places=257)  # CLIP ViT-L/14 at 224 pixels
    assert not serves(width=1024, embedding=768, places=577)  # at 336
    assert not serves(width=1280, embedding=1024, places=257)  # ViT-H/14
    assert "openai/clip-vit-large-patch14" in files.how_to_get(spec)


def test_the_shipped_adapter_brings_the_shipped_encoder_and_three_nodes_make_a_picture(world):
    loader = world.plugin("nodes.injection.load_adapter")
    shipped = [name for name in loader.adapters() if name.endswith("(shipped)")]
    if not shipped:
        pytest.skip("The package holds no miniatures")
    adapter, vision, report = loader.LoadReferenceAdapter.execute(shipped[0]).result
    assert "comes with RealRAG" in report
    model = (
        world.plugin("nodes.miniature.load_miniature")
        .LoadMiniature.execute(shipped[0].removesuffix(" (shipped)"))
        .result[0]
    )
    out = world.inject.InjectReferences.execute(
        model, image=photo(1), adapter=adapter, clip_vision=vision, **DIALS
    ).result
    assert "Path: adapter" in out[1]
