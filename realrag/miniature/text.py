"""Prompt -> the text input of a miniature model: a few token states and one pooled vector. Both come from the frozen
text tower of the small encoder, so neither a vocabulary file nor a second model is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..encoders.small_net import TextTower, tokens_of, words

LENGTH = 16  # states per prompt: one for the whole sentence, then one per word


@torch.no_grad()
def word_state(text: TextTower, word: str) -> tuple[Tensor, Tensor]:
    """(C,) mean of a word's piece embeddings, weighted as the tower weights them, and () the sum of those weights."""
    tokens = torch.tensor(tokens_of(word, text.embedding.num_embeddings), device=text.embedding.weight.device)
    weight = text.salience(tokens).exp()  # (n, 1)
    return (weight * text.embedding(tokens)).sum(0) / weight.sum(), weight.sum()


def rms_one(x: Tensor) -> Tensor:
    """Each vector of (..., C) scaled to a mean square of one; a zero vector stays zero."""
    return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5


@torch.no_grad()
def encode_prompts(text: TextTower, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """B prompts -> states (B, LENGTH, C), C the width of the tower's embedding, and pooled (B, D), the tower's output.

    State 0 is the sentence, the weighted mean of its words; one state for each distinct word follows. SD3 and Flux
    have no text mask, so unused states are zero. Of a long prompt, the words with the lowest weight are left out. Every
    state and pooled vector has a mean square of one. The empty prompt gives zero states and a fixed pooled vector."""
    width = text.embedding.embedding_dim
    states = text.embedding.weight.new_zeros(len(prompts), LENGTH, width)
    means = text.embedding.weight.new_zeros(len(prompts), width)
    for row, prompt in enumerate(prompts):
        found = [word_state(text, word) for word in dict.fromkeys(words(prompt))]
        if not found:
            continue
        each, weights = torch.stack([state for state, _ in found]), torch.stack([weight for _, weight in found])
        means[row] = weights @ each / weights.sum()
        kept = weights.topk(min(len(found), LENGTH - 1)).indices.sort().values
        states[row, 0], states[row, 1 : 1 + len(kept)] = means[row], each[kept]
    return rms_one(states), rms_one(text.mlp(means))
