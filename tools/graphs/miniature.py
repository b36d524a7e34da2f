"""The graphs that run with nothing to download: a miniature generator, its adapter and a sample library, all from the pack."""

from __future__ import annotations

from dataclasses import dataclass

from .canvas import Canvas, Column
from .parts import GALLERY, credits

STRENGTH = 1.5  # found best for the miniatures: docs/miniature.md
SIZE = 128  # pixels on a side of what they paint
ADAPTER = "SD3 miniature (shipped)"
UNSEEN = "garlic"  # one of those that the miniatures were never shown
SAMPLING = {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
RUNS = "Everything here comes with RealRAG: **nothing to download**. Press **Run**.\n\n"
REAL = (
    "\nWith a real model the graph is the same: exchange *Load Miniature*, the adapter and the size of the picture.\n"
)

START_HERE = f"""{RUNS}RealRAG finds **real photos** for your prompt, and a miniature Stable Diffusion 3 looks at them while it
paints. Left: **without** the photos. Right: **with** them. It was never trained on {UNSEEN}.

1. Ask for a lemon, a mango or red beet, which it never saw either, or for a pear, which it did. Ask for a puffin: the library
   has none, so both pictures are the same.
2. Too strong or too weak: change *strength*.
3. Long prompt: write the subject alone in *look_for*.

It paints 128 x 128 pixels. Next: *RealRAG 02 Your own photos*, then the graph for your model.
"""
OBJECTS = f"""{RUNS}Two things in one prompt, each from its own photos, **each in its own place**.

1. *look_for* names one object per line: *Retrieve Real References* finds photos of both.
2. The first *Edit References* lays a mask over the lemons, the second one over the mangos. White is where they count.
3. Draw masks of your own in *Load Image* instead (right-click: Open in Mask Editor), of any size.
{REAL}"""
NEGATIVES = f"""{RUNS}Photos can also say **what not to paint**.

1. *look_for* names two objects, one per line. The first *Edit References* turns the photos of the second one into **negative**
   references: the picture moves away from them. This works where *cfg* is above 1.
2. The second one doubles the **weight** of the best photo. *rank* 0 means all photos, 1 the best one.
3. Among the advanced inputs, *start_percent* and *end_percent* say when in the sampling a photo counts.
{REAL}"""
QUERY = f"""{RUNS}The search asks with **a picture** instead of words.

1. Choose your picture in *Load Image*. *Retrieve Real References* finds photos that look like it.
2. Its *prompt* is empty, so the picture alone decides. With both, words and picture count together.
3. Write what to paint in *Prompt*. The found photos steer how it looks.

A library finds by look what its encoder knows; *best_score* and *doubt* say how sure it is.
{REAL}"""
PACKS = f"""{RUNS}A **reference pack** keeps what an adapter made of photos, in one small file. Give it to others, or use it again
without the library, the photos and the vision model.

1. *Save Reference Pack* writes `models/realrag_packs/my-first-pack.safetensors`, and *Inject References* takes it from there.
2. Next time: press **R**, choose it in *Load Reference Pack*, select that node and press **Ctrl+M** to switch it on, and connect
   it to *pack* of *Inject References* in place of the other one.
3. Its *credits* name the authors of the photos. Pass them on with the file.

For Flux a pack needs no adapter any more; for SD3.5 it still does.
"""


@dataclass(frozen=True)
class Painter:
    """The column of small nodes that paint, closed where there is nothing to set."""

    column: Column
    mini: dict
    prompts: dict
    latent: dict
    seed: dict

    @classmethod
    def of(cls, canvas: Canvas, width: int, prompt: dict) -> Painter:
        column = canvas.column(width)
        mini = canvas.node("RealRAG_LoadMiniature", column, family="SD3 miniature")
        seed = canvas.node("PrimitiveInt", column, title="Seed of the pictures", value=7)
        clip = {"clip": (mini, "clip")}
        links = {**clip, "text": (prompt, "STRING")}
        positive = canvas.node("CLIPTextEncode", column, title="Prompt for the model", links=links, collapsed=True)
        negative = canvas.node("CLIPTextEncode", column, title="Negative", text="", links=clip, collapsed=True)
        latent = canvas.node("EmptySD3LatentImage", column, title="Size", width=SIZE, height=SIZE, collapsed=True)
        prompts = {"positive": (positive, "CONDITIONING"), "negative": (negative, "CONDITIONING")}
        return cls(column, mini, prompts, latent, seed)

    def paint(self, canvas: Canvas, model: dict, title: str) -> dict:
        """A picture by this model. Returns the node that decodes it."""
        links = {"model": (model, "model"), **self.prompts, "latent_image": (self.latent, "LATENT")}
        links["seed"] = (self.seed, "INT")
        sampled = canvas.node("KSampler", self.column, title=title, links=links, collapsed=True, **SAMPLING)
        links = {"samples": (sampled, "LATENT"), "vae": (self.mini, "vae")}
        return canvas.node("VAEDecode", self.column, links=links, collapsed=True)

    def compare(self, canvas: Canvas, inject: dict, shown: Column, prefix: str, source: dict) -> None:
        """Both pictures side by side, enlarged and saved as one with credits; below them the report. source: whose credits, as
        a link of Add Credits."""
        plain = self.paint(canvas, self.mini, "Without references")
        steered = self.paint(canvas, inject, "With references")
        links = {"image1": (plain, "IMAGE"), "image2": (steered, "IMAGE")}
        pair = canvas.node("ImageStitch", self.column, links=links, title="Side by side", collapsed=True)
        enlarged = {"upscale_method": "lanczos", "scale_by": 3.0}
        large = canvas.node(
            "ImageScaleBy", self.column, title="Enlarge", links={"image": (pair, "IMAGE")}, collapsed=True, **enlarged
        )
        title = "Compare: without references | with references"
        links = {"images": credits(canvas, self.column, (large, "IMAGE"), source)}
        canvas.node("SaveImage", shown, title=title, filename_prefix=prefix, links=links, shows=240)
        canvas.text(shown, "Report", (inject, "report"))


def retrieve(canvas: Canvas, column: Column, retriever: dict, prompt: dict | None, **values) -> dict:
    links = {"retriever": (retriever, "retriever")} | ({"prompt": (prompt, "STRING")} if prompt else {})
    return canvas.node("RealRAG_RetrieveReferences", column, links=links, shows=GALLERY, **values)


def inject_into(canvas: Canvas, column: Column, painter: Painter, references: tuple[dict, str]) -> dict:
    adapter = canvas.node("RealRAG_LoadReferenceAdapter", column, adapter=ADAPTER)
    links = {
        "model": (painter.mini, "model"),
        "references": references,
        "adapter": (adapter, "adapter"),
        "clip_vision": (painter.mini, "clip_vision"),
    }
    return canvas.node("RealRAG_InjectReferences", column, strength=STRENGTH, links=links)


def opening(canvas: Canvas, note: str, height: int, text: str, width: int = 330) -> tuple[Column, dict, dict]:
    left = canvas.column(width)
    canvas.note(left, height, note)
    prompt = canvas.node("PrimitiveStringMultiline", left, title="Prompt", value=text)
    loader = canvas.node("RealRAG_LoadRetriever", left, bundle="sample (shipped)")
    return left, prompt, loader


def start_here(object_info: dict) -> Canvas:
    """Narrow: the templates dialog opens a graph at three quarters of the page, and below READABLE classic draws no text."""
    canvas = Canvas(object_info, scale=0.69)
    left, prompt, loader = opening(canvas, START_HERE, 296, f"a photo of {UNSEEN}", width=300)
    middle = canvas.column(366)
    found = retrieve(canvas, middle, loader, prompt, top_k=3)
    see = canvas.column(300)
    painter = Painter.of(canvas, 216, prompt)
    inject = inject_into(canvas, see, painter, (found, "references"))
    shown = canvas.column(390)
    painter.compare(canvas, inject, shown, "realrag_start_here", {"references": (found, "references")})
    canvas.text(left, "Credits", (found, "credits"))
    canvas.group("1  Find real photos", left, middle)
    canvas.group("2  Let the model see them", see)
    canvas.group("3  Paint, without and with", painter.column, shown)
    return canvas
