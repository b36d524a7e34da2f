"""Flux reference adapters of XLabs-AI, v1 and v2, and the variant with spatial tokens that our trainer makes.

Source: x-flux src/flux/modules/layers.py (IPDoubleStreamBlockProcessor) and diffusers FluxIPAdapterAttnProcessor.
The spatial variant has one more key, ip_adapter_proj_model.position (T, C): the projector then works on each of the T
places of the image encoder's grid alone, and `position` says which place it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import AdapterError
from .attention import attend, layer_norm, linear, merge_heads, split_heads
from .spec import AdapterSpec, Shapes, check_shapes, count_blocks, dimension, encoder_name, whole_tokens

FAMILY = "flux-xlabs"
VERSIONS = {4: "Flux XLabs v1", 16: "Flux XLabs v2"}  # tokens per reference -> name
ENCODERS = {768: "CLIP ViT-L/14"}


def rename(key: str) -> str:
    """The published names and diffusers' names -> proj.*, norm.*, blocks.N.k.*, blocks.N.v.*"""
    key = re.sub(r"^(ip_adapter_proj_model|image_proj)\.(image_embeds\.|proj\.|norm\.|position$)", r"\2", key)
    key = re.sub(r"^image_embeds\.", "proj.", key)
    return re.sub(
        r"^(?:double_blocks|ip_adapter)\.(\d+)\.(?:processor\.)?"
        r"(?:ip_adapter_double_stream_|to_)([kv])_(?:proj|ip)\.",
        r"blocks.\1.\2.",
        key,
    )


def recognizes(shapes: Shapes) -> bool:
    """Our names, after `rename`: a one-layer projector and biased keys in numbered blocks."""
    return "proj.weight" in shapes and any(re.fullmatch(r"blocks\.\d+\.k\.bias", key) for key in shapes)


def inspect(shapes: Shapes) -> AdapterSpec:
    """Sizes from the shapes, every tensor checked against them."""
    label = "a Flux XLabs adapter"
    out, encoder_dim = (dimension(shapes, "proj.weight", axis, 2, label) for axis in (0, 1))
    context = dimension(shapes, "norm.weight", 0, 1, label)
    width = dimension(shapes, "blocks.0.k.weight", 0, 2, label)
    n_blocks = count_blocks(shapes, "blocks.")
    spatial = "position" in shapes
    tokens = dimension(shapes, "position", 0, 2, label) if spatial else whole_tokens(out, context, label)
    if not spatial and tokens == 1:
        raise AdapterError(
            f"This looks like {label}, but it makes one token, as the spatial variant does of each place, and "
            "position is missing. The file is damaged: get it again."
        )
    out = context if spatial else out
    expected = {
        **({"position": (tokens, context)} if spatial else {}),
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
        label=f"Flux XLabs layout, {tokens} spatial tokens"
        if spatial
        else VERSIONS.get(tokens, f"Flux XLabs layout, {tokens} tokens"),
        base="FLUX.1",
        width=width,
        n_blocks=n_blocks,
        head_dim=None,
        encoder=encoder_name(encoder_dim, ENCODERS),
        encoder_dim=encoder_dim,
        encoder_output="penultimate_hidden_states" if spatial else "image_embeds",
        crop=not spatial,
        tokens=tokens,
        encoder_tokens=tokens if spatial else 0,
    )


class XLabsAdapter(nn.Module):
    """tokens = LayerNorm(reshape(W_p embeds + b_p)); per double block k = W_k tokens + b_k, v = W_v tokens + b_v.
    The spatial variant makes token l of place l alone: LayerNorm(W_p hidden_l + b_p + position_l).

    In block i, on image rows only, after the block's MLP residual and with no gate:
    img += strength * SDPA(q, k_i, v_i), with q the image query after its QK norm and before its rotary embedding.
    """

    def __init__(self, spec: AdapterSpec, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec = spec
        with torch.device("meta"):
            context = weights["norm.weight"].shape[0]
            self.proj = nn.Linear(spec.encoder_dim, weights["proj.weight"].shape[0])
            self.position = nn.Parameter(torch.empty(spec.tokens, context)) if "position" in weights else None
            self.norm = nn.LayerNorm(context)
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"k": nn.Linear(context, spec.width), "v": nn.Linear(context, spec.width)})
                for _ in range(spec.n_blocks)
            )
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)

    def tokens(self, features: Tensor) -> Tensor:
        """Image embeds (N, E), or hidden states (N, T, E) in the spatial variant -> (N, T, C)."""
        self.spec.check_features(features)
        made = linear(self.proj, features)
        if self.position is None:
            return layer_norm(self.norm, made.unflatten(-1, (self.spec.tokens, -1)))
        return layer_norm(self.norm, made + self.position.to(made))

    def keys_values(self, tokens: Tensor, block: int, heads: int) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C) -> k and v (1, H, N*T, D): the tokens of all references stand side by side."""
        return self.keys_values_each(tokens.flatten(0, 1)[None], block, heads)

    def keys_values_each(self, tokens: Tensor, block: int, heads: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C) -> k and v (B, H, T, D): each row keeps to its own tokens, as in training."""
        layers = cast(nn.ModuleDict, self.blocks[block])
        return split_heads(linear(layers["k"], tokens), heads), split_heads(linear(layers["v"], tokens), heads)


def branch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """What is added to the image rows at strength 1: q (B, H, L, D) before its rotary embedding -> (B, L, H*D).

    bias: (L or 1, T), added to the scores of the tokens.
    """
    return merge_heads(attend(q, k, v, bias))


build = XLabsAdapter
