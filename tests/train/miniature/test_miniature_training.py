"""The training of the miniatures: its world, its rng, a run that goes on bit by bit, and the commands end to end."""

import csv
import math
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from realrag.errors import RealRAGError
from realrag.miniature.autoencoder import Autoencoder, load_autoencoder
from realrag.miniature.classifier import copied, load_judge, softened
from realrag.miniature.generator import load_generator
from realrag.miniature.sd3 import SD3, SD3Config
from realrag_train.__main__ import main
from realrag_train.judge.histograms import Histograms
from realrag_train.loop.stages import STOPPED
from realrag_train.loop.trainer import epoch_rows
from realrag_train.loop.watch import Hooks, RunFiles, Watch, WatchConfig
from realrag_train.miniature import world as world_module
from realrag_train.miniature.classifier import learn
from realrag_train.miniature.generator import GeneratorConfig, GeneratorTraining, flow_loss, noise_levels
from realrag_train.miniature.measure import accuracy, times
from realrag_train.miniature.sheet import tile
from realrag_train.miniature.taef2 import FRONT, Teacher, squeeze
from realrag_train.miniature.world import World, held_out, view_of
from realrag_train.small_encoder.captioned_photos import Group, Photo, PhotoSet

ROOT = Path(__file__).parents[3]


# The world


def write_grocery(folder, classes, photos=0, size=(40, 32)):
    folder.mkdir(parents=True)
    with open(folder / "classes.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows(
            [("class", "coarse_class", "iconic", "description"), *((name, name, "", "") for name in classes)]
        )
    lines = [("path", "class", "coarse_class", "split")]
    for split in ("train", "val", "test"):
        for place, name in enumerate(classes if photos else ()):
            for number in range(photos):
                path = folder / "photos" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                color = tuple(int(c) for c in np.random.default_rng(place).integers(0, 255, 3))
                Image.new("RGB", size, color).save(path)
                lines.append((path.relative_to(folder).as_posix(), name, name, split))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)


def test_the_committed_list_is_what_the_seed_draws(tmp_path):
    names = sorted(path.name for path in (ROOT / "realrag/assets/photos/grocery").iterdir() if path.is_dir())
    write_grocery(tmp_path / "grocery", names)
    listed = (ROOT / "train/miniature/held_out.txt").read_text().splitlines()
    assert len(names) == 81 and listed == list(held_out(tmp_path / "grocery")) and len(set(listed)) == 16


def test_odd_views_are_mirrored_except_packages_and_each_view_is_the_same_again(tmp_path):
    left = np.zeros((32, 48, 3), np.uint8)
    left[:, :24] = 255  # bright on the left
    for name in ("pear", "milk"):
        Image.fromarray(left).save(tmp_path / f"{name}.png")
    groups = tuple(Group(name, name, name) for name in ("pear", "milk"))
    photos = PhotoSet(groups, tuple(Photo(tmp_path / f"{name}.png", name) for name in ("pear", "milk")))
    world = World(photos, tmp_path / "scratch", size=16)
    brighter_left = [[int(p[:, :, :8].mean() > p[:, :, 8:].mean()) for p in world.pixels(view)] for view in range(3)]
    assert brighter_left == [[1, 1], [0, 1], [1, 1]]
    first = np.array(world.pixels(2))
    (tmp_path / "scratch" / f"pixels-{world.key}-2.npy").unlink()
    assert np.array_equal(world.pixels(2), first) and first.shape == (2, 3, 16, 16)
    assert replace(world, seed=1).key != world.key


def test_a_crop_stays_inside_the_photo():
    image = Image.new("RGB", (50, 30), (10, 200, 30))
    for seed in range(20):
        made = np.asarray(view_of(image, 16, 2, False, random.Random(seed)))
        assert made.shape == (16, 16, 3) and (made == (10, 200, 30)).all()


# The rng


def test_every_epoch_goes_through_all_rows_even_where_a_batch_spans_two():
    rows, epochs = zip(*(epoch_rows(3, step, 4, 10) for step in range(10)), strict=True)
    rows, epochs = torch.cat(rows), torch.cat(epochs)
    for epoch in range(4):
        assert rows[epochs == epoch].sort().values.tolist() == list(range(10))
    assert rows[:10].tolist() != rows[10:20].tolist()
    assert len(epoch_rows(3, 1, 25, 10)[0]) == 25  # a batch greater than an epoch


def test_noise_levels_are_logit_normal_shifted_with_an_even_share():
    rng = torch.Generator().manual_seed(0)
    drawn = noise_levels(40_000, 3.0, 0.0, rng)
    back = drawn / (3 - 2 * drawn)  # undoes the shift
    normal = (back / (1 - back)).log()
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    flat = noise_levels(40_000, 1.0, 1.0, rng)
    assert torch.histc(flat, 4, 0, 1).sub(10_000).abs().max() < 300


