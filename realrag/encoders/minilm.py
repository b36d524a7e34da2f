"""MiniLM (arXiv 2002.10957), a BERT of 6 layers, in plain torch: token ids -> one vector a text, as sentence-transformers
takes it: the mean over the tokens, of unit length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12  # of BERT's layer norms


class Layer(nn.Module):
    """Attention, then an MLP, each added to its input and then normalized."""

    def __init__(self, width: int, heads: int, wide: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attended = nn.LayerNorm(width, EPS)
        self.up, self.down = nn.Linear(width, wide), nn.Linear(wide, width)
        self.done = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def parts(layer: nn.Linear) -> Tensor:
            return layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(parts(self.query), parts(self.key), parts(self.value), mask)
        x = self.attended(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.done(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """(B, T) token ids and where they are real, (B, T) bool -> (B, width) of unit length."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, wide: int, positions: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)  # the one token type is added in
        self.start = nn.LayerNorm(width, EPS)
        self.layers = nn.ModuleList(Layer(width, heads, wide) for _ in range(layers))

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        x = self.start(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        mask = real[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        kept = real.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * kept).sum(1) / kept.sum(1).clamp_min(1), dim=1)
