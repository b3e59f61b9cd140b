"""History and splits in the installed command, on real minute bars; counted without our code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest

from stream_coord.calendars import open_calendar
from stream_coord.coordinator import Coordinator
from stream_coord.history import History
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.stores import open_store

SIX_SESSIONS = ("2013-10-04", "2013-10-07", "2013-10-08", "2013-10-09", "2013-10-10", "2013-10-11")
ONE_MINUTE = Interval.parse("1m")

STRATEGY = '''
from stream_coord.strategy import Strategy

def now(call):
    """Return what an awaitable call of the session store answers: all of them answer at once."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value

class Mornings(Strategy):
    """Notes what is held at each session's start and at the end of its first minute."""

    symbol = "SPY"

    def __init__(self):
        self.found = {}

    def note(self, name):
        bars = now(self.session.aio.get_all_bars_including_historical(self.symbol))
        same = self.session.all_bars(self.symbol)
        assert list(bars) == list(same)
        last = self.session.last_n(self.symbol, 200)
        day = self.session.session.date.isoformat()
        self.found.setdefault(day, {})[name] = {
            "now": self.session.now,
            "bars": len(bars),
            "oldest": bars[0].start if bars else None,
            "newest": bars[-1].start if bars else None,
            "closes": last.close.tolist(),
            "volumes": last.volume.tolist(),
            "days": self.session.all_bars(self.symbol, "1d").close.tolist(),
        }

    def on_session_start(self):
        self.note("start")
        self.first = True

    def on_step(self, now):
        if self.first:
            self.note("first")
            self.first = False

    def result(self):
        return self.found

class Apple(Mornings):
    symbol = "AAPL"
