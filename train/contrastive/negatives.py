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
# Fields that came after 0.1.0.
ADDED = (
    "range_min", "range_max", "max_score", "min_score", "absolute_margin", "relative_margin", "sampling_strategy",
    "sampling_seed",
)  # fmt: skip


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
    # As `mine_hard_negatives` of sentence-transformers calls them; all our choice, and off. Ranks are among the photos of
    # other classes; scores are cosines of a photo to the prompt.
    range_min: int = 0  # our choice: so many of the first photos are left out
    range_max: int = 0  # our choice: no photo after this rank; 0 for all
    max_score: float = 1.0  # our choice: the highest cosine to the prompt
    min_score: float = -1.0  # our choice: the lowest
    absolute_margin: float = 0.0  # our choice: how far below the prompt's own photos' mean; 0 is off
    relative_margin: float = 0.0  # our choice: the same as a fraction; 0.05 is positive_aware 0.95; 0 is off
    sampling_strategy: str = "top"  # our choice: "random" draws k of the range, by sampling_seed
    sampling_seed: int = 0  # our choice

    def __post_init__(self) -> None:
        if self.kind not in ("reflective", "hard") or self.seeds not in ("mean", "union") or self.k < 1:
            raise RealRAGError(
                f"kind {self.kind!r}, seeds {self.seeds!r}, k {self.k}: kind is reflective or hard, seeds mean or union, "
                "k at least 1."
            )
        if self.sampling_strategy not in ("top", "random") or self.range_min < 0 or self.range_max < 0:
            raise RealRAGError(
                f"sampling_strategy {self.sampling_strategy!r}, range_min {self.range_min}, range_max {self.range_max}: the "
                "strategy is top or random, ranks are 0 or more."
            )
        if self.range_max and self.range_max < self.range_min + self.k:
            raise RealRAGError(
                f"range_min {self.range_min} and range_max {self.range_max} leave fewer than k = {self.k} photos. Widen them."
            )
        if self.sampling_strategy == "random" and not self.range_max:
            raise RealRAGError("Random sampling needs a range: set range_max, for example to 100.")
        if min(self.absolute_margin, self.relative_margin) < 0 or self.min_score > self.max_score:
            raise RealRAGError(
                f"absolute_margin {self.absolute_margin}, relative_margin {self.relative_margin}, min_score {self.min_score}, "
                f"max_score {self.max_score}: margins are 0 or more, min_score is not above max_score."
            )


@dataclass(frozen=True)
class Negatives:
    """rows (P, K) int64 bundle rows, best first, -1 where there is none; scores (P, K) float32 cosines to the drawing;
    raw (P,) the row of eq. 4 with nothing excluded but the drawing itself (-1: nothing drawn). metadata: shares and
    counts."""

    rows: np.ndarray
    scores: np.ndarray
    raw: np.ndarray
    metadata: dict


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
    return Negatives(state.rows, state.scores, state.raw, _metadata(state, material))


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
    query = torch.from_numpy(material.queries[prompt]).to(photos.device)
    least, limit = config.min_score, _limit(photos, own, query, config)
    wanted = config.k if config.sampling_strategy == "top" else config.range_max
    chosen: list[int] = []
    looked, wide, end = 0, 4 * wanted + config.range_min + 16, config.range_max or len(scores)
    while len(chosen) < wanted and looked < min(len(scores), end):
        ranked = _first(scores, wide)
        for rank, row in enumerate(ranked[looked:end], looked):
            # Near-duplicates are found with the plain vectors: a head may bring different photos together.
            alike = (material.photos[own] @ material.photos[row]).max(initial=-1)
            if config.drop_same_class and alike >= config.near_duplicate:
                counts["near_duplicates"] += 1
            elif (limit < 1 or least > -1) and not least <= float(photos[row] @ query) <= limit:
                counts["too_fitting"] += 1
            elif rank >= config.range_min:
                chosen.append(int(row))
            if len(chosen) == wanted:
                break
        if len(ranked) < wide:
            break
        looked, wide = len(ranked), 4 * wide
    if config.sampling_strategy == "random" and len(chosen) > config.k:
        picked = np.random.default_rng((config.sampling_seed, prompt)).choice(len(chosen), config.k, replace=False)
        chosen = [chosen[at] for at in sorted(picked)]
    return chosen


def _limit(photos, own: np.ndarray, query: torch.Tensor, config: MineConfig) -> float:
    """The highest cosine to the prompt that a negative may have."""
    limits = [config.max_score]
    if len(own) and (config.positive_aware or config.relative_margin or config.absolute_margin):
        mean = float((photos[own] @ query).mean())
        if config.positive_aware:
            limits.append(margin(mean, config.positive_aware))
        if config.relative_margin:
            limits.append(margin(mean, 1 - config.relative_margin))
        if config.absolute_margin:
            limits.append(mean - config.absolute_margin)
    return min(limits)


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


def _metadata(state: MiningState, material: Material) -> dict:
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
