"""How references get into a running model: nothing of it is replaced, and nothing stays on it.

`attach` puts two things on a clone of the MODEL: an immutable Injection in a patch list of our own (where ComfyUI finds
the tensors to move and the models to load), and one wrapper round each model call (and one round each step's prompts,
which only tells the call their areas). The wrapper works out what holds for the whole call, then lays its blocks round
the model's blocks (and round whatever other plugins laid there) in a copy of the call's options. So the order of nodes
does not matter, and clones and deep copies carry everything along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....realrag.adapters.attention import split_heads
from ....realrag.injection.combine import balance
from ....realrag.injection.profiles import factors
from ....realrag.injection.token_grid import Cut
from ..inputs.base_model import BaseModel
from ..inputs.controls import Controls, RowGroup, groups, in_window, on_grid
from .area_prompts import cuts_of, tell_areas
from .watchdog import judge_call, judge_windows

KEY = "realrag"
OVERRIDE = "optimized_attention_override"


class PromptRows(NamedTuple):
    """The rows of a model call that belong to one prompt."""

    positive: bool
    rows: slice
    cut: Cut | None = None  # its part of the latent, None for all of it


@dataclass
class ModelCall:
    """One call of the generator: what every block of it shares."""

    base: BaseModel
    net: torch.nn.Module  # the generator's network, only read
    run: object  # the generator without any wrapper: run(x, t, c_concat, c_crossattn, control, options, **kwargs)
    x: Tensor  # (rows, C, h, w), rows = chunks of cond_or_uncond, each a batch
    t: Tensor  # (rows,) sigma
    sigma: float
    context: Tensor | None
    kwargs: dict
    options: dict
    chunks: list[PromptRows]
    n_image: int
    sampling: object = None  # the model's schedule, for windows in percent
    n_text: int = 0  # learnt from the first block
    entered: int = 0  # blocks of ours that were run
    reached: int = 0  # attention calls that came by
    replacements: list = field(default_factory=list)  # other plugins' hooks that we lie round


class Active(Protocol):
    """An injection at work during one model call."""

    def wants(self, kind: str, index: int) -> bool: ...
    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """q, k, v (rows, H, L, D) as the model's attention got them; may change `out` (rows, L, H*D) in place."""

    def after_block(self, place: Place, image: Tensor) -> Tensor: ...


class Injection:
    """What an artist asked for: made once when the node runs, never changed afterwards."""

    uses_single = True  # do references enter the single blocks, where the generator has some?

    def __init__(self, base: BaseModel, controls: Controls):
        self.base, self.controls, self.strength = base, controls, controls.strength
        single = base.single if self.uses_single else 0
        self.factors = factors(self.strength.profile, base.double, single, self.strength.custom)
        self._grids: dict[tuple, Tensor] = {}  # masks on the grids met so far

    def __deepcopy__(self, memo):
        return self

    def in_window(self, sigma: float, sampling) -> bool:
        return self.strength.acts_at(sigma, sampling)

    def acts(self, sigma: float, sampling) -> bool:
        """Does any reference count at this noise level?"""
        alive = (own.weight > 0 and in_window(own.start, own.end, sigma, sampling) for own in self.controls.settings)
        return self.in_window(sigma, sampling) and (not self.controls.settings or any(alive))

    def groups(self, call: ModelCall, count: int, blanks: bool = False) -> list[RowGroup]:
        """Who acts on which rows of this call: see `controls.groups`."""
        return groups(self, call, count, blanks)

    def amount(self, kind: str, index: int) -> float:
        """Strength in one block, 0 where the references stay out of it."""
        number = index + (self.base.double if kind == "single_block" else 0)
        return self.strength.weight * self.factors[number] if number < len(self.factors) else 0.0

    def scaled(self, place: Place, added: Tensor, own: Tensor) -> Tensor:
        """What these references add in this block; `own`: the block's own attention on the same rows, for balance."""
        added = self.amount(place.block.kind, place.block.index) * added
        return balance(added, own, self.controls.balance) if self.controls.balance > 0 else added

    def token_masks(self, picks: tuple[int, ...], call: ModelCall, cut: Cut | None) -> Tensor | None:
        """(len(picks), L) on this call's grid of image tokens, or None where no picked reference has a mask."""
        settings = [self.controls.of(i) for i in picks]
        if all(own.mask is None for own in settings):
            return None
        key = picks, tuple(call.x.shape[-2:]), cut, call.x.device
        if key not in self._grids:
            rows = [on_grid(own, call.x.shape, self.base.patch, cut) for own in settings]
            self._grids[key] = torch.stack(rows).to(call.x.device)
        return self._grids[key]

    def start(self, call: ModelCall) -> Active | None:
        raise NotImplementedError

    def models(self) -> list:
        """Model patchers that ComfyUI loads together with the generator."""
        return []

    def to(self, where) -> Injection:
        """ComfyUI moves what hangs on a model with it; called with a device, and again with a dtype."""
        return self


