"""A tiny encoder for tests: coarse colors of a photo and color words of a text; a single weight."""

import torch

from realrag.encoders.base import Encoder, VisionFeatures
from realrag.encoders.preprocess import Preprocess

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "yellow": (1, 1, 0)}


class ColorEncoder(Encoder):
    """Images -> a 2 x 2 grid of mean colors plus a constant (D = 13); texts -> the grid of the colors they name.

    `name` keeps its old spelling: saved bundles contain it."""

    kind, name, dim = "fake", "colour", 13

    def __init__(self, scale: float = 1.0, size: int = 16):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), scale), requires_grad=False)
        self.preprocess = Preprocess(size, "squash", "bilinear", (0, 0, 0), (1, 1, 1))
        self.seen = 0  # photos encoded so far

    def _images(self, x):
        self.seen += len(x)
        grid = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.weight * torch.cat([grid, torch.full((len(x), 1), 0.1)], 1)

    def _features(self, x):
        grid = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        return VisionFeatures(self._images(x), self.weight * grid, 2 * self.weight * grid)

    def _texts(self, texts):
        rows = []
        for text in texts:
            named = [WORDS[word] for word in text.lower().split() if word in WORDS] or [(0.5, 0.5, 0.5)]
            color = torch.tensor(named, dtype=torch.float32).mean(0)
            rows.append(torch.cat([color.repeat_interleave(4), torch.full((1,), 0.1)]))
        return torch.stack(rows)


class Cramped(ColorEncoder):
    """Takes at most `most` photos at once, and also fails at the call numbers in `at`."""

    def __init__(self, most=1 << 20, at=(), error=torch.cuda.OutOfMemoryError("CUDA out of memory.")):
        super().__init__()
        self.most, self.at, self.error, self.calls = most, at, error, 0

    def _images(self, x):
        self.calls += 1
        if len(x) > self.most or self.calls in self.at:
            raise self.error
        return super()._images(x)
