"""What a file is that was saved under a model's name and is none: a web page, a site's refusal, a pointer of Git LFS."""

from __future__ import annotations

import re

LOOK_AT = 4096  # bytes; a model's file begins with a number or a signature within the first few
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<body|<\?xml|<!--)", re.IGNORECASE)
_POINTER = b"version https://git-lfs.github.com/"
_SHOWN, _LEAST = 120, 16  # letters of a text: the most that are shown, the least that count as one


def what_it_is(start: bytes) -> str:
    """A sentence on a file that begins so, with the cure; "" where it may be a model."""
    if _PAGE.match(start):
        return (
            "it is a web page that was saved under this name. Open the page that it comes from in a browser, log in and accept the "
            "license where it asks for that, and use the file's download button."
        )
    if start.startswith(_POINTER):
        return (
            "it is a Git LFS pointer, a note on where the file lies. Run `git lfs pull`, or download the file itself."
        )
    if (text := _plain_text(start)) is not None:
        return (
            f"it is a text that begins {text!r}. If that is a site's answer, log in there, ask for access if the model needs it, "
            "and download the file again."
        )
    return ""


def _plain_text(start: bytes) -> str | None:
    """The first line, where all of it is text."""
    try:
        text = start[: LOOK_AT - 4].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start[: LOOK_AT - 4]) - 4:
            return None
        text = start[: error.start].decode("utf-8")
    if not all(char.isprintable() or char in "\t\r\n" for char in text):
        return None
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[0][:_SHOWN] if lines and len(lines[0]) >= _LEAST else None
