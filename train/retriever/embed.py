"""Stage 1: photos -> raw embeddings in a bundle without a head, and the prompts. Several processes can split the work.

`torchrun --nproc-per-node 8 -m train embed RECIPE.toml --photos PHOTOS --out FOLDER --device cuda`: one process per GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import default_cache
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes

from ..dataset import read_prompts
from ..loop.progress import Progress
from .parted import Places, check_rejected, is_parted, make_parts
from .prompts import Photo, describe_photos, write_prompts
from .recipe import Data


def embed(
    data: Data,
    places: Places,
    encoder: Encoder,
    *,
    rank: int = 0,
    world_size: int = 1,
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Write the bundles of the library and, where there are such photos, of validation and gallery; and the prompts.

    rank, world_size: this process and the number of processes; rank 0 writes the bundles and the prompts. RealRAGError
    if more than max_rejected percent of the photos cannot be used.
    """
    if not data.photos:
        raise RealRAGError("Which photos? Give --photos FOLDER, or `photos` in the recipe's section [data].")
    scanning = Progress(log, "looking at the photos")

    def scanned(done: int, total: int) -> None:
        scanning(done, total)
        if done % 256 == 0:
            progress(0, 0)  # no progress to report, but time may be up

    if is_parted(data):
        return make_parts(
            data, places, encoder, rank=rank, world_size=world_size, log=log, scanned=scanned, progress=progress
        )
    given = ((data.photos, "library"), (data.validation, "validation"), (data.test_photos, "gallery"))
    for photos, part in given:
        if photos:
            report = build(
                Path(photos), places.bundle(part), encoder, captions=Path(data.captions) if data.captions else None,
                sizes=Sizes(picture=data.picture_size), rank=rank, world_size=world_size, on_scan=scanned,
                progress=progress,
            )  # fmt: skip
            check_rejected(report, photos, data.max_rejected)
            if rank:
                log(f"{photos}: {report.encoded} photos encoded by process {rank} of {world_size}")
            else:
                log(f"{photos}: {report.total} photos, {report.encoded} encoded now, {len(report.rejected)} rejected")
    if rank == 0:
        _write_prompts(data, places.bundle("library"), places.prompts("library"))


def _write_prompts(data: Data, library: Path, file: Path) -> None:
    bundle = Bundle(library, default_cache())
    photos = [Photo(each.id, each.file, each.class_name, each.caption) for each in bundle.records]
    table = Path(data.captions) if data.captions else None
    if data.prompts:
        prompts = read_prompts(Path(data.prompts))
    else:
        prompts = data.wording.library(describe_photos(Path(data.photos), table, photos))
    write_prompts(file, prompts)
