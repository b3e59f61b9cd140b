"""Delimited text to columns: a row is a line, and a bad line never stops the others.

A line ends with LF, CRLF or CR; a blank one is no row. It must be UTF-8 without NUL, quoted well
(with ``"``, within the line: no field of a bar spans lines), and have as many fields as stated.

There are two readers. The fast one hands plain lines to polars, as many at once as there are. The
exact one goes through any other lines one by one. Where both can read, they agree.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.bars import FIELDS
from stream_coord.errors import InputFileError, UsageError

if TYPE_CHECKING:
    import polars as pl

RAW_CHARACTERS = 500
"""How much of a bad row's text is kept."""
EXACT_BYTES = 256 << 10
LONGEST_LINE_BYTES = 64 << 20
"""A longer line is no text; all of it would have to be in memory."""
_SPACE = " \t"
_BLANK = b" \t\v\f"


@dataclass(frozen=True)
class Layout:
    """Where the fields of a line are.

    Attributes:
        width: How many fields a line has.
        delimiter: What separates them, one ASCII character.
        positions: By name the position of each field that is wanted. Those named as in
            `stream_coord.bars.FIELDS` are numbers, the others texts.

    Raises:
        UsageError: one column is to be both a number and a text.
    """

    width: int
    delimiter: str
    positions: Mapping[str, int]

    def __post_init__(self) -> None:
        both = self.numbers & {p for name, p in self.positions.items() if name not in FIELDS}
        if both:
            raise UsageError(
                f"column {min(both) + 1} is stated both as a price or volume and as something else",
                "Give each field a column of its own.",
            )

    @property
    def numbers(self) -> set[int]:
        """The positions of the columns that hold numbers."""
        return {p for name, p in self.positions.items() if name in FIELDS}


def to_lines(data: bytes, name: str) -> bytes:
    """Return a file's bytes without byte order mark, with LF between lines.

    Raises:
        InputFileError: there is nothing but blank lines.
    """
    data = _with_lf(data.removeprefix(codecs.BOM_UTF8))
    if not data or data.isspace():
        raise InputFileError(f"{name} is empty")
    return data.rstrip(b"\n") if data.endswith(b"\n\n") else data


