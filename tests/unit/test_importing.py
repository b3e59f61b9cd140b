"""Importing: every row is accounted for, whatever the files, the batches and the interruptions."""

from __future__ import annotations

import errno
import gzip
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable
from numpy.typing import NDArray

from stream_coord import importing
from stream_coord.bars import COLUMNS, Symbol
from stream_coord.calendars import open_calendar
from stream_coord.clock import FixedClock, parse_moment
from stream_coord.errors import StreamCoordError, UsageError
from stream_coord.importing import (
    ImportInterruptedError,
    ImportProgress,
    ImportSummary,
    ImportTarget,
    batch,
    import_files,
)
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources import csv
from stream_coord.sources.csv import CsvFormat
from stream_coord.sources.lean import LeanFormat
from stream_coord.stores.base import WriteOutcome
from stream_coord.stores.delta import DeltaStore
from stream_coord.stores.ledger import FileRecord, Ledger, open_ledger

REAL = Path(os.environ.get("SC_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "lean"
NOON = parse_moment("2018-11-23T12:00:00Z")
CSV = CsvFormat(label="open", tz="UTC")
FOREVER = 1 << 60


class FromNoon:
    """Regular hours that begin at noon of 2018-11-23 and never end."""

    def in_regular(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.greater_equal(starts, NOON)


class SpyStore(DeltaStore):
    """A real store that counts its writes, and can be interrupted or made to lie."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), create=True, sleep=lambda _: None)
        self.writes = 0
        self.after_commit: Callable[[], None] = lambda: None
        self.report: Callable[[WriteOutcome], WriteOutcome] = lambda outcome: outcome

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None] | None = None,
    ) -> WriteOutcome:
        def told(outcome: WriteOutcome) -> None:
            assert before_commit is not None
            before_commit(self.report(outcome))

        self.writes += 1
        outcome = super().write(interval, bars, before_commit=told)
        self.after_commit()
        return outcome


class Place:
    """A folder with a store, a ledger and files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = SpyStore(root / "bars")
        self.ledger = open_ledger("sqlite:///ledger.db", root, create=True)
        clock = FixedClock(parse_moment("2024-01-01T00:00:00Z"))
        self.target = ImportTarget(self.store, self.ledger, FromNoon(), Interval(MINUTE), clock)

    def csv(self, name: str, *rows: str) -> Path:
        """Write a CSV file; a row is ``symbol minute close [volume]``, minutes from noon."""
        lines = ["symbol,time,open,high,low,close,volume"]
        for row in rows:
            symbol, minute, close, *volume = row.split()
            time = f"2018-11-23 12:{int(minute):02}" if minute.isdigit() else minute
            lines.append(f"{symbol},{time},5,9,1,{close},{(volume or ['100'])[0]}")
        path = self.root / name
        path.write_text("\n".join(lines))
        return path

    def run(
        self,
        *paths: Path,
        on_progress: Callable[[ImportProgress], None] | None = None,
    ) -> ImportSummary:
        return import_files(paths, CSV, self.target, on_progress=on_progress)

    def bars(self) -> list[tuple[str, int, float]]:
        """Return symbol, minute from noon and close of every stored bar."""
        frame = self.store.read(Interval(MINUTE), None, 0, FOREVER)
        minute = (pl.col("start") - NOON) // MINUTE
        return frame.select("symbol", minute, "close").rows()

    def status(self) -> str:
        """Return the newest import's status."""
        return self.ledger.imports(1)[0].status


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return a fresh place."""
    place = Place(tmp_path)
    yield place
    place.ledger.close()


def counts(record: FileRecord | ImportSummary) -> tuple[int, ...]:
    """Return rows, stored, duplicates, superseded, revised, rejected, out of session."""
    names = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")
    return tuple(getattr(record, name) for name in names)


def test_every_row_is_accounted_for(place: Place) -> None:
    """New, equal, repeated, superseded, revised, rejected and early ones, all in one file."""
    place.run(place.csv("old.csv", "A 1 5", "A 2 6", "B 1 5"))
    path = place.csv(
        "new.csv", "A 1 5", "A 2 7", "A 3 5", "A 3 5", "A 4 5", "A 4 6", "A x 5", "A 5 10", "C 0 5"
    )
    path.write_text(path.read_text() + "\nC,2018-11-23 11:59,5,9,1,5,100")
    summary = place.run(path)
    assert counts(summary) == (10, 4, 3, 1, 1, 2, 1)
    assert summary.rows == summary.stored + summary.duplicates + summary.revised + summary.rejected
    assert [counts(file) for file in summary.files] == [counts(summary)]
    assert place.bars() == [
        ("A", 1, 5),
        ("A", 2, 7),
        ("A", 3, 5),
        ("A", 4, 6),
        ("B", 1, 5),
        ("C", -1, 5),
        ("C", 0, 5),
    ]


def test_the_ledger_keeps_what_the_store_does_not(place: Place) -> None:
    """Replaced values with those that replaced them, and rejects with their text."""
    place.run(place.csv("old.csv", "A 2 6 600"))
    path = place.csv("new.csv", "A 2 7 700", "A 3 5", "A 3 6", "A x 5", "B 1 5 -1", "A y 5")
    summary = place.run(path)
    columns = ("path", "kind", "symbol", "start", "old_close", "old_volume", "close", "volume")
    assert sorted(place.ledger.revisions().select(columns).rows()) == [
        (str(path), "revised", "A", NOON + 2 * MINUTE, 6, 600, 7, 700),
        (str(path), "superseded", "A", NOON + 3 * MINUTE, 5, 100, 6, 100),
    ]
    rejects = place.ledger.rejects()
    assert rejects.select("path", "row", "symbol", "start", "reason", "raw").rows() == [
        (str(path), 5, "A", None, "unparsable: time", "A,x,5,9,1,5,100"),
        (
            str(path),
            6,
            "B",
            NOON + MINUTE,
            "negative-volume: volume < 0",
            "B,2018-11-23 12:01,5,9,1,5,-1",
        ),
        (str(path), 7, "A", None, "unparsable: time", "A,y,5,9,1,5,100"),
    ]
    assert summary.rejects_by_reason == place.ledger.reject_counts()
    assert [(e.row, e.reason) for e in summary.examples] == [
        (5, "unparsable: time"),
        (7, "unparsable: time"),
        (6, "negative-volume: volume < 0"),
    ]
    (record,) = place.ledger.imports(1)
    assert (record.status, record.files, record.pending) == ("done", 1, 0)
    assert counts(summary) == (6, 1, 1, 1, 1, 3, 0)


def test_importing_a_file_again_changes_nothing(place: Place) -> None:
    path = place.csv("a.csv", "A 1 5", "A 1 6", "A 2 5", "B x 5")
    place.run(path)
    day = parse_moment("2018-11-23T00:00:00Z")
    before = place.store.read(Interval(MINUTE), None, day, FOREVER)
    days = place.store.days(Interval(MINUTE))
    versions = place.store.versions(Interval(MINUTE), days[0], days[-1])
    revisions = place.ledger.revisions()
    summary = place.run(path)
    assert counts(summary) == (4, 0, 3, 1, 0, 1, 0)
    assert place.store.read(Interval(MINUTE), None, day, FOREVER).equals(before)
    assert place.store.versions(Interval(MINUTE), days[0], days[-1]).equals(versions)
    assert place.ledger.revisions().equals(revisions)
    assert place.ledger.rejects().height == 1


def test_files_share_a_commit(place: Place) -> None:
    paths = [place.csv(f"{n:02}.csv", f"S{n} 1 5", f"S{n} 2 5", f"S{n} x 5") for n in range(30)]
    summary = place.run(*paths)
    assert place.store.writes == 1
    assert [counts(file) for file in summary.files] == [(3, 2, 0, 0, 0, 1, 0)] * 30
    assert [file.path for file in summary.files] == [str(path) for path in paths]
    assert len(place.bars()) == 60


def test_of_a_bar_in_two_files_the_last_one_wins(place: Place) -> None:
    """Rows that give way are duplicates of their own file, and files without them see nothing."""
    paths = [
        place.csv("a.csv", "A 1 5", "A 2 5"),
        place.csv("b.csv", "B 1 5"),
        place.csv("c.csv", "A 2 6", "A 3 5", "A 1 5"),
        place.csv("d.csv", "D 1 5"),
    ]
    summary = place.run(*paths)
    assert place.store.writes == 1
    assert [counts(file)[:5] for file in summary.files] == [
        (2, 0, 2, 1, 0),
        (1, 1, 0, 0, 0),
        (3, 3, 0, 0, 0),
        (1, 1, 0, 0, 0),
    ]
    assert place.bars() == [("A", 1, 5), ("A", 2, 6), ("A", 3, 5), ("B", 1, 5), ("D", 1, 5)]
    revisions = place.ledger.revisions().select("path", "kind", "old_close", "close")
    assert revisions.rows() == [(str(paths[0]), "superseded", 5, 6)]


def test_every_fate_is_told_of_its_own_file(place: Place) -> None:
    """Three files of one symbol and day, and a bar of each that the store knows."""
    place.run(place.csv("old.csv", "A 1 5", "A 2 5"))
    paths = [
        place.csv("a.csv", "A 1 5", "A 3 5", "A 4 5"),
        place.csv("b.csv", "A 2 7", "A 4 6", "A 5 5"),
        place.csv("c.csv", "A 4 7", "A x 5", "A 4 8"),
    ]
    summary = place.run(*paths)
    assert [counts(file)[:6] for file in summary.files] == [
        (3, 1, 2, 1, 0, 0),
        (3, 1, 1, 1, 1, 0),
        (3, 1, 1, 1, 0, 1),
    ]
    revisions = place.ledger.revisions().select("path", "kind", "old_close", "close")
    assert sorted(revisions.rows()) == [
        (str(paths[0]), "superseded", 5, 8),
        (str(paths[1]), "revised", 5, 7),
        (str(paths[1]), "superseded", 6, 8),
        (str(paths[2]), "superseded", 7, 8),
    ]


def test_importing_overlapping_files_again_changes_nothing(place: Place) -> None:
    folder = place.root / "in"
    folder.mkdir()
    place.csv("in/a.csv", "SPY 1 5")
    place.csv("in/b.csv", "SPY 1 6")
    first = place.run(folder)
    assert [counts(file)[:5] for file in first.files] == [(1, 0, 1, 1, 0), (1, 1, 0, 0, 0)]
    version, revisions = table_version(place), place.ledger.revisions()
    again = place.run(folder)
    assert [counts(file)[:5] for file in again.files] == [(1, 0, 1, 1, 0), (1, 0, 1, 0, 0)]
    assert again.revised == 0
    assert table_version(place) == version
    assert place.ledger.revisions().equals(revisions)
    assert place.bars() == [("SPY", 1, 6)]


def table_version(place: Place) -> int:
    """Return the number of the store's newest commit."""
    return DeltaTable(str(place.root / "bars")).version()


def test_a_retry_tells_the_ledger_only_what_is_new(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three calls with the same outcome are one record; one with another is a second."""
    other = DeltaStore(str(place.root / "bars"))
    path = place.csv("a.csv", "A 1 5", "A 2 5")
    one = pl.DataFrame(("A", NOON + MINUTE, 5.0, 9.0, 1.0, 4.0, 100.0), orient="row")
    one.columns = list(COLUMNS)
    recorded: list[FileRecord] = []
    record_files = Ledger.record_files

    def record(
        self: Ledger, import_id: int, files: Sequence[FileRecord], *rest: pl.DataFrame
    ) -> None:
        recorded.extend(files)
        record_files(self, import_id, files, *rest)

    def race(outcome: WriteOutcome) -> WriteOutcome:
        """Let others commit in between: twice another symbol, then a bar of ours."""
        if rivals:
            other.write(Interval(MINUTE), one.with_columns(symbol=pl.lit(rivals.pop())))
        return outcome

    rivals = ["A", "Y", "X"]
    place.store.report = race
    monkeypatch.setattr(Ledger, "record_files", record)
    summary = place.run(path)
    assert [counts(file)[:5] for file in recorded] == [(2, 2, 0, 0, 0), (2, 1, 0, 0, 1)]
    assert summary.files == (recorded[1],)
    assert place.ledger.revisions()["old_close"].to_list() == [4]


@pytest.mark.parametrize(("rows", "files", "writes"), [(10, 2, 3), (4, 100, 3), (1, 100, 5)])
def test_a_batch_is_bounded(
    place: Place, monkeypatch: pytest.MonkeyPatch, rows: int, files: int, writes: int
) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", rows)
    monkeypatch.setattr(importing, "BATCH_FILES", files)
    place.run(*(place.csv(f"{n}.csv", f"S{n} 1 5", f"S{n} 2 5") for n in range(5)))
    assert place.store.writes == writes
    assert len(place.bars()) == 10


def test_a_file_that_cannot_be_read_fails_alone(place: Place) -> None:
    broken = place.root / "broken.csv"
    broken.write_bytes(b"\x00\xff" * 100)
    empty = place.root / "empty.csv"
    empty.write_text("")
    good = [place.csv("a.csv", "A 1 5"), place.csv("z.csv", "Z 1 5")]
    summary = place.run(good[0], broken, empty, good[1])
    assert [file.path for file in summary.files] == [str(path) for path in good]
    assert [(f.path, f.message.partition(" is ")[0]) for f in summary.failed] == [
        (str(broken), str(broken)),
        (str(empty), str(empty)),
    ]
    assert summary.rows == summary.stored == 2
    assert place.status() == "failed"


def test_a_member_of_an_archive_fails_alone_too(place: Place) -> None:
    path = place.root / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(place.csv("a.csv", "A 1 5"), "a.csv")
        archive.writestr("b.csv", "")
        archive.write(place.csv("c.csv", "C 1 5", "C 1 6"), "c.csv")
    summary = place.run(path)
    assert [(file.path, file.rows) for file in summary.files] == [
        (f"{path}!a.csv", 1),
        (f"{path}!c.csv", 2),
    ]
    assert [failed.path for failed in summary.failed] == [f"{path}!b.csv"]


def test_files_without_a_good_row_are_recorded(place: Place) -> None:
    """Also one without any row, and without a write to the store."""
    summary = place.run(place.csv("a.csv", "A x 5"), place.csv("b.csv"))
    assert [counts(file) for file in summary.files] == [(1, 0, 0, 0, 0, 1, 0), (0,) * 7]
    assert place.store.writes == 0
    assert place.ledger.rejects().height == 1
    assert place.ledger.imports(1)[0].files == 2


def test_what_is_stated_wrongly_stops_the_import(place: Place) -> None:
    """It would be as wrong for every other file."""
    path = place.csv("a.csv", "A 1 5")
    target = place.target
    with pytest.raises(UsageError, match="no time zone is stated"):
        import_files([path], CsvFormat(label="open"), target)
    assert place.status() == "failed"
    with pytest.raises(UsageError, match="does not exist"):
        place.run(path, place.root / "nowhere.csv")
    assert place.ledger.imports()[1:] == []
    assert place.bars() == []


def test_the_ledger_knows_how_files_were_read(place: Place) -> None:
    fmt = CsvFormat(label="open", tz="UTC", symbol=Symbol.parse("A"), columns={"close": "last"})
    path = place.csv("a.csv", "A 1 5")
    path.write_text(path.read_text().replace("symbol", "name").replace("close", "last"))
    import_files([path], fmt, place.target)
    (record,) = place.ledger.imports()
    assert record.interval == "1m"
    assert json.loads(record.settings) == {
        "format": "csv",
        "label": "open",
        "tz": "UTC",
        "symbol": "A",
        "columns": {"close": "last"},
        "time_format": "iso",
        "delimiter": ",",
        "header": True,
    }


def test_progress_is_told_of_files_rows_and_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves within a file too, and with the commits at the end."""
    monkeypatch.setattr(csv, "BLOCK_BYTES", 60)
    paths = [place.csv("a.csv", "A 1 5", "A 2 5", "A 3 5"), place.csv("b.csv", "B 1 5")]
    sizes = [path.stat().st_size for path in paths]
    seen: list[ImportProgress] = []
    place.run(*paths, on_progress=seen.append)
    total = sum(sizes)
    done = [(at.files, at.rows, at.bytes_read, at.bytes_stored) for at in seen]
    assert done == sorted(done)
    assert {(at.total_files, at.total_bytes) for at in seen} == {(2, total)}
    assert (1, 3, sizes[0], 0) in done
    assert any(0 < rows < 3 and 0 < read < sizes[0] for _, rows, read, _ in done)
    assert done[-1] == (2, 4, total, total)


def test_an_interrupt_between_files_leaves_whole_files(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH_FILES", 2)
    paths = [place.csv(f"{n}.csv", f"S{n} 1 5", f"S{n} 2 5") for n in range(4)]

    def interrupt(progress: ImportProgress) -> None:
        if progress.files == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.run(*paths, on_progress=interrupt)
    assert place.bars() == [(f"S{n}", minute, 5) for n in (0, 1) for minute in (1, 2)]
    (record,) = place.ledger.imports()
    assert (record.status, record.files, record.pending) == ("interrupted", 2, 0)
    assert place.run(*paths).stored == 4


def test_an_interrupt_before_the_commit_stores_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = place.csv("a.csv", "A 1 5", "A 2 5")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.run(path)
    assert place.bars() == []
    assert place.status() == "interrupted"
    assert place.run(path).stored == 2


def test_an_interrupt_after_the_commit_leaves_a_trace(place: Place) -> None:
    """The bars are there, whole; the ledger says that it does not know; again is harmless."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    place.run(place.csv("old.csv", "A 1 5"))
    path = place.csv("a.csv", "A 1 6", "A 2 5")
    place.store.after_commit = interrupt
    with pytest.raises(KeyboardInterrupt):
        place.run(path)
    assert place.bars() == [("A", 1, 6), ("A", 2, 5)]
    (record, _) = place.ledger.imports()
    assert (record.status, record.files, record.pending) == ("interrupted", 0, 1)
    revisions = place.ledger.revisions()
    assert revisions.select("old_close", "close", "sealed").rows() == [(5, 6, False)]
    place.store.after_commit = lambda: None
    assert place.run(path).duplicates == 2


def test_an_interrupt_right_after_the_ledger_is_counted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = Ledger.seal_files

    def sealed_then_interrupted(ledger: Ledger, *args: Any) -> None:
        seal(ledger, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "seal_files", sealed_then_interrupted)
    with pytest.raises(ImportInterruptedError) as stopped:
        place.run(place.csv("a.csv", "A 1 5", "A 2 5"))
    (record,) = place.ledger.imports()
    assert stopped.value.kept.stored == record.stored == 2
    assert record.status == "interrupted"


def days_file(place: Place) -> Path:
    """Write a file of six rows: of three days a good one twice over, and three rejects."""
    days = [f"A 2018-11-2{n}T12:00 {close}" for close in (5, 6) for n in (1, 2, 3)]
    return place.csv("days.csv", *days, "A x 5", "B x 5", "C x 5")


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every commit be of one date, and of one reject."""
    monkeypatch.setattr(batch, "MEMORY_ROWS", 1)
    monkeypatch.setattr(batch, "MEMORY_REJECTS", 1)
    monkeypatch.setattr(csv, "BLOCK_BYTES", 50)


@pytest.mark.usefixtures("little_memory")
def test_a_file_larger_than_memory_is_stored_date_by_date(place: Place) -> None:
    """Of its rows of one key the last one wins, and it is one file in the ledger."""
    path = days_file(place)
    summary = place.run(path)
    assert place.store.writes == 3
    assert counts(summary)[:6] == (9, 3, 3, 3, 0, 3)
    assert [counts(file) for file in summary.files] == [counts(summary)]
    assert [close for _, _, close in place.bars()] == [6, 6, 6]
    (record,) = place.ledger.imports()
    assert (record.files, record.pending, record.rows, record.stored) == (1, 0, 9, 3)
    assert place.ledger.rejects().select("path", "row").rows() == [
        (str(path), row) for row in (8, 9, 10)
    ]
    assert place.ledger.revisions()["path"].to_list() == [str(path)] * 3
    assert [(each.path, each.row) for each in summary.examples] == [(str(path), 8), (str(path), 9)]


@pytest.mark.usefixtures("little_memory")
def test_an_interrupt_between_commits_keeps_what_was_committed(place: Place) -> None:
    """Of the commit that it struck the ledger does not know; all that it claims is true."""
    path = days_file(place)

    def interrupt() -> None:
        if place.store.writes == 2:
            raise KeyboardInterrupt

    place.store.after_commit = interrupt
    with pytest.raises(ImportInterruptedError) as stop:
        place.run(path)
    assert counts(stop.value.kept)[:6] == (3, 1, 1, 1, 0, 1)
    assert len(place.bars()) == 2
    (record,) = place.ledger.imports()
    assert (record.status, record.files, record.pending) == ("interrupted", 1, 1)
    assert (record.rows, record.stored, record.duplicates, record.rejected) == (3, 1, 1, 1)
    place.store.after_commit = lambda: None
    assert counts(place.run(path))[:6] == (9, 1, 5, 3, 0, 3)
    assert [close for _, _, close in place.bars()] == [6, 6, 6]
    assert len(place.ledger.rejects()) == 3


@pytest.mark.usefixtures("little_memory")
def test_nothing_of_a_file_with_a_torn_end_is_imported(place: Place) -> None:
    """However much of it had been read by then; the files around it are not touched."""
    torn = place.root / "torn.csv.gz"
    torn.write_bytes(gzip.compress(days_file(place).read_bytes())[:-4])
    files = [place.csv("a.csv", "A 1 5"), place.csv("z.csv", "Z 1 5", "Z 2 5")]
    summary = place.run(files[0], torn, files[1])
    assert counts(summary)[:2] == (3, 3)
    assert [file.path for file in summary.files] == [str(path) for path in files]
    assert [failed.path for failed in summary.failed] == [str(torn)]
    assert place.bars() == [("A", 1, 5), ("Z", 1, 5), ("Z", 2, 5)]


@pytest.mark.usefixtures("little_memory")
def test_a_full_disk_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StreamCoordError, match=r"cannot be kept aside in .*: No space left"):
        place.run(days_file(place))
    assert place.status() == "failed"
    assert place.bars() == []


def test_a_store_that_does_not_account_for_every_row_is_stopped(place: Place) -> None:
    def forget_one(outcome: WriteOutcome) -> WriteOutcome:
        return replace(outcome, counts=outcome.counts.with_columns(stored=pl.col("stored") - 1))

    place.store.report = forget_one
    with pytest.raises(StreamCoordError, match=r"internal error: 1 rows of .*a\.csv are not"):
        place.run(place.csv("a.csv", "A 1 5", "A 2 5"))
    assert place.bars() == []
    assert place.status() == "failed"


def test_prices_at_or_below_zero_are_for_those_that_may(place: Place) -> None:
    path = place.root / "a.csv"
    row = "2018-11-23 12:00,-37,-36,-40,-38,1"
    path.write_text(f"symbol,time,open,high,low,close,volume\nCL,{row}\nSPY,{row}")
    target = replace(place.target, allow_nonpositive=("CL",))
    summary = import_files([path], CSV, target)
    assert (summary.stored, summary.rejects_by_reason) == (1, {"nonpositive-price: low <= 0": 1})


def test_a_name_that_is_no_text_is_spelt_out(place: Place) -> None:
    path = Path(os.fsdecode(os.fsencode(place.root) + b"/caf\xe9.csv"))
    place.csv("a.csv", "A 1 5", "A x 5").rename(path)
    (file,) = place.run(path).files
    assert file.path.endswith("caf\\udce9.csv")
    assert place.ledger.rejects()["path"].to_list() == [file.path]


def lines_of(paths: Sequence[Path]) -> int:
    """Return the number of lines in all members of the zips below some folders."""
    total = 0
    for path in paths:
        for file in path.rglob("*_trade.zip"):
            with zipfile.ZipFile(file) as archive:
                total += sum(len(archive.read(name).splitlines()) for name in archive.namelist())
    return total


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real bars at {REAL} (SC_REAL_DATA)")
def test_the_real_shares_of_six_sessions(place: Place) -> None:
    """Every line is stored; 9,357 of the bars are regular, three less than 6 x 4 x 390."""
    folders = [REAL / "equity/usa/minute" / name for name in ("spy", "aig", "bac", "ibm")]
    target = replace(place.target, calendar=open_calendar("NYSE"))
    rows = lines_of(folders)
    assert rows == 13_429
    summary = import_files(folders, LeanFormat(), target)
    assert counts(summary) == (rows, rows, 0, 0, 0, 0, rows - 9_357)
    assert (len(summary.files), place.store.writes) == (24, 1)
    again = import_files(folders, LeanFormat(), target)
    assert counts(again) == (rows, 0, rows, 0, 0, 0, rows - 9_357)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real bars at {REAL} (SC_REAL_DATA)")
def test_the_real_future_of_five_sessions(place: Place) -> None:
    """Each of the five days has the 15 minutes from 21:00 UTC on, which no session covers."""
    target = replace(place.target, calendar=open_calendar("CME_Equity"))
    summary = import_files([REAL / "future"], LeanFormat(), target)
    assert summary.rows == summary.stored == lines_of([REAL / "future"])
    december = [file for file in summary.files if "_201312.csv" in file.path]
    assert [file.out_of_session for file in december] == [0, 15, 15, 15, 15, 15]
    assert sum(file.rows for file in december) == 1_333 + 1_351 + 1_361 + 1_348 + 1_358 + 75
