"""An example graph with tiny models in its loaders' places, so that it runs here: everything else stays as it ships."""

from __future__ import annotations

import copy
from pathlib import Path

import synthetic_adapters as synthetic
from made_photos import photo_bytes
from safetensors.torch import save_file

TINY_SIDE, STEPS = 64, 2  # pixels on a side of a picture
# loader -> the test node in its place
LOADERS = {
    "UNETLoader": "RealRAGTest_TinyModel", "DualCLIPLoader": "RealRAGTest_TinyText", "CLIPLoader": "RealRAGTest_TinyText",
    "VAELoader": "RealRAGTest_TinyVae", "CheckpointLoaderSimple": "RealRAGTest_TinyCheckpoint",
    "ControlNetLoader": "RealRAGTest_TinyControlNet", "CLIPVisionLoader": "RealRAGTest_TinyClipVision",
}  # fmt: skip
# Which family a file is of, by how its name begins.
KINDS = {"flux1": "flux", "flux-2": "Flux2", "sd3.5": "sd35", "sd_xl": "SDXL"}
# adapter file of a graph -> the tiny one in its place
ADAPTERS = {
    "ip_adapter.safetensors": synthetic.xlabs(width=256, blocks=2, encoder=24),
    "flux-instantx-ip-adapter.bin": synthetic.instantx_flux(),
    "flux1-redux-dev.safetensors": synthetic.redux(width=64, encoder=24),
    "ip-adapter.bin": synthetic.instantx(width=128, blocks=2, encoder=24),
}
OWN = {"garlic": (230, 220, 200), "puffin": (20, 20, 30), "blue tit": (40, 90, 200)}


def put_files(base: Path) -> None:
    """What the graphs find on an artist's disk: tiny adapters, a pooling head, photos of one's own, a picture."""
    for folder in ("realrag_adapters", "clip_vision"):
        (base / "models" / folder).mkdir(parents=True, exist_ok=True)
    for name, weights in ADAPTERS.items():
        save_file(weights, base / "models" / "realrag_adapters" / tiny_name(name))
    save_file(synthetic.map_head(width=24), base / "models" / "clip_vision" / "siglip-so400m-patch14-384.safetensors")
    for thing, color in OWN.items():
        folder = base / "input" / "birds" / thing
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{thing}.jpg").write_bytes(photo_bytes(color, 1))
    (base / "input" / "example.png").write_bytes(photo_bytes((200, 200, 60), 2, format="PNG"))


def tiny_name(adapter: str) -> str:
    return f"tiny-{Path(adapter).stem}.safetensors"


def kind_of(graph: dict) -> str:
    values = [value for node in graph["nodes"] for value in node["widgets_values"] if isinstance(value, str)]
    return next((kind for value in values for start, kind in KINDS.items() if value.startswith(start)), "")


def tiny(graph: dict) -> dict:
    """The same graph with the loaders exchanged, small pictures and few steps. One of the miniature stays as it is."""
    graph, kind = copy.deepcopy(graph), kind_of(graph)
    for node in graph["nodes"]:
        values = node["widgets_values"]
        if node["type"] == "RealRAG_BuildLibrary":
            values[0] = "birds"
        if not kind:
            continue
        if node["type"] in LOADERS:
            vision = node["type"] == "CLIPVisionLoader"
            node["title"] = node.get("title", node["type"])
            node["type"] = LOADERS[node["type"]]
            node["widgets_values"], node["properties"] = [1280 if vision else kind], {}
        elif node["type"] == "RealRAG_LoadReferenceAdapter":
            vision_file = values[1] if "siglip" in values[1] else "automatic"
            node["widgets_values"] = [tiny_name(values[0]), vision_file, *values[2:]]
            node["properties"].pop("models")
            _see_through_tiny_eyes(graph, node)
        elif node["type"].startswith("Empty"):
            values[:2] = [TINY_SIDE, TINY_SIDE]
        elif node["type"] == "KSampler":
            values[2] = STEPS  # behind the seed and what becomes of it
        elif node["type"] == "Flux2Scheduler":
            node["widgets_values"] = [STEPS, TINY_SIDE, TINY_SIDE]
    return graph


def _see_through_tiny_eyes(graph: dict, adapter: dict) -> None:
    """The adapter's clip_vision comes from a tiny vision model, below all other nodes."""
    output = next(out for out in adapter["outputs"] if out["name"] == "clip_vision")
    identity = graph["last_node_id"] = graph["last_node_id"] + 1
    for link in graph["links"]:
        if link[0] in output["links"]:
            link[1:3] = [identity, 0]
    below = max(node["pos"][1] + node["size"][1] for node in graph["nodes"]) + 120
    graph["nodes"].append({
        "id": identity, "type": "RealRAGTest_TinyClipVision", "pos": [0, below], "size": [300, 120], "flags": {},
        "order": 0, "mode": 0, "inputs": [], "properties": {}, "widgets_values": [24],
        "outputs": [{"name": "CLIP_VISION", "type": "CLIP_VISION", "links": output["links"], "slot_index": 0}],
    })  # fmt: skip
    output["links"] = []
