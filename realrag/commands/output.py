"""What the commands print: one line a line, whatever a name holds, and in any encoding of the terminal or file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata


def prepare() -> None:
    """Let standard output and error take any character: what their encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def on_one_line(text: object) -> str:
    """Text without control characters, which could clear a screen or forge a line of output."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in text)


def say(*lines: object, error: bool = False) -> None:
    """Print each as one line."""
    for line in lines:
        print(on_one_line(line), file=sys.stderr if error else sys.stdout)


def say_json(value: object) -> None:
    """Print one JSON value on one line; with escapes where the output cannot take all characters."""
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "").replace("_", "")
    try:
        text = json.dumps(value, ensure_ascii=not encoding.startswith("utf"))
        text.encode()
    except UnicodeEncodeError:  # halves of characters, from file names of old disks
        text = json.dumps(value)
    print(text)


def close_quietly() -> None:
    """After the reader of our output has gone, as `| head` does: let the interpreter end without a word about it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
