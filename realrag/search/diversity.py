"""Choose among the candidates of one search: drop near-duplicates, then rank by MMR (Carbonell & Goldstein 1998)."""

import numpy as np

BLOCK = 1024  # candidates compared at once; bounds memory to BLOCK x kept


def drop_near_duplicates(embeddings: np.ndarray, threshold: float) -> np.ndarray:
    """Positions (M,) int64 of the candidates to keep, in the order given, so that the first of each group stays.

    A candidate goes if its cosine with one already kept is `threshold` or more. embeddings: (N, D) unit, best first.
    """
    embeddings = np.asarray(embeddings, np.float32)
    kept: list[int] = []
    for start in range(0, len(embeddings), BLOCK):
        block = embeddings[start : start + BLOCK]
        gone = (block @ embeddings[kept].T >= threshold).any(axis=1)
        close = block @ block.T >= threshold
        for position in range(len(block)):
            if not gone[position]:
                kept.append(start + position)
                gone |= close[position]
    return np.array(kept, np.int64)


def mmr(scores: np.ndarray, embeddings: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Positions (min(k, N),) int64 of the chosen candidates, in the order chosen; ties fall to the earlier candidate.

    Each step takes argmax((1 - diversity) * score - diversity * largest cosine with those chosen): the MMR of the paper
    with lambda = 1 - diversity. 0 ranks by score alone; 1 looks only for what is unlike the rest, after the best match.
    scores: (N,) cosines with the query, embeddings: (N, D) unit vectors.
    """
    scores = np.asarray(scores, np.float32)
    if diversity == 0:
        return np.argsort(-scores, kind="stable")[:k]
    embeddings = np.asarray(embeddings, np.float32)
    chosen: list[int] = []
    likeness = np.full(len(scores), -np.inf, np.float32)  # (N,) largest cosine with those chosen
    for _ in range(min(k, len(scores))):
        value = (1 - diversity) * scores - diversity * likeness if chosen else scores.copy()
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        likeness = np.maximum(likeness, embeddings @ embeddings[chosen[-1]])
    return np.array(chosen, np.int64)
