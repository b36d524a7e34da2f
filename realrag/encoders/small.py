"""The small encoder that ships with RealRAG, as an Encoder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .. import SMALL_ENCODER as SMALL
from .base import Coverage, Encoder, VisionFeatures
from .preprocess import Preprocess
from .small_net import MOST_TOKENS, tokens_of, words

SMALL_FILE = Path(__file__).parent.parent / "assets" / "small_encoder.safetensors"


class SmallEncoder(Encoder):
    """A small dual encoder of our own, offline (docs/model-card.md): what the miniatures' adapters see through. Needs
    neither open_clip nor torchvision."""

    kind = "small"
    FILE = "small_encoder.safetensors"
    image_prefixes = ("towers.mobilenet.", "towers.projection.")

    def __init__(self, path: Path, name: str = SMALL):
        from .small_net import load_small_encoder

        super().__init__()
        self.towers = load_small_encoder(path).eval()
        self.name, self.dim = name, int(self.towers.config["dim"])
        self.tuned = self.towers.tuned
        self.portable = name == SMALL and not self.tuned
        self.preprocess = Preprocess(**self.towers.config["preprocess"])

    def _images(self, x: Tensor) -> Tensor:
        return self.towers.image_tower(x)

    def _features(self, x: Tensor) -> VisionFeatures:
        tower, cut = self.towers.mobilenet, len(self.towers.mobilenet.blocks) - 1
        penultimate = tower.front(x, cut)
        last = tower.back(penultimate, cut)
        return VisionFeatures(
            self.towers.pool(last), *(state.flatten(2).transpose(1, 2) for state in (penultimate, last))
        )

    def coverage(self, text: str) -> Coverage:
        """A word is known if training touched the word and all its groups of letters: untouched ones were set to 0."""
        found, tokens, read = words(text), 0, 0
        ids_of = {word: tokens_of(word, self.towers.config["buckets"]) for word in found}
        asked = sorted({id for ids in ids_of.values() for id in ids})
        weight = self.towers.text.embedding.weight.detach()  # of which the few rows are read, not all 30,000
        learned = dict(zip(asked, weight[asked].any(1).tolist(), strict=True)) if asked else {}
        unknown = []
        for word in found:
            tokens += len(ids_of[word])
            read += tokens <= MOST_TOKENS
            if not all(learned[id] for id in ids_of[word]):
                unknown.append(word)
        return Coverage(len(found), read, tuple(dict.fromkeys(unknown)))

    def _texts(self, texts: list[str]) -> Tensor:
        return self.towers.text_tower(self.towers.tokenize(texts).to(self.place[0]))

    def save_pretrained(self, folder: Path) -> list[Path]:
        from .small_net import save_small_encoder

        folder.mkdir(parents=True, exist_ok=True)
        save_small_encoder(self.towers, folder / self.FILE, tuned=dict(self.tuned))
        return [folder / self.FILE]
