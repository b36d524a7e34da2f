"""RealRAG's model folders inside ComfyUI, and the bundles in them: chosen by name from a list, never by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import folder_paths

from ..realrag.bundle.bundle import MANIFEST, read_manifest
from ..realrag.errors import BundleError, RealRAGError
from ..realrag.library import shipped_bundle

BUNDLES, ADAPTERS, PACKS = "realrag", "realrag_adapters", "realrag_packs"
# A bundle is a folder, so no single file in `realrag` is a model: "folder", as in core's diffusers, lists none.
SUFFIXES = {BUNDLES: {"folder"}, ADAPTERS: {".safetensors", ".bin", ".pt"}, PACKS: {".safetensors"}}
SHIPPED = "sample (shipped)"


def register() -> None:
    """Add our folders behind those that the user's extra_model_paths.yaml already names."""
    for name, suffixes in SUFFIXES.items():
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        folder_paths.folder_names_and_paths[name] = (folder_paths.folder_names_and_paths[name][0], suffixes)


def bundles() -> dict[str, Path]:
    """Name -> folder: the shipped bundle, then every sub-folder with a manifest. The first of a name wins."""
    found = {SHIPPED: shipped_bundle()}
    for root in map(Path, folder_paths.get_folder_paths(BUNDLES)):
        for manifest in sorted(root.glob("*/manifest.json")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return found


def head_names() -> list[str]:
    """The names of the heads in all bundles that can be read: a list in a node is filled before its bundle is chosen."""
    names: dict[str, None] = {}
    for folder in bundles().values():
        try:
            names |= dict.fromkeys(_heads_of(folder, file_stamp(lambda: folder / MANIFEST)))
        except BundleError:
            continue  # choosing that bundle says what is wrong with it
    return sorted(names, key=lambda name: (name.casefold(), name))


@lru_cache(maxsize=4096)
def _heads_of(folder: Path, _stamp: tuple) -> tuple[str, ...]:
    """Read once for each state of the file: the page asks for all lists whenever it is opened or R is pressed."""
    return tuple(head.name for head in read_manifest(folder).heads)


def bundle_folder(name: str) -> Path:
    """The folder of a listed bundle. A name from a workflow is looked up here and never joined to a path."""
    found = bundles()
    try:
        return found[name]
    except (KeyError, TypeError):
        raise BundleError(
            f"No bundle named {str(name)[:80]!r} in models/realrag. There are: {', '.join(found)[:400]}. Choose one of them, make "
            "one with Build Reference Library, or put its folder there; then press R to refresh the list."
        ) from None


def listed_file(kind: str, name: str, where: str) -> Path:
    """The file of a listed name. A name that a graph brings is looked up in the list and never joined to a path.

    where: the folder as an artist knows it.
    """
    there = folder_paths.get_filename_list(kind)
    path = folder_paths.get_full_path(kind, name) if name in there else None
    if path is None:
        raise RealRAGError(
            f"No file named {str(name)[:80]!r} in {where}. There are: {', '.join(there)[:400] or 'none'}. Put the file there, then "
            "press R to refresh the list."
        )
    return Path(path)


def file_stamp(path_of: Callable[[], Path]) -> tuple:
    """What changes when the file does; the same again where there is none, or where another node will name it.

    A fingerprint never raises: ComfyUI would only log it and run everything anew. Running says what is wrong.
    """
    try:
        stat = path_of().stat()
    except (RealRAGError, OSError, TypeError, KeyError):
        return ()
    return stat.st_mtime_ns, stat.st_size


def cache_folder() -> Path:
    """Where checksums already taken and search indexes lie. Names with "__" are ComfyUI's for what no user owns."""
    return Path(folder_paths.get_user_directory()) / "__realrag"
