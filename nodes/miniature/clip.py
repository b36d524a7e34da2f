"""The miniatures' CLIP: ComfyUI's own class round the small text tower, so that stock prompt and LoRA nodes take it."""

from __future__ import annotations

from functools import partial

import comfy.model_management as management
import comfy.sd
import torch
from comfy.sd1_clip import escape_important, token_weights, unescape_important
from comfy.supported_models_base import ClipTarget
from torch import Tensor, nn

from ...realrag.encoders.small import SMALL_FILE
from ...realrag.encoders.small_net import TextTower, load_small_encoder, words
from ...realrag.miniature.text import encode_prompts

ENTRIES = ("l", "g", "t5xxl")  # what the prompt nodes of SD3 and Flux fill one by one; here each holds the same words
Pairs = list[tuple[str, float]]  # a prompt's words in order, each with its weight


def clip() -> comfy.sd.CLIP:
    """A CLIP in ComfyUI's care whose states (1, 16, C) and pooled vector (1, D) are those of `encode_prompts`."""
    tower = load_small_encoder(SMALL_FILE).text
    made = comfy.sd.CLIP(ClipTarget(MiniatureTokenizer, partial(MiniatureTextModel, tower)))
    made.patcher.cached_patcher_init = (clip_patcher, ())
    return made


def clip_patcher(disable_dynamic: bool = False):
    """The patcher of a new CLIP, for what newer versions of ComfyUI copy whole."""
    return clip().patcher


class MiniatureTokenizer:
    """Splits a prompt as the text tower does; "(word:1.2)" is understood and "1.2" is no part of the prompt."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        pass  # neither embeddings nor a vocabulary: the tower hashes its words

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options) -> dict[str, list]:
        """-> ENTRIES, each one list of (word, weight), or of (word, weight, number of the word from 1)."""
        pairs: list[tuple] = [
            (word, weight)
            for part, weight in token_weights(escape_important(text), 1.0)
            for word in words(unescape_important(part))
        ]
        if return_word_ids:
            pairs = [(*pair, number) for number, pair in enumerate(pairs, 1)]
        return {entry: [list(pairs)] for entry in ENTRIES}

    def untokenize(self, pairs: list[tuple]) -> list[tuple]:
        return [(pair, pair[0]) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class MiniatureTextModel(nn.Module):
    """The text tower behind the methods that ComfyUI's CLIP calls. It stays fp32: at 5 MB nothing is to be gained."""

    disable_offload = True  # too small to be streamed in parts

    def __init__(self, tower: TextTower, device=None, dtype=None, model_options=None):
        super().__init__()
        self.text = tower.to(device).float()
        self.dtypes = {torch.float32}

    def set_clip_options(self, options: dict) -> None:
        """One layer, one pooled output, and the device of the weights: there is nothing to choose."""

    def reset_clip_options(self) -> None:
        pass

    def load_sd(self, sd: dict):
        return self.load_state_dict(sd, strict=False)

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[Tensor, Tensor]:
        """States of what was said to T5, the pooled vector of what was said to CLIP; or of the other, if one is silent."""
        said = {entry: [pair[:2] for section in tokens.get(entry, ()) for pair in section] for entry in ENTRIES}
        to_clip = said["l"] or said["g"]
        states, _ = encode_prompts(self.text, [sentence(said["t5xxl"] or to_clip)])
        _, pooled = encode_prompts(self.text, [sentence(to_clip or said["t5xxl"])])
        self.weigh(states, dict(said["t5xxl"] or to_clip))
        device = management.intermediate_device()
        return states.to(device), pooled.to(device)

    def weigh(self, states: Tensor, weights: dict[str, float]) -> None:
        """Scale each weighted word's state, in place: ComfyUI's rule, where the empty prompt is all zero. The state of
        the whole sentence and the pooled vector stay, as they do for CLIP."""
        for word, weight in weights.items():
            if weight != 1.0:
                alone = encode_prompts(self.text, [word])[0][0, 1]  # a word's state is the same in every sentence
                states[0, 1:][torch.isclose(states[0, 1:], alone, atol=1e-4).all(-1)] *= weight


def sentence(pairs: Pairs) -> str:
    return " ".join(word for word, _ in pairs)
