"""The stage `embed`: shared by several processes, short of memory, stopped and killed, it ends in the same bytes."""

import os
import signal
import threading
import time

import embed_in_a_process as process
import pytest
import torch
from bundle_content import content
from fake_encoder import ColorEncoder, Cramped

import realrag.indexing.shards
from realrag.bundle.bundle import Bundle
from realrag.encoders.adaptive_batch import AdaptiveBatch
from realrag.errors import EncoderError, RealRAGError
from realrag.indexing import workers as sharing
from realrag.indexing.build import WORK, build
from realrag.indexing.options import IndexOptions
from realrag.indexing.shards import Sizes, encode_all, shard_parts, suited
from realrag.photos.scan import scan
from realrag_train.__main__ import main
from realrag_train.loop.progress import Progress, duration
from realrag_train.loop.ranks import own_device, rank_and_world_size
from realrag_train.retriever import run as stages


@pytest.fixture
def whole(photos, tmp_path, monkeypatch):
    """The bytes of the bundle that one undisturbed process makes, in shards of four photos."""
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", process.SHARD)
    build(photos, tmp_path / "whole", ColorEncoder())
    return content(tmp_path / "whole")


@pytest.fixture
def whole_of_recipe(photos, tmp_path, monkeypatch):
    """The same, with pictures bounded by their longest side, as a recipe does."""
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", process.SHARD)
    build(photos, tmp_path / "whole", ColorEncoder(), IndexOptions(sizes=Sizes()))
    return content(tmp_path / "whole")


@pytest.fixture
def command(photos, tmp_path):
    """The arguments of `embed` into tmp_path/out, of photos that are not parted."""
    (tmp_path / "recipe.toml").write_text("[data]\nparts = []\n")
    return ["embed", str(tmp_path / "recipe.toml"), "--photos", str(photos), "--out", str(tmp_path / "out")]


# Several processes


@pytest.mark.slow
def test_two_processes_make_the_bundle_of_one_byte_for_byte(whole_of_recipe, command, tmp_path):
    work = [process.start(tmp_path, "", *command, RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)]
    said = [b"".join(child.communicate()).decode() for child in work]
    assert [child.returncode for child in work] == [0, 0], said
    assert content(tmp_path / "out" / "library") == whole_of_recipe
    assert "7 photos encoded by process 1 of 2" in said[0] and "15 photos, 8 encoded now" in said[1]
    assert (tmp_path / "out" / "prompts.jsonl").read_text().count("a photo of a") == 3


@pytest.mark.parametrize("world", [2, 3, 7])
def test_any_number_of_processes_shares_the_photos_and_ends_the_same(whole, photos, tmp_path, world):
    encoded = [
        build(photos, tmp_path / "b", ColorEncoder(), rank=rank, world_size=world).encoded
        for rank in reversed(range(world))
    ]
    assert content(tmp_path / "b") == whole
    assert sum(encoded) == 15 and max(encoded) <= 4 * -(-4 // world)


def test_the_first_process_waits_for_the_one_that_is_still_at_work(whole, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "GRACE", 0.0)
    first, other = ColorEncoder(), process.Slow()
    thread = threading.Thread(
        target=build, args=(photos, tmp_path / "b", other), kwargs={"rank": 1, "world_size": 2, "batch": 1}
    )
    thread.start()
    while not (tmp_path / "b" / WORK / "lock-1").is_file():
        time.sleep(0.01)
    build(photos, tmp_path / "b", first, rank=0, world_size=2, batch=1)
    thread.join()
    assert (first.seen, other.seen) == (8, 7)
    assert content(tmp_path / "b") == whole


@pytest.mark.parametrize("lock", [None, "99999999"])
def test_what_a_dead_process_left_undone_is_done_by_the_first(whole, photos, tmp_path, monkeypatch, lock):
    monkeypatch.setattr(sharing, "GRACE", 0.3)

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, tmp_path / "b", ColorEncoder(), rank=1, world_size=2, progress=stop)
    if lock:  # killed, it could not take its lock away
        (tmp_path / "b" / WORK / "lock-1").write_text(lock)
    assert build(photos, tmp_path / "b", ColorEncoder(), rank=0, world_size=2).encoded == 11
    assert content(tmp_path / "b") == whole


