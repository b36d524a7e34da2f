"""The artist's controls at work: which references act on which rows of a model call, and how much in which block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ....realrag.errors import AdapterError
from ....realrag.injection.combine import MODES, Mixer
from ....realrag.injection.profiles import FLAT
from ....realrag.injection.reference_settings import ReferenceSettings
from ....realrag.injection.token_grid import Cut, token_mask

POSITIVE, BOTH = "positive", "both"
ALL, ONE, CYCLE = "all", "one per latent", "cycle"
APPLY_TO, BATCHES = (POSITIVE, BOTH), (ALL, ONE, CYCLE)


@dataclass(frozen=True)
class Strength:
    """How much references count, when in the sampling, and in which blocks of the model."""

    weight: float = 1.0  # the adapter as it was trained; 0 leaves the model alone
    start: float = 0.0  # fractions of the sampling: all of it
    end: float = 1.0
    profile: str = FLAT  # the same in every block
    custom: str = ""  # the numbers of a custom profile

    def acts_at(self, sigma: float, sampling) -> bool:
        return in_window(self.start, self.end, sigma, sampling)


@dataclass(frozen=True, eq=False)
class Controls:
    """All that the artist sets. The defaults: every reference equally, everywhere, in one softmax."""

    strength: Strength = Strength()
    settings: tuple[ReferenceSettings, ...] = ()  # of each reference; () where all are plain
    combine: str = MODES[0]
    apply_to: str = POSITIVE
    batch: str = ALL
    text_rows: bool = True  # where a family lets the prompt's rows see the references: let it?
    balance: float = 0.0  # most of RMS(added) / RMS(the block's own attention); 0 is off

    def __post_init__(self):
        chosen = {"combine": MODES, "apply_to": APPLY_TO, "batch": BATCHES}
        for name, known in chosen.items():
            if (value := getattr(self, name)) not in known:
                raise AdapterError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")
        if not (math.isfinite(self.balance) and self.balance >= 0):
            raise AdapterError(f"balance is {self.balance:g}; it must be 0 (off) or more.")

    def of(self, i: int) -> ReferenceSettings:
        return self.settings[i] if i < len(self.settings) else ReferenceSettings()

    def shown(self, count: int) -> list[int]:
        """The references that go with a prompt, where there are no rows to choose: not the negative, not weight 0."""
        return [i for i in range(count) if self.of(i).weight > 0 and not self.of(i).negative]

    def changed(self) -> dict[str, object]:
        """The settings that differ from their defaults, by their labels."""
        usual = Controls()
        found = {} if self.strength.profile == FLAT else {"profile": self.strength.profile}
        for label in ("combine", "apply to", "batch", "balance", "text rows"):
            name = label.replace(" ", "_")
            if getattr(self, name) != getattr(usual, name):
                found[label] = getattr(self, name)
        return found

    @property
    def plain(self) -> bool:
        """Does every reference act equally, everywhere, at any time, on the positive prompt alone?"""
        return (
            all(own == ReferenceSettings() and own.mask is None for own in self.settings)
            and (self.combine, self.apply_to, self.batch, self.balance) == (MODES[0], POSITIVE, ALL, 0)
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows of one model call on which the same references act in the same way."""

    rows: slice
    picks: tuple[int, ...]  # numbers of the references
    mixer: Mixer
    prompt: object = None  # equal for all rows of one prompt
    blank: bool = False  # empty hidden states stand in their places (the negative side of SD3.5 InstantX)

    @property
    def masked(self) -> bool:
        return self.mixer.masks is not None


def counted(references: int) -> str:
    return f"{references} reference{'s' * (references != 1)}"


def groups(injection, call, count: int, blanks: bool = False) -> list[RowGroup]:
    """Who acts where in this call; nobody, where no reference is in its own window.

    blanks: rows of the negative prompt without references of their own get blank ones in the positive ones' places.
    """
    controls, sampling, found = injection.controls, call.sampling, []
    settings = [controls.of(i) for i in range(count)]
    wanted = [i for i in range(count) if not settings[i].negative]
    unwanted = [i for i in range(count) if settings[i].negative]
    for part in call.parts:
        own = wanted if part.side == "positive" or controls.apply_to == BOTH else []
        own = own + unwanted if part.side == "negative" else own
        blank = blanks and not own
        for rows, shown in _by_latent(controls.batch, wanted if blank else own, part):
            live = tuple(
                i
                for i in shown
                if settings[i].weight > 0 and in_window(settings[i].start, settings[i].end, call.sigma, sampling)
            )
            if live:
                masks = injection.token_masks(live, call, part.cut)
                weights = [settings[i].weight for i in live]
                mixer = Mixer(controls.combine, weights, masks, call.x.device)
                found.append(RowGroup(rows, live, mixer, part.prompt, blank))
    return found


def _by_latent(batch: str, references: list[int], part) -> list[tuple[slice, list[int]]]:
    """The rows of one prompt, each with those of its references that count for its picture of the batch."""
    if batch == ALL:
        return [(part.rows, references)]
    count, found = len(references), []
    for row, number in enumerate(part.latents, part.rows.start):
        if references and (batch == CYCLE or number < count):
            found.append((slice(row, row + 1), [references[number % count]]))
    return found


def in_window(start: float, end: float, sigma: float, sampling) -> bool:
    """Percent 0 is pure noise, 1 the clean picture, on the model's own schedule; an open end is open."""
    begun = start <= 0 or sigma <= float(sampling.percent_to_sigma(start))
    return begun and (end >= 1 or sigma >= float(sampling.percent_to_sigma(end)))


def on_grid(own: ReferenceSettings, latent_shape, patch: int, cut: Cut | None = None) -> Tensor:
    """(L,) of one reference on the grid of image tokens."""
    height, width = latent_shape[-2:]
    if own.mask is None:
        return torch.ones(-(-height // patch) * -(-width // patch))
    return token_mask(own.mask, height, width, patch, cut)


def pick(stacked: Tensor, picks: tuple[int, ...] | list[int], count: int) -> Tensor:
    """(1, H, count * T, D) of all references -> that of the picked ones, side by side."""
    if list(picks) == list(range(count)):
        return stacked
    parts = stacked.chunk(count, 2)
    return torch.cat([parts[i] for i in picks], 2)
