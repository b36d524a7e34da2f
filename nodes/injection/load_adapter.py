"""Load Reference Adapter: a file trained to let photos steer one generator, recognised by what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as management
import folder_paths
from comfy_api.latest import io

from ...realrag.adapters import AdapterSpec, load_adapter
from ...realrag.adapters.siglip_pooling_head import MapHead, head_width, load_map_head
from ...realrag.errors import AdapterError
from ...realrag.miniature.files import NAMES, adapter_file, check_there
from ..compat import managed_patcher
from ..folders import ADAPTERS
from ..sockets import AdapterSocket

AUTOMATIC = "automatic"
SHIPPED = {f"{name} (shipped)": family for name, family in NAMES.items()}


@dataclass(frozen=True, eq=False)
class ManagedAdapter:
    """An adapter whose weights ComfyUI loads, moves and unloads like any other model."""

    adapter: object
    patcher: object
    head: object | None = None  # SigLIP's pooling head, where the adapter reads its output
    legacy: bool = False

    @classmethod
    def of(cls, adapter, head=None, legacy: bool = False) -> ManagedAdapter:
        patcher = managed_patcher(adapter, management.get_torch_device(), management.unet_offload_device())
        return cls(adapter, patcher, head, legacy)


class LoadReferenceAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadReferenceAdapter",
            display_name="Load Reference Adapter",
            category="RealRAG",
            description="Loads a reference adapter (IP-Adapter) for Flux or SD3.5 from models/realrag_adapters. "
            "What kind it is, is told by the file's content. Known: Flux XLabs v1 and v2, Flux InstantX, "
            "Flux Redux, SD3.5-Large InstantX, and the files that realrag-train adapter makes for Flux and SD3.",
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=adapters(),
                    tooltip="A file in models/realrag_adapters. New files appear after pressing R. Those called "
                    "(shipped) come with RealRAG, for Load Miniature. "
                    "Prefer .safetensors; .bin and .pt are read for their weights only (realrag convert makes "
                    "the one of the other).",
                ),
                io.Combo.Input(
                    "vision_file",
                    options=[AUTOMATIC, *folder_paths.get_filename_list("clip_vision")],
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="Only for Flux InstantX: the SigLIP file in models/clip_vision with the pooling head, "
                    "normally the one you load with Load CLIP Vision. Automatic takes the first that fits.",
                ),
                io.Boolean.Input(
                    "legacy",
                    default=False,
                    optional=True,
                    tooltip="Only for Flux InstantX: normalise values as Shakker's nodes do, to get their look. Off is "
                    "as published.",
                ),
            ],
            outputs=[AdapterSocket.Output(display_name="adapter", tooltip="For Inject References.")],
        )

    @classmethod
    def validate_inputs(cls, adapter: str, vision_file: str = AUTOMATIC) -> bool | str:
        """Refuse a name that is not in the list before anything runs; older versions do not check V3 nodes."""
        if adapter not in adapters():
            return f"No adapter named {adapter!r} in models/realrag_adapters. Put the file there, then press R."
        if vision_file not in (AUTOMATIC, *folder_paths.get_filename_list("clip_vision")):
            return f"No file named {vision_file!r} in models/clip_vision. Choose {AUTOMATIC!r}, or put it there."
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter: str, vision_file: str = AUTOMATIC, legacy: bool = False) -> tuple[int, int]:
        """Load again when the file has changed."""
        stat = _path(adapter).stat()
        return stat.st_mtime_ns, stat.st_size

    @classmethod
    def execute(cls, adapter: str, vision_file: str = AUTOMATIC, legacy: bool = False) -> io.NodeOutput:
        loaded = load_adapter(_path(adapter))
        head = pooling_head(loaded.spec, vision_file) if loaded.spec.encoder_output == "pooler_output" else None
        return io.NodeOutput(ManagedAdapter.of(loaded, head, legacy))


def pooling_head(spec: AdapterSpec, vision_file: str) -> MapHead:
    """The head out of the chosen vision file, or out of the first in models/clip_vision that has one of this width."""
    names = folder_paths.get_filename_list("clip_vision") if vision_file == AUTOMATIC else [vision_file]
    paths = [Path(folder_paths.get_full_path_or_raise("clip_vision", name)) for name in names]
    if vision_file == AUTOMATIC:
        paths = [path for path in paths if path.suffix == ".safetensors" and head_width(path) == spec.encoder_dim]
        if not paths:
            raise AdapterError(
                f"This adapter ({spec.label}) needs the pooling head of {spec.encoder}, and no .safetensors file in "
                "models/clip_vision holds it. Put that model's complete vision file there, then press R."
            )
    head = load_map_head(paths[0])
    if head.width != spec.encoder_dim:
        raise AdapterError(
            f"{paths[0].name} has a pooling head of width {head.width}, but this adapter ({spec.label}) reads width "
            f"{spec.encoder_dim}: choose the file of {spec.encoder}."
        )
    return head


def adapters() -> list[str]:
    """The files in models/realrag_adapters, then those that come with RealRAG."""
    shipped = [name for name, family in SHIPPED.items() if adapter_file(family).is_file()]
    return [*folder_paths.get_filename_list(ADAPTERS), *shipped]


def _path(name: str) -> Path:
    """A listed file; a name from a workflow is looked up in the folder and never leaves it."""
    if name in SHIPPED:
        return check_there(adapter_file(SHIPPED[name]))
    return Path(folder_paths.get_full_path_or_raise(ADAPTERS, name))
