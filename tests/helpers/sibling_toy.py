"""A toy problem with a known answer: pairs of similar classes (siblings). The generator knows only one of each pair, A,
and draws it for both."""

import numpy as np
import torch
from unit_rows import unit

from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.negatives import MineConfig, mine
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig
from realrag_train.dataset import Material

PAIRS, SINGLES, DIM, PHOTOS, PROMPTS = 6, 60, 32, 16, 6
DETAIL = 8  # dimensions


class Toy:
    """Classes 0, 2, ..: A; 1, 3, ..: its sibling B; then single classes, all known. Each class has several prompts, and
    half of its photos are for the evaluation. Siblings look mostly alike. There are many more classes than a batch
    holds, so a photo's sibling is rarely in its batch.
    """

    def __init__(self, seed, pairs=PAIRS, singles=SINGLES, photos_each=PHOTOS, prompts_each=PROMPTS):
        rng = np.random.default_rng(seed)
        self.pairs, count = pairs, 2 * pairs + singles
        family = np.repeat(unit(rng.normal(size=(pairs, DIM))), 2, axis=0)
        appearance = unit(
            np.concatenate([family + 0.5 * unit(rng.normal(size=(2 * pairs, DIM))), rng.normal(size=(singles, DIM))])
        )
        self.asked = np.repeat(np.arange(count), prompts_each)
        names = unit(appearance + 0.8 * unit(rng.normal(size=appearance.shape)))
        words = unit(names[self.asked] + 0.3 * unit(rng.normal(size=(len(self.asked), DIM))))
        classes = np.repeat(np.arange(count), photos_each)
        photos = unit(appearance[classes] + 0.7 * unit(rng.normal(size=(len(classes), DIM))))
        here = np.arange(len(classes)) % 2 == 0
        self.material = Material(photos[here], classes[here], words, self.asked)
        self.photos, self.classes, self.words, self.appearance, self.rng = (
            photos[~here],
            classes[~here],
            words,
            appearance,
            rng,
        )
        self.count = count

    def draw(self, generator):
        """(P, 1, D): "sibling" draws the classes it knows, A for both of a pair; "random" draws any class."""
        known = np.where((self.asked < 2 * self.pairs) & (self.asked % 2 == 1), self.asked - 1, self.asked)
        drawn = self.rng.integers(0, self.count, len(known)) if generator == "random" else known
        return unit(self.appearance[drawn] + 0.5 * unit(self.rng.normal(size=(len(drawn), DIM))))[:, None]

    def fit(self, kind, generator="sibling", seed=0):
        """(P, N) scores of all prompts and the evaluation photos, with a head trained on the other photos."""
        rows = None
        if kind != "normal":
            rows = mine(self.material, self.draw(generator), MineConfig(kind)).rows
        config = FitConfig(epochs=6, batch=32, hidden=32, rate=4e-3, seed=seed)
        training = ContrastiveTraining(self.material, rows, config, LossConfig(kind))
        training.run()
        with torch.inference_mode():
            return self.words @ training.head(torch.from_numpy(self.photos)).numpy().T

    def margin(self, scores):
        """Mean over pairs of s(B|T_B) - s(A|T_B)."""
        of_b = np.flatnonzero((self.asked < 2 * self.pairs) & (self.asked % 2 == 1))
        return np.mean([
            scores[p, self.classes == self.asked[p]].mean() - scores[p, self.classes == self.asked[p] - 1].mean() for p in of_b
        ])  # fmt: skip

    def known_precision(self, scores):
        """Mean precision of the first 8 photos, for the prompts of known classes."""
        known = (self.asked >= 2 * self.pairs) | (self.asked % 2 == 0)
        order = np.argsort(-scores[known], axis=1, kind="stable")[:, :8]
        return (self.classes[order] == self.asked[known, None]).mean()


class DetailToy(Toy):
    """Pairs of siblings that look alike but for small details, such as a badge or a trim. Details lie in DETAIL dimensions
    that all pairs share, and count little in a cosine: what siblings have in common and the noise are larger. The photos
    are for training, for choosing (`held`) and for the evaluation. With shuffle, a seed, all labels of photos are mixed.
    """

    def __init__(self, seed, pairs, shuffle=None):
        self.pairs, self.count, self.rng = pairs, 2 * pairs, np.random.default_rng(seed)
        self.family = np.repeat(unit(self.rng.normal(size=(pairs, DIM - DETAIL))), 2, axis=0)
        self.detail = 0.3 * unit(self.rng.normal(size=(self.count, DETAIL)))
        self.asked = np.repeat(np.arange(self.count), 4)
        self.words = self.like(self.asked, 0.5)
        mixed = np.random.default_rng(shuffle)
        parts = []
        for each in (8, 4, 8):
            classes = np.repeat(np.arange(self.count), each)
            photos = self.like(classes, 0.7)
            parts.append((photos, classes if shuffle is None else mixed.permutation(classes)))
        train, held, (self.photos, self.classes) = parts
        self.material, self.held = (Material(*part, self.words, self.asked) for part in (train, held))

    def like(self, classes, noise):
        """Unit vectors (N, DIM) of things of these classes (N,)."""
        return unit(np.concatenate([
            self.family[classes] + noise * unit(self.rng.normal(size=(len(classes), DIM - DETAIL))),
            self.detail[classes] + 0.15 * unit(self.rng.normal(size=(len(classes), DETAIL))),
        ], axis=1))  # fmt: skip

    def drawings(self):
        """(P, 1, DIM): the generator draws A for both classes of a pair."""
        return self.like(self.asked - self.asked % 2, 0.5)[:, None]
