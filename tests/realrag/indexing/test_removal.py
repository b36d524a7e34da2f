"""A bundle loses a photo only if its folder could be listed and the file is gone, and many of them only if that is meant."""

import errno
import os
import shutil

import pytest
from bundle_content import content
from fake_encoder import ColorEncoder
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle
from realrag.commands.main import main
from realrag.errors import RealRAGError, TooManyError
from realrag.indexing.build import build


def files(bundle) -> set[str]:
    return {record.file for record in Bundle(bundle).records}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_sub_folder_that_cannot_be_listed_takes_no_photo_out(photos, bundle, monkeypatch, number):
    before, real = content(bundle), os.scandir

    def refuse(path="."):
        if os.path.basename(os.fspath(path)) == "red":
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RealRAGError, match=rf"red.*{os.strerror(number)}"):
        build(photos, bundle, ColorEncoder(), max_removed=100)
    assert content(bundle) == before


def test_a_photo_that_is_there_but_cannot_be_used_stays_as_it_was(photos, bundle):
    before = content(bundle)
    (photos / "red" / "0.jpg").write_bytes(b"")
    (photos / "red" / "1.jpg").write_bytes(b"not a photo")
    cut = photos / "blue" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    report = build(photos, bundle, ColorEncoder())
    assert (report.removed, report.kept, len(report.rejected)) == (0, 3, 3)
    assert content(bundle) == before


def test_an_emptied_folder_takes_nothing_out_unless_that_is_meant(photos, bundle, tmp_path):
    before = content(bundle)
    shutil.rmtree(photos / "red")
    (photos / "red").mkdir()  # as a disk looks that is not mounted
    with pytest.raises(TooManyError, match=r"5 of the 15 photos .* such as red/0\.jpg: 33\.3 %.*--max-removed 34"):
        build(photos, bundle, ColorEncoder())
    assert content(bundle) == before
    report = build(photos, bundle, ColorEncoder(), max_removed=34)
    assert (report.removed, report.total) == (5, 10)
    assert not any(file.startswith("red") for file in files(bundle))


def test_moved_and_edited_photos_are_not_gone(photos, bundle):
    (photos / "red").rename(photos / "crimson")
    for number in range(5):
        (photos / "blue" / f"{number}.jpg").write_bytes(photo_bytes((0, 0, 200 + number)))
    report = build(photos, bundle, ColorEncoder(), max_removed=0)
    assert (report.removed, report.total) == (5, 15)
    assert "crimson/0.jpg" in files(bundle)


def test_too_many_rejected_photos_change_nothing(photos, bundle):
    before = Bundle(bundle).id
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(b"x")
    (photos / "new.jpg").write_bytes(photo_bytes((9, 9, 9)))
    with pytest.raises(
        TooManyError, match=r"15\.8 % .* --max-rejected 10\. Nothing was changed.*--max-rejected 16"
    ) as stop:
        build(photos, bundle, ColorEncoder(), max_rejected=10)
    assert len(stop.value.report.rejected) == 3
    assert Bundle(bundle).id == before
    allowed = build(photos, bundle, ColorEncoder(), max_rejected=16)
    assert (allowed.encoded, allowed.total) == (0, 16)  # what was encoded before the refusal is not lost


@pytest.mark.slow
def test_the_command_says_what_would_go_and_how_to_allow_it(photos, tmp_path, tiny_clip, capsys):
    index = ["index", str(photos), "--out", str(tmp_path / "b"), "--encoder", str(tiny_clip)]
    assert main(index) == 0
    shutil.rmtree(photos / "red")
    assert main(index) == 3
    assert "--max-removed 34" in capsys.readouterr().err
    assert len(files(tmp_path / "b")) == 15
    assert main([*index, "--max-removed", "34"]) == 0
    assert len(files(tmp_path / "b")) == 10
