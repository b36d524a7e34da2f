"""The data of mining and training: unit vectors and classes of a bundle's photos, and of the prompts about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.bundle.records import class_key
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import sha256_bytes
from realrag.validation import strict_json

from .tables import read_lines

UNKNOWN_PHOTO, UNKNOWN_PROMPT = -1, -2  # codes without a class, which equal no other


@dataclass(frozen=True)
class Prompt:
    """A text, and what it asks for: the photos of a class; or one photo by its record's id, where that has no class."""

    prompt: str
    class_name: str
    photo: str = ""


@dataclass(frozen=True)
class Material:
    """photos (N, D) and queries (P, D): float32 unit vectors of one encoder. photo_classes (N,), query_classes (P,):
    int64 codes, the same number for the same class."""

    photos: np.ndarray
    photo_classes: np.ndarray
    queries: np.ndarray
    query_classes: np.ndarray


def read_prompts(path: Path) -> list[Prompt]:
    """Lines of {"prompt", "class"}, and "photo" where the prompt is about one photo. RealRAGError names the line that does
    not parse."""
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RealRAGError(
            f"The prompts cannot be read ({error}). Give a UTF-8 file with one JSON object per line."
        ) from None
    prompts = []
    for number, line in enumerate(lines, 1):
        try:
            fields = strict_json(line.encode())
            prompt = Prompt(fields["prompt"], fields["class"], fields.get("photo", ""))
            if not (isinstance(prompt.prompt, str) and prompt.prompt.strip() and isinstance(prompt.class_name, str)):
                raise ValueError("the prompt is empty or not text")
            if not isinstance(prompt.photo, str):
                raise ValueError("the photo is not the id of a record")
        except (ValueError, KeyError, TypeError) as error:
            raise RealRAGError(
                f"{path}, line {number}: {type(error).__name__} {error}. "
                'Each line reads {"prompt": "...", "class": "..."}.'
            ) from None
        prompts.append(prompt)
    if not prompts:
        raise RealRAGError(f"{path} contains no prompts. Write one JSON object per line.")
    return prompts


def prompts_hash(prompts: list[Prompt]) -> str:
    lines = [[each.prompt, each.class_name, *([each.photo] if each.photo else [])] for each in prompts]
    return sha256_bytes(json.dumps(lines).encode())


def class_codes(bundle: Bundle, prompts: list[Prompt]) -> tuple[np.ndarray, np.ndarray]:
    """Class codes of the photos (N,) and of the prompts (P,). A photo that a prompt names has a code of its own."""
    codes: dict[str, int] = {}

    def code(name: str, unknown: int) -> int:
        key = name if name.startswith("\n") else class_key(name)
        return codes.setdefault(key, len(codes)) if key else unknown

    of_name = np.array([code(name, UNKNOWN_PHOTO) for name in bundle.records.classes], np.int64)
    of_prompt = np.array(
        [code(f"\n{each.photo}" if each.photo else each.class_name, UNKNOWN_PROMPT) for each in prompts], np.int64
    )
    of_photo = of_name[np.asarray(bundle.records.class_codes, np.int64)]
    for each, own in zip(prompts, of_prompt, strict=True):
        if each.photo and (row := bundle.records.row_of(each.photo)) is not None:
            of_photo[row] = own
    return of_photo, of_prompt


def load_material(bundle: Bundle, encoder: Encoder, prompts: list[Prompt], batch: int = 256) -> Material:
    """The bundle's own vectors, and those of the prompts by the encoder's text tower."""
    texts = [prompt.prompt for prompt in prompts]
    encoded = [encoder.encode_texts(texts[at : at + batch]).numpy() for at in range(0, len(texts), batch)]
    photo_classes, query_classes = class_codes(bundle, prompts)
    return Material(unit_rows(bundle.embeddings), photo_classes, unit_rows(np.concatenate(encoded)), query_classes)


def photo_classes(bundle: Bundle) -> list[str]:
    """The class name of each row."""
    return [bundle.records.classes[code] for code in bundle.records.class_codes]
