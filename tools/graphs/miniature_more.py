"""What else the nodes can do, each in a graph that runs with the miniature: masks, negatives, a picture as query, packs."""

from __future__ import annotations

from .canvas import Canvas, Column
from .miniature import (
    ADAPTER,
    NEGATIVES,
    OBJECTS,
    PACKS,
    QUERY,
    SIZE,
    STRENGTH,
    Painter,
    inject_into,
    opening,
    retrieve,
)
from .parts import GALLERY


def _edited(canvas: Canvas, column: Column, references: tuple[dict, str], title: str, mask=None, **values) -> dict:
    links = {"references": references} | ({"mask": mask} if mask else {})
    return canvas.node("RealRAG_EditReferences", column, title=title, links=links, **values)


def _ending(canvas: Canvas, see: Column, painter: Painter, inject: dict, references: dict, prefix: str) -> None:
    shown = canvas.column(460)
    painter.compare(canvas, inject, shown, prefix, {"references": (references, "references")})
    canvas.group("2  Let the model see them", see)
    canvas.group("3  Paint, without and with", painter.column, shown)


def objects_with_masks(object_info: dict) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    left, prompt, loader = opening(canvas, OBJECTS, 400, "a photo of a lemon and a mango")
    middle = canvas.column(370)
    found = retrieve(canvas, middle, loader, prompt, top_k=4, look_for="lemon\nmango")
    edits = canvas.column(320)
    black = canvas.node("SolidMask", edits, title="Nowhere", value=0.0, width=SIZE, height=SIZE, collapsed=True)
    white = canvas.node("SolidMask", edits, title="The left half", width=SIZE // 2, height=SIZE, collapsed=True)
    links = {"destination": (black, "MASK"), "source": (white, "MASK")}
    on_left = canvas.node("MaskComposite", edits, title="Mask: left", operation="add", links=links, collapsed=True)
    links = {"mask": (on_left, "MASK")}
    on_right = canvas.node("InvertMask", edits, title="Mask: right", links=links, collapsed=True)
    lemon = _edited(
        canvas, edits, (found, "references"), "Lemons on the left", (on_left, "MASK"), rank=0, object="lemon"
    )
    both = _edited(
        canvas, edits, (lemon, "references"), "Mangos on the right", (on_right, "MASK"), rank=0, object="mango"
    )
    canvas.text(edits, "What is set for each photo", (both, "settings"))
    canvas.group("1  Find photos of both, and give each its place", left, middle, edits)
    see = canvas.column(330)
    painter = Painter.of(canvas, 230, prompt)
    inject = inject_into(canvas, see, painter, (both, "references"))
    _ending(canvas, see, painter, inject, both, "realrag_objects_with_masks")
    return canvas


def negatives(object_info: dict) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    left, prompt, loader = opening(canvas, NEGATIVES, 400, "a photo of a lemon")
    middle = canvas.column(370)
    found = retrieve(canvas, middle, loader, prompt, top_k=4, look_for="lemon\norange")
    edits = canvas.column(320)
    against = _edited(canvas, edits, (found, "references"), "Away from oranges", rank=0, object="orange", negative=True)
    heavy = _edited(
        canvas, edits, (against, "references"), "The best lemon counts twice", rank=1, object="lemon", weight=2.0
    )
    canvas.text(edits, "What is set for each photo", (heavy, "settings"))
    canvas.group("1  Find photos, and say how each counts", left, middle, edits)
    see = canvas.column(330)
    painter = Painter.of(canvas, 230, prompt)
    inject = inject_into(canvas, see, painter, (heavy, "references"))
    _ending(canvas, see, painter, inject, heavy, "realrag_negatives")
    return canvas


def picture_query(object_info: dict) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    left, prompt, loader = opening(canvas, QUERY, 400, "a photo")
    middle = canvas.column(370)
    picture = canvas.node("LoadImage", middle, title="Your picture", image="example.png", shows=200)
    links = {"retriever": (loader, "retriever"), "image": (picture, "IMAGE")}
    see = canvas.column(380)
    found = canvas.node(
        "RealRAG_RetrieveReferences", see, links=links, shows=GALLERY, top_k=3, find_by="look", doubt="keep"
    )
    canvas.text(middle, "Scores", (found, "scores"), shows=60)
    canvas.group("1  Find photos that look like your picture", left, middle, see)
    seen = canvas.column(330)
    painter = Painter.of(canvas, 230, prompt)
    inject = inject_into(canvas, seen, painter, (found, "references"))
    _ending(canvas, seen, painter, inject, found, "realrag_picture_query")
    return canvas


def packs(object_info: dict) -> Canvas:
    canvas = Canvas(object_info, scale=0.6)
    left, prompt, loader = opening(canvas, PACKS, 400, "a photo of a mango")
    middle = canvas.column(370)
    found = retrieve(canvas, middle, loader, prompt, top_k=3)
    canvas.group("1  Find real photos", left, middle)
    save = canvas.column(330)
    painter = Painter.of(canvas, 230, prompt)
    adapter = canvas.node("RealRAG_LoadReferenceAdapter", save, adapter=ADAPTER)
    links = {
        "model": (painter.mini, "model"),
        "adapter": (adapter, "adapter"),
        "clip_vision": (painter.mini, "clip_vision"),
        "references": (found, "references"),
    }
    pack = canvas.node("RealRAG_SaveReferencePack", save, name="my-first-pack", overwrite=True, links=links)
    canvas.node(
        "RealRAG_LoadReferencePack",
        save,
        title="Next time: the pack alone",
        muted=True,
        pack="my-first-pack.safetensors",
    )
    see = canvas.column(330)
    links = {"model": (painter.mini, "model"), "adapter": (adapter, "adapter"), "pack": (pack, "pack")}
    inject = canvas.node("RealRAG_InjectReferences", see, strength=STRENGTH, links=links)
    shown = canvas.column(460)
    painter.compare(canvas, inject, shown, "realrag_packs", {"pack": (pack, "pack")})
    canvas.group("2  Pack them, and let the model see the pack", save, painter.column, see)
    canvas.group("3  Without and with", shown)
    return canvas
