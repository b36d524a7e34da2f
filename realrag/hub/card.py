"""The card of a bundle on a model hub: its photos, licences and heads, what was measured, and how to pull exactly it."""

from __future__ import annotations

import json
import re

from ..bundle.bundle import Bundle
from ..bundle.head_entries import BundleHead, generator_of
from ..errors import HubError
from ..interval_text import with_interval
from ..photos.licenses import described, grouped, normal

# The licences that the hub has a name for, which are their SPDX names in small letters; others are filed as "other".
HUB_LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
}  # fmt: skip
BOUNDS = {"longest": "pixels on the longest side", "area": "x that many pixels in all"}
MEASURES = ("R@1", "P@10", "mAP", "sibling margin", "reflective hits")
LONGEST_LIST = 20

TEXT = """---
license: {licence}
library_name: realrag
tags:
- realrag
- image-retrieval
- comfyui
---
# {title}

{count} real photos that can be asked in words, for [RealRAG](https://arxiv.org/abs/2502.00848) in ComfyUI. The format is
described in RealRAG's `docs/bundle.md`; nothing in it is code.

```
realrag pull {repo} --revision {commit} --out ComfyUI/models/realrag/{name}
```

The revision pins what you get, and every file is checked against its hash before it is used (bundle `{id}`). Then press R
in ComfyUI and choose it in *Load Reflective Retriever*.

## What is in it

| | |
|---|---|
| photos | {count}, at most {longest} {bound} |
| classes | {classes} |
| encoder | {encoder}, {dim} numbers a photo{carried}; fingerprint `{fingerprint}` |
| size | {megabytes} MB |

## Licences

Each photo keeps its own licence, author and source, and RealRAG names them with every answer. Whoever uses or passes on a
photo is bound by its licence.

| licence | photos |
|---|---|
{licences}

## Heads

{heads}

## Measured

{measured}
"""


def card(bundle: Bundle, repo: str, commit: str, evaluation: dict | None = None) -> str:
    """Markdown. evaluation: the content of the trainer's evaluate.json, or None. HubError where it is of another
    encoder."""
    manifest, records = bundle.manifest, bundle.records
    licences = grouped(records.licence_counts())
    classes = sorted(records.class_counts().items(), key=lambda pair: (-pair[1], pair[0]))
    heads = [_head(at, head) for at, head in enumerate(manifest.heads)]
    measured = None if evaluation is None else _measured(evaluation, manifest.encoder["fingerprint"])
    return TEXT.format(
        licence=_hub_licence(manifest.licences), title=plain(repo.partition("/")[2]), repo=repo, name=repo.partition("/")[2],
        commit=commit, id=bundle.id, count=manifest.count, longest=manifest.picture_longest, bound=BOUNDS[manifest.picture_bound],
        classes=_listed(classes), encoder=plain(manifest.encoder["name"]), dim=manifest.dim,
        carried=", its weights included" if bundle.encoder_folder else "", fingerprint=manifest.encoder["fingerprint"],
        megabytes=f"{sum(file.bytes for file in manifest.files) / 1e6:.1f}",
        licences="\n".join(f"| {plain(described(form, words))} | {sum(words.values())} |" for form, words in licences.items()),
        heads="\n\n".join(heads) or "None: photos are ranked by the plain encoder.",
        measured=measured or "Nothing was measured on these photos.",
    )  # fmt: skip


def plain(text: str) -> str:
    """A stranger's words as one line of Markdown that means nothing but itself."""
    return re.sub(r"([\\`*_\[\]{}<>#|!~&])", r"\\\1", " ".join(str(text).split()))[:400]


def _hub_licence(licences: dict[str, int]) -> str:
    """The hub's name where all photos have one licence that it knows."""
    forms = {normal(words) for words in licences}
    if len(forms) != 1:
        return "other"
    only = forms.pop()
    return "unknown" if not only.stated else only.id.lower() if only.id.lower() in HUB_LICENCES else "other"


def _listed(counts: list[tuple[str, int]]) -> str:
    named = [f"{plain(name)} ({count})" for name, count in counts if name]
    more = f", and {len(named) - LONGEST_LIST} more" if len(named) > LONGEST_LIST else ""
    return f"{len(named)}: {', '.join(named[:LONGEST_LIST])}{more}" if named else "none named"


def _head(at: int, head: BundleHead) -> str:
    """One head: for which generator, and all that it says of its training."""
    metadata = dict(head.metadata)
    if str(metadata.get("generator", "")).startswith("{"):
        metadata["generator"] = generator_of(metadata)
    shown = json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=True).replace("`", "\\u0060")
    default = ", the default" if at == 0 else ""
    made_for = plain(generator_of(metadata)) or "a generator that it does not name"
    return f"### {head.name}\n\nTrained for {made_for}{default}. What it says of itself:\n\n```json\n{shown}\n```"


def _measured(report: dict, fingerprint: str) -> str:
    """The figures of evaluate.json, every arm, and the differences of the arms with their intervals."""
    try:
        metadata = report["facts"]
        if metadata["encoder_fingerprint"] != fingerprint:
            raise HubError("This evaluate.json is of another encoder than the bundle's. Give the one of its own run.")
        generator, lines = str(metadata["generator"]["name"]), []
        lines.append(
            f"On {int(metadata['gallery_photos'])} photos and {int(metadata['prompts'])} prompts, for {plain(generator)}. Means with "
            "95 % intervals over classes; an interval of a difference with 0 in it resolves nothing."
        )
        if generator.startswith("stand-in"):
            lines.append(
                "**No generator drew anything here.** A stand-in altered photos; it says nothing of a real generator."
            )
        splits = [split for arm in report["arms"].values() for split in arm["splits"].values()]
        measures = [measure for measure in MEASURES if any(measure in split for split in splits)]
        lines += ["", f"| arm | prompts | {' | '.join(measures)} |", "|---" * (len(measures) + 2) + "|"]
        for arm, values in report["arms"].items():
            for split, row in values["splits"].items():
                cells = [with_interval(_row(row[m])) if m in row else "-" for m in measures]
                lines.append(f"| {plain(arm)} | {plain(split)} | {' | '.join(cells)} |")
        lines += ["", f"| difference | prompts | {' | '.join(measures)} |", "|---" * (len(measures) + 2) + "|"]
        for pair, values in report["differences"].items():
            for split, row in values.items():
                cells = [with_interval(_row(row[m]), "+.3f") if m in row else "-" for m in measures]
                lines.append(f"| {plain(pair)} | {plain(split)} | {' | '.join(cells)} |")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise HubError(
            f"The evaluation is none of the trainer's evaluate.json ({type(error).__name__}: {error})."
        ) from None
    return "\n".join(lines)


def _row(row: list) -> list[float | None]:
    """[mean, low, high] of a stranger's file, as numbers. A report of few classes has no bounds."""
    return [float(row[0]), *(None if value is None else float(value) for value in (row[1], row[2]))]
