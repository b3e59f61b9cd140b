"""Parquet files: one bar a row, with the columns that are stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
        yield Part(str(path), partial(self._read, path, interval))

    def _read(self, path: Path, interval: Interval) -> RawBars:
        import polars as pl

        table = _read_columns(path, self.find_columns)
        numbered = table.with_columns(
            *_as_numbers(table, str(path)),
            pl.int_range(1, len(table) + 1, dtype=pl.Int64).alias("row"),
            pl.lit(None, pl.String).alias("reason"),
        )
        if self.symbol is None:
            numbered = numbered.with_columns(_as_text(table["symbol"], str(path)))
        times = self._times(table["time"], str(path))
        frame = raw_frame(numbered, times, symbol=self.symbol, shift=self.shift(interval))
        return RawBars(frame, partial(_row_texts, table))

    def _times(self, column: pl.Series, name: str) -> pl.DataFrame:
        import polars as pl

        if isinstance(column.dtype, pl.Datetime):
            return datetime_times(column, self.tz)
        if column.dtype == pl.String:
            return text_times(column, self.time_format, self.tz)
        if not column.dtype.is_integer():
            raise _wrong_type(column, name, "Datetime, a whole number or text")
        if self.time_format not in EPOCHS:
            raise UsageError(
                f"the times in {name} are whole numbers, and their unit is not stated",
                f"State --time-format with one of {', '.join(EPOCHS)}.",
            )
        return epoch_times(column.cast(pl.Int64, strict=False), EPOCHS[self.time_format])


def _read_columns(
    path: Path, find_columns: Callable[[Sequence[str], str], Mapping[str, int]]
) -> pl.DataFrame:
    """Return the columns of the fields, under the fields' names."""
    import polars as pl

    # An open file: polars would take a path's * and ? for patterns.
    with file_errors(str(path)), path.open("rb") as file:
        try:
            headers = list(pl.read_parquet_schema(file))
            positions = find_columns(headers, str(path))
            file.seek(0)
            wanted = {field: headers[position] for field, position in positions.items()}
            table = pl.read_parquet(file, columns=sorted(set(wanted.values())))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).partition("\n")[0]
            raise InputFileError(f"{path} cannot be read as Parquet: {reason}") from error
    return table.select(pl.col(header).alias(field) for field, header in wanted.items())


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


def _row_texts(table: pl.DataFrame, rows: Sequence[int]) -> list[str]:
    """Return the values of the rows with the given numbers (from 1), for people."""
    named = (table.row(row - 1, named=True) for row in rows)
    return [
        ", ".join(f"{field}={value}" for field, value in row.items())[:RAW_CHARACTERS]
        for row in named
    ]
