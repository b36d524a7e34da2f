"""The page people vote on: one HTML file that loads nothing, sends nothing, and saves the votes as a download."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from realrag.photos.decode import decode, read_bytes
from realrag.photos.keep import encode_jpeg, shrink

from ..pages.render import TEMPLATES, render

FORMAT, VERSION = "realrag-votes", 1


def jpeg_url(picture, longest: int) -> str:
    """A picture, or a file of one, as a data: address. It holds pixels only, and nothing of where they came from."""
    image = decode(read_bytes(picture), picture.name) if isinstance(picture, Path) else picture
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(shrink(image, longest), 88)).decode()


def html_page(page: str, question: str, pairs: Sequence[dict]) -> bytes:
    """pairs: {id, prompt, left, right, real?}. The policy names the one script that may run by its hash."""
    from markupsafe import Markup

    content = {"format": FORMAT, "version": VERSION, "page": page, "question": question, "pairs": list(pairs)}
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")  # so that no text can end the script element
    script = (TEMPLATES / "votes.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render("votes.html", question=question, digest=Markup(digest), data=Markup(data), script=Markup(script))