def test_a_process_that_comes_when_all_is_done_changes_nothing(whole, photos, tmp_path, monkeypatch):
    build(photos, tmp_path / "b", ColorEncoder())
    late = build(photos, tmp_path / "b", ColorEncoder(), rank=1, world_size=2)
    assert (late.encoded, late.bundle_id) == (0, "") and content(tmp_path / "b") == whole
    assert not (tmp_path / "b" / WORK).exists()

    def scan_meanwhile(*given, **named):  # the first process finishes while this one still looks at the photos
        found = scan(*given, **named)
        build(photos, tmp_path / "c", ColorEncoder())
        return found

    build_share = realrag.indexing.build.build
    monkeypatch.setattr(
        realrag.indexing.build, "scan", lambda *given, **named: (monkeypatch.undo(), scan_meanwhile(*given, **named))[1]
    )
    assert build_share(photos, tmp_path / "c", ColorEncoder(), rank=1, world_size=2).encoded == 0
    assert len(Bundle(tmp_path / "c").records) == 15 and not (tmp_path / "c" / WORK).exists()


def test_too_many_rotten_photos_stop_a_shared_run_too(photos, command, monkeypatch, capsys, tmp_path):
    for name in "abcd":
        (photos / "red" / f"{name}.jpg").write_bytes(b"not a photo")
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert main(command) == 1
        assert "more than max_rejected 10" in capsys.readouterr().err
    assert not (tmp_path / "out" / "prompts.jsonl").exists()


def test_ranks_that_cannot_share_are_refused(photos, tmp_path, command, monkeypatch, capsys):
    with pytest.raises(RealRAGError, match="no rank 2 among 2 workers"):
        build(photos, tmp_path / "b", ColorEncoder(), rank=2, world_size=2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(["run", *command[1:]]) == 1
    assert "without torchrun" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(RealRAGError, match="processes of one machine"):
        rank_and_world_size()
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(RealRAGError, match="RANK is 4"):
        rank_and_world_size()
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda") == "cuda:3" and own_device("cpu") == "cpu" and own_device("cuda:0") == "cuda:0"


# Memory and feeding


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
def test_a_batch_that_does_not_fit_is_halved_and_nothing_else_changes(whole, photos, tmp_path, most):
    build(photos, tmp_path / "b", Cramped(most), batch=32)
    assert content(tmp_path / "b") == whole


@pytest.mark.parametrize("call", range(1, 11))
def test_memory_may_run_short_at_any_call(photos, tmp_path, call):
    pixels = list(torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8))
    adaptive, cramped = AdaptiveBatch(8), Cramped(at=(call,))
    rows = torch.cat([adaptive.encode(cramped, pixels[start : start + 8]) for start in range(0, 40, 8)])
    torch.testing.assert_close(rows, ColorEncoder().encode_images(torch.stack(pixels)))
    assert adaptive.size == (8 if call > cramped.calls else 4)


