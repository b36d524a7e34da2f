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
from realrag.indexing.build import Report, build
from realrag.indexing.shards import Sizes

from ..dataset import Prompt, photo_classes, read_prompts
from ..loop.progress import Progress
from .imagine import class_prompts, write_prompts
from .recipe import Data


def embed(
    data: Data,
    library: Path,
    gallery: Path,
    prompts_file: Path,
    encoder: Encoder,
    *,
    rank: int = 0,
    world_size: int = 1,
    log: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Write the bundles `library` and, if there are test photos, `gallery`, and the prompts.

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

    for photos, out in ((data.photos, library), (data.test_photos, gallery)):
        if photos:
            report = build(
                Path(photos), out, encoder, captions=Path(data.captions) if data.captions else None,
                sizes=Sizes(picture=data.picture_size), rank=rank, world_size=world_size, on_scan=scanned,
                progress=progress,
            )  # fmt: skip
            _check_rejected(report, photos, data.max_rejected)
            if rank:
                log(f"{photos}: {report.encoded} photos encoded by process {rank} of {world_size}")
            else:
                log(f"{photos}: {report.total} photos, {report.encoded} encoded now, {len(report.rejected)} rejected")
    if rank == 0:
        write_prompts(prompts_file, _prompts(data, library))


def _check_rejected(report: Report, photos: str, ceiling: float) -> None:
    percent = 100 * len(report.rejected) / max(1, report.found)
    if percent > ceiling:
        raise RealRAGError(
            f"{percent:.1f} % of the photos in {photos} cannot be used, more than max_rejected {ceiling:g}. "
            f"The first: {report.rejected[0].message}"
        )


def _prompts(data: Data, library: Path) -> list[Prompt]:
    if data.prompts:
        return read_prompts(Path(data.prompts))
    classes = sorted({name for name in photo_classes(Bundle(library, default_cache())) if name})
    if not classes:
        raise RealRAGError(f"The photos in {data.photos} have no classes. Sort them into folders, or give captions.")
    return class_prompts(classes, data.template)
