"""The generator behind a MODEL, as far as references need to know it. It is only ever read."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_base

from ....realrag.errors import AdapterError


@dataclass(frozen=True)
class BaseModel:
    family: str  # "flux" or "sd3"
    name: str
    width: int
    heads: int
    double: int  # number of double (joint) blocks
    single: int  # number of single blocks, 0 in SD3
    patch: int  # side of an image token, in latent pixels
    channels: int  # of the latent
    inputs: int  # channels the network takes: more than the latent's in models for inpainting, depth or edges
    axes: tuple[int, ...]  # channels of each rotary axis, () without rotary embedding
    longest: int  # most tokens on one side

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Every block as ComfyUI names it for replacement."""
        return [("double_block", i) for i in range(self.double)] + [("single_block", i) for i in range(self.single)]

    def image_tokens(self, latent_shape: tuple[int, ...]) -> int:
        rows, columns = (-(-side // self.patch) for side in latent_shape[-2:])
        return rows * columns


def base_of(model) -> BaseModel:
    """Describe the generator of a ModelPatcher; AdapterError where references cannot reach it."""
    net, kind = model.model.diffusion_model, type(model.model).__name__
    latent = model.model.latent_format.latent_channels
    if isinstance(model.model, comfy.model_base.SD3) and hasattr(net, "joint_blocks"):
        longest = net.pos_embed_max_size if net.pos_embed is not None else None
        return BaseModel(
            "sd3", "SD3 / SD3.5", net.hidden_size, net.num_heads, len(net.joint_blocks), 0,
            net.patch_size, latent, net.in_channels, (), longest or 4096,
        )  # fmt: skip
    if isinstance(model.model, comfy.model_base.Flux) and hasattr(net, "double_blocks") and hasattr(net, "params"):
        return BaseModel(
            "flux", kind, net.hidden_size, net.num_heads, len(net.double_blocks), len(net.single_blocks),
            net.patch_size, latent, net.in_channels // net.patch_size**2, tuple(net.params.axes_dim), 4096,
        )  # fmt: skip
    raise AdapterError(
        f"Inject References steers Flux, SD3 and SD3.5, but this model is {kind} ({type(net).__name__}), whose blocks "
        "it cannot reach. Load one of those, or hand the reference pictures to nodes made for this model."
    )
