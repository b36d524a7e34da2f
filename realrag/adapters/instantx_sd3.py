"""SD3.5-Large reference adapter of InstantX.

Source: diffusers IPAdapterTimeImageProjection and SD3IPAdapterJointAttnProcessor2_0; InstantX's own code agrees.
Our trainer makes a variant without the keys norm_k: the picture's own keys are then not attended to a second time, so
that values of zero add nothing at all, which the published formula cannot do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AdapterError
from .attention import attend, layer_norm, linear, merge_heads, rms_norm, split_heads
from .spec import AdapterSpec, Shapes, check_shapes, count_blocks, dimension, encoder_name

FAMILY = "sd35-instantx"
LABEL = "SD3.5 InstantX"
ENCODERS = {1152: "SigLIP so400m-patch14-384"}
RESAMPLER_HEAD = 64
PARTS = {  # inside one resampler layer: the published names and diffusers' names -> ours
    r"(?:0\.norm1|ln0)": "norm1",
    r"(?:0\.norm2|ln1)": "norm2",
    r"(?:0|attn)\.to_(q|kv)": r"to_\2",
    r"(?:0\.to_out|attn\.to_out\.0)": "to_out",
    r"(?:1\.0|adaln_norm)": "ff_norm",
    r"(?:1\.1|ff\.net\.0\.proj)": "ff_in",
    r"(?:1\.3|ff\.net\.2)": "ff_out",
    r"(?:2\.1|adaln_proj)": "ada",
}


def rename(key: str) -> str:
    """The published names and diffusers' names -> resampler.*, blocks.N.*"""
    key = re.sub(r"^ip_adapter\.", "blocks.", re.sub(r"^image_proj\.", "resampler.", key))
    for part, ours in PARTS.items():
        key = re.sub(rf"^(resampler\.layers\.\d+)\.{part}\.", rf"\1.{ours}.", key)
    return key.replace(".norm_ip.linear.", ".norm_ip.")


def recognizes(shapes: Shapes) -> bool:
    """Our names, after `rename`: learned latents, and blocks that normalize the adapter's keys."""
    return "resampler.latents" in shapes and any(re.fullmatch(r"blocks\.\d+\.norm_ip_k\.weight", key) for key in shapes)


def inspect(shapes: Shapes) -> AdapterSpec:
    """Sizes from the shapes, every tensor checked against them."""
    label = f"an {LABEL} adapter"
    tokens, hidden = (dimension(shapes, "resampler.latents", axis, 3, label) for axis in (1, 2))
    encoder_dim = dimension(shapes, "resampler.proj_in.weight", 1, 2, label)
    width = dimension(shapes, "resampler.proj_out.weight", 0, 2, label)
    time_dim = dimension(shapes, "resampler.time_embedding.linear_1.weight", 1, 2, label)
    inner = dimension(shapes, "resampler.layers.0.to_q.weight", 0, 2, label)
    ff = dimension(shapes, "resampler.layers.0.ff_in.weight", 0, 2, label)
    head_dim = dimension(shapes, "blocks.0.norm_q.weight", 0, 1, label)
    depth, n_blocks = count_blocks(shapes, "resampler.layers."), count_blocks(shapes, "blocks.")
    if inner % RESAMPLER_HEAD or width % head_dim or time_dim % 2:
        raise AdapterError(
            f"This looks like {label}, but its sizes do not divide into heads (resampler {inner} by {RESAMPLER_HEAD}, "
            f"blocks {width} by {head_dim}) or its time embedding is odd ({time_dim}). Download the file again."
        )
    expected = {
        "latents": (1, tokens, hidden),
        **_linear("proj_in", hidden, encoder_dim),
        **_linear("proj_out", width, hidden),
        **_norm("norm_out", width),
        **_linear("time_embedding.linear_1", hidden, time_dim),
        **_linear("time_embedding.linear_2", hidden, hidden),
    }
    for i in range(depth):
        layer = {
            **_norm("norm1", hidden),
            **_norm("norm2", hidden),
            **_norm("ff_norm", hidden),
            **_linear("ada", 4 * hidden, hidden),
            "to_q.weight": (inner, hidden),
            "to_kv.weight": (2 * inner, hidden),
            "to_out.weight": (hidden, inner),
            "ff_in.weight": (ff, hidden),
            "ff_out.weight": (hidden, ff),
        }
        expected |= {f"layers.{i}.{key}": shape for key, shape in layer.items()}
    expected = {f"resampler.{key}": shape for key, shape in expected.items()}
    for i in range(n_blocks):
        block = {
            **_linear("norm_ip", 2 * width, hidden),
            "to_k_ip.weight": (width, width),
            "to_v_ip.weight": (width, width),
            **{f"{name}.weight": (head_dim,) for name in block_norms(shapes)},
        }
        expected |= {f"blocks.{i}.{key}": shape for key, shape in block.items()}
    check_shapes(shapes, expected, label)
    return AdapterSpec(
        family=FAMILY,
        label=f"{LABEL}, {tokens} tokens",
        base="SD3.5 Large" if (width, n_blocks) == (2432, 38) else "an SD3.5 model",
        width=width,
        n_blocks=n_blocks,
        head_dim=head_dim,
        encoder=encoder_name(encoder_dim, ENCODERS),
        encoder_dim=encoder_dim,
        encoder_output="penultimate_hidden_states",
        crop=False,
        tokens=tokens,
    )


