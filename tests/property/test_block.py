"""Bars find their slots: beside a dict and a linear search."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.bars import frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.interval import Interval
from stream_coord.session.block import Block, slots_of

SYMBOLS = ("A", "B", "a")


@st.composite
def days(draw: st.DrawFn) -> tuple[Interval, list[Session]]:
    """One to three sessions of one to three segments, any pauses, as long as the bars fit."""
    interval = Interval.parse(draw(st.sampled_from(["1s", "1m", "5m"])))
    time = draw(st.integers(-1000, 10**6))  # in intervals since the epoch
    sessions = []
    for day in range(draw(st.integers(1, 3))):
        segments = []
        for _ in range(draw(st.integers(1, 3))):
            time += draw(st.integers(0, 50))
            length = draw(st.integers(1, 5))
            begin, end = time * interval.micros, (time + length) * interval.micros
            segments.append(Segment(begin, end, "regular"))
            time += length
        sessions.append(Session(date(2018, 11, 1) + timedelta(day), tuple(segments)))
    return interval, sessions


def starts_near(interval: Interval, sessions: list[Session]) -> st.SearchStrategy[int]:
    """Return starts on the grid, between its segments, beyond its ends, and off by a little."""
    first, last = sessions[0].start // interval.micros, sessions[-1].end // interval.micros
    aligned = st.integers(first - 3, last + 3).map(lambda n: n * interval.micros)
    return st.one_of(aligned, aligned, st.builds(int.__add__, aligned, st.sampled_from([1, -1])))


@given(st.data())
def test_a_bar_goes_into_the_slot_of_its_start_or_nowhere(data: st.DataObject) -> None:
    interval, sessions = data.draw(days())
    keys = st.tuples(st.sampled_from(SYMBOLS), starts_near(interval, sessions))
    bars = data.draw(st.dictionaries(keys, st.floats(1, 2), max_size=30))
    block = Block.empty(SYMBOLS, sessions, interval)
    rows = [(*key, *(field + bars[key] for field in range(5))) for key in sorted(bars)]
    outside = block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row"))

    grid = [
        start
        for session in sessions
        for part in session.segments
        for start in range(part.open, part.close, interval.micros)
    ]
    assert block.starts.tolist() == grid
    for row, symbol in enumerate(SYMBOLS):
        for slot, start in enumerate(grid):
            if (symbol, start) in bars:
                expected = [field + bars[symbol, start] for field in range(5)]
                assert block.present[row, slot]
                assert block.values[:, row, slot].tolist() == expected
            else:
                assert not block.present[row, slot]
                assert np.isnan(block.values[:, row, slot]).all()
    assert outside == sum(start not in grid for _, start in bars)


@given(st.data())
def test_a_start_is_looked_up_as_a_list_would_find_it(data: st.DataObject) -> None:
    interval, sessions = data.draw(days())
    grid = np.concatenate([session.grid(interval) for session in sessions])
    starts = data.draw(st.lists(starts_near(interval, sessions), max_size=20))
    slots = slots_of(grid, interval, np.array(starts, np.int64))
    known = grid.tolist()
    assert slots.tolist() == [known.index(start) if start in known else -1 for start in starts]


def test_a_grid_without_slots_knows_no_start() -> None:
    nothing = np.array([], np.int64)
    assert slots_of(nothing, Interval.parse("1m"), np.array([0, 60_000_000])).tolist() == [-1, -1]
