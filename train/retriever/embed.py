"""Stage 1: photos -> raw embeddings in a bundle without a head, and the prompts to ask; several processes may share it.

`torchrun --nproc-per-node 8 -m train embed RECIPE.toml --photos PHOTOS --out FOLDER --device cuda`: one process a card.
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
    share: tuple[int, int] = (0, 1),
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Write the bundles `library` and, where there are test photos, `gallery`, and the prompts.

    share: (r, w) for process r of w, of which number 0 writes the bundles and the prompts. RealRAGError where more than
    max_rejected per cent of the photos cannot be used.
    """
    if not data.photos:
        raise RealRAGError("Which photos? Give --photos FOLDER, or `photos` in the recipe's section [data].")
    looking = Progress(say, "looking at the photos")

    def looked(done: int, total: int) -> None:
        looking(done, total)
        if done % 256 == 0:
            progress(0, 0)  # nothing to tell, but it may be time to stop

    for photos, out in ((data.photos, library), (data.test_photos, gallery)):
        if photos:
            report = build(
                Path(photos), out, encoder, captions=Path(data.captions) if data.captions else None,
                sizes=Sizes(picture=data.picture_size), rank=share[0], world_size=share[1], on_scan=looked,
                progress=progress,
            )  # fmt: skip
            _check_rejected(report, photos, data.max_rejected)
            if share[0]:
                say(f"{photos}: {report.encoded} photos encoded by process {share[0]} of {share[1]}")
            else:
                say(f"{photos}: {report.total} photos, {report.encoded} encoded now, {len(report.rejected)} rejected")
    if share[0] == 0:
        write_prompts(prompts_file, _prompts(data, library))


def _check_rejected(report: Report, photos: str, ceiling: float) -> None:
    share = 100 * len(report.rejected) / max(1, report.found)
    if share > ceiling:
        raise RealRAGError(
            f"{share:.1f} % of the photos in {photos} cannot be used, more than max_rejected {ceiling:g}. "
            f"The first: {report.rejected[0].message}"
        )


def _prompts(data: Data, library: Path) -> list[Prompt]:
    if data.prompts:
        return read_prompts(Path(data.prompts))
    classes = sorted({name for name in photo_classes(Bundle(library, default_cache())) if name})
    if not classes:
        raise RealRAGError(f"The photos in {data.photos} have no classes. Sort them into folders, or give captions.")
    return class_prompts(classes, data.template)
