"""Reflective negatives (paper, sec. 3.3, eq. 3-4): for each prompt the real photo most like the generator's drawing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from realrag import artifact
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import RealRAGError

from ..dataset import Material

COSINES = 1 << 25  # computed in one piece


@dataclass(frozen=True)
class MineConfig:
    """What eq. 3-4 leave open, each default marked with where it comes from."""

    kind: str = "reflective"  # paper; "hard" asks with the prompt itself in place of the drawing
    k: int = 1  # paper: exactly one
    seeds: str = "mean"  # our choice: mean of the cosines to a prompt's drawings; "union" takes the best of them
    drop_same_class: bool = True  # our choice: else what the generator draws well becomes its own negative
    near_duplicate: float = 0.995  # our choice: a photo this similar to one of the true class shows the same shot
    same_picture: float = 0.9999  # our choice: a photo this similar to the drawing is the drawing itself
    positive_aware: float = 0.0  # our choice: off; 0.95 drops photos that fit the prompt better than `margin` allows

    def __post_init__(self) -> None:
        if self.kind not in ("reflective", "hard") or self.seeds not in ("mean", "union") or self.k < 1:
            raise RealRAGError(
                f"kind {self.kind!r}, seeds {self.seeds!r}, k {self.k}: kind is reflective or hard, seeds mean or union, "
                "k at least 1."
            )


@dataclass(frozen=True)
class Negatives:
    """rows (P, K) int64 bundle rows, best first, -1 where there is none; scores (P, K) float32 cosines to the drawing;
    raw (P,) the row of eq. 4 with nothing excluded but the drawing itself (-1: nothing drawn). facts: shares and
    counts."""

    rows: np.ndarray
    scores: np.ndarray
    raw: np.ndarray
    facts: dict


def mine(
    material: Material,
    drawn: np.ndarray | None,
    config: MineConfig = MineConfig(),
    *,
    head: ReflectiveHead | None = None,
    device: str | torch.device = "cpu",
    state: MiningState | None = None,
    save: Callable[[MiningState], None] = lambda state: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Negatives:
    """Eq. 4 for every prompt, in pieces that fit into memory. drawn (P, S, D): raw vectors of S drawings of each
    prompt; one that is zero or not finite was not drawn. Ignored for kind "hard".

    head: mine in its space and not in the encoder's (refreshing as in ANCE, arXiv 2007.00808); drawings go through it
    as the photos do, prompts do not. Ties by row number. state: that of an earlier run; `save` receives it after each
    piece.
    """
    if config.kind == "hard":
        drawn = material.queries[:, None]
    if drawn is None or drawn.ndim != 3 or (len(drawn), drawn.shape[2]) != material.queries.shape:
        found = None if drawn is None else drawn.shape
        raise RealRAGError(
            f"The drawings have shape {found}; {material.queries.shape} prompts' vectors need (P, S, D)."
        )
    prompts, seeds, _ = drawn.shape
    through = head.to(device).eval() if head is not None else None
    with torch.inference_mode():
        photos = torch.from_numpy(material.photos).to(device)
        if through:
            photos = torch.cat([through(part) for part in photos.split(65536)])
        state = state or MiningState.fresh(prompts, config.k)
        counts, step = state.counts, max(1, COSINES // (seeds * len(photos)))
        for start in range(state.done, prompts, step):
            asks = torch.from_numpy(np.asarray(drawn[start : start + step], np.float32)).to(device)
            norms = asks.norm(dim=2, keepdim=True)
            there = torch.isfinite(norms) & (norms > 1e-6)
            asks = torch.where(there, asks / norms, torch.zeros_like(asks))
            if through and config.kind == "reflective":
                asks = torch.where(there, through(asks), asks)
            cosines = (asks.flatten(0, 1) @ photos.T).view(len(asks), seeds, -1).masked_fill(~there, -torch.inf)
            best = cosines.amax(1)
            if config.seeds == "mean":
                like = cosines.masked_fill(~there, 0).sum(1) / there.sum(1).clamp_min(1)
            else:
                like = best
            itself = (
                best >= config.same_picture if config.kind == "reflective" else torch.zeros_like(best, dtype=torch.bool)
            )
            counts["itself"] += int(itself.any(1).sum())
            like = like.masked_fill(itself | ~there.any(1), -torch.inf).cpu().numpy()
            for offset, row_scores in enumerate(like):
                prompt = start + offset
                state.raw[prompt] = int(row_scores.argmax()) if np.isfinite(row_scores).any() else -1
                chosen = _choose(row_scores, prompt, material, photos, config, counts)
                state.rows[prompt, : len(chosen)], state.scores[prompt, : len(chosen)] = chosen, row_scores[chosen]
            state.done = min(start + step, prompts)
            save(state)
            progress(state.done, prompts)
    return Negatives(state.rows, state.scores, state.raw, _facts(state, material))


@dataclass
class MiningState:
    """The first `done` prompts of a mining, from which a stopped one resumes: the arrays of `Negatives` and counts."""

    done: int
    rows: np.ndarray
    scores: np.ndarray
    raw: np.ndarray
    counts: dict[str, int]

    @classmethod
    def fresh(cls, prompts: int, k: int) -> MiningState:
        rows, scores = np.full((prompts, k), -1, np.int64), np.zeros((prompts, k), np.float32)
        counts = dict.fromkeys(("near_duplicates", "too_fitting", "itself"), 0)
        return cls(0, rows, scores, np.full(prompts, -1, np.int64), counts)

    def save(self, path: Path, key: str) -> None:
        metadata = {"key": key, "done": str(self.done), "counts": json.dumps(self.counts)}
        artifact.write(path, {"rows": self.rows, "scores": self.scores, "raw": self.raw}, metadata)

    @classmethod
    def load(cls, path: Path, key: str) -> MiningState | None:
        """None when the file is missing, damaged, or of other inputs."""
        try:
            arrays, metadata = artifact.read_arrays(path)
        except RealRAGError:
            return None
        if metadata.get("key") != key:
            return None
        return cls(int(metadata["done"]), *(arrays[name] for name in ("rows", "scores", "raw")),
                   json.loads(metadata["counts"]))  # fmt: skip


def _choose(scores: np.ndarray, prompt: int, material: Material, photos, config: MineConfig, counts: dict) -> list[int]:
    """The first k rows by descending score that are not of the prompt's class and pass the filters."""
    own = np.flatnonzero(material.photo_classes == material.query_classes[prompt])
    scores = scores.copy()
    if config.drop_same_class:
        scores[own] = -np.inf
    limit = np.inf
    if config.positive_aware and len(own):
        query = torch.from_numpy(material.queries[prompt]).to(photos.device)
        limit = margin(float((photos[own] @ query).mean()), config.positive_aware)
    chosen: list[int] = []
    looked, wide = 0, 4 * config.k + 16
    while len(chosen) < config.k and looked < len(scores):
        ranked = _first(scores, wide)
        for row in ranked[looked:]:
            # Near-duplicates are found with the plain vectors: a head may bring different photos together.
            alike = (material.photos[own] @ material.photos[row]).max(initial=-1)
            if config.drop_same_class and alike >= config.near_duplicate:
                counts["near_duplicates"] += 1
            elif limit < np.inf and float(photos[row] @ query) > limit:
                counts["too_fitting"] += 1
            else:
                chosen.append(int(row))
            if len(chosen) == config.k:
                break
        if len(ranked) < wide:
            break
        looked, wide = len(ranked), 4 * wide
    return chosen


