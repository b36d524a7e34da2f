"""The graph to start with: a miniature generator without and with references, all of it from the pack itself."""

from __future__ import annotations

from pathlib import Path

ADAPTER = Path(__file__).resolve().parents[2] / "realrag" / "assets" / "miniature" / "sd3_adapter.safetensors"
TOP_K = 3
STRENGTH = 1.5  # found best for the miniatures: docs/miniature.md
THING = "garlic"  # one of those that the miniatures were never shown
PROMPT = f"a photo of {THING}"
NOTE = f"""Everything here comes with RealRAG: **nothing to download**. Press **Run**.

RealRAG searches a library of **real photos** for your prompt. *Retrieve Real References* shows the best matches, and
*Inject References* lets a **miniature** Stable Diffusion 3 see them while it paints. Below it, the same seed without them. The
miniature was never shown {THING}, so only the photos can tell it what that looks like.

1. Ask for a lemon, a mango or red beet, which it was never shown either; or for a pear or a red pepper, which it was. Ask
   for a puffin: the library has none, so the node says that nothing fits and both pictures are the same.
2. If your prompt is long, write the subject alone in *Look for*, one object per line. If it is empty, the search uses the
   prompt.
3. Effect too strong or too weak: change *strength*. 0 is the picture without references.
4. To try Flux, choose *Flux miniature* wherever *SD3 miniature* stands.

The miniature paints 128 x 128 pixels, enlarged here to three times that, and has seen little but groceries. With a real
model the graph is the same: see *realrag_sd35* and *realrag_flux*.
"""
SAMPLING = {"seed": 7, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}


def draw(canvas, prompt: dict, found: dict, pictures) -> None:
    canvas.group("2  Let the miniature see them", (940, 0), (400, 1280), "#3f5159")
    canvas.group("3  Make the picture, with and without", (1380, 0), (1160, 1280), "#3f5159")
    mini = canvas.node("RealRAG_LoadMiniature", (960, 80), (360, 130), family="SD3 miniature")
    inject = injection(canvas, mini, found)
    clip = {"clip": (mini, "clip")}
    positive = canvas.node("CLIPTextEncode", (1400, 80), (360, 100), links={**clip, "text": (prompt, "STRING")})
    negative = canvas.node("CLIPTextEncode", (1400, 250), (360, 140), title="Negative", text="", links=clip)
    latent = canvas.node("EmptySD3LatentImage", (1400, 460), (360, 110), width=128, height=128)
    pictures(canvas, mini, inject, positive, negative, latent, mini, SAMPLING, "realrag_start_here", small=True)


def injection(canvas, mini: dict, found: dict) -> dict:
    """References through the miniature's own adapter, which sees through the encoder that comes with it; or without an
    adapter."""
    links = {"model": (mini, "model"), "references": (found, "references")}
    if ADAPTER.is_file():
        adapter = canvas.node("RealRAG_LoadReferenceAdapter", (960, 250), (360, 110), adapter="SD3 miniature (shipped)")
        links |= {"adapter": (adapter, "adapter"), "clip_vision": (mini, "clip_vision")}
    else:
        links |= {"vae": (mini, "vae")}
    return canvas.node("RealRAG_InjectReferences", (960, 460), (360, 640), strength=STRENGTH, links=links)
