"""The session store under threads: one writes and advances, others read whatever there is.

Every bar has open = high = low = close = volume, so that a bar put together of two states shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from threading import Event
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, Bar
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData

OPEN = parse_moment("2018-11-19T14:30:00Z")
MINUTES = 300
HOLES = {7, 100, 101, 250}
SYMBOLS = ("HOLED", "SINGLE", "WHOLE")
INTERVALS = ("7m", "1h", "1d")
READERS = 2


def session(day: int) -> Session:
    opened = OPEN + day * DAY
    segment = Segment(opened, opened + MINUTES * MINUTE, "regular")
    return Session(date(2018, 11, 19) + timedelta(day), (segment,))


def starts(day: int, skip: set[int] | None = None) -> list[int]:
    opened = session(day).open
    return [opened + n * MINUTE for n in range(MINUTES) if n not in (skip or set())]


def flat(k: float) -> tuple[float, ...]:
    return (k,) * 5


def frame(symbol: str, bar_starts: list[int], k: float) -> pl.DataFrame:
    values = dict.fromkeys(FIELDS, np.full(len(bar_starts), float(k)))
    return pl.DataFrame({"symbol": [symbol] * len(bar_starts), "start": bar_starts, **values})


def block_of(*days: int) -> Block:
    """Return a block of the days with bars of the value 1: HOLED has holes, WHOLE no today."""
    block = Block.empty(SYMBOLS, [session(day) for day in days], Interval(MINUTE))
    for day in days:
        block.fill(frame("HOLED", starts(day, HOLES), 1.0))
        block.fill(frame("SINGLE", starts(day), 1.0))
    block.fill(frame("WHOLE", starts(days[0]), 1.0))
    return block


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def check(bars: list[Bar], data: SessionData) -> None:
    now = data.now  # read after the bars
    for bar in bars:
        assert bar.open == bar.high == bar.low == bar.close == bar.volume, f"torn: {bar}"
        assert bar.end <= now, f"seen before its end: {bar}"
    order = [bar.start for bar in bars]
    assert order == sorted(set(order))


def read_everything(data: SessionData) -> None:
    for symbol in SYMBOLS:
        latest = data.latest(symbol)
        check([latest] if latest else [], data)
        bars = data.last_n(symbol, 200)
        check([bars[0], bars[-1]] if len(bars) > 1 else [], data)
        check(list(bars), data)
        check(list(data.since(symbol, data.now - 30 * MINUTE)), data)
        assert data.count(symbol) <= 2 * MINUTES
        data.window(symbol, 20)
    for interval in INTERVALS:
        read_derived(data, interval)
    metrics = data.metrics("WHOLE")  # all its bars of today always have one value
    if metrics.bars:
        assert metrics.high == metrics.low, f"torn: {metrics}"
        assert metrics.volume == metrics.bars * metrics.high, f"torn: {metrics}"
    assert len(data.cross_section()) == len(SYMBOLS)


def read_derived(data: SessionData, interval: str) -> None:
    """Read bars of WHOLE: of all base bars of a day the value is the same at any time."""
    latest = data.latest_bar("WHOLE", interval)
    bars = [latest] if latest else []
    building = data.in_progress("WHOLE", interval)
    now = data.now
    for bar in [*bars, *data.last_n("WHOLE", 50, interval), *([building] if building else [])]:
        assert bar.open == bar.high == bar.low == bar.close, f"torn: {bar}"
        assert bar.volume == bar.n * bar.close, f"torn: {bar}"
    assert not latest or latest.end <= now, f"seen before its end: {latest}"
    assert data.count("WHOLE", interval) <= 2 * MINUTES


def while_others_read(data: SessionData, write: Callable[[], None]) -> int:
    """Run `write` while readers read all the time; return how often they read everything."""
    written = Event()

    def read() -> int:
        rounds = 0
        while not written.is_set() or not rounds:
            read_everything(data)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(READERS) as pool:
        rounds = [pool.submit(read) for _ in range(READERS)]
        try:
            write()
        finally:
            written.set()
        return sum(future.result() for future in rounds)


def test_readers_of_a_replay_see_whole_bars_and_none_before_its_end() -> None:
    data = SessionData(SYMBOLS, session(0))
    data.start_session(session(1), block_of(0, 1))

    def write() -> None:
        for k, start in enumerate(starts(1)):
            data.advance_to(start + MINUTE)
            passed = starts(1)[: k + 1]
            data.add_bar("SINGLE", passed[k // 2], flat(2.0 + k))
            if k in HOLES:
                data.add_bar("HOLED", start, flat(2.0 + k))
            if k % 4 == 0:
                data.add_bars_batch(frame("HOLED", passed, 2.0 + k))
                data.add_bars_batch(frame("WHOLE", passed, 2.0 + k))
            data.drain_updates()

    assert while_others_read(data, write) > 0


def test_readers_of_a_feed_see_whole_bars_and_none_before_its_end() -> None:
    data = SessionData(SYMBOLS, session(0))

    def write() -> None:
        for k in range(40):
            bars = [frame(symbol, starts(0), 1.0 + k) for symbol in SYMBOLS]
            data.add_bars_batch(pl.concat(bars))
            for n in range(5):
                data.add_bar("SINGLE", OPEN + n * MINUTE, flat(100.0 * k + n))
            data.advance_to(OPEN + 5 * k * MINUTE)
            data.drain_updates()

    assert while_others_read(data, write) > 0


def test_readers_do_not_mix_a_session_with_the_one_that_begins() -> None:
    data = SessionData(SYMBOLS, session(0))

    def write() -> None:
        for day in range(1, 40):
            data.start_session(session(day), block_of(day - 1, day) if day % 3 else None)
            for n in (1, 50, 51, 300):
                data.advance_to(session(day).open + n * MINUTE)

    assert while_others_read(data, write) > 0


class Meddled(np.ndarray[Any, np.dtype[np.uint8]]):
    """Flags that somebody writes over, and the bar's values with them, just as they are read."""

    meddle: ClassVar[list[Callable[[], object]]] = []

    def __getitem__(self, key: Any) -> Any:
        while self.meddle:
            self.meddle.pop()()
        return super().__getitem__(key)


