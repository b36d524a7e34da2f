"""CLIP and SigLIP (2) in transformers' format, one safetensors file or a folder, as an Encoder: what artists already have in
ComfyUI's models/clip_vision."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import EncoderError
from ..files import sha256_file
from .base import Encoder, weights_sha256
from .transformers_files import (
    CONFIG,
    PIXELS,
    WEIGHTS,
    build,
    config_of,
    pixels_of,
    preprocess_of,
    read_json,
    read_tensors,
    weight_files,
)
from .transformers_layout import OPENAI_FILES, TEXT, VISION, read_layout
from .transformers_tokenizer import TextTokens

log = logging.getLogger(__name__)


class TransformersEncoder(Encoder):
    """A CLIP or SigLIP of transformers.

    path: model.safetensors with both towers or the vision tower alone, or a folder with it. config.json,
    preprocessor_config.json and tokenizer files beside it count where they are of this model. Without a text tower
    `has_text_tower` is False, and a library is searched by picture only.
    """

    kind = "transformers"
    image_prefixes = ("vision.", "visual_projection.")
    portable = False

    def __init__(self, path: Path, name: str = ""):
        super().__init__()
        path = Path(path)
        folder = path if path.is_dir() else path.parent
        files = weight_files(path)
        self.name = name or (path.resolve().name if path.is_dir() else path.stem)
        tensors = read_tensors(files)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        config = read_json(folder / CONFIG)
        try:
            self.layout = layout = read_layout(shapes, config)
        except EncoderError as error:
            raise EncoderError(f"{path}: {error}") from None
        if layout.notes and not _is_openais(files[0]):
            for note in layout.notes:
                log.warning("%s has no config.json that fits it: %s.", files[0].name, note)
        tuned = (config or {}).get("realrag_tuned")
        self.tuned = tuned if isinstance(tuned, dict) else {}
        self.has_text_tower = layout.text is not None
        self.configuration, self.dim = layout.describe(), layout.dim
        of_this = layout.configured or path.is_dir()
        pixels = read_json(folder / PIXELS) if of_this else None
        self.preprocess = preprocess_of(layout, pixels)
        self._tokens = TextTokens(layout, folder, of_this) if self.has_text_tower else None
        self.vision, self.text, self.visual_projection, self.text_projection = build(layout)
        _load(self, tensors, path)
        self.eval()
        if not self.has_text_tower:
            log.warning("%s has no text tower: its libraries are searched by picture, not by words.", self.name)

    def named_weights(self) -> dict[str, Tensor]:
        """The weights under the names of a whole model's file, which do not change with the version of transformers."""
        names = ((name, name.partition(".")) for name in self.state_dict())
        prefix = {"vision": VISION, "text": TEXT}
        renamed = {
            name: f"{prefix[first]}{rest.removeprefix(prefix[first])}" if first in prefix else name
            for name, (first, _, rest) in names
        }
        return {renamed[name]: tensor for name, tensor in self.state_dict().items()}

    @cached_property
    def weights_sha256(self) -> str:
        return weights_sha256(self.named_weights())

    @cached_property
    def image_fingerprint(self) -> str:
        return self._identity(weights_sha256(self.named_weights(), (VISION, "visual_projection.")))

    def _images(self, x: Tensor) -> Tensor:
        return self.visual_projection(self.vision(pixel_values=x).pooler_output)

    def _texts(self, texts: list[str]) -> Tensor:
        if self.text is None or self._tokens is None:
            raise EncoderError(
                f"The encoder {self.name} has no text tower: its libraries are searched by picture, not by words. Give a "
                "picture and no prompt, or index with an encoder that has both towers."
            )
        return self.text_projection(self.text(input_ids=self._tokens(texts).to(self.place[0])).pooler_output)

    def describe(self) -> dict:
        return super().describe() | {"configuration": self.configuration}

    def save_pretrained(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: _compact(tensor.detach()) for name, tensor in self.named_weights().items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        config = config_of(self.layout) | ({"realrag_tuned": dict(self.tuned)} if self.tuned else {})
        (folder / CONFIG).write_bytes(json.dumps(config, indent=1, sort_keys=True).encode())
        (folder / PIXELS).write_bytes(json.dumps(pixels_of(self.preprocess), indent=1, sort_keys=True).encode())
        if self._tokens:
            self._tokens.save(folder)
        return sorted(path for path in folder.iterdir() if path.is_file())


def _compact(tensor: Tensor) -> Tensor:
    """In half precision where that loses nothing: most files come in it."""
    half = tensor.half()
    return (half if torch.equal(half.to(tensor.dtype), tensor) else tensor).clone().contiguous()


def _is_openais(path: Path) -> bool:
    """Whether a file is one whose activation and tokenizer are known by its hash."""
    known = OPENAI_FILES.get(path.stat().st_size)
    return known is not None and sha256_file(path) == known


def _load(encoder: TransformersEncoder, tensors: dict[str, Tensor], path: Path) -> None:
    """Put the tensors in, by their canonical names, and refuse a file that lacks one or has more."""
    wanted = dict(zip(encoder.named_weights(), encoder.state_dict(), strict=True))
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.named_weights().items()}
    wrong = [name for name in shapes if name not in tensors or tuple(tensors[name].shape) != shapes[name]]
    unused = (
        []
        if encoder.has_text_tower
        else [name for name in tensors if name.startswith(("text_model.", "text_projection."))]
    )
    more = sorted(set(tensors) - set(shapes) - set(unused))
    if wrong or more:
        raise EncoderError(
            f"{path} is not the {encoder.layout.family.upper()} that its first tensors promise: {len(wrong)} tensors are "
            f"missing or of another shape{_some(wrong)}, {len(more)} are unknown{_some(more)}. Download it again."
        )
    encoder.load_state_dict({wanted[name]: tensors[name].float() for name in wanted}, strict=True, assign=True)
    for module in encoder.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta and name == "position_ids":
                module.register_buffer(name, torch.arange(buffer.shape[-1]).expand(1, -1), persistent=False)
    encoder.requires_grad_(False)


def _some(names: list[str]) -> str:
    return f" (such as {names[0][:80]})" if names else ""
