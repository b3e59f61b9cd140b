"""Reading a file in pieces of any size, packed in any way, is reading it whole."""

from __future__ import annotations

import gzip
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from unittest import mock

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream_coord.bars import FIELDS
from stream_coord.errors import InputFileError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources import csv, parquet
from stream_coord.sources.base import FileFormat, RawBars
from stream_coord.sources.csv import CsvFormat
from stream_coord.sources.parquet import ParquetFormat
from stream_coord.spool import Spool

HEADER = b"symbol,time,open,high,low,close,volume"
LINES = (
    b"A,2018-11-23 12:00,5,9,1,5,100",
    b"B,2018-11-23T12:01:00Z,5,9,1,5,100",
    b'"A","2018-11-23 12:02",5,9,1,5,100',
    b"A,2018-11-04 01:30,5,9,1,5,100",  # shown twice
    b"A,x,5,9,1,5,100",
    b"A,2018-11-23 12:00,5,9,1,5",
    b"A,2018-11-23 12:00,5,nan,,1e400,100",
    b'A,"2018-11-23 12:00,5,9,1,5,100',
    b"\xff,2018-11-23 12:00,5,9,1,5,100",
    b"A\0,2018-11-23 12:00,5,9,1,5,100",
    b"",
    b" \t",
    b",,,,,,",
)
Found = tuple[pl.DataFrame, list[str]]


def found(fmt: FileFormat, path: Path) -> Found | str:
    """Return what a file of one part holds, with every row's text; or why it cannot be read."""
    try:
        (part,) = fmt.parts(path, Interval(MINUTE))
        pieces = list(part.pieces())
    except InputFileError as error:
        return str(error).replace(path.name, "FILE")
    positions = [piece.position for piece in pieces]
    assert positions == sorted(positions)
    assert positions[-1] <= path.stat().st_size
    texts = [text for piece in pieces for text in texts_of(piece)]
    frame = pl.concat(piece.frame for piece in pieces)
    assert part.read().frame.equals(frame)
    assert part.read().raw(frame["row"].to_list()) == texts
    return frame, texts


def texts_of(piece: RawBars) -> list[str]:
    return piece.raw(piece.frame["row"].to_list())


@contextmanager
def sizes(*, block_bytes: int = 1 << 20, piece_rows: int = 1 << 20) -> Iterator[None]:
    """Make the pieces smaller."""
    with (
        mock.patch.object(csv, "BLOCK_BYTES", block_bytes),
        mock.patch.object(parquet, "PIECE_ROWS", piece_rows),
    ):
        yield


def same(one: Found | str, other: Found | str) -> None:
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert_frame_equal(one[0], other[0])
    assert one[1] == other[1]


def zipped(data: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", data)
    return buffer.getvalue()


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=12),
    newlines=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=14, max_size=14),
    before=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n", b"\xef\xbb\xbf\r\n\n"]),
    header=st.booleans(),
    ended=st.booleans(),
    block_bytes=st.integers(1, 80),
)
@example([LINES[0], LINES[1]], [b"\r\n"] * 14, b"", True, True, len(HEADER) + 1)
@example([LINES[-2], LINES[7], LINES[0]], [b"\r"] * 14, b"", False, False, 1)
@settings(max_examples=60, deadline=None)
def test_any_block_size_gives_the_same(
    lines: list[bytes],
    newlines: list[bytes],
    before: bytes,
    header: bool,
    ended: bool,
    block_bytes: int,
) -> None:
    """The frame, the reasons, the rows' numbers and texts; or the same error."""
    data = before + b"".join(
        line + end
        for line, end in zip([HEADER, *lines] if header else lines, newlines, strict=False)
    )
    data = data if ended else data.rstrip(b"\r\n")
    fmt = CsvFormat(label="open", tz="America/New_York", header=header)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in ("a.csv", "a.csv.gz", "a.zip")}
        packed = (data, gzip.compress(data, mtime=0), zipped(data))
        for path, content in zip(files.values(), packed, strict=True):
            path.write_bytes(content)
        with sizes():
            whole = found(fmt, files["a.csv"])
        with sizes(block_bytes=block_bytes):
            for path in files.values():
                same(found(fmt, path), whole)


@given(rows=st.integers(0, 40), piece_rows=st.integers(1, 50), groups=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_any_number_of_rows_at_a_time_gives_the_same(
    rows: int, piece_rows: int, groups: int
) -> None:
    frame = pl.DataFrame({"symbol": ["A", None, "B", "C"] * 10, "time": range(40)}).head(rows)
    values = (pl.when(pl.col("time") % 7 != n).then(pl.col("time") + 0.5) for n in range(5))
    frame = frame.with_columns(**dict(zip(FIELDS, values, strict=True)))
    fmt = ParquetFormat(label="open", time_format="epoch-s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        frame.write_parquet(path, row_group_size=groups)
        with sizes():
            whole = found(fmt, path)
        with sizes(piece_rows=piece_rows):
            same(found(fmt, path), whole)
    assert not isinstance(whole, str)
    assert whole[0]["row"].to_list() == list(range(1, rows + 1))
    assert whole[0]["symbol"].to_list() == frame["symbol"].to_list()


@given(
    frames=st.lists(st.lists(st.integers(0, 300), max_size=30), min_size=1, max_size=6),
    most_rows=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_spool_gives_back_what_it_took(frames: list[list[int]], most_rows: int) -> None:
    """Every row once, those of a key together and in order, and few at a time."""
    spool = Spool(most_rows, (pl.col("key") // 50, pl.col("key")))
    number = 0
    expected: dict[int, list[int]] = {}
    for keys in frames:
        rows = list(range(number, number + len(keys)))
        number += len(keys)
        spool.add(
            pl.DataFrame({"key": keys, "row": rows}, schema=dict.fromkeys(("key", "row"), pl.Int64))
        )
        for key, row in zip(keys, rows, strict=True):
            expected.setdefault(key, []).append(row)
    back = list(spool.drain())
    got = [by_key(frame.rows()) for frame in back]
    assert back
    assert sum(map(len, got)) == len(expected)
    assert {key: rows for frame in got for key, rows in frame.items()} == expected
    most_of_a_key = max(map(len, expected.values()), default=0)
    assert all(len(frame) <= max(2 * most_rows, 300 * most_of_a_key) for frame in back)


def by_key(rows: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for key, row in rows:
        found.setdefault(key, []).append(row)
    return found
