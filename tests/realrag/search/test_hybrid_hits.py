"""Of many photos that match a text equally well, as many as are wanted come, whatever the number that is compared by look."""

import numpy as np
import pytest

from realrag.search.hybrid import MOST_TIED, _best_hits
from realrag.search.postings import Hits


@pytest.mark.parametrize("pool", [1, MOST_TIED - 1, MOST_TIED, MOST_TIED + 1, 272, 999, 1000])
@pytest.mark.parametrize("better", [0, 1, 200])
def test_equal_matches_fill_the_pool(pool, better):
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    matched = np.full(1000, 0.5, np.float32)
    matched[:better] = 0.9
    found = _best_hits(vectors, vectors[0], Hits(np.arange(1000), matched), pool)
    assert len(found.rows) == len(found.matched) == len(set(found.rows.tolist())) == pool
    assert (found.matched == 0.9).sum() == min(pool, better)
