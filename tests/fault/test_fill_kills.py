"""Killed at random instants while it fills a store, and run again: as if nothing had happened.

This file is also the program that is killed: as a script it waits for addresses of stores, and
forks a child to fill each, so that nothing is imported more than once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
import pytest

from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import open_ledger
from stream_coord.upkeep import fill
from stream_coord.upkeep.asking import Enquirer

KILLS = 50
MINUTE = 60_000_000
DAY = 1_440 * MINUTE
OPEN = 1_541_169_000_000_000  # 2018-11-02 14:30 UTC
FIRST, MINUTES, COUNT = date(2018, 11, 2), 8, 4
ONE = Interval.parse("1m")
SYMBOLS = ("A", "B")
EVERYBODY = Universe(SYMBOLS)
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)
SESSIONS = tuple(
    Session(
        FIRST + timedelta(days=n),
        (Segment(OPEN + n * DAY, OPEN + n * DAY + MINUTES * MINUTE, "regular"),),
    )
    for n in range(COUNT)
)
SETUP = dict.fromkeys(
    ("settings", "config_digest", "calendar", "calendar_version", "store", "program_version"), ""
)


@dataclass(frozen=True)
class Source:
    """A source with the bars of every `step`-th minute; knows nothing of the last session."""

    step: int

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return [part for part in ranges if part.start < SESSIONS[-1].open + self.step * MINUTE]

    def bars(self, _: Interval, __: Sequence[BarRange]) -> pl.DataFrame:
        return bars_of(self.step)

    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    store: BarStore
    universe: Universe = EVERYBODY
    sessions: tuple[Session, ...] = SESSIONS
    interval: Interval = ONE


def bars_of(step: int, offset: int = 0) -> pl.DataFrame:
    rows = [
        (symbol, OPEN + n * DAY + minute * MINUTE, *[float(step)] * 4, 1.0)
        for symbol in SYMBOLS
        for n in range(COUNT)
        for minute in range(offset, MINUTES, step)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def fill_store(url: str, folder: Path) -> None:
    """Fill a store from two sources, session by session."""
    sources = [NamedSource(f"{n}", f"every {n}", Source(n)) for n in (2, 3)]
    with (
        closing(open_store(url, folder)) as store,
        open_ledger("sqlite:///ledger.db", folder) as ledger,
        patch.object(fill, "BATCH_MINUTES", 1),
    ):
        run = ledger.begin_run(0, "fill-gaps", **SETUP)
        clock = FixedClock(SESSIONS[-1].close)
        enquirer = Enquirer(sources, ONE, clock, SystemTimer())
        fill.fill_gaps(Plan(store), ledger, enquirer, clock, run)


def serve() -> None:
    """Fork a child for each line ``URL FOLDER``; say its number, and when it is gone."""
    import adbc_driver_sqlite  # noqa: F401 -- what a child would have to import
    import deltalake  # noqa: F401
    import sqlalchemy  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            url, folder = line.split()
            fill_store(url, Path(folder))
            os._exit(0)
        say(child)
        say(os.waitpid(child, 0)[1])


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


class Server:
    """The program that forks and fills."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.requests, self.answers = process.stdin, process.stdout

    def fill(self, url: str, folder: Path, kill_after_seconds: float | None = None) -> int:
        """Fill a store and return how that ended: 0, or the signal that ended it."""
        print(url, folder, file=self.requests, flush=True)
        child = int(self.answers.readline())
        if kill_after_seconds is not None:
            time.sleep(kill_after_seconds)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(child, signal.SIGKILL)
        return int(self.answers.readline())


@contextmanager
def server() -> Iterator[Server]:
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)


def outcome(url: str, folder: Path) -> dict[str, object]:
    """Return what is to be the same whoever was killed: all but who wrote it, in which run."""
    with (
        closing(open_store(url, folder)) as store,
        open_ledger("sqlite:///ledger.db", folder) as ledger,
    ):
        versions = store.versions(ONE, FIRST, SESSIONS[-1].date)
        states = ledger.gap_states("1m", "2018-01-01", "2019-01-01")
        return {
            "versions": versions.rows(),
            "states": [
                {name: getattr(gap, name) for name in gap.__dataclass_fields__ if name != "run_id"}
                for gap in states
            ],
            "disagreements": {
                (told.symbol, told.start, told.source, told.other, told.values, told.other_values)
                for told in ledger.disagreements("1m")
            },
            "pending": ledger.pending_gaps(),
        }


def make_begin(url: str, folder: Path) -> Path:
    """Make a folder with a store that has holes and an empty ledger."""
    begin = folder / "begin"
    begin.mkdir()
    with closing(open_store(url, begin, create=True)) as store:
        store.write(ONE, bars_of(5))
    open_ledger("sqlite:///ledger.db", begin, create=True).close()
    return begin


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder in memory, if there is one: a kill is no loss of power."""
    memory = Path("/dev/shm")  # noqa: S108 -- a folder of its own is made there
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize("url", ["delta:bars", "sqlite:///bars.db"])
def test_who_was_killed_and_runs_again_leaves_what_one_run_leaves(folder: Path, url: str) -> None:
    begin, whole = make_begin(url, folder), folder / "whole"
    shutil.copytree(begin, whole)
    chance = Random(20181102)  # noqa: S311 -- instants, not secrets
    killed = 0
    with server() as running:
        running.fill(url, shutil.copytree(begin, folder / "warm"))
        begun = time.monotonic()
        assert running.fill(url, whole) == 0
        seconds = time.monotonic() - begun
        expected = outcome(url, whole)
        states = expected["states"]
        assert isinstance(states, list)
        assert {gap["state"] for gap in states} == {"filled", "no_trade", "missing"}
        assert expected["disagreements"]
        for number in range(KILLS // 2):
            trial = shutil.copytree(begin, folder / f"{number}")
            ended = running.fill(url, trial, chance.uniform(0, seconds))
            assert ended in {0, signal.SIGKILL}
            killed += ended == signal.SIGKILL
            fill_store(url, trial)
            assert outcome(url, trial) == expected
    assert killed


@pytest.mark.parametrize("url", ["delta:bars", "sqlite:///bars.db"])
def test_two_that_fill_at_once_store_what_one_would(folder: Path, url: str) -> None:
    begin, whole = make_begin(url, folder), folder / "whole"
    shutil.copytree(begin, whole)
    fill_store(url, whole)
    expected = outcome(url, whole)
    with server() as one, server() as other, ThreadPoolExecutor(2) as pool:
        for number in range(5):
            trial = shutil.copytree(begin, folder / f"{number}")
            both = [pool.submit(running.fill, url, trial) for running in (one, other)]
            assert [each.result() for each in both] == [0, 0]
            got = outcome(url, trial)
            assert got["versions"] == expected["versions"]
            assert unfilled(got) == unfilled(expected)
            assert got["pending"] == []


def unfilled(told: dict[str, object]) -> list[object]:
    states = told["states"]
    assert isinstance(states, list)
    return [gap for gap in states if gap["state"] != "filled"]


if __name__ == "__main__":
    serve()
