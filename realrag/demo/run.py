"""`realrag demo`: index the photos that ship with the plugin, search for several prompts, paint pictures without and
with the photos found, and write the results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..contact_sheet import contact_sheet
from ..encoders.load import load_encoder
from ..encoders.small import SMALL
from ..files import write_atomic
from ..indexing.build import Report, build
from ..miniature.files import families_there
from ..photos.scan import Progress
from ..references import References
from ..retriever import Retriever
from . import pictures

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
PROMPTS = (
    "a photo of a granny smith apple",
    "Conference pears",
    "a carton of oat milk on a kitchen table",
    "red bell pepper",
    "fresh ginger root",
    "a hat",
    "a radio-controlled car",
)
COLUMNS = 4


@dataclass(frozen=True)
class Demo:
    """The results. judged: the judge's counts, as lines; empty if the miniatures are not in the package."""

    report: Report
    answers: list[References]
    written: list[Path]
    judged: list[str]


def run_demo(
    out: Path, progress: Progress = lambda done, total: None, painting: Progress = lambda done, total: None,
    encoder_name: str = SMALL,
) -> Demo:  # fmt: skip
    """encoder_name: of the library's encoder. Build OUT/bundle and search it for PROMPTS: OUT/references.png and .json. Then paint the classes of pictures.py,
    each without and with its best photo in that bundle: OUT/pictures.png and .json."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(encoder_name)
    report = build(PHOTOS, out / "bundle", encoder, progress=progress)
    retriever = Retriever.open(out / "bundle", encoder=encoder)
    answers = retriever.search_batch(list(PROMPTS), k=COLUMNS, min_score=None)  # a full row, including doubtful matches
    picture, table = out / "references.png", out / "references.json"
    write_atomic(picture, lambda file: contact_sheet(answers, COLUMNS).save(file, "PNG"))
    content = [{"prompt": answer.query, "note": answer.note, "references": answer.as_json()} for answer in answers]
    write_atomic(
        table, json.dumps({"bundle": report.bundle_id, "answers": content}, indent=1, ensure_ascii=False).encode()
    )
    written, judged = [picture, table], []
    if families_there():
        classes = pictures.HELD_OUT + pictures.SEEN
        prompts = [pictures.PROMPT.format(name) for name in classes]
        found = [answer.items[0] for answer in retriever.search_batch(prompts, k=1, min_score=None)]
        library = [retriever.bundle.image(record) for record in retriever.bundle.records]
        small = encoder if encoder_name == SMALL else load_encoder(SMALL)  # what the miniatures see and read through
        painted = pictures.paint_all(small, classes, found, library, painting)
        picture, table, judged = out / "pictures.png", out / "pictures.json", pictures.summary(painted)
        write_atomic(picture, lambda file: pictures.sheet(classes, found, painted).save(file, "PNG"))
        write_atomic(table, json.dumps(pictures.as_json(classes, found, painted), indent=1).encode())
        written += [picture, table]
    return Demo(report, answers, [*written, out / "bundle"], judged)
