"""Bars in SQLite and PostgreSQL: tables that other programs can read, versions, refusals."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream_coord.errors import ConfigError, StoreError
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import open_ledger
from stream_coord.stores.sql import schema
from stream_coord.stores.sql.database import BarTransaction
from stream_coord.stores.sql.tables import READ_BARS, SCHEMA_VERSION

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
COLUMNS = ["symbol", "start", "open", "high", "low", "close", "volume"]

Rows = Callable[[str], list[tuple[Any, ...]]]


def frame(*keys: tuple[str, int], close: float = 2.5) -> pl.DataFrame:
    rows = [(symbol, start, 2.0, 3.0, 1.0, close, 10.0) for symbol, start in sorted(keys)]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///bars.db"
    address: str = request.getfixturevalue("postgres_url")
    return address


@pytest.fixture
def query(url: str, tmp_path: Path) -> Rows:
    """Return a function that asks the database without our code."""

    def sqlite_rows(sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "bars.db")) as connection, connection:
            return connection.execute(sql).fetchall()

    def postgres_rows(sql: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    return sqlite_rows if url.startswith("sqlite") else postgres_rows


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[BarStore]:
    with closing(open_store(url, tmp_path, create=True)) as store:
        yield store


def test_anybody_can_read_the_bars_with_plain_sql(store: BarStore, query: Rows) -> None:
    store.write(MINUTE, frame(("SPY", DAY), ("SPY", DAY + 60_000_000), ("IBM", 2 * DAY)))
    store.write(Interval.parse("5m"), frame(("SPY", DAY), close=1.25))
    joined = "FROM bars JOIN series ON series.id = bars.series WHERE interval = '1m'"
    assert query(f"SELECT symbol, start, close, volume {joined} ORDER BY symbol, start") == [
        ("IBM", 2 * DAY, 2.5, 10.0),
        ("SPY", DAY, 2.5, 10.0),
        ("SPY", DAY + 60_000_000, 2.5, 10.0),
    ]
    assert query("SELECT interval, day, symbols FROM dates ORDER BY 1, 2") == [
        ("1m", 1, 1), ("1m", 2, 1), ("5m", 1, 1)
    ]  # fmt: skip


def test_a_day_of_all_symbols_and_all_days_of_a_symbol_are_ranges_of_the_key(
    store: BarStore, query: Rows, url: str
) -> None:
    """As the database plans it, for bars of 120 symbols and 20 days."""
    sqlite = url.startswith("sqlite")
    keys = [
        (f"S{symbol}", day * DAY + minute * 60_000_000)
        for symbol in range(120)
        for day in range(20)
        for minute in range(20)
    ]
    store.write(MINUTE, frame(*keys))
    store.compact()
    for ids, days in (([*range(1, 121)], [7]), ([7], [*range(20)])):
        sql = READ_BARS.sql
        for name, values in (("s", ids), ("d", days)):
            array = f"unnest(ARRAY{values}::bigint[]) AS {name} (value)"
            table = f"json_each('{values}') {name}" if sqlite else array
            sql = sql.replace(f"ints(?) {name}", table)
        plan = query(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{sql}")
        said = "\n".join(str(row[-1]) for row in plan)
        if sqlite:
            assert "SEARCH t USING PRIMARY KEY (day=? AND series=?)" in said
        else:
            assert "Seq Scan" not in said
            assert "Index Cond: (" in said


def test_a_store_that_is_not_there_is_not_made_by_looking_for_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no bar store at"):
        open_store(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_tables_are_left_alone(url: str, query: Rows, tmp_path: Path) -> None:
    query("CREATE TABLE bars (ticker TEXT, price TEXT)")
    for create in (False, True):
        with pytest.raises(StoreError, match=r"tables of another program \(bars\)"):
            open_store(url, tmp_path, create=create)
    assert query("SELECT * FROM bars") == []


def test_a_table_of_another_shape_is_named(
    url: str, store: BarStore, query: Rows, tmp_path: Path
) -> None:
    query("ALTER TABLE bars RENAME COLUMN volume TO turnover")
    with pytest.raises(StoreError, match="another shape: bars is without volume"):
        open_store(url, tmp_path)


def test_a_newer_store_is_not_touched(
    url: str, store: BarStore, query: Rows, tmp_path: Path
) -> None:
    query("UPDATE schema_version SET version = 2")
    with pytest.raises(StoreError, match="has schema version 2; this program knows 1"):
        open_store(url, tmp_path)


def test_an_older_store_is_migrated_once(
    url: str, store: BarStore, query: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated: list[BarTransaction] = []
    store.write(MINUTE, frame(("SPY", DAY)))
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: migrated.append})
    for _ in range(2):
        with closing(open_store(url, tmp_path)) as newer:
            assert newer.read(MINUTE, None, 0, 9 * DAY).height == 1
    assert len(migrated) == 1
    assert query("SELECT version FROM schema_version WHERE part = 'bars'") == [(2,)]


def test_a_migration_that_fails_changes_nothing(
    url: str, store: BarStore, query: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(transaction: BarTransaction) -> None:
        transaction.put(SCHEMA_VERSION, pl.DataFrame({"part": ["bars"], "version": [77]}))
        raise StoreError("no")

    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: fail})
    with pytest.raises(StoreError, match="no"):
        open_store(url, tmp_path)
    assert query("SELECT version FROM schema_version WHERE part = 'bars'") == [(1,)]


@pytest.mark.parametrize("ledger_first", [False, True])
def test_store_and_ledger_share_a_database_of_postgresql(
    postgres_url: str, tmp_path: Path, ledger_first: bool
) -> None:
    def use_store() -> None:
        with closing(open_store(postgres_url, tmp_path, create=True)) as store:
            store.write(MINUTE, frame(("SPY", DAY)))
            assert store.spans(MINUTE).rows() == [("SPY", DAY, DAY, 1)]

    def use_ledger() -> None:
        with open_ledger(postgres_url, tmp_path, create=True) as ledger:
            ledger.begin_import(1, "1m", "{}")
            assert len(ledger.imports()) == 1

    for use in (use_ledger, use_store) if ledger_first else (use_store, use_ledger):
        use()


def test_a_sqlite_file_is_not_both_store_and_ledger(tmp_path: Path) -> None:
    open_ledger("sqlite:///both.db", tmp_path, create=True).close()
    before = (tmp_path / "both.db").read_bytes()
    for create in (False, True):
        with pytest.raises(StoreError, match="is no bar store: it is a ledger"):
            open_store("sqlite:///both.db", tmp_path, create=create)
    assert (tmp_path / "both.db").read_bytes() == before


def test_stores_made_at_once_are_one_store(url: str, tmp_path: Path) -> None:
    failed: list[BaseException] = []
    gate = threading.Barrier(4)

    def make(number: int) -> None:
        gate.wait()
        try:
            with closing(open_store(url, tmp_path, create=True)) as store:
                store.write(MINUTE, frame((f"S{number}", DAY)))
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(open_store(url, tmp_path)) as store:
        assert store.spans(MINUTE)["symbol"].to_list() == ["S0", "S1", "S2", "S3"]


def test_a_reader_sees_one_state_and_waits_for_no_writer(store: BarStore, url: str) -> None:
    store.write(MINUTE, frame(("SPY", DAY)))

    def look(_: object) -> None:
        assert store.read(MINUTE, None, 0, 9 * DAY)["close"].to_list() == [2.5]

    store.write(MINUTE, frame(("SPY", DAY), close=2.75), before_commit=look)
    assert store.read(MINUTE, None, 0, 9 * DAY)["close"].to_list() == [2.75]


def test_a_reader_waits_for_a_process_that_has_the_file_to_itself(tmp_path: Path) -> None:
    """As whoever closes it last has it, while the log goes into the file."""
    with closing(open_store("sqlite:///bars.db", tmp_path, create=True)) as store:
        store.write(MINUTE, frame(("SPY", DAY)))
        script = (
            "import sqlite3, sys\n"
            "held = sqlite3.connect(sys.argv[1])\n"
            "held.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "held.execute('BEGIN IMMEDIATE')\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "bars.db")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            release = threading.Timer(1.2, holder.stdin.close)  # busy for more than one wait
            release.start()
            assert store.read(MINUTE, None, 0, 9 * DAY)["close"].to_list() == [2.5]
            release.join()


def test_compaction_keeps_bars_and_versions(store: BarStore) -> None:
    keys = [
        (f"S{symbol}", DAY + minute * 60_000_000) for symbol in range(9) for minute in range(99)
    ]
    store.write(MINUTE, frame(*keys))
    store.write(MINUTE, frame(*keys, close=2.25))
    before = store.read_versioned(MINUTE, None, 0, 9 * DAY)
    planned = store.compact(dry_run=True)
    assert planned.bytes_after is None
    done = store.compact()
    assert done.bytes_before == planned.bytes_before
    assert done.bytes_after
    after = store.read_versioned(MINUTE, None, 0, 9 * DAY)
    assert after.bars.equals(before.bars)
    assert after.versions.equals(before.versions)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("bars", "is not the address of a store"),
        ("sqlit:///x.db", "did you mean 'sqlite'"),
        ("duckdb:///secret", "no store is of the kind 'duckdb:'"),
        ("sqlite://", "does not name just a file"),
        ("sqlite:///:memory:", "does not name just a file"),
        ("sqlite:///bars?secret.db", "does not name just a file"),
        ("postgresql+psycopg://user:secret@host", "does not name a database"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secret(
    tmp_path: Path, address: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(address, tmp_path, create=True)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bars.db").write_text("symbol,time\n" * 99)
    for create in (False, True):
        with pytest.raises(StoreError, match="is no SQLite database"):
            open_store("sqlite:///bars.db", tmp_path, create=create)
    assert (tmp_path / "bars.db").read_text() == "symbol,time\n" * 99


def test_a_name_with_a_nul_is_not_cut_short(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds a NUL"):
        open_store("sqlite:///bars%00.db", tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "bars.db").mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        open_store("sqlite:///bars.db", tmp_path, create=True)
