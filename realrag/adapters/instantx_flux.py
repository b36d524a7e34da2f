"""Flux reference adapter of InstantX, also published by Shakker Labs.

Source: the released attention_processor.py and infer_flux_ipa_siglip.py of FLUX.1-dev-IP-Adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend, layer_norm, linear, merge_heads, split_heads
from .spec import AdapterSpec, Shapes, check_shapes, count_blocks, dimension, encoder_name, whole_tokens

FAMILY = "flux-instantx"
LABEL = "Flux InstantX"
ENCODERS = {1152: "SigLIP so400m-patch14-384"}
KEY_EPS = 1e-5


def rename(key: str) -> str:
    """The published names -> proj.0.*, proj.2.*, norm.*, blocks.N.k.weight, blocks.N.v.weight"""
    key = re.sub(r"^(?:image_proj|ip_adapter_proj_model)\.(proj\.[02]\.|norm\.)", r"\1", key)
    return re.sub(r"^ip_adapter\.(\d+)\.(?:processor\.)?to_([kv])_ip\.weight$", r"blocks.\1.\2.weight", key)


def recognizes(shapes: Shapes) -> bool:
    """Our names, after `rename`: a two-layer projector, and keys without bias from the very first block on.

    Face adapters for SD1.5 and SDXL have the same projector, but number their blocks 1, 3, 5 or add LoRA weights.
    """
    keys = ("proj.0.weight", "proj.2.weight", "blocks.0.k.weight")
    return all(key in shapes for key in keys) and not any("lora" in key for key in shapes)


def inspect(shapes: Shapes) -> AdapterSpec:
    """Sizes from the shapes, every tensor checked against them."""
    label = f"a {LABEL} adapter"
    hidden, encoder_dim = (dimension(shapes, "proj.0.weight", axis, 2, label) for axis in (0, 1))
    out = dimension(shapes, "proj.2.weight", 0, 2, label)
    context = dimension(shapes, "norm.weight", 0, 1, label)
    width = dimension(shapes, "blocks.0.k.weight", 0, 2, label)
    n_blocks = count_blocks(shapes, "blocks.")
    tokens = whole_tokens(out, context, label)
    expected = {
        "proj.0.weight": (hidden, encoder_dim),
        "proj.0.bias": (hidden,),
        "proj.2.weight": (out, hidden),
        "proj.2.bias": (out,),
        "norm.weight": (context,),
        "norm.bias": (context,),
    }
    expected |= {f"blocks.{i}.{name}.weight": (width, context) for i in range(n_blocks) for name in "kv"}
    check_shapes(shapes, expected, label)
    return AdapterSpec(
        family=FAMILY,
        label=f"{LABEL}, {tokens} tokens",
        base="FLUX.1",
        width=width,
        n_blocks=n_blocks,
        head_dim=None,
        encoder=encoder_name(encoder_dim, ENCODERS),
        encoder_dim=encoder_dim,
        encoder_output="pooler_output",
        crop=False,
        tokens=tokens,
        single_blocks=True,
    )


class InstantXFluxAdapter(nn.Module):
    """tokens = LayerNorm(reshape(W_2 GELU(W_0 pooled + b_0) + b_2)); per block k = RMS(W_k tokens), v = W_v tokens.

    Blocks are numbered through: the double ones, then the single ones. With q behind its QK norm and before its rotary
    embedding, strength * SDPA(q, k, v) is added to the attention's output before its projection: in double blocks to
    the image's rows, in single blocks to all rows, the text's included.
    """

    def __init__(self, spec: AdapterSpec, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec = spec
        with torch.device("meta"):
            context = weights["norm.weight"].shape[0]
            hidden = weights["proj.0.weight"].shape[0]
            self.proj = nn.ModuleDict(
                {"0": nn.Linear(spec.encoder_dim, hidden), "2": nn.Linear(hidden, spec.tokens * context)}
            )
            self.norm = nn.LayerNorm(context)
            self.blocks = nn.ModuleList(
                nn.ModuleDict({name: nn.Linear(context, spec.width, bias=False) for name in "kv"})
                for _ in range(spec.n_blocks)
            )
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)

    def tokens(self, pooled: Tensor) -> Tensor:
        """The vision model's pooled output (N, E) -> (N, T, C)."""
        self.spec.check_features(pooled)
        hidden = linear(self.proj["2"], F.gelu(linear(self.proj["0"], pooled)))
        return layer_norm(self.norm, hidden.unflatten(-1, (self.spec.tokens, -1)))

    def keys_values(self, tokens: Tensor, block: int, heads: int, legacy: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C) -> k and v (1, H, N*T, D): the tokens of all references stand side by side.

        `legacy` also normalizes v, as Shakker's ComfyUI nodes do against the released code.
        """
        tokens = tokens.flatten(0, 1)[None]
        layers = cast(nn.ModuleDict, self.blocks[block])
        k, v = (split_heads(linear(layers[name], tokens), heads) for name in "kv")
        return normed(k), normed(v) if legacy else v


def normed(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) per head, with no weight."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + KEY_EPS)


def branch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """What is added to the attention's rows at strength 1: q (B, H, L, D) before its rotary embedding -> (B, L, H*D).

    bias: (L or 1, T), added to the scores of the tokens.
    """
    return merge_heads(attend(q, k, v, bias))


build = InstantXFluxAdapter
