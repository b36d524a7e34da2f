"""Save and Load Reference Pack: what an adapter made of references, as a file in models/realrag_packs."""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ...realrag.errors import AdapterError, BundleError
from ...realrag.files import safe_join
from ...realrag.injection.reference_pack import is_saved, open_pack, save_pack
from ..compat import supported_keywords
from ..folders import PACKS, file_stamp, listed_file
from ..input_check import checked
from ..sockets import AdapterSocket, PackSocket, ReferencesSocket
from .bake_pack import make_pack
from .inputs import encode_references
from .inputs.base_model import base_of
from .load_adapter import ManagedAdapter

FULL, HALF = "full", "half"


class SaveReferencePack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_SaveReferencePack",
            display_name="Save Reference Pack",
            category="RealRAG",
            description="Saves what an adapter makes of references, with their weights, masks and windows, to "
            "models/realrag_packs. Inject References can then do without the photos, CLIP Vision and (for Flux) the "
            "adapter.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that the pack is for. Only its size matters."),
                AdapterSocket.Input("adapter", tooltip="From Load Reference Adapter."),
                io.ClipVision.Input("clip_vision", tooltip="The image encoder of that adapter."),
                io.String.Input(
                    "name", default="my-references", tooltip="Letters a to z, digits, - and _. No folders, no suffix."
                ),
                io.Combo.Input(
                    "precision",
                    options=[FULL, HALF],
                    default=FULL,
                    tooltip="full gives exactly the same picture. half (bf16) is half the size.",
                ),
                io.Boolean.Input(
                    "overwrite", default=False, tooltip="Replace a pack of this name that holds something else."
                ),
                ReferencesSocket.Input("references", optional=True, tooltip="Photos from Retrieve Real References."),
                io.Image.Input("image", optional=True, tooltip="Pictures of your own."),
            ],
            outputs=[PackSocket.Output(display_name="pack", tooltip="For Inject References.")],
            **supported_keywords(io.Schema, search_aliases=["ipadapter embeds", "save embeds", "reference"]),
        )

    @classmethod
    @checked
    def execute(
        cls, model, adapter: ManagedAdapter, clip_vision, name: str, precision: str = FULL, overwrite: bool = False,
        references=None, image: Tensor | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        images = encode_references.pictures(references, image)
        if not images:
            note = getattr(references, "note", "")
            raise AdapterError(f"There are no references to pack. {note or 'Connect references or an image.'}")
        path = place(name)
        pack = make_pack(base_of(model), adapter, images, clip_vision, references, precision == HALF)
        if path.exists() and not overwrite:
            if is_saved(pack, path):
                return io.NodeOutput(pack)
            raise AdapterError(f"There is another pack named {name!r}. Choose another name, or switch overwrite on.")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_pack(pack, path)
        return io.NodeOutput(pack)


class LoadReferencePack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_LoadReferencePack",
            display_name="Load Reference Pack",
            category="RealRAG",
            description="Loads a pack from models/realrag_packs, made with Save Reference Pack.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=folder_paths.get_filename_list(PACKS),
                    tooltip="A file in models/realrag_packs. New files appear after pressing R.",
                )
            ],
            outputs=[
                PackSocket.Output(display_name="pack", tooltip="For Inject References."),
                io.String.Output(display_name="credits", tooltip="Who made the photos, and what is set for each."),
            ],
            **supported_keywords(io.Schema, search_aliases=["ipadapter embeds", "load embeds", "reference"]),
        )

    @classmethod
    def validate_inputs(cls, pack: str | None = None) -> bool | str:
        """Refuse an unlisted name before anything runs, as older versions do not. None: another node will give it."""
        if pack is None or pack in (there := folder_paths.get_filename_list(PACKS)):
            return True
        return (
            f"No pack named {str(pack)[:80]!r} in models/realrag_packs. There are: {', '.join(there)[:400] or 'none'}. Make one "
            "with Save Reference Pack, or put the file there, then press R."
        )

    @classmethod
    def fingerprint_inputs(cls, pack: str | None = None) -> tuple:
        """Load again when the file has changed."""
        return file_stamp(lambda: listed(pack))

    @classmethod
    @checked
    def execute(cls, pack: str) -> io.NodeOutput:
        opened = open_pack(listed(pack))
        lines = [
            f"{number}. {item.title}" + (f"  [{said}]" if (said := item.settings.describe()) else "")
            for number, item in enumerate(opened.items, 1)
        ]
        return io.NodeOutput(opened, "\n".join(lines))


def listed(name: str) -> Path:
    return listed_file(PACKS, name, f"models/{PACKS}")


def place(name: str) -> Path:
    """Where a pack of this name is saved: straight in the first folder of models/realrag_packs."""
    name = name.strip()
    try:
        if not re.fullmatch(r"[\w-]{1,80}", name):
            raise BundleError("no plain name")
        return safe_join(Path(folder_paths.get_folder_paths(PACKS)[0]), f"{name}.safetensors")
    except BundleError as error:
        raise AdapterError(
            f"{name[:100]!r} cannot be the name of a pack. Use letters a to z, digits, - and _, at most 80, without "
            "folders or a suffix."
        ) from error
