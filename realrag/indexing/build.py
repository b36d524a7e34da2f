"""`realrag index`: bring a bundle in step with a folder of photos, encoding only what is new.

All new files are written under names that carry their hash; the manifest is replaced last and at once. So a reader, or
a power cut, meets the old bundle or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ..bundle.bundle import ENCODER, MANIFEST, Bundle, manifest_bytes, matrix_header
from ..bundle.edit_heads import WORK, heads_to_be
from ..bundle.head_entries import heads_content
from ..bundle.records import Record, record_id
from ..encoders.base import Encoder
from ..errors import BundleError, EncoderError, RealRAGError
from ..files import fsync_folder, sha256_file, sweep_temporaries, write_atomic
from ..photos.captions import Credit
from ..photos.scan import Candidate, Library, Progress, Rejected, scan
from .shards import Item, Sizes, encode_all, read_shard, shard_parts, shard_words, suited
from .workers import at_work, checked, wait_for_others

PART_BYTES = 1 << 30  # pack files stay under 2 GiB, which every file system and hub takes


@dataclass
class Report:
    """What became of every photo file: found = indexed + duplicates + rejected."""

    found: int = 0
    indexed: int = 0
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    encoded: int = 0  # photos that went through the encoder in this run
    total: int = 0  # photos in the bundle afterwards
    removed: int = 0
    bundle_id: str = ""  # empty where another process puts the bundle together


class _Writer:
    """Writes a file under a temporary name and gives it its final, hash-carrying name when it is whole."""

    def __init__(self, folder: Path, stem: str, suffix: str, role: str):
        self._folder, self._stem, self._suffix, self._role = folder, stem, suffix, role
        self._temporary = folder / WORK / f"{stem}{suffix}"
        self._file: BinaryIO = open(self._temporary, "wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> dict:
        """Finish; returns the file's entry for the manifest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        digest = self._digest.hexdigest()
        name = f"{self._stem}-{digest[:12]}{self._suffix}"
        os.replace(self._temporary, self._folder / name)
        return {"path": name, "bytes": self.size, "sha256": digest, "role": self._role}


class _Pack:
    """JPEGs one after the other in plain tar files, so that any tool can open them and we can read by offset."""

    def __init__(self, folder: Path, role: str):
        self._folder, self._role = folder, role
        self._writer: _Writer | None = None
        self._part = -1
        self.entries: list[dict] = []

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        if self._writer is None or self._writer.size + len(data) > PART_BYTES:
            self.close()
            self._part += 1
            self._writer = _Writer(self._folder, f"{self._role}-{self._part:05d}", ".tar", self._role)
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