def test_one_photo_that_does_not_fit_is_said_and_other_errors_are_not_swallowed():
    pixels = list(torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    for error in (torch.cuda.OutOfMemoryError("full"), RuntimeError("MPS backend out of memory"), MemoryError()):
        with pytest.raises(EncoderError, match="colour does not fit into the memory of cpu"):
            AdaptiveBatch(4).encode(Cramped(0, error=error), pixels)
    with pytest.raises(RuntimeError, match="shapes"):
        AdaptiveBatch(4).encode(Cramped(0, error=RuntimeError("shapes do not match")), pixels)


def test_the_next_shard_is_decoded_while_this_one_is_encoded(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", 4)
    candidates, ahead, waited = scan(photos).candidates, threading.Event(), []

    class Counting(ColorEncoder):
        def prepare(self, image):
            begun.append(1)
            if len(begun) >= 8:
                ahead.set()
            return super().prepare(image)

        def _images(self, x):
            waited.append(ahead.wait(20))
            return super()._images(x)

    begun, encoder = [], Counting()
    assert encode_all(shard_parts(candidates, encoder, tmp_path, Sizes(), 4), encoder, batch=4, workers=2) == 15
    assert waited == [True] * 4


def test_what_suits_a_device_is_chosen_where_nothing_is_asked_for(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    on_gpu = ColorEncoder().to("meta")
    assert suited(ColorEncoder(), 0, 0, 8) == (32, 4) and suited(on_gpu, 0, 0, 8) == (256, 8)
    assert suited(on_gpu, 16, 3, 8) == (16, 3) and suited(on_gpu, 0, 0, 64) == (256, 4)


# Stopped and killed


def shards(out):
    return len(list((out / "library" / WORK).glob("*.safetensors")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "point, kept",
    [
        ("first-batch", 0),
        ("third-shard-half-written", 2),
        ("packing", 4),
        ("before-the-manifest", 4),
        ("after-the-manifest", 4),
    ],
)
def test_killed_at_any_point_no_finished_shard_is_lost_and_the_end_is_the_same(
    whole_of_recipe, command, tmp_path, monkeypatch, point, kept
):
    child = process.start(tmp_path, point, *command)
    said = b"".join(child.communicate()).decode()
    assert child.returncode == -signal.SIGKILL, said
    assert shards(tmp_path / "out") == kept  # at most the one in work is gone
    encoder = ColorEncoder()
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: encoder)
    assert main(command) == 0
    assert encoder.seen == 15 - min(15, 4 * kept)
    assert content(tmp_path / "out" / "library") == whole_of_recipe


@pytest.mark.slow
def test_sigterm_stops_within_seconds_and_keeps_what_is_done(whole_of_recipe, command, tmp_path, monkeypatch):
    child = process.start(tmp_path, "slow", *command)
    while shards(tmp_path / "out") < 2:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    said = b"".join(child.communicate()).decode()
    assert child.returncode == 75 and "Run the same command again" in said and "Traceback" not in said
    kept, encoder = shards(tmp_path / "out"), ColorEncoder()
    assert not (tmp_path / "out" / "library" / WORK / "lock").exists()
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: encoder)
    assert main(command) == 0
    assert 2 <= kept < 4 and encoder.seen == 15 - 4 * kept
    assert content(tmp_path / "out" / "library") == whole_of_recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    "point, again", [("third-picture", 1), ("second-picture-half-written", 1), ("drawn-half-written", 0)]
)
def test_killed_while_drawing_at_most_the_picture_in_work_is_drawn_again(tmp_path, point, again):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    child = process.start(tmp_path / "killed", point)
    said = b"".join(child.communicate()).decode()
    assert child.returncode == -signal.SIGKILL, said
    for name in ("killed", "whole"):
        encoder, painter = ColorEncoder(), process.Painter(tmp_path / name)
        process.imagine.imagine(tmp_path / name, process.PROMPTS, painter, encoder, seeds=2)
    drawn, once = ((tmp_path / name / "drawn.log").read_text().splitlines() for name in ("killed", "whole"))
    assert len(drawn) == len(once) + again and set(drawn) == set(once)
    files = {name: content(tmp_path / name) for name in ("killed", "whole")}
    for log in files.values():
        del log["drawn.log"]
    assert files["killed"] == files["whole"]


# Told on the way


def test_rate_and_time_left_count_only_what_is_done_now():
    now, said = [0.0], []
    pace = Progress(said.append, "embed", clock=lambda: now[0])
    for second, done in ((0, 500_000), (5, 500_256), (10, 501_000), (12, 501_500), (20, 502_000), (21, 600_000)):
        now[0] = float(second)
        pace(done, 600_000)
    assert said == [
        "embed: 501,000 of 600,000, 100 a second, 16 min left",
        "embed: 502,000 of 600,000, 100 a second, 16 min left",
    ]
    now[0] = 40.0
    pace(0, 20)  # another count begins: nothing is known of its rate
    now[0] = 55.0
    pace(5, 20)
    assert said[2:] == ["embed: 0 of 20", "embed: 5 of 20, 0.333 a second, 45 s left"]
    assert (duration(59.4), duration(61), duration(7500)) == ("59 s", "1 min", "2 h 05 min")
