"""`realrag demo`: index the photos that ship with the plugin, ask several prompts, write what came out."""

from __future__ import annotations

import json
from pathlib import Path

from .build import Report, build
from .contact_sheet import contact_sheet
from .encoder import load_encoder
from .files import write_atomic
from .library import Progress
from .references import References
from .retriever import Retriever

PHOTOS = Path(__file__).parent / "assets" / "photos"
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


def run_demo(out: Path, progress: Progress = lambda done, total: None) -> tuple[Report, list[References], list[Path]]:
    """Build OUT/bundle, ask PROMPTS, write OUT/references.png and OUT/references.json; returns what was made and where."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder()
    report = build(PHOTOS, out / "bundle", encoder, progress=progress)
    retriever = Retriever.open(out / "bundle", encoder=encoder)
    answers = retriever.search_batch(list(PROMPTS), k=COLUMNS)
    picture, table = out / "references.png", out / "references.json"
    write_atomic(picture, lambda file: contact_sheet(answers, COLUMNS).save(file, "PNG"))
    content = [{"prompt": answer.query, "note": answer.note, "references": answer.as_json()} for answer in answers]
    write_atomic(table, json.dumps({"bundle": report.bundle_id, "answers": content}, indent=1, ensure_ascii=False).encode())
    return report, answers, [picture, table, out / "bundle"]
