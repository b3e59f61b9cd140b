"""What every reader of files promises, and what the readers of tables share.

A reader turns a file into *raw bars*: every row of it, good or bad, in file order. Nothing is
judged here but what only the reader can see (a torn line, a local time that does not exist);
the rules for bars are in `stream_coord.compute.validate`.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from stream_coord.bars import FIELDS, Symbol
from stream_coord.errors import InputFileError, UsageError, near_miss
from stream_coord.interval import Interval
from stream_coord.sources.archives import file_errors
from stream_coord.sources.times import check_time_format, check_zone

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class RawBars:
    """Every row of a piece of a part, in file order.

    Attributes:
        frame: The columns of a bar frame (``start`` is UTC microseconds; null where a value could
            not be read), ``row`` (Int64, 1-based line or row number in the part) and ``reason``
            (String; null, or why the reader itself rejects the row).
        raw: Returns the texts of the rows with the given numbers, for people.
        position: How many bytes of the file, packed as it is, have been read with it.
    """

    frame: pl.DataFrame
    raw: Callable[[Sequence[int]], list[str]]
    position: int


@dataclass(frozen=True)
class Part:
    """One table of rows: a file, or one member of an archive.

    Attributes:
        name: The file's path, followed by ``!member`` where an archive has several.
        pieces: Reads it: yields its rows in pieces that are small enough for memory, at least one.
            Raises InputFileError if it cannot be read, at the beginning or anywhere in it;
            UsageError if what was stated about it cannot be right.
    """

    name: str
    pieces: Callable[[], Iterator[RawBars]]

    def read(self) -> RawBars:
        """Return all rows at once, as one piece; for parts that fit into memory."""
        import polars as pl

        pieces = list(self.pieces())
        lasts = (piece.frame["row"][-1] if len(piece.frame) else 0 for piece in pieces)

        def raw(rows: Sequence[int]) -> list[str]:
            return [pieces[bisect_left(ends, row)].raw([row])[0] for row in rows]

        ends = list(accumulate(lasts, max))
        frame = pl.concat(piece.frame for piece in pieces)
        return RawBars(frame, raw, pieces[-1].position)


class FileFormat(Protocol):
    """How to read a kind of file."""

    @property
    def name(self) -> str:
        """The format's short name, as in ``--format``."""
        ...

    def matches(self, path: Path) -> bool:
        """Return whether a file found in a folder is of this format, by its name."""
        ...

    def order(self, path: Path) -> tuple[str, ...]:
        """Return what to sort the files of a folder by."""
        ...

    def parts(self, path: Path, interval: Interval) -> Iterator[Part]:
        """Yield the file's parts.

        Raises:
            InputFileError: the file cannot be opened, or is not what it should be.
        """
        ...


