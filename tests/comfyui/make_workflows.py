"""Write the example graphs in `workflows/` (UI format 0.4): python tests/comfyui/make_workflows.py URL-OF-A-SERVER

The server's /object_info says which sockets and widgets each node has; everything else stands here.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
import uuid
from functools import partial
from pathlib import Path

import controlnet_graphs
import own_photos_graph
import start_here_graph

from realrag.miniature.files import families_there

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
HEIGHT = 1280  # of the three groups
HUB = "https://huggingface.co"
TEXT_ENCODERS = "comfyanonymous/flux_text_encoders/resolve/main"
# file -> (folder in models, where ComfyUI offers to fetch it)
MODELS = {
    "flux1-dev.safetensors": ("diffusion_models", "Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors"),
    "clip_l.safetensors": ("text_encoders", f"{TEXT_ENCODERS}/clip_l.safetensors"),
    "t5xxl_fp16.safetensors": ("text_encoders", f"{TEXT_ENCODERS}/t5xxl_fp16.safetensors"),
    "ae.safetensors": ("vae", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors"),
    "ip_adapter.safetensors": (
        "realrag_adapters",
        "XLabs-AI/flux-ip-adapter-v2/resolve/main/ip_adapter.safetensors",
    ),
    "clip-vit-large-patch14.safetensors": (
        "clip_vision",
        "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    ),
    "sd3.5_large_fp8_scaled.safetensors": (
        "checkpoints",
        "Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/sd3.5_large_fp8_scaled.safetensors",
    ),
    "sigclip_vision_patch14_384.safetensors": (
        "clip_vision",
        "Comfy-Org/sigclip_vision_384/resolve/main/sigclip_vision_patch14_384.safetensors",
    ),
    "sd_xl_base_1.0.safetensors": (
        "checkpoints",
        "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    ),
    "instantx_flux_canny.safetensors": (
        "controlnet",
        "InstantX/FLUX.1-dev-Controlnet-Canny/resolve/main/diffusion_pytorch_model.safetensors",
    ),
    "sd3.5_large_controlnet_canny.safetensors": (
        "controlnet",
        "stabilityai/stable-diffusion-3.5-controlnets/resolve/main/sd3.5_large_controlnet_canny.safetensors",
    ),
    "controlnet-canny-sdxl-1.0.safetensors": (
        "controlnet",
        "xinsir/controlnet-canny-sdxl-1.0/resolve/main/diffusion_pytorch_model.safetensors",
    ),
}
NOTE_STYLE = {"color": "#432", "bgcolor": "#653"}
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "realrag" / "__init__.py").read_text())[1]


class Canvas:
    """A graph in the making: nodes get their sockets from `object_info`, links are made by name."""

    def __init__(self, object_info: dict):
        self.info, self.nodes, self.links, self.groups = object_info, [], [], []

    def node(
        self,
        kind: str,
        at: tuple[int, int],
        size: tuple[int, int],
        *,
        links: dict | None = None,
        title: str = "",
        mode: int = 0,
        **values,
    ) -> dict:
        """Add a node. links: input name -> (node, name or type of its output); values: of its widgets, by name."""
        info, links = self.info[kind], dict(links or {})
        node = {
            "id": len(self.nodes) + 1, "type": kind, "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": mode, "inputs": [], "outputs": [],
            "properties": {"Node name for S&R": kind, **_origin(info)}, "widgets_values": [],
        }  # fmt: skip
        if title:
            node["title"] = title
        # newer versions give core's preview and save nodes an output as well; older ones would not know it
        core = not kind.startswith("RealRAG_")
        outputs = [] if info["output_node"] and core else zip(info["output_name"], info["output"], strict=True)
        for slot, (name, kind_of) in enumerate(outputs):
            node["outputs"].append({"name": name, "type": _type(kind_of), "links": [], "slot_index": slot})
        for name, (kind_of, *options) in _inputs(info):
            options = options[0] if options else {}
            socket = {"name": name, "type": _type(kind_of), "link": None}
            if socket["type"] in WIDGETS and not options.get("forceInput"):
                socket["widget"] = {"name": name}
                node["widgets_values"].append(values.pop(name, _default(kind_of, options)))
                if options.get("control_after_generate"):
                    node["widgets_values"].append("fixed")
            if name in links:
                socket["link"] = self._link(*links.pop(name), node, len(node["inputs"]), socket["type"])
            if socket["link"] is not None or "widget" not in socket:
                node["inputs"].append(socket)
        assert not values and not links, f"{kind} has no {[*values, *links]}"
        if files := [value for value in node["widgets_values"] if value in MODELS]:
            node["properties"]["models"] = [_model(file) for file in files]
        self.nodes.append(node)
        return node

    def note(self, at: tuple[int, int], size: tuple[int, int], title: str, text: str) -> None:
        self.nodes.append({
            "id": len(self.nodes) + 1, "type": "MarkdownNote", "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": [], "title": title, "properties": {},
            "widgets_values": [text], **NOTE_STYLE,
        })  # fmt: skip

    def group(self, title: str, at: tuple[int, int], size: tuple[int, int], color: str) -> None:
        box = {"id": len(self.groups) + 1, "title": title, "bounding": [*at, *size], "color": color}
        self.groups.append({**box, "font_size": 24, "flags": {}})

    def _link(self, source: dict, output: str, target: dict, slot: int, kind: str) -> int:
        origin = next(i for i, socket in enumerate(source["outputs"]) if output in (socket["name"], socket["type"]))
        identity = len(self.links) + 1
        self.links.append([identity, source["id"], origin, target["id"], slot, kind])
        source["outputs"][origin]["links"].append(identity)
        return identity

    def json(self, name: str) -> dict:
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "revision": 0, "last_node_id": len(self.nodes),
            "last_link_id": len(self.links), "nodes": self.nodes, "links": self.links, "groups": self.groups,
            "config": {}, "extra": {"ds": {"scale": 0.6, "offset": [60, 120]}}, "version": 0.4,
        }  # fmt: skip


def _type(kind_of) -> str:
    return "COMBO" if isinstance(kind_of, list) else kind_of


def _model(file: str) -> dict:
    folder, link = MODELS[file]
    return {"name": file, "url": f"{HUB}/{link}", "directory": folder}


def _default(kind_of, options: dict):
    choices = kind_of if isinstance(kind_of, list) else options.get("options")
    return options.get("default", choices[0] if choices else "")


def _inputs(info: dict) -> list:
    return [item for part in ("required", "optional") for item in info["input"].get(part, {}).items()]


def _origin(info: dict) -> dict:
    ours = info["name"].startswith("RealRAG_")
    return {"cnr_id": "realrag", "ver": VERSION} if ours else {"cnr_id": "comfy-core", "ver": "0.3.64"}


def retrieval(canvas: Canvas, note: str, top_k: int = 3, text: str = "") -> tuple[dict, dict]:
    """The part all graphs share: a library, the prompt, what to look for, the references, their scores and credits."""
    canvas.group("1  Find real photos", (0, 0), (900, HEIGHT), "#3f5159")
    canvas.note((20, 620), (380, 480), "What this graph does", note)
    loader = canvas.node("RealRAG_LoadRetriever", (20, 80), (380, 130))
    prompt = canvas.node("PrimitiveStringMultiline", (20, 270), (380, 130), title="Prompt", value=text or PROMPT)
    subject = canvas.node("PrimitiveStringMultiline", (20, 460), (380, 100), title=LOOK_FOR, value="")
    found = canvas.node(
        "RealRAG_RetrieveReferences", (440, 80), (440, 800), top_k=top_k,
        links={"retriever": (loader, "retriever"), "prompt": (prompt, "STRING"), "look_for": (subject, "STRING")},
    )  # fmt: skip
    canvas.node("PreviewAny", (440, 930), (440, 140), title="Scores", links={"source": (found, "scores")})
    canvas.node("PreviewAny", (440, 1120), (440, 140), title="Credits", links={"source": (found, "credits")})
    return prompt, found


def flux(object_info: dict) -> dict:
    canvas = Canvas(object_info)
    prompt, found = retrieval(canvas, FLUX_NOTE)
    canvas.group("2  Let Flux see them", (940, 0), (400, HEIGHT), "#3f5159")
    canvas.group("3  Make the picture", (1380, 0), (1160, HEIGHT), "#3f5159")
    model = canvas.node("UNETLoader", (960, 80), (360, 90), unet_name="flux1-dev.safetensors", weight_dtype="default")
    inject = injection(canvas, model, found, "ip_adapter.safetensors", "clip-vit-large-patch14.safetensors", 0.7)
    encoders = {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors", "type": "flux"}
    clip = canvas.node("DualCLIPLoader", (1400, 80), (360, 130), **encoders)
    said = {"clip": (clip, "CLIP"), "text": (prompt, "STRING")}
    encoded = {"conditioning": (canvas.node("CLIPTextEncode", (1400, 280), (360, 100), links=said), "CONDITIONING")}
    positive = canvas.node("FluxGuidance", (1400, 450), (360, 60), guidance=3.5, links=encoded)
    negative = canvas.node("ConditioningZeroOut", (1400, 580), (360, 30), links=encoded)
    latent = canvas.node("EmptySD3LatentImage", (1400, 680), (360, 110), width=1024, height=1024)
    vae = canvas.node("VAELoader", (1400, 860), (360, 60), vae_name="ae.safetensors")
    settings = {"seed": 7, "steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    pictures(canvas, model, inject, positive, negative, latent, vae, settings, "realrag_flux")
    return canvas.json("realrag_flux")


def sd35(object_info: dict) -> dict:
    canvas = Canvas(object_info)
    prompt, found = retrieval(canvas, SD35_NOTE)
    canvas.group("2  Let Stable Diffusion see them", (940, 0), (400, HEIGHT), "#3f5159")
    canvas.group("3  Make the picture", (1380, 0), (1160, HEIGHT), "#3f5159")
    name = "sd3.5_large_fp8_scaled.safetensors"
    model = canvas.node("CheckpointLoaderSimple", (960, 80), (360, 100), ckpt_name=name)
    inject = injection(canvas, model, found, "ip-adapter.bin", "sigclip_vision_patch14_384.safetensors", 0.5)
    clip = {"clip": (model, "CLIP")}
    said = {**clip, "text": (prompt, "STRING")}
    positive = canvas.node("CLIPTextEncode", (1400, 80), (360, 100), links=said)
    negative = canvas.node("CLIPTextEncode", (1400, 250), (360, 140), title="Negative", text="", links=clip)
    latent = canvas.node("EmptySD3LatentImage", (1400, 460), (360, 110), width=1024, height=1024)
    settings = {"seed": 7, "steps": 28, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"}
    pictures(canvas, model, inject, positive, negative, latent, model, settings, "realrag_sd35")
    return canvas.json("realrag_sd35")


def injection(canvas: Canvas, model: dict, found: dict, adapter: str, vision: str, strength: float) -> dict:
    """References into the model, through an adapter and the image encoder it was trained with."""
    loaded = canvas.node("RealRAG_LoadReferenceAdapter", (960, 230), (360, 110), adapter=adapter)
    seen = canvas.node("CLIPVisionLoader", (960, 400), (360, 60), clip_name=vision)
    links = {
        "model": (model, "MODEL"),
        "references": (found, "references"),
        "adapter": (loaded, "adapter"),
        "clip_vision": (seen, "CLIP_VISION"),
    }
    return canvas.node("RealRAG_InjectReferences", (960, 530), (360, 640), strength=strength, links=links)


def pictures(
    canvas: Canvas, plain, patched, positive, negative, latent, vae, settings: dict, prefix: str, small: bool = False
) -> None:  # fmt: skip
    """The picture with references, and the same without them: muted, for comparing. Of a small model both, enlarged."""
    arms = (
        ("With references", patched, 80, 0, prefix),
        ("Without references", plain, 700, 0 if small else 2, f"{prefix}_plain"),
    )
    for title, model, y, mode, name in arms:
        links = {
            "model": (model, "MODEL"),
            "positive": (positive, "CONDITIONING"),
            "negative": (negative, "CONDITIONING"),
            "latent_image": (latent, "LATENT"),
        }
        sampled = canvas.node("KSampler", (1800, y), (300, 270), title=title, mode=mode, links=links, **settings)
        links = {"samples": (sampled, "LATENT"), "vae": (vae, "VAE")}
        decoded = canvas.node("VAEDecode", (1800, y + 340), (300, 50), mode=mode, links=links)
        if small:
            links = {"image": (decoded, "IMAGE")}
            enlarged = {"upscale_method": "lanczos", "scale_by": 3.0}
            decoded = canvas.node("ImageScaleBy", (1800, y + 450), (300, 80), links=links, **enlarged)
        links = {"images": (decoded, "IMAGE")}
        canvas.node("SaveImage", (2140, y), (380, 520), mode=mode, filename_prefix=name, links=links)


LOOK_FOR = "Look for (empty: the prompt)"
PROMPT = "a photo of granny smith apples in a wooden bowl on a kitchen table, morning light"

STORY = """RealRAG searches a library of **real photos** for your prompt. *Retrieve Real References* shows the best matches,
and *Inject References* lets the model see them while it paints.

