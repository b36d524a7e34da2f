"""The example graphs in which a retrieved photo becomes the hint of a ControlNet, all by ComfyUI's own nodes."""

from __future__ import annotations

HUB = "https://huggingface.co"
CONTROLNETS = {
    "flux": "instantx_flux_canny.safetensors",
    "sd35": "sd3.5_large_controlnet_canny.safetensors",
    "sdxl": "controlnet-canny-sdxl-1.0.safetensors",
}
CHECKPOINTS = {"sd35": "sd3.5_large_fp8_scaled.safetensors", "sdxl": "sd_xl_base_1.0.safetensors"}
SAMPLING = {
    "flux": {"steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"},
    "sd35": {"steps": 28, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"},
    "sdxl": {"steps": 28, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
}
PAGES = {
    "flux": "InstantX/FLUX.1-dev-Controlnet-Canny",
    "sd35": "stabilityai/stable-diffusion-3.5-controlnets",
    "sdxl": "xinsir/controlnet-canny-sdxl-1.0",
}


def note(base: str) -> str:
    return f"""RealRAG searches a library of **real photos** for your prompt. The outlines of the best match go into a
**ControlNet**, so the picture takes its shape from the real thing.

1. Choose a library in *Load Reflective Retriever*, write your prompt, press **Run**.
2. If the prompt is long, write the subject alone in *Look for*. If it is empty, the search uses the prompt.
3. The outlines hold too tight: lower `strength` or `end_percent` in *Apply ControlNet*. 0 is the picture without them.
4. Too many lines from the background: raise the thresholds in *Canny*.

**Needs** [{CONTROLNETS[base]}]({HUB}/{PAGES[base]}) in `models/controlnet`.
"""


def draw(canvas, base: str, prompt: dict, found: dict) -> None:
    canvas.group("2  Its outlines as a hint", (940, 0), (400, 1280), "#3f5159")
    canvas.group("3  Make the picture", (1380, 0), (1160, 1280), "#3f5159")
    model, positive, negative, vae = loaded(canvas, base, prompt)
    control = canvas.node("ControlNetLoader", (960, 240), (360, 60), control_net_name=CONTROLNETS[base])
    hint = canvas.node("Canny", (960, 370), (360, 90), links={"image": (found, "images")})
    canvas.node("PreviewImage", (960, 530), (360, 320), title="The hint", links={"images": (hint, "IMAGE")})
    links = {
        "positive": (positive, "CONDITIONING"),
        "negative": (negative, "CONDITIONING"),
        "control_net": (control, "CONTROL_NET"),
        "image": (hint, "IMAGE"),
        "vae": (vae, "VAE"),
    }
    settings = {"strength": 0.6, "end_percent": 0.7}
    hinted = canvas.node("ControlNetApplyAdvanced", (1800, 80), (300, 190), links=links, **settings)
    latent_kind = "EmptyLatentImage" if base == "sdxl" else "EmptySD3LatentImage"
    latent = canvas.node(latent_kind, (1400, 700), (360, 110), width=1024, height=1024)
    links = {
        "model": (model, "MODEL"),
        "positive": (hinted, "positive"),
        "negative": (hinted, "negative"),
        "latent_image": (latent, "LATENT"),
    }
    sampled = canvas.node("KSampler", (1800, 340), (300, 270), links=links, seed=7, **SAMPLING[base])
    links = {"samples": (sampled, "LATENT"), "vae": (vae, "VAE")}
    decoded = canvas.node("VAEDecode", (1800, 680), (300, 50), links=links)
    prefix = f"realrag_controlnet_{base}"
    canvas.node("SaveImage", (2140, 80), (380, 520), filename_prefix=prefix, links={"images": (decoded, "IMAGE")})


def loaded(canvas, base: str, prompt: dict) -> tuple[dict, dict, dict, dict]:
    """The generator, the prompt and its negative, and the node that holds the VAE."""
    if base == "flux":
        unet = {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}
        model = canvas.node("UNETLoader", (960, 80), (360, 90), **unet)
        encoders = {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors", "type": "flux"}
        clip = canvas.node("DualCLIPLoader", (1400, 80), (360, 130), **encoders)
        said = {"clip": (clip, "CLIP"), "text": (prompt, "STRING")}
        encoded = {"conditioning": (canvas.node("CLIPTextEncode", (1400, 280), (360, 100), links=said), "CONDITIONING")}
        positive = canvas.node("FluxGuidance", (1400, 450), (360, 60), guidance=3.5, links=encoded)
        negative = canvas.node("ConditioningZeroOut", (1400, 580), (360, 30), links=encoded)
        return model, positive, negative, canvas.node("VAELoader", (1400, 880), (360, 60), vae_name="ae.safetensors")
    model = canvas.node("CheckpointLoaderSimple", (960, 80), (360, 100), ckpt_name=CHECKPOINTS[base])
    said = {"clip": (model, "CLIP"), "text": (prompt, "STRING")}
    positive = canvas.node("CLIPTextEncode", (1400, 80), (360, 100), links=said)
    links = {"clip": said["clip"]}
    negative = canvas.node("CLIPTextEncode", (1400, 250), (360, 140), title="Negative", text="", links=links)
    return model, positive, negative, model
