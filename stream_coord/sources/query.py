"""What is asked of a table that somebody else designed: SELECT statements, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, FIELDS
from stream_coord.clock import from_micros
from stream_coord.compute.validate import END_OF_TIME
from stream_coord.interval import DAY, Interval
from stream_coord.sources.base import TableFormat
from stream_coord.sources.cells import TimeColumn, numbers, symbols
from stream_coord.sources.options import TableOptions
from stream_coord.sources.ranges import Span, joined

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sa

PIECE_ROWS = 10_000
"""How many rows are read at a time."""
MOST_SYMBOLS = 10_000
"""Of more symbols than this, the bars of all are read: a statement takes so many values only."""
_DIGITS = {"%Y": "[0-9][0-9][0-9][0-9]", "%m": "[01][0-9]", "%d": "[0-3][0-9]"}
MOST_WINDOWS = 100
"""Spans of days in one query; of more, the closest neighbours become one."""


class TableQuery:
    """The statements that read a table.

    Args:
        options: Which table it is.
        fmt: What its columns and times are.
        is_sqlite: Whether it is SQLite's; else it is PostgreSQL's.
        interval: The bars' interval.
    """

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
        self._table = table
        self._columns = {field: table.c[name] for field, name in names.items()}
        self._format = fmt
        self._is_sqlite = is_sqlite
        self._shift = fmt.shift(interval)
        self.interval = interval

    def time_column(self, connection: sa.Connection) -> TimeColumn | None:
        """Return how times are kept, as some row shows; None where there is no row.

        Raises:
            SourceError: they are of no usable type.
        """
        import sqlalchemy as sa

        time = self._columns["time"]
        some = sa.select(*self._labelled(self._columns)).where(time.is_not(None)).limit(1)
        if not self._is_sqlite:
            kind = sa.cast(sa.func.pg_typeof(time), sa.Text)
            name = connection.execute(sa.select(kind).limit(1)).scalar()
            if str(name).startswith("timestamp"):  # infinity is no time of Python's
                some = some.where(time >= from_micros(0), time < from_micros(END_OF_TIME))
        row = connection.execute(some).first()
        if row is None:
            return None
        return TimeColumn.of(row._mapping["time"], self._format.time_format, self._format.tz)

    def lasts(
        self, connection: sa.Connection, times: TimeColumn, names: Sequence[str]
    ) -> dict[str, int]:
        """Return the start of the last bar by symbol; nothing where times do not sort by time."""
        import sqlalchemy as sa

        bounds = times.bounds(0, END_OF_TIME)
        if bounds is None or not names:
            return {}
        time = self._sorted(times)
        last: sa.ColumnElement[object] = sa.func.max(time)
        if times.kind == "utc":
            last = sa.func.timezone("UTC", last)
        chosen = sa.and_(time >= bounds[0], time < bounds[1], *self._of(names))
        found = self._aggregate(connection, last, chosen)
        starts = times.times([value for _, value in found])["start"] - self._shift
        keys = symbols([symbol for symbol, _ in found])
        pairs = zip(keys, starts, strict=True)
        return {key: start for key, start in pairs if key is not None and start is not None}

    def unreadable(
        self, connection: sa.Connection, times: TimeColumn, names: Sequence[str]
    ) -> list[str | None]:
        """Return the symbols, None for what is none, of rows that a question of days may not find.

        Their times are null, or sort among those of other days because they are no times.
        """
        import sqlalchemy as sa

        bounds, time = times.bounds(0, END_OF_TIME), self._columns["time"]
        if bounds is None:  # all rows are read
            return []
        strange: list[sa.ColumnElement[bool]] = [time.is_(None)]
        if times.kind == "number":
            strange += [time < bounds[0], time >= bounds[1]]
        elif times.prefix is not None:
            pattern = times.prefix
            for directive, digits in _DIGITS.items():
                pattern = pattern.replace(directive, digits)
            operator, pattern = ("GLOB", f"{pattern}*") if self._is_sqlite else ("~", f"^{pattern}")
            strange.append(sa.not_(time.op(operator, is_comparison=True)(pattern)))
        chosen = sa.and_(sa.or_(*strange), *self._of(names))
        found = self._aggregate(connection, sa.func.min(sa.literal(1)), chosen)
        return symbols([symbol for symbol, any_row in found if any_row]).to_list()

    def _aggregate(
        self,
        connection: sa.Connection,
        of: sa.ColumnElement[object],
        chosen: sa.ColumnElement[bool],
    ) -> list[tuple[object, object]]:
        """Return an aggregate of the chosen rows of each symbol."""
        import sqlalchemy as sa

        if self._format.symbol is not None:
            wanted = sa.select(of).select_from(self._table).where(chosen)
            return [(str(self._format.symbol), connection.execute(wanted).scalar())]
        symbol = self._columns["symbol"]
        grouped = sa.select(symbol, of).where(chosen).group_by(symbol)
        return [(row[0], row[1]) for row in connection.execute(grouped)]

    def rows(
        self,
        connection: sa.Connection,
        times: TimeColumn,
        days: Iterable[int],
        names: Sequence[str],
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of some UTC days and symbols, or more, in frames of bounded size.

        ``symbol`` and ``start`` are null where they cannot be read; such a row's ``day`` is what it
        shows of it, in days since 1970.
        """
        import sqlalchemy as sa

        columns: dict[str, sa.ColumnElement[object]] = dict(self._columns)
        if times.kind == "utc":
            columns["time"] = sa.func.timezone("UTC", columns["time"])
        wanted = sa.select(*self._labelled(columns)).where(*self._conditions(times, days, names))
        result = connection.execute(wanted, execution_options={"yield_per": PIECE_ROWS})
        for part in result.partitions():
            frame = self._frame(dict(zip(columns, zip(*part, strict=True), strict=True)), times)
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
        bars = frame.with_columns(symbol).select(COLUMNS)
        if not bars["start"].null_count():
            return bars.with_columns(day=pl.lit(None, pl.Int32))
        return bars.with_columns(times.days(values["time"]).alias("day"))

    def _of(self, names: Sequence[str]) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the condition that a row is of one of some symbols, or of none that is a text."""
        import sqlalchemy as sa

        if self._format.symbol is not None:
            if self._format.symbol not in names:
                yield sa.false()
        elif len(names) <= MOST_SYMBOLS:
            symbol = self._columns["symbol"]
            none: list[sa.ColumnElement[bool]] = [symbol.is_(None)]
            if self._is_sqlite:
                none.append(symbol >= sa.literal(b"", sa.LargeBinary()))  # after all texts
            yield sa.or_(symbol.in_(names), *none)

    def _conditions(
        self, times: TimeColumn, days: Iterable[int], names: Sequence[str]
    ) -> Iterator[sa.ColumnElement[bool]]:
        import sqlalchemy as sa

        yield from self._of(names)
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
