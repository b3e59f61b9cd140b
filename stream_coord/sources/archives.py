"""Bytes of files: plain, gzipped, or the members of a zip archive."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from stream_coord.errors import InputFileError

MOST_BYTES = 4 << 30
"""The size from which a member of an archive is not even tried to be unpacked."""
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


@dataclass(frozen=True)
class Member:
    """A file, or one of the files in a zip archive.

    Attributes:
        path: The file's path, or the archive's.
        file_name: Its own name, with its folders in the archive.
        alone: Whether there is no other in the archive.
        load: Returns its bytes, unpacked, or raises InputFileError.
    """

    path: Path
    file_name: str
    alone: bool
    load: Callable[[], bytes]

    @property
    def name(self) -> str:
        """The path, and ``!member`` if there are several."""
        return _name(self.path, self.file_name, alone=self.alone)


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
        yield Member(path, path.name, True, partial(_unpacked, str(path), path.read_bytes))
        return
    with file_errors(str(path)):
        archive = ZipFile(path)  # its members hold it open, and the last one closes it
    entries = [entry for entry in archive.infolist() if not _is_noise(entry.filename)]
    if not entries:
        raise InputFileError(f"{path} is an archive without a file in it")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputFileError(f"{path} is an archive with two files of one name")
    alone = len(entries) == 1
    for entry in entries:
        name = _name(path, entry.filename, alone=alone)
        read = partial(_read_entry, archive, entry, name)
        yield Member(path, entry.filename, alone, partial(_unpacked, name, read))


def _name(path: Path, file_name: str, *, alone: bool) -> str:
    return str(path) if alone else f"{path}!{file_name}"


def _is_noise(name: str) -> bool:
    """Return whether a zip entry is a folder, hidden, or what macOS puts beside files."""
    *folders, base = name.split("/")
    return not base or base.startswith(".") or "__MACOSX" in folders


def _read_entry(archive: ZipFile, entry: ZipInfo, name: str) -> bytes:
    # No more is unpacked than the stated size, so that one that lies is no danger either.
    if entry.file_size > MOST_BYTES:
        raise InputFileError(
            f"{name} would be {entry.file_size} bytes unpacked; at most {MOST_BYTES} are read",
            "Split it into smaller files.",
        )
    return archive.read(entry)


def _unpacked(name: str, read: Callable[[], bytes]) -> bytes:
    with file_errors(name):
        data = read()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    for magic, what in _NOT_PLAIN.items():
        if data.startswith(magic):
            raise InputFileError(
                f"{name} is {what}", "Convert it to plain text in UTF-8; .gz and .zip can be read."
            )
    return data
