"""`realrag heads`: put heads into a bundle or take them out. Photos and vectors stay as they are, so nothing is
encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..encoders.reflective_head import load_head
from ..errors import BundleError
from ..files import sha256_bytes, sweep_temporaries, write_atomic
from ..locks import FolderLock
from .bundle import MANIFEST, Bundle, Manifest, manifest_bytes, read_manifest
from .head_entries import MAX_HEADS, NAMING, BundleFile, BundleHead, heads_content, is_head_name, own_name

WORK = ".building"  # where a builder keeps its lock and what is not finished


def heads_by_name(given: Sequence[str], dim: int) -> dict[str, Path]:
    """Heads as the commands take them, NAME=FILE or FILE, whose name is then the one the head gives itself."""
    named: dict[str, Path] = {}
    for text in map(str, given):
        name, sign, file = text.partition("=")
        if not sign or Path(text).is_file():
            name, file = own_name(load_head(Path(text), dim).metadata), text
        if name in named:
            raise BundleError(
                f"Two heads are called {name!r} ({named[name]}, {file}). Give each a name of its own: NAME=FILE."
            )
        named[name] = Path(file)
    return named


def change_heads(folder: Path, add: Mapping[str, Path], remove: Sequence[str] = (), first: str = "") -> Manifest:
    """Take heads out of the bundle in `folder`, put others in, and make one the default; returns its new manifest.

    A head that is added under a name that is there takes its place. Raises BundleError, EncoderError, BusyError;
    whoever opens the folder meanwhile finds the old bundle or the new one.
    """
    folder = Path(folder)
    read_manifest(folder)  # says so where there is no bundle
    with FolderLock(folder / WORK / "lock"):
        sweep_temporaries(folder)
        old = Bundle(folder).manifest
        for name in (*remove, *([first] if first and first not in add else [])):
            old.named(name)
        if first in remove and first not in add:
            raise BundleError(f"The head {first!r} cannot be removed and be the first. Leave out one of the two.")
        heads = put_heads(folder, [head for head in old.heads if head.name not in remove], add, old.encoder)
        heads.sort(key=lambda head: bool(first) and head.name != first)
        files = sorted([file for file in old.files if file.role != "head"] + [head.file for head in heads], key=_path)
        kept = {key: value for key, value in old.content.items() if key not in ("version", "head", "heads")}
        write_atomic(folder / MANIFEST, manifest_bytes({**kept, **heads_content(heads), "files": [*map(vars, files)]}))
        for path in set(folder.glob("head-*.safetensors")) - {folder / file.path for file in files}:
            with suppress(PermissionError):  # Windows: it is open; the next change removes it
                path.unlink()
    return read_manifest(folder)


def heads_to_be(
    folder: Path, old: Manifest | None, given: Path | Mapping[str, Path] | None, encoder: dict
) -> list[BundleHead]:
    """The heads of a bundle that is being built: those it had, and the `given`, whose files are written into `folder`.
    A file without a name takes the place of the only head there was. encoder: the manifest's entry."""
    heads = list(old.heads) if old else []
    if not isinstance(given, (str, Path)):
        return put_heads(folder, heads, given or {}, encoder)
    if len(heads) > 1:
        raise BundleError(
            f"{folder} has the heads {', '.join(head.name for head in heads)}. Say which of them {given} is, or give it a name "
            "of its own: --head NAME=FILE."
        )
    return put_heads(folder, [], heads_by_name([str(given)], encoder["dim"]), encoder)


def put_heads(folder: Path, heads: Sequence[BundleHead], add: Mapping[str, Path], encoder: dict) -> list[BundleHead]:
    """`heads` with others added, or put in the place of those of the same name; their files are written into `folder`."""
    heads, written = list(heads), {}
    for name, path in add.items():
        if not is_head_name(name):
            raise BundleError(f"{str(name)[:80]!r} cannot be the name of a head: it is {NAMING}.")
        metadata = load_head(path, encoder["dim"], encoder["fingerprint"]).metadata
        data = Path(path).read_bytes()
        digest = sha256_bytes(data)
        at = next((at for at, head in enumerate(heads) if head.name == name), len(heads))
        for head in heads[:at] + heads[at + 1 :]:
            if head.name.casefold() == name.casefold():
                raise BundleError(f"The names {head.name!r} and {name!r} differ in capitals only. Choose another.")
            if head.file.sha256 == digest:
                raise BundleError(
                    f"{path} is in the bundle already, as {head.name!r}. To rename it, remove that one first."
                )
        file = BundleFile(f"head-{digest[:12]}.safetensors", len(data), digest, "head")
        heads[at : at + 1] = [BundleHead(name, file, metadata)]
        written[file.path] = data
    if len(heads) > MAX_HEADS:
        raise BundleError(f"A bundle holds at most {MAX_HEADS} heads, these are {len(heads)}. Remove some of them.")
    for name, data in written.items():
        write_atomic(Path(folder) / name, data)
    return heads


def _path(file: BundleFile) -> str:
    return file.path