class DeviceTensors:
    """Tensors that follow the generator from device to device. A dtype is ignored: an fp8 model would ruin them."""

    def __init__(self, tensors: list[Tensor]):
        self.tensors = tensors

    def to(self, where) -> None:
        if not isinstance(where, torch.dtype):
            self.tensors = [tensor.to(where) for tensor in self.tensors]


def attach(model, injection: Injection):
    """A clone of the MODEL with this injection added to those it already has."""
    patched = model.clone()
    patched.set_model_patch(injection, KEY)
    if not patched.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, run_with_references)
        patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, tell_areas)
    return patched


def run_with_references(
    executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
):
    """The wrapper round every model call. Where no injection is at work, the call goes through untouched."""
    options = transformer_options if transformer_options is not None else {}
    asked = dict.fromkeys(options.get("patches", {}).get(KEY, ()))  # each once, however options were merged
    sigma = float(t.flatten()[0]) if asked and KEY not in options else None
    if sigma is not None:
        judge_windows(list(asked), options, executor.class_obj.model_sampling)
    asked = [i for i in asked if sigma is not None and i.in_window(sigma, executor.class_obj.model_sampling)]
    if not asked:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    call = ModelCall(
        base=asked[0].base, net=executor.class_obj.diffusion_model, run=executor.original, x=x, t=t, sigma=sigma,
        context=c_crossattn, kwargs=kwargs, options=options,
        chunks=chunks_of(options, x.shape[0]), n_image=asked[0].base.image_tokens(x.shape),
        sampling=executor.class_obj.model_sampling,
    )  # fmt: skip
    actives = [active for injection in asked if (active := injection.start(call)) is not None]
    if not actives:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    output = executor(x, t, c_concat, c_crossattn, control, with_blocks(options, call, actives), **kwargs)
    judge_call(asked, call)
    return output


def chunks_of(options: dict, rows: int) -> list[PromptRows]:
    """cond_or_uncond [1, 0] and 4 rows -> negative rows 0-1, positive rows 2-3."""
    kinds = options.get("cond_or_uncond", [0])
    size = rows // len(kinds)
    places = enumerate(zip(kinds, cuts_of(options), strict=True))
    return [PromptRows(kind == 0, slice(i * size, (i + 1) * size), cut) for i, (kind, cut) in places]


def with_blocks(options: dict, call: ModelCall, actives: list[Active]) -> dict:
    """A copy of the call's options in which our blocks lie round the model's."""
    replace = dict(options.get("patches_replace", {}))
    blocks = replace["dit"] = dict(replace.get("dit", {}))
    for where in call.base.blocks:
        here = [active for active in actives if active.wants(*where)]
        if here:
            call.replacements += [blocks[where]] if blocks.get(where) is not None else []
            blocks[where] = InjectedBlock(*where, blocks.get(where), call, here)
    return {**options, "patches_replace": replace, KEY: True}


@dataclass
class InjectedBlock:
    """Stands where ComfyUI looks for a block's replacement and calls the previous one, or the block itself."""

    kind: str
    index: int
    previous: object | None
    call: ModelCall
    actives: list[Active]

    def __call__(self, args: dict, extra: dict) -> dict:
        self.call.entered += 1
        if "txt" in args:
            self.call.n_text = args["txt"].shape[1]
        options = dict(args["transformer_options"])
        options[OVERRIDE] = place = Place(self, args.get("pe"), options.get(OVERRIDE))
        args = {**args, "transformer_options": options}
        out = self.previous(args, extra) if self.previous is not None else extra["original_block"](args)
        for active in self.actives:
            out = {**out, "img": active.after_block(place, out["img"])}
        return out


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

    def __call__(self, func, q, k, v, *args, **kwargs):
        if self.previous is not None:
            out = self.previous(func, q, k, v, *args, **kwargs)
        else:
            out = func(q, k, v, *args, **kwargs)
        self.number += 1
        heads = kwargs["heads"] if "heads" in kwargs else args[0]
        if not kwargs.get("skip_reshape"):
            q, k, v = (split_heads(tensor, heads) for tensor in (q, k, v))
        # The first call is the joint one, [text; image]. SD3.5 Medium then has a second one of the image alone.
        self.n_before = self.call.n_text if self.number == 0 else 0
        if q.shape[2] < self.n_before + self.call.n_image or out.ndim != 3 or self.number > 1:
            return out
        self.mask = kwargs.get("mask")
        self.call.reached += 1
        out = out.clone()
        self.untouched = self.previous is None
        for active in self.block.actives:
            active.attention(self, q, k, v, out)
            self.untouched = False
        return out
