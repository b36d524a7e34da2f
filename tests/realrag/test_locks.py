"""One holder at a time, whoever comes and however a holder ends."""

import errno
import os
import signal

import filelock
import pytest
import take_lock

from realrag.errors import BusyError
from realrag.locks import FolderLock


def test_a_second_taker_is_told_who_holds_the_lock(tmp_path):
    lock = tmp_path / "work" / "lock"
    with FolderLock(lock):
        assert FolderLock(lock).held
        with pytest.raises(BusyError, match=rf"Process {os.getpid()} on .* is already writing .*work\. Wait"):
            FolderLock(lock).__enter__()
    assert not FolderLock(lock).held
    assert not (tmp_path / "work").exists()


def test_what_lies_beside_the_lock_stays(tmp_path):
    with FolderLock(tmp_path / "work" / "lock"):
        (tmp_path / "work" / "shard").write_bytes(b"1")
    assert os.listdir(tmp_path / "work") == ["shard"]


@pytest.mark.parametrize(
    "left",
    ["1", "999999999", str(os.getpid()), "", "\x1b[31mred"],
    ids=["1", "999999999", "own number", "empty", "red"],  # the same in all workers
)
def test_a_lock_file_that_nobody_holds_stops_nobody(tmp_path, left):
    (tmp_path / "lock").write_text(left)
    (tmp_path / "lock.holder").write_text(left)
    with FolderLock(tmp_path / "lock"):
        pass
    assert not list(tmp_path.glob("lock*"))


def test_a_note_is_shown_without_control_characters(tmp_path):
    with FolderLock(tmp_path / "lock"):
        (tmp_path / "lock.holder").write_text("\x1b[31mred\n")
        with pytest.raises(BusyError, match=r"^\[31mred is already writing"):
            FolderLock(tmp_path / "lock").__enter__()


@pytest.mark.skipif(os.name == "nt", reason="ends a process by a signal")
def test_a_killed_holder_lets_go_at_once(tmp_path):
    process = take_lock.start(tmp_path, "hold")
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"Process {process.pid}"):
        FolderLock(tmp_path / "work" / "lock").__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with FolderLock(tmp_path / "work" / "lock"):
        pass


@pytest.mark.slow
def test_many_takers_never_hold_the_lock_together(tmp_path):
    takers = [take_lock.start(tmp_path, 100, seed) for seed in range(3)]
    outputs = [taker.communicate()[0] for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0, 0], outputs
    assert all(int(output) > 0 for output in outputs)


def test_a_lock_whose_file_was_replaced_meanwhile_does_not_count(tmp_path, monkeypatch):
    """Another holder deletes the file as it ends, after this one has opened it: a third would lock a new file."""
    real, times = filelock.FileLock.acquire, []

    def replaced(self, *given, **named):
        answer = real(self, *given, **named)
        times.append(1)
        if len(times) == 1:
            (tmp_path / "lock").unlink()
            (tmp_path / "lock").write_text("new")
        return answer

    monkeypatch.setattr(filelock.FileLock, "acquire", replaced)
    with FolderLock(tmp_path / "lock"):
        assert len(times) == 2
        with pytest.raises(BusyError):
            FolderLock(tmp_path / "lock").__enter__()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_in_the_log(tmp_path, monkeypatch, caplog, number):
    def none(self, *given, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", none)
    with FolderLock(tmp_path / "lock"):
        (tmp_path / "done").touch()
    assert f"The file system of {tmp_path} knows no locks" in caplog.text


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        FolderLock(tmp_path / "file" / "lock").__enter__()
