"""Flux reference adapters of XLabs-AI, v1 and v2.

Source: x-flux src/flux/modules/layers.py (IPDoubleStreamBlockProcessor) and diffusers FluxIPAdapterAttnProcessor.
"""

from __future__ import annotations

import re
from typing import Mapping

import torch
from torch import Tensor, nn

from .attention import attend, layer_norm, linear, merge_heads, split_heads
from .spec import AdapterSpec, Shapes, check_shapes, count_blocks, dimension, encoder_name, whole_tokens

FAMILY = "flux-xlabs"
VERSIONS = {4: "Flux XLabs v1", 16: "Flux XLabs v2"}  # tokens per reference -> name
ENCODERS = {768: "CLIP ViT-L/14"}


def rename(key: str) -> str:
    """The published names and diffusers' names -> proj.*, norm.*, blocks.N.k.*, blocks.N.v.*"""
    key = re.sub(r"^(ip_adapter_proj_model|image_proj)\.(image_embeds\.|proj\.|norm\.)", r"\2", key)
    key = re.sub(r"^image_embeds\.", "proj.", key)
    return re.sub(
        r"^(?:double_blocks|ip_adapter)\.(\d+)\.(?:processor\.)?"
        r"(?:ip_adapter_double_stream_|to_)([kv])_(?:proj|ip)\.",
        r"blocks.\1.\2.",
        key,
    )


def recognises(shapes: Shapes) -> bool:
    """Our names, after `rename`: a one-layer projector and biased keys in numbered blocks."""
    return "proj.weight" in shapes and any(re.fullmatch(r"blocks\.\d+\.k\.bias", key) for key in shapes)


def inspect(shapes: Shapes) -> AdapterSpec:
    """Sizes from the shapes, every tensor checked against them."""
    label = "a Flux XLabs adapter"
    out, encoder_dim = (dimension(shapes, "proj.weight", axis, 2, label) for axis in (0, 1))
    context = dimension(shapes, "norm.weight", 0, 1, label)
    width = dimension(shapes, "blocks.0.k.weight", 0, 2, label)
    n_blocks = count_blocks(shapes, "blocks.")
    tokens = whole_tokens(out, context, label)
    expected = {
        "proj.weight": (out, encoder_dim),
        "proj.bias": (out,),
        "norm.weight": (context,),
        "norm.bias": (context,),
    }
    for i in range(n_blocks):
        for name in ("k", "v"):
            expected |= {f"blocks.{i}.{name}.weight": (width, context), f"blocks.{i}.{name}.bias": (width,)}
    check_shapes(shapes, expected, label)
    return AdapterSpec(
        family=FAMILY,
        label=VERSIONS.get(tokens, f"Flux XLabs layout, {tokens} tokens"),
        base="FLUX.1",
        width=width,
        n_blocks=n_blocks,
        head_dim=None,
        encoder=encoder_name(encoder_dim, ENCODERS),
        encoder_dim=encoder_dim,
        encoder_output="image_embeds",
        crop=True,
        tokens=tokens,
    )


class XLabsAdapter(nn.Module):
    """tokens = LayerNorm(reshape(W_p embeds + b_p)); per double block k = W_k tokens + b_k, v = W_v tokens + b_v.

    In block i, on image rows only, after the block's MLP residual and with no gate:
    img += strength * SDPA(q, k_i, v_i), with q the image query after its QK norm and before its rotary embedding.
    """

    def __init__(self, spec: AdapterSpec, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec = spec
        with torch.device("meta"):
            context = weights["norm.weight"].shape[0]
            self.proj = nn.Linear(spec.encoder_dim, spec.tokens * context)
            self.norm = nn.LayerNorm(context)
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"k": nn.Linear(context, spec.width), "v": nn.Linear(context, spec.width)})
                for _ in range(spec.n_blocks)
            )
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)

    def tokens(self, embeds: Tensor) -> Tensor:
        """Image embeds (N, E) -> (N, T, C)."""
        self.spec.check_features(embeds)
        return layer_norm(self.norm, linear(self.proj, embeds).unflatten(-1, (self.spec.tokens, -1)))

    def keys_values(self, tokens: Tensor, block: int, heads: int) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C) -> k and v (1, H, N*T, D): the tokens of all references stand side by side."""
        tokens = tokens.flatten(0, 1)[None]
        layers = self.blocks[block]
        return split_heads(linear(layers["k"], tokens), heads), split_heads(linear(layers["v"], tokens), heads)


def branch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """What is added to the image rows at strength 1: q (B, H, L, D) before its rotary embedding -> (B, L, H*D).

    bias: (L or 1, T), added to the scores of the tokens.
    """
    return merge_heads(attend(q, k, v, bias))


build = XLabsAdapter
