"""The graphs for Flux: two adapters, Redux, and the models that were trained with reference latents."""

from __future__ import annotations

from .canvas import Canvas
from .models import needs
from .parts import COMPARE, PROMPT, STORY, Prompts, Sampling, adapted, both_arms, credits, find, flux_text, through

SAMPLING = {"seed": 7, "steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
SEE = "2  Let Flux see them"
PAINT = "3  Make the picture"

XLABS = f"""{STORY}{COMPARE}
{needs("ip_adapter.safetensors", "clip-vit-large-patch14.safetensors")}
Without these two, see the graph *RealRAG 09 No adapter*.
"""
INSTANTX = f"""{STORY}{COMPARE}
This adapter holds on to the photos more than XLabs' does: 128 tokens for each, in all 57 blocks. Try a *strength* of 0.6 to 0.8.

{needs("flux-instantx-ip-adapter.bin", "siglip-so400m-patch14-384.safetensors")}
ComfyUI's own SigLIP file lacks the pooling head that this adapter reads. The adapter takes 5.3 GB.
"""
REDUX = f"""{STORY}{COMPARE}
Redux puts the photos **behind the prompt**, so the prompts go through *Inject References* on their way to the sampler. If the
photos drown the prompt, raise *downsampling* among its advanced inputs.

{needs("flux1-redux-dev.safetensors", "sigclip_vision_patch14_384.safetensors")}
"""
KONTEXT = f"""{STORY}{COMPARE}
Kontext was trained to look at a picture: the photo goes in as a **reference latent**, through the prompt. Say in the prompt
what to keep and what to change. *strength* does not act here, except 0.

{needs("flux1-dev-kontext_fp8_scaled.safetensors")}
"""
FLUX2 = f"""{STORY}
FLUX.2 was trained to look at several pictures: the photos go in as **reference latents**, through the prompt, in which you can
call them *image 1*, *image 2*. *strength* does not act here, except 0. It needs ComfyUI 0.4 or newer.

{needs("flux-2-klein-4b.safetensors", "qwen_3_4b.safetensors", "flux2-vae.safetensors")}
"""


def _adapter_graph(
    object_info: dict, name: str, note: str, files: tuple[str, str], strength: float, text: str = PROMPT
) -> Canvas:
    """files: the adapter and its vision model."""
    canvas = Canvas(object_info, scale=0.6)
    prompt, found = find(canvas, note, note_height=560, text=text)
    middle = canvas.column(360)
    loaded = adapted(canvas, middle, *files)
    loaders = canvas.column(320)
    model = canvas.node("UNETLoader", loaders, unet_name="flux1-dev.safetensors", weight_dtype="default")
    prompts = flux_text(canvas, loaders, prompt)
    redux = "redux" in files[0]
    links = {"model": (model, "MODEL"), "references": (found, "references"), **through(loaded)}
    if redux:
        links |= {"conditioning": prompts.positive, "negative": prompts.negative}
    inject = canvas.node("RealRAG_InjectReferences", middle, strength=strength, links=links)
    latent = canvas.node("EmptySD3LatentImage", loaders, width=1024, height=1024)
    vae = canvas.node("VAELoader", loaders, vae_name="ae.safetensors")
    changed = Prompts((inject, "conditioning"), (inject, "negative")) if redux else None
    columns = both_arms(canvas, model, inject, prompts, Sampling(latent, vae, SAMPLING, name), found, changed)
    canvas.group(SEE, middle)
    canvas.group(PAINT, loaders, *columns)
    return canvas


def xlabs(object_info: dict) -> Canvas:
    files = "ip_adapter.safetensors", "clip-vit-large-patch14.safetensors"
    return _adapter_graph(object_info, "realrag_flux", XLABS, files, 0.7)


def instantx(object_info: dict) -> Canvas:
    files = "flux-instantx-ip-adapter.bin", "siglip-so400m-patch14-384.safetensors"
    text = "a photo of a shiny sneaker on wet asphalt at night, neon reflections"
    return _adapter_graph(object_info, "realrag_flux_instantx", INSTANTX, files, 0.7, text)


def redux(object_info: dict) -> Canvas:
    files = "flux1-redux-dev.safetensors", "sigclip_vision_patch14_384.safetensors"
    text = "a photo of red beets on a market stall, soft daylight"
    return _adapter_graph(object_info, "realrag_flux_redux", REDUX, files, 1.0, text)


def kontext(object_info: dict) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    text = "place the toy duck of the photo on a sandy beach at sunset, the same toy duck"
    prompt, found = find(canvas, KONTEXT, note_height=560, top_k=1, text=text, look_for="duck toy")
    middle, loaders = canvas.column(360), canvas.column(320)
    name = "flux1-dev-kontext_fp8_scaled.safetensors"
    model = canvas.node("UNETLoader", loaders, unet_name=name, weight_dtype="default")
    prompts = flux_text(canvas, loaders, prompt, guidance=2.5)
    latent = canvas.node("EmptySD3LatentImage", loaders, width=1024, height=1024)
    vae = canvas.node("VAELoader", loaders, vae_name="ae.safetensors")
    links = {
        "model": (model, "MODEL"), "references": (found, "references"), "vae": (vae, "VAE"),
        "conditioning": prompts.positive, "negative": prompts.negative,
    }  # fmt: skip
    inject = canvas.node("RealRAG_InjectReferences", middle, path="reference latents", links=links)
    changed = Prompts((inject, "conditioning"), (inject, "negative"))
    sampling = Sampling(latent, vae, SAMPLING, "realrag_kontext")
    columns = both_arms(canvas, model, inject, prompts, sampling, found, changed)
    canvas.group("2  Let Kontext see it", middle)
    canvas.group(PAINT, loaders, *columns)
    return canvas


def flux2(object_info: dict) -> Canvas:
    """As core samples FLUX.2 klein: no negative prompt, a schedule of its own."""
    canvas = Canvas(object_info, scale=0.6)
    text = "the toy robot of image 1 drives the toy car of image 2 over a wooden desk"
    prompt, found = find(canvas, FLUX2, note_height=560, top_k=2, text=text, look_for="robot toy\nrc car")
    middle, loaders = canvas.column(360), canvas.column(320)
    name = "flux-2-klein-4b.safetensors"
    model = canvas.node("UNETLoader", loaders, unet_name=name, weight_dtype="default")
    clip = canvas.node("CLIPLoader", loaders, clip_name="qwen_3_4b.safetensors", type="flux2")
    links = {"clip": (clip, "CLIP"), "text": (prompt, "STRING")}
    encoded = canvas.node("CLIPTextEncode", loaders, links=links, title="Prompt for FLUX.2", collapsed=True)
    vae = canvas.node("VAELoader", loaders, vae_name="flux2-vae.safetensors")
    size = {"width": 1024, "height": 1024}
    latent = canvas.node("EmptyFlux2LatentImage", loaders, **size)
    links = {
        "model": (model, "MODEL"), "references": (found, "references"), "vae": (vae, "VAE"),
        "conditioning": (encoded, "CONDITIONING"),
    }  # fmt: skip
    inject = canvas.node("RealRAG_InjectReferences", middle, links=links)
    how, shown = canvas.column(300), canvas.column(380)
    noise = canvas.node("RandomNoise", how, noise_seed=7)
    sampler = canvas.node("KSamplerSelect", how, sampler_name="euler")
    sigmas = canvas.node("Flux2Scheduler", how, steps=4, **size)
    links = {"model": (inject, "MODEL"), "conditioning": (inject, "conditioning")}
    guider = canvas.node("BasicGuider", how, links=links, collapsed=True)
    links = {
        "noise": (noise, "NOISE"), "guider": (guider, "GUIDER"), "sampler": (sampler, "SAMPLER"),
        "sigmas": (sigmas, "SIGMAS"), "latent_image": (latent, "LATENT"),
    }  # fmt: skip
    sampled = canvas.node("SamplerCustomAdvanced", how, title="With references", links=links)
    links = {"samples": (sampled, "output"), "vae": (vae, "VAE")}
    decoded = canvas.node("VAEDecode", how, links=links, collapsed=True)
    links = {"images": credits(canvas, how, (decoded, "IMAGE"), {"references": (found, "references")})}
    canvas.node("SaveImage", shown, title="With references", filename_prefix="realrag_flux2", links=links, shows=300)
    canvas.text(shown, "Report", (inject, "report"))
    canvas.group("2  Let FLUX.2 see them", middle)
    canvas.group(PAINT, loaders, how, shown)
    return canvas
