"""Measures `realrag-general` on photos that it was not trained on, and writes docs/model-card-general.md and its figures
as JSON."""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realrag import artifact
from realrag.encoders.base import Encoder
from realrag.encoders.fused import same_sides
from realrag.encoders.general import GENERAL, GENERAL_FOLDER, GeneralEncoder
from realrag.encoders.load import load_encoder
from realrag.encoders.small import SMALL, SmallEncoder
from realrag.interval_text import with_interval

from ..retrieval_metrics import ranked_relevance, ranking_figures
from ..small_encoder.captioned_photos import QUERY, PhotoSet, plain_name, read_folders, read_grocery, read_subjects
from ..small_encoder.views import open_photo
from ..stats import bootstrap_of, interval
from .general_card_text import TEXT

PAIRS = Path(__file__).with_name("everyday_pairs.csv")
CURE = "Make it with `python -m train convert-general`."
# Classes of the two sets with a name among ImageNet's 1,000 -> first words of the names that are right. The other classes
# (toy, can) have none.
DOGS, CATS = range(151, 269), range(281, 286)
RIGHT: dict[str, list[str] | range] = {
    "clothing/dress": ["gown"], "clothing/hat": ["cowboy hat", "sombrero", "bonnet", "bathing cap"],
    "clothing/longsleeve": ["sweatshirt", "cardigan"],
    "clothing/outwear": ["trench coat", "fur coat", "suit", "cloak", "poncho", "cardigan", "sweatshirt"],
    "clothing/pants": ["jean", "pajama"], "clothing/shoes": ["running shoe", "Loafer", "clog", "sandal", "cowboy boot"],
    "clothing/shorts": ["swimming trunks"], "clothing/skirt": ["miniskirt", "hoopskirt", "overskirt", "sarong"],
    "clothing/t-shirt": ["jersey"], "subjects/backpack": ["backpack"], "subjects/stuffed animal": ["teddy"],
    "subjects/bowl": ["soup bowl", "mixing bowl"], "subjects/candle": ["candle"],
    "subjects/clock": ["analog clock", "digital clock", "wall clock", "stopwatch"], "subjects/sneaker": ["running shoe"],
    "subjects/boot": ["cowboy boot"], "subjects/glasses": ["sunglass", "sunglasses"], "subjects/cartoon": ["comic book"],
    "subjects/teapot": ["teapot"], "subjects/vase": ["vase"], "subjects/cat": CATS, "subjects/dog": DOGS,
}  # fmt: skip
Figure = list[float]  # mean, low, high


@dataclass(frozen=True)
class Photos:
    """Photos of a set as an encoder has them: raw vectors (N, D), the kind of each ("subjects/dog"), its group (the single
    object), and the pooled features (N, C) for the tower's own classifier, if asked for."""

    vectors: Tensor
    kinds: list[str]
    groups: list[str]
    features: Tensor | None = None


def kinds_of(data: PhotoSet, name: str) -> list[str]:
    groups = {group.key: group for group in data.groups}
    return [f"subjects/{groups[photo.group].coarse}" if name == "subjects" else photo.group for photo in data.photos]


def encode(encoder: Encoder, data: PhotoSet, name: str, cache: Path | None = None) -> Photos:
    """cache: a folder where vectors are kept under the fingerprint of the image tower."""
    kept = cache / f"{encoder.image_fingerprint[:16]}-{name}.safetensors" if cache else None
    if kept is not None and kept.is_file():
        found = artifact.read_tensors(kept, "cached vectors", "Delete it and run again.")
    else:
        found = _encode(encoder, data)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            artifact.write(kept, found)
    groups = [photo.group for photo in data.photos]
    return Photos(found["vectors"], kinds_of(data, name), groups, found.get("features"))


@torch.inference_mode()
def _encode(encoder: Encoder, data: PhotoSet) -> dict[str, Tensor]:
    vectors, features = [], []
    for start in range(0, len(data.photos), 32):
        images = [open_photo(photo.path, encoder.preprocess.size) for photo in data.photos[start : start + 32]]
        pixels = torch.stack([encoder.prepare(image) for image in images])
        if isinstance(encoder, GeneralEncoder):
            image = encoder.towers.image
            x = image.trunk(encoder.preprocess.normalize(pixels, torch.float32))
            general, taught = image.tail(x), image.taught_tail(x)
            vectors.append(image.join(image.pool(general), image.pool(taught)))
            features.append(general.mean((2, 3)))
        else:
            vectors.append(encoder.encode_images(pixels))
    return {"vectors": torch.cat(vectors)} | ({"features": torch.cat(features)} if features else {})


def unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def asked(encoder: Encoder, names: list[str]) -> Tensor:
    return unit(encoder.encode_texts([QUERY.format(name) for name in names]))


# Figures


def imagenet_names(
    encoder: Encoder, sets: list[Photos], labels: list[str], rows: Tensor, bias: Tensor
) -> dict[str, Any]:
    """How often the tower's own classifier names a photo rightly, among 1,000 names, and how often the text tower does."""
    right = {
        kind: set(names) if isinstance(names, range) else {
            number for number, label in enumerate(labels) if set(names) & set(label.split(", "))
        }
        for kind, names in RIGHT.items()
    }  # fmt: skip
    names, own, found, kinds = asked(encoder, [label.split(", ")[0] for label in labels]), [], [], []
    for photos in sets:
        assert photos.features is not None
        first = (photos.features @ rows.T + bias).argmax(1).tolist()
        text = (unit(photos.vectors) @ names.T).argmax(1).tolist()
        for kind, a, b in zip(photos.kinds, first, text, strict=True):
            if kind in right:
                own.append(a in right[kind]), found.append(b in right[kind]), kinds.append(kind)
    own, found = np.array(own, float), np.array(found, float)
    kept = float(found[own > 0].mean())
    ratio = float(found.mean() / own.mean())
    low, high = bootstrap_of(lambda at: found[at].mean() / max(own[at].mean(), 1e-9), np.array(kinds))
    return {
        "photos": len(own), "classifier": interval(own, np.array(kinds)), "text tower": interval(found, np.array(kinds)),
        "ratio": [ratio, low, high], "of the classifier's right answers": kept,
    }  # fmt: skip


def photo_to_name(encoder: Encoder, photos: Photos) -> Figure:
    kinds = sorted(set(photos.kinds))
    names = asked(encoder, [plain_name(kind.split("/")[1]) for kind in kinds])
    first = (unit(photos.vectors) @ names.T).argmax(1).tolist()
    right = np.array([kinds[at] == kind for at, kind in zip(first, photos.kinds, strict=True)], float)
    return interval(right, np.array(photos.kinds))


def photo_to_photo(photos: Photos, labels: list[str], centered: bool) -> Figure:
    """mAP of each photo asking for the others of its label, a mean over labels."""
    vectors = unit(photos.vectors)
    vectors = unit(vectors - vectors.mean(0)) if centered else vectors
    known = sorted(set(labels))
    label = torch.tensor([known.index(one) for one in labels])
    scores, relevant = vectors @ vectors.T, label == label[:, None]
    scores.fill_diagonal_(-2), relevant.fill_diagonal_(False)
    has = relevant.any(1)
    each = ranking_figures(ranked_relevance(scores[has], relevant[has]), ("mAP",))["mAP"]
    of = label[has].numpy()
    means = np.array([each[of == one].mean() for one in np.unique(of)])
    return interval(means, np.arange(len(means)))


def name_to_photo(encoder: Encoder, photos: Photos, data: PhotoSet, chosen: list[str] | None = None) -> Figure:
    """mAP of class names among all photos of the grocery test split; `chosen`: of these names only."""
    names = asked(encoder, [group.name for group in data.groups])
    relevant = torch.tensor(data.group_rows()) == torch.arange(len(names))[:, None]
    each = ranking_figures(ranked_relevance(names @ unit(photos.vectors).T, relevant), ("mAP",))["mAP"]
    rows = [number for number, group in enumerate(data.groups) if chosen is None or group.name in chosen]
    return interval(each[rows], np.arange(len(rows)))


def everyday(encoder: Encoder, sets: list[Photos], grocery: PhotoSet) -> dict[str, Any]:
    """R@1 of the hundred prompts among the photos of all three sets, and what fails."""
    coarse = {group.key: f"grocery/{group.coarse}" for group in grocery.groups}
    vectors = unit(torch.cat([photos.vectors for photos in sets]))
    kinds = [kind for photos in sets for kind in photos.kinds]
    with open(PAIRS, encoding="utf-8", newline="") as file:
        pairs = [(row["prompt"], [one.lower() for one in row["right"].split(";")]) for row in csv.DictReader(file)]
    right, failed = [], []
    for (prompt, wanted), first in zip(
        pairs, (asked(encoder, [p for p, _ in pairs]) @ vectors.T).argmax(1), strict=True
    ):
        kind = kinds[int(first)]
        names = {kind.lower(), coarse.get(kind, kind).lower().replace(" ", "-")}
        right.append(bool(names & set(wanted)))
        if not right[-1]:
            failed.append([prompt, kind])
    return {"R@1": interval(np.array(right, float), np.arange(len(right))), "failed": failed}


