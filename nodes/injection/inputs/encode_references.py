"""References encoded before sampling starts: as features of an image encoder, or as latents."""

from __future__ import annotations

import comfy.model_management as management
import comfy.utils
from torch import Tensor

from ....realrag.adapters.spec import AdapterSpec
from ....realrag.errors import AdapterError
from ....realrag.injection.shared_attention import fit
from ...images import rgb
from .base_model import BaseModel

# Tokens of all references together where keys and values are shared: 2048 cost 1.4 GB on Flux in bf16.
TOKEN_BUDGET, TOKENS_EACH = 2048, 1024
PATCH = 16  # pixels on a side of a token


def pictures(references, image: Tensor | None) -> list[Tensor]:
    """The retrieved photos at their own sizes, then the IMAGE batch: (H, W, 3) each, in 0..1."""
    found = list(references.images()) if references is not None else []
    return found + ([rgb(picture) for picture in image] if image is not None else [])


def features(spec: AdapterSpec, clip_vision, images: list[Tensor], head=None) -> list[Tensor]:
    """Each picture through the image encoder, prepared as the adapter was trained: (1, E) or (1, L, E).

    head: SigLIP's pooling head, for adapters that read its output.
    """
    if clip_vision is None:
        raise AdapterError(f"This adapter ({spec.label}) sees pictures through {spec.encoder}. {spec.cure}")
    spec.check_encoder(getattr(clip_vision, "weights_sha256", ""), getattr(clip_vision, "plain_sha256", ""))
    found = []
    for image in images:
        management.throw_exception_if_processing_interrupted()
        output = clip_vision.encode_image(image[None], crop=spec.crop)
        found.append(select_output(output, spec, head).float())
        spec.check_features(found[-1])
    return found


def select_output(output, spec: AdapterSpec, head) -> Tensor:
    """The part of a vision model's output that the adapter reads."""
    if spec.encoder_output != "pooler_output":
        found = getattr(output, spec.encoder_output)
        if found is None:
            raise AdapterError(
                f"This adapter ({spec.label}) reads {spec.encoder_output}, which this retriever's image encoder does not "
                f"give. {spec.cure}"
            )
        return found
    hidden = output.last_hidden_state
    if head is None or hidden is None or hidden.shape[-1] != head.width:
        width = None if hidden is None else hidden.shape[-1]
        raise AdapterError(
            f"This adapter ({spec.label}) reads the pooled output of {spec.encoder} (width {spec.encoder_dim}), but "
            f"the connected CLIP Vision model gives width {width}. Load that model with Load CLIP Vision."
        )
    return head(hidden.float())


def latents(model, base: BaseModel, vae, images: list[Tensor]) -> list[Tensor]:
    """Each picture as a latent (1, C, h, w) in the space in which the model samples, within the token budget."""
    each = min(TOKENS_EACH, max(1, TOKEN_BUDGET // len(images)))
    found = []
    for image in images:
        latent, _ = encode_within(vae, image, each, base.longest)
        if latent.ndim != 4 or latent.shape[1] != base.channels:
            raise AdapterError(
                f"The VAE makes latents of shape {tuple(latent.shape)}, but {base.name} needs {base.channels} "
                "channels. Connect the VAE that belongs to this model."
            )
        found.append(model.get_model_object("latent_format").process_in(latent))
    return found


def encode_within(vae, image: Tensor, tokens: int, longest: int) -> tuple[Tensor, int]:
    """A picture (H, W, 3) as the VAE's latent (1, C, h, w), shrunk to at most `tokens` tokens with at most `longest` on
    a side; and the number of its tokens."""
    management.throw_exception_if_processing_interrupted()
    width, height = fit(image.shape[1], image.shape[0], tokens, longest)
    resized = comfy.utils.common_upscale(image.movedim(-1, 0)[None], width, height, "area", "disabled")
    return vae.encode(resized.movedim(1, -1).clamp(0, 1)), width * height // PATCH**2


def on_device(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(management.get_torch_device()) for tensor in tensors]


def token_count(base: BaseModel, latents: list[Tensor]) -> int:
    return sum(base.image_tokens(latent.shape) for latent in latents)
