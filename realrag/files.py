"""Files that are never half-written and never believed unseen: atomic writes, sha256 with remembered verdicts, safe
names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BundleError
from .validation import is_hex, strict_json

CHUNK = 1 << 20
MAX_NAME = 200
LEFT_BEHIND = 3600  # seconds without a write after which a temporary file of another machine counts as left behind
MAX_VERDICTS = 64 << 20  # bytes
_STEM = 150  # bytes of a name that its temporary file repeats, as a file name has at most 255
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. OSError where it is a pipe, a device, a socket or a folder: opening a pipe waits for
    ever, and a device may have no end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags)  # O_NONBLOCK: a pipe opens at once; a regular file is read as without it
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes, whatever size the file system reports. OSError otherwise."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return data


def sha256_file(path: Path) -> str:
    """Hex sha256 of a regular file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8, no NaN. Hashes are taken over this."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sorted_header(data: bytes) -> bytes:
    """The bytes of a safetensors file with its header's keys sorted: the library writes metadata in a random order, and
    equal content shall have an equal hash."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = canonical_json(json.loads(data[8:end]))
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Windows has no such call; there the rename itself must do."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], None], durable: bool = True) -> None:
    """Write `path` whole or not at all: temporary file beside it, fsync, replace, fsync of the folder.

    `data` is the bytes, or a function that writes them to an open file (for what does not fit in memory). durable: False
    leaves out both fsyncs, for a file that nobody misses after a power cut.
    """
    path = Path(path)
    stem = path.name.encode(errors="replace")[:_STEM].decode(errors="ignore")
    temporary = path.with_name(f".{stem}.tmp.{_PLACE}.{os.getpid()}.{threading.get_ident()}")
    try:
        with disk_in_words(path, None if callable(data) else len(data)):
            with open(temporary, "wb") as file:
                data(file) if callable(data) else file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


@contextmanager
def disk_in_words(path: Path, needed: int | None = None) -> Iterator[None]:
    """An OSError of a full disk names `path`, the bytes that are needed, where known, and those that are free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise
        try:
            free = f"{shutil.disk_usage(Path(path).parent).free:,} are free"
        except OSError:
            raise error from None
        wanted = f"{needed:,} bytes are needed, " if needed is not None else "more bytes are needed, "
        raise OSError(error.errno, f"{os.strerror(error.errno or errno.ENOSPC)}: {wanted}{free}", str(path)) from error


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON with one line end behind it, written whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def sweep_temporaries(folder: Path) -> None:
    """Delete temporary files that killed processes left in `folder`. Those that a living process of this machine
    writes stay, and so do fresh ones of another machine or container, where process numbers mean nothing here."""
    for path in Path(folder).glob(".*.tmp.*"):
        parts = path.name.split(".tmp.")[-1].split(".")
        with suppress(OSError):
            here = len(parts) == 3 and parts[0] == _PLACE and parts[1].isdigit()
            if not _process_lives(int(parts[1])) if here else time.time() - path.stat().st_mtime > LEFT_BEHIND:
                path.unlink()


def _process_lives(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end the process there; a left-over file is the smaller harm
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place() -> str:
    """Names the machine or container whose process numbers are meant."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return sha256_bytes(f"{socket.gethostname()}|{numbers}".encode())[:8]


_PLACE = _place()


def safe_join(root: Path, name: str) -> Path:
    """`root/name` for a relative name of plain characters that stays inside `root`; anything else is a BundleError.

    Refused: absolute paths, drive letters, `..`, backslashes, hidden or empty parts, Windows device names, links that
    lead out of `root`, and names longer than 200 characters.
    """
    stems = {part.split(".")[0].lower() for part in name.split("/")} if isinstance(name, str) else set()
    if (
        not isinstance(name, str)
        or len(name) > MAX_NAME
        or not _SAFE_NAME.fullmatch(name)
        or ".." in name
        or any(part.endswith(".") for part in name.split("/"))  # Windows drops it: another name for the same file
        or stems & _WINDOWS_DEVICES
    ):
        raise BundleError(
            f"Unsafe file name {str(name)[:80]!r}: names inside a bundle are relative and made of letters, digits, '.', "
            "'_', '-' and '/'. Do not use this bundle; get it again from its author."
        )
    path = Path(root) / name
    inside = os.path.realpath(root)
    if os.path.commonpath([inside, os.path.realpath(path)]) != inside:
        raise BundleError(f"{name!r} is a link that leads out of {root}. Replace the link by the file itself.")
    return path


def default_cache() -> Path:
    """Where derived files go: $REALRAG_CACHE, else the user's cache folder. Free to delete at any time."""
    if folder := os.environ.get("REALRAG_CACHE"):
        return Path(folder)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "realrag"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "realrag"


class Verdicts:
    """Remembers which files were hashed and found right, keyed by path, size, mtime and inode, so that a large bundle
    is read once and not at every start. A changed file changes its key and is hashed again."""

    def __init__(self, folder: Path | None):
        self._path = None if folder is None else Path(folder) / "verdicts.json"
        self._lock = threading.Lock()

    def agrees(self, path: Path, sha256: str) -> bool:
        """Whether a file has this sha256. A remembered one that says no is not believed: the file is hashed again."""
        return self.sha256(path) == sha256 or self._fresh(path) == sha256

    def sha256(self, path: Path) -> str:
        """The sha256 of a file, from memory where the same file was hashed before."""
        if self._path is not None and (digest := self._load().get(file_key(path))):
            return digest
        return self._fresh(path)

    def _fresh(self, path: Path) -> str:
        """Hash the file and remember the result."""
        key = file_key(path)
        digest = sha256_file(path)
        if self._path is None:
            return digest
        with self._lock:
            known = self._load() | {key: digest}
            with suppress(OSError):  # a read-only cache only costs a second reading
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._path, canonical_json(known))
        return digest

    def _load(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            known = strict_json(read_bounded(self._path, MAX_VERDICTS))
        except (OSError, ValueError):
            return {}
        return {key: value for key, value in known.items() if is_hex(value, 64)} if isinstance(known, dict) else {}


def file_key(path: Path) -> str:
    """What changes when another file is put in the place of this one, or it is written again. OSError."""
    status = os.stat(path)
    return f"{os.path.realpath(path)}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
