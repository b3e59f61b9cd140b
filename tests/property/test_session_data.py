"""The session store beside a model: a dict of bars, searched from end to end for every answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, Bar, frame_schema
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import SessionStoreError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import Arrival, SessionData

Values = tuple[float, ...]
Key = tuple[str, int]
SYMBOLS = ("A.B", "AB", "a")
OPEN = parse_moment("2018-11-23T14:30:00Z")
DAY = 1440 * MINUTE
NO_VALUES: Values = (math.nan,) * len(FIELDS)
HONG_KONG_OPEN = parse_moment("2018-11-23T01:30:00Z")


@dataclass
class Model:
    """What the store should hold, as plainly as it can be written down."""

    session: Session
    interval: int
    history: Sequence[Session] = ()
    replayed: bool = False
    bars: dict[Key, tuple[Values, int]] = field(default_factory=dict)
    updates: list[Bar] = field(default_factory=list)
    now: int = 0
    slots: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.session.start
        self.slots = [start for day in (*self.history, self.session) for start in self.grid(day)]

    def grid(self, session: Session, kind: Kind | None = None) -> list[int]:
        return [
            start
            for segment in session.segments
            for start in range(segment.open, segment.close, self.interval)
            if kind in {None, segment.kind}
        ]

    @property
    def passed(self) -> list[int]:
        return [start for start in self.slots if start + self.interval <= self.now]

    def bar(self, symbol: str, start: int) -> Bar:
        (opened, high, low, closed, volume), flags = self.bars[symbol, start]
        end = start + self.interval
        return Bar(symbol, "1m", start, end, opened, high, low, closed, volume, flags)

    def visible(self, symbol: str) -> list[Bar]:
        return [self.bar(symbol, start) for start in self.passed if (symbol, start) in self.bars]

    def value(self, symbol: str, start: int, name: str) -> float:
        values, _ = self.bars.get((symbol, start), (NO_VALUES, 0))
        return values[FIELDS.index(name)]

    def add(self, symbol: str, start: int, values: Values, flags: int) -> Arrival:
        if start not in self.slots:
            return Arrival.OUT_OF_SESSION
        end, old = start + self.interval, self.bars.get((symbol, start))
        seen = end < self.now or (self.replayed and end == self.now)
        if old is not None and old[0] == values and not (old[1] ^ flags) & SYNTHETIC:
            return Arrival.DUPLICATE
        self.bars[symbol, start] = values, flags
        if old is not None:
            seen = end <= self.now
        if seen:
            self.updates.append(self.bar(symbol, start))
        if old is not None:
            return Arrival.REVISED
        return Arrival.LATE if seen else Arrival.ADDED

    def check(self, data: SessionData) -> None:
        """Ask the store everything, and compare."""
        passed = self.passed
        assert (data.now, data.session, data.symbols) == (self.now, self.session, SYMBOLS)
        assert data.latest_many() == {symbol: data.latest(symbol) for symbol in SYMBOLS}
        for name in FIELDS:
            for back in (0, 1, 3, 1000):
                column = data.cross_section(name, back)
                start = passed[-1 - back] if back < len(passed) else -1
                assert same(column, [self.value(symbol, start, name) for symbol in SYMBOLS])
        for symbol in SYMBOLS:
            self.check_symbol(data, symbol, passed)

    def check_symbol(self, data: SessionData, symbol: str, passed: list[int]) -> None:
        bars = self.visible(symbol)
        assert data.latest(symbol) == data.latest(symbol) == (bars[-1] if bars else None)
        assert data.count(symbol) == len(bars)
        for n in (0, 1, 2, 4, 1000):
            self.check_bars(data, symbol, n, bars[max(len(bars) - n, 0) :])
            starts = passed[max(len(passed) - n, 0) :]
            for name in FIELDS if n == 4 else ("close",):
                window = data.window(symbol, n, name)
                assert same(window, [self.value(symbol, start, name) for start in starts])
        for start in (self.session.start, self.now - 2 * self.interval, self.now - 1, 0):
            assert list(data.since(symbol, start)) == [bar for bar in bars if bar.start >= start]
        self.check_metrics(data, symbol, bars)

    def check_bars(self, data: SessionData, symbol: str, n: int, expected: list[Bar]) -> None:
        found = data.last_n(symbol, n)
        assert (list(found), len(found), found.symbol) == (expected, len(expected), symbol)
        assert [found[i] for i in range(-len(found), len(found))] == expected * 2
        for name in ("start", "end", *FIELDS, "flags"):
            assert same(getattr(found, name), [getattr(bar, name) for bar in expected])
        if found:
            whole = range(expected[0].start, expected[-1].start + 1, self.interval)
            unbroken = set(whole) <= set(self.slots) and len(whole) == len(found)
            if unbroken:  # no hole: a view, and no copy
                assert np.shares_memory(found.close, data.window(symbol, 1000))

    def check_metrics(self, data: SessionData, symbol: str, bars: list[Bar]) -> None:
        metrics = data.metrics(symbol)
        today = [bar for bar in bars if bar.start >= self.session.start]
        due = [
            start
            for start in self.grid(self.session, "regular")
            if start + self.interval <= self.now
        ]
        minutes = set(due)
        real = [bar for bar in today if bar.start in minutes and not bar.flags & SYNTHETIC]
        assert (metrics.symbol, metrics.bars) == (symbol, len(today))
        assert metrics.volume == sum(bar.volume for bar in today)
        assert metrics.last_update == (today[-1].end if today else None)
        assert (metrics.expected, metrics.present) == (len(due), len(real))
        assert metrics.missing == len(due) - len(real)
        assert metrics.quality == (100 * len(real) / len(due) if due else None)
        highs, lows = [bar.high for bar in today], [bar.low for bar in today]
        assert same(
            np.array([metrics.high, metrics.low]),
            [max(highs, default=math.nan), min(lows, default=math.nan)],
        )


def same(array: NDArray[np.generic], expected: Sequence[float]) -> bool:
    """Compare values and their types, NaN equal to NaN."""
    return repr(array.tolist()) == repr(expected)


def frame(rows: Sequence[tuple[str, int, Values]]) -> pl.DataFrame:
    """Make a bar frame, sorted and without repeated keys (the last row of a key wins)."""
    by_key = {(symbol, start): values for symbol, start, values in rows}
    return pl.DataFrame(
        [(*key, *by_key[key]) for key in sorted(by_key)], schema=frame_schema(), orient="row"
    )


@st.composite
def sessions(draw: st.DrawFn, after: date = date(2018, 11, 20)) -> Session:
    """Short sessions of one to four segments: breaks, pre- and post-market, pauses or none."""
    kinds: list[Kind] = ["regular"] * draw(st.integers(1, 2))
    kinds = ["pre", *kinds] if draw(st.booleans()) else kinds
    kinds = [*kinds, "post"] if draw(st.booleans()) else kinds
    day = after + timedelta(draw(st.integers(1, 3)))
    segments, time = [], OPEN + (day - date(2018, 11, 23)).days * DAY
    for kind in kinds:
        length, pause = draw(st.integers(1, 4)), draw(st.integers(0, 2))
        segments.append(Segment(time, time + length * MINUTE, kind))
        time += (length + pause) * MINUTE
    return Session(day, tuple(segments))


@st.composite
def values_of_bars(draw: st.DrawFn) -> Values:
    """Few different values, so that duplicates happen; exact in sums of any order."""
    low, body, high = sorted(draw(st.tuples(*[st.integers(1, 3)] * 3)))
    opened, closed = draw(st.permutations([low, body]))
    return (float(opened), float(high), float(low), float(closed), float(draw(st.integers(0, 2))))


FLAGS = st.sampled_from([0, 0, 0, SYNTHETIC, FILLED])


def regular_session(day: date, *spans: tuple[int, int]) -> Session:
    return Session(
        day,
        tuple(Segment(start, start + minutes * MINUTE, "regular") for start, minutes in spans),
    )


FULL_DAY = regular_session(date(2018, 11, 21), (OPEN - 2 * DAY, 390))
EARLY_CLOSE = regular_session(date(2018, 11, 23), (OPEN, 210))
HONG_KONG = regular_session(
    date(2018, 11, 23), (HONG_KONG_OPEN, 150), (HONG_KONG_OPEN + 210 * MINUTE, 180)
)


class Feeding(RuleBasedStateMachine):
    """Sessions begin, bars come in time, late, twice, changed and wrong; time goes on."""

    @initialize(draws=st.data())
    def begin(self, draws: st.DataObject) -> None:
        self.data = SessionData(reversed(SYMBOLS), FULL_DAY)
        self.model = Model(FULL_DAY, MINUTE)
        self.start_session(draws)

    @precondition(lambda self: self.steps > 8)
    @rule(draws=st.data())
    def start_session(self, draws: st.DataObject) -> None:
        self.steps = 0
        session = draws.draw(sessions(after=self.model.session.date))
        if draws.draw(st.booleans()):
            self.start_replay(session, draws)
        else:
            self.model = Model(session, MINUTE)
            self.data.start_session(session)

    def start_replay(self, session: Session, draws: st.DataObject) -> None:
        days = [session]
        for _ in range(draws.draw(st.integers(0, 2))):
            days.append(draws.draw(sessions(after=days[-1].date)))
        model = Model(days[-1], MINUTE, days[:-1], replayed=True)
        keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(model.slots))
        chosen = draws.draw(st.dictionaries(keys, values_of_bars(), max_size=60))
        block = Block.empty(SYMBOLS, days, Interval(MINUTE))
        assert block.fill(frame([(*key, values) for key, values in chosen.items()])) == 0
        model.bars = {key: (values, 0) for key, values in chosen.items()}
        self.model = model
        self.data.start_session(model.session, block)

    @rule(minutes=st.integers(0, 3), micros=st.sampled_from([0, 0, 1, MINUTE - 1]))
    def advance(self, minutes: int, micros: int) -> None:
        self.model.now += minutes * MINUTE + micros
        self.data.advance_to(self.model.now)

    @rule(draws=st.data())
    def add_bars_one_by_one(self, draws: st.DataObject) -> None:
        row = st.tuples(self.keys(self.starts_to_add()), values_of_bars(), FLAGS)
        for key, values, flags in draws.draw(st.lists(row, min_size=1, max_size=6)):
            expected = self.model.add(*key, values, flags)
            assert self.data.add_bar(*key, values, flags) is expected

    @rule(draws=st.data())
    def add_batch(self, draws: st.DataObject) -> None:
        row = st.tuples(self.keys(self.starts_to_add()), values_of_bars())
        rows = [(*key, values) for key, values in draws.draw(st.lists(row, max_size=20))]
        batch = frame(rows)
        expected = Counter(
            self.model.add(symbol, start, tuple(values), 0)
            for symbol, start, *values in batch.rows()
        )
        assert self.data.add_bars_batch(batch) == expected
        assert self.data.has_updates == bool(self.model.updates)

    @precondition(lambda self: self.model.bars)
    @rule(draws=st.data(), flags=FLAGS)
    def add_known_values_again(self, draws: st.DataObject, flags: int) -> None:
        starts = set(self.starts_to_add())
        known = [key for key in sorted(self.model.bars) if key[1] in starts]
        for key in draws.draw(st.lists(st.sampled_from(known), max_size=3)) if known else ():
            values, _ = self.model.bars[key]
            expected = self.model.add(*key, values, flags)
            assert self.data.add_bar(*key, values, flags) is expected

    @rule(draws=st.data(), field=st.integers(0, 4), bad=st.sampled_from([math.nan, math.inf, -1.0]))
    def be_refused(self, draws: st.DataObject, field: int, bad: float) -> None:
        """Each refusal leaves everything as it was, which the invariant then finds."""
        with pytest.raises(SessionStoreError, match="cannot turn the clock back"):
            self.data.advance_to(self.model.now - 1)
        values = [2.0, 2.0, 2.0, 2.0, 1.0]
        values[field] = bad if field != 2 or bad != -1.0 else 3.0  # a low below is no fault
        self.refuse(self.starts_to_add(), tuple(values), "no bar has these values: ", draws)
        if self.model.replayed and self.future():
            self.refuse(self.future(), (1.0,) * 5, "a replay brings", draws)

    def refuse(self, starts: list[int], bad: Values, why: str, draws: st.DataObject) -> None:
        symbol, start = draws.draw(self.keys(starts))
        with pytest.raises(SessionStoreError, match=why):
            self.data.add_bar(symbol, start, bad)
        rows = [("A.B", at, (1.0,) * 5) for at in self.model.passed]
        with pytest.raises(SessionStoreError, match=why):
            self.data.add_bars_batch(frame([*rows, (symbol, start, bad)]))

    @rule()
    def drain(self) -> None:
        assert self.data.drain_updates() == self.model.updates
        assert not self.data.has_updates
        self.model.updates = []

    @invariant()
    def every_answer_is_the_models(self) -> None:
        if hasattr(self, "model"):  # not before `begin`
            self.steps += 1
            self.model.check(self.data)

    def future(self) -> list[int]:
        return self.model.slots[len(self.model.passed) :]

    def starts_to_add(self) -> list[int]:
        """Starts that are allowed: in a replay only past ones; beside them, ones of no slot."""
        passed, slots = self.model.passed, self.model.slots
        inside = passed if self.model.replayed else slots
        edge = [slots[0] - MINUTE, slots[-1] + MINUTE, slots[0] + 1, 0]
        return [*passed[:-4:-1], *inside, *edge]  # the newest ones twice: they are the likeliest

    def keys(self, starts: Sequence[int]) -> st.SearchStrategy[Key]:
        return st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(starts))


Feeding.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],
)
TestFeeding = Feeding.TestCase


@pytest.mark.parametrize("session", [FULL_DAY, EARLY_CLOSE, HONG_KONG])
@settings(max_examples=10)
@given(draws=st.data())
def test_whole_days_are_read_as_the_model_reads_them(
    session: Session, draws: st.DataObject
) -> None:
    """A replay with a day of history, read at some of its minutes."""
    before = Session(
        session.date - timedelta(1),
        tuple(Segment(part.open - DAY, part.close - DAY, part.kind) for part in session.segments),
    )
    model = Model(session, MINUTE, [before], replayed=True)
    holes = draws.draw(st.sets(st.integers(0, len(model.slots) - 1), max_size=40))
    model.bars = {
        (symbol, start): ((2.0, 3.0, 1.0, 2.0, float(slot % 7)), 0)
        for row, symbol in enumerate(SYMBOLS[:2])  # the third never trades
        for slot, start in enumerate(model.slots)
        if slot not in holes or (slot + row) % 2
    }
    block = Block.empty(SYMBOLS, [before, session], Interval(MINUTE))
    block.fill(frame([(*key, values) for key, (values, _) in model.bars.items()]))
    data = SessionData(SYMBOLS, before)
    data.start_session(session, block)
    offsets = st.integers(0, session.end - session.start + 2 * MINUTE)
    for offset in sorted(draws.draw(st.lists(offsets, min_size=1, max_size=4))):
        model.now = session.start + offset
        data.advance_to(model.now)
        model.check(data)
