"""The graph that makes a library of the artist's own photos and finds them."""

from __future__ import annotations

from .canvas import Canvas
from .parts import GALLERY

NOTE = """This graph makes a **library of your own photos** and finds them.

1. Put a folder of photos into `ComfyUI/input`, with one sub-folder for each thing they show, named as you will ask for it:
   `input/birds/puffin`, `input/birds/blue tit`. Or drop the folder, some pictures or a .zip file on *Build Reference Library*.
2. Choose the folder under *photos*, give the library a *name*, write a prompt that names one of the things, and press **Run**.
3. *Report* says what became of each photo, and what the library can be asked.

Run it again when you have new photos: only they are encoded. From then on, *Load Reflective Retriever* lists the library in
every other graph of RealRAG: *RealRAG 01 Start here*, *RealRAG 03 Flux with XLabs* and the others paint with what you find here.

For a large library choose a CLIP or SigLIP with a text tower from `models/clip_vision` as *encoder*: it finds more by look.
Names and captions are found with any of them.
"""


def own_photos(object_info: dict) -> Canvas:
    canvas = Canvas(object_info)
    left, middle, right = canvas.column(380), canvas.column(420), canvas.column(420)
    canvas.note(left, 480, NOTE)
    build = canvas.node("RealRAG_BuildLibrary", middle, photos="(none: use the images)", name="my photos", shows=60)
    canvas.text(middle, "Report", (build, "report"), shows=80)
    prompt = canvas.node("PrimitiveStringMultiline", left, title="Prompt", value="a photo of a puffin")
    links = {"retriever": (build, "retriever"), "prompt": (prompt, "STRING")}
    found = canvas.node("RealRAG_RetrieveReferences", right, top_k=3, links=links, shows=GALLERY)
    far = canvas.column(380)
    canvas.text(far, "Scores", (found, "scores"), shows=80)
    canvas.text(far, "Credits", (found, "credits"), shows=80)
    canvas.group("1  Make a library of your photos", left, middle)
    canvas.group("2  Find them", right, far)
    return canvas
