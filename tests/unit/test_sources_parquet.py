"""Parquet files of the types that people have."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import FIELDS, Symbol
from stream_coord.clock import parse_moment, to_micros
from stream_coord.errors import InputFileError, UsageError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources.base import RawBars, find_files
from stream_coord.sources.parquet import ParquetFormat

ONE_MINUTE = Interval(MINUTE)
OPEN = ParquetFormat(label="open")
MOMENT = datetime(2018, 11, 23, 14, 30, tzinfo=UTC)
START = parse_moment("2018-11-23T14:30:00Z")
ROW: dict[str, object] = {
    "symbol": "SPY",
    "time": MOMENT,
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 100.0,
}
EXPECTED = ("SPY", START, 10, 12, 9, 11, 100, 1, None)


def table(**columns: object) -> pl.DataFrame:
    """Return a table of one good row, with columns replaced."""
    return pl.DataFrame({name: [value] for name, value in (ROW | columns).items()})


def read(folder: Path, frame: pl.DataFrame, fmt: ParquetFormat = OPEN) -> RawBars:
    """Write a Parquet file and return its raw bars."""
    path = folder / "a.parquet"
    frame.write_parquet(path)
    (part,) = fmt.parts(path, ONE_MINUTE)
    assert part.name == str(path)
    return part.read()


def test_the_canonical_file(tmp_path: Path) -> None:
    raw = read(tmp_path, table())
    assert dict(raw.frame.schema) == {
        "symbol": pl.String,
        "start": pl.Int64,
        **dict.fromkeys(FIELDS, pl.Float64),
        "row": pl.Int64,
        "reason": pl.String,
    }
    assert raw.frame.rows() == [EXPECTED]


def test_columns_of_other_names(tmp_path: Path) -> None:
    """One symbol, a closing label, and columns nobody asked for, lists among them."""
    fmt = ParquetFormat(
        label="close", symbol=Symbol.parse("SPY"), columns={"time": "ts", "close": "last"}
    )
    frame = table(time=MOMENT + timedelta(minutes=1)).rename(
        {"time": "ts", "close": "last", "symbol": "name"}
    )
    frame = frame.with_columns(trades=pl.Series([[1, 2]]))
    assert read(tmp_path, frame, fmt).frame.rows() == [EXPECTED]


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["SPY"])])
def test_symbols_may_be_encoded(tmp_path: Path, kind: pl.DataType) -> None:
    frame = table().with_columns(pl.col("symbol").cast(kind))
    assert read(tmp_path, frame).frame.rows() == [EXPECTED]


@pytest.mark.parametrize("kind", [pl.Int64, pl.UInt16, pl.Float32, pl.Decimal(12, 4)])
def test_prices_may_be_any_number(tmp_path: Path, kind: pl.DataType) -> None:
    frame = read(tmp_path, table().with_columns(pl.col(FIELDS).cast(kind))).frame
    assert frame.rows() == [EXPECTED]
    assert frame.select(FIELDS).dtypes == [pl.Float64()] * 5


def test_decimals_become_the_closest_double(tmp_path: Path) -> None:
    texts = [f"{n // 100}.{n % 100:02}" for n in range(1, 3000)]
    prices = pl.Series(texts).cast(pl.Decimal(18, 2))
    frame = table().select(pl.all().repeat_by(len(texts)).explode()).with_columns(close=prices)
    assert read(tmp_path, frame).frame["close"].to_list() == [float(text) for text in texts]


def test_times_of_every_type(tmp_path: Path) -> None:
    local = datetime.fromisoformat("2018-11-23T09:30")
    new_york = ParquetFormat(label="open", tz="America/New_York")
    assert read(tmp_path, table(time=local), new_york).frame.rows() == [EXPECTED]
    nanoseconds = table().with_columns(pl.col("time").cast(pl.Datetime("ns", "Asia/Tokyo")))
    assert read(tmp_path, nanoseconds, new_york).frame.rows() == [EXPECTED]
    assert read(tmp_path, table(time="2018-11-23 09:30"), new_york).frame.rows() == [EXPECTED]
    seconds = ParquetFormat(label="open", time_format="epoch-s")
    unsigned = table(time=START // 1_000_000).with_columns(pl.col("time").cast(pl.UInt64))
    assert read(tmp_path, unsigned, seconds).frame.rows() == [EXPECTED]


def test_rows_without_a_value_or_a_time_keep_their_place(tmp_path: Path) -> None:
    frames = [table(), table(close=None, time=None), table(symbol=None, volume=float("nan"))]
    raw = read(tmp_path, pl.concat(frames, how="vertical_relaxed"))
    assert raw.frame["row"].to_list() == [1, 2, 3]
    assert raw.frame["start"].to_list() == [START, None, START]
    assert raw.frame["close"].to_list() == [11, None, 11]
    assert raw.frame["symbol"].to_list() == ["SPY", "SPY", None]
    assert raw.raw([2]) == [
        "symbol=SPY, time=None, open=10.0, high=12.0, low=9.0, close=None, volume=100.0"
    ]


def test_local_times_that_are_none(tmp_path: Path) -> None:
    texts = ["2018-03-11T02:30", "2018-11-04T01:30"]
    frame = pl.concat(table(time=datetime.fromisoformat(text)) for text in texts)
    raw = read(tmp_path, frame, ParquetFormat(label="open", tz="America/New_York"))
    codes = [reason.partition(":")[0] for reason in raw.frame["reason"]]
    assert codes == ["nonexistent-time", "ambiguous-time"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": date(2018, 11, 23)}, r"time column of .* is of type Date.*\n.*Datetime"),
        ({"time": 1.5}, "time column of .* is of type Float64"),
        ({"open": "10"}, r"open column of .* is of type String.*\n.*a number"),
        ({"open": [1.0]}, "open column of .* is of type List"),
        ({"volume": True}, "volume column of .* is of type Boolean"),
        ({"symbol": 700}, "symbol column of .* is of type Int64"),
    ],
)
def test_columns_of_a_wrong_type(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        read(tmp_path, table(**columns))


def test_what_is_not_stated_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unit is not stated.*\n.*epoch-ms"):
        read(tmp_path, table(time=to_micros(MOMENT)))
    with pytest.raises(UsageError, match="no time zone is stated"):
        read(tmp_path, table(time=MOMENT.replace(tzinfo=None)))
    with pytest.raises(InputFileError, match="no symbol is stated"):
        read(tmp_path, table().drop("symbol"))
    with pytest.raises(InputFileError, match=r"no column 'close'.*\n.*symbol, time, open"):
        read(tmp_path, table().drop("close"))
    with pytest.raises(UsageError, match="date column"):
        ParquetFormat(label="open", columns={"date": "day"})


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 60 + b"PAR1", b"a,b\n"])
def test_what_is_no_parquet_file_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    (part,) = OPEN.parts(path, ONE_MINUTE)
    with pytest.raises(InputFileError, match=r"a\.parquet cannot be read as Parquet: "):
        part.read()


def test_a_name_with_wildcards_is_one_file(tmp_path: Path) -> None:
    """Other files that the name would match as a pattern are not read."""
    table().write_parquet(tmp_path / "a.parquet")
    for name in ("*.parquet", "?.parquet", "[a].parquet", "{a}.pq"):
        path = tmp_path / name
        path.write_bytes((tmp_path / "a.parquet").read_bytes())
        (part,) = OPEN.parts(path, ONE_MINUTE)
        assert len(part.read().frame) == 1
    assert len(find_files([tmp_path], OPEN)) == 5


def test_a_hive_folder_adds_no_columns(tmp_path: Path) -> None:
    """A `symbol=...` in the path is not the file's."""
    folder = tmp_path / "symbol=QQQ"
    folder.mkdir()
    assert read(folder, table()).frame.rows() == [EXPECTED]
