"""Makes the generator of a recipe, chooses what a stand-in does not know, and finds which class is drawn instead of
another."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError

from ..dataset import Material, Prompt, class_key, load_material, photo_classes
from ..generators import Generator
from ..generators.stand_in import StandIn, choose_unknown, nearest_known
from .drawings import usable
from .recipe import Recipe

logger = logging.getLogger(__name__)
ALTERED = 60  # photos per class that the stand-in chooses from


def make_generator(
    recipe: Recipe, library: Bundle | None, prompts: Sequence[Prompt], encoder: Encoder | None, device: str,
    log: Callable[[str], None] = logger.info,
) -> Generator:  # fmt: skip
    """The generator of [imagine]. library, encoder: for the stand-in. log: receives what is waited for. RealRAGError for an
    unknown name."""
    options = recipe.imagine
    classes = {prompt.prompt: prompt.class_name for prompt in prompts}
    if options.generator == "comfyui":
        from ..generators.comfyui import ComfyUI

        return ComfyUI(
            Path(options.workflow), options.url, prompt_node=options.prompt_node, seed_node=options.seed_node,
            output_node=options.output_node or None, timeout=options.timeout, remote=options.remote,
            log=log,
        )  # fmt: skip
    if options.generator == "diffusers":
        from ..generators.diffusers_pipeline import Diffusers

        guidance = None if options.guidance < 0 else options.guidance
        return Diffusers(
            options.model, revision=options.revision or None, download=options.download, steps=options.steps or None,
            guidance=guidance, size=options.size or None, device=device,
        )  # fmt: skip
    if options.generator == "folder":
        from ..generators.folder import DrawnFolder

        return DrawnFolder(Path(options.folder), classes, options.label)
    if options.generator == "stand-in" and library is not None and encoder is not None:
        return _stand_in(recipe, library, prompts, encoder, classes)
    raise RealRAGError(
        f"`generator` in [imagine] is {options.generator!r}; it must be comfyui, diffusers, folder or stand-in."
    )


def _stand_in(
    recipe: Recipe, library: Bundle, prompts: Sequence[Prompt], encoder: Encoder, classes: dict[str, str]
) -> StandIn:
    material, names = load_material(library, encoder, prompts), photo_classes(library)
    order = sorted({name for name in names if name})
    labels = np.array([order.index(name) if name else -1 for name in names])
    groups = _groups(recipe.data.groups, recipe.data.group_words, order)
    options, keys = recipe.imagine, [class_key(name) for name in order]
    if strange := [name for name in options.unknown_classes if class_key(name) not in keys]:
        raise RealRAGError(f"unknown_classes names {strange[0]!r}, which is not a class of the library. Remove it.")
    unknown = sorted(keys.index(class_key(name)) for name in options.unknown_classes)
    unknown = unknown or choose_unknown(options.unknown, len(order), groups, options.unknown_seed)
    drawn_as = nearest_known(material.photos[labels >= 0], labels[labels >= 0], groups, unknown)
    rows = {name: [row for row, other in enumerate(names) if other == name][:ALTERED] for name in order}

    def pictures(name):
        return [library.jpeg(library.records[row]) for row in rows[name]]

    return StandIn(pictures, classes, {order[a]: order[b] for a, b in drawn_as.items()})


def _groups(file: str, leading: int, classes: list[str]) -> list[str] | None:
    """The group of each class, from the CSV or the `leading` first words of its name. None without either."""
    if not file:
        return [" ".join(class_key(name).split()[:leading]) for name in classes] if leading else None
    with open(file, encoding="utf-8-sig", newline="") as table:
        rows = {
            class_key(row.get("class") or ""): row.get("coarse_class") or row.get("group") or ""
            for row in csv.DictReader(table)
        }
    if missing := [name for name in classes if not rows.get(class_key(name))]:
        raise RealRAGError(f"{file} has no coarse_class for {missing[0]!r}. Add it.")
    return [rows[class_key(name)] for name in classes]


def drawn_instead(prompts: Sequence[Prompt], material: Material, drawn: np.ndarray, generator: dict) -> np.ndarray:
    """(P,) the class drawn instead of a prompt's own, -1 if it is the prompt's own.

    A stand-in states it. For others it is the class of the gallery photo nearest to most of the prompt's drawings, by
    the encoder."""
    codes = {class_key(p.class_name): int(code) for p, code in zip(prompts, material.query_classes, strict=True)}
    if "drawn_as" in generator:
        shown = {class_key(a): codes.get(class_key(b), -1) for a, b in generator["drawn_as"].items()}
        return np.array([shown.get(class_key(p.class_name), -1) for p in prompts])
    unit, there = drawn.astype(np.float32), usable(drawn)
    unit /= np.maximum(np.linalg.norm(unit, axis=2, keepdims=True), 1e-9)
    nearest = material.photo_classes[np.einsum("psd,nd->psn", unit, material.photos).argmax(2)]
    most = np.array(
        [Counter(row[own].tolist()).most_common(1)[0][0] if own.any() else -1 for row, own in zip(nearest, there, strict=True)]
    )  # fmt: skip
    return np.where(most == material.query_classes, -1, most)
