"""Compacting a Delta store: fewer files, the same bars, and nobody's file taken away too early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest
from deltalake import DeltaTable

from stream_coord.clock import FixedClock
from stream_coord.errors import StoreConflictError, StoreCorruptError, UsageError
from stream_coord.interval import Interval
from stream_coord.stores.delta import DeltaStore, compaction
from stream_coord.stores.delta import files as bar_files

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
HOUR = DAY // 24
EVER = 10**17
NOON = 1_700_049_600_000_000
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)


def bars(symbol: str, rows: int = 4, day: int = 0, price: float = 1.5) -> pl.DataFrame:
    keys = [(symbol, day * DAY + row * 60_000_000) for row in range(rows)]
    return pl.DataFrame([(*k, *[price] * 4, 9.0) for k in keys], schema=SCHEMA, orient="row")


def live_paths(root: Path) -> set[str]:
    return set(pl.DataFrame(DeltaTable(root).get_add_actions(flatten=True))["path"])


def on_disk(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.glob("interval=*/*/*") if p.is_file()}


def age_files(root: Path, micros: int) -> None:
    """Say that all files on disk were written at a time."""
    for path in root.glob("interval=*/*/*"):
        os.utime(path, (micros // 1_000_000,) * 2)


def state(store: DeltaStore) -> list[object]:
    found: list[object] = []
    for interval in store.intervals():
        days = store.days(interval)
        versions = store.versions(interval, days[0], days[-1])
        found += [interval, versions.rows(), store.read(interval, None, 0, EVER).rows()]
    return found


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> DeltaStore:
    """Return a store with dates of six, one and three files."""
    store = DeltaStore(str(tmp_path), create=True, clock=clock, sleep=lambda _: None)
    for power in range(6):  # each is at least twice the next one: no write takes another in
        store.write(MINUTE, bars(f"S{power}", rows=4 * 2 ** (6 - power)))
    store.write(MINUTE, bars("A", day=1))
    for power in range(3):
        store.write(Interval.parse("5m"), bars(f"S{power}", rows=4 * 2 ** (3 - power), day=2))
    assert len(live_paths(tmp_path)) == 10
    age_files(tmp_path, NOON)
    return store


def test_small_files_become_one_a_date_with_the_same_bars(
    store: DeltaStore, tmp_path: Path
) -> None:
    before = state(store)
    sizes = [(tmp_path / path).stat().st_size for path in live_paths(tmp_path)]
    done = store.compact()
    assert (done.files_before, done.files_after) == (10, 3)
    assert len(live_paths(tmp_path)) == 3
    assert done.bytes_before == sum(sizes)
    assert done.bytes_after == sum((tmp_path / p).stat().st_size for p in live_paths(tmp_path))
    assert state(store) == before
    assert state(DeltaStore(str(tmp_path))) == before


def test_other_readers_see_the_same_rows(store: DeltaStore, tmp_path: Path) -> None:
    def foreign() -> pl.DataFrame:
        return pl.read_delta(str(tmp_path)).sort("interval", "symbol", "start")

    before = foreign()
    store.compact()
    assert foreign().equals(before)
    assert before.height == sum(4 * 2**n for n in (1, 2, 3, 4, 5, 6)) + 4 + 8 + 16 + 32


def test_a_compacted_store_has_nothing_to_compact(store: DeltaStore, tmp_path: Path) -> None:
    store.compact()
    files, version = on_disk(tmp_path), DeltaTable(tmp_path).version()
    done = store.compact()
    assert (done.files_before, done.files_after, done.deleted_files) == (3, 3, 0)
    assert (on_disk(tmp_path), DeltaTable(tmp_path).version()) == (files, version)


def test_full_files_are_left_alone(
    store: DeltaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of 256, 128, 64, 32, 16 and 8 rows; a full one has 100, half a one is small."""
    monkeypatch.setattr(bar_files, "_FILE_ROWS", 100)
    monkeypatch.setattr(compaction, "SMALL_FILE_ROWS", 50)
    before, first = state(store), live_paths(tmp_path)
    promised = store.compact(dry_run=True)
    done = store.compact()
    assert promised.files_after == done.files_after == 10 - 2 - 2
    assert len(first & live_paths(tmp_path)) == 4
    assert state(store) == before


def test_those_who_follow_the_table_see_no_change_of_data(
    store: DeltaStore, tmp_path: Path
) -> None:
    store.compact()
    newest = max((tmp_path / "_delta_log").glob("*.json")).read_text()
    actions = [json.loads(line) for line in newest.splitlines()]
    changes = [a[kind]["dataChange"] for a in actions for kind in ("add", "remove") if kind in a]
    assert changes == [False] * 11


def test_a_dry_run_says_the_same_and_changes_nothing(
    store: DeltaStore, tmp_path: Path, clock: FixedClock
) -> None:
    def every_byte() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = every_byte()
    promised = store.compact(dry_run=True)
    assert every_byte() == before
    assert promised.bytes_after is None
    done = store.compact()
    assert (promised.files_before, promised.files_after) == (done.files_before, done.files_after)
    clock.set(NOON + 8 * DAY)
    before = every_byte()
    promised = store.compact(dry_run=True)
    assert every_byte() == before
    assert promised == store.compact()


def test_replaced_files_stay_for_the_retention_and_no_longer(
    store: DeltaStore, tmp_path: Path, clock: FixedClock
) -> None:
    first = live_paths(tmp_path)
    age_files(tmp_path, NOON - 100 * DAY)
    done = store.compact(retain_hours=48)
    assert done.deleted_files == 0
    assert done.notes[0].startswith("9 replaced files (")
    gone = first - live_paths(tmp_path)
    clock.set(NOON + 2 * DAY)
    assert store.compact(retain_hours=48).deleted_files == 0
    clock.set(NOON + 2 * DAY + 1_000_000)
    sizes = sum((tmp_path / path).stat().st_size for path in gone)
    before = state(store)
    done = store.compact(retain_hours=48)
    assert (done.deleted_files, done.deleted_bytes, done.notes) == (9, sizes, ())
    assert on_disk(tmp_path) == live_paths(tmp_path)
    assert state(store) == before