1. Choose a library in *Load Reflective Retriever*, write your prompt, press **Run**.
2. If the prompt is long, write the subject alone in *Look for*, one object per line. If it is empty, the search uses the
   prompt.
3. Effect too strong or too weak: change `strength`. Composition too close to the photos: raise `start_percent` to 0.2.
4. To compare, select the three muted nodes of *Without references* and press **Ctrl+M**.
"""
FLUX_NOTE = f"""{STORY}
**Needs** [ip_adapter.safetensors]({HUB}/XLabs-AI/flux-ip-adapter-v2) in `models/realrag_adapters` and
[CLIP ViT-L/14]({HUB}/openai/clip-vit-large-patch14) in `models/clip_vision`, saved as
`clip-vit-large-patch14.safetensors`. Without these two: remove both loaders and connect the VAE to *Inject References*
(experimental).
"""
SD35_NOTE = f"""{STORY}
**Needs** [ip-adapter.bin]({HUB}/InstantX/SD3.5-Large-IP-Adapter) in `models/realrag_adapters` and
[SigLIP so400m 384]({HUB}/Comfy-Org/sigclip_vision_384) in `models/clip_vision`. With SD3.5 Medium or SD3, or without
these two: remove both loaders and connect the VAE to *Inject References* (experimental).
"""


def controlnet(object_info: dict, base: str) -> dict:
    canvas = Canvas(object_info)
    controlnet_graphs.draw(canvas, base, *retrieval(canvas, controlnet_graphs.note(base), top_k=1))
    return canvas.json(f"realrag_controlnet_{base}")


def own_photos(object_info: dict) -> dict:
    canvas = Canvas(object_info)
    own_photos_graph.draw(canvas, LOOK_FOR)
    return canvas.json("realrag_own_photos")


def start_here(object_info: dict) -> dict:
    canvas = Canvas(object_info)
    found = retrieval(canvas, start_here_graph.NOTE, top_k=start_here_graph.TOP_K, text=start_here_graph.PROMPT)
    start_here_graph.draw(canvas, *found, pictures)
    return canvas.json("realrag_start_here")


WORKFLOWS = {"realrag_flux": flux, "realrag_sd35": sd35, "realrag_own_photos": own_photos}
if families_there():
    WORKFLOWS["realrag_start_here"] = start_here
WORKFLOWS |= {f"realrag_controlnet_{base}": partial(controlnet, base=base) for base in controlnet_graphs.CONTROLNETS}


def text(workflow: dict) -> str:
    return json.dumps(workflow, indent=1) + "\n"


if __name__ == "__main__":
    with urllib.request.urlopen(sys.argv[1] + "/object_info") as answer:
        served = json.load(answer)
    for name, make in WORKFLOWS.items():
        (ROOT / "workflows" / f"{name}.json").write_text(text(make(served)))
