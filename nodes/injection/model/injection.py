"""An injection: what an artist asked for, made once when the node runs and never changed while pictures are made."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....realrag.injection.combine import balance
from ....realrag.injection.profiles import factors
from ....realrag.injection.token_grid import Cut
from ..inputs.base_model import BaseModel
from ..inputs.controls import ALL, Controls, RowGroup, groups, in_window, on_grid
from .rows import PromptRows


@dataclass(eq=False)
class ModelCall:
    """One call of the generator: what every block of it shares."""

    base: BaseModel
    net: torch.nn.Module  # the generator's network, only read
    run: object  # the generator without any wrapper: run(x, t, c_concat, c_crossattn, control, options, **kwargs)
    x: Tensor  # (rows, C, h, w)
    t: Tensor  # (rows,) sigma
    sigma: float
    context: Tensor | None
    kwargs: dict
    options: dict
    parts: list[PromptRows]
    n_image: int  # tokens of the picture
    sampling: object = None  # the model's schedule, for windows in percent
    n_text: int | None = None  # tokens of the prompt, known from the first block on
    entered: int = 0  # blocks that were run through ours
    reached: int = 0  # attention calls that came by
    obstacle: str = ""  # why an injection could not work in this network
    replacements: list = field(default_factory=list)  # other plug-ins' hooks that ours call


class Active:
    """An injection at work during one model call. place: the block at work, a `blocks.Place`."""

    def wants(self, kind: str, index: int) -> bool:
        raise NotImplementedError

    def prepare(self) -> None:
        """Called before each block that it wants: what is worked out late, for a cache may skip the whole network."""

    def attention(self, place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """q, k, v (rows, H, L, D) as the model's attention got them; may change `out` (rows, L, H*D) in place."""
        raise NotImplementedError

    def after_block(self, place, image: Tensor) -> Tensor:
        """The image rows that the block hands on."""
        return image


class Injection:
    """References for one generator, with all that the artist set for them."""

    uses_single = True  # do references enter the single blocks, where the generator has some?

    def __init__(self, base: BaseModel, controls: Controls):
        self.base, self.controls, self.strength = base, controls, controls.strength
        single = base.single if self.uses_single else 0
        self.factors = factors(self.strength.profile, base.double, single, self.strength.custom)
        self._grids: dict[tuple, Tensor] = {}  # masks on the grids of one sampling

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

    def add(self, place, added: Tensor, own: Tensor) -> None:
        """Add in place what these references give in this block to `own`, its own attention on the same rows."""
        added, amount = self.scaled(place, added, own)
        own.add_(added.to(own), alpha=amount)

    def scaled(self, place, added: Tensor, own: Tensor) -> tuple[Tensor, float]:
        """What these references give in this block, and how much of it is to be added.

        own: the block's own attention on the same rows, which `balance` compares with.
        """
        amount = self.amount(place.block.kind, place.block.index)
        if self.controls.balance > 0:
            return balance(amount * added, own, self.controls.balance), 1.0
        return added, amount

    @property
    def numbered(self) -> bool:
        """Does it matter which picture of a batch a latent is?"""
        return self.controls.batch != ALL

    @property
    def masked(self) -> bool:
        return any(own.mask is not None for own in self.controls.settings)

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

    def end_sampling(self) -> None:
        """A sampling is over: nothing of it stays on the device."""
        self._grids.clear()

    def unload(self) -> None:
        """The generator leaves the device."""
        self.end_sampling()


class DeviceTensors:
    """Tensors in main memory, with a copy on the device for as long as a sampling needs it, in their own precision."""

    def __init__(self, tensors: list[Tensor]):
        self.tensors = tensors
        self._copies: dict[torch.device, list[Tensor]] = {}

    def on(self, device: torch.device) -> list[Tensor]:
        if all(tensor.device == device for tensor in self.tensors):
            return self.tensors
        if device not in self._copies:
            self._copies[device] = [tensor.to(device) for tensor in self.tensors]
        return self._copies[device]

    def release(self) -> None:
        self._copies.clear()
