"""A relational table that somebody else designed, as a source; it is only ever read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, FIELDS, Symbol, empty_frame
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError
from stream_coord.interval import DAY, Interval
from stream_coord.sources.base import TableFormat
from stream_coord.sources.cells import TimeColumn, numbers, symbols
from stream_coord.sources.foreign import ForeignDatabase
from stream_coord.sources.options import TableOptions, address_of, read_options
from stream_coord.sources.places import database_place
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import Span, clip, day_extents, days_of, inside, joined

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sa

PIECE_ROWS = 10_000
"""How many rows are read at a time."""
MOST_SYMBOLS = 10_000
"""Of more symbols than this, the bars of all are read: a statement takes so many values only."""
MOST_WINDOWS = 100
"""Spans of days in one query; of more, the closest neighbours become one."""


@dataclass(frozen=True)
class _Answer:
    """What one query came to.

    Attributes:
        interval: The bars' interval.
        asked: What was asked for, by symbol.
        covered: What is covered of it.
        bars: The bars in it.
    """

    interval: Interval
    asked: Mapping[str, Sequence[Span]]
    covered: Sequence[BarRange]
    bars: pl.DataFrame

    def holds(self, interval: Interval, ranges: Sequence[BarRange]) -> bool:
        """Tell whether `ranges` were asked for."""
        return interval == self.interval and clip(ranges, self.asked) == list(ranges)


class TableSource:
    """A `BarSource` that is a table or a view of a SQLite file or of PostgreSQL.

    It covers the UTC dates on which it has any row of a symbol, the newest date up to the newest
    row of any symbol. Coverage and bars are of one query, whose rows are streamed.

    Args:
        settings: Its table; `url` is the database's address, and the options say which table and
            columns, and what its times are.
        root: The folder that a relative path starts from.

    Raises:
        UsageError: a setting is missing, unknown or impossible; as `ConfigError` mostly.
    """

    def __init__(self, settings: SourceSettings, root: Path) -> None:
        self._options = read_options(TableOptions, settings.options)
        self._url = address_of(settings)
        self._root = root
        self._format = _table_format(self._options)
        self._database: ForeignDatabase | None = None
        self._answer: _Answer | None = None
        self._newest: dict[Interval, int] = {}
        database_place(self._url, root)

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts that lie on dates with rows; see `BarSource.coverage`.

        Raises:
            SourceError: the database or the table cannot be read.
            UsageError: its times cannot be read without a zone.
        """
        self._answer = self._ask(interval, ranges)  # `bars` is asked for next
        return self._answer.covered

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the table's bars; see `BarSource.bars`. A value that is no number is NaN.

        Raises:
            SourceError: the database or the table cannot be read.
            UsageError: its times cannot be read without a zone.
        """
        answer, self._answer = self._answer, None
        if answer is None or not answer.holds(interval, ranges):
            answer = self._ask(interval, ranges)
        return inside(answer.bars, ranges).sort(COLUMNS)

    def close(self) -> None:
        """Let go of the database."""
        database, self._database, self._answer = self._database, None, None
        if database is not None:
            database.close()

    def _ask(self, interval: Interval, ranges: Sequence[BarRange]) -> _Answer:
        """Read the bars of whole dates, and keep those of `ranges`."""
        import polars as pl

        if self._database is None:
            self._database = ForeignDatabase(self._url, self._root)
        query = _Query(self._options, self._format, self._database.is_sqlite, interval)
        found, held = [empty_frame()], set[tuple[str, int]]()
        newest: int | None = None
        day = (pl.col("start") // DAY).alias("day")
        with self._database.reading() as connection:
            for rows in self._rows(query, connection, interval, days_of(ranges)):
                newest = max(newest or 0, rows["start"].to_numpy().max().item())
                held |= set(rows.select("symbol", day).unique().iter_rows())
                found.append(inside(rows, ranges))
        extents = day_extents(sorted(held), self._newest.get(interval, newest), interval)
        covered = clip(ranges, extents)
        return _Answer(interval, _by_symbol(ranges), covered, pl.concat(found))

    def _rows(
        self,
        query: _Query,
        connection: sa.Connection,
        interval: Interval,
        days: Mapping[int, set[str]],
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of some days, once it is known which bar of the table is the newest."""
        times = query.time_column(connection)
        if times is None or not days:
            return
        known = self._newest.get(interval)
        if known is None or known // DAY <= max(days):  # else there is a bar after these days
            newest = query.newest(connection, times)
            if newest is not None:
                self._newest[interval] = newest
        yield from query.rows(connection, times, days)


