"""`realrag-general`, the encoder that ships for libraries of anything, as an Encoder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import Tensor

from .. import DEFAULT_ENCODER as GENERAL
from .base import Coverage, Encoder
from .preprocess import Preprocess
from .word_pieces import WordPieces

GENERAL_FOLDER = Path(__file__).parent.parent / "assets" / "general"


class GeneralEncoder(Encoder):
    """Photos and English texts, offline (docs/model-card-general.md). Needs torch and tokenizers.

    folder: holds the files IMAGE, TEXT and NAMES."""

    kind = "general"
    IMAGE, TEXT, NAMES = "general_image.safetensors", "general_text.safetensors", "general_names.safetensors"
    image_prefixes = ("towers.image.",)

    def __init__(self, folder: Path = GENERAL_FOLDER, name: str = GENERAL):
        from .general_net import load_general_encoder

        super().__init__()
        self.towers = load_general_encoder(folder / self.IMAGE, folder / self.TEXT, folder / self.NAMES)
        self.name, self.dim = name, int(self.towers.config["dim"])
        self.tuned = self.towers.tuned
        self.portable = name == GENERAL and not self.tuned
        self.preprocess = Preprocess(**self.towers.config["preprocess"])

    @cached_property
    def pieces(self) -> WordPieces:
        return self.towers.text.pieces()

    def _images(self, x: Tensor) -> Tensor:
        return self.towers.image(x)

    def _texts(self, texts: list[str]) -> Tensor:
        ids, real = self.pieces(texts)
        device, _ = self.place
        return self.towers.text(ids.to(device), real.to(device))

    def coverage(self, text: str) -> Coverage:
        """Any word can be put together from pieces; unknown are signs that the vocabulary lacks. Words past the longest text
        are not read."""
        read = self.pieces.read(text)
        return Coverage(len(text.split()), len(text[: read.end].split()), read.unknown)

    def save_pretrained(self, folder: Path) -> list[Path]:
        from .general_net import save_general_encoder

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in (self.IMAGE, self.TEXT, self.NAMES)]
        self.towers.tuned = dict(self.tuned)
        save_general_encoder(self.towers, paths[0], paths[1], paths[2])
        return paths
