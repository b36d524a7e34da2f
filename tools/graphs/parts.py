"""What graphs have in common: photos found for a prompt, references let into a model, the picture with and without them."""

from __future__ import annotations

from dataclasses import dataclass

from .canvas import Canvas, Column

PROMPT = "a photo of granny smith apples in a wooden bowl on a kitchen table, morning light"
GALLERY = 280  # pixels for the cards of the photos that Retrieve shows
STORY = """RealRAG searches a library of **real photos** for your prompt. *Retrieve Real References* shows the best matches,
and *Inject References* lets the model see them while it paints.

1. Choose a library in *Load Reflective Retriever*, write your prompt, press **Run**.
2. If the prompt is long, write the subject alone in *look_for*, one object per line. If it is empty, the search uses the
   prompt.
3. Effect too strong or too weak: change *strength*. Composition too close to the photos: raise *start_percent* to 0.2.
4. *Report* says which way the references went in.
"""
COMPARE = """5. To compare, select the muted nodes of *Without references* and press **Ctrl+M**.
"""


@dataclass(frozen=True)
class Prompts:
    """Both prompts of a sampler, as (node, output)."""

    positive: tuple[dict, str]
    negative: tuple[dict, str]


@dataclass(frozen=True)
class Sampling:
    """How a picture is sampled, beside its model and prompts."""

    latent: dict
    vae: dict
    settings: dict
    prefix: str  # of the saved file


def find(
    canvas: Canvas, note: str, *, note_height: int = 420, top_k: int = 3, text: str = PROMPT, look_for: str = ""
) -> tuple[dict, dict]:
    """A library, the prompt, the photos found, and their credits. Returns the prompt's node and that of the photos."""
    left, right = canvas.column(340), canvas.column(380)
    canvas.note(left, note_height, note)
    loader = canvas.node("RealRAG_LoadRetriever", left, bundle="sample (shipped)")
    prompt = canvas.node("PrimitiveStringMultiline", left, title="Prompt", value=text)
    links = {"retriever": (loader, "retriever"), "prompt": (prompt, "STRING")}
    found = canvas.node("RealRAG_RetrieveReferences", right, top_k=top_k, look_for=look_for, links=links, shows=GALLERY)
    canvas.text(right, "Credits", (found, "credits"))
    canvas.group("1  Find real photos", left, right)
    return prompt, found


def adapted(canvas: Canvas, column: Column, adapter: str, vision: str) -> dict:
    """Load Reference Adapter with these files; it hands out the adapter and its vision model."""
    return canvas.node("RealRAG_LoadReferenceAdapter", column, adapter=adapter, vision_file=vision)


def through(adapter: dict) -> dict:
    """The links of Inject References to an adapter and its vision model."""
    return {"adapter": (adapter, "adapter"), "clip_vision": (adapter, "clip_vision")}


def flux_text(canvas: Canvas, column: Column, prompt: dict, guidance: float = 3.5) -> Prompts:
    """Flux's text encoders, the guided prompt, and nothing as the negative one."""
    encoders = {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors", "type": "flux"}
    clip = canvas.node("DualCLIPLoader", column, **encoders)
    links = {"clip": (clip, "CLIP"), "text": (prompt, "STRING")}
    encoded = canvas.node("CLIPTextEncode", column, links=links, title="Prompt for Flux", collapsed=True)
    said = {"conditioning": (encoded, "CONDITIONING")}
    positive = canvas.node("FluxGuidance", column, guidance=guidance, links=said)
    negative = canvas.node("ConditioningZeroOut", column, links=said, collapsed=True)
    return Prompts((positive, "CONDITIONING"), (negative, "CONDITIONING"))


def checkpoint_text(canvas: Canvas, column: Column, checkpoint: dict, prompt: dict) -> Prompts:
    """The prompt and an empty negative one, by the text encoders of a checkpoint."""
    clip = {"clip": (checkpoint, "CLIP")}
    links = {**clip, "text": (prompt, "STRING")}
    positive = canvas.node("CLIPTextEncode", column, links=links, title="Prompt for the model", collapsed=True)
    negative = canvas.node("CLIPTextEncode", column, title="Negative", text="", links=clip)
    return Prompts((positive, "CONDITIONING"), (negative, "CONDITIONING"))


def credits(canvas: Canvas, column: Column, picture: tuple[dict, str], source: dict) -> tuple[dict, str]:
    """The picture on its way to Save Image, with the credits of these references or of this pack for the file."""
    node = canvas.node("RealRAG_Credits", column, collapsed=True, links={"images": picture, **source})
    return node, "images"


def arm(
    canvas: Canvas, columns: tuple[Column, Column], title: str, model: dict, prompts: Prompts, sampling: Sampling,
    muted: bool = False, credited: dict | None = None,
) -> None:  # fmt: skip
    """KSampler, VAE Decode and Save Image, all of this title. credited: the references whose authors the file names."""
    links = {
        "model": (model, "MODEL"),
        "positive": prompts.positive,
        "negative": prompts.negative,
        "latent_image": (sampling.latent, "LATENT"),
    }
    sampled = canvas.node("KSampler", columns[0], title=title, muted=muted, links=links, **sampling.settings)
    links = {"samples": (sampled, "LATENT"), "vae": (sampling.vae, "VAE")}
    decoded = canvas.node("VAEDecode", columns[0], muted=muted, collapsed=True, links=links)
    picture = (decoded, "IMAGE")
    if credited:
        picture = credits(canvas, columns[0], picture, {"references": (credited, "references")})
    links = {"images": picture}
    prefix = sampling.prefix + ("_plain" if muted else "")
    canvas.node("SaveImage", columns[1], title=title, muted=muted, filename_prefix=prefix, links=links, shows=230)


def both_arms(
    canvas: Canvas, plain: dict, inject: dict, prompts: Prompts, sampling: Sampling, found: dict,
    changed: Prompts | None = None,
) -> tuple[Column, Column]:  # fmt: skip
    """The picture with references; the same one without them, muted, to compare; and the report. changed: the prompts with
    references, where these go in through them."""
    columns = canvas.column(300), canvas.column(380)
    arm(canvas, columns, "With references", inject, changed or prompts, sampling, credited=found)
    canvas.text(columns[1], "Report", (inject, "report"))
    arm(canvas, columns, "Without references", plain, prompts, sampling, muted=True)
    return columns
