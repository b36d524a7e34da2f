"""Library Info: what a library holds and what it can be asked."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...realrag.bundle.bundle import Bundle, read_manifest
from ...realrag.bundle.head_entries import PLAIN
from ...realrag.errors import BundleError, RealRAGError
from ...realrag.photos.licenses import described, grouped
from ..compat import supported_keywords
from ..folders import SHIPPED, bundle_folder, bundles, cache_folder
from ..input_check import checked
from ..progress import progress_bar, show_text

MOST = 40  # classes or licenses that are named


class LibraryInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LibraryInfo",
            display_name="Library Info",
            category="RealRAG",
            description="Shows what a photo library holds: its classes, licenses, encoder and heads, and how well it is known "
            "by look.",
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=list(bundles()),
                    default=SHIPPED,
                    tooltip="The photo library. New ones in models/realrag appear after pressing R.",
                ),
            ],
            outputs=[io.String.Output(display_name="info", tooltip="The same text, for Preview as Text or a file.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **supported_keywords(io.Schema, search_aliases=["photo library", "classes", "licenses"]),
        )

    @classmethod
    def validate_inputs(cls, bundle: str | None = None) -> bool | str:
        try:
            return bundle is None or bool(bundle_folder(bundle))
        except BundleError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, bundle: str | None = None) -> str:
        try:
            return read_manifest(bundle_folder(bundle)).id
        except RealRAGError:
            return ""

    @classmethod
    @checked
    def execute(cls, bundle: str) -> io.NodeOutput:
        text = described_library(Bundle(bundle_folder(bundle), cache_folder(), progress_bar()), bundle)
        show_text(text, cls.hidden)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def described_library(bundle: Bundle, name: str) -> str:
    """Photos, classes, licenses, encoder, heads, names, level and size of a bundle, one a line."""
    manifest, records = bundle.manifest, bundle.records
    level = manifest.levels.get(PLAIN)
    forms = grouped(records.licence_counts())
    licenses = {described(form, words): sum(words.values()) for form, words in forms.items()}
    size = sum(file.bytes for file in manifest.files)
    lines = {
        "Library": name,
        "Photos": f"{manifest.count:,}, {size / 1e6:,.1f} MB",
        "Classes": _listed(records.class_counts()) or "none: put each class into a sub-folder to ask by name",
        "Licenses": _listed(licenses) or "none is named",
        "Other names": f"{len(manifest.names)} in {len({other.language for other in manifest.names})} languages"
        if manifest.names
        else "none",
        "Encoder": manifest.encoder["name"] + (", carried by the library" if bundle.encoder_folder else ""),
        "Heads": ", ".join(head.name for head in manifest.heads) or "none",
        "By look": level.sentence() if level else "not measured when the library was built",
    }
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def _listed(counts: dict[str, int]) -> str:
    """The most frequent first."""
    rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{key or 'without one'} ({count})" for key, count in rows[:MOST])
    return f"{shown}, and {len(rows) - MOST} more" if len(rows) > MOST else shown
