"""A bundle: the folder an artist drops into models/realrag. Reading one never trusts it (docs/bundle.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..doubt import Level
from ..errors import BundleError
from ..files import Verdicts, canonical_json, file_key, open_regular, read_bounded, safe_join, sha256_bytes, sha256_file
from ..photos.credit import clean
from ..photos.decode import decode
from ..photos.other_names import MAX_NAME, OtherName
from ..validation import is_count, is_hex, strict_json
from ..wrong_file import LOOK_AT, what_it_is
from .head_entries import AUTO, MAX_HEADS, PLAIN, BundleFile, BundleHead, read_heads
from .records import Record, RecordTable, class_key

FORMAT, VERSIONS = "realrag-bundle", (1, 2)
MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 20
MAX_HEADER = 1 << 20
MAX_FILES = 10_000
MAX_DIM = 16_384
MAX_NAMES = 50_000
MAX_PIXELS = 50_000_000  # of a kept picture, whatever the manifest allows: 150 MB as RGB
# The checksum of the manifest's other content, under this key. The file's own hash is the bundle's id, which nobody has
# to compare it with.
CHECKSUM = "content_sha256"
# What a manifest holds that was written before there was a checksum. One that holds more and lacks it is damaged.
_WITHOUT_CHECKSUM = {
    "format", "version", "encoder", "head", "heads", "count", "dim", "picture_longest", "thumbnail_longest", "licences", "files"
}  # fmt: skip
# role -> (how many files it may have, the suffixes they may have)
ROLES = {
    "embeddings": (1, (".safetensors",)),
    "records": (1, (".jsonl",)),
    "pictures": (MAX_FILES, (".tar",)),
    "thumbnails": (MAX_FILES, (".tar",)),
    "head": (MAX_HEADS, (".safetensors",)),
    "encoder": (32, (".safetensors", ".json", ".txt", ".model")),
}
ENCODER = "encoder"  # the folder that other libraries read as a whole, so nothing unlisted may lie in it
_TRIES = 3  # openings of a bundle that is replaced meanwhile
# All that this folder may hold: weights, configuration, and a tokenizer's data.
ENCODER_FILES = {
    f"{ENCODER}/{name}" for name in (
        "small_encoder.safetensors", "general_image.safetensors", "general_text.safetensors", "general_names.safetensors", "open_clip_model.safetensors", "open_clip_config.json", "model.safetensors", "config.json",
        "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
        "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    )
}  # fmt: skip
UPDATED = "was brought up to date while it was in use. Run again to use it as it is now."
AGAIN = "Get the bundle again from its author, or build it again with `realrag index`."


@dataclass(frozen=True)
class Manifest:
    """The checked content of manifest.json; `id` is the sha256 of its bytes and names the bundle for ever."""

    id: str
    encoder: dict
    heads: tuple[BundleHead, ...]  # the first is the default
    count: int
    dim: int
    picture_longest: int
    thumbnail_longest: int
    picture_bound: str  # what picture_longest bounds: "longest" side, or "area" as the side of a square
    licences: dict[str, int]
    files: tuple[BundleFile, ...]
    names: tuple[OtherName, ...]  # what classes are also called, in any language
    levels: Mapping[str, Level]  # vectors key -> the score below which a photo is doubtful, measured when it was built
    checksummed: bool = False  # whether it carries a checksum of its content; those of older versions carry none
    content: Mapping = field(default_factory=dict, repr=False, compare=False)  # all of it, with keys unknown here

    def of(self, role: str) -> list[BundleFile]:
        return [file for file in self.files if file.role == role]

    def named(self, name: str) -> BundleHead:
        """The head so called. BundleError says which there are."""
        for head in self.heads:
            if head.name == name:
                return head
        there = f"its heads are {', '.join(head.name for head in self.heads)}" if self.heads else "it has none"
        raise BundleError(
            f"This bundle has no head {str(name)[:80]!r}: {there}. Choose one that it has, {AUTO!r} or {PLAIN!r}, or put one "
            "in with `realrag heads BUNDLE --add NAME=FILE`."
        )

    def head(self, name: str | None = AUTO) -> BundleHead | None:
        """The head to use: "auto" is the first, where there is one; None or "none" the plain encoder; else by name."""
        if name is None or name == PLAIN:
            return None
        return next(iter(self.heads), None) if name == AUTO else self.named(name)


def manifest_bytes(content: dict) -> bytes:
    """manifest.json of what `heads_content` and the other keys say, with its checksum. BundleError where it would be too
    large to be read."""
    content = {"format": FORMAT, **{key: value for key, value in content.items() if key != CHECKSUM}}
    content[CHECKSUM] = sha256_bytes(canonical_json(content))
    data = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
    if len(data) > MAX_MANIFEST:
        raise BundleError(
            f"The manifest would have {len(data)} bytes; at most {MAX_MANIFEST} are read. Use fewer heads."
        )
    return data


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json. Raises BundleError."""
    path = Path(folder) / MANIFEST
    try:
        data = read_bounded(path, MAX_MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"No {MANIFEST} in {folder}, so it is not a bundle. Build one with `realrag index PHOTOS --out {folder}`."
        ) from None
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}. Check its permissions and its disk; where they are right: {AGAIN}"
        ) from None
    try:
        content = strict_json(data)
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (ValueError, UnicodeDecodeError) as error:
        if not data.lstrip().startswith(b"{") and (other := what_it_is(data[:LOOK_AT])):
            raise BundleError(f"{path} is not a bundle's manifest: {other}") from None
        raise BundleError(f"{path} is not valid JSON ({error}). {AGAIN}") from None
    version = content.get("version")
    if content.get("format") != FORMAT or type(version) is not int or version not in VERSIONS:
        raise BundleError(
            f"{path} says format {str(content.get('format'))[:40]!r}, version {str(version)[:40]!r}; this "
            f"RealRAG reads {FORMAT!r}, versions {' and '.join(map(str, VERSIONS))}. Update RealRAG, or build the bundle again."
        )
    try:
        checksummed = _check_sum(content)
        return replace(_check(content, sha256_bytes(data)), checksummed=checksummed, content=content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {_fault(error)}. {AGAIN}") from None


def _fault(error: Exception) -> str:
    """What a failed check says, with the key of one that is missing."""
    return f"the field {error} is missing" if isinstance(error, KeyError) else str(error)[:300]


def _check_sum(content: dict) -> bool:
    """Whether the content carries its checksum. ValueError where it does not match."""
    if CHECKSUM in content:
        rest = {key: value for key, value in content.items() if key != CHECKSUM}
        if content[CHECKSUM] != sha256_bytes(canonical_json(rest)):
            raise ValueError("its content does not match its own checksum")
        return True
    if strange := sorted(set(content) - _WITHOUT_CHECKSUM):
        raise ValueError(f"it has the field {strange[0][:40]!r}, but no checksum")
    return False


def _check(content: dict, id: str) -> Manifest:
    def need(right: bool, what: str) -> None:
        if not right:
            raise ValueError(what)

    encoder, listed = content["encoder"], content["files"]
    need(isinstance(encoder, dict) and isinstance(encoder["name"], str) and len(encoder["name"]) <= 200, "encoder.name")
    need(is_hex(encoder["fingerprint"], 64) and is_hex(encoder["weights_sha256"], 64), "encoder hashes")
    need(is_count(content["count"]) and content["count"] > 0, "count")
    need(is_count(content["dim"], MAX_DIM) and content["dim"] > 0 and encoder["dim"] == content["dim"], "dim")
    need(
        all(is_count(content[key], 1 << 14) and content[key] for key in ("picture_longest", "thumbnail_longest")),
        "sizes",
    )
    bound = content.get("picture_bound", "longest")
    need(bound in ("longest", "area"), "picture_bound")
    licences = content["licences"]
    need(isinstance(licences, dict) and len(licences) <= 10_000 and all(map(is_count, licences.values())), "licences")
    need(isinstance(listed, list) and 0 < len(listed) <= MAX_FILES, "files")
    files = []
    for entry in listed:
        need(isinstance(entry, dict) and set(entry) == {"path", "bytes", "sha256", "role"}, "a file's fields")
        need(
            isinstance(entry["path"], str) and is_count(entry["bytes"]) and is_hex(entry["sha256"], 64),
            "a file's values",
        )
        need(entry["role"] in ROLES, f"the role {str(entry['role'])[:40]!r}")
        suffixes = ROLES[entry["role"]][1]
        need(
            entry["role"] != "encoder" or entry["path"] in ENCODER_FILES,
            f"{entry['path'][:80]!r} is no file that an encoder has in {ENCODER}/",
        )
        need(
            entry["path"].endswith(suffixes),
            f"{entry['path'][:80]!r}: a file of this role ends in {' or '.join(suffixes)}",
        )
        files.append(BundleFile(**entry))
    folded = [file.path.casefold() for file in files]
    need(len(set(folded)) == len(folded) and MANIFEST not in folded, "a file is listed twice")
    for role, (most, _) in ROLES.items():
        found = sum(file.role == role for file in files)
        need(found <= most and bool(found or role in ("thumbnails", "head", "encoder")), f"{found} files for {role!r}")
    heads = read_heads(content, [file for file in files if file.role == "head"])
    sizes = content["picture_longest"], content["thumbnail_longest"], bound
    return Manifest(
        id,
        encoder,
        heads,
        content["count"],
        content["dim"],
        *sizes,
        licences,
        tuple(files),
        _names(content.get("names")),
        _levels(content.get("levels")),
    )


def optional_content(names: Sequence[OtherName], levels: Mapping[str, Level]) -> dict:
    """The keys of manifest.json that a version before them passes over."""
    found: dict = {"names": [list(name) for name in names]} if names else {}
    return {**found, "levels": {key: level.as_json() for key, level in levels.items()}} if levels else found


def _names(content: object) -> tuple[OtherName, ...]:
    """Of `names` in manifest.json: [[class, language, name], ...]. ValueError where it is anything else."""
    entries = [] if content is None else content
    if not isinstance(entries, list) or len(entries) > MAX_NAMES:
        raise ValueError("names")
    for entry in entries:
        right = isinstance(entry, list) and len(entry) == 3 and all(isinstance(text, str) for text in entry)
        if (
            not right
            or any(len(text) > MAX_NAME or clean(text) != text for text in entry)
            or not (entry[0] and entry[2])
        ):
            raise ValueError(f"the name {str(entry)[:80]}")
    return tuple(OtherName(*entry) for entry in entries)


def _levels(content: object) -> dict[str, Level]:
    """What an older version does not know and a newer one may have changed is measured again, not refused."""
    entries = content.items() if isinstance(content, dict) and len(content) <= MAX_HEADS + 1 else ()
    read = {key: Level.from_json(value) for key, value in entries if isinstance(key, str) and len(key) <= 64}
    return {key: level for key, level in read.items() if level is not None}


def open_matrix(path: Path, count: int, dim: int) -> np.memmap:
    """The (count, dim) fp16 tensor `embeddings` of a safetensors file, mapped and not loaded.

    The file must hold exactly that tensor and nothing more, so that its size follows from the manifest.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise BundleError(f"{path.name}: a header of {length} bytes is not possible. {AGAIN}")
        try:
            header = strict_json(file.read(length))
            entry = header["embeddings"]
            named = set(header) - {"__metadata__"}
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            raise BundleError(f"{path.name}: no readable header with a tensor 'embeddings'. {AGAIN}") from None
    right = {"dtype": "F16", "shape": [count, dim], "data_offsets": [0, 2 * count * dim]}
    if named != {"embeddings"} or entry != right or size != 8 + length + 2 * count * dim:
        raise BundleError(f"{path.name}: holds {str(entry)[:120]} in {size} bytes; the manifest says {right}. {AGAIN}")
    return np.memmap(path, np.float16, "r", offset=8 + length, shape=(count, dim))


def matrix_header(count: int, dim: int) -> bytes:
    """The safetensors header that `open_matrix` reads, padded to 8 bytes as the format asks."""
    entry = {"dtype": "F16", "shape": [count, dim], "data_offsets": [0, 2 * count * dim]}
    text = json.dumps({"embeddings": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class Bundle:
    """An opened bundle. Every listed file has been hashed and is what the manifest says before anything is parsed.

    embeddings: (N, D) fp16, mapped, raw encoder output in row order. records: the rows. cache: folder for what is
    derived from this bundle, or None to keep nothing.
    """

    def __init__(self, folder: Path, cache: Path | None = None, progress: Callable[[int, int], None] | None = None):
        self.folder = Path(folder)
        verdicts, progress = Verdicts(cache), progress or (lambda done, total: None)
        for left in reversed(range(_TRIES)):
            self._stamp = _stamp(self.folder)
            self.manifest = read_manifest(self.folder)
            self.id = self.manifest.id
            self.cache = None if cache is None else Path(cache) / self.id[:32]
            try:
                self._open(verdicts, progress)
                return
            except BundleError:
                if not self._was_replaced():
                    raise
                if not left:  # else read again: `realrag index` has put new files in the place of these
                    raise BundleError(f"{self.folder} {UPDATED}") from None

    def _open(self, verdicts: Verdicts, progress: Callable[[int, int], None]) -> None:
        try:
            self._verify_files(verdicts, progress)
            (embeddings,), (records,) = self.manifest.of("embeddings"), self.manifest.of("records")
            self.embeddings = open_matrix(self.folder / embeddings.path, self.manifest.count, self.manifest.dim)
            self.records = RecordTable(self.folder / records.path, self.manifest.count, self.cache, self._lost)
        except (OSError, ValueError, OverflowError) as error:
            raise BundleError(f"{self.folder}: {error}. {AGAIN}") from None

    def _was_replaced(self) -> bool:
        """Whether another manifest lies in the folder now than when this one was opened."""
        return _stamp(self.folder) not in (self._stamp, None)

    def _lost(self, path: Path, error: OSError) -> BundleError:
        """What to say where a file of an opened bundle cannot be read any more."""
        if self._was_replaced():
            return BundleError(f"{self.folder} {UPDATED}")
        return BundleError(f"{path} cannot be read: {error.strerror or error}. {AGAIN}")

    def _verify_files(self, verdicts: Verdicts, progress: Callable[[int, int], None]) -> None:
        total, done = sum(file.bytes for file in self.manifest.files), 0
        for file in self.manifest.files:
            path = safe_join(self.folder, file.path)
            if not path.is_file():
                raise BundleError(f"{self.folder} lacks {file.path}, which its manifest lists. {AGAIN}")
            if (size := path.stat().st_size) != file.bytes:
                raise BundleError(f"{path} has {size} bytes, the manifest says {file.bytes}. {AGAIN}")
            if not verdicts.agrees(path, file.sha256):
                raise BundleError(
                    f"{path} has changed: its sha256 is not the {file.sha256[:12]}... of the manifest. {AGAIN}"
                )
            done += file.bytes
            progress(done, total)
        listed = {self.folder / file.path for file in self.manifest.of("encoder")}
        if listed and (strange := set((self.folder / ENCODER).rglob("*")) - listed):
            raise BundleError(
                f"{self.folder} holds files in {ENCODER}/ that its manifest does not list, such as "
                f"{sorted(strange)[0].name!r}. Remove them, or get the bundle again from its author."
            )

    @cached_property
    def _packs(self) -> dict[str, list[Path]]:
        return {
            role: [self.folder / file.path for file in self.manifest.of(role)] for role in ("pictures", "thumbnails")
        }

    def jpeg(self, record: Record, role: str = "pictures") -> bytes:
        """The stored JPEG or WebP bytes of a record; role "pictures" or "thumbnails"."""
        if role == "pictures" or record.thumbnail is None:
            role, (part, offset, size) = "pictures", record.picture
        else:
            part, offset, size = record.thumbnail
        paths = self._packs[role]
        outside = f"Photo {record.id} points outside the bundle's {role}. {AGAIN}"
        if part >= len(paths):
            raise BundleError(outside)
        try:
            with open_regular(paths[part]) as file:
                if offset + size > os.fstat(file.fileno()).st_size:
                    raise BundleError(outside)
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise self._lost(paths[part], error) from None

    def image(self, record: Record, role: str = "pictures"):
        """The stored picture as PIL RGB, within the manifest's bound. BundleError if it is no picture."""
        longest = self.manifest.picture_longest
        try:
            return decode(self.jpeg(record, role), record.id, max_pixels=min(longest * longest, MAX_PIXELS))
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"Photo {record.id} in {self.folder} cannot be shown: {error} {AGAIN}") from None

    @property
    def encoder_folder(self) -> Path | None:
        """Where the bundle's own encoder weights lie, or None when it carries none."""
        return self.folder / ENCODER if self.manifest.of("encoder") else None

    def other_names(self) -> list[tuple[int, str, str]]:
        """(class code, language tag, name) of the other names that the bundle gives its classes."""
        codes = {class_key(name): code for code, name in enumerate(self.records.classes)}
        return [
            (codes[key], other.language, other.name)
            for other in self.manifest.names
            if (key := class_key(other.class_name)) in codes
        ]

    def head(self, name: str | None = AUTO):
        """The reflective head so called, as `Manifest.head` chooses; None is the plain encoder. BundleError where there
        is no such head, EncoderError where it belongs to another encoder."""
        from ..encoders.reflective_head import load_head

        if (chosen := self.manifest.head(name)) is None:
            return None
        path = self.folder / chosen.file.path
        try:  # hashed again, as a head may be asked for long after the bundle was opened
            changed = sha256_file(path) != chosen.file.sha256
        except OSError as error:
            raise self._lost(path, error) from None
        if changed:
            raise BundleError(f"{path} has changed since the bundle was opened. {AGAIN}")
        return load_head(path, self.manifest.dim, self.manifest.encoder["fingerprint"])

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read everything: every record, vector, picture and head, and the encoder. Raises RealRAGError at the first
        fault."""
        for start in range(0, self.manifest.count, 4096):
            unit_rows(self.embeddings[start : start + 4096], first=start)
        for number, record in enumerate(self.records, 1):
            self.image(record)
            self.image(record, "thumbnails")
            progress(number, self.manifest.count)
        for head in self.manifest.heads:
            self.head(head.name)
        if self.encoder_folder is not None:
            self._verify_encoder(self.encoder_folder)

    def _verify_encoder(self, folder: Path) -> None:
        """Open the carried encoder under the rules under which it will be used, and see that it is the manifest's."""
        from ..encoders.load import load_encoder

        made_with = self.manifest.encoder
        encoder = load_encoder(made_with["name"], folder=folder, offline=True, made_with=made_with)
        if not encoder.is_encoder_of(made_with):
            raise BundleError(
                f"The encoder in {folder} is not the one that the manifest says made the vectors. {AGAIN}"
            )


def _stamp(folder: Path) -> str | None:
    try:
        return file_key(folder / MANIFEST)
    except OSError:
        return None


def unit_rows(rows: np.ndarray, first: int = 0) -> np.ndarray:
    """(M, D) raw vectors -> (M, D) float32 of unit length. BundleError names a vector that is not finite or zero."""
    rows = np.asarray(rows, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named below
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] < 1e-6)
    if bad.any():
        row = first + int(np.flatnonzero(bad)[0])
        raise BundleError(f"embeddings row {row} is not a usable vector (not finite, or zero). {AGAIN}")
    return rows / norms
