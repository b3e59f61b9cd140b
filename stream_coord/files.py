"""Files that are whole or absent, and folders that one process at a time works in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Open a stream whose bytes become the file `target`, in one step, when the body is done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{token_hex(8)}")
    try:
        with beside.open("xb") as stream:
            yield stream
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync_path(path: Path) -> None:
    """Make a file's bytes, or a directory's entries, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def folder_right(path: Path) -> Iterator[Callable[[], bool]]:
    """Give what takes the right to work in a folder, and says whether it has got it.

    One process at a time has the right; it ends with the body, or with the process. It is a lock
    on the folder itself, so that no file is left behind.

    Args:
        path: The folder.
    """
    import fcntl

    folder = os.open(path, os.O_RDONLY)

    def take() -> bool:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without such locks: nobody can be told to wait
            return True
        return True

    try:
        yield take
    finally:
        os.close(folder)
