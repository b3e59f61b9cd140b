"""The Delta store's own promises: layout, commits, what other readers see, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import struct
from datetime import date
from pathlib import Path
from random import Random

import polars as pl
import pytest
import xxhash
from deltalake import DeltaTable, write_deltalake

from stream_coord.errors import ConfigError, StoreCorruptError, StoreError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.delta import files as bar_files

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
DAYS = date(1970, 1, 1), date(1970, 1, 9)
EVER = 10**17
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)


def bars(
    symbols: str | list[str], day: int = 0, minutes: int = 5, volume: float = 9.0
) -> pl.DataFrame:
    rows = [
        (symbol, day * DAY + minute * 60_000_000, 1.25, 2.5, 1.0, 2.0 + minute, volume)
        for symbol in symbols
        for minute in range(minutes)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def live_files(root: Path) -> list[str]:
    actions = pl.DataFrame(DeltaTable(root).get_add_actions(flatten=True))
    return sorted(actions["path"])


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return open_store("delta:bars", tmp_path, create=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "bars"


def test_other_readers_see_the_same_rows(store: BarStore, table: Path) -> None:
    store.write(MINUTE, bars("AB"))
    store.write(MINUTE, pl.concat([bars("B", minutes=2, volume=7.0), bars("C", day=1)]))
    store.write(Interval.parse("5m"), bars("A"))
    foreign = pl.scan_delta(str(table)).filter(pl.col("interval") == "1m").collect()
    assert (foreign["start"].dt.date() == foreign["date"]).all()
    assert foreign.schema["start"] == pl.Datetime("us", "UTC")
    ordered = foreign.with_columns(pl.col("start").to_physical()).sort("symbol", "start")
    assert ordered.select(list(SCHEMA)).equals(store.read(MINUTE, None, 0, EVER))
    assert pl.read_delta(str(table)).height == 20


def test_statistics_in_the_log_are_true(store: BarStore, table: Path) -> None:
    store.write(MINUTE, bars(["AA", "B", "ZZ"]))
    [action] = pl.DataFrame(DeltaTable(table).get_add_actions(flatten=True)).to_dicts()
    assert (action["num_records"], action["min.symbol"], action["max.symbol"]) == (15, "AA", "ZZ")
    assert action["min.start"].isoformat() == "1970-01-01T00:00:00+00:00"
    assert action["max.start"].isoformat() == "1970-01-01T00:04:00+00:00"
    assert action["size_bytes"] == (table / action["path"]).stat().st_size


def test_paths_name_interval_and_date_and_never_a_symbol(store: BarStore, table: Path) -> None:
    wild = ["*", "../../x", "/etc/passwd", "A/B", "BRK[/B]", "x'; DROP TABLE bars;--"]
    store.write(MINUTE, bars(sorted(wild)))
    assert store.read(MINUTE, ["*"], 0, EVER)["symbol"].unique().to_list() == ["*"]
    assert sorted(store.spans(MINUTE)["symbol"]) == sorted(wild)
    [file] = (path.relative_to(table) for path in table.rglob("*.parquet"))
    assert file.parts[:2] == ("interval=1m", "date=1970-01-01")
    assert len(file.stem) == 32
    assert set(file.stem) <= set("0123456789abcdef")


def test_versions_are_the_documented_checksum(store: BarStore) -> None:
    rows = pl.DataFrame(
        [("A", 60, 1.5, 2.0, -0.0, 1.75, 300.0), ("A", 120, 1.5, 2.0, 1.25, 1.75, 0.0)],
        schema=SCHEMA,
        orient="row",
    )
    store.write(MINUTE, rows)
    columns = [(1.5, 1.5), (2.0, 2.0), (0.0, 1.25), (1.75, 1.75), (300.0, 0.0)]
    packed = struct.pack("<2q", 60, 120) + b"".join(struct.pack("<2d", *pair) for pair in columns)
    assert store.versions(MINUTE, *DAYS).rows() == [
        (date(1970, 1, 1), "A", 2, xxhash.xxh3_128_hexdigest(packed))
    ]


def test_versions_do_not_depend_on_how_the_bars_came(tmp_path: Path) -> None:
    at_once = open_store("delta:one", tmp_path, create=True)
    piecemeal = open_store("delta:two", tmp_path, create=True)
    everything = bars("ABCD", minutes=6)
    at_once.write(MINUTE, everything)
    for offset in (3, 1, 5, 0, 2, 4):
        piecemeal.write(MINUTE, everything.gather_every(6, offset))
    assert at_once.versions(MINUTE, *DAYS).equals(piecemeal.versions(MINUTE, *DAYS))


def test_one_write_is_one_commit_and_an_idempotent_one_is_none(
    store: BarStore, table: Path
) -> None:
    everything = pl.concat([bars("A", 0), bars("A", 1), bars("B", 0), bars("B", 3)])
    store.write(MINUTE, everything)
    assert DeltaTable(table).version() == 1
    assert store.write(MINUTE, everything).duplicates == 20
    assert store.write(MINUTE, bars("")).counts.is_empty()
    assert DeltaTable(table).version() == 1


def test_only_what_changed_is_rewritten(store: BarStore, table: Path) -> None:
    store.write(MINUTE, pl.concat([bars("A", 0), bars("A", 1)]))
    before = live_files(table)
    store.write(MINUTE, pl.concat([bars("A", 0), bars("A", 1, minutes=6)]))
    after = live_files(table)
    assert [path for path in after if path in before] == [before[0]]
    assert [path.split("/")[1] for path in after] == ["date=1970-01-01", "date=1970-01-02"]


def test_many_small_writes_leave_few_files(store: BarStore, table: Path) -> None:
    """32 symbols one by one, as an import of one file a symbol does it."""
    most = 0
    for number in range(32):
        store.write(MINUTE, bars([f"S{number:02}"], minutes=3))
        most = max(most, len(live_files(table)))
    assert most <= 6  # log2(32) + 1
    logs = [path.read_text() for path in table.glob("_delta_log/*.json")]
    actions = [json.loads(line) for log in logs for line in log.splitlines()]
    rows = [json.loads(each["add"]["stats"])["numRecords"] for each in actions if "add" in each]
    assert sum(rows) <= 32 * 3 * 6
    assert store.spans(MINUTE)["rows"].to_list() == [3] * 32


def test_much_of_a_date_is_cut_into_several_files(
    store: BarStore, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_files, "_FILE_ROWS", 12)
    store.write(MINUTE, bars("ABCDEFG", minutes=5))
    files = live_files(table)
    assert len(files) == 3
    assert store.read(MINUTE, None, 0, EVER).equals(bars("ABCDEFG"))
    store.write(MINUTE, bars("D", minutes=5, volume=1.0))
    assert len(set(files) & set(live_files(table))) < 3
    expected = bars("ABCDEFG").with_columns(
        volume=pl.when(pl.col("symbol") == "D").then(1.0).otherwise("volume")
    )
    assert store.read(MINUTE, None, 0, EVER).equals(expected)
    assert (
        store.read(MINUTE, ["A", "D", "G"], 0, EVER)["symbol"].unique_counts().to_list() == [5] * 3
    )


def test_a_few_symbols_are_read_without_the_rest_of_the_file(store: BarStore, table: Path) -> None:
    """The middle of the file is damaged: symbols at both ends can be read, together even."""
    symbols = [f"S{number:03}" for number in range(100)]
    noise = Random(1)  # noqa: S311 - a reproducible stream, no secret
    close = pl.Series("close", [noise.random() for _ in range(50_000)])
    everything = bars(symbols, minutes=500).with_columns(close)
    store.write(MINUTE, everything)
    [file] = table.rglob("*.parquet")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    file.write_bytes(content)
    ends = pl.concat([everything[:500], everything[-500:]])
    assert store.read(MINUTE, ["S000", "S099"], 0, EVER).equals(ends)
    with pytest.raises(StoreCorruptError, match="1970-01-01"):
        store.read(MINUTE, None, 0, EVER)


def test_a_far_apart_pair_of_symbols_is_read_right(store: BarStore) -> None:
    symbols = [f"S{number:03}" for number in range(100)]
    everything = bars(symbols, minutes=500).with_columns(
        close=pl.int_range(50_000).cast(pl.Float64)
    )
    store.write(MINUTE, everything)
    asked = ["S099", "S000", "S001", "S003", "S060"]
    expected = everything.filter(pl.col("symbol").is_in(asked))
    assert store.read(MINUTE, asked, 0, EVER).equals(expected)


def test_a_mismatch_names_date_and_symbol(store: BarStore, table: Path) -> None:
    """A file that is whole, but not the one that was written."""
    store.write(MINUTE, bars("A", 0))
    store.write(MINUTE, bars("AB", 1))
    [file] = table.glob("interval=1m/date=1970-01-02/*")
    manifest = pl.read_parquet_metadata(file)
    changed = pl.read_parquet(file).with_columns(
        close=pl.when(pl.col("symbol") == "B").then(1e6).otherwise("close")
    )
    changed.write_parquet(file, metadata={k: v for k, v in manifest.items() if "coord" in k})
    assert store.read(MINUTE, ["A"], 0, EVER).height == 10
    with pytest.raises(StoreCorruptError, match="bars of B on 1970-01-02") as caught:
        store.read(MINUTE, None, 0, EVER)
    assert caught.value.hint is not None
    assert "backup" in caught.value.hint


def test_a_file_of_another_date_is_noticed(store: BarStore, table: Path) -> None:
    store.write(MINUTE, pl.concat([bars("A", 0), bars("A", 1)]))
    first, second = sorted(table.rglob("*.parquet"))
    shutil.copy(first, second)
    reopened = open_store("delta:bars", table.parent)
    with pytest.raises(StoreCorruptError, match="of 1970-01-01, not of 1m bars of 1970-01-02"):
        reopened.versions(MINUTE, *DAYS)


@pytest.mark.parametrize("create", [True, False])
def test_a_lost_log_is_not_an_empty_store(store: BarStore, table: Path, create: bool) -> None:
    store.write(MINUTE, bars("A"))
    shutil.rmtree(table / "_delta_log")
    with pytest.raises(StoreCorruptError, match="lost its log"):
        open_store("delta:bars", table.parent, create=create)


def test_a_log_without_its_newest_commit_is_noticed(store: BarStore, table: Path) -> None:
    store.write(MINUTE, bars("A"))
    store.write(MINUTE, bars("B"))
    (table / "_delta_log" / f"{2:020}.json").unlink()
    with pytest.raises(StoreCorruptError, match=r"ends at version 1.*reached version 2"):
        open_store("delta:bars", table.parent)


def test_a_table_that_another_program_changed_is_refused(store: BarStore, table: Path) -> None:
    store.write(MINUTE, bars("A"))
    DeltaTable(table).delete("symbol = 'A'")
    with pytest.raises(StoreError, match=r"version 2\) was not made by stream-coord"):
        store.read(MINUTE, None, 0, EVER)
    with pytest.raises(StoreError, match="was not made by stream-coord"):
        open_store("delta:bars", table.parent)


def test_a_table_of_somebody_else_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "theirs", pl.DataFrame({"a": [1]}))
    with pytest.raises(StreamCoordError, match="theirs"):
        open_store("delta:theirs", tmp_path, create=True)


def test_a_missing_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no bar store") as caught:
        open_store("delta:nowhere", tmp_path)
    assert "sc import" in str(caught.value)
    assert "sc import" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_creating_twice_keeps_the_bars(tmp_path: Path) -> None:
    open_store("delta:bars", tmp_path, create=True).write(MINUTE, bars("A"))
    assert open_store("delta:bars", tmp_path, create=True).days(MINUTE) == [date(1970, 1, 1)]


def test_a_relative_path_is_relative_to_the_root(tmp_path: Path) -> None:
    store = open_store("delta:data/b c#[x]?*é", tmp_path, create=True)
    assert store.url == f"delta:{tmp_path}/data/b c#[x]?*é"
    store.write(MINUTE, bars("A"))
    assert open_store(store.url, Path("/")).read(MINUTE, None, 0, EVER).equals(bars("A"))


@pytest.mark.parametrize("name", ["100%41", "a\\b", "a\nb", "a\0b"])
def test_a_path_that_delta_lake_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot hold a bar store"):
        open_store(f"delta:{name}", tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("x")
    with pytest.raises(StoreError, match="not a directory"):
        open_store("delta:bars", tmp_path, create=True)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("data/bars", "not the address of a store"),
        ("", "not the address of a store"),
        ("delta:", "names no directory"),
        ("dleta:data/bars", r"did you mean 'delta'\?"),
        ("duckdb://me:hunter2@host/bars.db", "no store is of the kind 'duckdb:'"),
        ("postgresql://me:hunter2@host", "does not name a database"),
        ("delta:s3://key:hunter2@bucket/bars", "no credentials"),
        ("delta:az://bucket/bars?sig=hunter2", "no credentials"),
    ],
)
def test_a_wrong_address_is_explained_without_its_secrets(
    tmp_path: Path, url: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_store(url, tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "file_rows"),
    [(pl.concat([bars("B", 0), bars("B", 1)]), 100), (bars("BC", 0), 5)],
    ids=["two dates", "two files of a date"],
)
def test_nothing_is_left_when_a_write_fails_half_way(
    store: BarStore,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: pl.DataFrame,
    file_rows: int,
) -> None:
    store.write(MINUTE, bars("A", minutes=100))
    before = sorted(table.rglob("*"))
    real = os.fsync
    calls: list[int] = []

    def fail_at_the_second_file(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:  # the first file and its directory come before, or another date's
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(bar_files, "_FILE_ROWS", file_rows)
    monkeypatch.setattr(bar_files, "SMALL_FILE_ROWS", file_rows)
    monkeypatch.setattr("os.fsync", fail_at_the_second_file)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write(MINUTE, more)
    monkeypatch.setattr("os.fsync", real)
    assert len(calls) >= 3
    assert [path for path in sorted(table.rglob("*")) if path.is_file() or path in before] == before
    assert store.read(MINUTE, None, 0, EVER).equals(bars("A", minutes=100))
    assert store.write(MINUTE, more).stored == 10
