"""Load Reference Adapter: a file that lets photos steer one generator, and the vision model that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as management
import folder_paths
from comfy_api.latest import io

from ...realrag.adapters import AdapterSpec, load_adapter
from ...realrag.adapters.siglip_pooling_head import MapHead, head_width, load_map_head
from ...realrag.adapters.vision_files import how_to_get
from ...realrag.errors import AdapterError
from ...realrag.miniature.files import NAMES, adapter_file, check_there
from ..compat import folded, managed_patcher, supported_keywords
from ..folders import ADAPTERS, file_stamp, listed_file
from ..input_check import checked
from ..sockets import AdapterSocket
from .found_vision import FOLDER, find_vision, vision_paths

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
            description="Loads a reference adapter (IP-Adapter) for Flux or SD3.5 from models/realrag_adapters, and the "
            "vision model that it needs from models/clip_vision. It recognizes files by their content: Flux XLabs v1 "
            "and v2, Flux InstantX, Flux Redux, SD3.5-Large InstantX, and what realrag-train adapter makes.",
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=adapters(),
                    tooltip="A file in models/realrag_adapters. Press R to see new files. Those marked (shipped) come "
                    "with RealRAG, for Load Miniature. Prefer .safetensors. RealRAG reads only the weights of .bin and "
                    ".pt files; realrag convert turns them into .safetensors.",
                ),
                io.Combo.Input(
                    "vision_file",
                    options=[AUTOMATIC, *folder_paths.get_filename_list("clip_vision")],
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="The vision model in models/clip_vision that this adapter was trained with. automatic finds "
                    "it by its content. For Flux InstantX it must hold SigLIP's pooling head.",
                ),
                *folded(
                    io.Boolean.Input(
                        "legacy",
                        default=False,
                        optional=True,
                        tooltip="Only for Flux InstantX: normalize values as Shakker's nodes do, to get their look. Off "
                        "follows the published formula.",
                    )
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For Inject References."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="The vision model that this adapter needs, for Inject References. It takes memory only when "
                    "it is used.",
                ),
                io.String.Output(display_name="report", tooltip="Which files were taken, or which one to fetch."),
            ],
            **supported_keywords(
                io.Schema,
                search_aliases=[
                    "ipadapter",
                    "ip-adapter",
                    "ipadapter model loader",
                    "redux",
                    "style model",
                    "xlabs",
                    "instantx",
                ],
            ),
        )

    @classmethod
    def validate_inputs(cls, adapter: str | None = None) -> bool | str:
        """Refuse an unlisted name before anything runs. None: another node will give it.

        Of `adapter` alone: ComfyUI shows the answer once for each input that is named here, and looks vision_file up itself.
        """
        if adapter is None or adapter in (there := adapters()):
            return True
        return (
            f"No adapter named {str(adapter)[:80]!r} in models/realrag_adapters. There are: {', '.join(there)[:400] or 'none'}. "
            "Put the file there, then press R."
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, vision_file: str | None = AUTOMATIC, legacy=False) -> tuple:
        """Load again when a file has changed, or when another vision model could be found."""
        names = tuple(folder_paths.get_filename_list(FOLDER)) if vision_file in (None, AUTOMATIC) else vision_file
        return file_stamp(lambda: _path(adapter)), names

    @classmethod
    @checked
    def execute(cls, adapter: str, vision_file: str = AUTOMATIC, legacy: bool = False) -> io.NodeOutput:
        from comfy_execution.graph_utils import ExecutionBlocker

        loaded = load_adapter(_path(adapter))
        chosen = None if vision_file == AUTOMATIC else listed_file(FOLDER, vision_file, f"models/{FOLDER}")
        head = pooling_head(loaded.spec, chosen) if loaded.spec.encoder_output == "pooler_output" else None
        vision, report = find_vision(loaded.spec, chosen)
        if vision is None:  # what hangs on the output stops with this sentence; a graph with its own loader goes on
            vision = ExecutionBlocker(f"Load Reference Adapter: {report}")
        return io.NodeOutput(
            ManagedAdapter.of(loaded, head, legacy), vision, f"Adapter: {adapter}, {loaded.spec.label}.\n{report}"
        )


def pooling_head(spec: AdapterSpec, chosen: Path | None) -> MapHead:
    """The head from the chosen vision file, or from the first in models/clip_vision that has one of this width."""
    found = [path for path in vision_paths() if head_width(path) == spec.encoder_dim] if chosen is None else [chosen]
    if not found:
        raise AdapterError(
            f"This adapter ({spec.label}) needs the pooling head of {spec.encoder}, and no .safetensors file in "
            f"models/clip_vision holds it. {how_to_get(spec)}"
        )
    head = load_map_head(found[0])
    if head.width != spec.encoder_dim:
        raise AdapterError(
            f"{found[0].name} has a pooling head of width {head.width}, but this adapter ({spec.label}) reads width "
            f"{spec.encoder_dim}: choose the file of {spec.encoder}."
        )
    return head


def adapters() -> list[str]:
    """The files in models/realrag_adapters, then those that come with RealRAG."""
    shipped = [name for name, family in SHIPPED.items() if adapter_file(family).is_file()]
    return [*folder_paths.get_filename_list(ADAPTERS), *shipped]


def _path(name: str) -> Path:
    if name in SHIPPED:
        return check_there(adapter_file(SHIPPED[name]))
    return listed_file(ADAPTERS, name, f"models/{ADAPTERS}")
