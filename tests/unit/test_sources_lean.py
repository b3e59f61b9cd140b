"""LEAN's minute files: everything is in the path, and nothing is lost."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from stream_coord.bars import Symbol
from stream_coord.clock import parse_moment
from stream_coord.errors import InputFileError, UsageError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources.base import Part, RawBars, find_files
from stream_coord.sources.lean import LeanFormat

ONE_MINUTE = Interval(MINUTE)
LEAN = LeanFormat()
REAL = Path(os.environ.get("SC_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "lean"
LINE = "34200000,488000,488100,487900,488050,1000\n"
SPY = "equity/usa/minute/spy/20131007_trade.zip"


def write(root: Path, place: str, *members: tuple[str, str]) -> Path:
    """Write a zip of members (name, content) where LEAN would keep it."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members or [("x.csv", LINE)]:
            archive.writestr(name, content)
    return path


def read_all(path: Path, fmt: LeanFormat = LEAN) -> list[tuple[Part, RawBars]]:
    """Return the parts of a file with what they hold."""
    return [(part, part.read()) for part in fmt.parts(path, ONE_MINUTE)]


def read(path: Path, fmt: LeanFormat = LEAN) -> RawBars:
    """Return what a file with one part holds."""
    ((part, raw),) = read_all(path, fmt)
    assert part.name == str(path)
    return raw


def test_a_us_share(tmp_path: Path) -> None:
    """New York time, prices in ten-thousandths, symbol in upper case."""
    start = parse_moment("2013-10-07T13:30:00Z")
    expected = [("SPY", start, 48.80, 48.81, 48.79, 48.805, 1000, 1, None)]
    assert read(write(tmp_path, SPY)).frame.rows() == expected


def test_a_coin(tmp_path: Path) -> None:
    """UTC, plain decimals."""
    path = write(
        tmp_path,
        "crypto/coinbase/minute/btcusd/20180404_trade.zip",
        ("20180404_btcusd_minute_trade.csv", "60000,7420,7422.5,7405,7405,13.35069752\n"),
    )
    start = parse_moment("2018-04-04T00:01:00Z")
    expected = [("BTCUSD", start, 7420, 7422.5, 7405, 7405, 13.35069752, 1, None)]
    assert read(path).frame.rows() == expected


def test_a_future_has_a_member_per_expiry(tmp_path: Path) -> None:
    line = "79200000,1676.75,1677.25,1673.5,1675.25,1884\n"
    path = write(
        tmp_path,
        "future/cme/minute/es/20131006_trade.zip",
        ("20131006_es_minute_trade_201312.csv", line),
        ("20131006_es_minute_trade_201403_20140321.csv", line),
        ("20131006_es_minute_trade_20140620.csv", line),
        ("readme.txt", line),
    )
    parts = LEAN.parts(path, ONE_MINUTE)
    start = parse_moment("2013-10-06T22:00:00Z")
    for symbol in ("ES.201312", "ES.201403", "ES.20140620"):
        row = (symbol, start, 1676.75, 1677.25, 1673.5, 1675.25, 1884, 1, None)
        assert next(parts).read().frame.rows() == [row]
    with pytest.raises(InputFileError, match=r"es/20131006_trade\.zip!readme\.txt does not name"):
        next(parts).read()


@pytest.mark.parametrize("symbol", [None, Symbol.parse("TEST")])
def test_a_single_contract_is_named_by_its_member(tmp_path: Path, symbol: Symbol | None) -> None:
    """Whatever the path is called."""
    path = write(
        tmp_path / "wow!",
        "future/cme/minute/es/20131006_trade.zip",
        ("20131006_es_minute_trade_201312.csv", "79200000,1676.75,1677.25,1673.5,1675.25,1884\n"),
    )
    frame = read(path, LeanFormat(symbol=symbol)).frame
    assert frame["symbol"].to_list() == [symbol or "ES.201312"]
    nameless = write(tmp_path, "future/cme/minute/nq/20131006_trade.zip", ("x.csv", LINE))
    with pytest.raises(InputFileError, match=r"trade\.zip!x\.csv does not name its expiry"):
        read(nameless)


