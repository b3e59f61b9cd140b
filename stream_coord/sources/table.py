"""A relational table that somebody else designed, as a source; it is only ever read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, Symbol, empty_frame
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError
from stream_coord.interval import DAY, Interval
from stream_coord.sources.base import TableFormat
from stream_coord.sources.doubts import ALWAYS, Doubts
from stream_coord.sources.foreign import ForeignDatabase
from stream_coord.sources.options import TableOptions, address_of, read_options
from stream_coord.sources.places import database_place
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.query import TableQuery
from stream_coord.sources.ranges import Span, clip, day_extents, days_of, inside, joined
from stream_coord.sources.steps import Steps

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sa


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

    It covers the UTC dates on which it has any row of a symbol, the symbol's last date up to its
    last row. Where a row's time or symbol cannot be read, it covers only minutes that it has bars
    of. Coverage and bars are of one transaction, whose rows are streamed.

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
        self._lasts: dict[Interval, dict[str, int]] = {}
        self.troubles: list[str] = []
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
        self._lasts.clear()
        if database is not None:
            database.close()

    def _ask(self, interval: Interval, ranges: Sequence[BarRange]) -> _Answer:
        """Read the bars of whole dates, and keep those of `ranges`."""
        import polars as pl

        if self._database is None:
            self._database = ForeignDatabase(self._url, self._root)
        query = TableQuery(self._options, self._format, self._database.is_sqlite, interval)
        with self._database.reading() as connection:
            read = self._read(query, connection, ranges)
        lasts = read.with_lasts(self._lasts.get(interval, {}))
        extents = day_extents(sorted(read.held), lasts, interval)
        bars = pl.concat([empty_frame(), *read.found])
        self.troubles = read.doubts.troubles
        covered = read.doubts.certain(
            ranges, clip(ranges, extents), interval, lambda parts: inside(bars, parts)
        )
        return _Answer(interval, _by_symbol(ranges), covered, bars)

    def _read(
        self, query: TableQuery, connection: sa.Connection, ranges: Sequence[BarRange]
    ) -> _Read:
        """Read the rows of the days and symbols of `ranges`."""
        read = _Read(query.interval, ranges, f"the table {self._options.table}")
        days = days_of(ranges)
        times = query.time_column(connection)
        if times is None or not days:
            return read
        known = self._lasts.setdefault(query.interval, {})
        names = sorted(set[str]().union(*days.values()))
        # Of the others a bar after these days is known.
        unsure = [name for name in names if known.get(name, 0) // DAY <= max(days)]
        known |= query.lasts(connection, times, unsure)
        for symbol in query.unreadable(connection, times, names):
            read.doubt(symbol, None)
        for rows in query.rows(connection, times, days, names):
            read.take(rows)
        read.steps.check(read.name)
        return read


class _Read:
    """What was read of a table.

    Attributes:
        interval: The bars' interval.
        name: What the table is called.
        found: The bars that were asked for.
        held: The symbols and days (since 1970) that there are bars of.
        steps: How far apart the bars are.
        doubts: Where rows are whose time or symbol cannot be read.
    """

    def __init__(self, interval: Interval, ranges: Sequence[BarRange], name: str) -> None:
        self.interval = interval
        self.name = name
        self.found: list[pl.DataFrame] = []
        self.held: set[tuple[str, int]] = set()
        self.steps = Steps(interval)
        self.doubts = Doubts()
        self._ranges = ranges
        self._lasts: dict[str, int] = {}

    def with_lasts(self, known: Mapping[str, int]) -> dict[str, int]:
        """Return by symbol the start of its last bar, as is known or was read."""
        names = known.keys() | self._lasts.keys()
        return {name: max(known.get(name, 0), self._lasts.get(name, 0)) for name in names}

    def take(self, rows: pl.DataFrame) -> None:
        """Take rows: a bar frame with nulls, and ``day`` of those without a start."""
        import polars as pl

        bars = rows.drop("day").drop_nulls(["symbol", "start"])
        if len(bars) < len(rows):
            lost = rows.filter(pl.col("start").is_null()).select("symbol", "day").unique()
            for symbol, day in lost.iter_rows():
                self.doubt(symbol, day)
            timed = rows.filter(pl.col("symbol").is_null())["start"].drop_nulls()
            if len(timed):
                self._tell("symbol")
                self.doubts.add_nameless(timed, self.interval)
        number = (pl.col("start") // DAY).alias("number")
        self.held |= set(bars.select("symbol", number).unique().iter_rows())
        for symbol, last in bars.group_by("symbol").agg(pl.col("start").max()).iter_rows():
            self._lasts[symbol] = max(last, self._lasts.get(symbol, last))
        self.steps.add(bars)
        self.found.append(inside(bars, self._ranges))

    def doubt(self, symbol: str | None, day: int | None) -> None:
        """Doubt the bars of a symbol (None: of all) around a day (None: always)."""
        self._tell("time")
        span = ALWAYS if day is None else ((day - 1) * DAY, (day + 2) * DAY)
        self.doubts.add(symbol, span)

    def _tell(self, what: str) -> None:
        text = (
            f"{self.name} has rows whose {what} cannot be read; which bars these are is not known"
        )
        if text not in self.doubts.troubles:
            self.doubts.troubles.append(text)


def _by_symbol(ranges: Sequence[BarRange]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {each.symbol: [] for each in ranges}
    for each in ranges:
        spans[each.symbol].append((each.start, each.end))
    return {symbol: joined(own) for symbol, own in spans.items()}


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