def padded(x: Tensor, layer: torch.nn.Conv2d) -> Tensor:
    return F.pad(x, same_sides(x, layer))


def small_before(encoder: SmallEncoder) -> Callable[[Tensor], Tensor]:
    """The image tower of realrag-small as version 0.1.0 ran it."""
    net = encoder.towers.mobilenet

    def run(x: Tensor) -> Tensor:
        x = F.relu6(net.stem(padded(x.contiguous(memory_format=torch.channels_last), net.stem)))
        for block in net.blocks:
            x = F.relu6(block.pointwise(F.relu6(block.depthwise(padded(x, block.depthwise)))))
        return encoder.towers.pool(x)

    return run


@torch.inference_mode()
def milliseconds(loops: dict[str, Callable[[], Any]], rounds: int, photos: int) -> dict[str, float]:
    """CPU time a photo of each loop, one thread: medians of rounds in turns."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            start = time.process_time()
            loop()
            if turn:
                times[name].append((time.process_time() - start) * 1000 / photos)
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def speed(general: Encoder, small: SmallEncoder, rounds: int = 5, photos: int = 32) -> dict[str, Any]:
    torch.set_num_threads(1)
    pixels = {
        name: torch.randint(0, 256, (photos, 3, one.preprocess.size, one.preprocess.size), dtype=torch.uint8)
        for name, one in ((GENERAL, general), (SMALL, small))
    }
    before = small_before(small)
    found = milliseconds(
        {
            GENERAL: lambda: general.encode_images(pixels[GENERAL]),
            SMALL: lambda: small.encode_images(pixels[SMALL]),
            f"{SMALL} of version 0.1.0": lambda: before(small.preprocess.normalize(pixels[SMALL], torch.float32)),
        },
        rounds, photos,
    )  # fmt: skip
    return {"ms a photo": found, "ratio": round(found[f"{SMALL} of version 0.1.0"] / found[GENERAL], 2)}


def measure(
    folder: Path,
    left: Path | None,
    start: Path,
    labels: list[str],
    grocery: Path,
    clothing: Path,
    subjects: Path,
    cache: Path | None = None,
) -> dict[str, Any]:
    tower = artifact.read_tensors(start / "lite0.safetensors", "a converted EfficientNet-Lite0", CURE)
    rows, bias = tower["classifier.weight"], tower["classifier.bias"]
    sets = {
        "clothing": read_folders(clothing, "clothing/"), "subjects": read_subjects(subjects),
        "grocery": read_grocery(grocery, "test"),
    }  # fmt: skip
    report: dict[str, Any] = {}
    encoders = {GENERAL: load_encoder(str(folder)), SMALL: load_encoder(SMALL)}
    for name, encoder in encoders.items():
        photos = {key: encode(encoder, data, key, cache) for key, data in sets.items()}
        labels_of = {
            "clothing": photos["clothing"].kinds, "subjects": photos["subjects"].groups,
            "grocery": photos["grocery"].kinds,
        }  # fmt: skip
        report[name] = {
            "subjects, 15 words, photo to name": photo_to_name(encoder, photos["subjects"]),
            "clothing, 10 names, photo to name": photo_to_name(encoder, photos["clothing"]),
            "grocery test, name to photo": name_to_photo(encoder, photos["grocery"], sets["grocery"]),
            "photo to photo": {key: photo_to_photo(photos[key], labels_of[key], False) for key in photos},
            "photo to photo, centered": {key: photo_to_photo(photos[key], labels_of[key], True) for key in photos},
            "everyday": everyday(encoder, list(photos.values()), sets["grocery"]),
        }
        if name == GENERAL:
            both = [photos["clothing"], photos["subjects"]]
            report[name]["ImageNet names"] = imagenet_names(encoder, both, labels, rows, bias)
    if left is not None:
        partial = load_encoder(str(left))
        names = training_of(left)["left_out"]
        photos = encode(partial, sets["grocery"], "grocery", cache)
        report["left out"] = {
            "names": names, "mAP": name_to_photo(partial, photos, sets["grocery"], names),
            "the other names": name_to_photo(
                partial, photos, sets["grocery"], [g.name for g in sets["grocery"].groups if g.name not in names]
            ),
        }  # fmt: skip
    report["classes"] = len(sets["grocery"].groups)
    report["photos"] = sum(len(data.photos) for data in sets.values())
    report["speed"] = speed(encoders[GENERAL], encoders[SMALL])  # type: ignore[arg-type]
    report["training"] = training_of(folder)
    report["bytes"] = {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
    report["fingerprint"] = encoders[GENERAL].fingerprint
    return report


def training_of(folder: Path) -> dict[str, Any]:
    metadata = artifact.read_header(folder / GeneralEncoder.IMAGE, "a general encoder", "Train it again.").metadata
    return json.loads(metadata.get("training", "{}"))


# The card


def card(report: dict[str, Any]) -> str:
    general, small = report[GENERAL], report[SMALL]
    names, left = general["ImageNet names"], report.get("left out")

    def row(measure: str, mine: str, other: str, goal: str) -> str:
        return f"| {measure} | {mine} | {other} | {goal} |"

    def both(key: str) -> tuple[str, str]:
        return with_interval(general[key]), with_interval(small[key])

    lines = [
        row(
            f"ImageNet's 1,000 names on {names['photos']} photos of clothing and subjects: right by the text tower / by the "
            "tower's own classifier",
            f"{with_interval(names['ratio'])}: {names['text tower'][0]:.3f} / {names['classifier'][0]:.3f}", "-", "0.9",
        ),
        row("subjects, 15 words, photo to name, R@1", *both("subjects, 15 words, photo to name"), "0.67"),
        row("clothing, 10 names, photo to name, R@1", *both("clothing, 10 names, photo to name"), "0.45"),
        row("grocery test, class name to photo, mAP", *both("grocery test, name to photo"), "0.85"),
    ]  # fmt: skip
    if left:
        lines.append(
            row("the same for 16 names left out of training, mAP", with_interval(left["mAP"]), "0.120", "0.20")
        )
    goals = {"clothing": "0.55", "subjects": "0.95", "grocery": "0.50"}
    for key, goal in goals.items():
        pair = [with_interval(each["photo to photo, centered"][key]) for each in (general, small)]
        lines.append(row(f"photo to photo, {key}, mAP, centered on the set", *pair, goal))
        pair = [with_interval(each["photo to photo"][key]) for each in (general, small)]
        lines.append(row(f"photo to photo, {key}, mAP, as a library searches", *pair, "-"))
    lines.append(
        row(
            "the hundred everyday prompts, R@1",
            with_interval(general["everyday"]["R@1"]), with_interval(small["everyday"]["R@1"]), "-",
        )
    )  # fmt: skip
    times = report["speed"]["ms a photo"]
    lines.append(
        row(
            "photos a second and thread, against realrag-small of version 0.1.0",
            f"{report['speed']['ratio']:.2f}", f"{times[f'{SMALL} of version 0.1.0'] / times[SMALL]:.2f}", "1.3",
        )
    )  # fmt: skip
    kept = names["of the classifier's right answers"]
    failed = "\n".join(f"- {prompt}: {kind}" for prompt, kind in general["everyday"]["failed"])
    return TEXT.format(
        classes=report["classes"], photos=report["photos"],
        table="\n".join(lines), failed=failed, files=" and ".join(f"{n} ({b / 1e6:.1f} MB)" for n, b in report["bytes"].items()),
        kept=f"{kept:.3f}", ms=times[GENERAL], before=times[f"{SMALL} of version 0.1.0"],
        left_out=", ".join(left["names"]) if left else "", others=with_interval(left["the other names"]) if left else "",
        settings=json.dumps({k: v for k, v in report["training"].items() if k != "left_out"}, indent=1, sort_keys=True),
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("start", "grocery", "clothing", "subjects"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE", help="ImageNet's names, after background")
    parser.add_argument(
        "--encoder", type=Path, default=GENERAL_FOLDER, metavar="DIR", help="default: the one that ships"
    )
    parser.add_argument("--left-out", type=Path, metavar="DIR", help="the encoder trained with --left-out 16")
    parser.add_argument("--out", type=Path, default=Path("docs/model-card-general.md"), metavar="FILE")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps the photos' vectors for another run")
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    labels = arguments.labels.read_text(encoding="utf-8").splitlines()[1:]
    report = measure(
        arguments.encoder,
        arguments.left_out,
        arguments.start,
        labels,
        arguments.grocery,
        arguments.clothing,
        arguments.subjects,
        arguments.cache,
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    arguments.out.write_text(card(report), encoding="utf-8")
    print(card(report))
