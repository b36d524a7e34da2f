"""A generator with an adapter at its blocks, by hooks alone: none of the generator's code is copied or replaced.

The formulas are those of the adapters' own files, so that what is trained is what ComfyUI injects later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..errors import RealRAGError
from . import Adapter, instantx_sd3, xlabs
from .attention import split_heads


class Base(Protocol):
    """A generator that predicts d x / d sigma on the straight line x = (1 - sigma) x_0 + sigma noise."""

    family: str  # "sd3" or "flux"
    name: str  # in words, as messages and the adapter file say it
    width: int
    heads: int
    blocks: int  # double (joint) ones

    @property
    def net(self) -> nn.Module:
        """Whose blocks the adapter is hooked to."""

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """x (B, C, h, w), sigma (B,), states (B, T, D), pooled (B, P) -> (B, C, h, w)"""


@dataclass(frozen=True)
class Site:
    """One block, as an adapter touches it: the modules whose outputs hold the picture's queries (SD3: raw queries, keys
    and values), and the module to whose input (SD3) or to which part of whose output (Flux) the branch is added."""

    sources: tuple[nn.Module, ...]
    read: Callable[[list[Tensor]], Sequence[Tensor]]  # outputs of the sources -> (B, H, L, D) each
    target: nn.Module
    part: int | None = None  # of the target's output; None: its input

    def attach(self, branch: Callable[..., Tensor | None]) -> None:
        """Call `branch` on what was read, each time the block runs, and add what it gives (B, L, W)."""
        seen = [torch.empty(0)] * len(self.sources)  # filled by the hooks before it is read

        def keep(place: int):
            def hook(module, args, out) -> None:
                seen[place] = out

            return hook

        def before(module, args):
            added = branch(*self.read(seen))
            return None if added is None else (args[0] + added.to(args[0]), *args[1:])

        def after(module, args, out):
            added = branch(*self.read(seen))
            if added is None:
                return None
            return tuple(x + added.to(x) if i == self.part else x for i, x in enumerate(out))

        for place, source in enumerate(self.sources):
            source.register_forward_hook(keep(place))
        if self.part is None:
            self.target.register_forward_pre_hook(before)
        else:
            self.target.register_forward_hook(after)


def sites_of(base: Base) -> list[Site]:
    """The sites of all double (joint) blocks, by diffusers' module names or by those of the published checkpoints."""
    net: Any = base.net  # its blocks are told by their names
    heads = base.heads

    def apart(outputs: list[Tensor]) -> list[Tensor]:
        return [split_heads(x, heads) for x in outputs]

    def fused(outputs: list[Tensor]) -> list[Tensor]:
        return [split_heads(x, heads) for x in outputs[0].chunk(3, -1)]

    if base.family == "sd3" and hasattr(net, "transformer_blocks"):
        parts = [block.attn for block in net.transformer_blocks]
        return [Site((attn.to_q, attn.to_k, attn.to_v), apart, attn.to_out[0]) for attn in parts]
    if base.family == "sd3" and hasattr(net, "joint_blocks"):
        parts = [block.x_block.attn for block in net.joint_blocks]
        return [Site((attn.qkv,), fused, attn.proj) for attn in parts]
    if base.family == "flux" and hasattr(net, "transformer_blocks"):
        blocks = net.transformer_blocks
        return [Site((b.attn.norm_q,), lambda seen: [seen[0].transpose(1, 2)], b, part=1) for b in blocks]
    if base.family == "flux" and hasattr(net, "double_blocks"):
        return [Site((b.img_attn.norm.query_norm,), list, b, part=0) for b in net.double_blocks]
    raise RealRAGError(
        f"{type(net).__name__} has blocks of unknown names. Known are diffusers' and the published ones."
    )


class Steered:
    """Call it like the generator, with an image encoder's features beside. Hooks stay on `base.net` as long as it
    lives.

    Without an adapter it is the generator. strength: of what the adapter adds, 0 is the generator alone. factors: on
    the strength, one for each block; None is 1 in all."""

    def __init__(
        self, base: Base, adapter: Adapter | None = None, strength: float = 1.0, factors: Sequence[float] | None = None
    ):
        self.base, self.adapter, self.strength, self.factors = base, adapter, strength, factors
        self._branches: Callable[..., Tensor] | None = None
        if adapter is None:
            return
        adapter.spec.check_base(base.family, base.name, base.width, base.blocks)
        for index, site in enumerate(sites_of(base)):
            site.attach(lambda *seen, index=index: self._branches and self._branches(index, *seen))

    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        states: Tensor,
        pooled: Tensor,
        features: Tensor | None = None,
        shown: Tensor | None = None,
        alone: Tensor | None = None,
    ) -> Tensor:
        """x (B, C, h, w) at noise levels sigma (B,), text states (B, T, D) and pooled (B, P) -> d x / d sigma (B, C, h,
        w).

        features: (B, L, E) of one reference a row, or (B, R, L, E) of R of them, which the picture sees side by side;
        None leaves the generator alone. shown: (B,) bool; where it is False the row is as the format has it without a
        reference: features of zeros with SD3, no branch at all with Flux. alone: (B,) bool; where it is True the
        generator is as without an adapter.
        """
        # With gradient checkpointing the blocks run again in the backward pass, so the branches stay until the next
        # call.
        self._branches = None if features is None or not self.strength else self._ready(sigma, features, shown, alone)
        return self.base.velocity(x, sigma, states, pooled)

    def _ready(
        self, sigma: Tensor, features: Tensor, shown: Tensor | None, alone: Tensor | None
    ) -> Callable[..., Tensor]:
        heads = self.base.heads

        def strength(index: int) -> float:
            return self.strength if self.factors is None else self.strength * self.factors[index]

        many = features.shape[1] if features.ndim == 4 else 1
        features = features.flatten(0, 1) if features.ndim == 4 else features

        def side_by_side(tokens):
            return tokens.unflatten(0, (-1, many)).flatten(1, 2)

        if self.base.family == "flux":
            adapter = cast(xlabs.XLabsAdapter, self.adapter)
            tokens = side_by_side(adapter.tokens(features))
            steered = shown if alone is None else ~alone if shown is None else shown & ~alone

            def flux(index: int, q: Tensor) -> Tensor:
                added = strength(index) * xlabs.branch(q, *adapter.keys_values_each(tokens, index, heads))
                return added if steered is None else added * steered[:, None, None].to(added)

            return flux
        if shown is not None:
            features = features * shown.repeat_interleave(many)[:, None, None].to(features)
        joint = cast(instantx_sd3.InstantXAdapter, self.adapter)
        tokens, time = joint.tokens(features, 1000 * sigma.repeat_interleave(many))
        tokens, time = side_by_side(tokens), time[::many]

        def sd3(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            added = strength(index) * joint.branch(index, q, k, v, *joint.keys_values(tokens, time, index))
            return added if alone is None else added * ~alone[:, None, None]

        return sd3
