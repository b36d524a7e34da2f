"""Clustered unit vectors that resemble CLIP's, made from a seed: the data of every search benchmark here.

Every number below was fixed before any index was measured, from published properties of CLIP's vectors. A benchmark may
choose only the seed and the number of rows, dimensions and queries, so easy data cannot be picked. Row i depends only
on the seed, `dim` and i: the first 200,000 rows of a million are the library of 200,000.

    row   = unit(sqrt(CONE) * image_cone + sqrt(TOPIC) * topic(i) @ basis + sqrt(NOISE) * noise)
    query = unit(sqrt(CONE) * text_cone  + sqrt(TOPIC) * topic(q) @ basis + sqrt(NOISE) * noise)
    topic = unit(center_j + SPREAD * direction)      j drawn by Zipf's law, in a subspace of SUBSPACE dimensions

Two random pictures have a cosine near 0.5, two of one topic near 0.7, and a text and a picture of its topic only about
0.2: texts lie on a cone of their own, far from every picture, as in CLIP ("modality gap", Liang et al. 2022). The
noise is isotropic, which is harder for inverted lists and quantizers than the noise of real vectors.

The random numbers are numpy's PCG64 through `numpy.random.Generator`. numpy keeps that stream unless a bug forces a
change; tests pin some values, so they would detect a change.
"""

from collections.abc import Iterator

import numpy as np

CONE = 0.5  # fraction of the squared length: the mean of CLIP's image vectors
TOPIC = 0.3  # the subject of the picture
NOISE = 0.2  # everything else, in all directions alike
SPREAD = 0.7  # of pictures around the center of their topic (length 1)
SUBSPACE = 64  # dimensions of the topics' subspace
TOPICS = 2000
ZIPF = 1.0  # the largest topic then holds 12 % of all rows
CHUNK = 16_384  # rows per seed; part of the definition, not a setting


class Chunks:
    """The library of a seed by chunks, each of which can be made without those before it."""

    def __init__(self, dim: int, seed: int):
        self._world, self._seed = _World(dim, seed), seed

    def chunk(self, number: int) -> np.ndarray:
        """(CHUNK, dim) float32 unit vectors: the rows from number * CHUNK on."""
        return self._world.draw(self._world.image_cone, CHUNK, (self._seed, 1, number))


def clustered_rows(rows: int, dim: int = 512, *, seed: int = 0) -> Iterator[np.ndarray]:
    """The library in row order, as chunks (<= CHUNK, dim) of float32 unit vectors."""
    library = Chunks(dim, seed)
    for number, start in enumerate(range(0, rows, CHUNK)):
        yield library.chunk(number)[: rows - start]


def clustered_vectors(rows: int, dim: int = 512, *, seed: int = 0, dtype=np.float16) -> np.ndarray:
    """The whole library (rows, dim), 1 KB per row in fp16 at 512 dimensions; made chunk by chunk."""
    library = np.empty((rows, dim), dtype)
    start = 0
    for chunk in clustered_rows(rows, dim, seed=seed):
        library[start : start + len(chunk)] = chunk
        start += len(chunk)
    return library


def text_queries(count: int, dim: int = 512, *, seed: int = 0) -> np.ndarray:
    """Queries (count, dim), float32 unit vectors about the same topics, drawn independently of the rows."""
    world = _World(dim, seed)
    return world.draw(world.text_cone, count, (seed, 2))


class _World:
    """Shared by the rows and queries of one seed: the two cones, the topic subspace and the topics in it."""

    def __init__(self, dim: int, seed: int):
        rng = np.random.Generator(np.random.PCG64((seed, 0)))
        subspace = min(SUBSPACE, dim - 2)
        frame = np.linalg.qr(rng.standard_normal((dim, subspace + 2)))[0].T.astype(np.float32)  # orthonormal rows
        self.image_cone, self.text_cone, self.basis = frame[0], frame[1], frame[2:]
        self.centers = _unit(rng.standard_normal((TOPICS, subspace), dtype=np.float32))
        frequency = 1.0 / np.arange(1, TOPICS + 1) ** ZIPF
        self.up_to = np.cumsum(frequency / frequency.sum())

    def draw(self, cone: np.ndarray, count: int, seed: tuple[int, ...]) -> np.ndarray:
        """`count` float32 unit vectors (count, dim) around the given cone."""
        rng = np.random.Generator(np.random.PCG64(seed))
        topics = np.minimum(np.searchsorted(self.up_to, rng.random(count)), TOPICS - 1)
        spread = _unit(rng.standard_normal((count, len(self.basis)), dtype=np.float32))
        topic = _unit(self.centers[topics] + SPREAD * spread)
        noise = _unit(rng.standard_normal((count, len(cone)), dtype=np.float32))
        return _unit(np.sqrt(CONE) * cone + np.sqrt(TOPIC) * topic @ self.basis + np.sqrt(NOISE) * noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