def build(
    photos: Path,
    out: Path,
    encoder: Encoder,
    *,
    mode: str = "sync",
    captions: Path | None = None,
    default: Credit = Credit(),
    sizes: Sizes | None = None,
    head: Path | Mapping[str, Path] | None = None,
    reuse: Path | None = None,
    with_encoder: bool = False,
    batch: int = 0,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    on_scan: Progress = lambda done, total: None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Make or update the bundle `out` from the folder `photos`.

    mode: "sync" (the bundle shall hold what the folder holds), "add" (and keep the rest) or "remove" (take these photos
    out). head: a head's file, which takes the place of the only one there was; or files by name, added or in the place
    of those of the same name. A photo is known by its content, so renaming one or rewriting its caption encodes
    nothing.
    reuse: another bundle whose vectors and pictures a new `out` takes over, where `encoder` has the same image tower. A
    run that was stopped goes on where it was. batch, workers: photos a step of the encoder and decoding threads, 0 for
    what suits its device. share: (r, w) where w processes with the same arguments do the work, numbered r; the bundle
    is the same as one process's, and process 0 writes it. Raises RealRAGError; the bundle that was there stays as it
    was until the end.
    """
    out, (rank, world) = Path(out), checked(share)
    batch, workers = suited(encoder, batch, workers, world)
    fresh = not out.exists() or not any(name for name in os.listdir(out) if name != ".DS_Store")
    if not fresh and not (out / MANIFEST).is_file() and not (out / WORK).is_dir():
        raise RealRAGError(f"{out} holds other things and is not a bundle. Give --out a new or empty folder.")
    with at_work(out / WORK, rank):
        for folder in (out, out / WORK):
            sweep_temporaries(folder)
        old = (
            None if rank else _open(out, encoder, sizes)
        )  # before the long look at the photos, so as to refuse at once
        source = old or _source(reuse, encoder, sizes)
        library = scan(photos, captions, default, workers=workers, progress=on_scan)
        old = _open(out, encoder, sizes) if rank else old  # after it: process 0 may have finished meanwhile
        source = old or source
        if source:
            sizes = Sizes(source.manifest.picture_longest, source.manifest.thumbnail_longest)
        sizes = sizes or Sizes()
        report = Report(library.found, duplicates=library.duplicates, rejected=list(library.rejected))
        known = {record.sha256: (row, record) for row, record in enumerate(source.records)} if source else {}
        new = [] if mode == "remove" else [item for item in library.candidates if item.sha256 not in known]
        parts = shard_parts(new, encoder, out / WORK, sizes, batch)
        how = {"batch": batch, "workers": workers, "progress": progress}
        report.encoded = encode_all(parts[rank::world], encoder, sizes, **how)
        if rank:
            return report
        if world > 1:
            wait_for_others(parts, out / WORK, world, progress)
            report.encoded += encode_all(parts, encoder, sizes, **how)
        shards = [path for path, _ in parts]
        refused = _rejected_late(shards, library, report)
        wanted = _wanted(library, known, mode, refused)
        if not wanted:
            reasons = "; ".join(item.message for item in report.rejected[:3])
            raise RealRAGError(
                f"No photo is left to index in {photos}. {reasons or 'It holds no JPEG, PNG or WebP file.'}"
            )
        if mode == "remove":
            report.removed = len(known) - len(wanted)
        elif mode == "sync" and old:
            report.removed = len(known.keys() - {sha for sha, _ in wanted})
        report.indexed = len(library.candidates) - len(refused)
        report.total = len(wanted)
        report.bundle_id = _assemble(out, wanted, known, source, old, shards, encoder, sizes, head, with_encoder)
        _clean(out)
    return report


def _open(out: Path, encoder: Encoder, sizes: Sizes | None) -> Bundle | None:
    """The bundle in `out`, if there is one, made as the new one shall be; read again where it was replaced just then."""
    while (out / MANIFEST).is_file():
        before = (out / MANIFEST).read_bytes()
        try:
            old = Bundle(out)
        except BundleError:
            if (out / MANIFEST).read_bytes() == before:
                raise
            continue
        _refuse_mixing(old, out, encoder, sizes)
        return old
    return None


def _refuse_mixing(old: Bundle, out: Path, encoder: Encoder, sizes: Sizes | None) -> None:
    made_with = old.manifest.encoder
    if made_with["fingerprint"] != encoder.fingerprint:
        raise EncoderError(
            f"{out} was made with the encoder {made_with['name']} ({made_with['fingerprint'][:12]}), this is {encoder.name} "
            f"({encoder.fingerprint[:12]}); their vectors cannot be compared. Use --encoder {made_with['name']}, or build a "
            "new bundle."
        )
    _refuse_other_sizes(old, out, sizes)


def _refuse_other_sizes(old: Bundle, out: Path, sizes: Sizes | None) -> None:
    kept = old.manifest.picture_longest, old.manifest.thumbnail_longest
    if sizes and (sizes.picture, sizes.thumbnail) != kept:
        raise BundleError(
            f"{out} keeps pictures of {kept[0]} px and thumbnails of {kept[1]} px. Build a new bundle for other sizes."
        )


def _source(reuse: Path | None, encoder: Encoder, sizes: Sizes | None) -> Bundle | None:
    """The bundle whose vectors a new one takes over."""
    if reuse is None:
        return None
    source = Bundle(reuse)
    if not encoder.accepts_vectors_of(source.manifest.encoder):
        raise EncoderError(
            f"The photo vectors of {reuse} are of the encoder {source.manifest.encoder['name']}, and {encoder.name} has another "
            "image tower. Leave --reuse away: the photos must be encoded again."
        )
    _refuse_other_sizes(source, reuse, sizes)
    return source


def _rejected_late(shards: list[Path], library: Library, report: Report) -> set[str]:
    """Move photos that turned out damaged while decoding from the candidates to the rejected; returns their hashes."""
    late: dict[str, tuple[str, str]] = {}
    for shard in shards:
        late.update(shard_words(shard)[1])
    for candidate in library.candidates:
        if candidate.sha256 in late:
            report.rejected.append(Rejected(candidate.file, *late[candidate.sha256]))
    report.rejected.sort(key=lambda item: item.file)
    # Copies of a photo that cannot be decoded are not duplicates of anything indexed: they share its fate.
    bad = {item.file: item for item in report.rejected}
    for file, first in [pair for pair in report.duplicates if pair[1] in bad]:
        report.duplicates.remove((file, first))
        report.rejected.append(replace(bad[first], file=file))
    return set(late)


def _wanted(library: Library, known: dict, mode: str, refused: set[str]) -> list[tuple[str, Record]]:
    """(sha256, record without places) of what the bundle shall hold, in row order: by file name, then id."""
    here = {item.sha256: _record(item) for item in library.candidates if item.sha256 not in refused}
    there = {sha: record for sha, (_, record) in known.items()}
    if mode == "remove":
        chosen = {sha: record for sha, record in there.items() if sha not in here}
    elif mode == "add":
        chosen = {**there, **here}
    else:
        chosen = here
    return sorted(chosen.items(), key=lambda pair: (pair[1].file, pair[0]))


def _record(item: Candidate) -> Record:
    credit, nowhere = item.credit, (0, 0, 0)
    return Record(
        record_id(item.sha256), item.sha256, credit.caption, credit.class_name, credit.licence, credit.author, credit.source,
        item.file, item.width, item.height, nowhere, nowhere,
    )  # fmt: skip


def _items(wanted, known: dict, source: Bundle | None, shards: list[Path]) -> Iterator[tuple[Record, Item]]:
    """Each wanted record with its vector and pictures, from the source bundle or from a shard; one shard in memory at a
    time."""
    place = {sha: shard for shard in shards for sha in shard_words(shard)[0]}
    open_path, open_items = None, {}
    for sha, record in wanted:
        if sha in known:
            row, before = known[sha]
            thumbnail = source.jpeg(before, "thumbnails") if before.thumbnail else None
            yield record, Item(sha, source.embeddings[row], source.jpeg(before), thumbnail)
            continue
        if place[sha] != open_path:
            open_path = place[sha]
            open_items = {item.sha256: item for item in read_shard(open_path)}
        yield record, open_items[sha]


def _assemble(out, wanted, known, source, old, shards, encoder, sizes, head, with_encoder) -> str:
    """Write all files of the new bundle beside the old ones, then the manifest; returns the bundle's id."""
    embeddings = _Writer(out, "embeddings", ".safetensors", "embeddings")
    embeddings.write(matrix_header(len(wanted), encoder.dim))
    records = _Writer(out, "records", ".jsonl", "records")
    pictures, thumbnails = _Pack(out, "pictures"), _Pack(out, "thumbnails")
    licences: Counter[str] = Counter()
    for record, item in _items(wanted, known, source, shards):
        embeddings.write(item.embedding.tobytes())
        name = f"{record.id}.jpg"
        small = thumbnails.add(name, item.thumbnail) if item.thumbnail else None
        placed = replace(record, picture=pictures.add(name, item.picture), thumbnail=small)
        records.write(placed.line())
        licences[record.licence or "not stated"] += 1
    pictures.close()
    thumbnails.close()
    files = [embeddings.close(), records.close(), *pictures.entries, *thumbnails.entries]
    described = encoder.describe()
    heads = heads_to_be(out, old.manifest if old else None, head, described)
    files += [vars(each.file) for each in heads]
    carried = [file for file in old.manifest.files if file.role == "encoder"] if old else []
    if (with_encoder or not encoder.portable) and not carried:
        for path in encoder.save_pretrained(out / ENCODER):
            files.append(_entry(out, path, "encoder"))
    files += [vars(file) for file in carried]
    content = {
        "encoder": described,
        **heads_content(heads),
        "count": len(wanted),
        "dim": encoder.dim,
        "picture_longest": sizes.picture,
        "thumbnail_longest": sizes.thumbnail,
        "licences": dict(licences),
        "files": sorted(files, key=lambda file: file["path"]),
    }
    fsync_folder(out)
    data = manifest_bytes(content)
    write_atomic(out / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()


def _entry(out: Path, path: Path, role: str) -> dict:
    """The manifest's entry of a file that another library wrote, made sure to be on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return {
        "path": path.relative_to(out).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path), "role": role
    }  # fmt: skip


def _clean(out: Path) -> None:
    """Remove the working folder and the files of ours that the new manifest no longer lists."""
    listed = {file["path"] for file in json.loads((out / MANIFEST).read_bytes())["files"]}
    for path in out.iterdir():
        ours = path.name.startswith(("embeddings-", "records-", "pictures-", "thumbnails-", "head-"))
        if path.is_file() and ours and path.name not in listed:
            path.unlink()
    shutil.rmtree(out / WORK, ignore_errors=True)
