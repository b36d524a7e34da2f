"""Reference latents: models trained to look at other pictures take them as latents beside the prompt."""

from __future__ import annotations

import comfy.model_management as management
import comfy.utils
from torch import Tensor

from ....realrag.errors import AdapterError
from ....realrag.injection.shared_attention import fit
from .conditioning import Put, with_values

# ComfyUI's class of the model -> its name. Trained: every such model was. Perhaps: the class also serves models that
# were not (FLUX.1 dev, plain Qwen-Image), and nothing in the weights tells them apart, so an artist has to say so.
TRAINED = {"Flux2": "FLUX.2", "Omnigen2": "OmniGen2"}
PERHAPS = {"Flux": "FLUX.1 Kontext", "QwenImage": "Qwen-Image-Edit"}
TOKEN_BUDGET = 4096  # of all references together, as many as a picture of 1024 x 1024 has


def kind(model) -> str:
    return type(model.model).__name__


def reference_latents(model, vae, images: dict[int, Tensor]) -> tuple[Put, int]:
    """How to put references, by their numbers, into a prompt, each scaled to its share of the budget; and all tokens."""
    if kind(model) not in {**TRAINED, **PERHAPS}:
        raise AdapterError(
            f"This model ({kind(model)}) was not made to look at reference latents; "
            f"{', '.join([*PERHAPS.values(), *TRAINED.values()])} were. Set path to auto."
        )
    latents, tokens = {}, 0
    for i, image in images.items():
        management.throw_exception_if_processing_interrupted()
        width, height = fit(image.shape[1], image.shape[0], max(1, TOKEN_BUDGET // len(images)), TOKEN_BUDGET)
        resized = comfy.utils.common_upscale(image.movedim(-1, 0)[None], width, height, "area", "disabled")
        latents[i] = vae.encode(resized.movedim(1, -1).clamp(0, 1))
        tokens += width * height // 256

    def put(conditioning: list, numbers: list[int]) -> list:
        return with_values(conditioning, "reference_latents", [latents[i] for i in numbers])

    return put, tokens
