"""Which rows of a model call belong to which prompt, which picture of the batch and which part of it.

Everything is read off the prompts themselves and off the latent, never off a position or a count: guiders call their
prompts in any order, several at once or one by one, and tilers batch pieces of the picture as they like.

`Sampling` knows how the guider names its prompts, `Step` what one step is made of, and `rows_of` puts both together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....realrag.injection.token_grid import Cut

KEY = "realrag"  # of what travels in a call's options
POSITIVE, NEGATIVE, NEUTRAL = "positive", "negative", "neutral"
MOST_DRAWS = 64  # of the noise, in search of the number of a latent that was taken out of a batch


@dataclass(frozen=True, eq=False)
class PromptRows:
    """Rows of a model call, one after another, that belong to one prompt."""

    side: str  # POSITIVE, NEGATIVE, or NEUTRAL for the empty prompt that some guiders measure from
    rows: slice
    latents: tuple[int, ...]  # for each row its picture's number in the batch
    cut: Cut | None = None  # its part of the latent, None for all of it
    prompt: Hashable = None  # equal for all rows of one prompt


@dataclass(frozen=True, eq=False)
class Prompt:
    """One entry of a step's prompts."""

    key: Hashable
    side: str
    context: Tensor | None  # (1 or B, L, C), its text
    cut: Cut | None
    size: tuple[int, int]  # height and width of the latent that the model is given


@dataclass(frozen=True, eq=False)
class Step:
    """What the prompts of one step are evaluated on."""

    x: Tensor  # (B, C, h, w)
    latents: tuple[int, ...]
    prompts: dict[Hashable, Prompt]
    sampling: Sampling | None = None

    def __deepcopy__(self, memo):
        return self


class Sampling:
    """One run of a sampler: who guides it, and which pictures of a batch it makes."""

    def __init__(self, guider, noise: Tensor, seed: int | None, numbered: bool):
        """numbered: does anybody ask which picture of a batch a latent is?"""
        self.guider, self.size, self.count = guider, tuple(noise.shape[-2:]), len(noise)
        self.numbers = numbers_of(noise, seed) if numbered else tuple(range(self.count))

    def __deepcopy__(self, memo):
        return self

    def step(self, conds: Sequence, x: Tensor, options: dict) -> Step:
        """conds: lists of prompts, as a guider asks for them."""
        window, whole, corner = options.get("context_window"), self.size, (0, 0)
        numbers = self.numbers if self.count == x.shape[0] else range(x.shape[0])
        if (indices := list(getattr(window, "index_list", ()))) and x.ndim == 4:
            dim, anchor = getattr(window, "dim", 0), getattr(window, "causal_anchor_index", None)
            indices = [anchor, *indices] if anchor is not None and anchor >= 0 else indices  # as core cuts it
            if dim == 0 and len(indices) == x.shape[0]:
                numbers = [self.numbers[i % self.count] for i in indices]
            if dim in (2, 3) and indices == list(range(indices[0], indices[0] + len(indices))):
                corner = (indices[0], 0) if dim == 2 else (0, indices[0])
        return Step(x, tuple(numbers), prompts_of(conds, sides_of(conds, self.guider), x, whole, corner), self)


def step_of(conds: Sequence, x: Tensor, options: dict) -> Step:
    """The step that is about to be evaluated; where no guider has begun a sampling, prompts go by their position."""
    sampling = options.get(KEY)
    if isinstance(sampling, Step):  # somebody asks again inside a step
        sampling = sampling.sampling
    if sampling is not None:
        return sampling.step(conds, x, options)
    sides = sides_of(conds, None)
    return Step(x, tuple(range(x.shape[0])), prompts_of(conds, sides, x, tuple(x.shape[-2:]), (0, 0)))


def prompts_of(
    conds: Sequence, sides: list[str], x: Tensor, whole: tuple[int, ...], corner: tuple[int, int]
) -> dict[Hashable, Prompt]:
    """Each entry by the place of its list and its own name: core gives a copy with another's area that one's name."""
    found = {}
    for place, (entries, side) in enumerate(zip(conds, sides, strict=True)):
        for entry in entries or ():
            area, size = entry.get("area") or (), tuple(x.shape[-2:])
            cut = Cut(whole, corner) if whole != size else None
            if len(area) == 4:
                size = tuple(int(side) for side in area[:2])
                cut = Cut(whole, (corner[0] + int(area[2]), corner[1] + int(area[3])))
            context = getattr(entry.get("model_conds", {}).get("c_crossattn"), "cond", None)
            key = place, entry.get("uuid")
            found[key] = Prompt(key, side, context, cut, size)
    return found


def sides_of(conds: Sequence, guider) -> list[str]:
    """For each list of prompts its side, by the name under which the guider keeps it."""
    named = {name: entries for name, entries in (getattr(guider, "conds", None) or {}).items() if entries}
    found = [None if not entries else name_of(entries, named) for entries in conds]
    if all(name is None for name in found) and (not named or len(conds) > 1):
        return [POSITIVE, *[NEGATIVE] * (len(conds) - 1)]  # core's own order
    return [NEUTRAL if name is None else side_of(name) for name in found]


