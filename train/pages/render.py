"""Templates and pictures -> one HTML file that loads nothing.

Whatever a template prints is escaped. A page may run no script but those whose hash its policy names."""

from __future__ import annotations

import base64
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realrag.interval_text import span, with_interval

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> bytes:
    """The page that a template of this folder makes of the values. A value that is missing is an error."""
    return _environment().get_template(template).render(values).encode()


def picture_url(image: Image.Image, kind: str = "PNG") -> str:
    """A picture as a data: address. kind: PNG or JPEG."""
    buffer = BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    made.filters |= {"with_interval": with_interval, "span": span}
    return made
