"""References that reach the model through its CONDITIONING: tokens behind the text, or values in its table.

A CONDITIONING is a list of [text (B, L, C), table]; what comes in is never changed.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def windowed(before: list, after: list, start: float, end: float) -> list:
    """`after` between two shares of the sampling and `before` outside, each within its own range if it has one."""
    if start <= 0 and end >= 1:
        return after
    parts = ((after, start, end), (before, 0.0, start), (before, end, 1.0))
    entries = []
    for conditioning, begin, stop in parts:
        for text, table in conditioning:
            own = max(begin, table.get("start_percent", 0.0)), min(stop, table.get("end_percent", 1.0))
            if own[0] < own[1]:
                entries.append([text, {**table, "start_percent": own[0], "end_percent": own[1]}])
    return entries
