"""Measures the miniatures with two judges: photos, the autoencoder's copies of them, and drawings of seen and held-out
classes, without a reference, with a photo of the class, and with a photo of another class."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realrag.adapters import load_adapter
from realrag.adapters.hooks import Steered
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.files import sha256_file, write_atomic
from realrag.miniature.autoencoder import Autoencoder, load_autoencoder
from realrag.miniature.classifier import Classifier, copied
from realrag.miniature.generator import load_generator
from realrag.miniature.painting import CFG, STEPS, Miniature, noise_of, paint
from realrag.native_bf16 import bf16_autocast

from ..judge.histograms import Histograms
from ..small_encoder.captioned_photos import QUERY, Group
from ..small_encoder.views import open_photo
from ..stats import bootstrap_of
from .classifier import mobilenet_features, taught_histograms, taught_judge
from .features import to_images
from .sheet import tile
from .world import World, add_world_arguments, held_out, read_photos

OPENED = 256  # references are opened with at least this many pixels on their short side
WORDS = ("name", "kind")  # in a prompt: "a photo of lemon", "a photo of citrus"


def copies(autoencoder: Autoencoder) -> Callable[[Tensor], Tensor]:
    """The autoencoder's copies of pictures, rounded to steps of 1/255 as in a file."""

    @torch.no_grad()
    def through(x: Tensor) -> Tensor:
        with bf16_autocast("cpu"):
            made = autoencoder.decode(autoencoder.encode(x)).float()
        return (made * 255).round() / 255

    return lambda pictures: torch.cat([through(part.contiguous()) for part in pictures.split(32)])


def labels_of(world: World) -> np.ndarray:
    return np.array(world.photos.group_rows())


def accuracy(right: np.ndarray, classes: np.ndarray) -> dict:
    """Mean of the class means of 0 and 1 (N,), with its interval. Every class has equally many rows here."""
    low, high = bootstrap_of(lambda rows: right[rows].mean(), classes)
    return {"mean": float(np.mean([right[classes == c].mean() for c in np.unique(classes)])), "low": low, "high": high}


def times(more: np.ndarray, less: np.ndarray, classes: np.ndarray) -> dict:
    """The ratio of the means of `more` and `less`, on the same prompts and noise, with its interval."""

    def ratio(rows: np.ndarray) -> float:
        return more[rows].mean() / less[rows].mean() if less[rows].any() else np.inf

    low, high = bootstrap_of(ratio, classes)
    return {"mean": float(ratio(np.arange(len(classes)))), "low": low, "high": high}


@dataclass(frozen=True)
class Plan:
    """The drawings of some classes: `each` pictures for every one of `labels` (rows of `groups`), with its test photos as
    references in turn; a wrong reference is the right one of another class."""

    groups: tuple[Group, ...]
    labels: list[int]
    each: int
    tested: World

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(self.labels, self.each)

    def prompts(self, words: str) -> list[str]:
        return [
            QUERY.format(self.groups[row].coarse if words == "kind" else self.groups[row].name) for row in self.rows
        ]

    def references(self, wrong: bool) -> list[int]:
        """Rows of photos of `tested`, one per drawing."""
        own = labels_of(self.tested)
        of = (
            dict(zip(self.labels, np.roll(self.labels, 1), strict=True))
            if wrong
            else {label: label for label in self.labels}
        )
        found = []
        for label in self.labels:
            photos = np.flatnonzero(own == of[label])
            if not len(photos):
                raise RealRAGError(f"{self.groups[of[label]].name} has no test photo to serve as a reference.")
            found += [int(photos[len(photos) * i // self.each % len(photos)]) for i in range(self.each)]
        return found

    def states(self, encoder: Encoder, wrong: bool) -> Tensor:
        """(N, L, E)"""
        made = []
        for photo in self.references(wrong):
            image = open_photo(self.tested.photos.photos[photo].path, OPENED)
            made.append(encoder.encode_features(encoder.prepare(image)[None]).penultimate.half())
        return torch.cat(made).float()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_world_arguments(parser)
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument("--autoencoder", type=Path, required=True, metavar="FILE")
    parser.add_argument("--generator", type=Path, metavar="FILE", help="judge what it draws, too")
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="and what it draws with references")
    parser.add_argument(
        "--encoder", default="realrag-small", help="whose text tower reads the prompts, and who sees references"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON to write")
    parser.add_argument("--each", type=int, default=8, help="pictures of a class")
    parser.add_argument("--seen-each", type=int, default=4, help="pictures of a class that the generator has seen")
    parser.add_argument("--most", type=int, default=10, help="test photos of a class")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--strength", type=float, default=1.0, help="of references")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    autoencoder, away = load_autoencoder(arguments.autoencoder), set(held_out(arguments.grocery))
    taught, tested = read_photos(arguments, "train"), read_photos(arguments, "test")
    judges = {
        "MobileNet": (mobilenet_features(arguments.mobilenet), taught_judge(arguments.mobilenet, taught)),
        "histograms": (Histograms(), taught_histograms(taught)),
    }
    labels = labels_of(tested)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[: arguments.most] for label in np.unique(labels)]))
    photos, labels = to_images(tested.pixels(0)[rows]), labels[rows]
    seen = np.array([taught.groups[label].name not in away for label in labels])
    report: dict = {
        "photos": len(labels),
        "autoencoder": sha256_file(arguments.autoencoder),
        "steps": arguments.steps,
        "cfg": arguments.cfg,
        "strength": arguments.strength,
    }
    for what, pictures in (("photos", photos), ("copies", copies(autoencoder)(photos))):
        for part, mask in (("all", np.ones_like(seen)), ("seen", seen), ("held out", ~seen)):
            report[f"{what}, {part}"] = verdicts(judges, pictures[mask], labels[mask])
    report["copies / photos"] = {
        name: {"mean": over(report["copies, all"][name]["mean"], report["photos, all"][name]["mean"])}
        for name in judges
    }
    if arguments.generator:
        report |= drawn(arguments, judges, autoencoder, taught, tested, away, log)
        report["seen, name, without / photos"] = {
            name: {"mean": over(report["seen, name, without"][name]["mean"], report["photos, seen"][name]["mean"])}
            for name in judges
        }
    write_atomic(arguments.out, json.dumps(report, indent=1).encode())
    for name, value in report.items():
        log(f"{name}: {text_of(value)}")


