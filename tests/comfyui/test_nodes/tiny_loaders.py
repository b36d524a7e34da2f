"""Nodes that stand where a graph loads full-sized models, with the same outputs: tiny models of random weights."""

import sys
from functools import cache
from pathlib import Path

# The helpers lie beside this folder; ComfyUI loads it by its path, through a link.
sys.path.append(str(Path(__file__).resolve().parents[1]))
import tiny_models
import tiny_parts

KINDS = ["flux", "sd35", "SDXL", "Flux2"]
POOLED = {"SDXL": 1280}
LATENTS = {"SDXL": (4, 8), "Flux2": (128, 16)}  # channels, pixels on a side of a place


@cache
def model(kind: str):
    return tiny_models.model(kind) if kind in ("flux", "sd35") else tiny_parts.other_model(kind)


def text(kind: str):
    return tiny_parts.Text(POOLED.get(kind, tiny_models.POOLED_WIDTH))


def vae(kind: str):
    return tiny_parts.Vae(*LATENTS.get(kind, (16, 8)))


class Loader:
    """A node with the widget `kind` and an output for each of `makes`."""

    CATEGORY, FUNCTION = "RealRAG tests", "load"
    makes = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (KINDS,)}}

    def load(self, kind):
        return tuple(make(kind) for make in self.makes)


class TinyModel(Loader):
    RETURN_TYPES, makes = ("MODEL",), (model,)


class TinyText(Loader):
    RETURN_TYPES, makes = ("CLIP",), (text,)


class TinyVae(Loader):
    RETURN_TYPES, makes = ("VAE",), (vae,)


class TinyCheckpoint(Loader):
    RETURN_TYPES, makes = ("MODEL", "CLIP", "VAE"), (model, text, vae)


class TinyControlNet(Loader):
    RETURN_TYPES, makes = ("CONTROL_NET",), (tiny_parts.controlnet,)


class TinyClipVision:
    CATEGORY, FUNCTION, RETURN_TYPES = "RealRAG tests", "load", ("CLIP_VISION",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"width": ("INT", {"default": 24, "max": 4096})}}

    def load(self, width=24):
        return (tiny_parts.Vision(width),)


LOADERS = {f"RealRAGTest_{node.__name__}": node for node in
           (TinyModel, TinyText, TinyVae, TinyCheckpoint, TinyControlNet, TinyClipVision)}  # fmt: skip
