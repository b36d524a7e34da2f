"""Initial latents (SDEdit, arXiv 2108.01073): sampling starts from a reference's latent instead of from noise alone."""

from __future__ import annotations

import comfy.utils
import torch
from torch import Tensor

from ...realrag.errors import AdapterError
from .inputs.controls import Controls

PIXELS = 8  # of a latent's side, where the VAE does not say


def first_latent(vae, images: list[Tensor], controls: Controls, latent: dict) -> tuple[dict, str]:
    """The LATENT to sample from and a report. `latent` gives the size and the batch; it is not changed."""
    shown = controls.shown(len(images))
    if not shown:
        return latent, "Nothing goes in: every reference is negative or has the weight 0."
    told = getattr(vae, "spacial_compression_encode", None)
    each = told() if told is not None else PIXELS
    old = latent["samples"]
    height, width = (side * each for side in old.shape[-2:])
    picture = images[shown[0]].movedim(-1, 0)[None]
    covering = comfy.utils.common_upscale(picture, width, height, "bicubic", "center")
    samples = vae.encode(covering.movedim(1, -1).clamp(0, 1))
    if samples.shape[-2:] != old.shape[-2:]:
        raise AdapterError(
            f"The VAE makes a latent of {tuple(samples.shape[-2:])} from {width} x {height} pixels, but the connected "
            f"latent is {tuple(old.shape[-2:])}. Connect the VAE and the empty latent that belong to this model."
        )
    samples = torch.cat([samples] * old.shape[0])
    rest = "" if len(images) == 1 else " Other references have no say."
    return {**latent, "samples": samples}, (
        f"Reference {shown[0] + 1} is what sampling starts from, {width} x {height} pixels, batch of {old.shape[0]}."
        f"{rest} Connect the latent output to the sampler and set its denoise to 0.6 to 0.85: less keeps more of the "
        "photo. "
        "Strength and window have no say here."
    )
