"""Reads the pictures that a generator painted under each arm (none, random, normal, reflective, oracle ...) and computes
their vectors."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
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
    arms: Mapping[str, Sequence[Picture]],
    encoder: Encoder,
    longest: int,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(M, D) float32 raw vectors of the M different files of all arms, and {arm: (N,) rows of its pictures}: arms share
    many pictures. Each picture is shrunk and encoded as a JPEG like a bundle's photos, so that neither its size nor its
    file format gives it away. PhotoError names a picture that cannot be read."""
    places: dict[Path, int] = {}
    rows = {
        arm: np.array([places.setdefault(p.file, len(places)) for p in pictures], int) for arm, pictures in arms.items()
    }
    sources = [lambda f=file: encode_jpeg(shrink(decode(read_bytes(f), f.name), longest)) for file in places]
    return _vectors(sources, [_name(file, longest) for file in places], encoder, folder, progress), rows


def _name(file: Path, longest: int) -> list:
    stat = file.stat() if file.is_file() else None
    return [longest, str(file.resolve()), stat and [stat.st_size, stat.st_mtime_ns]]


def photo_vectors(
    bundle: Bundle, encoder: Encoder, folder: Path, progress: Progress = lambda done, total: None
) -> np.ndarray:
    """(N, D) float32 raw vectors of a bundle's photos: the bundle's own if the encoder is the one it was made with."""
    if bundle.manifest.encoder["fingerprint"] == encoder.fingerprint:
        return np.asarray(bundle.embeddings, np.float32)
    records = list(bundle.records)
    names = [[bundle.id, record.id] for record in records]
    return _vectors([lambda r=record: bundle.jpeg(r) for record in records], names, encoder, folder, progress)


def _vectors(sources: Sequence[Callable[[], bytes]], names: list, encoder: Encoder, folder: Path, progress: Progress):
    """(N, D) float32. What the folder does not hold is encoded, CACHED pictures at a time, each in a file of its own, so
    that an interrupted run resumes and processes may share a folder. Names say everything that a picture depends on."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(folder)
    shelf = sha256_bytes(encoder.fingerprint.encode())[:16]
    keys = [sha256_bytes(canonical_json([encoder.fingerprint, name]))[:32] for name in names]
    kept = _kept(folder, shelf, set(keys))
    missing = [(key, source) for key, source in zip(keys, sources, strict=True) if key not in kept]
    for at in range(0, len(missing), CACHED):
        part = missing[at : at + CACHED]
        encoded = [_encode([source for _, source in part[i : i + BATCH]], encoder) for i in range(0, len(part), BATCH)]
        # Bundles store the raw vectors of photos as fp16; vectors of pictures are rounded in the same way.
        vectors, stored = np.concatenate(encoded).astype(np.float16), [key for key, _ in part]
        write_atomic(
            folder / f"{shelf}-{stored[0]}.safetensors", save({"vectors": vectors}, {"keys": json.dumps(stored)})
        )
        kept.update(zip(stored, vectors, strict=True))
        progress(at + len(part), len(missing))
    return np.stack([kept[key] for key in keys]).astype(np.float32)


def _kept(folder: Path, shelf: str, wanted: set[str]) -> dict[str, np.ndarray]:
    """{key: vector (D,)} of the wanted ones that the folder holds."""
    from safetensors import safe_open

    kept: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob(f"{shelf}-*.safetensors")):
        with safe_open(path, "numpy") as file:
            keys = json.loads(file.metadata()["keys"])
            if not wanted.isdisjoint(keys):
                kept.update(
                    (key, row) for key, row in zip(keys, file.get_tensor("vectors"), strict=True) if key in wanted
                )
    return kept


def _encode(sources: Sequence[Callable[[], bytes]], encoder: Encoder) -> np.ndarray:
    return encoder.encode_images(torch.stack([encoder.prepare(decode(source())) for source in sources])).numpy()


def text_vectors(texts: Sequence[str], encoder: Encoder, batch: int = 256) -> np.ndarray:
    """(N, D) float32 unit vectors."""
    return unit_rows(np.concatenate([encoder.encode_texts(list(texts[at : at + batch])).numpy()
                                     for at in range(0, len(texts), batch)]))  # fmt: skip
