"""The graphs in which a retrieved photo becomes the hint of a ControlNet, all by ComfyUI's own nodes."""

from __future__ import annotations

from .canvas import Canvas
from .flux import SAMPLING as FLUX_SAMPLING
from .models import needs
from .parts import Prompts, Sampling, arm, checkpoint_text, find, flux_text
from .stable_diffusion import SD35_SAMPLING, SDXL_SAMPLING

CONTROLNETS = {
    "flux": "instantx_flux_canny.safetensors",
    "sd35": "sd3.5_large_controlnet_canny.safetensors",
    "sdxl": "controlnet-canny-sdxl-1.0.safetensors",
}
CHECKPOINTS = {"sd35": "sd3.5_large_fp8_scaled.safetensors", "sdxl": "sd_xl_base_1.0.safetensors"}
PROMPTS = {
    "flux": "a photo of a fancy boot of carved ice, studio light",
    "sd35": "a photo of a bear plushie made of moss in a forest",
    "sdxl": "a photo of a wolf plushie of blown glass, museum light",
}
SETTINGS = {"flux": FLUX_SAMPLING, "sd35": SD35_SAMPLING, "sdxl": SDXL_SAMPLING}


def note(base: str) -> str:
    return f"""RealRAG searches a library of **real photos** for your prompt. The outlines of the best match go into a
**ControlNet**, so the picture takes its shape from the real thing.

1. Choose a library in *Load Reflective Retriever*, write your prompt, press **Run**.
2. If the prompt is long, write the subject alone in *look_for*. If it is empty, the search uses the prompt.
3. The outlines hold too tight: lower *strength* or *end_percent* in *Apply ControlNet*. 0 is the picture without them.
4. Too many lines from the background: raise the thresholds in *Canny*.

{needs(CONTROLNETS[base])}"""


def controlnet(object_info: dict, base: str) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    prompt, found = find(canvas, note(base), top_k=1, text=PROMPTS[base])
    middle, loaders = canvas.column(360), canvas.column(320)
    if base == "flux":
        model = canvas.node("UNETLoader", loaders, unet_name="flux1-dev.safetensors", weight_dtype="default")
        prompts, vae = flux_text(canvas, loaders, prompt), canvas.node("VAELoader", loaders, vae_name="ae.safetensors")
    else:
        model = vae = canvas.node("CheckpointLoaderSimple", loaders, ckpt_name=CHECKPOINTS[base])
        prompts = checkpoint_text(canvas, loaders, model, prompt)
    kind = "EmptyLatentImage" if base == "sdxl" else "EmptySD3LatentImage"
    latent = canvas.node(kind, loaders, width=1024, height=1024)
    control = canvas.node("ControlNetLoader", middle, control_net_name=CONTROLNETS[base])
    hint = canvas.node("Canny", middle, links={"image": (found, "images")})
    canvas.node("PreviewImage", middle, title="The hint", links={"images": (hint, "IMAGE")}, shows=260)
    links = {
        "positive": prompts.positive,
        "negative": prompts.negative,
        "control_net": (control, "CONTROL_NET"),
        "image": (hint, "IMAGE"),
        "vae": (vae, "VAE"),
    }
    hinted = canvas.node("ControlNetApplyAdvanced", middle, links=links, strength=0.6, end_percent=0.7)
    columns = canvas.column(300), canvas.column(380)
    sampling = Sampling(latent, vae, {"seed": 7, **SETTINGS[base]}, f"realrag_controlnet_{base}")
    changed = Prompts((hinted, "positive"), (hinted, "negative"))
    arm(canvas, columns, "With the outlines", model, changed, sampling, credited=found)
    canvas.group("2  Its outlines as a hint", middle)
    canvas.group("3  Make the picture", loaders, *columns)
    return canvas
