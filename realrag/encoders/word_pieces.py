"""Texts -> ids of word pieces, as BERT cuts them in lower case, by Hugging Face's `tokenizers`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import EncoderError, brief

UNKNOWN, PADDING, START, END = "[UNK]", "[PAD]", "[CLS]", "[SEP]"
LONGEST_WORD = 100  # letters; BERT takes a longer word for unknown


class ReadText(NamedTuple):
    """How far a text was read: the place of the letter after its last word piece, and the words without any piece."""

    end: int
    unknown: tuple[str, ...]


class WordPieces:
    """vocabulary: the pieces in the order of their ids. rows: how many the model has. longest: the most ids of a text."""

    def __init__(self, vocabulary: list[str], rows: int, longest: int):
        ids = {piece: number for number, piece in enumerate(vocabulary)}
        missing = [piece for piece in (UNKNOWN, PADDING, START, END) if piece not in ids]
        if missing or not len(ids) == len(vocabulary) == rows:
            raise EncoderError(
                f"The vocabulary has {len(ids)} word pieces where the model has {rows}"
                + (f", and lacks {missing[0]}" if missing else "")
                + ". Download the encoder again."
            )
        try:
            from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        except Exception as error:  # a broken wheel fails in many ways
            raise EncoderError(
                f"realrag-general needs tokenizers, which does not import here ({brief(error)}). Install it with "
                "`pip install tokenizers`."
            ) from error
        made = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.post_processor = processors.BertProcessing((END, ids[END]), (START, ids[START]))
        made.enable_truncation(longest)
        made.enable_padding(pad_id=ids[PADDING], pad_token=PADDING)
        self.library, self.unknown = made, ids[UNKNOWN]

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """B texts -> ids (B, T) int64 and where they are real (B, T) bool; T is that of the longest text."""
        encoded = self.library.encode_batch([_valid(text) for text in texts])
        ids = torch.tensor([each.ids for each in encoded], dtype=torch.int64)
        return ids, torch.tensor([each.attention_mask for each in encoded], dtype=torch.bool)

    def read(self, text: str) -> ReadText:
        encoded = self.library.encode(_valid(text))
        unknown = [
            text[slice(*place)]
            for number, place in zip(encoded.ids, encoded.offsets, strict=True)
            if number == self.unknown
        ]
        end = max((last for _, last in encoded.offsets), default=0) if encoded.overflowing else len(text)
        return ReadText(end, tuple(dict.fromkeys(unknown)))


def _valid(text: str) -> str:
    """Lone surrogates are no text for the library; each becomes a question mark, so that places stay as they are."""
    return "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
