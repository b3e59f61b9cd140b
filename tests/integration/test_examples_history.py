"""The examples whose bars go back over the nights, as a user runs them on the sample bars."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import COMMAND, REPOSITORY

EXAMPLES = REPOSITORY / "examples"
GUARD_SECONDS = 300
NEW_YORK = "America/New_York"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder "demo" as `make demo` leaves it."""
    folder = tmp_path_factory.mktemp("checkout") / "demo"
    folder.mkdir()
    stated = ("--tz", NEW_YORK, "--label", "open", "--quiet")
    for arguments in (
        ("init", "--demo", "--quiet"),
        ("import", "sample/bars", *stated),
        ("import", "sample/corrections", *stated),
    ):
        subprocess.run([COMMAND, *arguments], cwd=folder, check=True, timeout=GUARD_SECONDS)
    return folder


@pytest.fixture(scope="module")
def stored(demo: Path) -> pl.DataFrame:
    """Return the stored bars of regular hours, with their local time, by symbol and start."""
    local = pl.col("start").dt.convert_time_zone(NEW_YORK)
    bars = pl.read_delta(str(demo / "data/bars")).with_columns(local=local)
    minute, day = pl.col("local").dt.strftime("%H:%M"), pl.col("local").dt.date()
    after_hours = (minute >= "16:00") | ((day == date(2018, 11, 23)) & (minute >= "13:00"))
    regular = (minute >= "09:30") & ~after_hours
    return bars.filter(regular & (day.dt.weekday() <= 5)).sort("symbol", "start")


def crossings(bars: pl.DataFrame, fast: int, slow: int) -> dict[str, int]:
    """Count crossings symbol by symbol, over all bars as one run."""
    count = first = 0
    for symbol in bars.partition_by("symbol"):
        closes, times = symbol["close"].to_numpy(), symbol["local"].dt.strftime("%H:%M")
        long = False
        for end in range(slow, len(closes) + 1):
            rising = bool(closes[end - fast : end].mean() > closes[end - slow : end].mean())
            if rising != long:
                count, first = count + 1, first + (times[end - 1] == "09:30")
            long = rising
    return {"crossings": count, "in the first minute": first}


def test_the_averages_go_back_over_the_nights(
    sc: Callable[..., Any], demo: Path, stored: pl.DataFrame
) -> None:
    spec = f"{EXAMPLES / 'moving_average.py'}:MovingAverage"
    span = ("--from", "2018-11-02", "--to", "2018-11-23", "--config", demo / "sc.toml")
    answer = sc("replay", *span, "--strategy", spec, "--json")
    assert answer.code == 0, answer.err
    expected = crossings(stored, fast=20, slow=200)
    assert answer.document["result"] == expected
    assert expected["in the first minute"] > 0


def test_a_feed_that_falls_silent(demo: Path, stored: pl.DataFrame) -> None:
    example = EXAMPLES / "live_feed.py"
    assert "make demo && .venv/bin/python examples/live_feed.py\n" in example.read_text()
    done = subprocess.run(
        [sys.executable, example],
        cwd=demo.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()

    aqrv = stored.filter(pl.col("symbol") == "AQRV")
    before = aqrv.filter(pl.col("local").dt.date() >= pl.date(2018, 11, 16))
    mean = float(before["close"].tail(200).to_numpy().mean())
    assert lines[0] == (
        f"2018-11-26 after 5 sessions: {len(before):,} bars of AQRV from "
        f"2018-11-16 09:30:00-05:00 on; the last 200 closes: {mean:.2f}"
    )
    assert [line.split() for line in lines[1:5]] == [
        ["2018-11-26", "09:30:00-05:00", "NOT_STARTED", "->", "ACTIVE"],
        ["2018-11-26", "12:05:00-05:00", "ACTIVE", "->", "TIMEOUT"],
        ["2018-11-26", "12:08:00-05:00", "TIMEOUT", "->", "ACTIVE"],
        ["2018-11-26", "16:00:00-05:00", "ACTIVE", "->", "ENDED"],
    ]
    assert lines[5] == f"AQRV has 384 of 390 bars: {100 * 384 / 390:.2f} %"
    stay = before.filter(pl.col("local").dt.date() > pl.date(2018, 11, 16))
    assert lines[6].startswith(
        f"2018-11-27 after 5 sessions: {len(stay) + 384:,} bars of AQRV from "
        "2018-11-19 09:30:00-05:00 on; the last 200 closes: "
    )

    with closing(sqlite3.connect(demo / "data/ledger.db")) as ledger:
        (run,) = ledger.execute("SELECT * FROM runs WHERE command = 'live'").fetchall()
        query = 'SELECT session, time, "left", entered FROM session_states WHERE run_id = ?'
        rows = ledger.execute(query, run[:1]).fetchall()
    assert "done" in run
    day, opened = "2018-11-26", 1_543_242_600_000_000  # 14:30 UTC
    states = ["NOT_STARTED", "ACTIVE", "TIMEOUT", "ACTIVE", "ENDED"]
    assert rows == [
        (day, opened + minute * 60_000_000, left, entered)
        for minute, (left, entered) in zip((0, 155, 158, 390), pairwise(states), strict=True)
    ]
    times = ("14:30:00", "17:05:00", "17:08:00", "21:00:00")
    assert lines[-4:] == [
        f"{day}  {day} {at}Z  {left} -> {entered}"
        for at, (left, entered) in zip(times, pairwise(states), strict=True)
    ]
