"""Nodes for tests only: what tiny random models need around them, and a hash of a latent for bit-exact comparison."""

import hashlib
import json

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import folder_paths
import torch

from .tiny_loaders import LOADERS

CONTEXT, POOLED = 64, 32  # widths that the tiny models were built for
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": CONTEXT, "hidden_size": 256,
    "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [16, 56, 56], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip


class Conditioning:
    """A CONDITIONING from a seed, in place of a text encoder (no real one is small enough for a test)."""

    CATEGORY, FUNCTION, RETURN_TYPES = "RealRAG tests", "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed):
        generator = torch.Generator().manual_seed(seed)
        context, pooled = torch.randn(1, 12, CONTEXT, generator=generator), torch.randn(1, POOLED, generator=generator)
        return ([[context, {"pooled_output": pooled}]],)


class TinyFlux:
    """Loads tiny_flux.safetensors where the version's own loader takes every Flux for a full-sized one."""

    CATEGORY, FUNCTION, RETURN_TYPES = "RealRAG tests", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        weights = comfy.utils.load_torch_file(
            folder_paths.get_full_path_or_raise("diffusion_models", "tiny_flux.safetensors")
        )
        config = comfy.supported_models.Flux({"image_model": "flux", **FLUX})
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(weights, "")
        model.load_model_weights(weights, "")
        offload = management.unet_offload_device()
        return (comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), offload),)


class LatentHash:
    """Shows the sha256 of a latent's bytes: two equal hashes are a bit-exact match."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "RealRAG tests", "hash", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    def hash(self, latent):
        samples = latent["samples"].float().cpu().contiguous()
        if not torch.isfinite(samples).all():
            raise ValueError("The latent is not finite.")
        return {"ui": {"text": [hashlib.sha256(samples.numpy().tobytes()).hexdigest()]}}


class ShowText:
    """Shows a STRING, so that a test can read it over HTTP."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "RealRAG tests", "show", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"forceInput": True})}}

    def show(self, text):
        return {"ui": {"text": [text]}}


class Anything(str):
    """A type that fits every other."""

    def __ne__(self, other):
        return False


class Value:
    """Any value, from JSON, for an input of any type."""

    CATEGORY, FUNCTION, RETURN_TYPES = "RealRAG tests", "make", (Anything("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"json": ("STRING", {"default": "null"})}}

    def make(self, **named):
        return (json.loads(named["json"]),)


class Sink:
    """Takes an output of any type, so that the node before it runs."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "RealRAG tests", "take", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (Anything("*"), {"forceInput": True})}}

    def take(self, value):
        return {"ui": {"text": [type(value).__name__]}}


NODE_CLASS_MAPPINGS = {
    "RealRAGTest_Conditioning": Conditioning,
    "RealRAGTest_TinyFlux": TinyFlux,
    "RealRAGTest_LatentHash": LatentHash,
    "RealRAGTest_ShowText": ShowText,
    "RealRAGTest_Value": Value,
    "RealRAGTest_Sink": Sink,
    **LOADERS,
}
