"""Files as sources: read once, asked like a store; LEAN's only where they are asked for."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.compute.validate import validate
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, InputFileError, SourceError, UsageError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources import shelf
from stream_coord.sources.base import Part
from stream_coord.sources.doubts import PartOrder
from stream_coord.sources.files import LeanSource, TableFilesSource
from stream_coord.sources.guard import GuardedSource
from stream_coord.sources.lean import LeanFormat
from stream_coord.sources.protocol import BarRange

ONE = Interval(MINUTE)
START = 1_542_983_400_000_000  # 2018-11-23 14:30 UTC, 09:30 in New York
MIDNIGHT = START // DAY * DAY


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary folders be made where the test can see them."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def minute(symbol: str, start: int = START) -> BarRange:
    return BarRange(symbol, start, start + MINUTE)


def source(kind: str, path: Path | str, root: Path = Path("/"), **more: Any) -> Any:
    options = ({} if kind == "lean" else {"label": "open", "tz": "America/New_York"}) | more
    allowed = options.pop("allow_nonpositive", [])
    settings = SourceSettings(
        name="f", kind=kind, path=str(path), options=options, allow_nonpositive=allowed
    )
    return (LeanSource if kind == "lean" else TableFilesSource)(settings, root)


def keys(frame: pl.DataFrame) -> list[tuple[str, int, float]]:
    return frame.select("symbol", "start", "close").sort("symbol", "start").rows()


CSV = """symbol,time,open,high,low,close,volume
IBM,2018-11-23 09:30:00,10,12,9,11,100
IBM,2018-11-23 09:32:00,11,12,9,10,100
AIG,2018-11-23 09:30:00,1,2,1,2,100
IBM,2018-11-26 09:30:00,10,12,9,11,100
"""


def test_csv_files_of_a_folder_are_read_once_and_removed_at_the_end(
    tmp_path: Path, temporary: Path
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "a.csv").write_text(CSV)
    (folder / "b.csv").write_text(CSV.splitlines()[0] + "\nIBM,2018-11-23 09:31:00,7,8,6,7,1\n")
    asked = source("csv", "archive", tmp_path)
    assert list(temporary.iterdir()) == []
    ranges = [minute("AIG"), BarRange("IBM", START, START + 5 * MINUTE), minute("X")]
    assert asked.coverage(ONE, ranges) == ranges[:2]
    (folder / "a.csv").unlink()
    (folder / "b.csv").unlink()
    assert keys(asked.bars(ONE, ranges[:2])) == [
        ("AIG", START, 2.0),
        ("IBM", START, 11.0),
        ("IBM", START + MINUTE, 7.0),
        ("IBM", START + 2 * MINUTE, 10.0),
    ]
    newest = BarRange("IBM", START + 3 * DAY, START + 3 * DAY + 9 * MINUTE)
    assert asked.troubles == []
    assert asked.coverage(ONE, [newest]) == [minute("IBM", START + 3 * DAY)]
    assert len(list(temporary.iterdir())) == 1
    asked.close()
    assert list(temporary.iterdir()) == []
    with pytest.raises(UsageError, match="holds no csv file"):
        asked.coverage(ONE, ranges)


def test_options_are_those_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("2018-11-23|09:31|1|2|1|2|7\n")
    asked = source(
        "csv",
        tmp_path / "x.txt",
        label="close",
        delimiter="|",
        header=False,
        symbol="BRK.B",
        columns={"date": 1, "time": 2},
    )
    assert keys(asked.bars(ONE, [minute("BRK.B")])) == [("BRK.B", START, 2.0)]
    asked.close()


def test_parquet_is_read_in_pieces_and_the_last_row_of_a_key_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_coord.sources.parquet.PIECE_ROWS", 10)
    monkeypatch.setattr(shelf, "BATCH_ROWS", 25)
    starts = [START + n * MINUTE for n in range(100)]
    table = pl.DataFrame({"symbol": ["IBM"] * 100, "t": starts})
    table = table.with_columns(pl.lit(5.0).alias(name) for name in "ohlcv")
    last = table[:1].with_columns(h=pl.lit(9.0), c=pl.lit(9.0))
    pl.concat([table, last]).write_parquet(tmp_path / "x.parquet")
    columns = dict(zip(("open", "high", "low", "close", "volume"), "ohlcv", strict=True))
    asked = source(
        "parquet", tmp_path / "x.parquet", time_format="epoch-us", columns=columns | {"time": "t"}
    )
    everything = BarRange("IBM", MIDNIGHT, MIDNIGHT + DAY)
    found = keys(asked.bars(ONE, [everything]))
    assert found == [("IBM", at, 9.0 if at == START else 5.0) for at in starts]
    asked.close()


def test_a_row_that_is_no_bar_is_answered_as_none_and_not_as_silence(tmp_path: Path) -> None:
    bad = "IBM,2018-11-23 09:31:00,10,5,9,11,100\nIBM,2018-11-23 09:32:00,0,0,-1,0,1\nIBM,?,,,,,\n"
    (tmp_path / "a.csv").write_text(CSV + bad)
    asked = source("csv", tmp_path / "a.csv")
    hour = BarRange("IBM", START, START + 60 * MINUTE)
    frame = asked.bars(ONE, [hour]).sort("start")
    assert frame["start"].to_list() == [START, START + MINUTE, START + 2 * MINUTE]
    assert frame["close"].is_nan().to_list() == [False, True, False]  # 09:32 has a good row too
    asked.close()
    allowed = source("csv", tmp_path / "a.csv", allow_nonpositive=["IBM"])
    assert keys(allowed.bars(ONE, [hour]))[-1] == ("IBM", START + 2 * MINUTE, 0.0)
    allowed.close()


def test_files_that_cannot_be_used_are_failures_and_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    asked = source("csv", path)
    with pytest.raises(UsageError, match="does not exist"):
        asked.coverage(ONE, [minute("IBM")])
    path.write_text(CSV.splitlines()[0] + "\nIBM,2018-11-23 09:31:00,10,5,9,11,100\n")
    with pytest.raises(SourceError, match=r"no row of .* is a bar; .*: high-too-low"):
        asked.coverage(ONE, [minute("IBM")])
    path.write_bytes(b"PAR1")
    with pytest.raises(InputFileError, match="is a Parquet file"):
        asked.coverage(ONE, [minute("IBM")])
    path.write_text(CSV)
    assert asked.coverage(ONE, [minute("IBM")]) == [minute("IBM")]
    asked.close()


def lean_file(root: Path, day: str, symbol: str, at: str = "equity/usa/minute") -> None:
    folder = root / at / symbol
    folder.mkdir(parents=True, exist_ok=True)
    bar = "34200000,100000,120000,90000,110000,100"  # 09:30: 10, 12, 9, 11
    with zipfile.ZipFile(folder / f"{day}_trade.zip", "w") as archive:
        archive.writestr(f"{day}_{symbol}_minute_trade.csv", bar)


def test_lean_reads_only_files_of_the_symbols_and_dates_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("20181121", "20181123", "20181126"):
        for symbol in ("ibm", "aig"):
            lean_file(tmp_path, day, symbol)
    lean_file(tmp_path, "20181123", "ibm", at="equity/usa/second")
    read: list[str] = []
    real = LeanFormat.parts

    def parts(fmt: LeanFormat, path: Path, interval: Interval) -> Iterator[Part]:
        read.append(path.parent.name + path.name[:8])
        return real(fmt, path, interval)

    monkeypatch.setattr(LeanFormat, "parts", parts)
    asked = source("lean", tmp_path)
    assert asked.coverage(ONE, [minute("IBM")]) == [minute("IBM")]
    assert keys(asked.bars(ONE, [minute("IBM")])) == [("IBM", START, 11.0)]
    assert read == ["ibm20181123"]
    midnight = MIDNIGHT + 5 * 60 * MINUTE  # in New York
    days = [BarRange(s, midnight - DAY, MIDNIGHT + 3 * DAY) for s in ("AIG", "IBM", "X")]
    assert asked.coverage(ONE, days) == [
        BarRange("AIG", midnight, midnight + DAY),
        BarRange("IBM", midnight, midnight + DAY),
    ]
    assert asked.bars(ONE, [minute("IBM", START + MINUTE)]).is_empty()
    assert read == ["ibm20181123", "aig20181123"]
    assert asked.coverage(Interval(5 * MINUTE), days) == []
    asked.close()


def test_a_lean_file_covers_its_day_in_new_york_be_it_of_25_hours(tmp_path: Path) -> None:
    lean_file(tmp_path, "20181104", "ibm")
    lean_file(tmp_path, "20181106", "ibm")
    asked = source("lean", tmp_path)
    eastern_midnight = 1_541_304_000_000_000  # 2018-11-04 04:00 UTC
    around = BarRange("IBM", eastern_midnight - DAY, eastern_midnight + 2 * DAY)
    day = BarRange("IBM", eastern_midnight, eastern_midnight + 25 * 60 * MINUTE)
    # The newest file may be that of a day that is not over: up to its last bar, of 09:30.
    third = eastern_midnight + (25 + 24) * 60 * MINUTE
    newest = BarRange("IBM", third, third + (9 * 60 + 31) * MINUTE)
    assert asked.coverage(ONE, [around]) == [day]
    around = BarRange("IBM", eastern_midnight, eastern_midnight + 9 * DAY)
    assert asked.coverage(ONE, [around]) == [day, newest]
    asked.close()


def test_a_lean_file_that_cannot_be_read_fails_its_symbol_and_day_and_is_tried_again(
    tmp_path: Path,
) -> None:
    for symbol in ("aig", "ibm"):
        lean_file(tmp_path, "20181123", symbol)
    path = tmp_path / "equity/usa/minute/ibm/20181123_trade.zip"
    content = path.read_bytes()
    path.write_bytes(content[:40])
    asked = source("lean", tmp_path)
    with pytest.raises(SourceError, match="20181123_trade"):
        asked.coverage(ONE, [minute("IBM")])
    both = [minute("AIG"), minute("IBM")]
    assert asked.coverage(ONE, both) == [minute("AIG")]
    assert "20181123_trade" in asked.troubles[0]
    assert keys(asked.bars(ONE, both)) == [("AIG", START, 11.0)]
    path.write_bytes(content)
    assert asked.coverage(ONE, both) == both
    assert asked.troubles == []
    asked.close()


def test_a_lean_market_without_a_known_zone_fails_only_its_own_symbols(tmp_path: Path) -> None:
    lean_file(tmp_path, "20181123", "ibm")
    lean_file(tmp_path, "20181123", "sap", at="equity/xetra/minute")
    asked = source("lean", tmp_path)
    both = [minute("IBM"), minute("SAP")]
    assert asked.coverage(ONE, both) == [minute("IBM")]
    assert "its market is 'xetra'. State it with tz" in asked.troubles[0]
    asked.close()


def test_a_lean_line_without_a_readable_time_takes_its_day_but_for_its_bars(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "equity/usa/minute/ibm"
    folder.mkdir(parents=True)
    prices = "100000,120000,90000,110000,100"
    for day, lines in (
        ("20181123", ["34200000", "3426x000", "34320000"]),
        ("20181126", ["34200000"]),
    ):
        with zipfile.ZipFile(folder / f"{day}_trade.zip", "w") as archive:
            archive.writestr(f"{day}.csv", "\n".join(f"{time},{prices}" for time in lines))
    asked = source("lean", tmp_path)
    hour = BarRange("IBM", START, START + 60 * MINUTE)
    assert asked.coverage(ONE, [hour]) == [minute("IBM"), minute("IBM", START + 2 * MINUTE)]
    with pytest.raises(SourceError, match=r"row 2 of .*20181123_trade.zip: unparsable: time"):
        asked.coverage(ONE, [minute("IBM", START + MINUTE)])
    asked.close()


HEAD = "symbol,time,open,high,low,close,volume\n"


def rows(symbol: str, *times: str) -> str:
    return "".join(f"{symbol},{time},10,12,9,11,100\n" for time in times)


def covered_minutes(asked: Any, *symbols: str, first: int = MIDNIGHT, days: int = 1) -> set[Any]:
    """Return the minutes of whole UTC days that a source covers."""
    ranges = [BarRange(symbol, first, first + days * DAY) for symbol in sorted(symbols)]
    return {
        (part.symbol, at)
        for part in asked.coverage(ONE, ranges)
        for at in range(part.start, part.end, MINUTE)
    }


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


DAYS = ("2018-11-21", "2018-11-22", "2018-11-23", "2018-11-26")


@pytest.mark.parametrize(
    ("bad", "of"),
    [
        (rows("IBM", "2018-11-22 14:31:0x"), {"IBM"}),
        (rows("", "2018-11-22 14:31:0x"), {"AIG", "IBM"}),
        (rows("IBM", ""), {"IBM"}),
        (rows("IBM", "3018-11-22 14:31:00"), {"IBM"}),
        ("IBM,2018-11-2\n", {"AIG", "IBM"}),  # torn
        ('"IBM,2018-11-22 14:31:00,1,1,1,1,1\n', {"AIG", "IBM"}),
    ],
)
@pytest.mark.parametrize("order", ["time", "falling", "symbol", "none"])
@pytest.mark.parametrize("piece", [10, 4 << 20])
def test_days_around_a_row_without_a_readable_time_are_covered_only_where_bars_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: str,
    of: set[str],
    order: str,
    piece: int,
) -> None:
    monkeypatch.setattr("stream_coord.sources.csv.BLOCK_BYTES", piece)
    good = {
        (symbol, f"{day} 14:{at}:00")
        for symbol in ("AIG", "IBM")
        for day in DAYS
        for at in (30, 32)
    }
    lines = sorted(good, key=lambda key: key[::-1] if order in {"time", "falling"} else key)
    if order == "falling":
        lines.reverse()
    if order == "none":
        lines = lines[1::2] + lines[::2][::-1]
    at = lines.index(
        ("IBM", "2018-11-22 14:30:00" if order != "falling" else "2018-11-22 14:32:00")
    )
    text = [rows(symbol, time) for symbol, time in lines]
    (tmp_path / "a.csv").write_text(HEAD + "".join([*text[: at + 1], bad, *text[at + 1 :]]))
    asked = source("csv", tmp_path / "a.csv", tz="UTC")
    first = utc(DAYS[0])
    found = covered_minutes(asked, "AIG", "IBM", first=first, days=9)
    bars = {(symbol, utc(time)) for symbol, time in good}
    assert bars <= found
    # Whatever day it is of, nobody takes a minute of it for empty where the row may be.
    doubtful = {
        s
        for s in of
        if not any(
            k not in bars and k[0] == s and k[1] // DAY == utc(DAYS[1]) // DAY for k in found
        )
    }
    assert doubtful == of
    sure = ("AIG", utc("2018-11-23 09:00:00"))
    assert (sure in found) == (order != "none" or "AIG" not in of)
    assert "row " in asked.troubles[0]
    assert "a.csv" in asked.troubles[0]
    asked.close()


def test_a_row_without_a_readable_symbol_takes_its_minute_from_all(tmp_path: Path) -> None:
    lines = [rows(s, f"2018-11-23 14:{at}:00") for at in (30, 35) for s in ("AIG", "IBM")]
    bad = rows("", "2018-11-23 14:32:00") + rows("I?M", "2018-11-23 14:33:00")
    (tmp_path / "a.csv").write_text(HEAD + "".join([*lines[:2], bad, *lines[2:]]))
    asked = source("csv", tmp_path / "a.csv", tz="UTC")
    found = covered_minutes(asked, "AIG", "IBM")
    missing = {at for at in range(START, START + 6 * MINUTE, MINUTE) if ("AIG", at) not in found}
    assert missing == {START + 2 * MINUTE, START + 3 * MINUTE}
    assert missing == {
        at for at in range(START, START + 6 * MINUTE, MINUTE) if ("IBM", at) not in found
    }
    asked.close()


def test_an_hour_that_clocks_show_twice_is_not_taken_for_empty(tmp_path: Path) -> None:
    """Around the clock in New York, from the evening of 2018-11-03 for three days."""
    begin = datetime(2018, 11, 4, tzinfo=UTC)
    moments = [begin + timedelta(minutes=n) for n in range(3 * 24 * 60)]
    local = [
        at.astimezone(ZoneInfo("America/New_York")).strftime("%Y-%m-%d %H:%M:%S") for at in moments
    ]
    (tmp_path / "a.csv").write_text(HEAD + rows("BTC", *local[:600], *local[660:]))
    asked = source("csv", tmp_path / "a.csv")
    found = covered_minutes(asked, "BTC", first=utc("2018-11-04"), days=3)
    held = {round(at.timestamp()) * 1_000_000 for at in moments}
    twice = {at for at in held if utc("2018-11-04 05:00:00") <= at < utc("2018-11-04 07:00:00")}
    hole = {at for at in held if utc("2018-11-04 10:00:00") <= at < utc("2018-11-04 11:00:00")}
    assert {at for _, at in found} == held - twice - hole  # the hole is on the same day
    asked.close()


@pytest.mark.parametrize(
    ("step", "rows_", "said"), [(5, 10, "5m"), (15, 12, "15m"), (60, 24, "1h"), (2, 30, "2m")]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_bars_of_a_coarser_interval_are_refused(
    tmp_path: Path, step: int, rows_: int, said: str, kind: str
) -> None:
    starts = [START - 30 * MINUTE + n * step * MINUTE for n in range(rows_)]
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), [5.0] * rows_)
    table = pl.DataFrame({"symbol": ["IBM"] * rows_, "time": starts, **values})
    path = tmp_path / f"x.{kind}"
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    asked = source(kind, path, time_format="epoch-us")
    with pytest.raises(SourceError, match=f"x.{kind} seems to hold bars of {said}, not of 1m"):
        asked.coverage(ONE, [minute("IBM")])
    if step == 5:
        assert asked.coverage(Interval(5 * MINUTE), [minute("IBM")]) == [minute("IBM")]
    asked.close()


def test_illiquid_symbols_are_not_taken_for_coarser_bars(tmp_path: Path) -> None:
    """Fifteen bars each of 300 symbols, at any minute; and one in closing auctions only."""
    random = np.random.default_rng(7)
    lines = [
        rows(f"S{n}", *(f"2018-11-23 {10 + at // 60}:{at % 60:02}:00" for at in sorted(times)))
        for n in range(300)
        for times in [random.choice(360, 15, replace=False).tolist()]
    ]
    lines.append(rows("AUC", *(f"2018-10-{day:02} 16:00:00" for day in range(1, 29))))
    (tmp_path / "a.csv").write_text(HEAD + "".join(lines))
    asked = source("csv", tmp_path / "a.csv", tz="UTC")
    assert len(covered_minutes(asked, "S1", "AUC")) > 0
    asked.close()


def test_a_day_is_stored_once_however_many_batches_its_rows_come_in(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_coord.sources.csv.BLOCK_BYTES", 400)
    monkeypatch.setattr(shelf, "BATCH_ROWS", 20)
    times = [f"2018-11-{day} 14:{at}:00" for day in (21, 22, 23) for at in range(30, 40)]
    symbols = [f"S{n:02}" for n in range(40)]
    text = "".join(rows(symbol, *times) for symbol in symbols)
    (tmp_path / "a.csv").write_text(HEAD + text + "S07,2018-11-22 14:30:00,1,1,1,1,1\n")
    asked = source("csv", tmp_path / "a.csv", tz="UTC")
    ranges = [BarRange(symbol, utc("2018-11-21"), utc("2018-11-24")) for symbol in symbols]
    found = keys(asked.bars(ONE, ranges))
    assert found == [
        (s, utc(at), 1.0 if (s, at) == ("S07", "2018-11-22 14:30:00") else 11.0)
        for s in symbols
        for at in times
    ]
    assert len(list(temporary.rglob("*.parquet"))) == 3
    asked.close()


def test_too_many_bad_rows_end_the_reading_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_coord.sources.csv.BLOCK_BYTES", 200)
    monkeypatch.setattr(shelf, "MOST_BAD_ROWS", 3)
    pieces: list[int] = []
    real = validate

    def counted(frame: pl.DataFrame, *more: Any) -> Any:
        pieces.append(len(frame))
        return real(frame, *more)

    monkeypatch.setattr(shelf, "validate", counted)
    (tmp_path / "a.csv").write_text(CSV + rows("IBM", *["?"] * 1_000))
    with pytest.raises(SourceError, match="too many rows are no bars"):
        source("csv", tmp_path / "a.csv").coverage(ONE, [minute("IBM")])
    assert sum(pieces) < 50


def test_a_home_folder_of_nobody_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"'~nobodyx/f.csv' begins with the home folder"):
        source("csv", "~nobodyx/f.csv")


def test_lean_futures_are_asked_by_contract(tmp_path: Path) -> None:
    folder = tmp_path / "future/cme/minute/es"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "20181123_trade.zip", "w") as archive:
        for expiry, price in (("201812", 7), ("201903", 8)):
            name = f"20181123_es_minute_trade_{expiry}.csv"
            archive.writestr(name, f"52200000,{price},{price},{price},{price},1")
    asked = source("lean", tmp_path)
    ranges = [minute("ES.201812"), minute("ES.201903"), minute("ES.202003")]
    assert asked.coverage(ONE, ranges) == ranges[:2]
    answer = [("ES.201812", START, 7.0), ("ES.201903", START, 8.0)]
    assert keys(asked.bars(ONE, ranges)) == answer
    asked.close()


def test_real_lean_bars_cover_their_sessions(real_bars: Path) -> None:
    asked = source("lean", real_bars)
    (path,) = sorted(real_bars.rglob("equity/usa/minute/ibm/*_trade.zip"))[:1]
    day = pl.Series([path.name[:8]]).str.to_date("%Y%m%d").cast(pl.Int32)[0] * DAY
    session = BarRange("IBM", day + 13 * 60 * MINUTE, day + 21 * 60 * MINUTE)
    assert asked.coverage(ONE, [session]) == [session]
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(archive.namelist()[0]).splitlines()
    bars = asked.bars(ONE, [BarRange("IBM", day, day + 2 * DAY)])
    assert 0 < len(bars.filter(pl.col("start") < day + DAY)) <= len(lines)
    asked.close()


def test_what_is_kept_aside_goes_when_the_interpreter_ends(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    code = (
        "import sys; from pathlib import Path\n"
        "from stream_coord.config.settings import SourceSettings\n"
        "from stream_coord.interval import Interval\n"
        "from stream_coord.sources.files import TableFilesSource\n"
        "from stream_coord.sources.protocol import BarRange\n"
        "s = SourceSettings(name='a', kind='csv', path='a.csv',\n"
        "    options={'label': 'open', 'tz': 'UTC'})\n"
        "source = TableFilesSource(s, Path(sys.argv[1]))\n"
        "print(source.coverage(Interval.parse('1m'), [BarRange('IBM', 0, 2**51)]))\n"
        "print(len(list(Path(sys.argv[2]).iterdir())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, temporary],
        env={"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "BarRange(symbol='IBM'" in done.stdout
    assert done.stdout.endswith("\n1\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "options", "text", "said"),
    [
        (
            "csv",
            {"tz": None},
            HEAD + "A,2018-11-23 14:30,1,1,1,1,1",
            'zone is stated. State the zone with tz, for example tz = "America/New_York".',
        ),
        (
            "csv",
            {},
            HEAD.replace("close", "last"),
            'volume. State the right one with columns = { close = "HEADER" }.',
        ),
        (
            "csv",
            {},
            HEAD.replace("symbol", "ticker"),
            'State symbol = "SYMBOL" or columns = { symbol = "HEADER" }.',
        ),
        (
            "csv",
            {"header": False, "symbol": "A"},
            "1,1\n",
            "State the numbers with columns = { field = NUMBER }, or the right delimiter.",
        ),
    ],
)
def test_what_is_told_of_a_file_is_told_as_settings_are_written(
    tmp_path: Path, kind: str, options: dict[str, Any], text: str, said: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    stated = {"label": "open", "tz": "UTC"} | options
    settings = SourceSettings(
        name="f",
        kind=kind,
        path=str(path),
        options={key: value for key, value in stated.items() if value is not None},
    )
    asked = GuardedSource(TableFilesSource(settings, Path("/")), str)
    with pytest.raises(SourceError, match=re.escape(said)) as failed:
        asked.coverage(ONE, [minute("A")])
    assert "--" not in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("csv", {"label": "no"}, "options.label = 'no': must be"),
        ("csv", {"delimiter": "ab"}, "cannot separate fields"),
        ("csv", {"header": "yes"}, "options.header = 'yes': must be true or false"),
        ("parquet", {"header": True}, "unknown key options.header"),
        ("lean", {"label": "open"}, "unknown key options.label; allowed: tz, symbol"),
        ("lean", {"tz": "Mars"}, "not a time zone"),
    ],
)
def test_wrong_options_are_refused_before_a_file_is_opened(
    kind: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        source(kind, "nowhere", **options)


def test_a_path_and_a_label_must_be_stated() -> None:
    with pytest.raises(ConfigError, match=r"path: is missing; .* has one in place of url"):
        TableFilesSource(
            SourceSettings(name="f", kind="csv", url="x", options={"label": "open"}), Path("/")
        )
    with pytest.raises(ConfigError, match=r"options.label: is missing"):
        TableFilesSource(SourceSettings(name="f", kind="csv", path="x"), Path("/"))


ROWS = st.lists(
    st.tuples(st.sampled_from(["A", "B", None]), st.integers(0, 5) | st.none()), max_size=12
)


def days_in_doubt(rows_: list[tuple[str | None, int | None]]) -> set[tuple[str | None, int]]:
    """Return which days of which symbols the rows without a time may be of, row by row."""
    read = [(n, symbol, day) for n, (symbol, day) in enumerate(rows_) if day is not None]
    days = [day for _, _, day in read]
    steps = list(pairwise(read))
    own = [(a[2], b[2]) for a, b in steps if a[1] == b[1]]
    in_order = sorted(days) in (days, days[::-1])
    own_order = all(a <= b for a, b in own) or all(a >= b for a, b in own)
    found = set()
    for n, (symbol, day) in enumerate(rows_):
        if day is not None:
            continue
        around = [row for row in read if row[0] < n][-1:] + [row for row in read if row[0] > n][:1]
        names = {row[1] for row in around}
        alone = len(names) == 1 and (symbol is None or names == {symbol})
        near = [row[2] for row in around] if in_order or (alone and own_order) else days
        found |= {(symbol, at) for at in range(min(near), max(near) + 1)}
    return found


@given(ROWS, st.lists(st.integers(0, 12), max_size=4), st.booleans())
def test_rows_without_a_time_are_of_the_days_between_their_neighbours(
    rows_: list[tuple[str | None, int | None]], cuts: list[int], ordered: bool
) -> None:
    if ordered:
        days = iter(sorted(day for _, day in rows_ if day is not None))
        rows_ = [(symbol, None if day is None else next(days)) for symbol, day in rows_]
    if all(day is None for _, day in rows_):
        return
    order = PartOrder()
    schema = {"symbol": pl.String, "start": pl.Int64}
    timed = [(symbol, None if day is None else day * DAY + 7 * MINUTE) for symbol, day in rows_]
    for begin, end in pairwise([0, *sorted(cuts), len(rows_)]):
        order.add(pl.DataFrame(timed[begin:end], schema=schema, orient="row"))
    found = {(symbol, at) for symbol, (a, b) in order.spans() for at in range(a // DAY, b // DAY)}
    assert found == days_in_doubt(rows_)
