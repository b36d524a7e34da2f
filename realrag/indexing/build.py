"""`realrag index`: bring a bundle in step with a folder of photos, encoding only what is new.

All new files are written under names that carry their hash; the manifest is replaced last and at once. So a reader, or
a power cut, meets the old bundle or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..bundle.bundle import ENCODER, MANIFEST, Bundle, manifest_bytes, optional_content
from ..bundle.edit_heads import WORK, heads_to_be
from ..bundle.head_entries import PLAIN, heads_content
from ..bundle.records import Record, RecordTable, class_key, record_id
from ..encoders.base import Encoder
from ..errors import BundleError, EncoderError, RealRAGError, TooManyError
from ..files import fsync_folder, sha256_file, sweep_temporaries, write_atomic
from ..library import captions_to_ask
from ..photos.captions import of_file_name
from ..photos.credit import spoken
from ..photos.licenses import NOT_STATED
from ..photos.other_names import read_names
from ..photos.scan import KEPT_BYTES, Candidate, Library, Progress, Rejected, scan
from ..prompts.words import is_a_name
from .bundle_files import write_rows
from .levels import measure_levels
from .options import MOST_CLASSES, IndexOptions, Report
from .shards import DEFAULT_SIZES, Item, Sizes, encode_all, read_shard, shard_contents, shard_parts, suited
from .workers import check_rank, rank_lock, sweep_locks, wait_for_others


def build(
    photos: Path,
    out: Path,
    encoder: Encoder,
    options: IndexOptions = IndexOptions(),
    *,
    on_scan: Progress = lambda done, total: None,
    progress: Progress = lambda done, total: None,
    **changes: Any,
) -> Report:
    """Make or update the bundle `out` from the folder `photos`; `changes` are fields of `options`.

    A photo is known by its content, so renaming one or rewriting its caption encodes nothing. A run that was stopped
    goes on where it was. Where several processes share the work, the bundle is the same as one process's. Raises
    RealRAGError; the bundle that was there stays as it
    was until the end.
    """
    options, out = replace(options, **changes), Path(out)
    check_rank(options.rank, options.world_size)
    if not _is_fresh(out) and not (out / MANIFEST).is_file() and not (out / WORK).is_dir():
        raise RealRAGError(f"{out} holds other things and is not a bundle. Give --out a new or empty folder.")
    with rank_lock(out / WORK, options.rank):
        return _build_locked(Path(photos), out, encoder, options, on_scan, progress)


def _is_fresh(out: Path) -> bool:
    return not out.exists() or not any(name for name in os.listdir(out) if name != ".DS_Store")


def _build_locked(
    photos: Path, out: Path, encoder: Encoder, options: IndexOptions, on_scan: Progress, progress: Progress
) -> Report:
    rank, world_size, mode, sizes = options.rank, options.world_size, options.mode, options.sizes
    batch, workers = suited(encoder, options.batch, options.workers, world_size)
    for folder in (out, out / WORK):
        sweep_temporaries(folder)
    old = None if rank else _open(out, encoder, sizes)  # before the long look at the photos, so as to refuse at once
    source = old or _source(options.reuse, encoder, sizes)
    there = {record.sha256 for record in source.records} if source else set()
    library = scan(
        photos, options.captions, options.default, archives=True, known=there, keep_bytes=KEPT_BYTES, workers=workers,
        progress=on_scan,
    )  # fmt: skip
    old = _open(out, encoder, sizes) if rank else old  # after it: rank 0 may have finished meanwhile
    source = old or source
    if source:
        manifest = source.manifest
        sizes = Sizes(manifest.picture_longest, manifest.thumbnail_longest, bound=manifest.picture_bound)
    sizes = sizes or DEFAULT_SIZES
    report = Report(library.found, duplicates=library.duplicates, rejected=list(library.rejected))
    report.notes, report.generated = library.notes, library.generated
    known = {record.sha256: (row, record) for row, record in enumerate(source.records)} if source else {}
    new = [] if mode == "remove" else [item for item in library.candidates if item.sha256 not in known]
    parts = shard_parts(new, encoder, out / WORK, sizes, batch)
    how: dict[str, Any] = {"batch": batch, "workers": workers, "progress": progress}
    report.encoded = encode_all(parts[rank::world_size], encoder, sizes, **how)
    if rank:
        return report
    if world_size > 1:
        wait_for_others(parts, out / WORK, world_size, progress)
        report.encoded += encode_all(parts, encoder, sizes, **how)
    shards = [path for path, _ in parts]
    refused = _rejected_late(shards, library, report)
    report.indexed = len(library.candidates) - len(refused)
    kept = _unusable_now(library, known, report) if mode == "sync" and old else {}
    wanted = _wanted(library, known, mode, refused, kept)
    if not wanted:
        reasons = "; ".join(item.message for item in report.rejected[:3])
        raise RealRAGError(f"No photo is left to index in {photos}. {reasons or 'It holds no photo.'}")
    _refuse_many_rejected(report, options.max_rejected)
    if mode == "remove":
        report.removed = len(known) - len(wanted)
    elif mode == "sync" and old:
        report.kept = len(kept)
        _refuse_many_removed(photos, out, library, known, wanted, report, options.max_removed)
        report.removed = len(known.keys() - {sha for sha, _ in wanted})
    report.total = len(wanted)
    report.reused = 0 if old else sum(sha in known for sha, _ in wanted)
    items = _items(wanted, known, source, shards)
    files, licences = write_rows(out, items, len(wanted), encoder.dim)
    report.unlicensed = licences.get(NOT_STATED, 0)
    report.bundle_id = _finish(library, out, files, licences, old, encoder, sizes, options, report)
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
    if not encoder.is_encoder_of(made_with):
        raise EncoderError(
            f"{out} was made with the encoder {made_with['name']} ({made_with['fingerprint'][:12]}), this is {encoder.name} "
            f"({encoder.fingerprint[:12]}); their vectors cannot be compared. Use --encoder {made_with['name']}, or build a "
            f"new bundle. {encoder.difference(made_with)}"
        )
    _refuse_other_sizes(old, out, sizes)


def _refuse_other_sizes(old: Bundle, out: Path, sizes: Sizes | None) -> None:
    kept = old.manifest.picture_longest, old.manifest.thumbnail_longest, old.manifest.picture_bound
    if sizes and (sizes.picture, sizes.thumbnail, sizes.bound) != kept:
        what = f"{kept[0]} x {kept[0]} pixels" if kept[2] == "area" else f"{kept[0]} px on the longest side"
        raise BundleError(
            f"{out} keeps pictures of at most {what} and thumbnails of {kept[1]} px. Build a new bundle for other sizes."
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
        late.update(shard_contents(shard)[1])
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


def _unusable_now(library: Library, known: dict, report: Report) -> dict[str, Record]:
    """The bundle's photos whose files are still there, but cannot be read or decoded today: nobody took them out."""
    here = {item.sha256 for item in library.candidates}
    rejected = {item.file for item in report.rejected}

    def is_rejected(file: str) -> bool:
        return file in rejected or any(str(parent) in rejected for parent in PurePosixPath(file).parents)

    return {sha: record for sha, (_, record) in known.items() if sha not in here and is_rejected(record.file)}