@pytest.fixture
def meddled() -> SessionData:
    """Return a replay with one SINGLE bar of the value 1, and one of 2 to come."""
    data = SessionData(SYMBOLS, session(0))
    block = Block.empty(SYMBOLS, [session(0)], Interval(MINUTE))
    block.fill(frame("SINGLE", [OPEN + MINUTE], 2.0))
    data.start_session(session(0), replace(block, flags=block.flags.view(Meddled)))
    data.advance_to(OPEN + MINUTE)
    data.add_bar("SINGLE", OPEN, flat(1.0), FILLED)
    return data


@pytest.mark.parametrize(
    "read",
    [
        lambda data: data.latest("SINGLE"),
        lambda data: data.last_n("SINGLE", 1)[0],
        lambda data: next(iter(data.last_n("SINGLE", 1))),
        lambda data: next(iter(data.since("SINGLE", OPEN))),
    ],
)
def test_a_bar_that_is_revised_while_it_is_read_is_read_again(
    meddled: SessionData, read: Callable[[SessionData], Bar]
) -> None:
    Meddled.meddle.append(lambda: meddled.add_bar("SINGLE", OPEN, flat(2.0), 0))
    bar = read(meddled)
    assert (bar.open, bar.volume, bar.flags) == (2.0, 2.0, 0)
    assert not Meddled.meddle


def test_metrics_of_a_bar_that_is_revised_meanwhile_are_taken_again(meddled: SessionData) -> None:
    Meddled.meddle.append(lambda: meddled.add_bar("SINGLE", OPEN, flat(2.0), SYNTHETIC))
    metrics = meddled.metrics("SINGLE")
    assert (metrics.volume, metrics.present) == (2.0, 0)
    assert not Meddled.meddle


def test_a_latest_bar_that_is_outdated_once_it_is_found_is_not_kept(meddled: SessionData) -> None:
    Meddled.meddle.append(lambda: meddled.advance_to(OPEN + 2 * MINUTE))
    meddled.latest("SINGLE")
    assert not Meddled.meddle
    latest = meddled.latest("SINGLE")
    assert latest is not None
    assert latest.close == 2.0


def test_intervals_asked_for_while_bars_come_miss_none_of_them() -> None:
    data = SessionData(SYMBOLS, session(0))
    data.advance_to(OPEN + MINUTES * MINUTE)
    lengths = range(2, 20)

    def feed() -> None:
        for start in starts(0):
            data.add_bar("SINGLE", start, flat(1.0))

    def ask(length: int) -> int:
        return data.count("SINGLE", f"{length}m")

    with ThreadPoolExecutor(READERS + 1) as pool:
        feeding = pool.submit(feed)
        list(pool.map(ask, [*lengths, *lengths]))
        feeding.result()
    assert [str(interval) for interval in data._pristine.derived] == [f"{n}m" for n in lengths]
    for length in lengths:
        whole, rest = divmod(MINUTES, length)
        volumes = [float(length)] * whole + [float(rest)] * (rest > 0)
        assert data.window("SINGLE", MINUTES, "volume", f"{length}m").tolist() == volumes


def test_several_feeds_at_once_lose_no_bar_and_no_update() -> None:
    data = SessionData(SYMBOLS, session(0))
    data.advance_to(OPEN + MINUTES * MINUTE + 1)
    fed, updates, values = Event(), [], [float(k) for k in range(1, 12)]

    def feed(symbol: str) -> None:
        for start in starts(0):
            data.add_bar(symbol, start, flat(1.0))
        for k in values[1:]:
            data.add_bars_batch(frame(symbol, starts(0), k))

    def drain() -> None:
        while not fed.is_set():
            updates.extend(data.drain_updates())

    with ThreadPoolExecutor(len(SYMBOLS) + 1) as pool:
        drained = pool.submit(drain)
        try:
            list(pool.map(feed, SYMBOLS))
        finally:
            fed.set()
        drained.result()
    updates += data.drain_updates()
    assert [data.count(symbol) for symbol in SYMBOLS] == [MINUTES] * 3
    assert data.cross_section().tolist() == [values[-1]] * 3
    seen = {(bar.symbol, bar.start, bar.close) for bar in updates}
    expected = {(symbol, start, k) for symbol in SYMBOLS for start in starts(0) for k in values}
    assert (seen, len(updates)) == (expected, len(expected))
