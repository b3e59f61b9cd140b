"""Base bars and what is derived of them: which buckets there are, and what a write changes."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from stream_coord.bars import FILLED, SYNTHETIC, TRUNCATED
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import SessionStoreError
from stream_coord.interval import HOUR, MINUTE, Interval
from stream_coord.session.block import Block, Ints
from stream_coord.session.series import Series, Touched
from stream_coord.session.views import bar_at

OPEN = parse_moment("2018-11-23T14:30:00Z")
SYMBOLS = ("A", "B")
DAILY = Interval.parse("1d")


def session(day: date, *parts: tuple[int, int, Kind]) -> Session:
    """Make a session of segments given by the minutes after its 14:30 at which they begin, end."""
    opened = OPEN + (day - date(2018, 11, 23)).days * 24 * HOUR
    segments = (
        Segment(opened + begin * MINUTE, opened + end * MINUTE, kind) for begin, end, kind in parts
    )
    return Session(day, tuple(segments))


def series(*sessions: Session, derived: str = "") -> Series:
    """Return a series whose bar in slot k of row r has the values k+1, k+3, k, k+2, 10^r."""
    block = Block.empty(SYMBOLS, sessions, Interval(MINUTE))
    slots = np.arange(len(block.starts), dtype=float)
    for row in range(len(SYMBOLS)):
        block.values[:, row] = [slots + 1, slots + 3, slots, slots + 2, 0 * slots + 10**row]
    block.present[:] = True
    return Series(block, map(Interval.parse, derived.split()))


NORMAL = session(date(2018, 11, 21), (0, 390, "regular"))
EARLY = session(date(2018, 11, 23), (0, 210, "regular"))
HONG_KONG = session(date(2018, 11, 23), (-780, -630, "regular"), (-570, -390, "regular"))
EXTENDED = session(
    date(2018, 11, 23), (-3, 0, "pre"), (0, 4, "regular"), (6, 9, "regular"), (9, 11, "post")
)


def minutes(micros: Ints) -> list[float]:
    return [(time - OPEN) / MINUTE for time in micros.tolist()]


def test_an_hour_of_a_normal_day_and_of_one_that_closes_early() -> None:
    hours = series(NORMAL, EARLY).activate(Interval.parse("60m"))
    assert hours.label == "1h"
    assert hours.n_expected is not None
    assert hours.n_expected.tolist() == [60] * 6 + [30] + [60] * 3 + [30]
    assert hours.today == 7
    assert minutes(hours.starts[7:]) == [0, 60, 120, 180]
    assert minutes(hours.ends[7:]) == [60, 120, 180, 210]
    truncated = (hours.flags[0] & TRUNCATED != 0).tolist()
    assert truncated == [False] * 6 + [True] + [False] * 3 + [True]
    assert bar_at(hours, 1, 10).volume == 300.0
    assert hours.sessions == (NORMAL, EARLY)


def test_no_bar_spans_lunch() -> None:
    hours = series(HONG_KONG).activate(Interval.parse("1h"))
    assert hours.n_expected is not None
    assert hours.n_expected.tolist() == [60, 60, 30, 60, 60, 60]
    assert minutes(hours.ends) == [-720, -660, -630, -510, -450, -390]


def test_a_day_is_of_the_regular_hours_named_by_its_date_and_over_at_its_close() -> None:
    days = series(NORMAL, EXTENDED).activate(DAILY)
    assert days.starts.tolist() == [
        parse_moment("2018-11-21T00:00:00Z"),
        parse_moment("2018-11-23T00:00:00Z"),
    ]
    assert minutes(days.ends) == [-2880 + 390, 9]
    first = 390 + 3  # the slot of today's first regular minute
    bar = bar_at(days, 0, 1)
    assert (bar.open, bar.high, bar.low, bar.close) == (first + 1, first + 9, first, first + 8)
    assert (bar.volume, bar.flags, bar.n, bar.n_expected) == (7.0, 0, 7, 7)
    assert days.today == 1


def test_pre_market_the_halves_of_the_day_and_post_market_have_buckets_of_their_own() -> None:
    fives = series(EXTENDED).activate(Interval.parse("5m"))
    assert minutes(fives.starts) == [-3, 0, 6, 9]
    assert minutes(fives.ends) == [0, 4, 9, 11]
    assert fives.regular.tolist() == [False, True, True, False]
    assert (fives.flags == TRUNCATED).all()


@pytest.mark.parametrize("interval", ["30s", "90s", "1s", "7s"])
def test_an_interval_that_is_no_multiple_of_the_base_is_refused(interval: str) -> None:
    with pytest.raises(SessionStoreError, match=f"no {interval} bars: they cannot be") as caught:
        series(EARLY).activate(Interval.parse(interval))
    assert caught.value.hint == "Ask for 1m, a whole multiple of it such as 2m, or 1d."


def test_the_base_interval_is_the_base_block_and_nothing_is_derived_twice() -> None:
    bars = series(EARLY)
    assert bars.activate(Interval(MINUTE)) is bars.base
    assert bars.derived == {}
    fives = bars.activate(Interval.parse("5m"))
    assert bars.activate(Interval.parse("300s")) is fives
    bars.activate(Interval.parse("2m"))
    assert [str(interval) for interval in bars.derived] == ["2m", "5m"]


def cells(touched: list[Touched]) -> list[tuple[str, list[int], list[int]]]:
    return [(some.block.label, some.rows.tolist(), some.slots.tolist()) for some in touched]


def test_a_write_rebuilds_the_buckets_that_it_hits_and_no_other() -> None:
    bars = series(EXTENDED, derived="2m 5m 1d")
    before = {interval: block.values.copy() for interval, block in bars.derived.items()}
    rows, slots = np.array([1, 0, 1]), np.array([4, 11, 3])  # 0:01, 0:10 (post), 0:00
    values = np.array([[9.0, 99.0, 8.0, 9.0, 7.0]] * 3).T
    touched = bars.put(rows, slots, values, np.array([FILLED, 0, 0], np.uint8))
    assert cells(touched) == [
        ("2m", [0, 1], [6, 2]),
        ("5m", [0, 1], [3, 1]),
        ("1d", [1], [0]),
    ]
    assert cells(bars.touched(rows, slots)) == cells(touched)
    for some in touched:
        hit = np.zeros(some.block.present.shape, bool)
        hit[some.rows, some.slots] = True
        assert (some.block.values[:, ~hit] == before[some.block.interval][:, ~hit]).all()
        bar = bar_at(some.block, int(some.rows[-1]), int(some.slots[-1]))
        assert (bar.open, bar.high, bar.flags & FILLED) == (9.0, 99.0, FILLED)
    assert bars.base.values[:, 1, 4].tolist() == [9, 99, 8, 9, 7]
    assert bar_at(bars.derived[Interval.parse("2m")], 1, 2).volume == 14.0


def test_a_bar_that_no_day_holds_rebuilds_no_day() -> None:
    bars = series(EXTENDED, derived="1d")
    assert bars.put(np.array([0]), np.array([0]), np.ones((5, 1)), np.zeros(1, np.uint8)) == []


def test_a_bucket_comes_into_being_with_its_first_bar() -> None:
    block = Block.empty(SYMBOLS, [EARLY], Interval(MINUTE))
    bars = Series(block, [Interval.parse("5m")])
    (fives,) = bars.derived.values()
    assert not fives.present.any()
    column = np.full((5, 1), 3.0)
    bars.put(np.array([0]), np.array([7]), column, np.array([SYNTHETIC], np.uint8))
    assert np.argwhere(fives.present).tolist() == [[0, 1]]
    assert (bar_at(fives, 0, 1).flags, bar_at(fives, 0, 1).n) == (SYNTHETIC, 0)
    bars.put(np.array([0]), np.array([8]), column + 1, np.array([0], np.uint8))
    bar = bar_at(fives, 0, 1)
    assert (bar.open, bar.volume, bar.flags, bar.n, bar.n_expected) == (4.0, 4.0, 0, 1, 5)


def test_a_write_is_one_write_to_whoever_reads_any_block() -> None:
    bars = series(EARLY, derived="5m 1d")
    assert all(block.writes is bars.base.writes for block in bars.derived.values())
    bars.put(np.array([0]), np.array([0]), np.ones((5, 1)), np.zeros(1, np.uint8))
    assert bars.base.writes.count == 2


def test_a_copy_has_bars_of_its_own() -> None:
    bars = series(EARLY, derived="5m")
    copy = bars.copy()
    copy.activate(DAILY)
    copy.put(np.array([0]), np.array([0]), np.full((5, 1), 99.0), np.zeros(1, np.uint8))
    (fives,) = bars.derived.values()
    assert (bars.base.values[0, 0, 0], fives.values[0, 0, 0]) == (1.0, 1.0)
    assert copy.derived[fives.interval].values[0, 0, 0] == 99.0
    assert bars.base.writes.count == 0
    assert copy.derived[fives.interval].writes is copy.base.writes is not bars.base.writes


def test_which_cells_are_over_by_a_time() -> None:
    bars = series(EARLY)
    cells = Touched(bars.base, np.array([0, 0, 1]), np.array([3, 4, 3]))
    ended = cells.ended(OPEN + 4 * MINUTE)
    assert (ended.rows.tolist(), ended.slots.tolist()) == ([0, 1], [3, 3])