def _refuse_many_removed(
    photos: Path,
    out: Path,
    library: Library,
    known: dict,
    wanted: list[tuple[str, Record]],
    report: Report,
    most: float,
) -> None:
    """TooManyError where more than `most` percent of the bundle's photos are gone from the folder. A file that now
    holds another photo is not gone."""
    there = {item.file for item in library.candidates} | {file for file, _ in library.duplicates}
    staying = {sha for sha, _ in wanted}
    gone = sorted(record.file for sha, (_, record) in known.items() if sha not in staying and record.file not in there)
    percent = 100 * len(gone) / max(1, len(known))
    if percent > most:
        raise TooManyError(
            f"{len(gone)} of the {len(known)} photos of {out} are no longer in {photos}, such as {gone[0]}: {percent:.1f} %, "
            f"more than --max-removed {most:g}. Nothing was changed. Check that all folders and disks are there; to take "
            f"these photos out, run again with --max-removed {math.ceil(percent)}.",
            report,
        )


def _refuse_many_rejected(report: Report, most: float) -> None:
    percent = 100 * len(report.rejected) / max(1, report.found)
    if percent > most:
        raise TooManyError(
            f"{percent:.1f} % of the photos were rejected, more than --max-rejected {most:g}. Nothing was changed. Mend or "
            f"remove them; to leave them out, run again with --max-rejected {math.ceil(percent)}.",
            report,
        )


def _wanted(
    library: Library, known: dict, mode: str, refused: set[str], kept: dict[str, Record]
) -> list[tuple[str, Record]]:
    """(sha256, record without places) of what the bundle shall hold, in row order: by file name, then id."""
    here = {item.sha256: _record(item) for item in library.candidates if item.sha256 not in refused}
    there = {sha: record for sha, (_, record) in known.items()}
    if mode == "remove":
        chosen = {sha: record for sha, record in there.items() if sha not in here}
    elif mode == "add":
        chosen = {**there, **{sha: _said_before(there.get(sha), record) for sha, record in here.items()}}
    else:
        chosen = {**kept, **here}
    return sorted(chosen.items(), key=lambda pair: (pair[1].file, pair[0]))


