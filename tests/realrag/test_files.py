import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag import files
from realrag.errors import BundleError
from realrag.files import Verdicts, safe_join, sha256_bytes, sha256_file, sweep_temporaries, write_atomic

HOSTILE = [
    "../x", "a/../../x", "/etc/passwd", "C:/x", "c:x", "\\\\host\\share", "a\\b", "a//b", "", ".", "..", ".hidden", "a/.b",
    "con", "NUL.txt", "lpt1", "a/aux.json", "x\0y", "x\ny", "a" * 201, "ünï", "a b", "a/", "~root", "$HOME", "%00", "-rf",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(tmp_path, name):
    with pytest.raises(BundleError, match="Unsafe file name"):
        safe_join(tmp_path, name)


@given(st.text(max_size=30))
def test_no_name_ever_leads_out_of_the_folder(name):
    try:
        path = safe_join("/some/root", name)
    except BundleError:
        return
    assert os.path.commonpath(["/some/root", os.path.normpath(path)]) == "/some/root"


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.json").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="link"):
        safe_join(tmp_path / "root", "a.json")


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_temporaries_of_dead_processes_are_swept_and_those_of_living_ones_stay(tmp_path):
    dead, alive = (tmp_path / f".x.tmp.{files._PLACE}.{pid}.1" for pid in (999_999_999, os.getpid()))
    elsewhere, old = tmp_path / ".x.tmp.0123abcd.1.1", tmp_path / ".x.tmp.1.1"  # the second as versions before wrote it
    for path in (dead, alive, elsewhere, old):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    sweep_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, elsewhere.name])


def test_a_verdict_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    verdicts = Verdicts(tmp_path / "cache")
    assert verdicts.sha256(path) == sha256_bytes(b"one")
    calls = []
    monkeypatch.setattr("realrag.files.sha256_file", lambda path: calls.append(path) or sha256_file(path))
    assert Verdicts(tmp_path / "cache").sha256(path) == sha256_bytes(b"one") and not calls
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert verdicts.sha256(path) == sha256_bytes(b"two") and len(calls) == 1


def test_a_broken_verdict_file_is_no_verdict(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "verdicts.json").write_bytes(b'{"half')
    assert Verdicts(tmp_path / "cache").sha256(tmp_path / "a") == sha256_bytes(b"one")


@pytest.mark.parametrize(
    "name",
    ["a.", "a./b", "a.txt.", "CON", "con.json", "a/NUL.tar", "aux", "LPT1.safetensors", "COM9", "C:x", "C:/x", "//host/x", "\\\\?\\x",
     "a\\b", "a b", "a ", "a:stream", "a*", "a?", "~/x", "a/../b", "./a", "a//b", "/a", "\uff0e\uff0e/a", "caf\u00e9", "x" * 201,
     "COM\u00b9.json", "lpt\u00b2", "CONIN$", "a/con.tar.safetensors", "PRN.", "nul .txt", "a~1/..", "A:", "\\\\.\\PhysicalDrive0", "e\u0301"],
)  # fmt: skip
def test_names_that_windows_or_macos_read_otherwise_are_refused_everywhere(tmp_path, name):
    with pytest.raises(BundleError, match="Unsafe file name"):
        safe_join(tmp_path, name)


@pytest.mark.parametrize("length", [200, 251, 255])
def test_a_file_with_the_longest_name_is_written_whole(tmp_path, length):
    write_atomic(tmp_path / ("x" * length), b"1")
    write_atomic(tmp_path / ("\u00e9" * (length // 2)), b"2")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_nobody_misses_is_whole_without_waiting_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("realrag.files.os.fsync", lambda number: pytest.fail("waited for the disk"))
    write_atomic(tmp_path / "card.jpg", b"whole", durable=False)
    with pytest.raises(pytest.fail.Exception, match="waited"):
        write_atomic(tmp_path / "kept.jpg", b"whole")
    assert (tmp_path / "card.jpg").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["card.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no call for a folder")
def test_the_disk_has_the_contents_before_the_name_and_the_name_before_we_go_on(tmp_path, monkeypatch):
    steps, replace = [], os.replace

    def asked(number):
        steps.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", asked)
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("name"), replace(*paths)))
    write_atomic(tmp_path / "kept.jpg", b"whole")
    assert steps == [5, "name", "folder"]
