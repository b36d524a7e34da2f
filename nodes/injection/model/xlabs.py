"""Adapters at work: the formulas of `realrag.adapters` on the queries, keys and values of ComfyUI's own blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....realrag.adapters import xlabs
from ....realrag.adapters.attention import unrotate
from ....realrag.injection.combine import per_token
from ..inputs.base_model import BaseModel
from ..inputs.controls import Controls, RowGroup, pick
from .blocks import Place
from .injection import Active, DeviceTensors, Injection, ModelCall


class XLabsInjection(Injection):
    """Keys and values do not depend on time: baked when the node runs, so the adapter need not stay loaded."""

    uses_single = False

    def __init__(self, base: BaseModel, controls: Controls, baked: list[Tensor], count: int):
        """baked: k, v of block 0, k, v of block 1, ... (1, H, count * T, D), from `bake`."""
        super().__init__(base, controls)
        self.baked, self.count = DeviceTensors(baked), count

    @staticmethod
    def bake(base: BaseModel, adapter: xlabs.XLabsAdapter, embeds: list[Tensor]) -> list[Tensor]:
        """embeds: (1, E) of each reference, on the device where the adapter's work is to be done."""
        tokens = adapter.tokens(torch.cat(embeds).float())
        pairs = [adapter.keys_values(tokens, block, base.heads) for block in range(base.double)]
        return [tensor.cpu() for pair in pairs for tensor in pair]

    def end_sampling(self) -> None:
        super().end_sampling()
        self.baked.release()

    def start(self, call: ModelCall) -> ActiveXLabs | None:
        acting = self.groups(call, self.count)
        return ActiveXLabs(self, acting) if acting else None


@dataclass(eq=False)
class ActiveXLabs(Active):
    injection: XLabsInjection
    groups: list[RowGroup]

    def wants(self, kind: str, index: int) -> bool:
        return kind == "double_block" and self.injection.amount(kind, index) != 0

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        count = self.injection.count
        k_ref, v_ref = (t.to(q) for t in self.injection.baked.on(q.device)[2 * place.block.index :][:2])
        q = unrotate(q[:, :, place.image], place.image_pe)
        place.notes[self] = added = []
        for group in self.groups:

            def branch(chosen, bias, group=group):
                picks = [group.picks[i] for i in chosen]
                tokens = per_token(bias, k_ref.shape[2] // count)
                return xlabs.branch(q[group.rows], pick(k_ref, picks, count), pick(v_ref, picks, count), tokens)

            added.append((group.rows, *self.injection.scaled(place, group.mixer(branch), out[group.rows, place.image])))

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        """At the very end of the block, after its MLP, with no gate."""
        added = place.notes.get(self, ())
        if len(added) == 1 and added[0][1].shape == image.shape:  # every row: one pass over memory, and no copy first
            return torch.add(image, added[0][1].to(image), alpha=added[0][2])
        image = image.clone() if added else image
        for rows, delta, amount in added:
            image[rows, : place.call.n_image].add_(delta.to(image), alpha=amount)
        return image
