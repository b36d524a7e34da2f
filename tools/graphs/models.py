"""Every model file that a graph names, with the folder in models/ where it goes and the page that it comes from."""

from __future__ import annotations

HUB = "https://huggingface.co"
_TEXT = "comfyanonymous/flux_text_encoders/resolve/main"
_FLUX2 = "split_files"
# file -> (folder in models, where ComfyUI offers to fetch it)
_SAFE = {
    "flux1-dev.safetensors": ("diffusion_models", "Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors"),
    "flux1-dev-kontext_fp8_scaled.safetensors": (
        "diffusion_models",
        "Comfy-Org/flux1-kontext-dev_ComfyUI/resolve/main/split_files/diffusion_models/"
        "flux1-dev-kontext_fp8_scaled.safetensors",
    ),
    "flux-2-klein-4b.safetensors": (
        "diffusion_models",
        f"Comfy-Org/flux2-klein/resolve/main/{_FLUX2}/diffusion_models/flux-2-klein-4b.safetensors",
    ),
    "clip_l.safetensors": ("text_encoders", f"{_TEXT}/clip_l.safetensors"),
    "t5xxl_fp16.safetensors": ("text_encoders", f"{_TEXT}/t5xxl_fp16.safetensors"),
    "qwen_3_4b.safetensors": (
        "text_encoders",
        f"Comfy-Org/flux2-klein/resolve/main/{_FLUX2}/text_encoders/qwen_3_4b.safetensors",
    ),
    "ae.safetensors": ("vae", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors"),
    "flux2-vae.safetensors": ("vae", f"Comfy-Org/flux2-dev/resolve/main/{_FLUX2}/vae/flux2-vae.safetensors"),
    "ip_adapter.safetensors": (
        "realrag_adapters",
        "XLabs-AI/flux-ip-adapter-v2/resolve/main/ip_adapter.safetensors",
    ),
    "flux1-redux-dev.safetensors": (
        "realrag_adapters",
        "Comfy-Org/Flux1-Redux-Dev/resolve/main/flux1-redux-dev.safetensors",
    ),
    "clip-vit-large-patch14.safetensors": (
        "clip_vision",
        "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    ),
    "siglip-so400m-patch14-384.safetensors": (
        "clip_vision",
        "google/siglip-so400m-patch14-384/resolve/main/model.safetensors",
    ),
    "sigclip_vision_patch14_384.safetensors": (
        "clip_vision",
        "Comfy-Org/sigclip_vision_384/resolve/main/sigclip_vision_patch14_384.safetensors",
    ),
    "clip_vision_g.safetensors": (
        "clip_vision",
        "comfyanonymous/clip_vision_g/resolve/main/clip_vision_g.safetensors",
    ),
    "sd3.5_large_fp8_scaled.safetensors": (
        "checkpoints",
        "Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/sd3.5_large_fp8_scaled.safetensors",
    ),
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors": (
        "checkpoints",
        "Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    ),
    "sd_xl_base_1.0.safetensors": (
        "checkpoints",
        "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    ),
    "instantx_flux_canny.safetensors": (
        "controlnet",
        "InstantX/FLUX.1-dev-Controlnet-Canny/resolve/main/diffusion_pytorch_model.safetensors",
    ),
    "sd3.5_large_controlnet_canny.safetensors": (
        "controlnet",
        "stabilityai/stable-diffusion-3.5-controlnets/resolve/main/sd3.5_large_controlnet_canny.safetensors",
    ),
    "controlnet-canny-sdxl-1.0.safetensors": (
        "controlnet",
        "xinsir/controlnet-canny-sdxl-1.0/resolve/main/diffusion_pytorch_model.safetensors",
    ),
}
# ComfyUI offers to fetch .safetensors files only: of these the note of the graph gives the page.
_BY_HAND = {
    "ip-adapter.bin": ("realrag_adapters", "InstantX/SD3.5-Large-IP-Adapter/resolve/main/ip-adapter.bin"),
    "flux-instantx-ip-adapter.bin": (
        "realrag_adapters",
        "InstantX/FLUX.1-dev-IP-Adapter/resolve/main/ip-adapter.bin",
    ),
}
KNOWN = {file: {"name": file, "url": f"{HUB}/{link}", "directory": folder} for file, (folder, link) in
         {**_SAFE, **_BY_HAND}.items()}  # fmt: skip


def offered(values: list) -> list[dict]:
    """What ComfyUI offers to fetch for a node with these widget values."""
    return [KNOWN[value] for value in values if isinstance(value, str) and value in _SAFE]


def needs(*files: str) -> str:
    """The lines of a note that say which files to get, where they go and, if they have another name there, the new one."""
    lines = []
    for file in files:
        model = KNOWN[file]
        there = model["url"].rsplit("/", 1)[1]
        page = model["url"].split("/resolve/")[0]
        renamed = "" if there == file else f", saved under this name (there: `{there}`)"
        lines.append(f"- [{file}]({page}) in `models/{model['directory']}`{renamed}")
    return "**Needs**, beside what core graphs of this model need:\n\n" + "\n".join(lines) + "\n"
