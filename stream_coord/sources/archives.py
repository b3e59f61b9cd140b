"""Bytes of files: plain, gzipped, or the members of a zip archive, chunk by chunk."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from stream_coord.errors import InputFileError

MOST_BYTES = 1 << 30
"""The size from which a file is not read as a whole."""
_CHUNK_BYTES = 1 << 20
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_NOT_PLAIN = {
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass
class Member:
    """A file, or one of the files in a zip archive.

    Attributes:
        path: The file's path, or the archive's.
        file_name: Its own name, with its folders in the archive.
        alone: Whether there is no other in the archive.
        opened: Opens it; the stream's position is that in the unpacked bytes of an archive.
        begin: Where in the file its bytes begin.
        packing: How many bytes of the file a byte of the stream takes.
        position: How many bytes of the file have been read.
    """

    path: Path
    file_name: str
    alone: bool
    opened: Callable[[], IO[bytes]]
    begin: int = 0
    packing: float = 1.0
    position: int = 0

    @property
    def name(self) -> str:
        """The path, and ``!member`` if there are several."""
        return str(self.path) if self.alone else f"{self.path}!{self.file_name}"

    def chunks(self, size_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the unpacked bytes in chunks of at most this size, none of them empty.

        Raises:
            InputFileError: they cannot be read, or are of a kind that is no text.
        """
        with file_errors(self.name), self.opened() as packed, _unpacked(packed) as stream:
            _check_plain(_peek(stream), self.name)
            while chunk := stream.read(size_bytes):
                self.position = self.begin + int(packed.tell() * self.packing)
                yield chunk

    def load(self) -> bytes:
        """Return all bytes, unpacked.

        Raises:
            InputFileError: there are more than `MOST_BYTES`, or as for `chunks`.
        """
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > MOST_BYTES:
                raise InputFileError(
                    f"{self.name} is more than {MOST_BYTES} bytes unpacked",
                    "Split it into smaller files.",
                )
        return bytes(data)


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Turn what reading a file or archive raises into an InputFileError that names it."""
    try:
        yield
    except OSError as error:
        raise InputFileError(f"{name} cannot be read: {error.strerror or error}") from error
    except (BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        # RuntimeError and its NotImplementedError: encrypted, or an unknown compression.
        raise InputFileError(f"{name} cannot be unpacked: {error}") from error
    except MemoryError as error:
        raise InputFileError(
            f"{name} does not fit into memory", "Split it into smaller files."
        ) from error


def members(path: Path) -> Iterator[Member]:
    """Yield what a file holds: itself, or every member of a zip archive.

    What it is, its first bytes say; a name does not matter.

    Raises:
        InputFileError: the file cannot be opened, or is no sound archive.
    """
    with file_errors(str(path)), path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if not is_zip:
        yield Member(path, path.name, True, partial(_open, path))
        return
    with file_errors(str(path)):
        archive = ZipFile(path)  # its members hold it open, and the last one closes it
    entries = [entry for entry in archive.infolist() if not _is_noise(entry.filename)]
    if not entries:
        raise InputFileError(f"{path} is an archive without a file in it")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputFileError(f"{path} is an archive with two files of one name")
    for entry in entries:
        # No more is unpacked than the stated size, so that one that lies is no danger.
        opened = partial(archive.open, entry)
        packing = entry.compress_size / max(entry.file_size, 1)
        alone = len(entries) == 1
        yield Member(path, entry.filename, alone, opened, entry.header_offset, packing)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _is_noise(name: str) -> bool:
    """Return whether a zip entry is a folder, hidden, or what macOS puts beside files."""
    *folders, base = name.split("/")
    return not base or base.startswith(".") or "__MACOSX" in folders


def _unpacked(stream: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(stream) if _peek(stream).startswith(_GZIP) else stream


def _peek(stream: IO[bytes] | gzip.GzipFile) -> bytes:
    begin = stream.read(max(map(len, (*_NOT_PLAIN, _GZIP))))
    stream.seek(0)
    return begin


def _check_plain(begin: bytes, name: str) -> None:
    for magic, what in _NOT_PLAIN.items():
        if begin.startswith(magic):
            raise InputFileError(
                f"{name} is {what}", "Convert it to plain text in UTF-8; .gz and .zip can be read."
            )
