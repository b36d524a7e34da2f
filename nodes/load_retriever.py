"""Load Reflective Retriever: a bundle of photos, opened once, with its encoder in ComfyUI's care."""

from __future__ import annotations

import threading
from pathlib import Path
from weakref import WeakValueDictionary

import comfy.model_management as management
import comfy.model_patcher
from comfy_api.latest import io

from ..realrag.bundle import read_manifest
from ..realrag.errors import BundleError
from ..realrag.references import References
from ..realrag.retriever import Retriever
from .folders import SHIPPED, bundle_folder, bundles, cache_folder
from .newer import newer
from .progress import progress_bar
from .retriever_vision import RetrieverVision

RetrieverSocket = io.Custom("REALRAG_RETRIEVER")
ENCODE_MEMORY = 256 << 20  # bytes of activations for one prompt and one picture, generous for a ViT-L


class ManagedRetriever:
    """A retriever whose encoder ComfyUI loads, moves and unloads like any other model."""

    def __init__(self, retriever: Retriever):
        self.retriever = retriever
        device = management.text_encoder_device()
        if not management.is_device_cpu(device) and management.should_use_fp16(device):
            retriever.encoder.half()
        # Looked up now, not at import: ComfyUI puts its dynamic-memory patcher there when it starts.
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        offload = management.text_encoder_offload_device()
        self.patcher = patcher(retriever.encoder, load_device=device, offload_device=offload)

    def load(self):
        """The encoder, after making room for it and loading it."""
        management.load_models_gpu([self.patcher], memory_required=ENCODE_MEMORY, force_full_load=True)
        return self.retriever.encoder

    def search(self, text: str, **options) -> References:
        """`Retriever.search`, with the encoder loaded."""
        self.load()
        management.throw_exception_if_processing_interrupted()
        return self.retriever.search(text, **options)


# Weak on purpose: nodes with the same bundle share one retriever, and it goes when ComfyUI drops the last node output
# that holds it, so "Unload models and free cache" frees ours too.
_open: WeakValueDictionary[str, ManagedRetriever] = WeakValueDictionary()
_lock = threading.Lock()


def open_retriever(folder: Path) -> ManagedRetriever:
    """The retriever of this bundle: the one already open for this manifest, or a fresh one."""
    with _lock:
        name = read_manifest(folder).id
        managed = _open.get(name)
        if managed is None:
            opened = Retriever.open(folder, cache=cache_folder(), progress=progress_bar())
            managed = _open[name] = ManagedRetriever(opened)
        return managed


class LoadReflectiveRetriever(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadRetriever",
            display_name="Load Reflective Retriever",
            category="RealRAG",
            description="Opens a bundle: a library of real photos that can be asked in words. "
            "Bundles live in ComfyUI/models/realrag; make your own from any folder of photos with `realrag index`.",
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=list(bundles()),
                    default=SHIPPED,
                    tooltip="The photo library to look in. New bundles in models/realrag appear after pressing R.",
                )
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
            **newer(io.Schema, search_aliases=["photo library", "reference photos", "rag"]),
        )

    @classmethod
    def validate_inputs(cls, bundle: str) -> bool | str:
        """Refuse a name that is not in the list before anything runs; older versions do not check it."""
        try:
            return bool(bundle_folder(bundle))
        except BundleError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, bundle: str) -> str:
        return read_manifest(bundle_folder(bundle)).id

    @classmethod
    def execute(cls, bundle: str) -> io.NodeOutput:
        managed = open_retriever(bundle_folder(bundle))
        return io.NodeOutput(managed, RetrieverVision(managed))
