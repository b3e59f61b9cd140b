"""Killed at random instants while it rolls over sessions, and run again: as if nothing happened.

This file is also the program that is killed: as a script it waits for addresses of stores, and
forks a child to roll each, so that nothing is imported more than once.
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
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from stream_coord import rolling
from stream_coord.bars import frame_schema
from stream_coord.calendars import Calendar
from stream_coord.calendars.schedule import MISSING, Schedule, day_number
from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.config import load_config
from stream_coord.filling import Place
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.opening import cursor_key
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger
from stream_coord.upkeep.asking import Enquirer

KILLS = 50
ONE = Interval(MINUTE)
FIRST, MINUTES, COUNT = date(2018, 11, 5), 8, 4
"""Sessions in a row; the last one stays current."""
SYMBOLS = ("A", "B")
DATES = tuple(FIRST + timedelta(n) for n in range(COUNT))
OPENS = tuple(day_number(day) * DAY + 870 * MINUTE for day in DATES)
NOW = OPENS[-1]


@dataclass(frozen=True)
class Source:
    """A source with the bars of every `step`-th minute; knows little of the later sessions."""

    step: int

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return [part for part in ranges if part.start < OPENS[1] + self.step * MINUTE]

    def bars(self, _: Interval, __: Sequence[BarRange]) -> pl.DataFrame:
        return bars_of(self.step)

    def close(self) -> None: ...


def bars_of(step: int) -> pl.DataFrame:
    rows = [
        (symbol, opens + minute * MINUTE, *[float(step)] * 4, 1.0)
        for symbol in SYMBOLS
        for opens in OPENS[:-1]
        for minute in range(0, MINUTES, step)
    ]
    return pl.DataFrame(rows, schema=frame_schema(), orient="row")


def calendar() -> Calendar:
    times = [
        [MISSING, opens, MISSING, MISSING, opens + MINUTES * MINUTE, MISSING] for opens in OPENS
    ]
    days = np.array(list(map(day_number, DATES)))
    return Calendar("TEST", "regular", Schedule("UTC", days, np.array(times)), "1", "")


def roll_store(url: str, folder: Path) -> str:
    """Roll over all sessions but the last, filled from two sources; return the status."""

    def enquirer(_: object) -> Enquirer:
        sources = [NamedSource(f"{n}", f"every {n}", Source(n)) for n in (2, 3)]
        return Enquirer(sources, ONE, FixedClock(NOW), SystemTimer())

    config = load_config(folder / "sc.toml")
    with (
        closing(open_store(url, folder)) as store,
        open_ledger("sqlite:///ledger.db", folder) as ledger,
        patch.object(rolling, "enquirer_of", enquirer),
    ):
        options = rolling.RollOptions(to=DATES[-1])
        done = rolling.roll(Place(config, calendar(), store), ledger, FixedClock(NOW), options)
        assert done.current.date == DATES[-1]
        return done.status


def serve() -> None:
    """Fork a child for each line ``URL FOLDER``; say its number, and when it is gone."""
    import adbc_driver_sqlite  # noqa: F401 -- what a child would have to import
    import deltalake  # noqa: F401
    import sqlalchemy  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            url, folder = line.split()
            roll_store(url, Path(folder))
            os._exit(0)
        say(child)
        say(os.waitpid(child, 0)[1])


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


class Server:
    """The program that forks and rolls."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.requests, self.answers = process.stdin, process.stdout

    def roll(self, url: str, folder: Path, kill_after_seconds: float | None = None) -> int:
        """Roll a store and return how that ended: 0, or the signal that ended it."""
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
    key = cursor_key(load_config(folder / "sc.toml"))
    with (
        closing(open_store(url, folder)) as store,
        open_ledger("sqlite:///ledger.db", folder) as ledger,
    ):
        cursor = ledger.cursor(key)
        return {
            "versions": store.versions(ONE, DATES[0], DATES[-1]).rows(),
            "states": [
                plain(asdict(gap), "run_id")
                for gap in ledger.gap_states("1m", str(DATES[0]), str(DATES[-1]))
            ],
            "seals": [
                (
                    plain(asdict(seal), "id", "run_id"),
                    ledger.seal_quality(seal.id),
                    ledger.seal_checksums(seal.id),
                )
                for seal in ledger.seals(key)
            ],
            "cursor": cursor and plain(asdict(cursor), "run_id"),
            "errors": ledger.states(),
            "pending": ledger.pending_gaps(),
        }


def plain(row: dict[str, object], *gone: str) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in gone}


def make_begin(url: str, folder: Path) -> Path:
    """Make a folder with a store that has holes and an empty ledger."""
    begin = folder / "begin"
    begin.mkdir()
    (begin / "sc.toml").write_text('symbols = ["A", "B"]\n')
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
def test_who_was_killed_and_rolls_again_leaves_what_one_roll_leaves(folder: Path, url: str) -> None:
    begin, whole = make_begin(url, folder), folder / "whole"
    shutil.copytree(begin, whole)
    chance = Random(20181105)  # noqa: S311 -- instants, not secrets
    killed, halfway = 0, 0
    with server() as running:
        running.roll(url, shutil.copytree(begin, folder / "warm"))
        begun = time.monotonic()
        assert running.roll(url, whole) == 0
        seconds = time.monotonic() - begun
        expected = outcome(url, whole)
        assert_is_rolled(expected)
        for number in range(KILLS // 2):
            trial = shutil.copytree(begin, folder / f"{number}")
            ended = running.roll(url, trial, chance.uniform(0, seconds))
            assert ended in {0, signal.SIGKILL}
            killed += ended == signal.SIGKILL
            halfway += is_halfway(trial)
            assert roll_store(url, trial) in {"rolled", "up-to-date"}
            assert outcome(url, trial) == expected
        assert roll_store(url, whole) == "up-to-date"
        assert outcome(url, whole) == expected
    assert killed
    assert halfway


def is_halfway(folder: Path) -> bool:
    """Tell whether some sessions are sealed and others are not."""
    with open_ledger("sqlite:///ledger.db", folder) as ledger:
        return 0 < len(ledger.seals()) < COUNT - 1


def assert_is_rolled(told: dict[str, object]) -> None:
    states, seals, cursor = told["states"], told["seals"], told["cursor"]
    assert isinstance(states, list)
    assert {gap["state"] for gap in states} == {"filled", "no_trade", "missing"}
    assert isinstance(seals, list)
    # Of minutes 0 to 7, 0 and 5 are stored; 2, 4, 6 are in one source, 3, 6 in the other. Of the
    # second session they cover 1 to 4, of the third nothing.
    present = [[row.present for row in rows] for _, rows, _ in seals]
    assert present == [[6, 6], [5, 5], [2, 2]]
    assert isinstance(cursor, dict)
    assert cursor["session"] == str(DATES[-1])
    assert told["errors"] == told["pending"] == []


@pytest.mark.parametrize("url", ["delta:bars", "sqlite:///bars.db"])
def test_two_that_roll_at_once_leave_what_one_would(folder: Path, url: str) -> None:
    begin, whole = make_begin(url, folder), folder / "whole"
    shutil.copytree(begin, whole)
    roll_store(url, whole)
    expected = outcome(url, whole)
    with server() as one, server() as other, ThreadPoolExecutor(2) as pool:
        for number in range(4):
            trial = shutil.copytree(begin, folder / f"{number}")
            both = [pool.submit(running.roll, url, trial) for running in (one, other)]
            assert [each.result() for each in both] == [0, 0]
            assert outcome(url, trial) == expected


if __name__ == "__main__":
    serve()
