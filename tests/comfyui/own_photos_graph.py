"""The graph that makes a library of the artist's own photos and finds them."""

from __future__ import annotations

NOTE = """This graph makes a **library of your own photos** and finds them.

1. Put a folder of photos into `ComfyUI/input`, with one sub-folder for each thing they show, named as you will ask for it:
   `input/birds/puffin`, `input/birds/blue tit`. Or drop the folder, some pictures or a .zip file on *Build Reference Library*.
2. Choose the folder under *photos*, give the library a *name*, write a prompt that names one of the things, and press **Run**.
3. *Report* says what became of each photo, and what the library can be asked.

Run it again when you have new photos: only they are encoded. From then on, *Load Reflective Retriever* lists the library in every
other graph of RealRAG: *realrag_sd35*, *realrag_flux* and *realrag_start_here* paint with what you find here.

For a large library choose a CLIP or SigLIP with a text tower from `models/clip_vision` as *encoder*: it finds more by look.
Names and captions are found with any of them.
"""
PROMPT = "a photo of a puffin"


def draw(canvas, look_for: str) -> None:
    canvas.group("1  Make a library of your photos", (0, 0), (900, 1000), "#3f5159")
    canvas.group("2  Find them", (940, 0), (900, 1000), "#3f5159")
    canvas.note((20, 80), (380, 560), "What this graph does", NOTE)
    build = canvas.node("RealRAG_BuildLibrary", (440, 80), (440, 560), name="my photos")
    canvas.node("PreviewAny", (20, 690), (860, 280), title="Report", links={"source": (build, "report")})
    prompt = canvas.node("PrimitiveStringMultiline", (960, 80), (380, 130), title="Prompt", value=PROMPT)
    subject = canvas.node("PrimitiveStringMultiline", (960, 260), (380, 100), title=look_for, value="")
    found = canvas.node(
        "RealRAG_RetrieveReferences", (1380, 80), (440, 700), top_k=4,
        links={"retriever": (build, "retriever"), "prompt": (prompt, "STRING"), "look_for": (subject, "STRING")},
    )  # fmt: skip
    canvas.node("PreviewAny", (960, 420), (380, 240), title="Scores", links={"source": (found, "scores")})
    canvas.node("PreviewAny", (960, 720), (380, 240), title="Credits", links={"source": (found, "credits")})
