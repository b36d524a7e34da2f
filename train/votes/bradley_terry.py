"""The Bradley-Terry model (1952): one strength s per arm, with P(a is preferred to b) = 1 / (1 + exp(s_b - s_a)).

A tie is half a win for both. Each compared pair gets half a win in both directions on top, so that the strength of an
arm that never lost is finite. With two arms the difference is then log((wins + 1/2) / (losses + 1/2))."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from realrag.errors import RealRAGError

from ..stats import crossed_weights, percentiles

PRIOR = 0.5
RESAMPLES = 2000
BLOCK = 250  # resamples computed at once


@dataclass(frozen=True)
class Votes:
    """n votes. arms: names. first, second (n,): numbers of the two arms. score (n,): 1 if the first was preferred, 0 if
    the second, 1/2 for a tie. prompts, voters (n,): numbers of the prompt and the voter."""

    arms: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    prompts: np.ndarray
    voters: np.ndarray


def strengths(wins: np.ndarray, tolerance: float = 1e-10, most: int = 20_000) -> np.ndarray:
    """Wins of row over column (..., A, A) -> maximum-likelihood log-strengths (..., A) with mean 0, by the MM iteration
    of Hunter (2004), Ann. Statist. 32(1)."""
    met, won = wins + np.swapaxes(wins, -1, -2), wins.sum(-1)
    p = np.ones(won.shape)
    for _ in range(most):
        fresh = won / (met / (p[..., :, None] + p[..., None, :])).sum(-1)
        fresh /= np.exp(np.log(fresh).mean(-1, keepdims=True))
        moved = np.abs(np.log(fresh / p)).max()
        p = fresh
        if moved < tolerance:
            break
    return np.log(p)


def win_table(votes: Votes, weights: np.ndarray) -> np.ndarray:
    """Weights of the votes (R, n) -> wins of row over column (R, A, A). Ties count half, the prior is not in it."""
    a = len(votes.arms)
    table = np.zeros((len(votes.score), a * a))
    table[np.arange(len(table)), votes.first * a + votes.second] = votes.score
    table[np.arange(len(table)), votes.second * a + votes.first] += 1 - votes.score
    return (weights @ table).reshape(-1, a, a)


def read_votes_as_strengths(votes: Votes, seed: int = 0, resamples: int = RESAMPLES) -> dict:
    """{"strengths": {arm: [s, low, high]}, "pairs": {"a - b": {"votes", "wins", "ties", "losses", "share": [...],
    "apart": [s_a - s_b, low, high]}}}, arms by strength. "share" is the fraction of wins, ties counted half.

    The 95 % intervals resample voters and prompts; a single voter is not resampled. RealRAGError if two arms were never
    compared, not even through other arms."""
    wins = win_table(votes, np.ones((1, len(votes.score))))
    compared = wins[0] + wins[0].T > 0
    _refuse_islands(votes.arms, compared)
    prior = PRIOR * compared
    s = strengths(wins[0] + prior)
    rng, many, drawn = np.random.default_rng(seed), [], []
    for start in range(0, resamples, BLOCK):
        weights = crossed_weights((votes.prompts, votes.voters), rng, min(BLOCK, resamples - start))
        drawn.append(win_table(votes, weights))
        many.append(strengths(drawn[-1] + prior, 1e-6))
    many, drawn = np.concatenate(many), np.concatenate(drawn)
    order = [int(i) for i in np.argsort(-s, kind="stable")]
    report = {"strengths": {votes.arms[i]: _interval(s[i], many[:, i]) for i in order}, "pairs": {}}
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            row = {"apart": _interval(s[i] - s[j], many[:, i] - many[:, j])}
            if compared[i, j]:
                row = {**_tally(votes, i, j), "share": _share(wins[0], drawn, i, j), **row}
            report["pairs"][f"{votes.arms[i]} - {votes.arms[j]}"] = row
    return report


def _tally(votes: Votes, i: int, j: int) -> dict[str, int]:
    score = np.concatenate([votes.score[(votes.first == i) & (votes.second == j)],
                            1 - votes.score[(votes.first == j) & (votes.second == i)]])  # fmt: skip
    return {"votes": len(score), "wins": int((score == 1).sum()), "ties": int((score == 0.5).sum()),
            "losses": int((score == 0).sum())}  # fmt: skip


def _share(wins: np.ndarray, drawn: np.ndarray, i: int, j: int) -> list[float]:
    met = drawn[:, i, j] + drawn[:, j, i]
    kept = met > 0
    return _interval(wins[i, j] / (wins[i, j] + wins[j, i]), drawn[kept, i, j] / met[kept])


def _interval(value: float, values: np.ndarray) -> list[float]:
    return [round(float(v), 5) for v in (value, *percentiles(values))]


def _refuse_islands(arms: tuple[str, ...], compared: np.ndarray) -> None:
    reached, new = {0}, [0]
    while new:
        new = [int(j) for i in new for j in np.flatnonzero(compared[i]) if j not in reached]
        reached |= set(new)
    if len(reached) < len(arms):
        apart = next(arms[i] for i in range(len(arms)) if i not in reached)
        raise RealRAGError(
            f"No vote compares {arms[0]} with {apart}, nor through other arms. Collect votes between them."
        )
