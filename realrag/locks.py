"""One writer at a time in a folder: an operating-system lock, which ends with its process however that ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BusyError

log = logging.getLogger(__name__)

# What file systems answer that know no locks, such as NFS without its lock service.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP)}
_LOOKS, _LOOK = 5, 0.02  # seconds between tries: whoever looks at `held` has the lock for a moment
_TRIES = 100  # the folder may go between its making and the opening of the lock, as the holder before cleans up


class FolderLock:
    """Holds `path`, a lock file, for as long as the `with` block runs; makes its folder where it is missing.

    A process that is killed lets go at once, also in a container, where every process may have the number 1, and on
    another machine that shares the folder, as far as its file system passes locks on. Where a file system knows no
    locks, the log says so and the block runs without one. Beside the lock lies a note that names its holder; it is
    shown in messages and decides nothing.
    """

    def __init__(self, path: Path):
        self._path = Path(path)
        self._note = self._path.with_name(f"{self._path.name}.holder")
        self._lock: FileLock | None = None

    def __enter__(self) -> FolderLock:
        """Raises BusyError while another process, or another thread of this one, holds the lock."""
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK)
            if self._acquire():
                break
        else:
            raise BusyError(
                f"{self._holder()} is already writing {self._path.parent}. Wait for it, or stop it and run again."
            )
        with suppress(OSError):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            self._note.write_text(f"Process {os.getpid()} on {socket.gethostname()} (since {now})", encoding="utf-8")
        return self

    def __exit__(self, *_exc) -> None:
        # The file goes while it is locked: whoever waits for it finds it gone and makes a new one.
        for path in (self._note, self._path):
            with suppress(OSError):
                path.unlink()
        self._release()
        with suppress(OSError):  # as a rule other files are in it
            self._path.parent.rmdir()

    @property
    def held(self) -> bool:
        """Whether somebody holds the lock now."""
        if not self._path.is_file():
            return False
        if not self._acquire():
            return True
        self._release()
        return False

    def _acquire(self) -> bool:
        for left in reversed(range(_TRIES)):
            lock = _file_lock(self._path)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Held open, so that this very file is told from a later one under its name: a holder deletes the file
                # as it ends, and what was locked then locks nothing.
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    lock.acquire(timeout=0)
                    same = os.path.samestat(os.fstat(handle), os.stat(self._path))
                finally:
                    os.close(handle)
            except Timeout:
                return False
            except (FileNotFoundError, FileExistsError, PermissionError) as error:
                # The folder went or came in between; PermissionError: on Windows, a file that is being deleted.
                lock.release()
                if not left or (isinstance(error, PermissionError) and os.name != "nt"):
                    raise
                continue
            except (OSError, NotImplementedError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                log.warning(
                    "The file system of %s knows no locks (%s). Make sure that nothing else writes this folder meanwhile.",
                    self._path.parent, error,
                )  # fmt: skip
                return True
            if same:
                self._lock = lock
                return True
            lock.release()
        return False

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _holder(self) -> str:
        try:
            text = self._note.read_bytes()[:200].decode(errors="replace")
        except OSError:
            text = ""
        return "".join(char for char in text if char.isprintable()) or "Another process"


def _file_lock(path: Path) -> FileLock:
    try:
        # A lock by the mere presence of a file would outlive its process.
        return FileLock(str(path), timeout=0, fallback_to_soft=False)
    except TypeError:  # filelock before 4 has no such choice, and never takes the other kind by itself
        return FileLock(str(path), timeout=0)
