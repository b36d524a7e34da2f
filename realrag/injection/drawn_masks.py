"""Masks that somebody drew for single photos, as a text that a workflow carries: `id:bits`, separated by commas or lines.

bits: base64 of 512 bytes, 64 x 64 bits from the upper left corner, row by row, the highest bit of a byte first. That is one
bit for each place at which a model of 1024 x 1024 pixels attends.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import QueryError

SIDE = 64
BYTES = SIDE * SIDE // 8
MOST = 1000  # masks in one text


def read_masks(text: str) -> dict[str, Tensor]:
    """Photo id -> (64, 64) float32, 1 where the photo counts. Raises QueryError."""
    entries = [entry.strip() for line in text.splitlines() for entry in line.split(",") if entry.strip()]
    if len(entries) > MOST:
        raise QueryError(
            f"masks holds {len(entries)} masks; at most {MOST} are read. Clear those that you do not need."
        )
    return dict(_read(entry) for entry in entries)


def _read(entry: str) -> tuple[str, Tensor]:
    id, colon, bits = entry.partition(":")
    try:
        data = base64.b64decode(bits.strip(), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not colon or len(data) != BYTES:
        raise QueryError(
            f"masks holds {entry[:40]!r}, which is no mask: a photo's id, a colon and {BYTES} bytes in base64. Draw it "
            "again with Mask on the photo's card."
        )
    rows = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(SIDE, SIDE)
    return id.strip(), torch.from_numpy(rows.astype(np.float32))


def write_mask(id: str, mask: Tensor) -> str:
    """One photo's entry; mask: (64, 64), above a half where the photo counts."""
    return f"{id}:{base64.b64encode(np.packbits(mask.numpy() > 0.5).tobytes()).decode()}"


def with_masks(references, masks: dict[str, Tensor]):
    """The references, each with the mask that was drawn for it. Masks of photos that are not among them wait."""
    items = tuple(
        replace(item, settings=replace(item.settings, mask=masks[item.id])) if item.id in masks else item
        for item in references.items
    )
    return replace(references, items=items)
