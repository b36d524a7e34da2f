"""The files of a bundle as they are written: under a temporary name, then under one that carries their hash."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ..bundle.bundle import matrix_header
from ..bundle.edit_heads import WORK
from ..bundle.records import Record
from ..files import disk_in_words
from ..photos.keep import suffix_of
from ..photos.licenses import NOT_STATED
from .shards import Item

PART_BYTES = 1 << 30  # pack files stay under 2 GiB, which every file system and hub takes


class HashedFile:
    """Writes a file under a temporary name and gives it its final, hash-carrying name when it is whole."""

    def __init__(self, folder: Path, stem: str, suffix: str, role: str):
        self._folder, self._stem, self._suffix, self._role = folder, stem, suffix, role
        self._temporary = folder / WORK / f"{stem}{suffix}"
        self._file: BinaryIO = open(self._temporary, "wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        with disk_in_words(self._temporary, len(data)):
            self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> dict:
        """Finish; returns the file's entry for the manifest."""
        with disk_in_words(self._temporary):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        digest = self._digest.hexdigest()
        name = f"{self._stem}-{digest[:12]}{self._suffix}"
        os.replace(self._temporary, self._folder / name)
        return {"path": name, "bytes": self.size, "sha256": digest, "role": self._role}


class Pack:
    """Pictures one after the other in plain tar files, so that any tool can open them and we can read by offset."""

    def __init__(self, folder: Path, role: str):
        self._folder, self._role = folder, role
        self._writer: HashedFile | None = None
        self._part = -1
        self.entries: list[dict] = []

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        if self._writer is None or self._writer.size + len(data) > PART_BYTES:
            self.close()
            self._part += 1
            self._writer = HashedFile(self._folder, f"{self._role}-{self._part:05d}", ".tar", self._role)
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._writer.write(entry.tobuf(tarfile.USTAR_FORMAT))
        offset = self._writer.size
        self._writer.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return self._part, offset, len(data)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.write(bytes(2 * tarfile.BLOCKSIZE))
            self.entries.append(self._writer.close())
            self._writer = None


def write_rows(
    out: Path, rows: Iterable[tuple[Record, Item]], count: int, dim: int
) -> tuple[list[dict], dict[str, int]]:
    """Write `count` records with their vectors and pictures beside the files that are there. Returns the manifest's
    entries of the new files, and how many photos state which license."""
    embeddings = HashedFile(out, "embeddings", ".safetensors", "embeddings")
    embeddings.write(matrix_header(count, dim))
    records = HashedFile(out, "records", ".jsonl", "records")
    pictures, thumbnails = Pack(out, "pictures"), Pack(out, "thumbnails")
    licences: Counter[str] = Counter()
    for record, item in rows:
        embeddings.write(item.embedding.tobytes())
        small = thumbnails.add(f"{record.id}.jpg", item.thumbnail) if item.thumbnail else None
        name = record.id + suffix_of(item.picture)
        placed = replace(record, picture=pictures.add(name, item.picture), thumbnail=small)
        records.write(placed.line())
        licences[record.licence or NOT_STATED] += 1
    pictures.close()
    thumbnails.close()
    return [embeddings.close(), records.close(), *pictures.entries, *thumbnails.entries], dict(licences)