def over(part: float, whole: float) -> float | None:
    """A fraction of a judge's accuracy on photos; None where it names none of them rightly."""
    return part / whole if whole else None


def text_of(value) -> str:
    """A value of the report as text."""
    if not isinstance(value, dict):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    parts = [f"{name} {text_of(each)}" for name, each in value.items() if name not in ("mean", "low", "high")]
    if "mean" in value:
        bounds = f" [{value['low']:.3f}, {value['high']:.3f}]" if "low" in value else ""
        parts.insert(0, "not defined" if value["mean"] is None else f"{value['mean']:.3f}{bounds}")
    return ", ".join(parts)


def verdicts(judges: dict, pictures: Tensor, labels: np.ndarray) -> dict:
    """The accuracy of each judge."""
    return {name: accuracy(right(each, pictures, labels), labels) for name, each in judges.items()}


def right(judge: tuple[Callable, Classifier], pictures: Tensor, labels: np.ndarray) -> np.ndarray:
    features, taught = judge
    return (taught.margins(features.of(pictures), labels) > 0).numpy().astype(float)


def drawn(arguments, judges: dict, autoencoder: Autoencoder, taught: World, tested: World, away: set[str], log) -> dict:
    """Accuracy by part, words and reference, and its ratio with a reference to without."""
    encoder, base = load_encoder(arguments.encoder), Miniature(load_generator(arguments.generator))
    report, steered, arms = {"generator": sha256_file(arguments.generator)}, Steered(base), ("without",)
    if arguments.adapter:
        steered = Steered(base, load_adapter(arguments.adapter).float(), arguments.strength)
        steered.adapter.spec.check_encoder(encoder.adapter_sha256)
        report["adapter"], arms = sha256_file(arguments.adapter), ("without", "right", "wrong")
    features = judges["MobileNet"][0]
    library, how = features.of(to_images(taught.pixels(0))), {"steps": arguments.steps, "cfg": arguments.cfg}
    for part, each in (("seen", arguments.seen_each), ("held out", arguments.each)):
        wanted = [label for label, group in enumerate(tested.groups) if (group.name in away) == (part == "held out")]
        plan = Plan(tested.groups, wanted, each, tested)
        noise = noise_of(len(plan.rows), arguments.seed)
        states = {"without": None} | {arm: plan.states(encoder, arm == "wrong") for arm in arms[1:]}
        for words in WORDS[: 1 + (part == "held out")]:
            found: dict = {}
            for arm in arms:
                made = paint(steered, autoencoder, encoder.towers.text, plan.prompts(words), noise, states[arm], **how)
                found[arm] = {name: right(judge, made, plan.rows) for name, judge in judges.items()}
                about = {name: accuracy(each, plan.rows) for name, each in found[arm].items()}
                report[line := f"{part}, {words}, {arm}"] = {
                    **about,
                    "near-copies": float(copied(features.of(made), library).float().mean()),
                }
                log(f"{line}: {text_of(report[line])}")
                page = tile(made[::each], 8)
                name = arguments.out.with_name(f"{arguments.out.stem}-{line.replace(', ', '-').replace(' ', '-')}.png")
                write_atomic(name, lambda file: page.save(file, "PNG"))
            for arm in arms[1:]:
                report[f"{part}, {words}, {arm} / without"] = {
                    name: times(found[arm][name], found["without"][name], plan.rows) for name in judges
                }
    return report