def _said_before(before: Record | None, now: Record) -> Record:
    """A photo that is added again keeps what this run does not say: of pets alone, pets/zoe/1.jpg has the class zoe, and of
    pets/zoe alone it would have none, and no caption of a table in pets."""
    if before is None:
        return now
    fields = ["class_name", "licence", "author", "source"]
    said: dict[str, Any] = {name: getattr(now, name) or getattr(before, name) for name in fields}
    if _is_named_only(now) and not (now.class_name and _is_named_only(before)):
        said["caption"] = before.caption
    if before.file.endswith(f"/{now.file}"):
        said["file"] = before.file
    return replace(now, **said)


def _is_named_only(record: Record) -> bool:
    """Whether the caption is no more than the name of the photo's folder or file."""
    return record.caption in ("", spoken(record.class_name), of_file_name(PurePosixPath(record.file).stem))


def _record(item: Candidate) -> Record:
    credit, nowhere = item.credit, (0, 0, 0)
    return Record(
        record_id(item.sha256), item.sha256, credit.caption, credit.class_name, credit.licence, credit.author, credit.source,
        item.file, item.width, item.height, nowhere, nowhere,
    )  # fmt: skip


def _items(wanted, known: dict, source: Bundle | None, shards: list[Path]) -> Iterator[tuple[Record, Item]]:
    """Each wanted record with its vector and pictures, from the source bundle or from a shard; one shard in memory at a
    time."""
    place = {sha: shard for shard in shards for sha in shard_contents(shard)[0]}
    open_path, open_items = None, {}
    for sha, record in wanted:
        if source and sha in known:
            row, before = known[sha]
            thumbnail = source.jpeg(before, "thumbnails") if before.thumbnail else None
            yield record, Item(sha, source.embeddings[row], source.jpeg(before), thumbnail)
            continue
        if place[sha] != open_path:
            open_path = place[sha]
            open_items = {item.sha256: item for item in read_shard(open_path)}
        yield record, open_items[sha]


def _names(library: Library, classes: Sequence[str], old: Bundle | None, options: IndexOptions, report: Report):
    """The other names of the classes that the bundle has: the table's, and with "add" and "remove" those it had."""
    table = options.names or library.names
    read = read_names(table) if table else []
    before = old.manifest.names if old and (options.mode != "sync" or not table) else ()
    here = {class_key(name) for name in classes if name}
    names = [name for name in dict.fromkeys([*before, *read]) if class_key(name.class_name) in here]
    report.names = len(names)
    report.unmatched_names = sum(class_key(name.class_name) not in here for name in read)
    return names


def _finish(
    library: Library,
    out: Path,
    files: list[dict],
    licences: dict,
    old: Bundle | None,
    encoder: Encoder,
    sizes: Sizes,
    options: IndexOptions,
    report: Report,
) -> str:
    """Write heads, encoder and, last, the manifest; returns the bundle's id. Puts into `report` what it can be asked."""
    described = encoder.describe()
    heads = heads_to_be(out, old.manifest if old else None, options.head, described)
    count = sum(licences.values())
    records = RecordTable(out / next(file["path"] for file in files if file["role"] == "records"), count)
    names = _names(library, records.classes, old, options, report)
    codes = {class_key(name): code for code, name in enumerate(records.classes)}
    others = [(codes[class_key(name.class_name)], name.language, name.name) for name in names]
    levels = measure_levels(out, files, encoder, heads, others, count)
    to_ask = sorted(filter(is_a_name, records.classes), key=str.casefold)
    report.classes, report.class_names = len(to_ask), to_ask[:MOST_CLASSES]
    report.captions = len(captions_to_ask(records))
    report.level = levels.get(PLAIN)
    files = [*files, *(vars(each.file) for each in heads)]
    carried = [file for file in old.manifest.files if file.role == "encoder"] if old else []
    if (options.with_encoder or not encoder.portable) and not carried:
        for path in encoder.save_pretrained(out / ENCODER):
            files.append(_entry(out, path, "encoder"))
    files += [vars(file) for file in carried]
    content = {
        "encoder": described,
        **heads_content(heads),
        **optional_content(names, levels),
        "count": count,
        "dim": encoder.dim,
        "picture_longest": sizes.picture,
        "thumbnail_longest": sizes.thumbnail,
        **({} if sizes.bound == "longest" else {"picture_bound": sizes.bound}),
        "licences": licences,
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
            with suppress(PermissionError):  # Windows: it is open; the next run removes it
                path.unlink()
    for path in (out / WORK).iterdir():
        if not path.name.startswith("lock"):  # locks go as they are let go, and the folder with the last of them
            path.unlink()
    sweep_locks(out / WORK)
