"""Load Reflective Retriever: a bundle of photos, opened once, with its encoder in ComfyUI's care."""

from __future__ import annotations

import threading
from pathlib import Path
from weakref import WeakValueDictionary

import comfy.model_management as management
from comfy_api.latest import io

from ...realrag.bundle.bundle import read_manifest
from ...realrag.bundle.head_entries import AUTO, PLAIN
from ...realrag.encoders import Encoder
from ...realrag.errors import BundleError, RealRAGError
from ...realrag.references import References
from ...realrag.retriever import Retriever
from ..compat import managed_encoder, supported_keywords
from ..encoder_files import encoder_of
from ..folders import SHIPPED, bundle_folder, bundles, cache_folder, head_names
from ..index_addresses import index_address
from ..input_check import checked
from ..progress import progress_bar
from ..sockets import RetrieverSocket
from .clip_vision import RetrieverVision

PLAIN_ENCODER = f"{PLAIN} (plain encoder)"  # as the list in the node words it
ENCODE_MEMORY = 256 << 20  # bytes of activations for one prompt and one picture, generous for a ViT-L


class ManagedRetriever:
    """A retriever whose encoder ComfyUI loads, moves and unloads like any other model."""

    def __init__(self, retriever: Retriever, patcher=None):
        """patcher: of this retriever's encoder, where ComfyUI manages it already."""
        self.retriever = retriever
        self.patcher = patcher or managed_encoder(retriever.encoder)

    def load(self):
        """The encoder, after making room for it and loading it."""
        management.load_models_gpu([self.patcher], memory_required=ENCODE_MEMORY, force_full_load=True)
        return self.retriever.encoder

    def search(self, text: str, **options) -> References:
        """`Retriever.search`, with the encoder loaded."""
        self.load()
        management.throw_exception_if_processing_interrupted()
        return self.retriever.search(text, **options)


# Weak on purpose: nodes with the same bundle and head share one retriever, and it goes when ComfyUI drops the last node
# output that holds it, so "Unload models and free cache" frees ours too.
_open: WeakValueDictionary[tuple[str, str, str], ManagedRetriever] = WeakValueDictionary()
_lock = threading.Lock()


def already_open(bundle_id: str) -> ManagedRetriever | None:
    """A retriever of this bundle that is open now, through whichever head."""
    with _lock:
        return next((managed for (bundle, *_), managed in _open.items() if bundle == bundle_id), None)


def open_retriever(
    folder: Path, head: str = AUTO, address: str | None = None, encoder: Encoder | None = None, patcher=None
) -> ManagedRetriever:
    """The retriever of this bundle with this head: the one already open for this manifest, or a fresh one. address: of the
    index that is asked in place of one here, as the artist's own file has it. encoder, patcher: the bundle's encoder where it
    is loaded already, so that it is not loaded again."""
    with _lock:
        manifest = read_manifest(folder)
        chosen = manifest.head(head)
        key = manifest.id, chosen.name if chosen else PLAIN, address or ""
        managed = _open.get(key)
        if managed is None:
            others = (other for (bundle, _, index), other in _open.items() if (bundle, index) == (key[0], key[2]))
            sibling = next(others, None)
            if sibling is None:
                opened = Retriever.open(
                    folder, encoder=encoder or encoder_of(manifest), head=head, cache=cache_folder(), progress=progress_bar(),
                    index=address,
                )  # fmt: skip
            else:  # another head of the same bundle is open: both have one encoder
                opened, patcher = sibling.retriever.with_head(head, progress_bar()), sibling.patcher
            managed = _open[key] = ManagedRetriever(opened, patcher)
        return managed


def head_of(value: str | None) -> str:
    """What the list says -> a head's name, "auto" or "none". A workflow from before there was a choice has no value."""
    return AUTO if value is None else PLAIN if value == PLAIN_ENCODER else value


class LoadReflectiveRetriever(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadRetriever",
            display_name="Load Reflective Retriever",
            category="RealRAG",
            description="Opens a bundle: a library of real photos that you search with words. "
            "Libraries live in ComfyUI/models/realrag; make your own with Build Reference Library.",
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=list(bundles()),
                    default=SHIPPED,
                    tooltip="The photo library to search. New bundles in models/realrag appear after pressing R.",
                ),
                io.Combo.Input(
                    "head",
                    options=[AUTO, PLAIN_ENCODER, *head_names()],
                    default=AUTO,
                    optional=True,
                    tooltip="A head that was trained for one generator ranks photos by what that generator lacks. "
                    "auto: the library's first, or the plain encoder where it has none. "
                    "The list shows the heads of all your libraries.",
                ),
            ],
            outputs=[
                RetrieverSocket.Output(
                    display_name="retriever",
                    tooltip="The opened photo library, for Retrieve Real References.",
                ),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="The library's own image encoder, for adapters that were trained on it.",
                ),
            ],
            **supported_keywords(
                io.Schema, search_aliases=["photo library", "real photo", "reference photos", "image search", "rag"]
            ),
        )

    @classmethod
    def validate_inputs(cls, bundle: str | None = None) -> bool | str:
        """Refuse an unlisted name before anything runs. None: another node gives it.

        Of `bundle` alone: ComfyUI shows the answer once for each input that is named here. It looks the head up in the list
        itself, and running refuses one that this bundle lacks.
        """
        try:
            return bundle is None or bool(bundle_folder(bundle))
        except BundleError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, bundle: str | None = None, head: str | None = None) -> str:
        """The library's content. A fingerprint never raises: running says what is wrong with it."""
        try:
            address = index_address(bundle) if bundle is not None else None
            return " ".join(filter(None, (read_manifest(bundle_folder(bundle)).id, address)))
        except RealRAGError:
            return ""

    @classmethod
    @checked
    def execute(cls, bundle: str, head: str | None = None) -> io.NodeOutput:
        managed = open_retriever(bundle_folder(bundle), head_of(head), index_address(bundle))
        return io.NodeOutput(managed, RetrieverVision(managed))