def test_prices_are_the_closest_doubles(tmp_path: Path) -> None:
    """As if the decimals had been written: n / 10000, not n * 0.0001; also in a file of one row."""
    prices = range(1, 20_000, 7)
    lines = [f"{n % 1440 * 60_000},{p},{p},{p},{p},1" for n, p in enumerate(prices)]
    path = write(tmp_path, SPY, ("x.csv", "\n".join(lines)))
    expected = [float(f"{p // 10_000}.{p % 10_000:04}") for p in prices]
    for name in ("open", "high", "low", "close"):
        assert read(path).frame[name].to_list() == expected
    one = write(tmp_path, SPY, ("x.csv", "0,3,6,3,3,1"))
    assert read(one).frame.select("open", "high").rows() == [(0.0003, 0.0006)]


def test_times_are_those_of_a_clock_on_the_wall(tmp_path: Path) -> None:
    """On 2013-03-10 New York skipped 02:00 to 03:00: 09:30 is eight and a half hours later."""
    hour = 3_600_000
    path = write(
        tmp_path,
        "equity/usa/minute/spy/20130310_trade.zip",
        ("x.csv", "".join(f"{ms},1,1,1,1,1\n" for ms in (0, 5 * hour // 2, 19 * hour // 2))),
    )
    frame = read(path).frame
    assert frame["start"].to_list() == [
        parse_moment("2013-03-10T05:00:00Z"),
        None,
        parse_moment("2013-03-10T13:30:00Z"),
    ]
    assert frame["reason"][1] == "nonexistent-time: clocks in America/New_York skip it"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("86400000,1,1,1,1,1", "out-of-range: the time is not within the file's day"),
        ("-1,1,1,1,1,1", "out-of-range: the time is not within the file's day"),
        ("x,1,1,1,1,1", "unparsable: time"),
        (",1,1,1,1,1", "unparsable: time"),
        ("99999999999999999999,1,1,1,1,1", "unparsable: time"),
        ("0,1,1,1,1", "bad-line: not 6 fields"),
        ("0,1,1,1,1,1,1", "bad-line: not 6 fields"),
        ("0,x,1,1,1,1", None),
    ],
)
def test_a_bad_line_does_not_stop_the_others(tmp_path: Path, line: str, reason: str | None) -> None:
    raw = read(write(tmp_path, SPY, ("x.csv", f"{LINE}{line}\n{LINE}")))
    assert raw.frame["open"].to_list()[::2] == [48.8, 48.8]
    assert raw.frame["reason"].to_list() == [None, reason, None]
    assert raw.frame["open"][1] in {None, 0.0001}
    assert raw.raw([2]) == [line]


def test_zone_and_symbol_can_be_stated(tmp_path: Path) -> None:
    fmt = LeanFormat(tz="Europe/London", symbol=Symbol.parse("TEST"))
    frame = read(write(tmp_path, "equity/lse/minute/abc/20131007_trade.zip"), fmt).frame
    assert frame["symbol"].to_list() == ["TEST"]
    assert frame["start"].to_list() == [parse_moment("2013-10-07T08:30:00Z")]


def test_one_symbol_for_several_contracts_is_wrong_usage(tmp_path: Path) -> None:
    path = write(tmp_path, "future/cme/minute/es/20131006_trade.zip", ("a", LINE), ("b", LINE))
    fmt = LeanFormat(symbol=Symbol.parse("ES"))
    with pytest.raises(UsageError, match=r"!a is one of several contracts"):
        next(fmt.parts(path, ONE_MINUTE)).read()


def test_a_market_of_unknown_zone_needs_one_stated(tmp_path: Path) -> None:
    path = write(tmp_path, "equity/india/minute/tcs/20131007_trade.zip")
    with pytest.raises(UsageError, match=r"its market is 'india'\n.*--tz"):
        next(LEAN.parts(path, ONE_MINUTE))


def test_the_interval_is_that_of_the_path(tmp_path: Path) -> None:
    path = write(tmp_path, SPY)
    with pytest.raises(InputFileError, match="holds bars of 1m, not of 5m"):
        next(LEAN.parts(path, Interval.parse("5m")))
    seconds = write(tmp_path, SPY.replace("minute", "second"), ("x.csv", "1000,1,1,1,1,1"))
    (part,) = LEAN.parts(seconds, Interval.parse("1s"))
    assert part.read().frame["start"].to_list() == [parse_moment("2013-10-07T04:00:01Z")]


@pytest.mark.parametrize(
    "place",
    [
        "20131007_trade.zip",
        "equity/usa/minute/spy/20131307_trade.zip",
        "equity/usa/minute/spy/20131007_quote.zip",
        "equity/usa/daily/spy/20131007_trade.zip",
        "option/usa/minute/spy/20131007_trade.zip",
        "equity/usa/minute/s py/20131007_trade.zip",
        "equity/usa/minute/a..b/20131007_trade.zip",
    ],
)
def test_a_path_that_says_nothing_is_an_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputFileError, match=r"is not where LEAN keeps trades\n.*KIND/MARKET/min"):
        next(LEAN.parts(write(tmp_path, place), ONE_MINUTE))