def test_the_flow_loss_is_zero_for_the_true_velocity_and_its_slow_twin_otherwise():
    x, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.2, 0.5, 0.9])
    assert flow_loss(lambda *_: noise - x, x, noise, t, (None, None)).max() == 0
    found = flow_loss(lambda noisy, *_: noisy, x, noise, t, (None, None))
    for row in range(3):
        noisy = (1 - t[row]) * x[row] + t[row] * noise[row]
        wanted = (
            sum(
                (a - (n - b)) ** 2
                for a, n, b in zip(noisy.flatten(), noise[row].flatten(), x[row].flatten(), strict=True)
            )
            / 32
        )
        assert torch.isclose(found[row], wanted)


# A run


def training(steps=6, **more):
    torch.manual_seed(0)
    config = GeneratorConfig(**{"steps": steps, "batch": 4, "views": 2, "warm_up": 2, "bf16": False, **more})
    rng = np.random.default_rng(0)
    latents = [rng.normal(size=(5, 16, 4, 4)).astype(np.float16) for _ in range(2)]
    groups = [Group(name, name, "fruit", "") for name in ("apple", "pear", "kiwi", "plum", "lime")]

    def texts(prompts):
        codes = torch.tensor([[sum(map(ord, prompt)) % 97 / 97] for prompt in prompts])
        return codes[:, :, None].expand(-1, 3, 8), codes.expand(-1, 6)

    return GeneratorTraining(SD3(SD3Config(depth=1, context=8, pooled=6, grid=4)), config, latents, groups, texts)


def watched(run, folder, key="k"):
    """Runs the training with its files in `folder`; True when it came to its end."""
    return Watch(run, key, RunFiles.beside(folder / "run.safetensors"), WatchConfig(log_steps=2), Hooks()).run()


class Interrupted(GeneratorTraining):
    def advance(self):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().advance()


@pytest.mark.slow
@pytest.mark.parametrize("bf16", (False, True))
def test_a_run_that_is_told_to_stop_goes_on_to_the_same_bits(tmp_path, bf16):
    whole = training(bf16=bf16)
    assert watched(whole, tmp_path / "whole")
    parted = training(bf16=bf16)
    parted.__class__ = Interrupted
    before = signal.getsignal(signal.SIGTERM)
    assert not watched(parted, tmp_path / "parted") and parted.step == 4
    assert signal.getsignal(signal.SIGTERM) is before
    again = training(bf16=bf16)
    assert watched(again, tmp_path / "parted") and again.step == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, again.average[name]), name
    logs = [list(csv.DictReader(open(tmp_path / name / "run.csv"))) for name in ("whole", "parted")]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]] and len(logs[0]) == 3
    assert not list(tmp_path.rglob(".*"))


def test_a_checkpoint_of_other_settings_is_refused_and_a_damaged_one_too(tmp_path):
    watched(training(steps=1), tmp_path)
    with pytest.raises(RealRAGError, match="other data or settings"):
        watched(training(), tmp_path, key="other")
    file = tmp_path / "run.checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RealRAGError, match=r"cannot be read|is damaged"):
        watched(training(), tmp_path)


def test_the_rate_holds_and_comes_down_over_the_last_quarter():
    run = training(steps=100)
    rates = []
    for run.step in range(101):
        rates.append(run.lr() / run.config.rate)
    assert rates[0] == 0.5 and all(rate == 1 for rate in rates[1:76]) and rates[100] == 0
    assert rates[88] == pytest.approx(12 / 25)


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_average_follows_the_weights():
    run = training(steps=120, rate=3e-3)
    losses = [run.advance()["loss"] for _ in range(120)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    name = "final_layer.linear.weight"
    assert 0 < (run.averaged().state_dict()[name] - run.model.state_dict()[name]).abs().max() < 0.1


def test_a_tenth_of_the_texts_is_dropped():
    run = training(steps=200, text_drop=0.3)
    said = []
    run.texts = lambda prompts: said.extend(prompts)
    for run.step in range(200):
        run.batch()
    share = sum(prompt == "" for prompt in said) / len(said)
    assert len(said) == 800 and 0.25 < share < 0.35


# The autoencoder's start


def test_squeezing_starts_from_the_teachers_widest_directions_at_unit_variance():
    torch.manual_seed(0)
    teacher, ours = Teacher(), Autoencoder()
    latents = torch.randn(4000, 16) @ torch.randn(16, 32) + torch.randn(32)  # nothing beyond 16 directions
    squeeze(teacher, ours, latents)
    features = torch.rand(1, 64, 4, 4)
    theirs, mine = teacher.tail[-1](features), ours.taesd_encoder[-1](features)
    inner = ours.taesd_decoder[1](mine).detach()
    assert mine.shape == (1, 16, 4, 4)
    # Away from the border, what our decoder's first layer says of our latents is what the teacher's says of its own,
    # once these lie in the 16 directions.
    centered = latents - latents.mean(0)
    basis = torch.linalg.svd(centered, full_matrices=False)[2][:16]
    flat = (theirs.movedim(1, -1) - latents.mean(0)) @ basis.T @ basis + latents.mean(0)
    wanted = teacher.head[1](flat.movedim(-1, 1)).detach()
    assert torch.allclose(inner[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1], atol=1e-3)
    weight = ours.taesd_encoder[-1].weight.flatten(1)
    through = torch.linalg.lstsq(teacher.tail[-1].weight.flatten(1).T, weight.T).solution.T  # (16, 32): scaled basis
    assert (centered @ through.T).var().item() == pytest.approx(1, abs=1e-2)


# The judge and the commands


def test_the_share_of_right_answers_counts_every_class_alike():
    named, labels = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 0, 0, 2])
    assert accuracy((named == labels).astype(float), labels)["mean"] == pytest.approx((0.75 + 1) / 2)


