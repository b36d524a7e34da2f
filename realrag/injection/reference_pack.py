"""A reference pack: what an adapter made of some references, in one safetensors file, to be used without the photos.

For adapters that do not depend on the noise level it holds keys and values, so neither adapter nor image encoder is
needed again; for the others it holds the image encoder's features, so the adapter still is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from .. import artifact
from ..adapters.spec import check_values
from ..errors import AdapterError, QueryError, RealRAGError
from ..files import canonical_json
from ..validation import strict_json
from .reference_settings import ReferenceSettings

FORMAT, VERSION = "realrag-reference-pack", "1"
WHAT, CURE = "a reference pack", "Save it again with Save Reference Pack."
KEYS_VALUES, FEATURES = "keys-values", "features"
MOST = 1024  # references in one pack


@dataclass(frozen=True)
class PackMetadata:
    """What a pack was made of and for."""

    kind: str  # KEYS_VALUES or FEATURES
    family: str  # of the adapter
    label: str
    adapter: str  # sha256 of its weights
    encoder: str  # the image encoder in words
    base: str  # the generator's family, "flux" or "sd3"
    width: int
    heads: int
    double: int
    single: int
    blocks: int  # those with keys and values: 0 in a FEATURES pack

    def check_base(self, base) -> None:
        """Refuse a generator for which the pack was not made. base: family, width, heads, double, single, name."""
        own, found = ((x.family if x is base else x.base, x.width, x.heads, x.double, x.single) for x in (self, base))
        if own != found:
            raise AdapterError(
                f"This reference pack ({self.label}) was made for a {self.base} model with {self.double} double and "
                f"{self.single} single blocks of width {self.width}, but the model is {base.name} with {base.double} "
                f"and {base.single} of width {base.width}. Load that model, or save the pack anew with this one."
            )


@dataclass(frozen=True)
class PackedReference:
    """A reference without its picture: title and credit to show, score and settings to act on."""

    title: str
    score: float = 0.0
    settings: ReferenceSettings = ReferenceSettings()


@dataclass(frozen=True, eq=False)
class ReferencePack:
    """tensors: k, v of each block in turn, (1, H, N * T, D); or features, (N, L, E)."""

    metadata: PackMetadata
    items: tuple[PackedReference, ...]
    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.items)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """One hash over names, precisions, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_pack(pack: ReferencePack, path: Path) -> str:
    """Write the file whole or not at all; returns the hash of what is in it."""
    weights, notes = _prepared(pack)
    artifact.write(path, weights, notes)
    return notes["sha256"]


def is_saved(pack: ReferencePack, path: Path) -> bool:
    """Does this file hold this very pack?"""
    try:
        metadata = artifact.read_header(path, WHAT, CURE).metadata
    except RealRAGError:
        return False
    return metadata.get("sha256") == _prepared(pack)[1]["sha256"]


def _prepared(pack: ReferencePack) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the notes beside them."""
    named = zip(_names(pack.metadata), pack.tensors, strict=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in named}
    items = []
    for i, item in enumerate(pack.items):
        own = {key: value for key, value in vars(item.settings).items() if key != "mask"}
        items.append({"title": item.title, "score": item.score, **own})
        if item.settings.mask is not None:  # cloned: references may share one mask, files may not
            weights[f"masks.{i}"] = item.settings.mask.detach().float().cpu().contiguous().clone()
    about = canonical_json({"facts": asdict(pack.metadata), "items": items}).decode()
    return weights, {"format": FORMAT, "version": VERSION, "about": about, "sha256": _content(weights, about)}


def open_pack(path: Path) -> ReferencePack:
    """Read and check a pack whole; AdapterError where the file is no pack, of another version, or damaged."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} is no reference pack: a pack is a .safetensors file.")
    weights, notes = artifact.read(path, FORMAT, VERSION, WHAT, CURE, error=AdapterError)
    if notes.get("sha256") != _content(weights, notes.get("about", "")):
        raise AdapterError(f"{path.name} is damaged: its content does not match its hash. {CURE}")
    check_values(weights)
    try:
        return _build(strict_json(notes["about"].encode()), weights)
    except (KeyError, TypeError, ValueError, AttributeError, QueryError) as error:
        raise AdapterError(f"{path.name} is no reference pack that fits together ({error}). {CURE}") from error


def _names(metadata: PackMetadata) -> list[str]:
    if metadata.kind == FEATURES:
        return ["features"]
    return [f"blocks.{i}.{name}" for i in range(metadata.blocks) for name in "kv"]


def _content(weights: Mapping[str, Tensor], about: str) -> str:
    return hashlib.sha256(f"{weights_sha256(weights)}|{about}".encode()).hexdigest()


def _build(about: dict, weights: dict[str, Tensor]) -> ReferencePack:
    """Every fact of its type, every tensor there with the shape that the metadata asks for, and no other."""
    metadata = PackMetadata(**about["facts"])
    for field in fields(PackMetadata):
        value = getattr(metadata, field.name)
        right = type(value) is {"str": str, "int": int}[str(field.type)]
        if not right or (isinstance(value, int) and not 0 <= value < 1 << 20):
            raise ValueError(f"{field.name} is {value!r}")
    count, names = len(about["items"]), _names(metadata)
    masks = {f"masks.{i}" for i in range(count)} & set(weights)
    if (
        metadata.kind not in (KEYS_VALUES, FEATURES)
        or not 0 < count <= MOST
        or not metadata.heads
        or metadata.blocks > 1024
    ):
        raise ValueError(f"kind {metadata.kind!r}, {count} references, {metadata.heads} heads")
    if set(weights) != set(names) | masks or not names:
        raise ValueError(f"its tensors are {sorted(weights)[:4]}")
    first = weights[names[0]]
    if metadata.kind == FEATURES:
        right = first.ndim == 3 and len(first) == count
    else:
        rows = first.shape[2] if first.ndim == 4 else 0
        shape = (1, metadata.heads, rows, metadata.width // metadata.heads)
        right = rows > 0 and rows % count == 0 and all(weights[name].shape == shape for name in names)
    if not right:
        raise ValueError(f"{names[0]} has shape {tuple(first.shape)}")
    items = []
    for i, item in enumerate(about["items"]):
        item = dict(item)
        title, score = str(item.pop("title")), float(item.pop("score"))
        if not math.isfinite(score) or type(item["negative"]) is not bool:
            raise ValueError(f"reference {i + 1} has the score {score} and the flag {item['negative']!r}")
        items.append(PackedReference(title, score, ReferenceSettings(**item, mask=weights.get(f"masks.{i}"))))
    return ReferencePack(metadata, tuple(items), tuple(weights[name] for name in names))
