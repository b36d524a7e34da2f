"""The command `realrag credits`: which real photos steered a picture, read from the picture's own metadata."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..errors import PhotoError
from .output import on_one_line, say, say_json

UNSURE = (
    "These credits belong to the run that made this picture. The picture was changed since, is no PNG, or is another one of "
    "that run."
)


def credits(args) -> int:
    from ..credits.read import FoundCredits, read_credits

    found: list[FoundCredits] = []
    failed = 0
    for path in args.pictures:
        try:
            found.append(read_credits(path))
        except PhotoError as error:
            failed += 1
            say(f"realrag: {error}", error=True)
    if args.text:
        write_text(args.text, found)
    if args.json:
        say_json([one.as_json() for one in found])
        return int(failed > 0)
    for one in found:
        say(f"{one.file}: {'credits of real photos' if one.credits else 'no credits of RealRAG'}")
        say(*(f"  {line}" for line in one.text().splitlines()))
        say(*(f"  library {credit.bundle[:12]}" for credit in one.credits if credit.bundle))
        if one.credits and not one.sure:
            say(f"  {UNSURE}")
    return int(failed > 0)


def write_text(path: Path, found) -> None:
    """The credits of each picture that has some, for a page or a caption beside it."""
    from ..files import write_atomic

    parts = [f"{on_one_line(one.file)}\n{one.text()}\n" for one in found if one.credits]
    write_atomic(path, "\n".join(parts).encode(errors="replace"))


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """command(name, run, text, example) makes a sub-command's parser."""
    one = command(
        "credits", credits, "Show which real photos steered a picture, with authors and licenses.",
        "realrag credits ComfyUI/output/ComfyUI_00001_.png --text credits.txt",
    )  # fmt: skip
    one.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="a PNG, WebP or JPEG saved by ComfyUI")
    one.add_argument("--text", type=Path, metavar="FILE", help="also write the credits into this text file")
    one.add_argument("--json", action="store_true", help="print JSON and nothing else")
