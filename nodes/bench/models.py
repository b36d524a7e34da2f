"""Generators and an adapter of random weights for `realrag bench inject`: random ones cost what real ones cost."""

from __future__ import annotations

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.ldm.flux.model import FluxParams

TOKENS, HIDDEN, ENCODER, TIME = 64, 1280, 1152, 320  # the published SD3.5 InstantX file; a tiny one is as narrow


def generator(job: dict, dtype: torch.dtype):
    """A Flux, or an SD3.5 of Large's layout, of the given size -> ModelPatcher, widths of text and pooled text."""
    text = 4096 if job["width"] > 1000 else 64
    family, config, pooled = sd35(job, text) if job["family"].startswith("sd35") else flux(job, text)
    settings = family(config)
    settings.set_inference_dtype(dtype, None)
    built = settings.get_model({}, "", device=management.get_torch_device())
    torch.manual_seed(0)
    for name, weight in built.diffusion_model.named_parameters():
        weight.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.02)
    for table in built.diffusion_model.buffers():
        table.normal_(0.0, 0.02)
    patcher = comfy.model_patcher.ModelPatcher(built, management.get_torch_device(), management.unet_offload_device())
    return patcher, text, pooled


def flux(job: dict, text: int):
    config = dict(
        image_model="flux", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=text,
        hidden_size=job["width"], mlp_ratio=4.0, num_heads=job["width"] // 128, depth=job["double"],
        depth_single_blocks=job["single"], axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True,
        guidance_embed=True,
    )  # fmt: skip
    if "txt_ids_dims" in FluxParams.__dataclass_fields__:
        config["txt_ids_dims"] = []
    return comfy.supported_models.Flux, config, 768


def sd35(job: dict, text: int):
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": text, "out_features": job["width"]}}
    config = dict(
        input_size=None, patch_size=2, in_channels=16, out_channels=16, depth=job["double"], adm_in_channels=2048,
        pos_embed_max_size=192, num_patches=192**2, qk_norm="rms", context_embedder_config=embedder,
    )  # fmt: skip
    return comfy.supported_models.SD3, config, 2048


def instantx_weights(width: int, blocks: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """An SD3.5 InstantX adapter for this width and number of blocks, under the names of the published file."""
    hidden = HIDDEN if width > 1000 else 64
    square = (hidden, hidden)
    shapes = {
        "latents": (1, TOKENS, hidden), "proj_in.weight": (hidden, ENCODER), "proj_in.bias": (hidden,),
        "proj_out.weight": (width, hidden), "proj_out.bias": (width,),
        "norm_out.weight": (width,), "norm_out.bias": (width,),
        "time_embedding.linear_1.weight": (hidden, TIME), "time_embedding.linear_1.bias": (hidden,),
        "time_embedding.linear_2.weight": square, "time_embedding.linear_2.bias": (hidden,),
    }  # fmt: skip
    for i in range(4):
        layer = {f"{norm}.{part}": (hidden,) for norm in ("0.norm1", "0.norm2", "1.0") for part in ("weight", "bias")}
        layer |= {
            "0.to_q.weight": square, "0.to_kv.weight": (2 * hidden, hidden), "0.to_out.weight": square,
            "1.1.weight": (4 * hidden, hidden), "1.3.weight": (hidden, 4 * hidden),
            "2.1.weight": (4 * hidden, hidden), "2.1.bias": (4 * hidden,),
        }  # fmt: skip
        shapes |= {f"layers.{i}.{key}": shape for key, shape in layer.items()}
    shapes = {f"image_proj.{key}": shape for key, shape in shapes.items()}
    for i in range(blocks):
        block = {
            "norm_ip.linear.weight": (2 * width, hidden), "norm_ip.linear.bias": (2 * width,),
            "to_k_ip.weight": (width, width), "to_v_ip.weight": (width, width),
            "norm_q.weight": (64,), "norm_k.weight": (64,), "norm_ip_k.weight": (64,),
        }  # fmt: skip
        shapes |= {f"ip_adapter.{i}.{key}": shape for key, shape in block.items()}
    return {key: 0.02 * torch.randn(shape).to(dtype) for key, shape in shapes.items()}
