"""A new adapter for a generator, which at first leaves it exactly as it is; and a trained one as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.adapters import build_adapter
from realrag.adapters.hooks import Base
from realrag.adapters.instantx_sd3 import RESAMPLER_HEAD
from realrag.adapters.reading import FORMAT, VERSION
from realrag.errors import RealRAGError
from realrag.files import sorted_header, write_atomic

HALF_LIMIT = 65504.0  # the largest number of fp16


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes. `hidden`: of the tokens (Flux) or inside the resampler (SD3, a multiple of 64)."""

    hidden: int = 256
    tokens: int = 32  # SD3 alone: Flux has one a place of the image encoder's grid
    depth: int = 2  # of the resampler, SD3 alone
    rank: int = 0  # of what each block has for itself (keys, values, SD3's modulation); 0: whole matrices

    def __post_init__(self) -> None:
        if self.hidden < 64 or self.hidden % RESAMPLER_HEAD or min(self.tokens, self.depth) < 1 or self.rank < 0:
            raise RealRAGError(f"{self}: hidden is a multiple of 64, tokens and depth start at 1, rank at 0.")


def new_adapter(base: Base, encoder_dim: int, places: int, config: AdapterConfig, seed: int) -> nn.Module:
    """Trainable, in fp32: projectors and keys random, values zero. places: of the image encoder's grid, (B, places,
    encoder_dim)."""
    dice = torch.Generator().manual_seed(seed)
    make = _flux if base.family == "flux" else _sd3
    weights = {key: _start(key, shape, dice) for key, shape in make(base, encoder_dim, places, config).items()}
    adapter = build_adapter(weights).requires_grad_(True)
    if config.rank:
        _lower_rank(adapter, config.rank, dice)
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


def _start(key: str, shape: tuple[int, ...], dice: torch.Generator) -> Tensor:
    """Norms at one, values, biases and what shifts and scales by time at zero, all else random by its number of inputs."""
    if len(shape) == 1 and key.endswith("weight"):  # of norms alone
        return torch.ones(shape)
    if "_v_proj" in key or "to_v_ip" in key or "norm_ip.linear" in key or ".2.1." in key or len(shape) == 1:
        return torch.zeros(shape)
    spread = 0.02 if key.endswith("position") else shape[-1] ** -0.5
    return torch.randn(shape, generator=dice) * spread


class LowRank(nn.Module):
    """In the place of a linear layer while training: W = up down, so that fewer numbers and their moments are kept."""

    def __init__(self, layer: nn.Linear, rank: int, zero: bool, dice: torch.Generator):
        super().__init__()
        out, into = layer.weight.shape
        rank = min(rank, out, into)
        self.down = nn.Parameter(torch.randn(rank, into, generator=dice) * into**-0.5)
        self.up = nn.Parameter(torch.zeros(out, rank) if zero else torch.randn(out, rank, generator=dice) * rank**-0.5)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(F.linear(x, self.down.to(x)), self.up.to(x))
        return out if self.bias is None else out + self.bias.to(x)


def _lower_rank(adapter: nn.Module, rank: int, dice: torch.Generator) -> None:
    for block in adapter.blocks:
        for name in ("k", "v", "to_k_ip", "to_v_ip", "norm_ip"):
            if name in block:
                block[name] = LowRank(block[name], rank, name in ("v", "to_v_ip", "norm_ip"), dice)


# Inside the resampler, RealRAG's own names -> the published ones, in which files are written.
RESAMPLER = {
    "norm1": "0.norm1", "norm2": "0.norm2", "to_q": "0.to_q", "to_kv": "0.to_kv", "to_out": "0.to_out", "ff_norm": "1.0",
    "ff_in": "1.1", "ff_out": "1.3", "ada": "2.1",
}  # fmt: skip


def published(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The adapter's weights, low-rank ones multiplied out, under the names of the published layout."""
    whole = {}
    for name, tensor in state.items():
        if name.endswith(".up"):
            whole[name.removesuffix(".up") + ".weight"] = tensor @ state[name.removesuffix(".up") + ".down"]
        elif not name.endswith(".down"):
            whole[name] = tensor
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
    """fp16 in the published layout; the metadata says for which generator and image encoder, and how it was trained."""
    from safetensors.torch import save

    weights = published({name: tensor.detach().cpu().float() for name, tensor in state.items()}, base.family)
    largest = max(weights, key=lambda name: weights[name].abs().max())
    if not weights[largest].abs().max() < HALF_LIMIT:
        raise RealRAGError(f"{largest} has grown beyond fp16: the training went astray. Lower the rate and begin anew.")
    family = "flux-xlabs" if base.family == "flux" else "sd35-instantx"
    about = {"format": FORMAT, "version": VERSION, "family": family, "base": base.name, "encoder": encoder}
    about |= {"encoder_sha256": encoder_sha256, "training": json.dumps(training, sort_keys=True)}
    build_adapter({name: tensor.half() for name, tensor in weights.items()})  # what cannot be read is not written
    write_atomic(path, sorted_header(save({name: t.half().contiguous() for name, t in weights.items()}, about)))