def margin(own_mean: float, fraction: float) -> float:
    """The highest cosine to the prompt that a negative may have: `own_mean`, the mean cosine of the prompt's own photos,
    lowered by 1 - `fraction` of its size. For a positive mean this is fraction * mean; a plain product would raise the
    limit of a negative mean above the mean itself."""
    return own_mean - (1 - fraction) * abs(own_mean)


def _first(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` highest finite scores, best first, ties by row number."""
    if count < len(scores):
        rows = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        rows = np.arange(len(scores))
    rows = rows[np.isfinite(scores[rows])]
    return rows[np.argsort(-scores[rows], kind="stable")][:count]


def _facts(state: MiningState, material: Material) -> dict:
    raw, counts = state.raw, state.counts
    drawn = raw >= 0
    known = drawn & (material.photo_classes[raw] == material.query_classes)
    return {
        "prompts": len(raw),
        "drawn": int(drawn.sum()),
        # The raw argmax was of the true class: how much the generator already knows
        "known_share": float(known.sum() / max(1, drawn.sum())),
        "without_negative": int((state.rows[:, 0] < 0).sum()),
        "dropped_near_duplicates": counts["near_duplicates"],
        "dropped_too_fitting": counts["too_fitting"],
        "drawings_found_among_photos": counts["itself"],
    }
