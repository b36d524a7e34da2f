"""Measures, when a bundle is built, which score tells known from unknown, for the plain encoder and for each head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..bundle.bundle import open_matrix, unit_rows
from ..bundle.head_entries import BundleHead
from ..bundle.records import RecordTable
from ..doubt import Level, measure_level
from ..encoders.base import Encoder
from ..encoders.reflective_head import ReflectiveHead, load_head
from ..library import captions_to_ask, through_head, vectors_key
from ..search.lexicon import Lexicon


class HeadVectors:
    """The vectors that an index would search, made when they are asked for: unit rows, through the head."""

    def __init__(self, embeddings: np.ndarray, head: ReflectiveHead | None):
        self._embeddings, self._head = embeddings, head

    def __len__(self) -> int:
        return len(self._embeddings)

    def __getitem__(self, rows) -> np.ndarray:
        found = through_head(self._head, unit_rows(np.atleast_2d(self._embeddings[rows])))
        return found if np.ndim(rows) else found[0]


def measure_levels(
    out: Path,
    files: Sequence[dict],
    encoder: Encoder,
    heads: Sequence[BundleHead],
    names: Iterable[tuple[int, str, str]],
    count: int,
) -> dict[str, Level]:
    """Vectors key -> level, of a bundle whose `files` (as the manifest lists them) lie in `out`. Empty where the encoder
    has no text tower."""
    if not encoder.has_text_tower:
        return {}
    paths = {file["role"]: out / file["path"] for file in files}
    records = RecordTable(paths["records"], count)
    embeddings = open_matrix(paths["embeddings"], count, encoder.dim)
    lexicon = Lexicon(records.classes, records.class_codes, records.words_beside, "", None, names)
    found = {}
    for entry in (None, *heads):
        head = load_head(out / entry.file.path, encoder.dim, encoder.fingerprint) if entry else None
        found[vectors_key(head)] = measure_level(
            lambda texts: unit_rows(encoder.encode_texts(texts).numpy()), HeadVectors(embeddings, head), records.classes,
            records.class_codes, captions_to_ask(records), lexicon.knows,
        )  # fmt: skip
    return found