def name_of(entries: list, named: dict[str, list]) -> str | None:
    """The guider's name of these prompts: the very list, a copy of it, a part of it, or prompts of the same text."""
    own = Counter(entry.get("uuid") for entry in entries)
    texts = {id(entry.get("cross_attn")) for entry in entries} - {id(None)}

    def uuids(name: str) -> Counter:
        return Counter(entry.get("uuid") for entry in named[name])

    same = [name for name in named if named[name] is entries]
    same += [name for name in named if uuids(name) == own]
    same += [name for name in named if own <= uuids(name)]
    same += [name for name in named if texts and texts <= {id(entry.get("cross_attn")) for entry in named[name]}]
    return next(iter(same), None)


def side_of(name: str) -> str:
    """The side of a prompt that a guider calls by this name. Several prompts may be positive ones."""
    name = name.lower()
    if "empty" in name or "null" in name:
        return NEUTRAL
    return NEGATIVE if "neg" in name or "uncond" in name else POSITIVE


def numbers_of(noise: Tensor, seed: int | None) -> tuple[int, ...]:
    """The number of each latent in its batch. Core hands the sampler no `batch_index`, but draws the noise by it: the
    first latent gets the first draw of the seed, and so on. Noise of another source: 0, 1, 2, ..."""
    import comfy.sample

    counted = tuple(range(len(noise)))
    if seed is None or noise.is_nested or noise.ndim != 4:
        return counted
    with torch.random.fork_rng(devices=[]):  # core draws from the one generator that everybody uses
        drawn = comfy.sample.prepare_noise(torch.zeros_like(noise[:1], device="cpu"), seed, list(range(MOST_DRAWS)))
    rows = noise.detach().to(drawn)
    found = [next((n for n, draw in enumerate(drawn) if torch.equal(draw, row)), None) for row in rows]
    return counted if None in found else tuple(found)


def rows_of(options: dict, x: Tensor, context: Tensor | None) -> list[PromptRows]:
    """The rows of one model call. x (rows, C, h, w), context (rows, L, C)."""
    places = options.get("cond_or_uncond", [0])
    step = options.get(KEY)
    if not isinstance(step, Step) or not step.prompts:
        return by_position(places, x.shape[0])
    keys = list(zip(places, options.get("uuids", [None] * len(places)), strict=False))
    asked = [step.prompts[key] for key in keys if key in step.prompts]
    batch = step.x.shape[0]
    usual = len(asked) == len(places) and x.shape[0] == batch * len(places)
    if usual and all(prompt.size == tuple(x.shape[-2:]) for prompt in asked):
        return [
            PromptRows(prompt.side, slice(i * batch, (i + 1) * batch), step.latents, prompt.cut, prompt.key)
            for i, prompt in enumerate(asked)
        ]
    return by_content(step, asked or list(step.prompts.values()), x, context) or by_position(places, x.shape[0])


def by_position(places: Sequence[int], rows: int) -> list[PromptRows]:
    """Core's own order, where nothing else is known: list 0 is positive, all of one size."""
    size = rows // len(places)
    return [
        PromptRows(
            POSITIVE if place == 0 else NEGATIVE, slice(i * size, (i + 1) * size), tuple(range(size)), None, (place, i)
        )
        for i, place in enumerate(places)
    ]


def by_content(step: Step, prompts: list[Prompt], x: Tensor, context: Tensor | None) -> list[PromptRows]:
    """Each row by its text and by the part of the latent that it shows: another pack batches the calls its own way.

    [] where a row has the text of none of these prompts.
    """
    known = [
        p for p in prompts if p.context is not None and context is not None and p.context[0].shape == context.shape[1:]
    ]
    if not known:
        return []
    same = torch.stack([(context == p.context[:1].to(context)).flatten(1).all(1) for p in known], 1).tolist()
    found: list[PromptRows] = []
    for row, fits in enumerate(same):
        if not any(fits):
            return []
        prompt = known[fits.index(True)]
        latent, corner = locate(step.x, x[row])
        cut = None if corner is None or x.shape[-2:] == step.x.shape[-2:] else Cut(tuple(step.x.shape[-2:]), corner)
        number = step.latents[row % len(step.latents) if latent is None else latent]
        found.append(PromptRows(prompt.side, slice(row, row + 1), (number,), cut, prompt.key))
    return found


def locate(whole: Tensor, piece: Tensor) -> tuple[int | None, tuple[int, int] | None]:
    """Where in `whole` (B, C, H, W) the piece (C, h, w) was cut out: the number of the latent and the corner.

    (None, None) where it is in none of them, value for value.
    """
    height, width = piece.shape[-2:]
    if height > whole.shape[-2] or width > whole.shape[-1]:
        return None, None
    starts = (whole == piece[:, :1, :1].to(whole)).all(1)
    for number, top, left in starts.nonzero().tolist():
        part = whole[number, :, top : top + height, left : left + width]
        if part.shape == piece.shape and torch.equal(part, piece.to(whole)):
            return number, (top, left)
    return None, None
