"""Files as sources: read once, asked like a store; LEAN's only where they are asked for."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, InputFileError, SourceError, UsageError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources import files
from stream_coord.sources.base import Part
from stream_coord.sources.files import LeanSource, TableFilesSource
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
    monkeypatch.setattr(files, "BATCH_ROWS", 25)
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
    asked = source("lean", tmp_path)
    eastern_midnight = 1_541_304_000_000_000  # 2018-11-04 04:00 UTC
    around = BarRange("IBM", eastern_midnight - DAY, eastern_midnight + 2 * DAY)
    day = BarRange("IBM", eastern_midnight, eastern_midnight + 25 * 60 * MINUTE)
    assert asked.coverage(ONE, [around]) == [day]
    asked.close()


def test_a_lean_file_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    lean_file(tmp_path, "20181123", "ibm")
    path = tmp_path / "equity/usa/minute/ibm/20181123_trade.zip"
    content = path.read_bytes()
    path.write_bytes(content[:40])
    asked = source("lean", tmp_path)
    with pytest.raises(InputFileError, match="20181123_trade"):
        asked.coverage(ONE, [minute("IBM")])
    path.write_bytes(content)
    assert asked.coverage(ONE, [minute("IBM")]) == [minute("IBM")]
    asked.close()


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
