"""Flux InstantX at work: its formula on the queries of ComfyUI's double and single blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat

from ....realrag.adapters import instantx_flux
from ....realrag.adapters.attention import unrotate
from ....realrag.injection.combine import per_token
from ..inputs.base_model import BaseModel
from ..inputs.controls import Controls, RowGroup, pick
from .blocks import Place
from .injection import Active, DeviceTensors, Injection, ModelCall


class InstantXFluxInjection(Injection):
    """Keys and values do not depend on time: baked when the node runs, so 5 GB of adapter need not stay loaded."""

    def __init__(self, base: BaseModel, controls: Controls, baked: list[Tensor], count: int):
        """baked: k, v of block 0, k, v of block 1, ..., the double blocks first (1, H, count * T, D), from `bake`."""
        super().__init__(base, controls)
        self.baked, self.count = DeviceTensors(baked), count

    @staticmethod
    def bake(base: BaseModel, adapter: instantx_flux.InstantXFluxAdapter, pooled: list[Tensor], legacy: bool = False):
        """pooled: (1, E) of each reference, on the device where the adapter's work is to be done."""
        tokens = adapter.tokens(cat(pooled).float())
        blocks = range(base.double + base.single)
        return [t.cpu() for block in blocks for t in adapter.keys_values(tokens, block, base.heads, legacy)]

    def end_sampling(self) -> None:
        super().end_sampling()
        self.baked.release()

    def start(self, call: ModelCall) -> ActiveInstantXFlux | None:
        acting = self.groups(call, self.count)
        return ActiveInstantXFlux(self, acting) if acting else None


@dataclass(eq=False)
class ActiveInstantXFlux(Active):
    injection: InstantXFluxInjection
    groups: list[RowGroup]

    def wants(self, kind: str, index: int) -> bool:
        return self.injection.amount(kind, index) != 0

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        block, single, count = place.block, place.block.kind == "single_block", self.injection.count
        number = block.index + (place.call.base.double if single else 0)
        k_ref, v_ref = (t.to(q) for t in self.injection.baked.on(q.device)[2 * number :][:2])
        q = unrotate(q, place.pe)
        for group in self.groups:
            # As published, the prompt's rows see the references too in single blocks. A mask says where in the picture,
            # and the prompt is nowhere in it.
            text = single and self.injection.controls.text_rows and not group.masked
            seeing = slice(0, place.image.stop) if text else place.image

            def branch(chosen, bias, group=group, seeing=seeing):
                picks = [group.picks[i] for i in chosen]
                shown = (pick(t, picks, count) for t in (k_ref, v_ref))
                return instantx_flux.branch(q[group.rows, :, seeing], *shown, per_token(bias, k_ref.shape[2] // count))

            self.injection.add(place, group.mixer(branch), out[group.rows, seeing])
