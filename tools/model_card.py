"""Measures the small encoder on the grocery test photos and writes docs/model-card.md, and its figures as JSON."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.small import SMALL_FILE
from realrag.encoders.small_net import MobileNet
from realrag.interval_text import with_interval

from ..retrieval_metrics import SHORT, ranked_relevance, ranking_figures
from ..small_encoder.captioned_photos import QUERY, Photo, PhotoSet, read_grocery
from ..small_encoder.mobilenet import load_mobilenet
from ..small_encoder.train import training_of
from ..small_encoder.views import open_photo, pixels, plain_view
from ..stats import bootstrap
from .card_text import TEXT

DRAWS = 20


# Vectors


def photo_vectors(encoder: Encoder, photos: tuple[Photo, ...]) -> Tensor:
    """(N, D) of unit length, through the preprocessing and tower that ship."""
    size, chunks = encoder.preprocess.size, []
    for start in range(0, len(photos), 64):
        batch = [encoder.prepare(open_photo(photo.path, size)) for photo in photos[start : start + 64]]
        chunks.append(encoder.encode_images(torch.stack(batch)))
    return F.normalize(torch.cat(chunks), dim=1)


@torch.inference_mode()
def mobilenet_vectors(file: Path, photos: tuple[Photo, ...], size: int = 224) -> Tensor:
    """(N, 1024) of unit length from MobileNet as it was converted, at the size it was made for."""
    state, about = load_mobilenet(file)
    tower, chunks = MobileNet(), []
    tower.load_state_dict(state)
    tower.to(memory_format=torch.channels_last)
    for start in range(0, len(photos), 64):
        batch = [plain_view(open_photo(photo.path, size), size) for photo in photos[start : start + 64]]
        chunks.append(tower(pixels(batch, about["mean"], about["std"])).mean((2, 3)))
    return F.normalize(torch.cat(chunks), dim=1)


# Figures: each a dict of measure -> one value per class


def names_to_photos(texts: Tensor, photos: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """texts (C, D), one a class in the order of `labels`."""
    return ranking_figures(ranked_relevance(texts @ photos.T, labels == torch.arange(len(texts))[:, None]), SHORT)


def mean_of(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}


def shuffled_names_to_photos(texts: Tensor, photos: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """The same with every name asking for another class's photos: a mean over DRAWS shuffles."""
    rng, runs = np.random.default_rng(0), []
    for _ in range(DRAWS):
        circle, other = rng.permutation(len(texts)), np.empty(len(texts), int)
        other[circle] = np.roll(circle, 1)
        runs.append(names_to_photos(texts[torch.from_numpy(other)], photos, labels))
    return mean_of(runs)


