"""A table of somebody else's as a source: names, times, coverage, and that nothing is written."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, SourceError, UsageError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources.cells import TimeColumn
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.query import MOST_WINDOWS
from stream_coord.sources.table import TableSource

ONE = Interval(MINUTE)
NEW_YORK = ZoneInfo("America/New_York")
ODD = 'bars "of" x;y%z'
COLUMNS = {
    "symbol": "Ticker Name",
    "time": 'the "time"',
    "open": "Open Px",
    "high": "select",
    "low": "low%",
    "close": "ÄNDE",
    "volume": "vol:ume",
}
START = 1_542_983_400_000_000  # 2018-11-23 14:30 UTC
PRICES = (10.25, 11.5, 9.75, 10.5, 300.0)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def source(url: str, **options: Any) -> TableSource:
    options = {"table": ODD, "label": "open", "columns": COLUMNS} | options
    return TableSource(SourceSettings(name="t", kind="table", url=url, options=options), Path("/"))


def minute(symbol: str, start: int = START) -> BarRange:
    return BarRange(symbol, start, start + MINUTE)


def fill(path: Path, rows: list[tuple[Any, ...]], time_type: str = "") -> str:
    names = ", ".join(map(quoted, COLUMNS.values()))
    columns = names.replace(quoted(COLUMNS["time"]), f"{quoted(COLUMNS['time'])} {time_type}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {quoted(ODD)} (id INTEGER PRIMARY KEY, {columns})")
        sql = f"INSERT INTO {quoted(ODD)} ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        connection.executemany(sql, rows)
        connection.commit()
    return f"sqlite:///{path}"


def ask(asked: TableSource, *ranges: BarRange) -> tuple[list[BarRange], list[tuple[Any, ...]]]:
    covered = list(asked.coverage(ONE, ranges))
    bars = asked.bars(ONE, covered)
    return covered, bars.rows()


@pytest.mark.parametrize(
    ("time", "later", "options"),
    [
        (START // 1_000_000, 60, {"time_format": "epoch-s"}),
        (START / 1e6, 60.0, {"time_format": "epoch-s"}),
        (START // 1_000, 60_000, {"time_format": "epoch-ms"}),
        (START * 1_000, 60 * 10**9, {"time_format": "epoch-ns"}),
        (str(START // 1_000_000), None, {"time_format": "epoch-s"}),
        ("2018-11-23 14:30:00", None, {"tz": "UTC"}),
        ("2018-11-23T14:30:00Z", None, {}),
        ("2018-11-23 09:30", None, {"tz": "America/New_York"}),
        ("2018-11-23T09:30:00-05:00", None, {}),
        ("2018-11-24T01:30:00+11:00", None, {}),
        ("23.11.2018 09:30", None, {"tz": "America/New_York", "time_format": "%d.%m.%Y %H:%M"}),
        ("20181123 093000", None, {"tz": "America/New_York", "time_format": "%Y%m%d %H%M%S"}),
    ],
)
def test_times_of_a_sqlite_table_are_read_in_every_form(
    tmp_path: Path, time: Any, later: Any, options: dict[str, Any]
) -> None:
    rows = [("IBM", time, *PRICES), ("AIG", time, *PRICES), ("IBM", None, *PRICES)]
    if later is not None:
        rows.append(("IBM", time + later, 1, 2, 1, 2, 0))
    url = fill(tmp_path / "their.db", rows)
    asked = source(url, **options)
    assert ask(asked, minute("IBM")) == ([minute("IBM")], [("IBM", START, *PRICES)])
    closes = source(url, label="close", **options)
    before = START - MINUTE
    assert ask(closes, minute("IBM", before))[1] == [("IBM", before, *PRICES)]
    assert ask(closes, minute("X", before)) == ([], [])
    asked.close()
    closes.close()


@pytest.mark.parametrize(
    ("time_type", "time", "options"),
    [
        ("timestamptz", "2018-11-23 09:30-05", {}),
        ("timestamp", "2018-11-23 09:30", {"tz": "America/New_York"}),
        ("timestamp(0)", "2018-11-23 14:30", {"tz": "UTC"}),
        ("bigint", START // 1_000, {"time_format": "epoch-ms"}),
        ("integer", START // 1_000_000, {"time_format": "epoch-s"}),
        ("numeric", f"{START // 1_000_000}.000", {"time_format": "epoch-s"}),
        ("double precision", START / 1e6, {"time_format": "epoch-s"}),
        ("text", "2018-11-23T09:30:00-05:00", {}),
        ("varchar(30)", "2018-11-23 09:30", {"tz": "America/New_York"}),
        ("text", "23/11/2018 09:30", {"tz": "America/New_York", "time_format": "%d/%m/%Y %H:%M"}),
    ],
)
def test_times_of_a_postgres_table_are_read_in_every_form(
    postgres_server: Any, postgres_url: str, time_type: str, time: Any, options: dict[str, Any]
) -> None:
    database = postgres_url.rpartition("/")[2]
    types = dict.fromkeys(COLUMNS, "numeric(12, 4)") | {"symbol": "char(8)", "time": time_type}
    columns = ", ".join(f"{quoted(COLUMNS[field])} {kind}" for field, kind in types.items())
    table = f'"Odd Schema".{quoted(ODD)}'
    postgres_server.execute(
        'CREATE SCHEMA "Odd Schema"',
        f"CREATE TABLE {table} ({columns})",
        f"INSERT INTO {table} VALUES ('IBM', '{time}', 10.25, 11.5, 9.75, 10.5, 300), "  # noqa: S608
        f"('AIG', '{time}', 1, 1, 1, 1, 1), ('IBM', NULL, 1, 1, 1, 1, 1)",
        database=database,
    )
    for label, at in (("open", START), ("close", START - MINUTE)):
        asked = source(postgres_url, schema="Odd Schema", label=label, **options)
        assert ask(asked, minute("IBM", at)) == ([minute("IBM", at)], [("IBM", at, *PRICES)])
        asked.close()


def test_nothing_is_written_to_postgres_even_by_a_view_that_would(
    postgres_server: Any, postgres_url: str
) -> None:
    """The owner may write, and what is called `bars` logs whoever reads it."""
    database = postgres_url.rpartition("/")[2]
    postgres_server.execute(
        "CREATE TABLE log (note text)",
        "CREATE FUNCTION spy() RETURNS float8 LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO log VALUES ('read'); RETURN 1; END $$",
        "CREATE VIEW bars AS SELECT 'IBM'::text AS symbol, now() AS time, spy() AS open, "
        "1.0 AS high, 1.0 AS low, 1.0 AS close, 1.0 AS volume",
        database=database,
    )
    asked = source(postgres_url, table="bars", columns={})
    with pytest.raises(SourceError, match="read-only") as failed:
        asked.coverage(ONE, [minute("IBM")])
    asked.close()
    assert "p%ss" not in str(failed.value)
    assert "pg's" not in str(failed.value)
    assert postgres_server.execute("SELECT * FROM log", database=database) == []


def test_a_user_who_may_only_select_is_enough(postgres_server: Any, postgres_url: str) -> None:
    database = postgres_url.rpartition("/")[2]
    postgres_server.execute(
        "CREATE TABLE prices (symbol text, time timestamptz, open real, high real, low real, "
        "close real, volume integer)",
        "INSERT INTO prices VALUES ('IBM', '2018-11-23 14:30Z', 10.25, 11.5, 9.75, 10.5, 300)",
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN PASSWORD 'read only'",
        "GRANT SELECT ON prices TO reader",
        database=database,
    )
    asked = source(postgres_server.url(database, "reader", "read only"), table="prices", columns={})
    assert ask(asked, minute("IBM")) == ([minute("IBM")], [("IBM", START, *PRICES)])
    asked.close()
    postgres_server.execute("DROP OWNED BY reader", "DROP ROLE reader", database=database)


def test_a_sqlite_file_stays_as_it_is_byte_for_byte(tmp_path: Path) -> None:
    url = fill(tmp_path / "their.db", [("IBM", START // 1_000_000, *PRICES)])
    before = (tmp_path / "their.db").read_bytes()
    (tmp_path / "their.db").chmod(0o400)
    asked = source(url, time_format="epoch-s")
    assert len(ask(asked, minute("IBM"))[1]) == 1
    database = asked._database
    assert database is not None
    with (
        pytest.raises(SourceError, match="read-only"),
        database.reading() as connection,
    ):
        connection.exec_driver_sql(f"DELETE FROM {quoted(ODD)}")  # noqa: S608
    asked.close()
    assert (tmp_path / "their.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["their.db"]


def test_a_date_with_rows_is_covered_whole_and_a_symbols_last_up_to_its_last_row(
    tmp_path: Path,
) -> None:
    day = START // DAY * DAY
    times = {"IBM": [START, START + 3 * DAY], "AIG": [START, START + 3 * DAY + 5 * MINUTE]}
    rows = [(s, at // 1_000_000, *PRICES) for s, own in times.items() for at in own]
    asked = source(fill(tmp_path / "t.db", rows), time_format="epoch-s")
    whole = BarRange("IBM", day - DAY, day + 5 * DAY)
    covered, bars = ask(asked, BarRange("GE", day, day + DAY), whole)
    assert covered == [
        BarRange("IBM", day, day + DAY),
        BarRange("IBM", day + 3 * DAY, START + 3 * DAY + MINUTE),
    ]
    assert [row[:2] for row in bars] == [("IBM", START), ("IBM", START + 3 * DAY)]
    # Asked again once more rows are there: what was the newest date is whole now.
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        row = ("IBM", (START + 4 * DAY) // 1_000_000, *PRICES)
        marks = ", ".join(map(quoted, COLUMNS.values()))
        connection.execute(
            f"INSERT INTO {quoted(ODD)} ({marks}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            row,
        )
        connection.commit()
    assert ask(asked, whole)[0][1:] == [
        BarRange("IBM", day + 3 * DAY, START + 4 * DAY + MINUTE),
    ]
    asked.close()


def test_local_times_around_a_clock_change_are_neither_lost_nor_misplaced(tmp_path: Path) -> None:
    """The hour that New York's clocks show twice is nobody's; the hours around it are there."""
    first = datetime(2018, 11, 4, 4, tzinfo=UTC)
    moments = [first + timedelta(minutes=30 * n) for n in range(12)]
    local = [at.astimezone(NEW_YORK).strftime("%Y-%m-%d %H:%M:%S") for at in moments]
    rows = [("IBM", text, *PRICES) for text in local]
    asked = source(fill(tmp_path / "t.db", rows), tz="America/New_York")
    begin = round(first.timestamp()) * 1_000_000
    _, bars = ask(asked, BarRange("IBM", begin, begin + 6 * 60 * MINUTE))
    kept = [at for at in moments if at.astimezone(NEW_YORK).hour != 1]
    assert [row[1] for row in bars] == [round(at.timestamp()) * 1_000_000 for at in kept]
    asked.close()


ZONES = ("America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "UTC")


@given(
    st.integers(0, 80 * 365 * DAY),
    st.integers(1, 3 * DAY),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(ZONES),
)
def test_bounds_of_a_range_lose_no_time_of_it_in_any_form(
    start: int, length: int, part: float, zone: str
) -> None:
    at = start + int(part * length) // 10**6 * 10**6
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
    if at < start:
        return
    local = moment.astimezone(ZoneInfo(zone))
    forms: list[tuple[Any, str]] = [
        (at // 10**6, "epoch-s"),
        (Decimal(at) / 10**6, "epoch-s"),
        (at // 10**3, "epoch-ms"),
        (at * 10**3, "epoch-ns"),
        (moment, "iso"),
        (local.replace(tzinfo=None), "iso"),
        (local.isoformat(), "iso"),
        (local.strftime("%Y%m%d %H:%M:%S"), "%Y%m%d %H:%M:%S"),
    ]
    for value, time_format in forms:
        bounds = TimeColumn.of(value, time_format, zone).bounds(start, start + length)
        assert bounds is not None
        low, high = bounds
        assert low <= value < high, (value, bounds)
    assert TimeColumn.of("", "%d.%m.%Y %H:%M", zone).bounds(start, start + length) is None


def test_values_that_are_no_numbers_come_as_nan_and_texts_of_numbers_as_numbers(
    tmp_path: Path,
) -> None:
    rows: list[tuple[Any, ...]] = [
        ("IBM", START // 1_000_000, "10.25", 11.5, None, "n/a", b"x"),
        (b"\xff", START // 1_000_000, *PRICES),
        (None, START // 1_000_000, *PRICES),
    ]
    asked = source(fill(tmp_path / "t.db", rows), time_format="epoch-s")
    _, ((symbol, start, *values),) = ask(asked, minute("IBM"))
    assert (symbol, start, values[:2]) == ("IBM", START, [10.25, 11.5])
    assert all(map(math.isnan, values[2:]))
    asked.close()


def test_one_symbol_may_be_stated_and_columns_shared(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute("CREATE TABLE ticks (at INTEGER, price REAL, size REAL)")
        connection.execute("INSERT INTO ticks VALUES (?, 7.5, 3)", (START // 1_000_000,))
        connection.commit()
    prices = dict.fromkeys(("open", "high", "low", "close"), "price")
    asked = source(
        f"sqlite:///{tmp_path}/t.db",
        table="ticks",
        symbol="BTC-USD",
        columns={"time": "at", "volume": "size", **prices},
        time_format="epoch-s",
    )
    covered, bars = ask(asked, minute("AIG"), minute("BTC-USD"))
    assert covered == [minute("BTC-USD")]
    assert bars == [("BTC-USD", START, 7.5, 7.5, 7.5, 7.5, 3.0)]
    assert ask(asked, minute("AIG")) == ([], [])
    asked.close()


def test_coverage_and_bars_are_one_query_that_reads_few_rows_at_a_time(tmp_path: Path) -> None:
    days = 3 * MOST_WINDOWS  # far apart: more than there are spans in one query
    starts = [START + 7 * DAY * n for n in range(days)]
    symbols = [f"S{n}" for n in range(7)]
    rows = [(s, at // 1_000_000, *PRICES) for at in starts for s in symbols]
    asked = source(fill(tmp_path / "t.db", rows), time_format="epoch-s")
    ranges = sorted(minute(s, at) for s in symbols for at in starts)
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream_coord.sources.query.PIECE_ROWS", 100)
        ask(asked, ranges[0])
        assert asked._database is not None
        sa.event.listen(
            asked._database._engine, "before_cursor_execute", lambda *call: seen.append(call[2])
        )
        covered, bars = ask(asked, *ranges)
    reads = [sql for sql in seen if " IN (" in sql]
    assert len(reads) == 3  # the last bars, rows without a time, and the rows
    assert [sql.count(" >= ") for sql in reads] == [2, 2, MOST_WINDOWS + 1]
    assert len(seen) == 5  # BEGIN, and a row that shows what times are
    assert len(covered) == len(bars) == len(ranges)
    asked.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": COLUMNS | {"close": "cl"}}, "no such column"),
        ({"table": "nothing"}, "no such table"),
        ({"time_format": "iso"}, "its times are numbers, and their unit is not stated"),
    ],
)
def test_what_does_not_fit_the_table_is_told(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    url = fill(tmp_path / "t.db", [("IBM", START // 1_000_000, *PRICES)])
    asked = source(url, **{"time_format": "epoch-s"} | options)
    with pytest.raises(SourceError, match=said):
        asked.coverage(ONE, [minute("IBM")])
    asked.close()


def test_no_file_no_table_and_no_server_are_failures_that_hold_no_password(tmp_path: Path) -> None:
    asked = source(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(SourceError, match="cannot be opened"):
        asked.coverage(ONE, [minute("IBM")])
    assert not (tmp_path / "none.db").exists()
    far = source("postgresql+psycopg://me:hushhush@127.0.0.1:1/db")
    with pytest.raises(SourceError, match="no server listens there") as failed:
        far.bars(ONE, [minute("IBM")])
    assert "hushhush" not in str(failed.value)


def test_times_without_a_zone_need_one(tmp_path: Path, postgres_url: str) -> None:
    url = fill(tmp_path / "t.db", [("IBM", "2018-11-23 14:30", *PRICES)])
    asked = source(url)
    with pytest.raises(UsageError, match="no time zone is stated"):
        asked.coverage(ONE, [minute("IBM")])
    asked.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "middle"}, "options.label = 'middle': must be 'close' or 'open'"),
        ({"tz": "Mars"}, "'Mars' is not a time zone"),
        ({"colums": {}}, "unknown key options.colums .did you mean 'columns'"),
        ({"columns": {"price": "x"}}, "'price' is no field of a bar"),
        ({"columns": {"date": "x"}}, "a date column of its own"),
        ({"columns": 3}, "options.columns = 3: must be a table"),
        ({"symbol": "?"}, "'.' is not a symbol"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_opened(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        source("sqlite:///nowhere.db", **options)


def test_table_and_label_must_be_stated() -> None:
    for key in ("label", "table"):
        options = {"label": "open", "table": "t"}
        del options[key]
        settings = SourceSettings(name="t", kind="table", url="sqlite:///x", options=dict(options))
        with pytest.raises(ConfigError, match=f"options.{key}: is missing"):
            TableSource(settings, Path("/"))


BAD_TIMES = ("23.11.2018 14:36", "2018-11-23 14:3x", "2018-11-2O 14:36", None, 7, b"x", "")


@pytest.mark.parametrize("bad", BAD_TIMES)
@pytest.mark.parametrize("symbol", ["IBM", None])
def test_where_a_time_cannot_be_read_only_minutes_with_bars_are_covered(
    tmp_path: Path, bad: Any, symbol: str | None
) -> None:
    texts = ["2018-11-23 14:30", "2018-11-23 14:33", "2018-11-26 14:30"]
    rows: list[tuple[Any, ...]] = [(s, at, *PRICES) for s in ("AIG", "IBM") for at in texts]
    asked = source(fill(tmp_path / "t.db", [*rows, (symbol, bad, *PRICES)]), tz="UTC")
    hour = [BarRange(s, START, START + 10 * MINUTE) for s in ("AIG", "IBM")]
    known = [minute("IBM"), minute("IBM", START + 3 * MINUTE)]
    of_aig = [hour[0]] if symbol else [minute("AIG"), minute("AIG", START + 3 * MINUTE)]
    assert ask(asked, *hour)[0] == [*of_aig, *known]
    with pytest.raises(SourceError, match=r"the table .* has rows whose time cannot be read"):
        asked.coverage(ONE, [minute("IBM", START + MINUTE)])
    asked.close()


def test_a_time_that_is_no_number_among_numbers_is_not_lost(tmp_path: Path) -> None:
    at = START // 1_000_000
    for n, bad in enumerate(("2018", at * 1_000, -5, None)):
        rows = [("IBM", at, *PRICES), ("IBM", at + 86_400, *PRICES), ("IBM", bad, *PRICES)]
        asked = source(fill(tmp_path / f"{n}.db", rows), time_format="epoch-s")
        whole = BarRange("IBM", START, START + 9 * MINUTE)
        assert ask(asked, whole)[0] == [minute("IBM")]
        asked.close()


def test_a_row_without_a_symbol_takes_its_minute_from_all(tmp_path: Path) -> None:
    at = START // 1_000_000
    for n, bad in enumerate((None, b"\xff")):
        rows: list[tuple[Any, ...]] = [("IBM", at, *PRICES), ("IBM", at + 86_400, *PRICES)]
        asked = source(
            fill(tmp_path / f"{n}.db", [*rows, (bad, at + 120, *PRICES)]), time_format="epoch-s"
        )
        covered, _ = ask(asked, BarRange("IBM", START, START + 9 * MINUTE))
        assert covered == [
            BarRange("IBM", START, START + 2 * MINUTE),
            BarRange("IBM", START + 3 * MINUTE, START + 9 * MINUTE),
        ]
        asked.close()


def test_a_last_row_that_starts_within_a_minute_covers_no_more_than_that_minute(
    tmp_path: Path,
) -> None:
    rows: list[tuple[Any, ...]] = [("IBM", START // 1_000_000 + 30, *PRICES)]
    asked = source(fill(tmp_path / "t.db", rows), time_format="epoch-s")
    hour = BarRange("IBM", START, START + 60 * MINUTE)
    assert ask(asked, hour)[0] == [minute("IBM")]
    asked.close()
    doubtful = source(
        fill(tmp_path / "d.db", [*rows, ("IBM", None, *PRICES)]), time_format="epoch-s"
    )
    assert ask(doubtful, hour)[0] == [minute("IBM")]
    doubtful.close()


def test_bars_of_a_coarser_interval_are_refused(tmp_path: Path) -> None:
    starts = [START // 1_000_000 + 300 * n for n in range(10)]
    rows = [("IBM", at, *PRICES) for at in starts]
    asked = source(fill(tmp_path / "t.db", rows), time_format="epoch-s")
    with pytest.raises(SourceError, match="seems to hold bars of 5m, not of 1m"):
        asked.coverage(ONE, [minute("IBM")])
    assert len(asked.coverage(Interval(5 * MINUTE), [minute("IBM")])) == 1
    asked.close()


@pytest.mark.parametrize("time_type", ["timestamptz", "timestamp"])
def test_infinity_and_times_out_of_this_world_stop_nothing(
    postgres_server: Any, postgres_url: str, time_type: str
) -> None:
    postgres_server.execute(
        f"CREATE TABLE t (symbol text, time {time_type}, open real, high real, low real, "
        "close real, volume real)",
        *(
            f"INSERT INTO t VALUES ('IBM', '{time}', 1, 1, 1, 1, 1)"  # noqa: S608
            for time in ("infinity", "-infinity", "9999-12-31", "2018-11-22 10:00 BC")
        ),
        "INSERT INTO t VALUES ('IBM', '2018-11-23 14:30', 1, 1, 1, 1, 1), "
        "('IBM', '2018-11-23 14:35', 1, 1, 1, 1, 1)",
        "ALTER DATABASE " + postgres_url.rpartition("/")[2] + " SET timezone TO 'UTC'",
        database=postgres_url.rpartition("/")[2],
    )
    asked = source(postgres_url, table="t", columns={}, tz="UTC")
    covered, bars = ask(asked, BarRange("IBM", START, START + DAY))
    assert covered == [BarRange("IBM", START, START + 6 * MINUTE)]
    assert len(bars) == 2
    asked.close()


def test_an_empty_table_covers_nothing(tmp_path: Path) -> None:
    asked = source(fill(tmp_path / "t.db", []))
    assert ask(asked, minute("IBM")) == ([], [])
    assert asked.bars(ONE, [minute("IBM")]).schema == pl.Schema(
        {"symbol": pl.String, "start": pl.Int64}
        | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
    )
    asked.close()
