"""Which way the references go into the model, and why: `auto` takes the best that the connected parts allow."""

from __future__ import annotations

from ...realrag.errors import AdapterError
from .inputs.path_names import ADAPTER, AUTO, EMBEDS, INITIAL, LATENTS, PATHS, SHARED
from .model.watchdog import foreign_module
from .prompt.image_embeddings import KNOWN as EMBEDDINGS
from .prompt.reference_latents import PERHAPS, TRAINED, kind

# path -> the inputs it needs beside the model, as they are called on the node
NEEDS = {
    ADAPTER: ("adapter", "clip_vision"),
    LATENTS: ("vae", "conditioning"),
    EMBEDS: ("clip_vision", "conditioning"),
    SHARED: ("vae",),
    INITIAL: ("vae", "latent"),
}
NODES = {
    "adapter": "Load Reference Adapter",
    "clip_vision": "Load CLIP Vision",
    "vae": "Load VAE",
    "conditioning": "the positive prompt",
    "latent": "an empty latent of the picture's size",
}


def choose(path: str, model, connected) -> tuple[str, str]:
    """One of PATHS, never "auto", and the reason as a sentence. connected: has an attribute for each input, or None."""
    if path != AUTO:
        if path not in NEEDS:
            raise AdapterError(f"{path!r} is not a path. Choose one of {', '.join(PATHS)}.")
        missing = [name for name in NEEDS[path] if getattr(connected, name) is None]
        if missing:
            wanted = " and ".join(f"{name} ({NODES[name]})" for name in missing)
            raise AdapterError(f"The path {path!r} needs {wanted} connected to Inject References, or set path to auto.")
        return path, "you chose it"
    if (foreign := foreign_module(getattr(model.model, "diffusion_model", None))) is not None:
        return without_hooks(model, foreign, connected)
    if connected.adapter is not None:
        return ADAPTER, "an adapter is connected"
    for way, bases in ((LATENTS, TRAINED), (EMBEDS, EMBEDDINGS)):
        if kind(model) in bases and all(getattr(connected, name) is not None for name in NEEDS[way]):
            name = bases[kind(model)]
            return way, f"{name if isinstance(name, str) else name[0]} was trained with them"
    if kind(model) in {**TRAINED, **EMBEDDINGS, "QwenImage": ""} and kind(model) != "Flux2":
        way = EMBEDS if kind(model) in EMBEDDINGS else LATENTS
        wanted = " and ".join(f"{name} ({NODES[name]})" for name in NEEDS[way])
        chosen = "" if kind(model) != "QwenImage" else f", and path {LATENTS!r} chosen if this is Qwen-Image-Edit"
        raise AdapterError(
            f"This model ({kind(model)}) takes references as {way}: it needs {wanted} connected{chosen}."
        )
    if connected.vae is None:
        raise AdapterError(
            "Inject References has neither an adapter nor a VAE. Connect an adapter (Load Reference Adapter) with its "
            "CLIP Vision model, or connect the VAE of this model to let the references in without an adapter file."
        )
    return SHARED, "no adapter is connected" + hint(model)


def without_hooks(model, foreign: str, connected) -> tuple[str, str]:
    """The best way that leaves the network alone, where it is not ComfyUI's own."""
    adapter = connected.adapter
    redux = adapter is not None and adapter.adapter.spec.family == "flux-redux"
    ways = [ADAPTER] * redux + [LATENTS] * (kind(model) in TRAINED) + [EMBEDS] * (kind(model) in EMBEDDINGS) + [INITIAL]
    for way in ways:
        needs = (*NEEDS[way], "conditioning") if way == ADAPTER else NEEDS[way]
        if all(getattr(connected, name) is not None for name in needs):
            return way, f"the model runs code of its own ({foreign}), which has no hooks, and this way needs none"
    raise AdapterError(
        f"This model runs code of its own ({foreign}), which has no hooks for references. Load it with ComfyUI's own "
        f"loader; or connect vae and latent ({NODES['latent']}) to Inject References to start from a photo; or, for "
        "Flux, connect a Redux adapter, its clip_vision and conditioning."
    )


def hint(model) -> str:
    """What would be better, where the model may be able to do it."""
    if kind(model) == "Flux2":
        return f"; connect conditioning too, and FLUX.2 takes the references as {LATENTS}, as it was trained"
    if kind(model) in PERHAPS:
        return f"; if this is {PERHAPS[kind(model)]}, choose the path {LATENTS!r}, which it was trained with"
    return ""
