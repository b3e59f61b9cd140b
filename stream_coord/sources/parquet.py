"""Parquet files: one bar a row, with the columns that are stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stream_coord.bars import FIELDS
from stream_coord.errors import InputFileError, UsageError
from stream_coord.interval import Interval
from stream_coord.sources.archives import file_errors
from stream_coord.sources.base import Part, RawBars, TableFormat, raw_frame
from stream_coord.sources.lines import RAW_CHARACTERS
from stream_coord.sources.times import EPOCHS, datetime_times, epoch_times, text_times

if TYPE_CHECKING:
    import polars as pl

PIECE_ROWS = 262_144
"""How many rows are read at a time."""


@dataclass(frozen=True, kw_only=True)
class ParquetFormat(TableFormat):
    """How to read Parquet files.

    A time is a Datetime (one without a zone is of `tz`), a whole number (`time_format` states its
    unit) or a text; prices and volumes are numbers.
    """

    name: ClassVar[str] = "parquet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "date" in self.columns:
            raise UsageError(
                "a date column of its own is for CSV files", "State --column time=HEADER alone."
            )

    def matches(self, path: Path) -> bool:
        """Return whether a file has the suffix of Parquet files."""
        return path.name.lower().endswith((".parquet", ".pq")) and not path.name.startswith(".")

    def parts(self, path: Path, interval: Interval) -> Iterator[Part]:
        """Yield the file."""
        yield Part(str(path), partial(self._pieces, path, interval))

    def _pieces(self, path: Path, interval: Interval) -> Iterator[RawBars]:
        import polars as pl

        any_time = False
        for first, table, position in _tables(path, self.find_columns):
            numbered = table.with_columns(
                *_as_numbers(table, str(path)),
                pl.int_range(first, first + len(table), dtype=pl.Int64).alias("row"),
                pl.lit(None, pl.String).alias("reason"),
            )
            if self.symbol is None:
                numbered = numbered.with_columns(_as_text(table["symbol"], str(path)))
            times = self._times(table["time"], str(path), must_place=not any_time)
            any_time = any_time or times["start"].count() > 0
            frame = raw_frame(numbered, times, symbol=self.symbol, shift=self.shift(interval))
            yield RawBars(frame, partial(_row_texts, table, first=first), position)

    def _times(self, column: pl.Series, name: str, *, must_place: bool) -> pl.DataFrame:
        import polars as pl

        if isinstance(column.dtype, pl.Datetime):
            return datetime_times(column, self.tz)
        if column.dtype == pl.String:
            return text_times(column, self.time_format, self.tz, must_place=must_place)
        if not column.dtype.is_integer():
            raise _wrong_type(column, name, "Datetime, a whole number or text")
        if self.time_format not in EPOCHS:
            raise UsageError(
                f"the times in {name} are whole numbers, and their unit is not stated",
                f"State --time-format with one of {', '.join(EPOCHS)}.",
            )
        return epoch_times(column.cast(pl.Int64, strict=False), EPOCHS[self.time_format])


def _tables(
    path: Path, find_columns: Callable[[Sequence[str], str], Mapping[str, int]]
) -> Iterator[tuple[int, pl.DataFrame, int]]:
    """Yield some rows at a time: the number of the first, the columns under the fields' names.

    The third is about how many bytes of the file have been read.
    """
    import polars as pl

    # An open file: polars would take a path's * and ? for patterns.
    with file_errors(str(path)), path.open("rb") as file, _parquet_errors(path):
        headers = list(pl.read_parquet_schema(file))
    positions = find_columns(headers, str(path))
    scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    wanted = scan.select(pl.col(headers[at]).alias(field) for field, at in positions.items())
    with _parquet_errors(path):
        rows = scan.select(pl.len()).collect().item()
    size_bytes = path.stat().st_size
    for first in range(0, max(rows, 1), PIECE_ROWS):
        with _parquet_errors(path):
            table = wanted.slice(first, PIECE_ROWS).collect()
        yield first + 1, table, size_bytes * (first + len(table)) // max(rows, 1)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import polars as pl

    with file_errors(str(path)):
        try:
            yield
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).partition("\n")[0]
            raise InputFileError(f"{path} cannot be read as Parquet: {reason}") from error


def _as_numbers(table: pl.DataFrame, name: str) -> list[pl.Series]:
    import polars as pl

    columns = [table[field] for field in FIELDS]
    for column in columns:
        if not column.dtype.is_numeric():
            raise _wrong_type(column, name, "a number")
    return [column.cast(pl.Float64) for column in columns]


def _as_text(column: pl.Series, name: str) -> pl.Series:
    import polars as pl

    if not isinstance(column.dtype, (pl.String, pl.Categorical, pl.Enum)):
        raise _wrong_type(column, name, "text")
    return column.cast(pl.String)


def _wrong_type(column: pl.Series, name: str, needed: str) -> InputFileError:
    return InputFileError(
        f"the {column.name} column of {name} is of type {column.dtype}",
        f"It must be {needed}; state another with --column {column.name}=HEADER.",
    )


def _row_texts(table: pl.DataFrame, rows: Sequence[int], first: int) -> list[str]:
    """Return the values of the rows with the given numbers, for people; `first` is the first's."""
    named = (table.row(row - first, named=True) for row in rows)
    return [
        ", ".join(f"{field}={value}" for field, value in row.items())[:RAW_CHARACTERS]
        for row in named
    ]
