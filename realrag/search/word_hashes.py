"""Words -> 64-bit numbers, one at a time or those of a million captions at once."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

import numpy as np

# A word's hash is the sum of its UTF-8 bytes, each times a random number for its place, so that the words of many
# captions are hashed at once. Two words of ten million collide with a chance of 1 in 300,000 where 64 bits are kept.
_PLACES = np.random.Generator(np.random.PCG64(20_260)).integers(1, 1 << 64, 256, np.uint64) | np.uint64(1)
_PLACES_AS_INTS = _PLACES.tolist()
_SUMS = [0, *accumulate(_PLACES_AS_INTS)]  # a byte counts one more than it is, so that a zero counts
_MIX = 0x9E3779B97F4A7C15
_LETTER = np.zeros(256, bool)
_LETTER[[*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1)]] = True


def hash_of(word: str) -> int:
    data = word.encode("utf-8", "surrogatepass")[: len(_PLACES)]
    total = (sum(map(mul, data, _PLACES_AS_INTS)) + _SUMS[len(data)]) % (1 << 64)
    return (total ^ (total >> 29)) * _MIX % (1 << 64)


def line_hashes(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Plain ASCII texts, one a line -> the hash of each word (CamelCase is several) and the line that it stands on."""
    data = np.frombuffer(text, np.uint8)
    upper = (data >= ord("A")) & (data <= ord("Z"))
    small = np.where(upper, data | 32, data)
    inside = _LETTER[small]
    if not inside.any():
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    before, lower = _moved(inside, 1), inside & ~upper & (data > ord("9"))
    # "redCar": a capital after a small letter; "HTMLPage": the last capital before a small letter
    camel = upper & (_moved(lower, 1) | (_moved(upper, 1) & _moved(lower, -1)))
    begins = np.flatnonzero(inside & (~before | camel))
    ends = np.flatnonzero(inside & (~_moved(inside, -1) | _moved(camel, -1))) + 1
    lines = np.searchsorted(np.flatnonzero(data == ord("\n")), begins)
    lengths = ends - begins
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(firsts, lengths)
    values = small[inside].astype(np.uint64) + np.uint64(1)
    values *= np.where(places < len(_PLACES), _PLACES[np.minimum(places, len(_PLACES) - 1)], np.uint64(0))
    total = np.add.reduceat(values, firsts)
    return (total ^ (total >> np.uint64(29))) * np.uint64(_MIX), lines


def _moved(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask shifted to the right (by 1) or to the left (by -1)."""
    out = np.zeros_like(mask)
    if by > 0:
        out[1:] = mask[:-1]
    else:
        out[:-1] = mask[1:]
    return out
