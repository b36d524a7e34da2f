import json
import os
import random
import shutil
import signal
import tarfile
import time
from dataclasses import replace

import numpy as np
import pytest
from bundle_content import content
from embed_in_a_process import start_build
from fake_encoder import ColorEncoder
from made_photos import photo_bytes
from PIL import Image

import realrag.indexing.shards
from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import BundleError, EncoderError, RealRAGError
from realrag.files import sha256_file
from realrag.indexing.build import WORK, build
from realrag.indexing.shards import Sizes


def test_a_folder_becomes_a_bundle_that_says_what_it_holds(photos, tmp_path, encoder):
    report = build(photos, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    assert report.found == report.indexed == report.encoded == report.total == len(bundle.records) == 15
    assert bundle.id == report.bundle_id == sha256_file(tmp_path / "b" / "manifest.json")
    assert bundle.embeddings.shape == (15, 13) and bundle.embeddings.dtype == np.float16
    assert bundle.records.class_counts() == {"blue": 5, "green": 5, "red": 5}
    assert not (tmp_path / "b" / WORK).exists()
    bundle.verify()


def test_counts_add_up_also_for_photos_that_break_while_decoding(photos, tmp_path, encoder):
    whole = photo_bytes((9, 9, 9), size=(200, 200))
    (photos / "red" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "half again.jpg").write_bytes(whole[: len(whole) // 2])
    shutil.copy(photos / "red" / "0.jpg", photos / "red" / "copy.jpg")
    report = build(photos, tmp_path / "b", encoder)
    assert report.found == report.indexed + len(report.duplicates) + len(report.rejected) == 18
    assert (report.indexed, len(report.duplicates)) == (15, 1)
    assert [item.reason for item in report.rejected] == ["damaged", "damaged"]


def test_each_row_is_its_own_photo(photos, tmp_path, encoder):
    """The vector, the picture and the words of a row belong together, against an encoder run photo by photo."""
    (photos / "red" / "big.jpg").write_bytes(photo_bytes((200, 10, 10), 7, size=(1000, 500)))
    build(photos, tmp_path / "b", encoder, sizes=Sizes(picture=300, thumbnail=100), batch=4)
    bundle = Bundle(tmp_path / "b")
    for row, record in enumerate(bundle.records):
        picture, thumbnail = bundle.image(record), bundle.image(record, "thumbnails")
        assert max(picture.size) <= 300 and max(thumbnail.size) <= 100
        assert record.file.startswith(record.class_name)
        again = encoder.encode_images(encoder.prepare(picture)[None])[0].numpy()
        assert np.abs(again - bundle.embeddings[row].astype(np.float32)).max() < 0.01


def test_packs_are_plain_tar_files(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    (pack,) = (tmp_path / "b").glob("pictures-*.tar")
    with tarfile.open(pack) as tar:
        assert tar.getnames() == [f"{record.id}.jpg" for record in bundle.records]
        for record in bundle.records:
            assert tar.extractfile(f"{record.id}.jpg").read() == bundle.jpeg(record)


def test_large_libraries_are_split_into_parts(photos, tmp_path, encoder, monkeypatch):
    monkeypatch.setattr("realrag.indexing.bundle_files.PART_BYTES", 4000)
    build(photos, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    assert len(bundle.manifest.of("pictures")) > 3
    bundle.verify()


def test_building_twice_encodes_nothing_and_changes_no_byte(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    before = content(tmp_path / "b")
    report = build(photos, tmp_path / "b", encoder)
    assert report.encoded == 0 and content(tmp_path / "b") == before


def test_only_new_photos_are_encoded_and_gone_ones_leave(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    (photos / "red" / "0.jpg").rename(photos / "green" / "moved.jpg")
    (photos / "red" / "1.jpg").unlink()
    (photos / "red" / "new.jpg").write_bytes(photo_bytes((240, 0, 0), 99))
    for path in photos.rglob("*.jpg"):
        os.utime(path)
    encoder.seen = 0
    report = build(photos, tmp_path / "b", encoder)
    assert encoder.seen == report.encoded == 1 and report.removed == 1
    bundle = Bundle(tmp_path / "b")
    files = {record.file: record.class_name for record in bundle.records}
    assert files["green/moved.jpg"] == "green" and "red/0.jpg" not in files and "red/1.jpg" not in files
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"manifest.json"} | {
        f.path for f in bundle.manifest.files
    }
    fresh = tmp_path / "fresh"
    build(photos, fresh, encoder)
    assert content(fresh) == content(tmp_path / "b")


def test_add_keeps_the_rest_and_remove_takes_out(photos, tmp_path, encoder):
    build(photos / "red", tmp_path / "b", encoder)
    report = build(photos / "blue", tmp_path / "b", encoder, mode="add")
    assert (report.encoded, report.total) == (5, 10)
    encoder.seen = 0
    report = build(photos / "red", tmp_path / "b", encoder, mode="remove")
    assert (encoder.seen, report.removed, report.total) == (0, 5, 5)
    with pytest.raises(RealRAGError, match="No photo is left"):
        build(photos / "blue", tmp_path / "b", encoder, mode="remove")
    assert len(Bundle(tmp_path / "b").records) == 5


def test_a_folder_further_in_that_is_added_takes_no_names_and_captions_away(photos, tmp_path, encoder):
    (photos / "captions.csv").write_text("file,caption,author\nblue/1.jpg,bluebells,Ann\n")
    build(photos, tmp_path / "b", encoder, mode="add")
    before = list(Bundle(tmp_path / "b").records)
    (photos / "blue" / "1.txt").write_text("bluebells in May")
    report = build(photos / "blue", tmp_path / "b", encoder, mode="add")
    after = list(Bundle(tmp_path / "b").records)
    assert report.encoded == 0
    told = "bluebells in May"
    assert after == [replace(item, caption=told) if item.file == "blue/1.jpg" else item for item in before]


def test_a_folder_that_was_renamed_leaves_no_old_name_when_it_is_added(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder, mode="add")
    (photos / "blue").rename(photos / "navy")
    build(photos, tmp_path / "b", encoder, mode="add")
    assert {(item.class_name, item.caption) for item in Bundle(tmp_path / "b").records} == {
        (name, name) for name in ("navy", "green", "red")
    }


def test_a_new_caption_encodes_nothing(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    (photos / "red" / "0.txt").write_text("a very red thing")
    report = build(photos, tmp_path / "b", encoder)
    assert report.encoded == 0
    assert "a very red thing" in {record.caption for record in Bundle(tmp_path / "b").records}


def test_two_encoders_never_mix(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    before = content(tmp_path / "b")
    for other in (ColorEncoder(scale=2.0), ColorEncoder(size=8)):
        with pytest.raises(EncoderError, match="cannot be compared"):
            build(photos, tmp_path / "b", other)
    after = content(tmp_path / "b")
    assert {name: after[name] for name in before} == before


def test_a_folder_with_other_things_is_not_touched(photos, tmp_path, encoder):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_text("chapter one")
    with pytest.raises(RealRAGError, match="not a bundle"):
        build(photos, tmp_path / "mine", encoder)
    assert os.listdir(tmp_path / "mine") == ["novel.txt"]


@pytest.mark.slow
def test_a_run_stopped_anywhere_goes_on_and_ends_the_same(photos, tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", 4)
    build(photos, tmp_path / "whole", encoder)

    class Stop(Exception):
        pass

    for stop_after in (1, 2, 3, 4):
        out = tmp_path / f"stopped{stop_after}"

        def progress(done, total, limit=min(15, 4 * stop_after)):
            if done >= limit:
                raise Stop

        with pytest.raises(Stop):
            build(photos, out, encoder, progress=progress)
        encoder.seen = 0
        report = build(photos, out, encoder)
        assert encoder.seen == report.encoded == max(0, 15 - 4 * stop_after)
        assert content(out) == content(tmp_path / "whole")


def test_a_failure_while_writing_leaves_the_old_bundle(photos, tmp_path, encoder, monkeypatch):
    build(photos, tmp_path / "b", encoder)
    before = Bundle(tmp_path / "b").id
    (photos / "red" / "new.jpg").write_bytes(photo_bytes((240, 0, 0), 99))
    real = os.replace

    def full(source, target):
        if "records" in str(target):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        build(photos, tmp_path / "b", encoder)
    monkeypatch.undo()
    assert Bundle(tmp_path / "b").id == before
    assert build(photos, tmp_path / "b", encoder).total == 16
    Bundle(tmp_path / "b").verify()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_at_random_points_the_build_still_ends_byte_identical(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(realrag.indexing.shards, "SHARD", 4)
    build(photos, tmp_path / "whole", ColorEncoder(), batch=2)
    out = tmp_path / "killed"
    rng, killed = random.Random(0), 0
    for batches in (1, 3, 4, 3, 2):
        child = start_build(photos, out)
        for _ in range(batches):
            child.stdout.readline()
        time.sleep(0.05 * rng.random())
        child.send_signal(signal.SIGKILL)
        killed += child.wait(60) == -signal.SIGKILL
        if (out / "manifest.json").exists():
            Bundle(out).verify()
    assert killed >= 3
    build(photos, out, ColorEncoder(), batch=2)
    assert content(out) == content(tmp_path / "whole")


def test_private_exif_reaches_no_file_of_the_bundle(photos, tmp_path, encoder):
    exif = Image.Exif()
    exif[0xA431], exif[0xA430], exif[0x9C9D] = "SERIAL-123456", "Jane Owner", "Jane XP".encode("utf-16-le")
    exif.get_ifd(0x8825)[29] = "1999:12:31"
    for number in range(20):
        (photos / f"private{number}.jpg").write_bytes(photo_bytes((200, 90, 9), 100 + number, (300, 300), exif=exif))
    build(photos, tmp_path / "b", encoder)
    secrets = (b"SERIAL-123456", b"Jane", "Jane".encode("utf-16-le"), b"1999:12:31", b"Exif")
    for path in (tmp_path / "b").rglob("*"):
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets), path


def test_a_head_travels_with_the_bundle_and_survives_updates(photos, tmp_path, encoder):
    save_head(ReflectiveHead(13, 8, {"generator": "flux"}), tmp_path / "head.safetensors")
    build(photos, tmp_path / "b", encoder, head=tmp_path / "head.safetensors")
    (photos / "red" / "0.jpg").unlink()
    build(photos, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    assert [(head.name, head.metadata) for head in bundle.manifest.heads] == [("flux", {"generator": "flux"})]
    assert bundle.head().metadata == {"generator": "flux"}
    save_head(ReflectiveHead(12, 8), tmp_path / "wrong.safetensors")
    with pytest.raises(EncoderError, match="13"):
        build(photos, tmp_path / "b", encoder, head=tmp_path / "wrong.safetensors")


def test_other_picture_sizes_for_an_old_bundle_are_refused(photos, tmp_path, encoder):
    build(photos, tmp_path / "b", encoder)
    with pytest.raises(BundleError, match="768"):
        build(photos, tmp_path / "b", encoder, sizes=Sizes(picture=512))


def test_no_photo_at_all_says_so(tmp_path, encoder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RealRAGError, match="No photo"):
        build(tmp_path / "empty", tmp_path / "b", encoder)
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_records_hold_words_sizes_and_hashes(photos, tmp_path, encoder):
    (photos / "captions.jsonl").write_text(
        json.dumps(
            {"file": "red/0.jpg", "caption": "röd", "author": "Ann", "licence": "CC0-1.0", "url": "https://x.org"}
        )
        + "\n"
    )
    build(photos, tmp_path / "b", encoder)
    bundle = Bundle(tmp_path / "b")
    record = next(record for record in bundle.records if record.file == "red/0.jpg")
    assert (record.caption, record.author, record.licence, record.source) == ("röd", "Ann", "CC0-1.0", "https://x.org")
    assert (record.width, record.height) == (48, 36)
    assert record.sha256 == sha256_file(photos / "red" / "0.jpg") and record.id == record.sha256[:16]
    assert bundle.manifest.licences == {"CC0-1.0": 1, "not stated": 14}


def test_a_picture_that_shows_nothing_is_left_out_and_named(photos, tmp_path, encoder):
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(photos / "red" / "empty layer.png")
    Image.new("RGB", (640, 480), (2, 1, 3)).save(photos / "in my pocket.jpg")
    report = build(photos, tmp_path / "b", encoder)
    assert (report.found, report.indexed, report.total) == (17, 15, 15)
    assert [(item.file, item.reason) for item in report.rejected] == [
        ("in my pocket.jpg", "blank"),
        ("red/empty layer.png", "blank"),
    ]
    assert "black all over" in report.rejected[0].message and "transparent" in report.rejected[1].message
    assert {record.file for record in Bundle(tmp_path / "b").records} == {
        f"{color}/{number}.jpg" for color in ("red", "green", "blue") for number in range(5)
    }