def random_vectors_to_photos(texts: Tensor, photos: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Chance among these photos: random vectors in place of the names. Classes stay together, which lifts mAP."""
    rng = torch.Generator().manual_seed(0)
    return mean_of([names_to_photos(torch.randn(texts.shape, generator=rng), photos, labels) for _ in range(DRAWS)])


def random_scores(labels: Tensor, classes: int) -> dict[str, np.ndarray]:
    """Chance among photos in any order."""
    rng = torch.Generator().manual_seed(0)
    relevant = labels == torch.arange(classes)[:, None]
    draws = [torch.rand(relevant.shape, generator=rng) for _ in range(DRAWS)]
    return mean_of([ranking_figures(ranked_relevance(scores, relevant), SHORT) for scores in draws])


def photos_to_photos(photos: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Each test photo asks for the others of its class; a class's value is the mean over its photos."""
    scores, relevant = photos @ photos.T, labels == labels[:, None]
    scores.fill_diagonal_(-2), relevant.fill_diagonal_(False)
    last = ranked_relevance(scores, relevant)[:, :-1]  # the photo itself comes last
    each = ranking_figures(last, SHORT)
    return {name: np.array([values[labels == c].mean() for c in labels.unique()]) for name, values in each.items()}


def summary(parts: dict[str, np.ndarray], rows: list[int] | None = None) -> dict[str, list[float]]:
    """measure -> [mean, low, high], rounded as the card prints it."""
    chosen = {name: values if rows is None else values[rows] for name, values in parts.items()}
    return {name: [round(x, 3) for x in bootstrap(each, np.arange(len(each)))] for name, each in chosen.items()}


def measure(test: PhotoSet, encoder: Encoder, partial: Encoder, left_out: list[str], mobilenet: Path) -> dict[str, Any]:
    """Every row of the card."""
    labels = torch.tensor(test.group_rows())
    queries = [QUERY.format(group.name) for group in test.groups]
    unseen = [i for i, group in enumerate(test.groups) if group.name in left_out]
    seen = [i for i in range(len(test.groups)) if i not in unseen]
    texts, photos = F.normalize(encoder.encode_texts(queries), dim=1), photo_vectors(encoder, test.photos)
    held = names_to_photos(
        F.normalize(partial.encode_texts(queries), dim=1), photo_vectors(partial, test.photos), labels
    )
    return {
        "all names": summary(names_to_photos(texts, photos, labels)),
        "names left out of training": summary(held, unseen),
        "the other names, same training": summary(held, seen),
        "shuffled names": summary(shuffled_names_to_photos(texts, photos, labels)),
        "chance: random vectors for names": summary(random_vectors_to_photos(texts, photos, labels)),
        "chance: random scores": summary(random_scores(labels, len(test.groups))),
        "photo to photo, this encoder": summary(photos_to_photos(photos, labels)),
        "photo to photo, MobileNet untouched": summary(
            photos_to_photos(mobilenet_vectors(mobilenet, test.photos), labels)
        ),
    }


# The card


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    lines = [f"| | {' | '.join(SHORT)} |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = (with_interval(row[measure]) for measure in SHORT)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def card(report: dict[str, Any]) -> str:
    """The Markdown of a report; the JSON beside the card holds the same report."""
    config = {name: value for name, value in report["training"]["config"].items() if not name.startswith("left_out")}
    left_out = report["left_out_training"]["left_out"]
    return TEXT.format(
        table=table(report["figures"]), photos=report["photos"], classes=report["classes"],
        left_out=textwrap.fill(", ".join(left_out), 116, subsequent_indent="  "), count=len(left_out),
        megabytes=f"{report['bytes'] / 1e6:.1f}",
        parameters=f"{report['parameters'] / 1e6:.1f}", size=config["size"], dim=config["dim"], query=report["query"],
        left_out_seed=report["left_out_training"]["config"]["left_out_seed"],
        config="\n".join(f"{name} = {value}" for name, value in sorted(config.items())),
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grocery", type=Path, required=True, metavar="DIR")
    parser.add_argument("--mobilenet", type=Path, required=True, metavar="FILE", help="made by convert-mobilenet")
    parser.add_argument(
        "--left-out", type=Path, required=True, metavar="FILE", help="the encoder trained with --left-out 16"
    )
    parser.add_argument(
        "--weights", type=Path, default=SMALL_FILE, metavar="FILE", help="default: the weights that ship"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs/model-card.md"), metavar="FILE", help="the JSON goes beside it"
    )
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    test, encoder = read_grocery(arguments.grocery, "test"), load_encoder(str(arguments.weights))
    partial = load_encoder(str(arguments.left_out))
    training, left_out = training_of(arguments.weights), training_of(arguments.left_out)
    report = {
        "query": QUERY, "photos": len(test.photos), "classes": len(test.groups),
        "bytes": arguments.weights.stat().st_size, "weights_sha256": encoder.weights_sha256,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "training": training, "left_out_training": left_out,
        "figures": measure(test, encoder, partial, left_out["left_out"], arguments.mobilenet),
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(
        json.dumps(report, indent=1, sort_keys=False) + "\n", encoding="utf-8"
    )
    arguments.out.write_text(card(report), encoding="utf-8")
    print(table(report["figures"]))
