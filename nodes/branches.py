"""Adapters at work: the formulas of `realrag.adapters` on the queries, keys and values of ComfyUI's own blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..realrag.adapters import instantx_sd3, xlabs
from ..realrag.adapters.attention import unrotate
from .base_model import Base
from .patch import Held, Injection, ModelCall, Place


class XLabsInjection(Injection):
    """Keys and values do not depend on time: baked when the node runs, so the adapter need not stay loaded."""

    def __init__(self, base: Base, adapter: xlabs.XLabsAdapter, embeds: list[Tensor], **dials):
        """embeds: (1, E) of each reference, on the device where the adapter's work is to be done."""
        super().__init__(base, **dials)
        tokens = adapter.tokens(torch.cat(embeds).float())
        baked = [adapter.keys_values(tokens, block, base.heads) for block in range(base.double)]
        self.held = Held([tensor.cpu() for pair in baked for tensor in pair])

    def to(self, where) -> XLabsInjection:
        self.held.to(where)
        return self

    def start(self, call: ModelCall) -> ActiveXLabs | None:
        return ActiveXLabs(self.held.tensors, self.strength) if call.positive else None


@dataclass(eq=False)
class ActiveXLabs:
    baked: list[Tensor]  # k, v of block 0, k, v of block 1, ... (1, H, T, D)
    strength: float

    def wants(self, kind: str, index: int) -> bool:
        return kind == "double_block"

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        k_ref, v_ref = (t.to(q) for t in self.baked[2 * place.block.index :][:2])
        q = unrotate(q[:, :, place.image], place.image_pe)
        place.notes[self] = [
            (rows, self.strength * xlabs.branch(q[rows], k_ref, v_ref)) for rows in place.call.positive
        ]

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        """At the very end of the block, after its MLP, with no gate."""
        added = place.notes.get(self, ())
        image = image.clone() if added else image
        for rows, delta in added:
            image[rows, : place.call.n_image] += delta.to(image)
        return image


class InstantXInjection(Injection):
    """Tokens depend on the noise level, so the adapter is loaded with the generator and asked in each model call."""

    def __init__(self, base: Base, managed, features: list[Tensor], **dials):
        """managed: .adapter and .patcher. features: (1, L, E) of each reference."""
        super().__init__(base, **dials)
        self.managed = managed
        self.held = Held([torch.cat(features).float().cpu()])
        managed.adapter.spec.check_features(self.held.tensors[0])

    def models(self) -> list:
        return [self.managed.patcher]

    def to(self, where) -> InstantXInjection:
        self.held.to(where)
        return self

    def start(self, call: ModelCall) -> ActiveInstantX:
        features = self.held.tensors[0].to(call.x.device)
        adapter, sides = self.managed.adapter, {}
        for positive in {is_positive for is_positive, _ in call.chunks}:
            hidden = features if positive else torch.zeros_like(features)
            tokens, time = adapter.tokens(hidden, (call.t.flatten()[:1] * 1000).float().expand(len(hidden)))
            sides[positive] = tokens.flatten(0, 1)[None], time[:1]
        return ActiveInstantX(adapter, qk_norms(call.net), sides, self.strength)


@dataclass(eq=False)
class ActiveInstantX:
    adapter: instantx_sd3.InstantXAdapter
    norms: list[tuple]
    sides: dict[bool, tuple[Tensor, Tensor]]  # positive? -> tokens (1, N*T, W) and time (1, C)
    strength: float

    def wants(self, kind: str, index: int) -> bool:
        return kind == "double_block"

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        block, image = place.block.index, place.image
        q, k = (instantx_sd3.raw(x[:, :, image], norm) for x, norm in zip((q, k), self.norms[block], strict=True))
        v = v[:, :, image]
        reference = {side: self.adapter.keys_values(*tokens, block) for side, tokens in self.sides.items()}
        for positive, rows in place.call.chunks:
            delta = self.adapter.branch(block, q[rows], k[rows], v[rows], *reference[positive])
            out[rows, image] += (self.strength * delta).to(out)

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        return image


def qk_norms(net: torch.nn.Module) -> list[tuple]:
    """The weights of SD3's ln_q and ln_k in each block, read only; None where the base normalises nothing."""
    norms = [(block.x_block.attn.ln_q, block.x_block.attn.ln_k) for block in net.joint_blocks]
    return [tuple(getattr(norm, "weight", None) for norm in pair) for pair in norms]
