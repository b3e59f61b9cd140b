"""Bytes of files: plain, gzipped, or the members of a zip archive."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from stream_coord.errors import InputFileError

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


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield what a file holds: itself, or every member of a zip archive.

    What it is, its first bytes say; a name does not matter.

    Yields:
        A name (the path, and ``!member`` if there are several) and what reads the bytes,
        unpacked, or raises InputFileError.

    Raises:
        InputFileError: the file cannot be opened, or is no sound archive.
    """
    with file_errors(str(path)), path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if not is_zip:
        yield str(path), partial(_unpacked, str(path), path.read_bytes)
        return
    with file_errors(str(path)):
        archive = ZipFile(path)  # its members hold it open, and the last one closes it
    entries = [entry for entry in archive.infolist() if not _is_noise(entry.filename)]
    if not entries:
        raise InputFileError(f"{path} is an archive without a file in it")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputFileError(f"{path} is an archive with two files of one name")
    for entry in entries:
        name = f"{path}!{entry.filename}" if len(entries) > 1 else str(path)
        yield name, partial(_unpacked, name, partial(archive.read, entry))


def _is_noise(name: str) -> bool:
    """Return whether a zip entry is a folder, or what macOS puts beside files."""
    return name.endswith("/") or name.startswith("__MACOSX/")


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
