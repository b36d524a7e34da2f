"""Vision models told by their content: which of some files is the image encoder that an adapter was trained with.

Only the header of a safetensors file is read: names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .siglip_pooling_head import HEAD
from .spec import AdapterSpec, Shapes

PATCHES = "vision_model.embeddings.patch_embedding.weight"  # (width, 3, p, p)
POSITIONS = "vision_model.embeddings.position_embedding.weight"  # (places, width)
PROJECTION = "visual_projection.weight"  # (embedding, width)
# Width of the adapter's features -> places of the published model: other sizes of the same width see other pictures.
PLACES = {768: 257, 1152: 729}  # CLIP ViT-L/14 at 224 pixels, SigLIP so400m/14 at 384
FETCH = {
    768: "clip-vit-large-patch14.safetensors: https://huggingface.co/openai/clip-vit-large-patch14 (model.safetensors)",
    1152: "siglip-so400m-patch14-384.safetensors: https://huggingface.co/google/siglip-so400m-patch14-384 "
    "(model.safetensors)",
}


@dataclass(frozen=True)
class VisionFile:
    """What a header says of a vision model."""

    width: int
    places: int
    embedding: int | None  # width of its image embedding, None where it has no projection
    head: int | None  # width of SigLIP's pooling head

    def serves(self, spec: AdapterSpec) -> bool:
        """Is this the image encoder of the adapter, as far as shapes tell?"""
        if self.places != PLACES.get(spec.encoder_dim, self.places):
            return False
        if spec.encoder_output == "image_embeds":
            return self.embedding == spec.encoder_dim
        if spec.encoder_output == "pooler_output":
            return self.head == spec.encoder_dim
        return self.embedding is None and self.width == spec.encoder_dim


def inspect_vision(shapes: Shapes) -> VisionFile | None:
    """None where the tensors are those of something else."""
    patches, positions = shapes.get(PATCHES, ()), shapes.get(POSITIONS, ())
    if len(patches) not in (2, 4) or len(positions) != 2:
        return None
    projection, probe = shapes.get(PROJECTION, ()), shapes.get(HEAD + "probe", ())
    return VisionFile(
        patches[0], positions[0], projection[0] if len(projection) == 2 else None,
        probe[-1] if len(probe) == 3 else None,
    )  # fmt: skip


def read_vision(path: Path) -> VisionFile | None:
    """None where the file is no vision model in safetensors form, or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            wanted = {PATCHES, POSITIONS, PROJECTION, HEAD + "probe"} & set(file.keys())
            return inspect_vision({key: tuple(file.get_slice(key).get_shape()) for key in wanted})
    except (SafetensorError, OSError, ValueError):
        return None


def fitting(spec: AdapterSpec, paths: Iterable[Path]) -> list[Path]:
    """Those of the files that hold the adapter's image encoder, in their order."""
    found: Mapping[Path, VisionFile | None] = {
        path: read_vision(path) for path in paths if path.suffix == ".safetensors"
    }
    return [path for path, vision in found.items() if vision is not None and vision.serves(spec)]


def how_to_get(spec: AdapterSpec) -> str:
    """Which file to fetch, from where, and where to put it."""
    what = FETCH.get(spec.encoder_dim, f"the vision model {spec.encoder}, as a .safetensors file")
    return f"Put {what} into models/clip_vision, then press R."
