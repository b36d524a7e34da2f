"""A new adapter for a generator, which at first changes nothing in its output; and a trained one as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from realrag import artifact
from realrag.adapters import build_adapter
from realrag.adapters.hooks import Base
from realrag.adapters.instantx_sd3 import RESAMPLER_HEAD
from realrag.adapters.reading import FORMAT, VERSION
from realrag.errors import RealRAGError

from ..lora import LowRankLinear, merge_low_rank

HALF_LIMIT = 65504.0  # the largest number of fp16


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes. `hidden`: of the tokens (Flux) or inside the resampler (SD3, a multiple of 64)."""

    hidden: int = 256
    tokens: int = 32  # SD3 only: Flux has one for each place of the image encoder's grid
    depth: int = 2  # of the resampler, SD3 only
    rank: int = 0  # of the matrices in each block (keys, values, SD3's modulation); 0 for full matrices

    def __post_init__(self) -> None:
        if self.hidden < 64 or self.hidden % RESAMPLER_HEAD or min(self.tokens, self.depth) < 1 or self.rank < 0:
            raise RealRAGError(f"{self}: hidden is a multiple of 64, tokens and depth are 1 or more, rank 0 or more.")


def new_adapter(base: Base, encoder_dim: int, places: int, config: AdapterConfig, seed: int) -> nn.Module:
    """Trainable, in fp32: projectors and keys random, values zero. It takes image features (B, places, encoder_dim)."""
    rng = torch.Generator().manual_seed(seed)
    make = _flux if base.family == "flux" else _sd3
    weights = {key: _start(key, shape, rng) for key, shape in make(base, encoder_dim, places, config).items()}
    adapter = build_adapter(weights).requires_grad_(True)
    if config.rank:
        _lower_rank(adapter, config.rank, rng)
    return adapter


def _flux(base: Base, encoder_dim: int, places: int, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    proj, context = "ip_adapter_proj_model.", config.hidden
    shapes = {
        f"{proj}proj.weight": (context, encoder_dim),
        f"{proj}proj.bias": (context,),
        f"{proj}position": (places, context),
    }
    shapes |= {f"{proj}norm.{part}": (context,) for part in ("weight", "bias")}
    for i in range(base.blocks):
        for name in "kv":
            layer = f"double_blocks.{i}.processor.ip_adapter_double_stream_{name}_proj"
            shapes |= {f"{layer}.weight": (base.width, context), f"{layer}.bias": (base.width,)}
    return shapes


def _sd3(base: Base, encoder_dim: int, places: int, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    hidden, width, time = config.hidden, base.width, min(320, config.hidden)

    def linear(name, out, into):
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    def norm(name, size):
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    shapes = {"latents": (1, config.tokens, hidden), **linear("proj_in", hidden, encoder_dim)}
    shapes |= {**linear("proj_out", width, hidden), **norm("norm_out", width)}
    shapes |= {**linear("time_embedding.linear_1", hidden, time), **linear("time_embedding.linear_2", hidden, hidden)}
    for i in range(config.depth):
        layer = {
            **norm("0.norm1", hidden),
            **norm("0.norm2", hidden),
            **norm("1.0", hidden),
            **linear("2.1", 4 * hidden, hidden),
        }
        layer |= {"0.to_q.weight": (hidden, hidden), "0.to_kv.weight": (2 * hidden, hidden)}
        layer |= {
            "0.to_out.weight": (hidden, hidden),
            "1.1.weight": (4 * hidden, hidden),
            "1.3.weight": (hidden, 4 * hidden),
        }
        shapes |= {f"layers.{i}.{key}": shape for key, shape in layer.items()}
    shapes = {f"image_proj.{key}": shape for key, shape in shapes.items()}
    for i in range(base.blocks):
        block = {
            **linear("norm_ip.linear", 2 * width, hidden),
            "to_k_ip.weight": (width, width),
            "to_v_ip.weight": (width, width),
        }
        block |= {f"{name}.weight": (base.width // base.heads,) for name in ("norm_q", "norm_ip_k")}
        shapes |= {f"ip_adapter.{i}.{key}": shape for key, shape in block.items()}
    return shapes


def _start(key: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Norms at one; values, biases and time modulation at zero; the rest random, scaled by its number of inputs."""
    if len(shape) == 1 and key.endswith("weight"):  # a norm
        return torch.ones(shape)
    if "_v_proj" in key or "to_v_ip" in key or "norm_ip.linear" in key or ".2.1." in key or len(shape) == 1:
        return torch.zeros(shape)
    spread = 0.02 if key.endswith("position") else shape[-1] ** -0.5
    return torch.randn(shape, generator=rng) * spread


def _lower_rank(adapter: nn.Module, rank: int, rng: torch.Generator) -> None:
    for block in adapter.blocks:
        for name in ("k", "v", "to_k_ip", "to_v_ip", "norm_ip"):
            if name in block:
                block[name] = LowRankLinear(block[name], rank, name in ("v", "to_v_ip", "norm_ip"), rng)


# Inside the resampler: RealRAG's own names -> the published ones, which files use.
RESAMPLER = {
    "norm1": "0.norm1", "norm2": "0.norm2", "to_q": "0.to_q", "to_kv": "0.to_kv", "to_out": "0.to_out", "ff_norm": "1.0",
    "ff_in": "1.1", "ff_out": "1.3", "ada": "2.1",
}  # fmt: skip


def published(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The adapter's weights, low-rank ones merged, under the names of the published layout."""
    whole = merge_low_rank(state)
    return {_published(name, family): tensor for name, tensor in whole.items()}


def _published(name: str, family: str) -> str:
    parts = name.split(".")
    if family == "flux":
        if parts[0] == "blocks":
            return f"double_blocks.{parts[1]}.processor.ip_adapter_double_stream_{parts[2]}_proj.{parts[3]}"
        return f"ip_adapter_proj_model.{name}"
    if parts[0] == "blocks":
        return "ip_adapter." + ".".join(parts[1:]).replace("norm_ip.", "norm_ip.linear.")
    if parts[1] == "layers":
        parts[3] = RESAMPLER[parts[3]]
    return ".".join(("image_proj", *parts[1:]))


def save_adapter(
    path: Path,
    state: Mapping[str, Tensor],
    base: Base,
    encoder: str,
    encoder_sha256: str,
    training: Mapping[str, object],
) -> None:
    """fp16 in the published layout; the metadata name the generator, the image encoder and the training."""
    weights = published({name: tensor.detach().cpu().float() for name, tensor in state.items()}, base.family)
    largest = max(weights, key=lambda name: weights[name].abs().max())
    if not weights[largest].abs().max() < HALF_LIMIT:
        raise RealRAGError(f"{largest} has grown beyond fp16: the training diverged. Lower the rate and start over.")
    family = "flux-xlabs" if base.family == "flux" else "sd35-instantx"
    about = {"format": FORMAT, "version": VERSION, "family": family, "base": base.name, "encoder": encoder}
    about |= {"encoder_sha256": encoder_sha256, "training": json.dumps(training, sort_keys=True)}
    build_adapter({name: tensor.half() for name, tensor in weights.items()})  # an unreadable file is not written
    artifact.write(path, {name: t.half().contiguous() for name, t in weights.items()}, about)
