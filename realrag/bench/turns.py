"""Searches that are compared take turns, a few queries each, so that a slow moment of the machine affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

TURN = 10  # queries before the next search's turn


def take_turns(
    searches: Mapping[str, Callable[[np.ndarray], np.ndarray]], queries: np.ndarray, truth: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """{name: CPU seconds of each query}, {name: recall}. searches: (1, D) -> (1, k) rows. truth: (Q, k) rows of each."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    right = dict.fromkeys(searches, 0)
    for start in range(0, len(queries), TURN):
        for name, search in searches.items():
            for at in range(start, min(start + TURN, len(queries))):
                begin = time.process_time()
                found = search(queries[at : at + 1])
                times[name].append(time.process_time() - begin)
                right[name] += len(set(found[0]) & set(truth[name][at]))
    return {name: np.array(each) for name, each in times.items()}, {
        name: count / truth[name].size for name, count in right.items()
    }
