"""What a bundle holds, counted: for `realrag show`, and for the node that describes a library."""

from __future__ import annotations

from collections.abc import Mapping

from ..photos.licenses import described, grouped
from .bundle import Bundle


def summary(bundle: Bundle) -> dict:
    """Photos, encoder, heads, bytes, and the photos of each license and class, as `realrag show --json` gives them."""
    manifest, records = bundle.manifest, bundle.records
    return {
        "folder": str(bundle.folder),
        "id": bundle.id,
        "photos": manifest.count,
        "encoder": manifest.encoder["name"],
        "dim": manifest.dim,
        "carries_encoder": bundle.encoder_folder is not None,
        "heads": {head.name: head.metadata for head in manifest.heads},
        "bytes": sum(file.bytes for file in manifest.files),
        "manifest_checksum": manifest.checksummed,
        "licences": records.licence_counts(),
        "license_forms": grouped(records.licence_counts()),
        "classes": records.class_counts(),
        "generated": records.generated(),
    }


def license_counts(metadata: dict) -> dict[str, int]:
    """Photos of each license of a summary: the normal form, and the words as given."""
    return {described(form, words): sum(words.values()) for form, words in metadata["license_forms"].items()}


def listed(counts: Mapping[str, int], most: int) -> str:
    """The `most` frequent with their numbers, and how many more there are."""
    rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{key} ({count})" for key, count in rows[:most])
    return f"{shown}, and {len(rows) - most} more" if len(rows) > most else shown


def generator_marks(metadata: dict) -> str:
    return f"{metadata['generated']} of {metadata['photos']} photos carry a generator's mark"
