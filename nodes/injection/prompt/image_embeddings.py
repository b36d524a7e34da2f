"""SDXL and SD2.1 unCLIP: references as image embeddings in the place of the pooled prompt, as core's nodes do it."""

from __future__ import annotations

import comfy.model_management as management
from torch import Tensor

from ....realrag.errors import AdapterError
from .conditioning import Put, with_values

# ComfyUI's class of the model -> its name and the vision model that it was trained with.
KNOWN = {
    "SDXL": ("SDXL", "CLIP ViT-bigG/14"),
    "SDXLRefiner": ("SDXL refiner", "CLIP ViT-bigG/14"),
    "SD21UNCLIP": ("SD2.1 unCLIP", "CLIP ViT-H/14, or ViT-L/14 for the small one"),
}


def image_embeddings(model, clip_vision, images: dict[int, Tensor], amounts: dict[int, float]) -> Put:
    """How to put references, by their numbers, into a prompt. Core adds them up, so each gets its share of its amount."""
    known = KNOWN.get(type(model.model).__name__)
    if known is None:
        raise AdapterError(
            f"This model ({type(model.model).__name__}) takes no image embeddings; SDXL and the unCLIP version of "
            "SD2.1 do. Set path to auto."
        )
    name, encoder = known
    width, seen = model.model.noise_augmentor.time_embed.dim, {}
    for i, image in images.items():
        management.throw_exception_if_processing_interrupted()
        seen[i] = clip_vision.encode_image(image[None], crop=True)
        if seen[i].image_embeds.ndim != 2 or seen[i].image_embeds.shape[-1] != width:
            raise AdapterError(
                f"{name} takes image embeddings of width {width}, but the connected CLIP Vision model gives width "
                f"{seen[i].image_embeds.shape[-1]}. Load {encoder} with Load CLIP Vision."
            )

    def put(conditioning: list, numbers: list[int]) -> list:
        values = [
            {"clip_vision_output": seen[i], "strength": amounts[i] / len(numbers), "noise_augmentation": 0.0}
            for i in numbers
        ]
        return with_values(conditioning, "unclip_conditioning", values)

    return put