class _Query:
    """The statements that read a table."""

    def __init__(
        self, options: TableOptions, fmt: TableFormat, is_sqlite: bool, interval: Interval
    ) -> None:
        import sqlalchemy as sa

        def exactly(name: str) -> sa.quoted_name:
            # Always in quotes: which words need them changes with every version of a database.
            return sa.quoted_name(name, quote=True)

        names = {field: fmt.columns.get(field, field) for field in fmt.fields}
        columns: list[sa.ColumnClause[object]] = [
            sa.column(exactly(name)) for name in dict.fromkeys(names.values())
        ]
        schema = None if options.schema is None else exactly(options.schema)
        # Always with the table's name: SQLite takes a quoted name alone, if it is unknown, for a
        # text.
        table = sa.table(exactly(options.table), *columns, schema=schema)
        self._columns = {field: table.c[name] for field, name in names.items()}
        self._format = fmt
        self._is_sqlite = is_sqlite
        self._shift = fmt.shift(interval)

    def time_column(self, connection: sa.Connection) -> TimeColumn | None:
        """Return how times are kept, as some row shows; None where there is no row.

        Raises:
            SourceError: they are of no usable type.
        """
        import sqlalchemy as sa

        statement = sa.select(*self._labelled(self._columns))
        some = statement.where(self._columns["time"].is_not(None)).limit(1)
        row = connection.execute(some).first()
        if row is None:
            return None
        return TimeColumn.of(row._mapping["time"], self._format.time_format, self._format.tz)

    def newest(self, connection: sa.Connection, times: TimeColumn) -> int | None:
        """Return the start of the newest bar; None where times do not sort by time."""
        import sqlalchemy as sa

        if times.bounds(0, DAY) is None:
            return None
        latest = sa.select(sa.func.max(self._sorted(times)))
        if times.kind == "utc":
            latest = sa.select(sa.func.timezone("UTC", sa.func.max(self._columns["time"])))
        value = connection.execute(latest).scalar()
        start: int | None = times.times([value])["start"][0]
        return None if start is None else start - self._shift

    def rows(
        self, connection: sa.Connection, times: TimeColumn, days: Mapping[int, set[str]]
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of some UTC days and symbols, or more, in frames of bounded size.

        A row without a symbol or a readable time is left out.
        """
        import sqlalchemy as sa

        columns: dict[str, sa.ColumnElement[object]] = dict(self._columns)
        if times.kind == "utc":
            columns["time"] = sa.func.timezone("UTC", columns["time"])
        wanted = sa.select(*self._labelled(columns)).where(*self._conditions(times, days))
        result = connection.execute(wanted, execution_options={"yield_per": PIECE_ROWS})
        for part in result.partitions():
            frame = self._frame(dict(zip(columns, zip(*part, strict=True), strict=True)), times)
            if len(frame):
                yield frame

    def _frame(self, values: Mapping[str, Sequence[object]], times: TimeColumn) -> pl.DataFrame:
        import polars as pl

        placed = times.times(values["time"])
        frame = pl.DataFrame(
            {
                "start": placed["start"] - self._shift,
                **{field: numbers(values[field]) for field in FIELDS},
            }
        )
        symbol = (
            symbols(values["symbol"]).alias("symbol")
            if self._format.symbol is None
            else pl.lit(str(self._format.symbol)).alias("symbol")
        )
        named = frame.with_columns(symbol).select(COLUMNS)
        return named.drop_nulls(["symbol", "start"])

    def _conditions(
        self, times: TimeColumn, days: Mapping[int, set[str]]
    ) -> Iterator[sa.ColumnElement[bool]]:
        import sqlalchemy as sa

        names = sorted(set[str]().union(*days.values()))
        if self._format.symbol is None and len(names) <= MOST_SYMBOLS:
            yield self._columns["symbol"].in_(names)
        elif self._format.symbol is not None and self._format.symbol not in names:
            yield sa.false()
        spans = _few(joined((day * DAY, (day + 1) * DAY) for day in days))
        bounds = [times.bounds(a + self._shift, b + self._shift) for a, b in spans]
        time = self._sorted(times)
        if None not in bounds:
            yield sa.or_(*(sa.and_(time >= a, time < b) for a, b in filter(None, bounds)))

    def _sorted(self, times: TimeColumn) -> sa.ColumnElement[object] | sa.ColumnElement[str]:
        """Return the time as it is compared: texts by code point, whatever the language."""
        import sqlalchemy as sa

        time = self._columns["time"]
        return sa.collate(time, "C") if times.kind == "text" and not self._is_sqlite else time

    @staticmethod
    def _labelled(
        columns: Mapping[str, sa.ColumnElement[object]],
    ) -> list[sa.Label[object]]:
        return [column.label(field) for field, column in columns.items()]


def _by_symbol(ranges: Sequence[BarRange]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {each.symbol: [] for each in ranges}
    for each in ranges:
        spans[each.symbol].append((each.start, each.end))
    return {symbol: joined(own) for symbol, own in spans.items()}


def _few(spans: list[Span]) -> list[Span]:
    """Return at most `MOST_WINDOWS` spans that hold these."""
    gaps = sorted(right[0] - left[1] for left, right in pairwise(spans))
    least = gaps[-MOST_WINDOWS + 1] if len(spans) > MOST_WINDOWS else 0
    found: list[Span] = []
    for start, end in spans:
        if found and (start - found[-1][1] < least or len(found) == MOST_WINDOWS):
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _table_format(options: TableOptions) -> TableFormat:
    if "date" in options.columns:
        raise ConfigError("options.columns.date: a date column of its own is for CSV files")
    return TableFormat(
        label=options.label,
        tz=options.tz,
        symbol=None if options.symbol is None else Symbol.parse(options.symbol),
        columns=options.headers,
        time_format=options.time_format,
    )
