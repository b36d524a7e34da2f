"""The vision model that an adapter needs, found in models/clip_vision and loaded when it is first asked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import comfy.clip_vision
import folder_paths
from safetensors import SafetensorError

from ...realrag.adapters.spec import AdapterSpec
from ...realrag.adapters.vision_files import fitting, how_to_get
from ...realrag.artifact import what_file_is
from ...realrag.encoders.load import load_encoder
from ...realrag.encoders.small import SMALL
from ...realrag.errors import AdapterError, RealRAGError, brief
from ..retrieval.clip_vision import RetrieverVision, ShippedEncoder

FOLDER = "clip_vision"
ASKED_OF_ALL = ("patcher", "get_models")


class FoundVision:
    """A CLIP_VISION that reads its file when somebody uses it: a graph with a loader of its own pays nothing."""

    weights_sha256 = ""  # not known: published adapters do not name it

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def loaded(self):
        if other := what_file_is(self.path):
            raise AdapterError(f"{self.path.name} is not a vision model: {other}")
        try:
            model = comfy.clip_vision.load(str(self.path))
        except SafetensorError as error:
            raise AdapterError(f"{self.path.name} is damaged ({brief(error)}). Download it again.") from error
        if model is None:
            raise AdapterError(f"ComfyUI cannot read {self.path.name} as a vision model. Fetch the file again.")
        return model

    def encode_image(self, *args, **kwargs):
        return self.loaded.encode_image(*args, **kwargs)

    def __getattr__(self, name: str):
        """Other packs reach for the parts of ComfyUI's own class. What ComfyUI asks of every output of every node, to manage
        memory, is there once the model is loaded: such a question must not load it, and an error there ends the server's
        only worker."""
        if name.startswith("__") or name == "loaded" or (name in ASKED_OF_ALL and "loaded" not in vars(self)):
            raise AttributeError(name)
        return getattr(self.loaded, name)


def vision_paths() -> list[Path]:
    return [Path(folder_paths.get_full_path_or_raise(FOLDER, name)) for name in folder_paths.get_filename_list(FOLDER)]


def find_vision(spec: AdapterSpec, chosen: Path | None = None) -> tuple[object | None, str]:
    """A CLIP_VISION for this adapter, or None; and a sentence on which file it is, or which to fetch.

    chosen: the file that the artist named.
    """
    if spec.encoder_sha256:
        return shipped_vision(spec)
    if chosen is not None:
        return FoundVision(chosen), f"Vision model: {chosen.name}, as chosen."
    found = fitting(spec, vision_paths())
    if not found:
        return None, f"No vision model for this adapter. {how_to_get(spec)}"
    others = f" Others that fit: {', '.join(path.name for path in found[1:])}." if found[1:] else ""
    return FoundVision(found[0]), f"Vision model: {found[0].name}, known by its content.{others}"


def shipped_vision(spec: AdapterSpec) -> tuple[object | None, str]:
    """For an adapter that names its encoder by hash."""
    try:
        encoder = load_encoder(SMALL)
    except RealRAGError:
        encoder = None
    vision = None if encoder is None else RetrieverVision(ShippedEncoder(encoder))
    if vision is not None and spec.encoder_sha256 in (vision.weights_sha256, vision.plain_sha256):
        return vision, f"Vision model: {spec.encoder}, which comes with RealRAG."
    return None, f"No vision model for this adapter. {spec.cure}"
