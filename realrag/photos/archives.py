"""Plain .tar and .zip files, and Parquet files that hold pictures -> their members, read in place: nothing is unpacked."""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import PhotoError
from . import parquet

ARCHIVE_SUFFIXES = (".tar", ".zip", parquet.SUFFIX)
MAX_MEMBERS = 2_000_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: mark, then the lengths of its name and extra field
_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Member:
    """A file inside an archive. offset, length: where its bytes lie. size, crc: of the file itself, where the archive says
    them. deflated: whether the bytes are compressed."""

    offset: int
    length: int
    size: int = -1
    crc: int = 0
    deflated: bool = False

    def read(self, archive: Path, name: str, most: int) -> bytes:
        """The member's bytes. PhotoError `unreadable`, `empty`, `too_large` (more than `most`) or `damaged`."""
        if max(self.length, self.size) > most:
            raise PhotoError("too_large", f"{name}: more than {most / (1 << 20):.3g} MiB. Save a smaller copy.")
        if not self.length or not self.size:
            raise PhotoError("empty", f"{name}: the file is empty. Copy it again from its source.")
        try:
            with open(archive, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as error:
            raise PhotoError("unreadable", f"{archive.name}: cannot be read ({error.strerror}).") from None
        if len(data) != self.length:
            raise PhotoError("damaged", f"{archive.name}: the archive ends inside {name}. Copy it again.")
        return data if self.size < 0 else self._checked(data, archive, name)

    def _checked(self, data: bytes, archive: Path, name: str) -> bytes:
        if self.deflated:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = inflater.decompress(data, self.size + 1)
            except zlib.error:
                data = b""
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise PhotoError("damaged", f"{archive.name}: {name} in it is damaged. Make the archive again.")
        return data


class ArchiveError(Exception):
    """Why an archive cannot be read."""


def members(path: Path) -> Iterator[tuple[str, Member | parquet.Cell | None]]:
    """(path inside the archive, the member; None for what is no file or cannot be read in place). ArchiveError."""
    find = _FINDERS.get(path.suffix.lower(), _in_tar)
    try:
        for number, (name, member) in enumerate(find(path)):
            if number >= MAX_MEMBERS:
                raise ArchiveError(f"more than {MAX_MEMBERS} members")
            inner = os.path.normpath("/" + name.replace("\\", "/")).replace(os.sep, "/").lstrip("/")
            yield inner, member if PurePosixPath(inner).name else None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        struct.error,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise ArchiveError(str(error)[:80]) from None


def _in_tar(path: Path) -> Iterator[tuple[str, Member | None]]:
    """As webdataset and img2dataset write them."""
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isdir():
                file = member.isreg() and not member.issparse()
                yield member.name, Member(member.offset_data, member.size) if file else None


def _in_zip(path: Path) -> Iterator[tuple[str, Member | None]]:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type not in _DEFLATED:  # encrypted, or by a rare method
                yield info.filename, None
                continue
            file.seek(info.header_offset)
            mark, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if mark != b"PK\x03\x04":
                raise ArchiveError(f"{info.filename[:40]} is not where the archive says")
            offset = info.header_offset + _LOCAL_HEADER.size + name + extra
            yield (
                info.filename,
                Member(
                    offset, info.compress_size, info.file_size, info.CRC, info.compress_type == zipfile.ZIP_DEFLATED
                ),
            )


_FINDERS: dict[str, Callable[[Path], Iterator[tuple[str, Member | parquet.Cell | None]]]] = {
    ".zip": _in_zip,
    parquet.SUFFIX: parquet.rows,
}