def test_what_is_no_lean_file_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, SPY)
    path.write_bytes(b"34200000,1,1,1,1,1\n")
    with pytest.raises(InputFileError, match="is not a zip archive"):
        read(path)
    path.write_bytes(b"PK\x03\x04" + b"x" * 40)
    with pytest.raises(InputFileError, match="cannot be unpacked"):
        read(path)
    with pytest.raises(InputFileError, match="without a file in it"):
        read(write(tmp_path, SPY, ("folder/", "")))
    with pytest.raises(InputFileError, match=r"trade\.zip is empty"):
        read(write(tmp_path, SPY, ("x.csv", "")))
    with pytest.raises(InputFileError, match="no line of it has 6 fields"):
        read(write(tmp_path, SPY, ("x.csv", "<html>\n</html>")))
    with (
        pytest.raises(InputFileError, match="two files of one name"),
        pytest.warns(match="Duplicate"),
    ):
        read(write(tmp_path, SPY, ("x.csv", LINE), ("x.csv", LINE)))


def test_a_folder_is_walked_day_by_day(tmp_path: Path) -> None:
    names = ["spy/20131008_trade.zip", "spy/20131007_trade.zip", "aig/20131008_trade.zip"]
    paths = [write(tmp_path, f"equity/usa/minute/{name}") for name in names]
    write(tmp_path, "equity/usa/minute/spy/20131008_quote.zip")
    assert find_files([tmp_path], LEAN) == [paths[1], paths[2], paths[0]]


def test_a_file_may_be_named_from_a_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, SPY)
    (beside := path.parents[1] / "aig").mkdir()
    monkeypatch.chdir(beside)
    (found,) = find_files([Path("../spy")], LEAN)
    assert read(found).frame["symbol"].to_list() == ["SPY"]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real bars at {REAL} (SC_REAL_DATA)")
def test_every_line_of_the_real_files_is_read() -> None:
    for path in find_files([REAL], LEAN):
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(name).decode().splitlines() for name in archive.namelist()]
        for lines, (_, raw) in zip(texts, read_all(path), strict=True):
            assert len(raw.frame) == len(lines)
            assert raw.frame["reason"].null_count() == len(lines)
            scale = 10_000 if "equity" in path.parts else 1
            closes = [float(line.split(",")[4]) / scale for line in lines]
            assert raw.frame["close"].to_list() == closes