@pytest.mark.slow
def test_the_commands_go_from_photos_to_a_generator_and_its_measure(tmp_path, monkeypatch, capsys):
    """With a random teacher, two photos a class and a few steps: what is tested is that each file fits the next
    command."""
    from safetensors.torch import save_file

    from realrag.encoders.small_net import MobileNet

    monkeypatch.setattr(world_module, "HELD_OUT", 1)
    torch.manual_seed(0)
    write_grocery(tmp_path / "grocery", ["Kiwi", "Lemon", "Juice"], photos=2)
    for name in ("clothing/hat", "subjects/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (90, 90, 200)).save(tmp_path / name / "0.png")
    (tmp_path / "subjects" / "prompts_and_classes.txt").write_text("dog,dog\n")
    teacher, ours = Teacher(), Autoencoder()
    (tmp_path / "taef2").mkdir()
    states = [{}, {}]
    for part, (module, inner, first) in enumerate(
        ((ours.taesd_encoder, teacher.tail, FRONT), (ours.taesd_decoder, teacher.head, 0))
    ):
        states[part] = dict(module.state_dict())
        states[part] |= {
            f"{int(n.split('.', 1)[0]) + first}.{n.split('.', 1)[1]}": v for n, v in inner.state_dict().items()
        }
        torch.save(states[part], tmp_path / "taef2" / f"taef2_{('encoder', 'decoder')[part]}.pth")
    save_file(MobileNet().state_dict(), tmp_path / "net.safetensors", {"mean": "0.5", "std": "0.5", "source": "random"})
    common = [word for name in ("grocery", "clothing", "subjects") for word in (f"--{name}", str(tmp_path / name))]
    common += ["--scratch", str(tmp_path / "scratch"), "--threads", "1"]
    coder, made = tmp_path / "out" / "ae.safetensors", tmp_path / "out" / "sd3.safetensors"
    short = "--views 1 --inner-steps 1 --joint-steps 1 --last-steps 1 --inner-batch 2 --batch 2"
    assert (
        main(
            ["miniature-autoencoder", *common, "--taef2", str(tmp_path / "taef2"), "--out", str(coder), *short.split()]
        )
        == 0
    )
    front = load_autoencoder(coder).taesd_encoder[0].weight
    assert torch.equal(front, ours.taesd_encoder[0].weight.half().float())  # the outer layers stay
    short = "--views 2 --steps 2 --batch 2 --sheet-minutes 0"
    assert (
        main(["miniature-generator", "sd3", *common, "--autoencoder", str(coder), "--out", str(made), *short.split()])
        == 0
    )
    assert load_generator(made).final_layer.linear.weight.any()
    # Three more steps, and time for one
    stopped = main(["miniature-generator", "sd3", *common, "--autoencoder", str(coder), "--out", str(made),
                    *f"{short} --max-minutes 1e-6".replace("--steps 2", "--steps 5").split()])  # fmt: skip
    assert stopped == STOPPED and "Stopped after step 3" in capsys.readouterr().out
    short = (
        f"--mobilenet {tmp_path / 'net.safetensors'} --out {tmp_path / 'out' / 'm.json'} --each 1 --most 1 --steps 1"
    )
    assert (
        main(["miniature-measure", *common, "--autoencoder", str(coder), "--generator", str(made), *short.split()]) == 0
    )
    assert '"held out, kind, without"' in (tmp_path / "out" / "m.json").read_text()
    judge = tmp_path / "out" / "judge.safetensors"
    assert (
        main(["miniature-judge", *common[:-2], "--mobilenet", str(tmp_path / "net.safetensors"), "--out", str(judge)])
        == 0
    )
    features, loaded = load_judge(judge)
    assert loaded.names == ("kiwi", "lemon", "juice") and loaded(features(torch.rand(2, 3, 16, 16))).shape == (2, 3)
    with pytest.raises(RealRAGError, match=r"expected .realrag-judge"):
        load_judge(made)


def test_a_copy_is_as_near_as_photos_hardly_ever_are_to_one_another():

    def near(cosine):
        return torch.tensor([cosine, (1 - cosine**2) ** 0.5, 0, 0])

    photos = torch.stack([near(1.0), near(0.9), *torch.eye(4)[2:]])
    assert copied(torch.stack([near(1.0), near(-0.2), near(0.2)]), photos).tolist() == [True, False, False]
    assert copied(near(0.95)[None], photos).all() and not copied(near(0.2)[None], photos).any()


def test_histograms_count_colours_and_gradients():
    """Against a slow count."""
    pictures = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    found = (2 * Histograms()(pictures)) ** 2
    assert found.shape == (2, 656)
    for picture, shares in zip(pictures, found, strict=True):
        colors = [0.0] * 512
        for row in range(12):
            for column in range(10):
                r, g, b = (min(7, int(value * 8)) for value in picture[:, row, column])
                colors[64 * r + 8 * g + b] += 1 / 120
        assert torch.allclose(shares[:512], torch.tensor(colors), atol=1e-5)
        gray, gradients = picture.mean(0), [0.0] * 48
        for row in range(1, 11):
            for column in range(1, 9):
                across, down = (
                    gray[row, column + 1] - gray[row, column - 1],
                    gray[row + 1, column] - gray[row - 1, column],
                )
                strength, turn = min(1, 8 * math.hypot(across, down)), math.atan2(down, across) % math.pi
                gradients[int(strength * 5.99) * 8 + min(7, int(turn / math.pi * 8))] += 1 / 80
        assert torch.allclose(shares[512:560], torch.tensor(gradients), atol=1e-5)


def test_intervals_draw_classes_and_a_ratio_is_of_the_same_rows():
    classes = np.repeat(np.arange(16), 8)
    right = np.repeat(np.arange(16) % 2, 8).astype(float)
    found = accuracy(right, classes)
    assert found["mean"] == 0.5 and 0.2 < found["low"] < 0.3 and 0.7 < found["high"] < 0.8  # of 16 coins, not of 128
    assert times(right, right, classes) == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert times(right, right * 0, classes)["mean"] == np.inf


def test_the_judge_learns_classes_that_a_line_parts_and_is_not_led_by_their_sizes():
    rng = torch.Generator().manual_seed(0)
    middles = torch.nn.functional.normalize(torch.randn(3, 16, generator=rng), dim=1)
    labels = torch.tensor([0] * 60 + [1] * 6 + [2] * 6)
    drawn = torch.nn.functional.normalize(middles[labels] + 0.1 * torch.randn(72, 16, generator=rng), dim=1)
    judge = learn("abc", drawn, labels.tolist())
    fresh = torch.nn.functional.normalize(middles[labels] + 0.1 * torch.randn(72, 16, generator=rng), dim=1)
    margins = judge.margins(fresh, labels)
    assert accuracy((margins > 0).numpy().astype(float), labels.numpy())["mean"] > 0.95
    assert torch.equal(margins > 0, judge(fresh).argmax(1) == labels)
    assert margins[0] == pytest.approx(float(judge(fresh)[0, 0] - judge(fresh)[0, 1:].max()), abs=1e-5)


def test_a_softened_photo_keeps_its_light_and_loses_its_edges():
    photo = torch.zeros(1, 3, 16, 16)
    photo[..., ::2] = 1
    soft = softened(photo)
    assert soft.mean() == pytest.approx(0.5, abs=1e-4) and soft.diff(dim=3).abs().mean() < 0.5


def test_a_sheet_is_filled_row_by_row_and_white_where_nothing_is_left():
    pictures = torch.stack([torch.full((3, 2, 2), n / 10) for n in range(5)])
    sheet = np.asarray(tile(pictures, 3))
    assert sheet.shape == (4, 6, 3)
    assert sheet[::2, ::2, 0].tolist() == [[0, 26, 51], [76, 102, 255]]


def test_a_judge_that_names_no_photo_rightly_gives_no_fraction():
    from realrag_train.miniature.measure import over, text_of

    assert over(0.5, 0.0) is None and over(0.2, 0.4) == 0.5
    assert text_of({"mean": None}) == "not defined" and text_of({"mean": 0.5}) == "0.500"
