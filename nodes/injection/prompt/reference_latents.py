"""Reference latents: models trained to look at other pictures take them as latents beside the prompt."""

from __future__ import annotations

from torch import Tensor

from ....realrag.errors import AdapterError
from ..inputs.encode_references import encode_within
from .conditioning import Put, with_values

# ComfyUI's class of the model -> its name. Trained: every such model was. Perhaps: the class also serves models that
# were not (FLUX.1 dev, plain Qwen-Image), and nothing in the weights tells them apart, so an artist has to say so.
TRAINED = {"Flux2": "FLUX.2", "Omnigen2": "OmniGen2"}
PERHAPS = {"Flux": "FLUX.1 Kontext", "QwenImage": "Qwen-Image-Edit"}
TOKEN_BUDGET = 4096  # of all references together: a picture of 1024 x 1024 has as many


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
        latents[i], count = encode_within(vae, image, max(1, TOKEN_BUDGET // len(images)), TOKEN_BUDGET)
        tokens += count

    def put(conditioning: list, numbers: list[int]) -> list:
        return with_values(conditioning, "reference_latents", [latents[i] for i in numbers])

    return put, tokens
