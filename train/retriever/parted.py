"""The parts of a library on the disk: folders of links, and a bundle of each. Every photo is encoded once."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from realrag.bundle.bundle import MANIFEST, Bundle, unit_rows
from realrag.bundle.records import record_id
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, write_atomic, write_json
from realrag.indexing.build import Report, build
from realrag.indexing.shards import Sizes
from realrag.photos.archives import ARCHIVE_SUFFIXES
from realrag.photos.scan import Candidate, scan

from ..dataset import read_prompts
from ..small_encoder.split import link
from .parts import PARTS, Fractions, assign, near_copies
from .prompts import Described, describe_photos, photos_of, write_prompts
from .recipe import Data

METADATA = "parts.json"
Log = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Places:
    """Where a run keeps its bundles and prompts."""

    folder: Path

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    @property
    def all(self) -> Path:
        return self.folder / "all"

    def bundle(self, part: str) -> Path:
        return self.folder / part

    def prompts(self, part: str) -> Path:
        return self.folder / ("prompts.jsonl" if part == "library" else f"prompts-{part}.jsonl")


def is_parted(data: Data) -> bool:
    """Whether the run parts its photos itself: it does unless the recipe says `parts = []` or has parts of its own."""
    return bool(data.parts) and not data.validation


def part_data(data: Data, places: Places) -> Data:
    """The folders of the parts in place of the photos."""
    table = {name: str(places.parts / name) for name in PARTS}
    return replace(
        data, photos=table["library"], validation=table["validation"], test_photos=data.test_photos or table["gallery"],
        captions="",
    )  # fmt: skip


def make_parts(
    data: Data, places: Places, encoder: Encoder, *, rank: int, world_size: int, log: Log, scanned: Progress,
    progress: Progress,
) -> None:  # fmt: skip
    """Encode all photos into one bundle, part them, and write the bundles and prompts of the parts.

    rank, world_size: this process and the number of processes, which share the encoding. RealRAGError where a test photo
    is also a training photo."""
    captions = Path(data.captions) if data.captions else None
    library = scan(Path(data.photos), captions, archives=True, progress=scanned)
    test = scan(Path(data.test_photos), captions, archives=True).candidates if data.test_photos else []
    refuse_shared(library.candidates, test, data)
    asked = _asked(library.candidates, test, data, encoder)
    before = _earlier(places)
    if _finished(places, before, asked):
        return
    if rank == 0 and before.get("key") != asked["key"]:  # bundles of other parts, or of a run that parted nothing
        for name in PARTS:
            shutil.rmtree(places.bundle(name), ignore_errors=True)
    sizes = Sizes(picture=data.picture_size)
    how: dict[str, Any] = {"sizes": sizes, "rank": rank, "world_size": world_size, "progress": progress}
    report = build(Path(data.photos), places.all, encoder, captions=captions, **how)
    check_rejected(report, data.photos, data.max_rejected)
    if rank:
        log(f"{data.photos}: {report.encoded} photos encoded by process {rank} of {world_size}")
        return
    log(f"{data.photos}: {report.total} photos, {report.encoded} encoded now, {len(report.rejected)} rejected")
    if test:
        build(
            Path(data.test_photos), places.bundle("gallery"), encoder, captions=captions, sizes=sizes, progress=progress
        )
    bundles = [Bundle(places.all, default_cache())]
    bundles += [Bundle(places.bundle("gallery"), default_cache())] if test else []
    rows = [(bundle, row) for bundle in bundles for row in range(len(bundle.records))]
    groups = _groups(places, bundles, rows, progress)
    parts, metadata = _part(library.candidates, bundles, groups, data)
    _write(library.candidates, parts, places, asked | metadata)
    log(_told(metadata))
    for name in PARTS[: 2 if test else 3]:
        if any(parts[name]):
            build(places.parts / name, places.bundle(name), encoder, sizes=sizes, reuse=places.all, progress=progress)
        else:
            shutil.rmtree(places.bundle(name), ignore_errors=True)
    _write_prompts(library.candidates, test, parts, data, places, captions)
    write_json(places.parts / METADATA, asked | metadata | {"done": True})
    shutil.rmtree(places.all, ignore_errors=True)
    (places.folder / "near-copies.json").unlink(missing_ok=True)


def _groups(
    places: Places, bundles: Sequence[Bundle], rows: list[tuple[Bundle, int]], progress: Progress
) -> np.ndarray:
    """The groups of near-copies of all photos, kept beside the bundle of all, so that a stopped run finds them once."""
    file, key = places.folder / "near-copies.json", [bundle.id for bundle in bundles]
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_bytes())
        if found["of"] == key and len(found["groups"]) == len(rows):
            return np.array(found["groups"])
    groups = near_copies(
        np.concatenate([unit_rows(bundle.embeddings) for bundle in bundles]),
        lambda row: rows[row][0].image(rows[row][0].records[rows[row][1]]),
        progress,
    )
    write_json(file, {"of": key, "groups": groups.tolist()})
    return groups


def refuse_shared(library: Sequence[Candidate], test: Sequence[Candidate], data: Data) -> None:
    """RealRAGError if a test photo has the content of a library photo."""
    known = {photo.sha256: photo.file for photo in library}
    shared = [photo for photo in test if photo.sha256 in known]
    if shared:
        raise RealRAGError(
            f"{len(shared)} of the {len(test)} photos in {data.test_photos} are in {data.photos} too: {shared[0].file} is "
            f"{known[shared[0].sha256]}. Figures on photos that were trained on say nothing. Leave out --test-photos: the "
            "photos are then parted into train, validation and test. Or take them out of one of the two folders."
        )


def _asked(library: Sequence[Candidate], test: Sequence[Candidate], data: Data, encoder: Encoder) -> dict:
    """What the parts depend on."""

    def listed(photos):
        return sorted([p.sha256, p.file, p.credit.class_name, p.credit.caption] for p in photos)

    settings = [list(data.parts), data.split_seed, asdict(data.wording), data.picture_size, data.prompts]
    key = [listed(library), listed(test), settings, encoder.fingerprint]
    return {"key": sha256_bytes(canonical_json(key)), "seed": data.split_seed, "fractions": list(data.parts)}


def _earlier(places: Places) -> dict:
    """What the parts that are there were made of; empty where there are none."""
    try:
        metadata = json.loads((places.parts / METADATA).read_bytes())
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _finished(places: Places, metadata: dict, asked: dict) -> bool:
    return bool(metadata.get("done")) and metadata.get("key") == asked["key"] and all(
        (places.bundle(name) / MANIFEST).is_file() for name in PARTS if metadata["photos"][name]
    )  # fmt: skip


def _part(library: Sequence[Candidate], bundles: Sequence[Bundle], groups: np.ndarray, data: Data):
    """({part: photos}, metadata). Photos that were rejected while they were decoded are in no part, and near-copies of given
    test photos neither."""
    by_sha = {photo.sha256: photo for photo in library}
    records = list(bundles[0].records)
    photos = [by_sha[record.sha256] for record in records]
    own, tested = groups[: len(photos)], set(groups[len(photos) :].tolist())
    fractions = Fractions(*data.parts)
    if data.test_photos:
        both = fractions.library + fractions.validation
        fractions = Fractions(fractions.library / both, fractions.validation / both, 0.0)
    part = assign([photo.credit.class_name for photo in photos], [photo.sha256 for photo in photos], own, fractions,
                  data.split_seed)  # fmt: skip
    near_test = np.array([group in tested for group in own.tolist()], bool)
    parts = {name: [photo for at, photo in enumerate(photos) if part[at] == number and not near_test[at]]
             for number, name in enumerate(PARTS)}  # fmt: skip
    counts = np.bincount(np.unique(own, return_inverse=True)[1])
    metadata = {
        "photos": {name: len(members) for name, members in parts.items()},
        "near_copies": int(counts[counts > 1].sum()),
        "groups_of_near_copies": int((counts > 1).sum()),
        "left_out_near_test_photos": int(near_test.sum()),
        "classes": len({photo.credit.class_name for photo in photos if photo.credit.class_name}),
    }
    if data.test_photos:
        metadata["photos"]["gallery"] = len(bundles[1].records)
    if not parts["library"] or not metadata["photos"]["gallery"]:
        raise RealRAGError(
            f"{len(photos)} photos leave none to {'train on' if not parts['library'] else 'test on'} when near-copies stay "
            "together. Give more photos, or test photos of their own: --test-photos FOLDER."
        )
    return parts, metadata


def check_rejected(report: Report, photos: str, ceiling: float) -> None:
    """RealRAGError if more than `ceiling` percent of the photos cannot be used."""
    percent = 100 * len(report.rejected) / max(1, report.found)
    if percent > ceiling:
        raise RealRAGError(
            f"{percent:.1f} % of the photos in {photos} cannot be used, more than max_rejected {ceiling:g}. "
            f"The first: {report.rejected[0].message}"
        )


def _told(metadata: dict) -> str:
    counts = metadata["photos"]
    lines = [
        f"{counts['library']} photos to train on, {counts['validation']} to choose the head by (validation), "
        f"{counts['gallery']} to test on, which nothing else sees"
    ]
    if metadata["near_copies"]:
        lines.append(f"{metadata['near_copies']} photos are near-copies of others and stay in one part with them")
    if metadata["left_out_near_test_photos"]:
        lines.append(f"{metadata['left_out_near_test_photos']} photos are near-copies of test photos and are left out")
    return "; ".join(lines)


def _write(library: Sequence[Candidate], parts: dict[str, list[Candidate]], places: Places, metadata: dict) -> None:
    """The folders of the parts: links to the photos, or copies, each with a captions.csv."""
    made = places.parts.with_name(places.parts.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    for name, members in parts.items():
        folder = made / name
        folder.mkdir(parents=True)
        rows = []
        for photo in members:
            file = _file_name(photo)
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if photo.path.suffix.lower() in ARCHIVE_SUFFIXES:
                (folder / file).write_bytes(photo.source.read())
            else:
                link(photo.path, folder / file)
            credit = photo.credit
            rows.append((file, credit.caption, credit.class_name, credit.author, credit.licence, credit.source))
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("file", "caption", "class", "author", "licence", "source"))
        table.writerows(sorted(rows))
        write_atomic(folder / "captions.csv", text.getvalue().encode())
    write_json(made / METADATA, metadata)
    shutil.rmtree(places.parts, ignore_errors=True)
    made.rename(places.parts)


def _file_name(photo: Candidate) -> str:
    """The photo's path in its part; flat where a folder's name would be taken for a class that it does not have."""
    pure = PurePosixPath(photo.file)
    flat = not photo.credit.class_name or any(part.lower().endswith(ARCHIVE_SUFFIXES) for part in pure.parts[:-1])
    return "-".join(pure.parts) if flat else photo.file


def _write_prompts(
    library: Sequence[Candidate], test: Sequence[Candidate], parts: dict[str, list[Candidate]], data: Data, places: Places,
    captions: Path | None,
) -> None:  # fmt: skip
    """The prompts to train with, and the questions of validation and test, which ask in words that nothing trained on."""

    def described(folder: str, photos: Sequence[Candidate]) -> list[Described]:
        return describe_photos(Path(folder), captions, photos_of(photos))

    by_id = {each.id: each for each in described(data.photos, library)}
    tested = described(data.test_photos, test) if test else []

    def of(name: str) -> list[Described]:
        if name == "gallery" and test:
            return tested
        return [by_id[record_id(photo.sha256)] for photo in parts[name]]

    own = read_prompts(Path(data.prompts)) if data.prompts else data.wording.library(of("library"))
    write_prompts(places.prompts("library"), own)
    for name in PARTS[1:]:
        if of(name):
            write_prompts(places.prompts(name), data.wording.asked(of(name), own))
