"""The command `realrag credits`: which real photos steered a picture, read from the picture's own metadata."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..errors import PhotoError, RealRAGError
from ..photos.c2pa import ALGORITHMS
from .output import on_one_line, say, say_json

UNSURE = (
    "These credits belong to the run that made this picture. The picture was changed since, is no PNG, or is another one of "
    "that run."
)


def credits(args) -> int:
    from ..credits.read import FoundCredits, read_credits

    if args.sign:
        return _sign(args)
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


def _sign(args) -> int:
    from ..credits.sign import sign_picture

    if len(args.pictures) > 1 or not args.certificate or not args.key:
        raise RealRAGError("--sign takes one picture, with --certificate FILE and --key FILE.")
    count = sign_picture(args.pictures[0], args.sign, args.certificate, args.key, args.algorithm)
    say(f"{args.sign}: signed, with {count} photo{'s' * (count != 1)} as ingredients. It holds none of their pixels.")
    return 0


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
    one.add_argument("--sign", type=Path, metavar="OUT", help="write the picture with content credentials (C2PA) to OUT: the photos are its "
                     "ingredients, by their words and without their pixels; needs realrag[c2pa]")  # fmt: skip
    one.add_argument(
        "--certificate", type=Path, metavar="PEM", help="with --sign: your certificate, and its authorities after it"
    )
    one.add_argument(
        "--key", type=Path, metavar="PEM", help="with --sign: the certificate's private key, without a password"
    )
    one.add_argument(
        "--algorithm", choices=ALGORITHMS, default="es256", help="with --sign: what the key is for (%(default)s)"
    )
