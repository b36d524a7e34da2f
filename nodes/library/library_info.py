"""Library Info: what a library holds and what it can be asked."""

from __future__ import annotations

from collections import Counter

from comfy_api.latest import io, ui

from ...realrag.bundle.bundle import Bundle, read_manifest
from ...realrag.bundle.head_entries import PLAIN
from ...realrag.bundle.summary import generator_marks, license_counts, listed, summary
from ...realrag.errors import BundleError, RealRAGError
from ...realrag.photos.licenses import NOT_STATED
from ...realrag.prompts.words import is_a_name
from ...realrag.search.names import asked_as
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
    """Photos, classes, licenses, encoder, heads, names and level of a bundle, one a line."""
    metadata, manifest = summary(bundle), bundle.manifest
    level, languages = manifest.levels.get(PLAIN), {other.language for other in manifest.names}
    classes: Counter[str] = Counter()
    for called, count in bundle.records.class_counts().items():
        if called != NOT_STATED and is_a_name(called):
            classes[asked_as(called)] += count
    lines = {
        "Library": name,
        "Photos": f"{metadata['photos']:,}, {metadata['bytes'] / 1e6:,.1f} MB; {generator_marks(metadata)}",
        "Classes": listed(classes, MOST) or "none: put each class into a sub-folder to ask by name",
        "Licenses": listed(license_counts(metadata), MOST),
        "Other names": f"{len(manifest.names)} in {len(languages)} languages" if manifest.names else "none",
        "Encoder": metadata["encoder"] + (", carried by the library" if metadata["carries_encoder"] else ""),
        "Heads": ", ".join(metadata["heads"]) or "none",
        "By look": level.sentence() if level else "not measured when the library was built",
    }
    return "\n".join(f"{key}: {value}" for key, value in lines.items())
