"""Write the thumbnails of the graphs in `workflows/`: python -m tools.make_thumbnails URL-OF-A-SERVER [NAME ...]

Each shows what its graph gives: the photos found and, where the graph runs with the miniature alone, the pictures painted
without and with them; for a ControlNet, the outlines.
"""

from __future__ import annotations

import io
import json
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from .make_workflows import ROOT, TEMPLATES, as_prompt

SIDE, BAND = 400, 64  # pixels: of the square, of the strip with its title
INK, DARK = (240, 240, 235), (34, 36, 40)
MOST = 25_000  # bytes
PHOTOS = "901"  # the key of the node that shows the photos found
FINDS = {"RealRAG_LoadRetriever", "PrimitiveStringMultiline", "RealRAG_RetrieveReferences", "Canny", "PreviewImage"}
OWN = "lemon\nmango\ngarlic\npear\navocado\nkiwi\nginger\nred beet\norange"  # in place of an artist's own photos


class Page:
    """A server of ComfyUI, over HTTP."""

    def __init__(self, url: str):
        self.url = url
        self.info = self.json("/object_info")

    def json(self, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def pictures(self, prompt: dict) -> dict[str, list[Image.Image]]:
        """Run it; what each node showed or saved, by its key."""
        identity = self.json("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})["prompt_id"]
        while not (entry := self.json(f"/history/{identity}").get(identity)):
            time.sleep(0.3)
        if entry["status"]["status_str"] != "success":
            raise SystemExit(json.dumps(entry["status"], indent=1)[:2000])
        found: dict[str, list[Image.Image]] = {}
        for node, shown in entry["outputs"].items():
            for image in shown.get("images", ()):
                with urllib.request.urlopen(f"{self.url}/view?{urlencode(image)}") as answer:
                    picture = Image.open(io.BytesIO(answer.read())).convert("RGB")
                found.setdefault(node, []).append(picture)
        return found


def shown(page: Page, name: str) -> tuple[list[Image.Image], list[Image.Image]]:
    """The photos that a graph finds, and what it makes of them here: (without, with), (outlines,) or nothing."""
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    runs = any(node["type"] == "RealRAG_LoadMiniature" for node in workflow["nodes"])
    prompt = as_prompt(workflow, page.info, None if runs else FINDS)
    retrieve = prompt[key_of(prompt, "RealRAG_RetrieveReferences")]
    if name == "RealRAG 02 Your own photos":
        retrieve["inputs"]["retriever"] = ["900", 0]
        retrieve["inputs"] |= {"look_for": OWN, "top_k": 9}
        prompt["900"] = {
            "class_type": "RealRAG_LoadRetriever",
            "inputs": {"bundle": "sample (shipped)", "head": "auto"},
        }
    prompt[PHOTOS] = {
        "class_type": "PreviewImage",
        "inputs": {"images": [key_of(prompt, "RealRAG_RetrieveReferences"), 1]},
    }
    pictures = page.pictures(prompt)
    photos = [without_borders(photo) for photo in pictures.pop(PHOTOS)]
    if runs:
        (pair,) = pictures[key_of(prompt, "SaveImage")]
        half = pair.width // 2
        return photos, [pair.crop((x, 0, x + half, pair.height)) for x in (0, half)]
    outlines = next((key for key, node in prompt.items() if node["class_type"] == "PreviewImage" and key != PHOTOS), "")
    return photos, [without_borders(outline) for outline in pictures.get(outlines, [])]


def key_of(prompt: dict, kind: str) -> str:
    return next(key for key, node in prompt.items() if node["class_type"] == kind)


def without_borders(picture: Image.Image) -> Image.Image:
    """A photo of a batch without the plain borders that bring it to the size of the others."""
    plain = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, plain).convert("L").point(lambda value: 255 * (value > 24)).getbbox()
    return picture.crop(box) if box else picture


def thumbnail(title: str, photos: list[Image.Image], made: list[Image.Image]) -> Image.Image:
    """The photos in a row above what was made of them; or filling the square in rows of three."""
    card = Image.new("RGB", (SIDE, SIDE), DARK)
    room = SIDE - BAND
    rows = [photos[at : at + 3] for at in range(0, len(photos), 3)] if not made else [photos[:3]]
    above = room if not made else room - SIDE // 2 if len(made) == 2 else room // 2
    place(card, rows, (0, 0, SIDE, above))
    if made:
        place(card, [made], (0, above, SIDE, room))
    draw = ImageDraw.Draw(card)
    for number, word in enumerate(("without", "with") if len(made) == 2 else ()):
        draw.rectangle((number * SIDE // 2, room - 24, number * SIDE // 2 + 62, room - 1), DARK)
        draw.text((number * SIDE // 2 + 6, room - 23), word, INK, ImageFont.load_default(16))
    font = ImageFont.load_default(24)
    while font.getlength(title) > SIDE - 24:
        font = ImageFont.load_default(font.size - 1)
    draw.text((12, SIDE - BAND // 2), title, INK, font, anchor="lm")
    return card


def place(card: Image.Image, rows: list[list[Image.Image]], box: tuple[int, int, int, int]) -> None:
    """Rows of pictures, cropped to fill the box."""
    left, top, right, bottom = box
    for number, row in enumerate(rows):
        upper, lower = (top + (bottom - top) * (number + more) // len(rows) for more in (0, 1))
        for place, picture in enumerate(row):
            first, last = (left + (right - left) * (place + more) // len(row) for more in (0, 1))
            card.paste(ImageOps.fit(picture, (last - first, lower - upper), Image.Resampling.LANCZOS), (first, upper))


def save(card: Image.Image, path: Path) -> None:
    """At the best quality at which it is small enough."""
    for quality in range(84, 30, -4):
        card.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= MOST:
            return
    raise SystemExit(f"{path.name} has more than {MOST} bytes at any quality.")


if __name__ == "__main__":
    page = Page(sys.argv[1])
    for name in sys.argv[2:] or TEMPLATES:
        save(thumbnail(TEMPLATES[name].title, *shown(page, name)), ROOT / "workflows" / f"{name}.jpg")
