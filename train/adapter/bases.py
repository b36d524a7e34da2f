"""The frozen generators that an adapter can be trained for: miniature or of diffusers, SD3 or Flux."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.adapters.hooks import Base
from realrag.errors import RealRAGError


class DiffusersSD3:
    """diffusers' SD3Transformer2DModel: SD3 and SD3.5."""

    family = "sd3"

    def __init__(self, net: nn.Module, name: str):
        self.net, self.name, self.heads = net, name, net.config.num_attention_heads
        self.width, self.blocks = net.inner_dim, len(net.transformer_blocks)

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        x, states, pooled = (t.to(self.net.dtype) for t in (x, states, pooled))
        return self.net(x, states, pooled, 1000 * sigma, return_dict=False)[0].float()


class DiffusersFlux:
    """diffusers' FluxTransformer2DModel. guidance: the input of FLUX.1 dev; models without it ignore it."""

    family = "flux"

    def __init__(self, net: nn.Module, name: str, guidance: float = 1.0):
        self.net, self.name, self.heads, self.guidance = net, name, net.config.num_attention_heads, guidance
        self.width, self.blocks = net.inner_dim, len(net.transformer_blocks)

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        dtype, (rows, columns) = self.net.dtype, (x.shape[2] // 2, x.shape[3] // 2)
        # 2 x 2 pixels to a token: (B, C, 2h, 2w) -> (B, h w, 4C), channels slowest
        tokens = F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(x)
        guidance = torch.full_like(sigma, self.guidance) if self.net.config.guidance_embeds else None
        out = self.net(
            tokens.to(dtype), states.to(dtype), pooled.to(dtype), sigma.to(dtype),
            img_ids=F.pad(places, (1, 0)), txt_ids=x.new_zeros(states.shape[1], 3), guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
        return F.pixel_shuffle(out.float().transpose(1, 2).unflatten(2, (rows, columns)), 2)


DIFFUSERS = {
    "diffusers-sd3": (DiffusersSD3, "SD3Transformer2DModel"),
    "diffusers-flux": (DiffusersFlux, "FluxTransformer2DModel"),
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


def load_diffusers(
    kind: str, path: Path, name: str, precision: str, checkpointing: bool, guidance: float, device: str | torch.device
) -> Base:
    """The transformer of a saved pipeline, frozen. Nothing is downloaded."""
    try:
        import diffusers
    except ImportError:
        raise RealRAGError(f"The base {kind!r} needs diffusers: pip install realrag[generate].") from None
    wrap, network = DIFFUSERS[kind]
    if not (Path(path) / "transformer" / "config.json").is_file():
        raise RealRAGError(
            f"{path} is not a saved pipeline: transformer/config.json is missing. Give the folder of one."
        )
    net = getattr(diffusers, network).from_pretrained(
        str(path), subfolder="transformer", torch_dtype=PRECISIONS[precision], local_files_only=True
    )
    return frozen(wrap(net, name, *((guidance,) if wrap is DiffusersFlux else ())), precision, checkpointing, device)


def frozen(base: Base, precision: str, checkpointing: bool, device: str | torch.device = "cpu") -> Base:
    """Without trainable weights, in the given precision. checkpointing: recompute activations in the backward pass."""
    base.net.requires_grad_(False).eval()
    if precision == "fp8":
        to_fp8(base.net)
    base.net.to(device)
    if checkpointing:
        base.net.enable_gradient_checkpointing()
        base.net.train()  # diffusers checkpoints in training mode only; these networks have no dropout
    return base


class Fp8Linear(nn.Module):
    """A frozen linear layer in 8 bits (e4m3) with one scale per row; it computes in the precision of its input."""

    LARGEST = 448.0  # of e4m3

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / self.LARGEST
        self.register_buffer("weight", (weight / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) * self.scale.to(x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def to_fp8(net: nn.Module) -> None:
    """Replace the linear layers inside the blocks; embeddings, the outer modulation and the last layer stay."""
    for name, blocks in net.named_children():
        if name.endswith("blocks"):
            for owner in list(blocks.modules()):
                for child, layer in list(owner.named_children()):
                    if isinstance(layer, nn.Linear):
                        setattr(owner, child, Fp8Linear(layer))
