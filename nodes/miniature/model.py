"""The miniatures' MODEL and VAE, through ComfyUI's own detection, so that they are loaded and moved like any other.

Each patcher says how it is made anew (`cached_patcher_init`), for what newer versions copy whole: torch.compile,
several GPUs.
"""

from __future__ import annotations

from pathlib import Path

import comfy.model_detection as detection
import comfy.model_management as management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sd
import comfy.utils
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...realrag.errors import RealRAGError, brief
from ...realrag.miniature.autoencoder import load_autoencoder
from ..compat import supported_keywords


def generator(path: Path, disable_dynamic: bool = False):
    """A generator's file -> ModelPatcher, with the latent format, shift and precision of its family."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RealRAGError(
            f"{path} cannot be read ({brief(error)}). It comes with RealRAG: fetch the pack again."
        ) from error
    config = detection.detect_unet_config(weights, "")
    sizes = flux_sizes(weights)
    if config is None or all(config[key] == size for key, size in sizes.items()):
        load = comfy.sd.load_diffusion_model_state_dict
        model = load(weights, **supported_keywords(load, disable_dynamic=disable_dynamic))
    else:
        model = sized(weights, {**config, **sizes})
    if model is None:
        raise RealRAGError(f"This version of ComfyUI does not recognize {path.name} as SD3 or Flux. Update ComfyUI.")
    model.cached_patcher_init = (generator, (path,))
    if (grid := getattr(model.model.diffusion_model, "pos_embed_max_size", None)) is not None:
        wrapper = SizeCheck(grid * model.model.diffusion_model.patch_size)
        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "realrag_size", wrapper)
    return model


class SizeCheck:
    """Refuses, before the first step, a latent for which SD3's table of positions has no places."""

    def __init__(self, most: int):
        self.most = most  # sides of a latent

    def __deepcopy__(self, memo) -> SizeCheck:
        return self

    def __call__(self, sample, noise: Tensor, *args, **kwargs):
        height, width = noise.shape[-2:]
        if max(height, width) > self.most:
            raise RealRAGError(
                f"The latent is for a picture of {width * 8} x {height * 8} pixels, and this miniature paints at most "
                f"{self.most * 8} x {self.most * 8}. Set the empty latent to 128 x 128, the size that it was trained for."
            )
        return sample(noise, *args, **kwargs)


def flux_sizes(weights: dict[str, Tensor]) -> dict[str, int]:
    """What older versions of ComfyUI take for granted instead of reading it from a Flux file; {} for SD3."""
    if "img_in.weight" not in weights:
        return {}
    hidden = weights["img_in.weight"].shape[0]
    head = weights["double_blocks.0.img_attn.norm.key_norm.scale"].shape[0]
    return {"hidden_size": hidden, "num_heads": hidden // head, "context_in_dim": weights["txt_in.weight"].shape[1]}


def sized(weights: dict[str, Tensor], config: dict):
    """`load_diffusion_model_state_dict` for a config of these sizes. Only older versions come here."""
    settings = detection.model_config_from_unet_config(config, weights)
    if settings is None:
        return None
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=list(settings.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    device, offload = management.get_torch_device(), management.unet_offload_device()
    cast = management.unet_manual_cast(dtype, device, settings.supported_inference_dtypes)
    settings.set_inference_dtype(dtype, cast)
    model = settings.get_model(weights, "").to(offload)
    model.load_model_weights(weights, "")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def autoencoder(path: Path, latent_format) -> comfy.sd.VAE:
    """The autoencoder as the VAE of a family: `latent_format` says how ComfyUI scales a family's latents on their way
    to the generator, and the VAE does the opposite, so that the generator sees the autoencoder's own."""
    vae = comfy.sd.VAE(sd=load_autoencoder(path).state_for(latent_format.scale_factor, latent_format.shift_factor))
    vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (autoencoder_patcher, (path, latent_format))
    return vae


def autoencoder_patcher(path: Path, latent_format, disable_dynamic: bool = False):
    return autoencoder(path, latent_format).patcher
