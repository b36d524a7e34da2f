"""Load Reference Adapter: a file trained to let photos steer one generator, recognised by what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as management
import comfy.model_patcher
import folder_paths
from comfy_api.latest import io

from ..realrag.adapters import load_adapter
from .folders import ADAPTERS

AdapterSocket = io.Custom("REALRAG_ADAPTER")


@dataclass(frozen=True, eq=False)
class ManagedAdapter:
    """An adapter whose weights ComfyUI loads, moves and unloads like any other model."""

    adapter: object
    patcher: object

    @classmethod
    def of(cls, adapter) -> ManagedAdapter:
        # Looked up now, not at import: ComfyUI puts its dynamic-memory patcher there when it starts.
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        return cls(
            adapter,
            patcher(
                adapter, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
            ),
        )


class LoadReferenceAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadReferenceAdapter",
            display_name="Load Reference Adapter",
            category="RealRAG",
            description="Loads a reference adapter (IP-Adapter) for Flux or SD3.5 from models/realrag_adapters. "
            "What kind it is, is told by the file's content. Known: Flux XLabs v1 and v2, SD3.5-Large InstantX.",
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=folder_paths.get_filename_list(ADAPTERS),
                    tooltip="A file in models/realrag_adapters. New files appear after pressing R. "
                    "Prefer .safetensors; .bin and .pt are read for their weights only.",
                )
            ],
            outputs=[AdapterSocket.Output(display_name="adapter", tooltip="For Inject References.")],
        )

    @classmethod
    def validate_inputs(cls, adapter: str) -> bool | str:
        """Refuse a name that is not in the list before anything runs; older versions do not check combos of V3 nodes."""
        if adapter in folder_paths.get_filename_list(ADAPTERS):
            return True
        return f"No adapter named {adapter!r} in models/realrag_adapters. Put the file there, then press R."

    @classmethod
    def fingerprint_inputs(cls, adapter: str) -> tuple[int, int]:
        """Load again when the file has changed."""
        stat = _path(adapter).stat()
        return stat.st_mtime_ns, stat.st_size

    @classmethod
    def execute(cls, adapter: str) -> io.NodeOutput:
        return io.NodeOutput(ManagedAdapter.of(load_adapter(_path(adapter))))


def _path(name: str) -> Path:
    """A listed file; a name from a workflow is looked up in the folder and never leaves it."""
    return Path(folder_paths.get_full_path_or_raise(ADAPTERS, name))
