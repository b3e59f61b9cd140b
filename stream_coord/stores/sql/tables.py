"""The tables that hold bars in an SQL database, and every statement on them.

``bars`` is keyed by (day, series, start), so that one day's bars of all symbols are one range of
the key, and many days of one symbol are one range a day. The other tables say what must be there:

- ``series``: a row for each interval and symbol, with its extent;
- ``dates``: a row for each interval and UTC date, with its number of symbols;
- ``bar_days``: a row for each group (symbol and date) with its number of bars and its checksum.

Rows of ``series`` and ``dates`` carry a seal, a checksum of the row, and their totals agree. So a
row of any table that is lost or altered behind the store's back is missed by another table.

A day is a number of days since 1970-01-01 (UTC), a time is UTC microseconds. The statements are
the same for every database: ``?`` is a value, and ``ints(?)`` stands for a table of one column
``value`` that is made of a list of integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stream_coord.bars import FIELDS

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["integer", "real", "text"]

PART = "bars"
"""What the tables are called in ``schema_version``, which other parts of a database share."""

_TYPES: dict[Kind, str] = {"integer": "BIGINT", "real": "DOUBLE PRECISION", "text": "TEXT"}


@dataclass(frozen=True)
class Table:
    """A table: its columns in order, and which of them are its key."""

    name: str
    columns: Mapping[str, Kind]
    key: tuple[str, ...]

    def ddl(self, suffix: str = "") -> str:
        """Return the statement that makes the table; `suffix` is the database's own wish."""
        columns = ", ".join(
            f"{name} {_TYPES[kind]} NOT NULL" for name, kind in self.columns.items()
        )
        return f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY ({', '.join(self.key)})){suffix}"

    def upsert(self, rows: str) -> str:
        """Return the statement that adds `rows`, each in the place of the one with its key."""
        columns = ", ".join(self.columns)
        values = [f"{name} = excluded.{name}" for name in self.columns if name not in self.key]
        return (
            f"INSERT INTO {self.name} ({columns}) {rows} "
            f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {', '.join(values)}"
        )


@dataclass(frozen=True)
class Query:
    """A statement that reads, and the columns that it gives."""

    sql: str
    columns: Mapping[str, Kind]

    def schema(self) -> dict[str, pl.DataType]:
        """Return the polars schema of its rows."""
        import polars as pl

        types = {"integer": pl.Int64(), "real": pl.Float64(), "text": pl.String()}
        return {name: types[kind] for name, kind in self.columns.items()}


VALUES: dict[str, Kind] = dict.fromkeys(FIELDS, "real")

BARS = Table(
    "bars",
    {"day": "integer", "series": "integer", "start": "integer", **VALUES},
    ("day", "series", "start"),
)
BAR_DAYS = Table(
    "bar_days",
    {"day": "integer", "series": "integer", "rows": "integer", "checksum": "text"},
    ("day", "series"),
)
SERIES = Table(
    "series",
    {
        "id": "integer",
        "interval": "text",
        "symbol": "text",
        "days": "integer",
        "rows": "integer",
        "first": "integer",
        "last": "integer",
        "seal": "text",
    },
    ("id",),
)
DATES = Table(
    "dates",
    {"interval": "text", "day": "integer", "symbols": "integer", "seal": "text"},
    ("interval", "day"),
)
TABLES = (SERIES, DATES, BAR_DAYS, BARS)

SCHEMA_VERSION = Table("schema_version", {"part": "text", "version": "integer"}, ("part",))
READ_VERSIONS = Query("SELECT part, version FROM schema_version", SCHEMA_VERSION.columns)

READ_SERIES = Query(
    "SELECT id, interval, symbol, days, rows, first, last, seal FROM series ORDER BY id",
    SERIES.columns,
)
READ_DATES = Query("SELECT interval, day, symbols, seal FROM dates ORDER BY day", DATES.columns)
READ_BAR_DAYS = Query(
    "SELECT t.day, t.series, t.rows, t.checksum "
    "FROM ints(?) s CROSS JOIN ints(?) d CROSS JOIN bar_days t "
    "WHERE t.series = s.value AND t.day = d.value",
    BAR_DAYS.columns,
)
READ_BARS = Query(
    "SELECT t.series, t.start, t.open, t.high, t.low, t.close, t.volume "
    "FROM ints(?) s CROSS JOIN ints(?) d CROSS JOIN bars t "
    "WHERE t.series = s.value AND t.day = d.value",
    {"series": "integer", "start": "integer", **VALUES},
)
