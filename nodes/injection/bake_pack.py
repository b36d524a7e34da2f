"""From an image encoder's features to an injection: baked once, kept in a pack if wanted, laid round the model."""

from __future__ import annotations

import comfy.model_management as management
from torch import Tensor, cat

from ...realrag.errors import AdapterError
from ...realrag.injection.reference_pack import (
    FEATURES,
    KEYS_VALUES,
    PackedReference,
    PackMetadata,
    ReferencePack,
    weights_sha256,
)
from .inputs import encode_references
from .inputs.base_model import BaseModel
from .inputs.controls import Controls, counted
from .load_adapter import ManagedAdapter
from .model.instantx_flux import InstantXFluxInjection
from .model.instantx_sd3 import InstantXInjection
from .model.patch import Injection
from .model.xlabs import XLabsInjection

# Families whose keys and values do not depend on the noise level, so that all that is needed can be baked.
BAKED = {"flux-xlabs": XLabsInjection, "flux-instantx": InstantXFluxInjection}


def bake(base: BaseModel, managed: ManagedAdapter, features: list[Tensor]) -> list[Tensor]:
    """k, v of each block in turn; or the features as they are, where keys and values depend on the noise level."""
    family = BAKED.get(managed.adapter.spec.family)
    if family is None:
        return features
    management.load_models_gpu([managed.patcher])
    options = {"legacy": managed.legacy} if family is InstantXFluxInjection else {}
    return family.bake(base, managed.adapter, encode_references.on_device(features), **options)


def injected(base: BaseModel, controls: Controls, family: str, tensors: list[Tensor], count: int, managed) -> Injection:
    """The injection of what `bake` gave for `count` references."""
    if family in BAKED:
        return BAKED[family](base, controls, tensors, count)
    return InstantXInjection(base, controls, managed, tensors)


def make_pack(base: BaseModel, managed: ManagedAdapter, images: list[Tensor], clip_vision, references, half: bool):
    """Everything that Inject References would need of these references."""
    spec = managed.adapter.spec
    if spec.family not in BAKED and spec.family != "sd35-instantx":
        raise AdapterError(
            f"{spec.label} goes with the prompt and has nothing to pack. Packs are for Flux XLabs, Flux InstantX and "
            "SD3.5 InstantX."
        )
    spec.check_base(base.family, base.name, base.width, base.double + base.single * spec.single_blocks)
    tensors = bake(base, managed, encode_references.features(spec, clip_vision, images, managed.head))
    items = [PackedReference(item.credit(), item.score, item.settings) for item in getattr(references, "items", ())]
    items += [PackedReference(f"own picture {i}") for i in range(1, len(images) - len(items) + 1)]
    baked = spec.family in BAKED
    if not baked:
        tensors = [cat(tensors)]
    metadata = PackMetadata(
        KEYS_VALUES if baked else FEATURES, spec.family, spec.label, weights_sha256(managed.adapter.state_dict()),
        spec.encoder, base.family, base.width, base.heads, base.double, base.single, len(tensors) // 2 if baked else 0,
    )  # fmt: skip
    kept = tuple(tensor.detach().cpu().bfloat16() if half else tensor.detach().cpu().float() for tensor in tensors)
    return ReferencePack(metadata, tuple(items), kept)


def from_pack(
    base: BaseModel, controls: Controls, pack: ReferencePack, managed: ManagedAdapter | None
) -> tuple[Injection, str]:
    """The injection of a pack, and a report."""
    metadata = pack.metadata
    metadata.check_base(base)
    if metadata.kind == FEATURES:
        spec = getattr(getattr(managed, "adapter", None), "spec", None)
        if spec is None or spec.family != metadata.family:
            raise AdapterError(
                f"This reference pack still needs its adapter ({metadata.label}), which works anew at each noise "
                "level: connect it to adapter. CLIP Vision is not needed."
            )
        spec.check_base(base.family, base.name, base.width, base.double)
    elif metadata.family not in BAKED:
        raise AdapterError(f"This reference pack is of the kind {metadata.label}, which this version does not know.")
    tensors = [tensor.float() for tensor in pack.tensors]
    injection = injected(base, controls, metadata.family, tensors, len(pack), managed)
    need = "" if metadata.kind == FEATURES else ", no adapter in memory"
    return injection, f"Reference pack: {metadata.label}, {counted(len(pack))}{need}."
