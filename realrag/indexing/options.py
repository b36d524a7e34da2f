"""The settings of one indexing run, and what became of the photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..doubt import Level
from ..photos.credit import Credit
from ..photos.scan import Rejected
from .shards import Sizes

MOST_CLASSES = 12  # that a report names


@dataclass(frozen=True)
class IndexOptions:
    """How `build` makes a bundle.

    mode: "sync" (the bundle shall hold what the folder holds), "add" (and keep the rest) or "remove" (take these photos
        out).
    captions: a table of captions and credits. names: one of other names of the classes. default: the credit of photos that have none.
    head: a head's file, which takes the place of the only one there was; or files by name, added or in the place of
        those of the same name.
    reuse: another bundle whose vectors and pictures a new one takes over, where the encoder has the same image tower.
    """

    mode: Literal["sync", "add", "remove"] = "sync"  # what most people mean by running the command again
    captions: Path | None = None  # a table in the photo folder is found by its name
    default: Credit = Credit()
    names: Path | None = None  # a table of other names of classes; names.csv in the photo folder is found by its name
    sizes: Sizes | None = None  # those of the bundle that is there, else DEFAULT_SIZES
    head: Path | Mapping[str, Path] | None = None
    reuse: Path | None = None
    with_encoder: bool = False  # weights are large, and an encoder that a name identifies need not travel
    # Percent of the bundle's photos that may go because their files are gone. A disk that is not mounted looks like a
    # folder that was emptied; who has sorted out more says so once.
    max_removed: float = 25.0
    max_rejected: float = 100.0  # percent of the photos found; the commands ask for less
    batch: int = 0  # photos a step of the encoder; 0 suits its device
    workers: int = 0  # decoding threads; 0 suits its device
    rank: int = 0  # of this process among `world_size` that share the work; rank 0 writes the bundle
    world_size: int = 1


@dataclass
class Report:
    """What became of every photo file: found = indexed + duplicates + rejected."""

    found: int = 0
    indexed: int = 0
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # (file, the file it repeats)
    rejected: list[Rejected] = field(default_factory=list)
    encoded: int = 0  # photos that went through the encoder in this run
    reused: int = 0  # photos of a new bundle whose vectors are those of the bundle given as `reuse`
    total: int = 0  # photos in the bundle afterward
    removed: int = 0
    kept: int = 0  # photos of the bundle that stay because their files are there but cannot be used now
    classes: int = 0  # that have a name to ask for
    class_names: list[str] = field(default_factory=list)  # the first of them, by name
    captions: int = 0  # that say more than the class, in a sample of the photos
    names: int = 0  # other names of classes
    unmatched_names: int = 0  # rows of the table that name no class of the bundle
    level: Level | None = None  # of the plain encoder
    notes: list[str] = field(default_factory=list)  # what was passed over, recognized, or left without words
    unlicensed: int = 0  # photos in the bundle afterward that state no license
    generated: int = 0  # photos of the folder that carry a generator's mark
    bundle_id: str = ""  # empty where another process writes the bundle
