"""Training of the small encoder: the pairs, the loss and its formula, a tiny run that resumes."""

import csv
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from realrag.encoders.small_net import MobileNet, SmallDualEncoder
from realrag.errors import RealRAGError
from realrag_train.small_encoder.captioned_photos import (
    Group,
    Photo,
    choose_left_out,
    is_true,
    read_grocery,
    read_subjects,
    read_train,
    sample_text,
)
from realrag_train.small_encoder.trainer import EncoderConfig, EncoderTraining, info_nce, pair_loss
from realrag_train.small_encoder.views import (
    RELU6_STEP,
    FrontCache,
    FrontSettings,
    augmented_view,
    to_features,
    views_of,
)

# Pairs

APPLES = Group("g/1", "granny smith", "apple", "A green apple. Sour."), Group("g/2", "pink lady", "apple")


def test_a_coarse_name_is_true_of_all_its_kinds_and_a_description_of_one():
    assert is_true("apple", *APPLES) and is_true("pink lady", APPLES[1], APPLES[1])
    assert not is_true("granny smith", *APPLES) and not is_true("", *APPLES) and is_true("", APPLES[0], APPLES[0])


def test_sampled_sentences_hold_the_phrase_they_claim():
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        text, phrase = sample_text(APPLES[0], rng, 0.3, 0.3)
        assert phrase in text
        seen.add(phrase)
    assert seen == {"", "apple", "granny smith"}


def make_sets(root: Path) -> tuple[Path, Path, Path]:
    """Colored squares in the shape of the three photo sets."""
    colors = {"Red-Apple": "red", "Green-Apple": "green", "Blue-Milk": "blue", "Gray-Milk": "gray"}
    rows = []
    for name, color in colors.items():
        for split, count in (("train", 6), ("val", 2), ("test", 2)):
            for i in range(count):
                path = Path("photos") / split / name / f"{i}.jpg"
                (root / "grocery" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + i, 48), color).save(root / "grocery" / path)
                rows.append((path.as_posix(), name, name.split("-")[1], split))
    about = [(name, name.split("-")[1], "", f"{name}, described.") for name in colors]
    for file, header, lines in (
        ("labels.csv", ("path", "class", "coarse_class", "split"), rows),
        ("classes.csv", ("class", "coarse_class", "iconic", "description"), about),
    ):  # fmt: skip
        with open(root / "grocery" / file, "w", newline="") as out:
            csv.writer(out).writerows([header, *lines])
    for path, color in (
        ("clothing/hat", "yellow"),
        ("subjects/dog", "brown"),
        ("subjects/dog2", "tan"),
        ("subjects/fancy_boot", "black"),
    ):
        (root / path).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 40), color).save(root / path / f"{i}.jpg")
    (root / "subjects" / "prompts_and_classes.txt").write_text(
        "Classes\n\nsubject_name,class\ndog,dog\ndog2,dog\nfancy_boot,boot\n\nPrompts\n"
    )
    return root / "grocery", root / "clothing", root / "subjects"


def test_only_train_photos_are_read_and_left_out_names_take_everything_with_them(tmp_path):
    grocery, clothing, subjects = make_sets(tmp_path)
    everything = read_train(grocery, clothing, subjects)
    assert len(everything.photos) == 4 * 6 + 2 + 6 and not [
        p for p in everything.photos if "val" in p.path.parts or "test" in p.path.parts
    ]
    assert [(g.name, g.coarse) for g in read_subjects(subjects).groups] == [
        ("dog", "dog"),
        ("dog", "dog"),
        ("fancy boot", "boot"),
    ]
    (name,) = choose_left_out(grocery, 1, seed=7)
    assert (name,) == choose_left_out(grocery, 1, seed=7)
    rest = read_train(grocery, clothing, subjects, (name,))
    assert len(rest.photos) == len(everything.photos) - 6 and len(rest.groups) == len(everything.groups) - 1
    assert (
        not [g for g in rest.groups if name in (g.name, g.description.lower())]
        and len(read_grocery(grocery, "test").photos) == 8
    )


# The loss


def slow_info_nce(scores, positive) -> float:
    rows = []
    for s, p in zip(scores.tolist(), positive.tolist(), strict=True):
        negatives = sum(math.exp(x) for x, yes in zip(s, p, strict=True) if not yes)
        each = [-math.log(math.exp(x) / (math.exp(x) + negatives)) for x, yes in zip(s, p, strict=True) if yes]
        if each:
            rows.append(sum(each) / len(each))
    return sum(rows) / len(rows)


def test_the_loss_equals_its_formula_written_out():
    torch.manual_seed(0)
    scores, positive = torch.randn(9, 7) * 3, torch.rand(9, 7) < 0.4
    positive[0], positive[1] = True, False  # no negative; no positive
    assert info_nce(scores, positive).item() == pytest.approx(slow_info_nce(scores, positive), rel=1e-5)


