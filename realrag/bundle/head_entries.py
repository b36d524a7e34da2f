"""The reflective heads of a bundle, one for each generator over one library: their names, their part of the manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..validation import strict_json

# What may be asked for in place of a head's name, so no head is called so.
AUTO, PLAIN = "auto", "none"
MAX_HEADS = 64
NAMING = "1 to 64 letters, digits, '.', '_', '+' and '-', beginning with a letter or digit, and not 'auto' or 'none'"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class BundleFile:
    path: str
    bytes: int
    sha256: str
    role: str


@dataclass(frozen=True)
class BundleHead:
    """A head that a bundle lists. metadata: what it says of itself, such as generator, encoder and configuration."""

    name: str
    file: BundleFile
    metadata: dict


def is_head_name(name: object) -> bool:
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name.casefold() not in (AUTO, PLAIN)


def generator_of(metadata: dict) -> str:
    """The name of the generator that a head was trained for, as its metadata states it; "" where they do not."""
    generator = metadata.get("generator")
    if isinstance(generator, str) and generator.startswith(
        "{"
    ):  # the trainer keeps all of a generator's metadata as JSON
        try:
            generator = strict_json(generator.encode(errors="replace")).get("name")
        except ValueError:
            return ""
    return generator if isinstance(generator, str) and generator != PLAIN else ""


def own_name(metadata: dict) -> str:
    """The name a head has where nobody gives it one: its generator's, in plain characters, or "head"."""
    words = re.sub(r"[^A-Za-z0-9._+]+", "-", generator_of(metadata).rpartition("/")[2])[:64].strip("-._+")
    return words if is_head_name(words) else "head"


def read_heads(content: dict, files: Sequence[BundleFile]) -> tuple[BundleHead, ...]:
    """The heads of a manifest of version 1 (`head`: at most one, without a name) or 2 (`heads`: named, the first is the
    default). files: those of the role head. ValueError, KeyError or TypeError where something is wrong."""
    if content["version"] == 1:
        if len(files) != (content["head"] is not None) or not isinstance(content["head"] or {}, dict):
            raise ValueError("head and its file")
        return tuple(BundleHead(own_name(content["head"]), file, content["head"]) for file in files)
    entries, by_path = content["heads"], {file.path: file for file in files}
    if "head" in content or not isinstance(entries, list) or not 0 < len(entries) <= MAX_HEADS:
        raise ValueError(f"heads: a list of 1 to {MAX_HEADS}")
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or set(entry) != {"name", "path", "facts"}
            or not isinstance(entry["facts"], dict)
        ):
            raise ValueError("a head's fields")
        if not is_head_name(entry["name"]):
            raise ValueError(f"the head's name {str(entry['name'])[:40]!r}: it is {NAMING}")
    if len({entry["name"].casefold() for entry in entries}) != len(entries):
        raise ValueError("two heads of one name")
    if sorted(entry["path"] for entry in entries) != sorted(by_path):
        raise ValueError("heads and their files")
    return tuple(BundleHead(entry["name"], by_path[entry["path"]], entry["facts"]) for entry in entries)


def heads_content(heads: Sequence[BundleHead]) -> dict:
    """The part of manifest.json that `read_heads` reads. What version 1 can say is said in version 1, so that every
    RealRAG opens it and equal content has an equal id."""
    if not heads:
        return {"version": 1, "head": None}
    if len(heads) == 1 and heads[0].name == own_name(heads[0].metadata):
        return {"version": 1, "head": heads[0].metadata}
    return {
        "version": 2,
        "heads": [{"name": head.name, "path": head.file.path, "facts": head.metadata} for head in heads],
    }
