"""The tokenizer of a CLIP or SigLIP (2) in transformers' format: from the files beside the weights."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EncoderError, brief
from ..files import read_bounded
from .transformers_layout import Layout

VOCABULARY = 49408  # of every CLIP but the multilingual ones
MOST_BYTES = 64 << 20  # of a tokenizer's file
PADDING = {"clip": "<|endoftext|>", "siglip": "</s>", "gemma": "<pad>"}  # where the files name none


class TextTokens:
    """Texts -> tokens. `library`: the tokenizer of transformers or open_clip behind it."""

    def __init__(self, layout: Layout, folder: Path, of_this: bool):
        """folder: where the weights are. of_this: the files beside them are known to be this model's. EncoderError where
        there is no tokenizer for it."""
        self.kind, self.context = layout.tokenizer, layout.context
        self.library: Any = _from_files(layout, folder) if of_this or self.kind != "clip" else None
        self.ours = self.library is None
        if self.ours:
            if self.kind != "clip":
                names = "tokenizer.json" if self.kind == "gemma" else "tokenizer.json or spiece.model"
                raise EncoderError(
                    f"This SigLIP has a text tower, but no tokenizer beside it. Put {names} and tokenizer_config.json, from "
                    f"the page where the weights came from, into {folder}."
                )
            self.library = _open_clips(layout)

    def __call__(self, texts: list[str]) -> Tensor:
        """B texts -> (B, T) int64, T the context of the model."""
        if self.ours:
            return self.library(list(texts))
        options = {"padding": "max_length", "truncation": True, "max_length": self.context}
        return torch.tensor(
            self.library([self.plain(text) for text in texts], **options)["input_ids"], dtype=torch.int64
        )

    def plain(self, text: str) -> str:
        """The text as the model was trained on it: SigLIP without punctuation, both SigLIPs in lower case."""
        if self.kind == "siglip":
            text = " ".join(text.translate(str.maketrans("", "", string.punctuation)).split())
        return text if self.kind == "clip" else text.lower()

    def save(self, folder: Path) -> None:
        if not self.ours:  # open_clip's comes with open_clip
            self.library.save_pretrained(folder)


class _SentencePieces:
    """SigLIP's spiece.model as one of transformers' tokenizers, whose own reader of it asks for protobuf, which ComfyUI
    does not bring. The pieces of a text, then </s> to the end."""

    def __init__(self, path: Path):
        try:
            import sentencepiece
        except Exception as error:  # a broken wheel fails in many ways
            raise EncoderError(
                f"{path} needs sentencepiece, which does not import here ({brief(error)}). Install it with `pip install "
                "sentencepiece`, or put the model's tokenizer.json beside the weights."
            ) from error
        try:
            self.content = read_bounded(path, MOST_BYTES)
            self.library = sentencepiece.SentencePieceProcessor(model_proto=self.content)
        except Exception as error:  # the file system's errors, and the library's own
            raise EncoderError(
                f"The tokenizer in {path} cannot be loaded ({brief(error)}). Download it again."
            ) from error
        self.name, self.end = path.name, self.library.eos_id()
        if self.end < 0:
            raise EncoderError(f"The tokenizer in {path} has no </s>, so it is not a SigLIP's. Download it again.")

    def __len__(self) -> int:
        return len(self.library)

    def __call__(self, texts: list[str], max_length: int, **options) -> dict[str, list[list[int]]]:
        rows = [[*row[: max_length - 1], self.end] for row in self.library.encode(texts)]
        return {"input_ids": [row + [self.end] * (max_length - len(row)) for row in rows]}

    def save_pretrained(self, folder: Path) -> None:
        (folder / self.name).write_bytes(self.content)


def _from_files(layout: Layout, folder: Path):
    """The tokenizer in a folder, or None where there is none."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        return None
    if not (folder / "tokenizer.json").is_file():
        return _fitting(_SentencePieces(folder / "spiece.model"), layout, folder)
    try:
        import transformers

        found = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        if found.pad_token is None:
            found.pad_token = PADDING[layout.tokenizer]
        found.padding_side = "right"
    except Exception as error:  # each tokenizer class has errors of its own
        raise EncoderError(
            f"The tokenizer in {folder} cannot be loaded ({brief(error)}). Download it again."
        ) from error
    return _fitting(found, layout, folder)


def _fitting(found, layout: Layout, folder: Path):
    if len(found) > layout.vocabulary:
        raise EncoderError(
            f"The tokenizer in {folder} has {len(found)} tokens, the model {layout.vocabulary}: it is another model's. Put the "
            "weights into a folder of their own, with their own tokenizer."
        )
    return found


def _open_clips(layout: Layout):
    """open_clip's tokenizer: one vocabulary serves every CLIP."""
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except Exception as error:  # a broken wheel fails in many ways
        raise EncoderError(
            f"The file has no tokenizer beside it, and open_clip's does not import here ({brief(error)}). Put "
            "tokenizer.json and config.json beside the weights, or `pip install open_clip_torch`."
        ) from error
    if layout.vocabulary != VOCABULARY:
        raise EncoderError(
            f"This CLIP knows {layout.vocabulary} tokens, not the usual {VOCABULARY}, and has no tokenizer beside it. Put its "
            "tokenizer.json and config.json beside the weights."
        )
    return SimpleTokenizer(context_length=layout.context)
