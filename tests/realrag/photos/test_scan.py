import os
import shutil

import pytest
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.photos.credit import Credit
from realrag.photos.scan import in_order, scan


def test_every_photo_is_counted_once(photos):
    shutil.copy(photos / "red" / "0.jpg", photos / "red" / "copy of 0.jpg")
    (photos / "red" / "broken.png").write_bytes(b"no")
    (photos / "red" / "layers.psd").write_bytes(b"no")
    (photos / "red" / "notes.md").write_text("not a photo")
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "x.jpg").write_bytes(photo_bytes((0, 0, 0)))
    library = scan(photos)
    assert (len(library.candidates), len(library.duplicates), len(library.rejected)) == (15, 1, 2)
    assert library.found == 18
    assert {item.reason for item in library.rejected} == {"not_a_photo", "unsupported_format"}


def test_the_same_photo_twice_is_found_once(photos):
    shutil.copy(photos / "red" / "0.jpg", photos / "blue" / "z.jpg")
    library = scan(photos)
    assert library.duplicates == [("red/0.jpg", "blue/z.jpg")]


def test_the_walk_is_sorted_whatever_the_disk_says(photos, monkeypatch):
    files = [item.file for item in scan(photos).candidates]
    real = os.walk

    def backwards(*args, **kwargs):
        for here, folders, names in real(*args, **kwargs):
            folders.reverse()
            yield here, folders, names[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert files == sorted(files) == [item.file for item in scan(photos).candidates]


def test_a_name_that_is_no_unicode_is_indexed_like_any_other(photos, tmp_path, encoder):
    (photos / "red" / "caf\udce9.jpg").write_bytes(photo_bytes((200, 0, 0), 50))
    (photos / "red" / "bad\udce9.jpg").write_bytes(b"x")
    report = build(photos, tmp_path / "b", encoder)
    assert report.indexed == 16 and [item.file for item in report.rejected] == ["red/bad?.jpg"]
    assert "red/caf?.jpg" in {record.file for record in Bundle(tmp_path / "b").records}


def test_a_broken_sidecar_costs_its_own_photo_only(photos):
    (photos / "red" / "0.json").write_text("{half")
    library = scan(photos)
    assert len(library.candidates) == 14 and [item.reason for item in library.rejected] == ["bad_sidecar"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RealRAGError, match="nowhere"):
        scan(tmp_path / "nowhere")


def test_credit_given_for_the_whole_folder_reaches_each_photo(photos):
    library = scan(photos, default=Credit(author="Me", licence="CC0-1.0"))
    assert {(item.credit.author, item.credit.licence) for item in library.candidates} == {("Me", "CC0-1.0")}


def test_progress_counts_to_the_end_and_may_stop_the_scan(photos):
    steps = []
    scan(photos, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (15, 15)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(photos, progress=stop)


def test_work_in_order_keeps_order_and_holds_back():
    started = []

    def work(item):
        started.append(item)
        return item * item

    results = in_order(range(100), work, workers=3, ahead=5)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    assert len(started) <= 4 + 5 + 1
    assert list(results) == [item * item for item in range(4, 100)]


def test_a_photo_of_two_that_lies_in_both_folders_has_both_names(tmp_path):
    both = photo_bytes((200, 20, 20), 1)
    for file in ("Bello/a.jpg", "Zoë/b.jpg", "2023/08/c.jpg", "Bello/again.jpg"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(both)
    (tmp_path / "Zoë" / "b.txt").write_text("asleep on the sofa")
    (photo,) = (found := scan(tmp_path)).candidates
    assert (photo.file, photo.credit.class_name, len(found.duplicates)) == ("2023/08/c.jpg", "Bello", 3)
    assert photo.credit.caption == "c; Zoë; asleep on the sofa"
    alone = tmp_path / "Bello"
    assert [item.credit.caption for item in scan(alone).candidates] == ["a"], "a copy beside it adds nothing"
