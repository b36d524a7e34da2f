"""References that reach the model through its CONDITIONING: tokens behind the text, or values in its table.

A CONDITIONING is a list of [text (B, L, C), table]; what comes in is never changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ....realrag.errors import AdapterError
from ....realrag.injection.reference_settings import ReferenceSettings

MOST_PARTS = 8  # of the picture under different references: each is a run of the model in every step

Put = Callable[[list, list[int]], list]  # (CONDITIONING, numbers of references) -> a CONDITIONING with these in it


def with_tokens(conditioning: list, tokens: Tensor) -> list:
    """Put tokens (1, T, C) behind the text of every entry, and make room for them in an attention mask."""
    found = []
    for text, table in conditioning:
        longer = torch.cat((text, tokens.to(text).expand(len(text), -1, -1)), 1)
        found.append([longer, with_room(table, text.shape[1], tokens.shape[1])])
    return found


def with_room(table: dict, n_text: int, n_new: int) -> dict:
    """The mask (B, text + image, text + image) grown by tokens behind the text that everything may see."""
    mask = table.get("attention_mask")
    if mask is None:
        return table.copy()
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=torch.float16).masked_fill(~mask.cpu(), -torch.inf).to(mask.device)
    if mask.ndim == 3:
        size = mask.shape[-1] + n_new
        kept = [i for i in range(size) if not n_text <= i < n_text + n_new]
        grown = mask.new_zeros((len(mask), size, size))
        grown[:, torch.tensor(kept)[:, None], torch.tensor(kept)] = mask
        mask = grown
    return {**table, "attention_mask": mask, "attention_mask_img_shape": table.get("attention_mask_img_shape", (1, 1))}


def with_values(conditioning: list, key: str, values: list) -> list:
    """Append to a list in every entry's table, as core's nodes do."""
    return [[text, {**table, key: [*table.get(key, []), *values]}] for text, table in conditioning]


def with_references(
    conditioning: list, settings: dict[int, ReferenceSettings], put: Put, start: float = 0.0, end: float = 1.0
) -> list:
    """Each reference in its own part of the sampling, within `start` to `end`, and under its own mask.

    The sampling is cut where a reference comes or goes, the picture where masks differ, and each piece gets its own
    copy of the prompt, with the references that count there. Core averages the predictions under masks, and those of
    one prompt add up to 1 everywhere, so outside every mask the picture is that of the bare prompt.
    """
    whole, entries = (0.0, 1.0), []
    for begin, stop, alive in _stretches(settings, start, end):
        for numbers, mask in _parts({i: settings[i].mask for i in alive}):
            for text, table in put(conditioning, numbers) if numbers else conditioning:
                own = max(begin, table.get("start_percent", 0.0)), min(stop, table.get("end_percent", 1.0))
                if own[0] >= own[1]:
                    continue
                ranged = {} if (begin, stop) == whole else {"start_percent": own[0], "end_percent": own[1]}
                entries.append([text, {**_under(table, mask), **ranged}])
    return entries


def _stretches(
    settings: dict[int, ReferenceSettings], start: float, end: float
) -> list[tuple[float, float, list[int]]]:
    """(begin, stop, numbers of the references that count from one to the other), from 0 to 1 without a gap."""
    spans = {i: (max(start, own.start), min(end, own.end)) for i, own in settings.items()}
    spans = {i: span for i, span in spans.items() if span[0] < span[1]}
    cuts = sorted({0.0, 1.0, *(edge for span in spans.values() for edge in span)})
    found: list[tuple[float, float, list[int]]] = []
    for begin, stop in itertools.pairwise(cuts):
        alive = [i for i, (first, last) in spans.items() if first <= begin and stop <= last]
        if found and found[-1][2] == alive:
            begin = found.pop()[0]
        found.append((begin, stop, alive))
    return found


def _parts(masks: dict[int, Tensor | None]) -> list[tuple[list[int], Tensor | None]]:
    """Masks (H, W) of references -> (references, mask (1, H, W) or None for everywhere); the masks add up to 1.

    A reference's mask of 0.3 somewhere gives the prompt with it 0.3 of the say there, and that without it 0.7.
    """
    areas: list[tuple[Tensor, list[int]]] = []  # each different mask, with its references
    for i, mask in masks.items():
        if mask is None:
            continue
        if (same := next((numbers for area, numbers in areas if torch.equal(area, mask)), None)) is not None:
            same.append(i)
        else:
            areas.append((mask, [i]))
    if not areas:
        return [(list(masks), None)]
    size = max((area.shape for area, _ in areas), key=lambda shape: shape.numel())
    parts = [([i for i, mask in masks.items() if mask is None], torch.ones(1, *size))]
    for area, numbers in areas:
        inside = _resized(area[None].float().clamp(0, 1), size)
        halves = [(have + numbers, mask * inside) for have, mask in parts]
        halves += [(have, mask * (1 - inside)) for have, mask in parts]
        parts = [(sorted(have), mask) for have, mask in halves if mask.any()]
    if len(parts) > MOST_PARTS:
        raise AdapterError(
            f"The references' masks cut the picture into {len(parts)} parts, each of which would be a run of the model in "
            f"every step; at most {MOST_PARTS} are done. Give several references the same mask, or masks that overlap less."
        )
    return parts


def _under(table: dict, mask: Tensor | None) -> dict:
    """The table of an entry that counts under `mask` (1, H, W) only, and under its own mask where it has one."""
    if mask is None:
        return table.copy()
    own = table.get("mask")
    if own is not None:
        own = own[None] if own.ndim == 2 else own
        mask = own * _resized(mask, own.shape[-2:]).to(own)
    return {"set_area_to_bounds": False, "mask_strength": 1.0, **table, "mask": mask}


def _resized(mask: Tensor, size: torch.Size) -> Tensor:
    """(1, H, W) -> (1, *size) as core resizes masks: linear, so masks that add up to 1 still do."""
    return mask if mask.shape[-2:] == size else F.interpolate(mask[None], size=tuple(size), mode="bilinear")[0]
