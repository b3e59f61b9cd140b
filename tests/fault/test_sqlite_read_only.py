"""Bars in a SQLite file that nobody may write: they can be read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from stream_coord.errors import StoreError
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import WriteOutcome

MINUTE = Interval.parse("1m")
NOBODY = 65534
URL = "sqlite:///bars.db"
DAY = 86_400_000_000
BARS = pl.DataFrame(
    [("SPY", DAY, 2.0, 3.0, 1.0, 2.5, 10.0)],
    schema=["symbol", "start", "open", "high", "low", "close", "volume"],
    orient="row",
)
REVISED = BARS.with_columns(close=pl.lit(2.75))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of an open name with a store in it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    open_store(URL, folder, create=True).write(MINUTE, BARS)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def read_only(*paths: Path) -> Iterator[None]:
    """Close these to everybody; root may write anything, so it goes on as somebody else."""
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(NOBODY)
    try:
        if not os.access(paths[0], os.R_OK, effective_ids=True):
            pytest.skip("the folder for temporary files is closed to other users")
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.parametrize("create", [False, True])
def test_a_store_in_a_read_only_folder_can_be_read(folder: Path, create: bool) -> None:
    with read_only(folder, folder / "bars.db"):
        store = open_store(URL, folder, create=create)
        assert store.read(MINUTE, None, 0, 9 * DAY).equals(BARS)
        with pytest.raises(StoreError, match="read-only"):
            store.write(MINUTE, REVISED)
        assert store.read(MINUTE, None, 0, 9 * DAY).equals(BARS)


def test_a_read_only_file_can_be_read(folder: Path) -> None:
    folder.chmod(0o777)
    with read_only(folder / "bars.db"):
        store = open_store(URL, folder)
        assert store.read(MINUTE, None, 0, 9 * DAY).equals(BARS)
        with pytest.raises(StoreError, match="read-only"):
            store.write(MINUTE, REVISED)


def test_a_log_that_cannot_be_read_is_an_error_and_not_an_older_state(folder: Path) -> None:
    copy = folder / "copy"
    copy.mkdir()

    def keep(_: WriteOutcome) -> None:
        for name in ("bars.db", "bars.db-wal"):
            shutil.copy(folder / name, copy)

    open_store(URL, folder).write(MINUTE, REVISED, before_commit=keep)
    (folder / "link.db").symlink_to(copy / "bars.db")
    with read_only(copy):
        for path in (copy / "bars.db", folder / "link.db"):  # the log is beside the file itself
            with pytest.raises(StoreError, match="permissions"):
                open_store(f"sqlite:///{path}", folder)
    copy.chmod(0o755)
    assert open_store(URL, copy).read(MINUTE, None, 0, 9 * DAY).equals(BARS)


def test_no_store_can_be_made_in_a_read_only_folder(folder: Path) -> None:
    with read_only(folder), pytest.raises(StoreError, match="permissions"):
        open_store("sqlite:///new.db", folder, create=True)
