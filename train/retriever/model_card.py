"""model-card.md beside a run's report: what was trained on which photos, under which licenses, and what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from realrag.bundle.bundle import Bundle
from realrag.files import write_atomic
from realrag.interval_text import with_interval
from realrag.photos.licenses import described, grouped

from .verdict import NAMES, in_folder

TEXT = """---
library_name: realrag
tags: [realrag, image-retrieval, comfyui]
---
# {title}

{headline}

## What it is

{what} Encoder: {encoder}. It is used in ComfyUI through *Load Reflective Retriever*.

## Data

{photos} photos of {classes} were trained on, {validation} others chose the head and its epoch, and {test} more measured it once.
Near-copies of a photo are in one part only. {prompts} prompts; the generator, {generator}, drew each {drawings} times
({bad} drawings could not be used and were left out).

| license of the photos trained on | photos |
|---|---|
{licences}

## License

The head holds no photo, but it was learned from the photos above: whoever passes it on should be allowed to do so by
their licenses. The folder `retriever` also holds the photos themselves, each under its own license. {unstated}

## Training

| | |
|---|---|
{training}

## Figures

On photos that were not trained on; means of all seeds with 95 % intervals over classes.

| arm | R@1 | mAP | mAP against the plain encoder |
|---|---|---|---|
{figures}

{shown}

## What to do with it

{next}
"""


def plain(text: object) -> str:
    """Somebody's words as one line of Markdown that means nothing but itself."""
    return re.sub(r"([\\`*_\[\]{}<>#|!~&])", r"\\\1", " ".join(str(text).split()))[:400]


def write_model_card(path: Path, report: dict, library: Bundle, fitted: dict | None) -> None:
    """report: the content of evaluate.json. library: the photos trained on. fitted: the "facts" of the shipped training,
    None where nothing is shipped."""
    metadata, verdict = report["facts"], report["verdict"]
    licences = grouped(library.records.licence_counts())
    rows = [f"| {plain(described(form, words))} | {sum(words.values())} |" for form, words in licences.items()]
    unstated = library.records.licence_counts().get("not stated", 0)
    classes = sum(map(bool, library.records.classes))
    claims = [f"- Shown: {line}." for line in verdict["shown"]] + [
        f"- Not shown: {line}." for line in verdict["not_shown"]
    ]
    shipped = report["selection"]["shipped"]
    text = TEXT.format(
        title=plain(f"{shipped or 'No head'} for {metadata['generator'].get('name', 'a generator')}"),
        headline=verdict["headline"], encoder=plain(metadata["encoder"]),
        what=f"A {metadata['mode']} trained with the arm {shipped}." if shipped else "A library with the plain encoder: no head was better.",
        photos=metadata["library_photos"], validation=metadata["validation_photos"], test=metadata["gallery_photos"],
        classes=f"{classes} classes" if classes else "no classes, asked for by their captions", prompts=metadata["prompts"],
        generator=plain(metadata["generator"].get("name", "not stated")), drawings=metadata["drawings_a_prompt"],
        bad=metadata["bad_drawings"], licences="\n".join(rows),
        unstated=f"{unstated} photos state no license: find out before you pass anything on." if unstated else "",
        training=_training(fitted), figures=_figures(report), shown="\n".join(claims),
        next="\n".join(f"- {in_folder(step, '')}" for step in verdict["next"]),
    )  # fmt: skip
    write_atomic(path, text.encode())


def _training(fitted: dict | None) -> str:
    if fitted is None:
        return "| shipped | nothing |"
    config: dict[str, Any] = fitted["config"]
    wanted = {
        "loss": fitted["loss"], "steps": fitted.get("steps"), "epochs": fitted.get("epochs"), "batch": fitted.get("batch"),
        "highest learning rate": fitted.get("highest_rate"), "seed": fitted["seed"],
        "other settings": f"`{json.dumps(config, sort_keys=True)}`",
    }  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in wanted.items() if value is not None)


def _figures(report: dict) -> str:
    lines = []
    for arm, each in report["arms"].items():
        if row := each["splits"].get("all"):
            against = report["differences"].get(f"{arm} - zero", {}).get("all", {}).get("mAP")
            lines.append(f"| {NAMES.get(arm, arm)} | {with_interval(row['R@1'])} | {with_interval(row['mAP'])} | "
                         f"{with_interval(against, '+.3f') if against else ''} |")  # fmt: skip
    return "\n".join(lines)
