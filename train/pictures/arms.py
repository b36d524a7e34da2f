"""Reads the pictures that a generator painted under each arm (none, random, normal, reflective, oracle ...) and computes
their vectors."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sweep_temporaries, write_atomic
from realrag.photos.decode import decode, read_bytes
from realrag.photos.keep import encode_jpeg, shrink
from realrag.photos.scan import photo_files
from realrag.validation import strict_json

from ..dataset import Prompt, class_key
from ..tables import read_csv, read_lines

BATCH, CACHED = 32, 256  # pictures encoded at once, and cached in one file
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """One painted picture. seed: its number among the pictures of its prompt; arms with the same seed used the same
    noise. references: ids of the library photos that it was painted with, None if unknown."""

    file: Path
    prompt: str
    class_name: str
    seed: int
    references: tuple[str, ...] | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt, self.seed


def read_arm(path: Path, prompts: Sequence[Prompt]) -> list[Picture]:
    """The pictures of one arm, sorted by prompt and seed.

    path is a folder or a table. A folder has one subfolder per prompt, named like the prompt or its class; its n-th
    picture by name has seed n. A table (.csv or .jsonl) has the columns file (relative to the table) and prompt and,
    optionally, class, seed and references (ids as a list or separated by spaces). RealRAGError names what is wrong.
    """
    path = Path(path)
    if path.is_dir():
        pictures = _from_folder(path, prompts)
    elif path.suffix.lower() in (".csv", ".jsonl"):
        pictures = _from_table(path, {p.prompt: p.class_name for p in prompts})
    else:
        raise RealRAGError(
            f"{path} is neither a folder of pictures nor a .csv or .jsonl table of them. Give one of the two."
        )
    if not pictures:
        raise RealRAGError(f"There is no picture in {path}. Put each into a subfolder named like its prompt or class.")
    pictures.sort(key=lambda picture: picture.key)
    for one, next_one in itertools.pairwise(pictures):
        if one.key == next_one.key:
            raise RealRAGError(f"{path} has two pictures of {one.prompt!r} with seed {one.seed}: {one.file.name} and "
                               f"{next_one.file.name}. A prompt and seed name one picture.")  # fmt: skip
    return pictures


def _from_folder(folder: Path, prompts: Sequence[Prompt]) -> list[Picture]:
    said = {class_key(p.prompt): [p] for p in prompts}
    for prompt in prompts:
        if (name := class_key(prompt.class_name)) and name not in {class_key(p.prompt) for p in prompts}:
            said.setdefault(name, []).append(prompt)
    files: dict[str, list[Path]] = {}
    for file in photo_files(folder):
        files.setdefault(Path(file).parent.name, []).append(folder / file)
    pictures = []
    for name, found in files.items():
        meant = said.get(class_key(name), [])
        if len(meant) != 1:
            how = f"the class of {len(meant)} prompts" if meant else "neither a prompt nor a prompt's class"
            raise RealRAGError(
                f"The folder {name!r} in {folder} has the name of {how}. Name it like one of the prompts."
            )
        pictures += [Picture(f, meant[0].prompt, meant[0].class_name, seed) for seed, f in enumerate(sorted(found))]
    return pictures


def _from_table(path: Path, classes: dict[str, str]) -> list[Picture]:
    try:
        rows: list[Any]
        if path.suffix.lower() == ".csv":
            rows = read_csv(path)
        else:
            rows = [strict_json(line.encode()) for line in read_lines(path) if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise RealRAGError(
            f"The table {path} cannot be read ({error}). Save it as UTF-8, one picture a line."
        ) from None
    pictures, seen = [], {}
    for number, row in enumerate(rows, 1):
        try:
            prompt, file = row["prompt"], row["file"]
            class_name = row.get("class") or classes.get(prompt, "")
            if not (isinstance(file, str) and file and isinstance(prompt, str) and prompt.strip() and class_name):
                raise ValueError("file, prompt or class is empty")
            seed = int(row["seed"]) if str(row.get("seed") or "").strip() else seen.get(prompt, 0)
            given = row.get("references")
            given = given.split() if isinstance(given, str) else given
            references = None if given is None else tuple(str(id) for id in given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RealRAGError(
                f"{path}, picture {number}: {type(error).__name__} {error}. Each needs file and prompt, and class unless "
                "the prompts say it."
            ) from None
        seen[prompt] = seed + 1
        pictures.append(Picture(path.parent / file, prompt, class_name, seed, references))
    return pictures


def with_references(pictures: Sequence[Picture], choices: dict[str, tuple[str, ...]]) -> list[Picture]:
    """The same pictures with the references that `choose` wrote for their prompts. References from a table stay."""
    return [p if p.references is not None else replace(p, references=choices.get(p.prompt)) for p in pictures]


# Vectors


def picture_vectors(
    pictures: Sequence[Picture],
    encoder: Encoder,
    longest: int,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> np.ndarray:
    """(N, D) float32 raw vectors. Each picture is shrunk and encoded as a JPEG like a bundle's photos, so that neither
    its size nor its file format gives it away. PhotoError names a picture that cannot be read."""
    sources = [lambda p=p: encode_jpeg(shrink(decode(read_bytes(p.file), p.file.name), longest)) for p in pictures]
    stats = [p.file.stat() if p.file.is_file() else None for p in pictures]
    names = [
        [longest, str(p.file.resolve()), s and [s.st_size, s.st_mtime_ns]] for p, s in zip(pictures, stats, strict=True)
    ]
    return _vectors(sources, names, encoder, folder, progress)


def photo_vectors(
    bundle: Bundle, encoder: Encoder, folder: Path, progress: Progress = lambda done, total: None
) -> np.ndarray:
    """(N, D) float32 raw vectors of a bundle's photos: the bundle's own if the encoder is the one it was made with."""
    if bundle.manifest.encoder["fingerprint"] == encoder.fingerprint:
        return np.asarray(bundle.embeddings, np.float32)
    sources = [lambda record=record: bundle.jpeg(record) for record in bundle.records]
    return _vectors(sources, [bundle.id], encoder, folder, progress)


def _vectors(sources: Sequence[Callable[[], bytes]], names: list, encoder: Encoder, folder: Path, progress: Progress):
    """Encodes CACHED pictures at a time. Each part is cached in a file named by everything that it depends on, so that
    an interrupted run resumes."""
    from safetensors.numpy import load_file, save

    folder.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(folder)
    key = sha256_bytes(canonical_json([encoder.fingerprint, len(sources), names]))[:32]
    parts = []
    for start in range(0, len(sources), CACHED):
        path = folder / f"{key}-{start}.safetensors"
        if not path.is_file():
            rows = [
                _encode(sources[at : at + BATCH], encoder)
                for at in range(start, min(start + CACHED, len(sources)), BATCH)
            ]
            # Bundles store the raw vectors of photos as fp16; vectors of pictures are rounded in the same way.
            write_atomic(path, save({"vectors": np.concatenate(rows).astype(np.float16)}))
        parts.append(load_file(path)["vectors"][: len(sources) - start].astype(np.float32))
        progress(min(start + CACHED, len(sources)), len(sources))
    return np.concatenate(parts)


def _encode(sources: Sequence[Callable[[], bytes]], encoder: Encoder) -> np.ndarray:
    return encoder.encode_images(torch.stack([encoder.prepare(decode(source())) for source in sources])).numpy()


def text_vectors(texts: Sequence[str], encoder: Encoder, batch: int = 256) -> np.ndarray:
    """(N, D) float32 unit vectors."""
    return unit_rows(np.concatenate([encoder.encode_texts(list(texts[at : at + batch])).numpy()
                                     for at in range(0, len(texts), batch)]))  # fmt: skip
