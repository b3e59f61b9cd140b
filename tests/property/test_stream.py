"""No look-ahead: at each minute a replay answers as a store that has never seen more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.bars import FIELDS, Bar, frame_schema
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream

SYMBOLS = ("A.B", "AB", "a")
OPEN = parse_moment("2018-11-23T14:30:00Z")
DAY = 1440 * MINUTE
Values = tuple[float, ...]
Bars = Mapping[tuple[str, int], Values]


def block_of(sessions: list[Session], bars: Bars) -> Block:
    rows = [(*key, *bars[key]) for key in sorted(bars)]
    block = Block.empty(SYMBOLS, sessions, Interval(MINUTE))
    block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return block


def everything(data: SessionData) -> list[object]:
    """Return what every reader says, as plain values; NaN as text."""
    answers: list[object] = [data.latest_many(), data.now]
    for symbol in SYMBOLS:
        answers += [data.count(symbol), repr(data.metrics(symbol))]
        answers += [list(data.last_n(symbol, n)) for n in (1, 3, 1000)]
        answers += [list(data.since(symbol, data.now - back * MINUTE)) for back in (1, 4, 10**6)]
        for field in FIELDS:
            answers += [repr(data.window(symbol, n, field).tolist()) for n in (2, 99)]
    for field in FIELDS:
        answers += [repr(data.cross_section(field, back).tolist()) for back in (0, 2)]
    return answers


class Comparing(Strategy):
    """At each call, compares the replay with a store that was loaded with the past alone."""

    def __init__(self, sessions: list[Session], bars: Bars) -> None:
        self.sessions, self.bars = sessions, bars
        self.delivered: list[Bar] = []
        self.steps: list[int] = []

    def compare(self) -> None:
        now = self.session.now
        past = {key: bar for key, bar in self.bars.items() if key[1] + MINUTE <= now}
        other = SessionData(SYMBOLS, self.sessions[-1])
        other.start_session(self.sessions[-1], block_of(self.sessions, past))
        other.advance_to(now)
        assert everything(self.session) == everything(other)

    def on_session_start(self) -> None:
        self.compare()

    def on_bar(self, bar: Bar) -> None:
        assert bar.end == self.session.now
        self.delivered.append(bar)

    def on_step(self, now: int) -> None:
        self.steps.append(now)
        self.compare()

    def on_session_end(self) -> None:
        self.compare()


@st.composite
def replays(draw: st.DrawFn) -> tuple[list[Session], Bars]:
    """One or two short days with breaks and other hours, and bars with holes."""
    sessions = []
    for day in range(draw(st.integers(1, 2))):
        kinds: list[Kind] = ["regular"] * draw(st.integers(1, 2))
        kinds = ["pre", *kinds] if draw(st.booleans()) else kinds
        kinds = [*kinds, "post"] if draw(st.booleans()) else kinds
        segments, time = [], OPEN + day * DAY
        for kind in kinds:
            length, pause = draw(st.integers(1, 4)), draw(st.integers(0, 2))
            segments.append(Segment(time, time + length * MINUTE, kind))
            time += (length + pause) * MINUTE
        sessions.append(Session(date(2018, 11, 23 + day), tuple(segments)))
    grid = np.concatenate([session.grid(Interval(MINUTE)) for session in sessions]).tolist()
    price = st.integers(1, 9).map(float)
    keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(grid))
    return sessions, draw(st.dictionaries(keys, st.tuples(*[price] * 5), max_size=40))


@settings(max_examples=40)
@given(replays())
def test_every_minute_of_a_replay_is_as_if_it_were_the_last(
    replay: tuple[list[Session], Bars],
) -> None:
    sessions, bars = replay
    today = sessions[-1]
    comparing = Comparing(sessions, bars)
    comparing.session = SessionData(SYMBOLS, today)
    block = block_of(sessions, bars)
    comparing.session.start_session(today, block)
    SessionStream(comparing.session, comparing, lambda: None).run()

    minutes = [start for part in today.segments for start in range(part.open, part.close, MINUTE)]
    assert comparing.steps == [start + MINUTE for start in minutes]
    assert [(bar.symbol, bar.start) for bar in comparing.delivered] == [
        (symbol, start) for start in minutes for symbol in SYMBOLS if (symbol, start) in bars
    ]
