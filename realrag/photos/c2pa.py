"""Content credentials (C2PA): what the manifest in a photo's file says of its maker, and of a generator.

They are kept as credit, as a caption in XMP is. Nothing is checked: anybody can write a manifest, and nothing here decides
by its signature. The package c2pa-python reads them, the extra `realrag[c2pa]`; it asks nobody on the network.
"""

from __future__ import annotations

import io
import json
from functools import cache
from importlib.util import find_spec
from typing import Any

from .credit import Credit, clean

ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")  # of signatures
MOST_NAME = 80  # letters of a generator's name
MOST_VALUES = 20_000  # of one manifest store, in search of what it says
MIMES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "GIF": "image/gif",
    "AVIF": "image/avif", "HEIF": "image/heif",
}  # fmt: skip
# The last word of IPTC's and C2PA's URLs for pictures that a model or a program made, in whole or in part.
_MADE = frozenset(
    ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicMedia", "trainedAlgorithmicData")
)
# Nothing is fetched, and no signature is worked out.
SETTINGS = {
    "verify": {
        "remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False, "verify_timestamp_trust": False,
        "verify_after_reading": False,
    }
}  # fmt: skip


def readable() -> bool:
    """Is the extra there?"""
    return find_spec("c2pa") is not None


@cache
def _context():
    from c2pa import Context

    return Context.from_dict(SETTINGS)


def words_of_manifest(data: bytes, kind: str) -> tuple[Credit, str]:
    """(author, generator) that the manifest in a photo's bytes states; nothing where it cannot be read."""
    if kind not in MIMES or not readable():
        return Credit(), ""
    try:
        from c2pa import Reader

        with Reader(MIMES[kind], io.BytesIO(data), context=_context()) as reader:
            store = json.loads(reader.json())
        return Credit(author=_author(store)), _generator(store)
    except Exception:
        return Credit(), ""  # a damaged manifest says nothing, and the photo is as good as before


def _manifests(store: dict) -> list[dict]:
    """The active manifest first, then those of what it was made from."""
    found, active = store.get("manifests") or {}, store.get("active_manifest")
    return [found[name] for name in sorted(found, key=lambda name: name != active)]


def _assertions(manifest: dict) -> list[tuple[str, Any]]:
    return [(str(one.get("label", "")), one.get("data")) for one in manifest.get("assertions") or ()]


def _author(store: dict) -> str:
    """The creators whom the active manifest names."""
    for label, data in _assertions(_manifests(store)[0]):
        names: Any = None
        if label.startswith(("cawg.metadata", "c2pa.metadata")):
            names = data.get("dc:creator")
        elif label.startswith("stds.schema-org.CreativeWork"):
            authors = data.get("author")
            authors = authors if isinstance(authors, list) else [authors]
            names = [author.get("name") for author in authors if isinstance(author, dict)]
        names = [clean(name) for name in (names if isinstance(names, list) else [names]) if isinstance(name, str)]
        if text := ", ".join(filter(None, names)):
            return clean(text)
    return ""


def _generator(store: dict) -> str:
    """The program by which the picture, or one that it was made from, was generated; "" where none says so."""
    for manifest in _manifests(store):
        waiting: list[Any] = [data for _, data in _assertions(manifest)]
        for _ in range(MOST_VALUES):
            if not waiting:
                break
            value = waiting.pop()
            if isinstance(value, dict):
                if any(_says_made(key, one) for key, one in value.items()):
                    return _name(value.get("softwareAgent")) or _claimed(manifest) or "a generator"
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
    return ""


def _says_made(key: str, value: Any) -> bool:
    return (
        key.lower().endswith("digitalsourcetype")
        and isinstance(value, str)
        and value.rstrip("/").rpartition("/")[2] in _MADE
    )


def _claimed(manifest: dict) -> str:
    """The program that wrote the manifest."""
    written = manifest.get("claim_generator_info") or [manifest.get("claim_generator")]
    return _name(written[0])


def _name(agent: Any) -> str:
    name = agent.get("name") if isinstance(agent, dict) else agent
    return clean(name)[:MOST_NAME] if isinstance(name, str) else ""
