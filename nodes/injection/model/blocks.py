"""Blocks of ours around the model's blocks, for one model call each. None of the model's code is copied or replaced."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....realrag.adapters.attention import split_heads
from ....realrag.errors import AdapterError
from .injection import Active, ModelCall
from .watchdog import INSTEAD, cause

OVERRIDE = "optimized_attention_override"


def with_blocks(options: dict, call: ModelCall, actives: list[Active]) -> dict:
    """A copy of the call's options in which our blocks lie around the model's.

    Every block gets one in every call, also where nothing acts: a compiler that saw one call meets the same in the
    next.
    """
    replace = dict(options.get("patches_replace", {}))
    blocks = replace["dit"] = dict(replace.get("dit", {}))
    for where in call.base.blocks:
        call.replacements += [blocks[where]] if blocks.get(where) is not None else []
        blocks[where] = InjectedBlock(
            *where, blocks.get(where), call, [active for active in actives if active.wants(*where)]
        )
    return {**options, "patches_replace": replace}


@dataclass(eq=False)
class InjectedBlock:
    """Stands where ComfyUI looks for a block's replacement, and calls the previous one or the block itself."""

    kind: str
    index: int
    previous: object | None
    call: ModelCall
    actives: list[Active]

    def __deepcopy__(self, memo):
        return self

    @torch.compiler.disable  # with all inside: what was compiled with references would be taken for what has none
    def __call__(self, args: dict, extra: dict | None = None) -> dict:
        self.call.entered += 1
        for active in self.actives:
            active.prepare()
        if args.get("txt") is not None:
            self.call.n_text = args["txt"].shape[1]
        place = None
        if args.get("transformer_options") is not None:  # without them nobody can reach the attention
            options = dict(args["transformer_options"])
            options[OVERRIDE] = place = Place(self, args.get("pe"), options.get(OVERRIDE))
            args = {**args, "transformer_options": options}
        out = self.inner(args, extra)
        for active in self.actives if place is not None and place.notes else ():
            out = {**out, "img": active.after_block(place, out["img"])}
        return out

    def inner(self, args: dict, extra: dict | None) -> dict:
        if self.previous is not None:
            return self.previous(args, extra)
        if extra is None or "original_block" not in extra:
            raise AdapterError(f"The references cannot be used: {cause(self.call)} {INSTEAD}")
        return extra["original_block"](args)


@dataclass(eq=False)
class Place:
    """One block in one model call, and the attention override that acts inside it."""

    block: InjectedBlock
    pe: Tensor | None
    previous: object | None
    number: int = -1  # of the attention call within the block
    n_before: int = 0  # rows in front of the image's
    mask: Tensor | None = None
    untouched: bool = True  # is `out` the plain attention of q, k and v so far?
    notes: dict = field(default_factory=dict)  # what an Active keeps from `attention` to `after_block`

    def __deepcopy__(self, memo):
        return self

    @property
    def call(self) -> ModelCall:
        return self.block.call

    @property
    def key(self) -> tuple[str, int, int]:
        return self.block.kind, self.block.index, self.number

    @property
    def image(self) -> slice:
        """The rows of the picture being made: no text, no Kontext tokens behind it."""
        return slice(self.n_before, self.n_before + self.call.n_image)

    @property
    def image_pe(self) -> Tensor | None:
        return None if self.pe is None else self.pe[:, :, self.image]

    @torch.compiler.disable
    def __call__(self, func, q, k, v, *args, **kwargs):
        if self.previous is not None:
            out = self.previous(func, q, k, v, *args, **kwargs)
        else:
            out = func(q, k, v, *args, **kwargs)
        self.number += 1
        if not self.block.actives or self.number > 1 or self.call.n_text is None:
            return out
        heads = kwargs.get("heads", args[0] if args else self.call.base.heads)
        if not kwargs.get("skip_reshape") and q.ndim == 3:
            q, k, v = (split_heads(tensor, heads) for tensor in (q, k, v))
        # The first call is the joint one, [text; image]. SD3.5 Medium then has a second one of the image alone.
        self.n_before = self.call.n_text if self.number == 0 else 0
        if q.ndim != 4 or q.shape[2] < self.image.stop or out.ndim != 3:
            return out
        self.mask = kwargs.get("mask", args[1] if len(args) > 1 else None)
        self.call.reached += 1
        self.untouched = self.previous is None
        if not self.untouched or out.requires_grad:  # what core's attention gives belongs to its caller alone
            out = out.clone()
        for active in self.block.actives:
            active.attention(self, q, k, v, out)
            self.untouched = False
        return out
