"""What a text should look like: texts with the direction in the space of photos that their vector is to have.

ImageNet's classifier has a row of weights for each of 1,000 names, which is what a photo of it looks like to the photo
tower. A word of WordNet gets a mean of these rows: those of classes that are close to it in WordNet and to MiniLM count
most. A class of named photos gets the middle of its photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..small_encoder.captioned_photos import TEMPLATES, PhotoSet
from .wordnet import WordNet

NAMED = (
    "{}",
    "a photo of {}",
    "a photo of a {}",
    "a close-up of a {}",
    "a {} on a table",
    "{}, real photo",
    "a picture of the {}s",
)


@dataclass(frozen=True)
class Lessons:
    """texts: N texts. targets: (M, D) unit directions. rows: (N,) the target of each text. weights: (N,)."""

    texts: list[str]
    targets: Tensor
    rows: Tensor
    weights: Tensor


@dataclass(frozen=True)
class TeacherConfig:
    """How far classes count for another word; chosen on names of ImageNet that were left out of the mean (200 of 1,000, five
    times: their rows were told apart by name with R@1 0.53; by MiniLM alone 0.43, by WordNet alone 0.42)."""

    tree: float = 0.75  # times the information of the narrowest meaning that holds both, in nats
    language: float = 7.0  # times the cosine of MiniLM


def informations(tree: WordNet, classes: list[str], keys: list[str]) -> Tensor:
    """(K, 1000): for each meaning and class the information of the narrowest meaning above both, -log of the fraction of
    the classes below it; 0 where only the widest is."""
    below: dict[str, list[int]] = {}
    for number, key in enumerate(classes):
        for wider in tree.above(key):
            below.setdefault(wider, []).append(number)
    table = {}
    for key, numbers in below.items():
        table[key] = np.zeros(len(classes), np.float32)
        table[key][numbers] = -np.log(len(numbers) / len(classes))
    return torch.from_numpy(
        np.stack([np.max([table[key] for key in tree.above(one) if key in table], 0) for one in keys])
    )


def wordnet_lessons(
    tree: WordNet, classes: list[str], rows: Tensor, words: list[str], vectors: Tensor, config: TeacherConfig
) -> Lessons:
    """Lessons for all visible words. classes: synsets; rows: their (1000, D) unit directions; words: `visible_words`;
    vectors: MiniLM's for them."""
    keys = tree.visible(classes)
    place = {word: number for number, word in enumerate(words)}

    def meaning(key: str) -> Tensor:
        return F.normalize(vectors[[place[word] for word in tree.synsets[key].words]].mean(0), dim=0)

    of_keys = torch.stack([meaning(key) for key in keys])
    of_classes = torch.stack([meaning(key) for key in classes])
    targets = []
    for start in range(0, len(keys), 2048):
        part = slice(start, start + 2048)
        close = config.tree * informations(tree, classes, keys[part]) + config.language * of_keys[part] @ of_classes.T
        targets.append(F.normalize(close.softmax(1) @ rows, dim=1))
    found, row_of = torch.cat(targets), {key: number for number, key in enumerate(keys)}
    for number, key in enumerate(classes):
        found[row_of[key]] = rows[number]
    texts, at, weights = [], [], []
    for word in words:
        senses = tree.senses.get(word.lower(), [])
        for number, key in enumerate(senses):
            if key in row_of:
                texts.append(word), at.append(row_of[key]), weights.append(1 / (1 + number) ** 2)
    return Lessons(texts, found, torch.tensor(at), torch.tensor(weights))


def visible_words(tree: WordNet, classes: list[str]) -> list[str]:
    return sorted({word for key in tree.visible(classes) for word in tree.synsets[key].words})


def name_lessons(tree: WordNet, classes: list[str], labels: list[str], rows: Tensor) -> Lessons:
    """ImageNet's names, in sentences."""
    texts, at = [], []
    for number, (key, label) in enumerate(zip(classes, labels, strict=True)):
        for name in sorted({*label.split(", "), *tree.synsets[key].words}):
            for template in NAMED:
                texts.append(template.format(name)), at.append(number)
    return Lessons(texts, rows, torch.tensor(at), torch.ones(len(at)))


def wider_lessons(tree: WordNet, classes: list[str], words: Lessons) -> Lessons:
    """The meanings above ImageNet's classes, in sentences, with the directions that `words` has for them."""
    above = {word for key in classes for wider in tree.above(key) - {key} for word in tree.synsets[wider].words}
    chosen = [number for number, text in enumerate(words.texts) if text in above]
    texts = [template.format(words.texts[number]) for number in chosen for template in NAMED[1:]]
    repeated = torch.tensor(chosen).repeat_interleave(len(NAMED) - 1)
    return Lessons(texts, words.targets, words.rows[repeated], words.weights[repeated])


def photo_lessons(data: PhotoSet, targets: Tensor, left_out: tuple[str, ...]) -> Lessons:
    """Names, coarse names and descriptions of photos' classes. targets: (C, D), one a class."""
    taught = [number for number, group in enumerate(data.groups) if group.name not in left_out]
    coarse = sorted({data.groups[number].coarse for number in taught})
    means = [targets[[n for n in taught if data.groups[n].coarse == name]].mean(0) for name in coarse]
    rows = {data.groups[number].name: number for number in taught}
    rows = {name: len(targets) + number for number, name in enumerate(coarse)} | rows
    texts, at = [], []
    for name, row in rows.items():
        for template in TEMPLATES:
            texts.append(template.format(name)), at.append(row)
    sentences = 0
    for number in taught:
        for sentence in data.groups[number].description.split(". "):
            texts.append(sentence), at.append(number)
            sentences += 1
    weights = torch.cat([torch.ones(len(texts) - sentences), torch.full((sentences,), 0.3)])
    return Lessons(texts, F.normalize(torch.cat([targets, torch.stack(means)]), dim=1), torch.tensor(at), weights)
