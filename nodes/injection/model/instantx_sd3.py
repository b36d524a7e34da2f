"""InstantX references in SD3.5: a branch beside each attention, its tokens made anew for each noise level."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....realrag.adapters import instantx_sd3
from ....realrag.injection.combine import per_token
from ..inputs.base_model import BaseModel
from ..inputs.controls import Controls, RowGroup, pick
from .blocks import Place
from .injection import Active, Injection, ModelCall
from .sigma_cache import SigmaCache


class InstantXInjection(Injection):
    """Tokens depend on the noise level, so the adapter is loaded with the generator and asked in each model call."""

    def __init__(self, base: BaseModel, controls: Controls, managed, features: list[Tensor]):
        """managed: .adapter and .patcher. features: (1, L, E) of each reference."""
        super().__init__(base, controls)
        self.managed, self.cache = managed, SigmaCache()
        self.features = torch.cat(features).float().cpu()  # (N, L, E), read once in each model call
        managed.adapter.spec.check_features(self.features)

    def models(self) -> list:
        return [self.managed.patcher]

    def unload(self) -> None:
        super().unload()
        self.cache.clear()

    def start(self, call: ModelCall) -> ActiveInstantX | None:
        acting = self.groups(call, len(self.features), blanks=True)
        if not acting:
            return None
        norms = qk_norms(call.net)
        if norms is None:
            call.obstacle = "the attention of its blocks has no ln_q and ln_k where ComfyUI's has them"
            return None
        self.cache.begin(call.sigma)
        return ActiveInstantX(self, norms, acting, call)


@dataclass(eq=False)
class ActiveInstantX(Active):
    injection: InstantXInjection
    norms: list[tuple]
    groups: list[RowGroup]
    call: ModelCall
    sides: dict[bool, tuple[Tensor, Tensor]] = field(default_factory=dict)  # blank? -> what `tokens` gives

    def wants(self, kind: str, index: int) -> bool:
        return kind == "double_block" and self.injection.amount(kind, index) != 0

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        if place.number:
            return
        block, image, adapter = place.block.index, place.image, self.injection.managed.adapter
        q, k = (instantx_sd3.raw(x[:, :, image], norm) for x, norm in zip((q, k), self.norms[block], strict=True))
        v = v[:, :, image]
        count = len(self.injection.features)
        for group in self.groups:
            k_ref, v_ref = self.keys_values(group.blank, block, v)

            def branch(chosen, bias, group=group, k_ref=k_ref, v_ref=v_ref):
                picks = [group.picks[i] for i in chosen]
                shown = (pick(t, picks, count) for t in (k_ref, v_ref))
                tokens = per_token(bias, k_ref.shape[2] // count)
                return adapter.branch(block, q[group.rows], k[group.rows], v[group.rows], *shown, tokens)

            self.injection.add(place, group.mixer(branch), out[group.rows, image])

    def keys_values(self, blank: bool, block: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(1, H, N * T, D) of all references at this noise level, in the precision of `like`."""

        def make() -> tuple[Tensor, Tensor]:
            made = self.injection.managed.adapter.keys_values(*self.tokens(blank), block)
            return tuple(tensor.to(like) for tensor in made)

        return self.injection.cache.get((self.call.sigma, blank, block, like.dtype), make)

    def tokens(self, blank: bool) -> tuple[Tensor, Tensor]:
        """Tokens (1, N * T, W) and time (1, C); worked out once a call, and only if some block has to be."""
        if blank not in self.sides:
            hidden = self.injection.features.to(self.call.x.device)
            hidden = torch.zeros_like(hidden) if blank else hidden
            timestep = (self.call.t.flatten()[:1] * 1000).float().expand(len(hidden))
            tokens, time = self.injection.managed.adapter.tokens(hidden, timestep)
            self.sides[blank] = tokens.flatten(0, 1)[None], time[:1]
        return self.sides[blank]


def qk_norms(net: torch.nn.Module) -> list[tuple] | None:
    """The weights of SD3's ln_q and ln_k in each block, only read; a weight is None where the base normalizes nothing.

    None where another pack has exchanged the blocks for its own, which keep them elsewhere.
    """
    try:
        norms = [(block.x_block.attn.ln_q, block.x_block.attn.ln_k) for block in net.joint_blocks]
    except AttributeError:
        return None
    return [tuple(getattr(norm, "weight", None) for norm in pair) for pair in norms]
