"""CSV files: delimited text with a bar on each line, plain, gzipped or in zip archives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stream_coord.errors import InputFileError, UsageError
from stream_coord.interval import Interval
from stream_coord.sources.archives import Member, members
from stream_coord.sources.base import Part, RawBars, TableFormat, raw_frame
from stream_coord.sources.lines import (
    LONGEST_LINE_BYTES,
    Layout,
    line_texts,
    read_lines,
    split_line,
    whole_lines,
)
from stream_coord.sources.times import text_times

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 4 << 20
"""How much of a file is read at a time: enough for two cores, little enough for any memory."""
_SUFFIXES = (".csv", ".csv.gz", ".txt", ".txt.gz", ".tsv", ".tsv.gz", ".zip")


@dataclass(frozen=True, kw_only=True)
class CsvFormat(TableFormat):
    """How to read CSV files.

    Attributes:
        delimiter: What separates the fields, one ASCII character.
        header: Whether the first line names the columns. If not, `columns` gives their numbers,
            from 1; a field that is left out has its place in the order symbol (unless one is
            stated), date (if it is in `columns`), time, open, high, low, close, volume.

    Raises:
        UsageError: one of them is impossible.
    """

    delimiter: str = ","
    header: bool = True
    name: ClassVar[str] = "csv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.delimiter == "\t" or (self.delimiter in set("!#$%&'()*,/:;<=>?@[]^_`{|}~"))):
            raise UsageError(
                f"{self.delimiter!r} cannot separate fields",
                "State one character that is in no number, for example , or ; or | or a tab.",
            )
        for field, number in {} if self.header else self.columns.items():
            if not (number.isascii() and number.isdigit() and 0 < len(number) < 5 and int(number)):
                raise UsageError(
                    f"{number!r} is no column number (for {field})",
                    "Without a header, columns are numbered from 1, as in --column volume=6.",
                )
        if not self.header:
            self._check_places()

    def _check_places(self) -> None:
        """Check that no stated column number is the place of a field that is left out."""
        places = self._places
        for field in self.columns:
            for other in places.keys() - self.columns.keys():
                if places[field] == places[other]:
                    raise UsageError(
                        f"column {places[field]} is stated for {field}, and is that of {other} "
                        "unless another is stated",
                        f"State the number of {other} too, with --column {other}=NUMBER.",
                    )

    @property
    def _places(self) -> dict[str, int]:
        """By field the number of its column in a file without a header."""
        places = {field: place for place, field in enumerate(self.fields, 1)}
        return places | {field: int(number) for field, number in self.columns.items()}

    def matches(self, path: Path) -> bool:
        """Return whether a file has a suffix of CSV files."""
        return path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".")

    def parts(self, path: Path, interval: Interval) -> Iterator[Part]:
        """Yield the file, or every member of a zip archive."""
        for member in members(path):
            yield Part(member.name, partial(self._pieces, member, interval))

    def _pieces(self, member: Member, interval: Interval) -> Iterator[RawBars]:
        """Yield the rows of some lines at a time, from the line on that shows the columns."""
        blocks = whole_lines(member.chunks(BLOCK_BYTES), member.name)
        first, lines, layout = self._begin(blocks, member.name)
        any_time = False
        for block in chain([lines], blocks):
            body = block.rstrip(b"\n") if block.endswith(b"\n\n") else block
            table = read_lines(body, layout, first)
            times = self._times(table, must_place=not any_time)
            any_time = any_time or times["start"].count() > 0
            frame = raw_frame(table, times, symbol=self.symbol, shift=self.shift(interval))
            yield RawBars(frame, partial(line_texts, body, first=first), member.position)
            first += block.count(b"\n")

    def _times(self, table: pl.DataFrame, *, must_place: bool) -> pl.DataFrame:
        text = table["time"]
        if "date" in self.columns:
            text = table["date"] + " " + text
        return text_times(text, self.time_format, self.tz, must_place=must_place)

    def _begin(self, blocks: Iterator[bytes], name: str) -> tuple[int, bytes, Layout]:
        """Return the first row's number, what of the first blocks is rows, and the layout.

        As many blocks are taken as it needs to see the layout; that is one, of a sound file.
        """
        lines = b""
        for block in blocks:
            lines += block
            if not lines or lines.isspace():
                continue
            if self.header:
                return self._headed(lines, name)
            width = self._width(lines)
            if width is not None:
                return 1, lines, self._headless(width, name)
            if len(lines) > LONGEST_LINE_BYTES:
                break
        if not lines.strip():
            raise InputFileError(f"{name} is empty")
        raise InputFileError(f"{name} is not a CSV file: no line of it is text")

    def _headed(self, data: bytes, name: str) -> tuple[int, bytes, Layout]:
        above = len(data) - len(data.lstrip(b"\n"))
        below = data.find(b"\n", above) + 1 or len(data)
        headers = split_line(data[above:below].rstrip(b"\n"), self.delimiter)
        if isinstance(headers, str):
            reason = headers.removeprefix("bad-line: ")
            raise InputFileError(f"{name} is not a CSV file (in its first line: {reason})")
        if len(headers) == 1:
            raise InputFileError(
                f"{name} has one column only if {self.delimiter!r} separates them",
                f"Its first line is {headers[0][:80]!r}. State another --delimiter.",
            )
        headers = [header.strip() for header in headers]
        positions = self.find_columns(headers, name)
        return above + 2, data[below:], Layout(len(headers), self.delimiter, positions)

    def _width(self, data: bytes) -> int | None:
        """Return how many fields the first sound line has; None if there is no such line."""
        lines = (split_line(line.rstrip(b"\n"), self.delimiter) for line in BytesIO(data))
        return next((len(fields) for fields in lines if not isinstance(fields, str)), None)

    def _headless(self, width: int, name: str) -> Layout:
        """Return the layout of a file without a header; its first sound line shows the width."""
        places = self._places
        field, last = max(places.items(), key=lambda item: item[1])
        if last > width:
            raise InputFileError(
                f"{name} has {width} columns; {field} should be number {last}",
                "State the numbers with --column field=NUMBER, or the right --delimiter.",
            )
        if last < width and places.keys() != self.columns.keys():
            raise InputFileError(
                f"{name} has {width} columns, and only {last} are accounted for",
                "Which is which is not clear: state the number of every field with "
                "--column field=NUMBER.",
            )
        positions = {field: place - 1 for field, place in places.items()}
        return Layout(width, self.delimiter, positions)