'''
MORNINGS = ("--strategy", "mornings.py:Mornings", "--json")
APPLE = ("--strategy", "mornings.py:Apple", "--json")

Run = Callable[..., Any]


def new_york(text: str) -> int:
    """Return UTC microseconds of a New York time in summer."""
    at = datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(hours=4)
    return int(at.timestamp()) * 1_000_000


def regular_bars(folder: Path, day: str) -> pl.DataFrame:
    """Read a LEAN file with polars alone: the regular minutes' start, close and volume."""
    (path,) = folder.glob(f"{day.replace('-', '')}_*.zip")
    with ZipFile(path) as archive:
        text = archive.read(archive.namelist()[0])
    columns = ["ms", "open", "high", "low", "close", "volume"]
    frame = pl.read_csv(text, has_header=False, new_columns=columns)
    midnight = new_york(f"{day}T00:00")
    opened, closed = (9 * 60 + 30) * 60_000, 16 * 3_600_000
    return frame.filter((pl.col("ms") >= opened) & (pl.col("ms") < closed)).select(
        start=midnight + pl.col("ms") * 1000,
        close=pl.col("close") / 10_000,
        volume=pl.col("volume").cast(pl.Float64),
    )


def project(folder: Path, bars: Iterable[Path]) -> Path:
    """Make a project with a strategy, and import bars."""
    command = Path(sys.executable).with_name("sc")
    for call in (["init"], ["import", *bars, "--format", "lean"]):
        subprocess.run([command, *call], cwd=folder, check=True, capture_output=True)
    (folder / "mornings.py").write_text(STRATEGY)
    return folder


@pytest.fixture(scope="module")
def imported(real_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import six sessions of SPY, AIG, BAC and IBM."""
    folder = real_bars / "equity/usa/minute"
    symbols = ("spy", "aig", "bac", "ibm")
    return project(tmp_path_factory.mktemp("six"), [folder / symbol for symbol in symbols])


@pytest.fixture
def six_sessions(imported: Path, tmp_path: Path) -> Path:
    """Return a copy of the project with six sessions, where `sc` runs."""
    return shutil.copytree(imported, tmp_path, dirs_exist_ok=True)


def test_the_sixth_session_begins_with_five_before_it(sc: Run, six_sessions: Path) -> None:
    answer = sc("replay", "--session", "2013-10-11", *MORNINGS)
    assert answer.code == 0, answer.err
    seen = answer.document["result"]["2013-10-11"]
    assert seen["start"]["bars"] == 5 * 390
    assert seen["start"]["newest"] == new_york("2013-10-10T15:59")
    assert seen["first"]["now"] == new_york("2013-10-11T09:31")
    assert seen["first"]["bars"] == 5 * 390 + 1
    assert seen["first"]["oldest"] == new_york("2013-10-04T09:30")
    assert seen["first"]["newest"] == new_york("2013-10-11T09:30")
    assert "2013-10-0" not in answer.err  # nothing falls short


def test_sessions_in_a_row_find_what_each_finds_alone(sc: Run, six_sessions: Path) -> None:
    row = sc("replay", "--from", "2013-10-04", "--to", "2013-10-11", *MORNINGS).document
    counts = [row["result"][day]["start"]["bars"] for day in SIX_SESSIONS]
    assert counts == [0, 390, 780, 1170, 1560, 1950]
    for day in SIX_SESSIONS[1::4]:
        alone = sc("replay", "--session", day, *MORNINGS).document
        assert alone["result"] == {day: row["result"][day]}
    runs = sc("report", "--json").document["runs"]
    assert len({run["digest"] for run in runs}) == 3
    # History is seen, and is no part of what a replay delivers.
    off = ("--set", "history.enabled=false")
    without = sc("replay", "--from", "2013-10-04", "--to", "2013-10-11", *MORNINGS, *off).document
    assert without["digest"] == row["digest"]
    assert {seen["start"]["bars"] for seen in without["result"].values()} == {0}


@pytest.mark.parametrize(
    ("settings", "bars", "days"),
    [
        (("history.trailing_days=2",), 2 * 390, 2),
        (('history.intervals=["1d"]',), 0, 5),
        (('history.intervals=["1d"]', "history.trailing_days=3"), 0, 3),
    ],
)
def test_history_is_as_long_and_as_fine_as_the_settings_say(
    sc: Run, six_sessions: Path, settings: tuple[str, ...], bars: int, days: int
) -> None:
    changes = [text for setting in settings for text in ("--set", setting)]
    answer = sc("replay", "--session", "2013-10-11", *MORNINGS, *changes)
    assert answer.code == 0, answer.err
    seen = answer.document["result"]["2013-10-11"]["start"]
    assert (seen["bars"], len(seen["days"])) == (bars, days)


def test_sessions_that_the_store_lacks_are_named(sc: Run, six_sessions: Path) -> None:
    """On Tuesday 2013-10-08 only the Friday and the Monday before it are stored."""
    answer = sc("replay", "--session", "2013-10-08", *MORNINGS)
    assert answer.code == 0
    assert answer.document["result"]["2013-10-08"]["start"]["bars"] == 2 * 390
    told = json.dumps(answer.document["history"])
    for day in ("2013-10-01", "2013-10-02", "2013-10-03"):
        assert day in told
        assert day in answer.err
    for day in ("2013-09-30", "2013-10-04", "2013-10-07"):
        assert day not in answer.err


def test_a_report_goes_up_to_the_newest_sealed_session(sc: Run, six_sessions: Path) -> None:
    """Nothing was imported on the 14th, and the roll has sealed that nothing is there."""
    listed = 'symbols=["SPY"]'
    assert sc("roll", "--to", "2013-10-15", "--set", listed).code == 0
    answer = sc("report", "--set", listed, "--json", "--fail-under", "99")
    assert answer.code == 1
    assert "2013-10-14" in answer.err
    assert answer.document["rows"][-1]["session"] == "2013-10-14"
    shorter = sc("report", "--set", listed, "--to", "2013-10-11", "--fail-under", "99")
    assert shorter.code == 0, shorter.err


def test_after_the_roll_the_oldest_session_is_gone(six_sessions: Path, real_bars: Path) -> None:
    store, calendar = open_store("delta:data/bars", six_sessions), open_calendar("NYSE")
    today, following = (calendar.session(date(2013, 10, day)) for day in (11, 14))
    universe = Universe(("AIG", "BAC", "IBM", "SPY"))
    history = History(store, calendar, ONE_MINUTE, 5)
    coordinator = Coordinator(store, ONE_MINUTE, universe, [today], history=history)
    coordinator.run()
    data = coordinator.data
    counts = {symbol: data.count(symbol) for symbol in data.symbols}
    assert counts == {"AIG": 2339, "BAC": 2340, "IBM": 2338, "SPY": 2340}
    assert data.all_bars("SPY")[0].start == new_york("2013-10-04T09:30")

    data.roll_session(following)
    assert data.now == new_york("2013-10-14T09:30")
    assert [session.date.day for session in data.sessions] == [7, 8, 9, 10, 11, 14]
    counts = {symbol: data.count(symbol) for symbol in data.symbols}
    assert counts == {"AIG": 1949, "BAC": 1950, "IBM": 1949, "SPY": 1950}
    for symbol in data.symbols:
        folder = real_bars / "equity/usa/minute" / symbol.lower()
        files = pl.concat([regular_bars(folder, day) for day in SIX_SESSIONS[1:]])
        held = data.all_bars(symbol)
        assert held.start.tolist() == files["start"].to_list()
        np.testing.assert_allclose(held.close, files["close"], rtol=1e-12)
        assert held.volume.tolist() == files["volume"].to_list()
    assert held.start[0] == new_york("2013-10-07T09:30")
    metrics = data.metrics("SPY")
    assert (metrics.bars, metrics.expected) == (0, 0)


@pytest.fixture(scope="module")
def imported_apple(real_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import AAPL of the two sessions before its 7:1 split of 2014-06-09, and of that one."""
    folder = tmp_path_factory.mktemp("apple")
    return project(folder, [real_bars / "equity/usa/minute/aapl"])


@pytest.fixture
def apple(sc: Run, imported_apple: Path, real_bars: Path, tmp_path: Path) -> pl.DataFrame:
    """Import the split; return the regular bars, raw, with their dates."""
    shutil.copytree(imported_apple, tmp_path, dirs_exist_ok=True)
    (tmp_path / "actions.csv").write_text("date,symbol,ratio\n2014-06-09,AAPL,7\n")
    imported = sc("import", "--actions", "actions.csv", "--json")
    assert imported.code == 0, imported.err
    assert imported.document["stored"] == 1
    folder = real_bars / "equity/usa/minute/aapl"
    days = ("2014-06-05", "2014-06-06", "2014-06-09")
    return pl.concat([regular_bars(folder, day).with_columns(day=pl.lit(day)) for day in days])


def in_terms_of(bars: pl.DataFrame, ratio: float) -> pl.DataFrame:
    before = pl.col("day") < "2014-06-09"
    return bars.with_columns(
        close=pl.when(before).then(pl.col("close") / ratio).otherwise("close"),
        volume=pl.when(before).then(pl.col("volume") * ratio).otherwise("volume"),
    )


@pytest.mark.parametrize(
    ("adjust", "ratio", "mean"), [("split", 7.0, 92.47526), ("none", 1.0, 644.54525)]
)
def test_an_average_over_a_split_is_in_todays_terms(
    sc: Run, apple: pl.DataFrame, adjust: str, ratio: float, mean: float
) -> None:
    chosen = ("--set", f"history.adjust={adjust}", *APPLE)
    alone = sc("replay", "--session", "2014-06-09", *chosen)
    assert alone.code == 0, alone.err
    row = sc("replay", "--from", "2014-06-05", "--to", "2014-06-09", *chosen).document
    for seen in (alone.document["result"]["2014-06-09"], row["result"]["2014-06-09"]):
        first = seen["first"]
        assert first["bars"] == 2 * 390 + 1
        bars = in_terms_of(apple.filter(pl.col("start") < first["now"]), ratio).tail(200)
        np.testing.assert_allclose(first["closes"], bars["close"], rtol=1e-12)
        np.testing.assert_allclose(first["volumes"], bars["volume"], rtol=1e-12)
        assert np.mean(first["closes"]) == pytest.approx(bars["close"].mean(), rel=1e-12)
        assert np.mean(first["closes"]) == pytest.approx(mean, abs=1e-5)
    assert alone.document["result"]["2014-06-09"] == row["result"]["2014-06-09"]


def test_nothing_is_in_the_terms_of_a_later_split(sc: Run, apple: pl.DataFrame) -> None:
    for span in (("--session", "2014-06-06"), ("--from", "2014-06-05", "--to", "2014-06-09")):
        first = sc("replay", *span, *APPLE).document["result"]["2014-06-06"]["first"]
        raw = apple.filter(pl.col("start") < first["now"])
        assert first["bars"] == len(raw) == 391
        np.testing.assert_allclose(first["closes"], raw["close"].tail(200), rtol=1e-12)
        assert first["volumes"] == raw["volume"].tail(200).to_list()
        assert min(first["closes"]) > 640