def whole_lines(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yield a file's lines in blocks of about a chunk, without byte order mark, ended by LF.

    The last line of the last block need not be ended.

    Raises:
        InputFileError: a line is longer than `LONGEST_LINE_BYTES`.
    """
    begun, rest = False, b""
    for chunk in chunks:
        data = rest + chunk
        # A CR at the end may be half of a CRLF.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
        rest = data[end:]
        if end:
            yield _with_lf(data[:end] if begun else data[:end].removeprefix(codecs.BOM_UTF8))
            begun = True
        elif len(rest) > LONGEST_LINE_BYTES:
            raise InputFileError(
                f"{name} is no text: it has a line of more than {LONGEST_LINE_BYTES} bytes"
            )
    if rest:
        yield _with_lf(rest if begun else rest.removeprefix(codecs.BOM_UTF8))


def _with_lf(data: bytes) -> bytes:
    if b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def line_texts(lines: bytes, rows: Sequence[int], first: int = 1) -> list[str]:
    """Return the texts of the lines with the given numbers, for people: cut if long.

    Args:
        lines: Lines ended by LF.
        rows: The numbers of some of them.
        first: The number of the first line.
    """
    every = lines.split(b"\n") if rows else []
    return [every[row - first][:RAW_CHARACTERS].decode(errors="backslashreplace") for row in rows]


def read_lines(
    data: bytes, layout: Layout, first: int = 1, exact_bytes: int = EXACT_BYTES
) -> pl.DataFrame:
    """Read every line that is not blank.

    Args:
        data: Lines ended by LF.
        layout: Where the fields are.
        first: The number of the first line.
        exact_bytes: Up to this size, lines that are not all plain are read one by one.

    Returns:
        A row per line: ``row`` (Int64, the line's number), ``reason`` (String; null, or why the
        line is no row) and the fields of `layout`: numbers as Float64, null where there is none
        (``nan`` and ``inf`` are numbers here), the others as String without outer spaces.
    """
    import polars as pl

    frames = list(_read(data, layout, first, exact_bytes))
    texts = [name for name in layout.positions if name not in FIELDS]
    return pl.concat(frames).with_columns(pl.col(texts).str.strip_chars(_SPACE))


def _read(data: bytes, layout: Layout, first: int, exact_bytes: int) -> Iterator[pl.DataFrame]:
    """Read lines; those that are not all plain in ever smaller pieces, down to the bad ones."""
    plain = _read_plain(data, layout, first)
    if plain is not None:
        yield plain
        return
    pieces = list(_pieces(data)) if len(data) > exact_bytes else []
    if len(pieces) < 2:
        yield _read_exact(data, layout, first)
        return
    for piece in pieces:
        yield from _read(piece, layout, first, exact_bytes)
        first += piece.count(b"\n")


def _pieces(data: bytes, pieces: int = 16) -> Iterator[bytes]:
    """Yield runs of whole lines, about so many of about the same size."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + len(data) // pieces) + 1 or len(data)
        yield data[start:end]
        start = end


def _read_plain(chunk: bytes, layout: Layout, first: int) -> pl.DataFrame | None:
    """Read lines of plain ASCII, all of full width and with a number where one belongs.

    Returns:
        None if a line is not such; which one, and why, is for `_read_exact` to say.
    """
    import polars as pl

    if b'"' in chunk or b"\0" in chunk or not chunk.isascii():
        return None
    if chunk.endswith(layout.delimiter.encode()):
        return None  # polars forgives an empty field too many at the end of the data
    rows = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
    # Counted by numpy: they are many, and bytes.count is quick at rare ones only.
    separators = np.count_nonzero(np.frombuffer(chunk, np.uint8) == ord(layout.delimiter))
    # polars refuses a line that is too long (if it must read all columns), but not one that is too
    # short: with the right number of separators in all, there is none without the other.
    if separators != rows * (layout.width - 1) or layout.width < 2:
        return None
    kinds = {True: pl.Float64(), False: pl.String()}
    schema = {f"{i}": kinds[i in layout.numbers] for i in range(layout.width)}
    try:
        table = pl.read_csv(
            chunk,
            has_header=False,
            schema=schema,
            separator=layout.delimiter,
            quote_char=None,
            ignore_errors=True,  # no number: null
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError:
        return None
    if len(table) != rows or any(column.null_count() for column in table):
        return None
    return table.select(
        pl.int_range(first, first + rows, dtype=pl.Int64).alias("row"),
        pl.lit(None, pl.String).alias("reason"),
        *(pl.col(f"{p}").alias(name) for name, p in layout.positions.items()),
    )


def _read_exact(chunk: bytes, layout: Layout, first: int) -> pl.DataFrame:
    """Read lines of any kind, one by one."""
    import polars as pl

    rows: list[int] = []
    reasons: list[str | None] = []
    table: list[list[str] | list[None]] = []
    nothing = [None] * layout.width
    for row, line in enumerate(chunk.split(b"\n"), first):
        if not line.strip(_BLANK):
            continue
        fields = split_line(line, layout.delimiter)
        if not isinstance(fields, str) and len(fields) != layout.width:
            fields = f"bad-line: not {layout.width} fields"
        rows.append(row)
        reasons.append(fields if isinstance(fields, str) else None)
        table.append(nothing if isinstance(fields, str) else fields)
    columns = {name: [line[p] for line in table] for name, p in layout.positions.items()}
    frame = pl.DataFrame(
        {"row": rows, "reason": reasons, **columns},
        schema={"row": pl.Int64, "reason": pl.String, **dict.fromkeys(columns, pl.String)},
    )
    numbers = pl.col([name for name in columns if name in FIELDS])
    return frame.with_columns(numbers.str.strip_chars(_SPACE).cast(pl.Float64, strict=False))


def split_line(line: bytes, delimiter: str) -> list[str] | str:
    """Return a line's fields, or as one text the reason why it has none.

    >>> split_line(b'"AAPL",1.5', ",")
    ['AAPL', '1.5']
    >>> split_line(b'"AAPL,1.5', ",")
    'bad-line: quotes that do not match'
    """
    if b"\0" in line:
        return "bad-line: a NUL byte"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "bad-line: not UTF-8"
    if '"' not in text:
        return text.split(delimiter)
    try:
        (fields,) = csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error:
        return "bad-line: quotes that do not match"
    return fields