def test_the_pair_loss_is_the_mean_of_both_directions_and_its_gradient_is_finite():
    torch.manual_seed(0)
    photos, texts, positive = (
        torch.randn(6, 4, requires_grad=True),
        torch.randn(3, 4),
        torch.eye(3, dtype=torch.bool).repeat(2, 1),
    )
    loss = pair_loss(photos, texts, positive, 0.1)
    cosines = torch.tensor([[torch.cosine_similarity(a, b, dim=0) / 0.1 for b in texts] for a in photos.detach()])
    assert loss.item() == pytest.approx(
        (slow_info_nce(cosines, positive) + slow_info_nce(cosines.T, positive.T)) / 2, rel=1e-4
    )
    pair_loss(photos, texts, torch.ones(6, 3, dtype=torch.bool), 0.1).backward()
    assert photos.grad.isfinite().all()


# A tiny run

TINY = EncoderConfig(
    size=32,
    cut=2,
    views=2,
    epochs=20,
    batch=8,
    dim=8,
    buckets=4096,
    text_width=8,
    bf16=False,
    tower_rate=1e-3,
    new_rate=1e-2,
)


def run_to_the_end(training: EncoderTraining) -> list[float]:
    """The mean loss of each epoch."""
    losses = [training.advance()["loss"] for _ in range(training.steps - training.step)]
    each = training.steps_each_epoch
    return [sum(losses[at : at + each]) / each for at in range(0, len(losses), each)]


def tiny_training(root: Path, config: EncoderConfig = TINY) -> EncoderTraining:
    data = read_train(*(root / name for name in ("grocery", "clothing", "subjects")))
    torch.manual_seed(config.seed)
    model = SmallDualEncoder(config.model_config(0.5, 0.5) | {"width": 0.25})
    for (
        part
    ) in model.mobilenet.modules():  # with torch's own start a tower without batch norm hardly answers to its input
        if isinstance(part, torch.nn.Conv2d):
            part.weight.data = 1.5 * torch.nn.init.kaiming_normal_(part.weight.data)
            torch.nn.init.zeros_(part.bias)
    settings = FrontSettings(config.cut, config.size, config.seed, mean=0.5, std=0.5)
    cache = FrontCache(root / "front", model.mobilenet, data.photos, settings)
    return EncoderTraining(model, config, data, cache.views(config.views + 1)[1:])


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    make_sets(root)
    return root


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_front_alone(squares):
    training = tiny_training(squares)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    losses = run_to_the_end(training)
    assert losses[-1] < 0.8 * losses[0]
    after = training.averaged().state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if re.match(r"mobilenet\.(stem|blocks\.[01])\.", name)}


@pytest.mark.slow
def test_words_of_the_training_are_heard_and_no_others(squares):
    model = tiny_training(squares).averaged()
    for text, loud in (("green apple", True), ("described", True), ("quixotic", False)):
        assert bool(model.text.embedding.weight[model.tokenize([text])[0, 0]].any()) is loud, text


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_very_same_weights(squares, tmp_path):
    config = replace(TINY, epochs=2)
    straight = tiny_training(squares, config)
    run_to_the_end(straight)
    halves = tiny_training(squares, config)
    for _ in range(3):
        halves.advance()
    halves.save(tmp_path / "c.safetensors", halves.key)
    rest = tiny_training(squares, config)
    rest.resume(tmp_path / "c.safetensors", rest.key)
    assert rest.step == 3
    run_to_the_end(rest)
    for one, other in ((straight.model, rest.model), (straight.averaged(), rest.averaged())):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(squares, tmp_path):
    first, other = tiny_training(squares), tiny_training(squares, replace(TINY, seed=1))
    first.save(tmp_path / "c.safetensors", first.key)
    with pytest.raises(RealRAGError, match=r"config.seed was 0, now 1.*Delete the file"):
        other.resume(tmp_path / "c.safetensors", other.key)


def test_a_checkpoint_of_the_format_before_the_key_resumes(squares, tmp_path):
    """Its metadata held step, config and photos, and no key."""
    first = tiny_training(squares)
    first.advance()
    tensors, metadata = first.state()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "c.safetensors", metadata)
    second = tiny_training(squares)
    second.resume(tmp_path / "c.safetensors", second.key)
    assert "key" not in metadata and second.step == 1


def test_views_depend_on_the_seed_and_photo_alone(squares):
    photos = list(read_train(squares / "grocery", squares / "clothing", squares / "subjects").photos)
    alone, together = views_of(photos[3:4], 1, 32, seed=5)[0], views_of(photos, 1, 32, seed=5)[3]
    assert alone.tobytes() == together.tobytes() and alone.size == (32, 32)


def test_cached_answers_are_the_fronts_to_within_half_a_step(squares):
    torch.manual_seed(0)
    tower, photos = MobileNet(0.25), (Photo(squares / "clothing" / "hat" / "0.jpg", "hat"),)
    cache = FrontCache(squares / "one", tower, photos, FrontSettings(2, size=32, seed=0, mean=0.5, std=0.5, bf16=False))
    from realrag_train.small_encoder.views import pixels

    answer = tower.front(pixels(views_of(list(photos), 0, 32, 0), 0.5, 0.5), 2)
    assert (to_features(cache.view(0)) - answer).abs().max() <= RELU6_STEP / 2 + 1e-6


def test_augmentation_keeps_to_the_photo():
    image = Image.new("RGB", (50, 30), (200, 10, 10))
    for seed in range(20):
        view = np.asarray(augmented_view(image, 16, random.Random(seed)))
        assert view.shape == (16, 16, 3) and view[..., 0].min() > view[..., 1].max()