def test_a_reader_of_an_older_version_still_reads(store: DeltaStore, tmp_path: Path) -> None:
    older = DeltaTable(tmp_path)
    opened = DeltaStore(str(tmp_path))
    expected = state(opened)
    age_files(tmp_path, NOON - 100 * DAY)  # written long ago, replaced now
    store.compact(retain_hours=1)
    assert state(opened) == expected
    rows = pl.scan_delta(older).filter(pl.col("interval") == "1m").collect().height
    assert rows == store.read(MINUTE, None, 0, EVER).height


def test_leftovers_of_killed_writes_go_when_they_are_old(
    store: DeltaStore, tmp_path: Path, clock: FixedClock
) -> None:
    store.compact()
    clock.set(NOON + 8 * DAY)
    store.compact()
    day = tmp_path / "interval=1m" / "date=1970-01-01"
    leftovers = [day / f"{'ab' * 16}.parquet", day / f".{'cd' * 16}.parquet.{'ef' * 8}"]
    strangers = [day / "notes.txt", day / f"{'ab' * 16}.parquet.bak", tmp_path / "x.parquet"]
    for path in leftovers + strangers:
        path.write_bytes(b"12345")
        os.utime(path, ((clock.now() - HOUR) // 1_000_000,) * 2)
    assert store.compact(retain_hours=1).deleted_files == 0
    clock.set(clock.now() + 1_000_000)
    assert store.compact().deleted_files == 0
    done = store.compact(retain_hours=1)
    assert (done.deleted_files, done.deleted_bytes) == (2, 10)
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in strangers)


@pytest.mark.parametrize("hours", [-1, 0, 721])
def test_a_retention_that_is_not_safe_is_refused(store: DeltaStore, hours: int) -> None:
    with pytest.raises(UsageError, match=f"kept for {hours} hours"):
        store.compact(retain_hours=hours)


def test_a_writer_in_between_loses_nothing(
    store: DeltaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DeltaStore(str(tmp_path), sleep=lambda _: None)
    new = [bars("S0", price=2.5), bars("NEW", day=1)]
    read = bar_files.BarFiles.read

    def race(self: bar_files.BarFiles, groups: pl.DataFrame) -> pl.DataFrame:
        found = read(self, groups)
        monkeypatch.setattr(bar_files.BarFiles, "read", read)
        for frame in new:
            other.write(MINUTE, frame)
        return found

    expected = {row[:2]: row for row in store.read(MINUTE, None, 0, EVER).rows()}
    expected |= {row[:2]: row for frame in new for row in frame.rows()}
    monkeypatch.setattr(bar_files.BarFiles, "read", race)
    store.compact()
    got = store.read(MINUTE, None, 0, EVER).rows()
    assert got == [expected[key] for key in sorted(expected)]
    assert len(live_paths(tmp_path)) == 3


def test_a_compaction_that_always_loses_gives_up_and_leaves_nothing(
    store: DeltaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = on_disk(tmp_path)
    monkeypatch.setattr("stream_coord.stores.delta.log.DeltaLog.commit", lambda *_, **__: False)
    with pytest.raises(StoreConflictError, match="committed first"):
        store.compact()
    assert on_disk(tmp_path) == files


def test_damage_stops_it_and_nothing_is_lost(store: DeltaStore, tmp_path: Path) -> None:
    path = max(tmp_path.glob("interval=1m/date=1970-01-01/*"), key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 3) + content[4 + len(content) // 3 :])
    files = on_disk(tmp_path)
    with pytest.raises(StoreCorruptError, match="1970-01-01"):
        store.compact()
    assert on_disk(tmp_path) == files


KILLED_AT = {
    "renaming": "Path.replace = die",
    "reading": "from stream_coord.stores.delta.files import BarFiles; BarFiles.read = die",
    "committing": "from deltalake import DeltaTable; DeltaTable.create_write_transaction = die",
    "after the commit": "from stream_coord.stores.delta.log import DeltaLog; DeltaLog._sync = die",
    "deleting": "Path.unlink = die",
}


@pytest.mark.parametrize("act", KILLED_AT)
def test_killed_anywhere_the_table_is_whole_and_a_second_run_completes(
    store: DeltaStore, tmp_path: Path, clock: FixedClock, act: str
) -> None:
    expected = state(store)
    if act == "deleting":
        store.compact()
    code = """
        import os, signal, sys
        from pathlib import Path
        from stream_coord.clock import FixedClock
        from stream_coord.stores.delta import DeltaStore
        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)
        exec(sys.argv[1])
        DeltaStore(sys.argv[2], clock=FixedClock(int(sys.argv[3]))).compact()
    """
    then = str(NOON + 9 * DAY)
    command = [sys.executable, "-c", dedent(code), KILLED_AT[act], str(tmp_path), then]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    clock.set(NOON + 60 * 365 * DAY)
    assert state(DeltaStore(str(tmp_path))) == expected
    assert store.compact().files_after == 3
    clock.set(NOON + 61 * 365 * DAY)
    store.compact()
    assert on_disk(tmp_path) == live_paths(tmp_path)
    assert state(store) == expected


def test_it_says_how_far_it_is(store: DeltaStore) -> None:
    told: list[tuple[int, int, str]] = []
    store.compact(on_progress=lambda done, total, text: told.append((done, total, text)))
    assert told == [(0, 2, "1970-01-01")]
