"""The graphs for Stable Diffusion: SD3.5 with an adapter and without one, SDXL through its prompt."""

from __future__ import annotations

from .canvas import Canvas, Column
from .models import needs
from .parts import COMPARE, STORY, Prompts, Sampling, adapted, both_arms, checkpoint_text, find, through

SD35_SAMPLING = {"seed": 7, "steps": 28, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"}
SDXL_SAMPLING = {"seed": 7, "steps": 28, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
SEE = "2  Let Stable Diffusion see them"
PAINT = "3  Make the picture"

SD35 = f"""{STORY}{COMPARE}
{needs("ip-adapter.bin", "sigclip_vision_patch14_384.safetensors")}
The adapter is for SD3.5 **Large**. For SD3.5 Medium, or without these two, see the graph *RealRAG 09 No adapter*.
"""
VAE_ALONE = f"""{STORY}{COMPARE}
This graph needs **no adapter file**: the VAE turns the photos into latents, and the model attends to them directly. It is
experimental, and each step runs the model once more for each photo. It works the same with Flux, SD3 and SD3.5.

{needs("sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors")}
"""
SDXL = f"""{STORY}{COMPARE}
SDXL knows pictures as a part of its prompt: the prompts go through *Inject References* on their way to the sampler. That gives
the mood and colors of the photos more than their shapes; for shapes, see *RealRAG 17 ControlNet with SDXL*.

{needs("clip_vision_g.safetensors")}
"""


def _start(
    object_info: dict, note: str, checkpoint: str, text: str
) -> tuple[Canvas, dict, Column, Column, dict, Prompts]:
    canvas = Canvas(object_info, scale=0.6)
    prompt, found = find(canvas, note, note_height=560, text=text)
    middle, loaders = canvas.column(360), canvas.column(320)
    model = canvas.node("CheckpointLoaderSimple", loaders, ckpt_name=checkpoint)
    return canvas, found, middle, loaders, model, checkpoint_text(canvas, loaders, model, prompt)


def sd35(object_info: dict) -> Canvas:
    name = "sd3.5_large_fp8_scaled.safetensors"
    canvas, found, middle, loaders, model, prompts = _start(
        object_info, SD35, name, "a photo of asparagus on a slate plate, restaurant"
    )
    loaded = adapted(canvas, middle, "ip-adapter.bin", "sigclip_vision_patch14_384.safetensors")
    links = {"model": (model, "MODEL"), "references": (found, "references"), **through(loaded)}
    inject = canvas.node("RealRAG_InjectReferences", middle, strength=0.5, links=links)
    latent = canvas.node("EmptySD3LatentImage", loaders, width=1024, height=1024)
    sampling = Sampling(latent, model, SD35_SAMPLING, "realrag_sd35")
    columns = both_arms(canvas, model, inject, prompts, sampling, found)
    canvas.group(SEE, middle)
    canvas.group(PAINT, loaders, *columns)
    return canvas


def vae_alone(object_info: dict) -> Canvas:
    name = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
    canvas, found, middle, loaders, model, prompts = _start(
        object_info, VAE_ALONE, name, "a photo of an aubergine on a kitchen board, window light"
    )
    links = {"model": (model, "MODEL"), "references": (found, "references"), "vae": (model, "VAE")}
    inject = canvas.node("RealRAG_InjectReferences", middle, links=links)
    latent = canvas.node("EmptySD3LatentImage", loaders, width=1024, height=1024)
    sampling = Sampling(latent, model, SD35_SAMPLING, "realrag_vae_alone")
    columns = both_arms(canvas, model, inject, prompts, sampling, found)
    canvas.group(SEE, middle)
    canvas.group(PAINT, loaders, *columns)
    return canvas


def sdxl_embeds(object_info: dict) -> Canvas:
    canvas, found, middle, loaders, model, prompts = _start(
        object_info, SDXL, "sd_xl_base_1.0.safetensors", "a photo of a pineapple on a tropical beach, blue sky"
    )
    vision = canvas.node("CLIPVisionLoader", middle, clip_name="clip_vision_g.safetensors")
    links = {
        "model": (model, "MODEL"), "references": (found, "references"), "clip_vision": (vision, "CLIP_VISION"),
        "conditioning": prompts.positive, "negative": prompts.negative,
    }  # fmt: skip
    inject = canvas.node("RealRAG_InjectReferences", middle, links=links)
    latent = canvas.node("EmptyLatentImage", loaders, width=1024, height=1024)
    sampling = Sampling(latent, model, SDXL_SAMPLING, "realrag_sdxl_embeds")
    changed = Prompts((inject, "conditioning"), (inject, "negative"))
    columns = both_arms(canvas, model, inject, prompts, sampling, found, changed)
    canvas.group("2  Let SDXL see them", middle)
    canvas.group(PAINT, loaders, *columns)
    return canvas
