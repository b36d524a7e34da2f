"""Flux InstantX at work: its formula on the queries of ComfyUI's double and single blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat

from ..realrag.adapters import instantx_flux
from ..realrag.adapters.attention import unrotate
from .base_model import Base
from .patch import Held, Injection, ModelCall, Place


class InstantXFluxInjection(Injection):
    """Keys and values do not depend on time: baked when the node runs, so 5 GB of adapter need not stay loaded."""

    def __init__(
        self, base: Base, adapter: instantx_flux.InstantXFluxAdapter, pooled: list[Tensor], legacy: bool = False, **dials
    ):
        """pooled: (1, E) of each reference, on the device where the adapter's work is to be done."""
        super().__init__(base, **dials)
        tokens = adapter.tokens(cat(pooled).float())
        self.held = Held(
            [
                tensor.cpu()
                for block in range(base.double + base.single)
                for tensor in adapter.keys_values(tokens, block, base.heads, legacy)
            ]
        )

    def to(self, where) -> InstantXFluxInjection:
        self.held.to(where)
        return self

    def start(self, call: ModelCall) -> ActiveInstantXFlux | None:
        return ActiveInstantXFlux(self.held.tensors, self.strength) if call.positive else None


@dataclass(eq=False)
class ActiveInstantXFlux:
    baked: list[Tensor]  # k, v of block 0, k, v of block 1, ... the double blocks first (1, H, T, D)
    strength: float
    text_rows: bool = True  # as published: in single blocks the text sees the references too

    def wants(self, kind: str, index: int) -> bool:
        return True

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        block, single = place.block, place.block.kind == "single_block"
        number = block.index + (place.call.base.double if single else 0)
        k_ref, v_ref = (t.to(q) for t in self.baked[2 * number :][:2])
        seeing = slice(0, place.image.stop) if single and self.text_rows else place.image
        q = unrotate(q[:, :, seeing], None if place.pe is None else place.pe[:, :, seeing])
        for rows in place.call.positive:
            out[rows, seeing] += (self.strength * instantx_flux.branch(q[rows], k_ref, v_ref)).to(out)

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        return image