def block_norms(keys: Container[str]) -> tuple[str, ...]:
    """The RMS norms in each block; without norm_k in the first, the picture's own keys are left out."""
    return ("norm_q", "norm_k", "norm_ip_k") if "blocks.0.norm_k.weight" in keys else ("norm_q", "norm_ip_k")


def _linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def time_features(timestep: Tensor, dim: int) -> Tensor:
    """[cos(t f_i), sin(t f_i)], f_i = 10000^(-i / (dim/2)): t (N,) in 0..1000 -> (N, dim)."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=timestep.device) / (dim // 2))
    angles = timestep.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1)


class ResamplerLayer(nn.Module):
    """Latents look at [image; latents], then an MLP; both steps are shifted and scaled by the time (AdaLN)."""

    def __init__(self, hidden: int, inner: int, ff: int):
        super().__init__()
        self.norm1, self.norm2, self.ff_norm = (nn.LayerNorm(hidden) for _ in range(3))
        self.to_q, self.to_kv = nn.Linear(hidden, inner, bias=False), nn.Linear(hidden, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, hidden, bias=False)
        self.ff_in, self.ff_out = nn.Linear(hidden, ff, bias=False), nn.Linear(ff, hidden, bias=False)
        self.ada = nn.Linear(hidden, 4 * hidden)

    def forward(self, image: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        shift, scale, ff_shift, ff_scale = linear(self.ada, F.silu(time))[:, None].chunk(4, -1)
        queries = layer_norm(self.norm2, latents) * (1 + scale) + shift
        heads = self.to_q.out_features // RESAMPLER_HEAD
        k, v = linear(self.to_kv, torch.cat((layer_norm(self.norm1, image), queries), 1)).chunk(2, -1)
        # The published scale, 64^(-1/4) on q and on k, is the usual 1/sqrt(64) on their product.
        seen = attend(*(split_heads(t, heads) for t in (linear(self.to_q, queries), k, v)))
        latents = latents + linear(self.to_out, merge_heads(seen))
        hidden = layer_norm(self.ff_norm, latents) * (1 + ff_scale) + ff_shift
        return latents + linear(self.ff_out, F.gelu(linear(self.ff_in, hidden)))


class InstantXAdapter(nn.Module):
    """Per joint block, on the image's raw q, k, v (before the generator's own QK norm):

    e' = LN(e) (1 + scale(t)) + shift(t);  k_ip = norm_ip_k(W_k e'),  v_ip = W_v e'
    attention += strength * SDPA(norm_q(q), [norm_k(k); k_ip], [v; v_ip]), before the output projection.
    The negative prompt's e comes from hidden states of zeros, not from tokens of zeros.
    Without norm_k: attention += strength * SDPA(norm_q(q), k_ip, v_ip).
    """

    def __init__(self, spec: AdapterSpec, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec, self.head_dim = spec, cast(int, spec.head_dim)  # always in the file: the width of its key norm
        shape = {key: tensor.shape for key, tensor in weights.items()}
        hidden, width = shape["resampler.latents"][2], spec.width
        inner, ff = shape["resampler.layers.0.to_q.weight"][0], shape["resampler.layers.0.ff_in.weight"][0]
        self.time_dim = shape["resampler.time_embedding.linear_1.weight"][1]
        with torch.device("meta"):
            self.resampler = nn.ModuleDict(
                {
                    "proj_in": nn.Linear(spec.encoder_dim, hidden),
                    "proj_out": nn.Linear(hidden, width),
                    "norm_out": nn.LayerNorm(width),
                    "time_embedding": nn.ModuleDict(
                        {"linear_1": nn.Linear(self.time_dim, hidden), "linear_2": nn.Linear(hidden, hidden)}
                    ),
                    "layers": nn.ModuleList(
                        ResamplerLayer(hidden, inner, ff) for _ in range(count_blocks(shape, "resampler.layers."))
                    ),
                }
            )
            self.resampler.register_parameter("latents", nn.Parameter(torch.empty(shape["resampler.latents"])))
            self.blocks = nn.ModuleList(
                nn.ModuleDict(
                    {
                        "norm_ip": nn.Linear(hidden, 2 * width),
                        "to_k_ip": nn.Linear(width, width, bias=False),
                        "to_v_ip": nn.Linear(width, width, bias=False),
                        **{name: nn.RMSNorm(self.head_dim) for name in block_norms(weights)},
                    }
                )
                for _ in range(spec.n_blocks)
            )
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)

    def tokens(self, features: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (N, L, E) and timestep (N,) = 1000 sigma -> tokens (N, T, W) and time (N, C)."""
        self.spec.check_features(features)
        parts = self.resampler
        embedding = cast(nn.ModuleDict, parts["time_embedding"])
        time = linear(embedding["linear_1"], time_features(timestep, self.time_dim).to(features))
        time = linear(embedding["linear_2"], F.silu(time))
        image = linear(parts["proj_in"], features) + time[:, None]
        latents = cast(Tensor, parts.latents).to(features).expand(features.shape[0], -1, -1)
        for layer in cast(nn.ModuleList, parts["layers"]):
            latents = layer(image, latents, time)
        return layer_norm(parts["norm_out"], linear(parts["proj_out"], latents)), time

    def keys_values(self, tokens: Tensor, time: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, W) and time (B, C) -> k_ip and v_ip (B, H, T, D)."""
        layers, heads = cast(nn.ModuleDict, self.blocks[block]), self.spec.width // self.head_dim
        shift, scale = linear(layers["norm_ip"], F.silu(time))[:, None].chunk(2, -1)
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift
        k, v = (split_heads(linear(layers[name], tokens), heads) for name in ("to_k_ip", "to_v_ip"))
        return rms_norm(k, cast(nn.RMSNorm, layers["norm_ip_k"]).weight), v

    def branch(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, k_ip: Tensor, v_ip: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """What is added to the image's attention at strength 1: raw q, k, v (B, H, L, D) -> (B, L, W).

        q and k may be fp32 where v is half: they are normalized as given, then attend in v's precision.
        bias: (L or 1, T), added to the scores of the references' tokens, not to those of the image's own.
        """
        layers = cast(nn.ModuleDict, self.blocks[block])
        q = rms_norm(q, cast(nn.RMSNorm, layers["norm_q"]).weight).to(v)
        if "norm_k" not in layers:
            return merge_heads(attend(q, k_ip, v_ip, bias))
        k = rms_norm(k, cast(nn.RMSNorm, layers["norm_k"]).weight).to(v)
        k_ip, v_ip = (t.to(q).expand(q.shape[0], -1, -1, -1) for t in (k_ip, v_ip))
        bias = None if bias is None else F.pad(bias, (k.shape[2], 0))
        return merge_heads(attend(q, torch.cat((k, k_ip), 2), torch.cat((v, v_ip), 2), bias))


def raw(x: Tensor, norm_weight: Tensor | None) -> Tensor:
    """Queries or keys before the generator's RMS norm, up to one factor per row, in fp32.

    Dividing by the norm's weight leaves x / rms(x); the adapter's own RMS norm removes that factor again.
    """
    if norm_weight is None:
        return x.float()
    weight = norm_weight.to(x.device, torch.float32)
    return x.float() / torch.where(weight.abs() < 1e-4, torch.full_like(weight, 1e-4).copysign(weight), weight)


build = InstantXAdapter