def find_files(paths: Iterable[Path], fmt: FileFormat) -> list[Path]:
    """Return the files that `paths` stand for, each once; folders are walked in sorted order.

    The paths returned are absolute and without ``..``: they are what the ledger knows a file by.

    Raises:
        UsageError: a path does not exist, or a folder holds no file of the format.
        InputFileError: a path cannot even be looked at.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        with file_errors(str(path)):
            for file in _expand(path, fmt):
                real = file.resolve()
                found.setdefault(real, _absolute(file, real))
    return list(found.values())


def _absolute(file: Path, real: Path) -> Path:
    plain = Path(os.path.normpath(file.absolute()))
    return plain if plain.resolve() == real else real  # a/.. may lead elsewhere if a is a link


def _expand(path: Path, fmt: FileFormat) -> list[Path]:
    if not path.exists():
        raise UsageError(f"{path} does not exist", "Name files, or folders that hold them.")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} is neither a file nor a folder")
    files = [file for file in path.rglob("*") if fmt.matches(file) and file.is_file()]
    if not files:
        raise UsageError(f"{path} holds no {fmt.name} file", "Name another folder or --format.")
    return sorted(files, key=fmt.order)


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """What is stated, never guessed, about a table of bars.

    Attributes:
        label: Whether a row's time is its bar's ``"open"`` (start) or ``"close"`` (end).
        tz: IANA name of the zone of times that carry no offset of their own.
        symbol: The symbol of all rows; None if a column names it.
        columns: By field (symbol, date, time, open, high, low, close, volume) the header of its
            column; a field that is left out is its own header. Naming a ``date`` makes the time
            the two texts together, separated by a space.
        time_format: ``"iso"``, ``"epoch-s"`` (``-ms``, ``-us``, ``-ns``) or a strptime text.

    Raises:
        UsageError: one of them is impossible.
    """

    label: Literal["open", "close"]
    tz: str | None = None
    symbol: Symbol | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    time_format: str = "iso"

    def __post_init__(self) -> None:
        if self.label not in {"open", "close"}:
            raise UsageError(f"{self.label!r} is no label", "A time labels a bar's open or close.")
        if self.tz is not None:
            check_zone(self.tz)
        check_time_format(self.time_format)
        known = ("symbol", "date", "time", *FIELDS)
        for name in self.columns:
            if name not in known:
                raise UsageError(
                    f"{name!r} is no field of a bar{near_miss(name, known)}",
                    f"The fields are {', '.join(known)}.",
                )
        if self.symbol is not None and "symbol" in self.columns:
            raise UsageError(
                "both one symbol and a symbol column are stated",
                "Leave out --symbol or --column symbol=...",
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the table must have, in canonical order."""
        symbol = () if self.symbol is not None else ("symbol",)
        date = ("date",) if "date" in self.columns else ()
        return (*symbol, *date, "time", *FIELDS)

    def order(self, path: Path) -> tuple[str, ...]:
        """Return what to sort the files of a folder by: their paths."""
        return path.parts

    def shift(self, interval: Interval) -> int:
        """Return how many microseconds a row's time is after its bar's start."""
        return interval.micros if self.label == "close" else 0

    def find_columns(self, headers: Sequence[str], name: str) -> dict[str, int]:
        """Return by field the position of its column among `headers`.

        Raises:
            InputFileError: a column is missing, or there twice.
            UsageError: the symbol is stated in both ways.
        """
        if self.symbol is not None and "symbol" in headers:
            raise UsageError(
                f"{name} has a column 'symbol', and one symbol is stated too",
                "Leave out --symbol to take the symbols from the column.",
            )
        wanted = {field: self.columns.get(field, field) for field in self.fields}
        there = f"Its columns: {', '.join(header[:40] for header in headers[:40])}."
        missing = {field: header for field, header in wanted.items() if header not in headers}
        if set(missing) - {"symbol"} or (missing and "symbol" in self.columns):
            names = ", ".join(
                f"{header!r}{near_miss(header, headers)}" for header in missing.values()
            )
            raise InputFileError(
                f"{name} has no column {names}",
                f"{there} State the right one with --column {next(iter(missing))}=HEADER.",
            )
        if missing:
            raise InputFileError(
                f"{name} has no column 'symbol', and no symbol is stated",
                f"{there} State --symbol SYMBOL or --column symbol=HEADER.",
            )
        for header in wanted.values():
            if headers.count(header) > 1:
                raise InputFileError(f"{name} has the column {header!r} more than once", there)
        return {field: headers.index(header) for field, header in wanted.items()}


def raw_frame(
    table: pl.DataFrame, times: pl.DataFrame, *, symbol: str | None, shift: int = 0
) -> pl.DataFrame:
    """Return the frame of `RawBars`.

    Args:
        table: ``row``, ``reason``, the fields of a bar, and ``symbol`` unless it is stated.
        times: ``start`` and ``reason`` of each row's time.
        symbol: The symbol of all rows; None if `table` has it.
        shift: How many microseconds the times are after the starts.
    """
    import polars as pl

    return table.select(
        pl.col("symbol") if symbol is None else pl.lit(str(symbol)).alias("symbol"),
        (times["start"] - shift).alias("start"),
        *FIELDS,
        "row",
        reason=pl.coalesce("reason", times["reason"]),
    )
