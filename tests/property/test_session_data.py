"""The session store beside a model: a dict of bars, searched from end to end for every answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

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

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, TRUNCATED, Bar, frame_schema
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import MISSING, NO_TRADE, UNRESOLVED
from stream_coord.errors import SessionStoreError
from stream_coord.interval import MINUTE, SECOND, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import Arrival, SessionData
from stream_coord.session.series import Series
from stream_coord.session.views import Bars as Views
from stream_coord.session.views import bar_at

Values = tuple[float, ...]
Key = tuple[str, int]
Bars = dict[Key, tuple[Values, int]]
SYMBOLS = ("A.B", "AB", "a")
OPEN = parse_moment("2018-11-23T14:30:00Z")
DAY = 1440 * MINUTE
NO_VALUES: Values = (math.nan,) * len(FIELDS)
HONG_KONG_OPEN = parse_moment("2018-11-23T01:30:00Z")


@dataclass
class Bucket:
    """The minutes of a derived bar."""

    start: int
    end: int
    starts: list[int]
    flags: int = 0


@dataclass
class Model:
    """What the store should hold, as plainly as it can be written down.

    `bars` are those that are read, `told` those that a replay tells of: without a strategy's.
    """

    session: Session
    interval: int
    history: Sequence[Session] = ()
    replayed: bool = False
    bars: Bars = field(default_factory=dict)
    told: Bars = field(default_factory=dict)
    active: set[int] = field(default_factory=set)
    states: dict[Key, int] = field(default_factory=dict)
    updates: list[Bar] = field(default_factory=list)
    grace: int = 0
    check_every: int = 0
    now: int = 0
    slots: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.session.start
        self.slots = [start for day in (*self.history, self.session) for start in self.grid(day)]
        self.told = dict(self.bars) if self.replayed else self.bars

    def grid(self, session: Session, kind: Kind | None = None) -> list[int]:
        return [
            start
            for segment in session.segments
            for start in range(segment.open, segment.close, self.interval)
            if kind in {None, segment.kind}
        ]

    def buckets(self, micros: int) -> list[Bucket]:
        """Return the buckets of a derived interval, those to come too."""
        found = []
        for day in (*self.history, self.session):
            if micros == DAY:
                midnight = datetime.combine(day.date, time(), UTC)
                start = int(midnight.timestamp()) * 1_000_000
                found.append(Bucket(start, day.close, self.grid(day, "regular")))
                continue
            for segment in day.segments:
                for start in range(segment.open, segment.close, micros):
                    end = min(start + micros, segment.close)
                    flags = TRUNCATED if end - start < micros else 0
                    starts = list(range(start, end, self.interval))
                    found.append(Bucket(start, end, starts, flags))
        return found

    def derived(self, bars: Bars, symbol: str, micros: int, bucket: Bucket) -> Bar | None:
        """Build a derived bar of those of its bars that are over by now."""
        there = [
            bars[symbol, start]
            for start in bucket.starts
            if (symbol, start) in bars and start + self.interval <= self.now
        ]
        real = [bar for bar in there if not bar[1] & SYNTHETIC]
        used = real or there
        if not used:
            return None
        opens, highs, lows, closes, volumes = zip(*(values for values, _ in used), strict=True)
        flags = bucket.flags | (0 if real else SYNTHETIC)
        if any(bits & FILLED for _, bits in used):
            flags |= FILLED
        values = opens[0], max(highs), min(lows), closes[-1], sum(volumes)
        name, expected = str(Interval(micros)), len(bucket.starts)
        return Bar(symbol, name, bucket.start, bucket.end, *values, flags, len(real), expected)

    def rebuilt(self, bars: Bars, keys: Sequence[Key], micros: int, upto: int) -> list[Bar]:
        """Return the derived bars, over by `upto`, that hold one of these bars."""
        return [
            bar
            for symbol in SYMBOLS
            for bucket in self.buckets(micros)
            if bucket.end <= upto and any((symbol, start) in keys for start in bucket.starts)
            if (bar := self.derived(bars, symbol, micros, bucket))
        ]

    @property
    def passed(self) -> list[int]:
        return [start for start in self.slots if start + self.interval <= self.now]

    def bar(self, symbol: str, start: int, bars: Bars | None = None) -> Bar:
        (opened, high, low, closed, volume), flags = (bars or self.bars)[symbol, start]
        end = start + self.interval
        return Bar(symbol, "1m", start, end, opened, high, low, closed, volume, flags)

    def visible(self, symbol: str) -> list[Bar]:
        return [self.bar(symbol, start) for start in self.passed if (symbol, start) in self.bars]

    def value(self, symbol: str, start: int, name: str) -> float:
        values, _ = self.bars.get((symbol, start), (NO_VALUES, 0))
        return values[FIELDS.index(name)]

    def add(self, rows: Sequence[tuple[str, int, Values]], flags: int = 0) -> list[Arrival]:
        """Add bars that come together, and note the updates."""
        late: list[Key] = []
        arrivals = [self.put(*row, flags, late) for row in rows]
        self.updates += [self.bar(*key) for key in late]
        for micros in sorted(self.active):
            self.updates += self.rebuilt(self.bars, late, micros, self.now)
        return arrivals

    def put(self, symbol: str, start: int, values: Values, flags: int, late: list[Key]) -> Arrival:
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
            late.append((symbol, start))
        if old is not None:
            return Arrival.REVISED
        return Arrival.LATE if seen else Arrival.ADDED

    def keep(self, found: Bars, told: Sequence[int]) -> list[list[Bar]]:
        """Put upkeep's bars in both places; return what a replay tells of it."""
        new = overwrite(self.bars, found)
        for some in self.changed(self.bars, new, sorted(self.active)):
            self.updates += some
        if self.told is not self.bars:
            new = overwrite(self.told, found)
        return [some for some in self.changed(self.told, new, told) if some]

    def changed(self, bars: Bars, keys: Sequence[Key], intervals: Sequence[int]) -> list[list[Bar]]:
        """Return bars and what is rebuilt; what ends now is told of after upkeep, as new bars."""
        derived = [self.rebuilt(bars, keys, micros, self.now - 1) for micros in intervals]
        return [[self.bar(*key, bars) for key in keys], *derived]

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
        for micros in sorted(self.active):
            self.check_interval(data, micros)

    def check_interval(self, data: SessionData, micros: int) -> None:
        name, buckets = str(Interval(micros)), self.buckets(micros)
        over = [bucket for bucket in buckets if bucket.end <= self.now]
        for symbol in SYMBOLS:
            slots = [self.derived(self.bars, symbol, micros, bucket) for bucket in over]
            bars = [bar for bar in slots if bar is not None]
            assert data.latest_bar(symbol, name) == (bars[-1] if bars else None)
            assert data.count(symbol, Interval(micros)) == len(bars)
            assert list(data.since(symbol, self.session.start, name)) == [
                bar for bar in bars if bar.start >= self.session.start
            ]
            for n in (0, 1, 3, 1000):
                self.compare(data.last_n(symbol, n, name), bars[max(len(bars) - n, 0) :])
                volumes = [math.nan if bar is None else bar.volume for bar in slots]
                expected = volumes[max(len(volumes) - n, 0) :]
                assert same(data.window(symbol, n, "volume", name), expected)
            begun = buckets[len(over)] if len(over) < len(buckets) else None
            building = self.derived(self.bars, symbol, micros, begun) if begun else None
            assert data.in_progress(symbol, name) == building
        for back in (0, 1, 1000):
            at = over[-1 - back] if back < len(over) else Bucket(0, 0, [])
            column = [self.derived(self.bars, symbol, micros, at) for symbol in SYMBOLS]
            expected = [math.nan if bar is None else bar.close for bar in column]
            assert same(data.cross_section("close", back, name), expected)

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
        self.compare(found, expected)
        assert found.symbol == symbol
        if found:
            whole = range(expected[0].start, expected[-1].start + 1, self.interval)
            unbroken = set(whole) <= set(self.slots) and len(whole) == len(found)
            if unbroken:  # no hole: a view, and no copy
                assert np.shares_memory(found.close, data.window(symbol, 1000))

    def compare(self, found: Views, expected: list[Bar]) -> None:
        """Compare bars read as objects, by position and as columns."""
        assert (list(found), len(found)) == (expected, len(expected))
        assert [found[i] for i in range(-len(found), len(found))] == expected * 2
        for name in ("start", "end", *FIELDS, "flags", "n", "n_expected"):
            assert same(getattr(found, name), [getattr(bar, name) for bar in expected])

    def check_metrics(self, data: SessionData, symbol: str, bars: list[Bar]) -> None:
        metrics = data.metrics(symbol)
        today = [bar for bar in bars if bar.start >= self.session.start]
        over = self.now >= self.session.end
        due = [
            start
            for start in self.grid(self.session, "regular")
            if over or start + self.interval + self.grace <= self.now
        ]
        minutes = set(due)
        real = [bar for bar in today if bar.start in minutes and not bar.flags & SYNTHETIC]
        without = minutes - {bar.start for bar in real}
        checked = {start for start in without if over or self.check_of(start) <= self.now}
        known = Counter(self.states.get((symbol, start), MISSING) for start in checked)
        assert (metrics.symbol, metrics.bars) == (symbol, len(today))
        assert metrics.volume == sum(bar.volume for bar in today)
        assert metrics.last_update == (today[-1].end if today else None)
        assert (metrics.expected, metrics.present) == (len(due), len(real))
        assert metrics.filled == sum(bool(bar.flags & FILLED) for bar in real)
        explained = known[NO_TRADE], known[UNRESOLVED]
        assert (metrics.no_trade, metrics.unresolved) == explained
        assert metrics.missing == len(due) - len(real) - sum(explained)
        assert metrics.quality == (100 * len(real) / len(due) if due else None)
        covered = len(real) + known[NO_TRADE]
        assert metrics.coverage == (100 * covered / len(due) if due else None)
        highs, lows = [bar.high for bar in today], [bar.low for bar in today]
        assert same(
            np.array([metrics.high, metrics.low]),
            [max(highs, default=math.nan), min(lows, default=math.nan)],
        )

    def check_of(self, start: int) -> int:
        """Return when upkeep looks after a minute: at the first check at which it is due."""
        due = start + self.interval + self.grace
        if not self.check_every:
            return due
        time = self.session.open
        while time < due:
            time += self.check_every
        return time

    def check_told(self, data: SessionData, configured: Sequence[int]) -> None:
        """Compare all that a replay tells of, minutes to come included."""
        series = data._pristine
        told = [(key, *self.told[key]) for key in sorted(self.told)]
        assert bars_in(series.base) == told
        end, self.now = self.now, self.session.end + DAY  # everything is over by then
        for micros in configured:
            expected = [
                bar
                for symbol in SYMBOLS
                for bucket in self.buckets(micros)
                if (bar := self.derived(self.told, symbol, micros, bucket))
            ]
            rows = [
                ((bar.symbol, bar.start), tuple(getattr(bar, name) for name in FIELDS), bar.flags)
                for bar in expected
            ]
            assert bars_in(series.derived[Interval(micros)]) == rows
        self.now = end


def overwrite(bars: Bars, found: Bars) -> list[Key]:
    """Put bars in, but no synthetic one in the place of a real one; return what was put in."""
    new = [
        key
        for key in sorted(found)
        if key not in bars or bars[key][1] & SYNTHETIC or not found[key][1] & SYNTHETIC
    ]
    bars |= {key: found[key] for key in new}
    return new


def bars_in(block: Block) -> list[tuple[Key, Values, int]]:
    """Return all bars of a block, visible or not."""
    return [
        (
            (block.symbols[row], int(block.starts[slot])),
            tuple(block.values[:, row, slot].tolist()),
            int(block.flags[row, slot]),
        )
        for row, slot in np.argwhere(block.present).tolist()
    ]


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


COARSER = [2 * MINUTE, 3 * MINUTE, 60 * MINUTE, DAY]
READS: list[Callable[[SessionData, str], object]] = [
    lambda data, interval: data.latest_bar("AB", interval),
    lambda data, interval: data.latest_many(interval=interval),
    lambda data, interval: data.last_n("AB", 3, interval),
    lambda data, interval: data.since("AB", 0, Interval.parse(interval)),
    lambda data, interval: data.window("AB", 3, interval=interval),
    lambda data, interval: data.cross_section(interval=interval),
    lambda data, interval: data.count("AB", interval),
    lambda data, interval: data.in_progress("AB", interval),
    lambda data, interval: data.activate(interval),
    lambda data, interval: data.aio.subscribe("AB", interval),
]


class Feeding(RuleBasedStateMachine):
    """Sessions begin, bars come in time, late, twice, changed and wrong; time goes on."""

    @initialize(
        draws=st.data(), configured=st.sets(st.sampled_from(COARSER), min_size=1, max_size=2)
    )
    def begin(self, draws: st.DataObject, configured: set[int]) -> None:
        intervals = [Interval(micros) for micros in (*configured, MINUTE)]
        self.data = SessionData(reversed(SYMBOLS), FULL_DAY, derived=intervals)
        self.configured = sorted(configured)
        self.model = Model(FULL_DAY, MINUTE, active=configured)
        self.start_session(draws)

    @precondition(lambda self: self.steps > 8)
    @rule(draws=st.data())
    def start_session(self, draws: st.DataObject) -> None:
        self.steps = 0
        session = draws.draw(sessions(after=self.model.session.date))
        if draws.draw(st.booleans()):
            self.start_replay(session, draws)
        else:
            self.model = Model(session, MINUTE, **self.kept_on())
            self.data.start_session(session)

    def kept_on(self) -> dict[str, Any]:
        """Return what goes on from one session to the next."""
        old = self.model
        return {"active": old.active, "grace": old.grace, "check_every": old.check_every}

    def start_replay(self, session: Session, draws: st.DataObject) -> None:
        days = [session]
        for _ in range(draws.draw(st.integers(0, 2))):
            days.append(draws.draw(sessions(after=days[-1].date)))
        slots = Model(days[-1], MINUTE, days[:-1]).slots
        keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(slots))
        chosen = draws.draw(st.dictionaries(keys, values_of_bars(), max_size=60))
        block = Block.empty(SYMBOLS, days, Interval(MINUTE))
        assert block.fill(frame([(*key, values) for key, values in chosen.items()])) == 0
        bars = {key: (values, 0) for key, values in chosen.items()}
        self.model = Model(days[-1], MINUTE, days[:-1], True, bars, **self.kept_on())
        ready = draws.draw(st.booleans())
        derived = [Interval(micros) for micros in self.configured]
        self.data.start_session(days[-1], Series(block, derived) if ready else block)

    @rule(minutes=st.integers(0, 3), micros=st.sampled_from([0, 0, 1, MINUTE - 1]))
    def advance(self, minutes: int, micros: int) -> None:
        self.model.now += minutes * MINUTE + micros
        self.data.advance_to(self.model.now)

    @rule(draws=st.data())
    def add_bars_one_by_one(self, draws: st.DataObject) -> None:
        row = st.tuples(self.keys(self.starts_to_add()), values_of_bars(), FLAGS)
        for key, values, flags in draws.draw(st.lists(row, min_size=1, max_size=6)):
            (expected,) = self.model.add([(*key, values)], flags)
            assert self.data.add_bar(*key, values, flags) is expected

    @rule(draws=st.data())
    def add_batch(self, draws: st.DataObject) -> None:
        row = st.tuples(self.keys(self.starts_to_add()), values_of_bars())
        rows = [(*key, values) for key, values in draws.draw(st.lists(row, max_size=20))]
        batch = frame(rows)
        expected = self.model.add(
            [(symbol, start, tuple(values)) for symbol, start, *values in batch.rows()]
        )
        assert self.data.add_bars_batch(batch) == Counter(expected)
        assert self.data.has_updates == bool(self.model.updates)

    @precondition(lambda self: self.model.bars)
    @rule(draws=st.data(), flags=FLAGS)
    def add_known_values_again(self, draws: st.DataObject, flags: int) -> None:
        starts = set(self.starts_to_add())
        known = [key for key in sorted(self.model.bars) if key[1] in starts]
        for key in draws.draw(st.lists(st.sampled_from(known), max_size=3)) if known else ():
            values, _ = self.model.bars[key]
            (expected,) = self.model.add([(*key, values)], flags)
            assert self.data.add_bar(*key, values, flags) is expected

    @precondition(lambda self: self.model.passed)
    @rule(draws=st.data(), bits=st.sampled_from([FILLED, FILLED, SYNTHETIC]))
    def keep(self, draws: st.DataObject, bits: int) -> None:
        """Upkeep finds bars of past minutes, in any order."""
        model, data = self.model, self.data
        keys = self.keys([*model.passed[-2:], *model.passed[-2:], *model.passed])
        values = draws.draw(st.dictionaries(keys, values_of_bars(), max_size=8))
        rows = np.array([SYMBOLS.index(symbol) for symbol, _ in values], np.int64)
        slots = np.array([model.slots.index(start) for _, start in values], np.int64)
        columns = np.array(list(values.values())).reshape(-1, len(FIELDS)).T
        kept = data.keep(rows, slots, columns, np.full(len(values), bits, np.uint8))
        found = {key: (of, bits) for key, of in values.items()}
        expected = model.keep(found, self.configured)
        assert [
            [bar_at(block, *cell) for cell in zip(rows.tolist(), slots.tolist(), strict=True)]
            for block, rows, slots in kept.cells
        ] == expected

    @rule(draws=st.data(), state=st.sampled_from([MISSING, NO_TRADE, NO_TRADE, UNRESOLVED]))
    def note_states(self, draws: st.DataObject, state: int) -> None:
        model = self.model
        keys = draws.draw(st.sets(self.keys(model.slots), min_size=3, max_size=30))
        rows = np.array([SYMBOLS.index(symbol) for symbol, _ in keys], np.int64)
        slots = np.array([model.slots.index(start) for _, start in keys], np.int64)
        self.data.note_states(rows, slots, np.full(len(keys), state, np.uint8))
        model.states |= dict.fromkeys(keys, state)

    @rule(grace=st.sampled_from([0, 30, 60, 90]), check=st.sampled_from([0, 150, 210]))
    def set_up_upkeep(self, grace: int, check: int) -> None:
        self.model.grace = self.data.grace_micros = grace * SECOND
        self.model.check_every = self.data.check_micros = check * SECOND

    @rule(micros=st.sampled_from(COARSER), call=st.integers(0, len(READS) - 1))
    def ask(self, micros: int, call: int) -> None:
        """Whatever is asked first of an interval activates it."""
        READS[call](self.data, str(Interval(micros)))
        self.model.active.add(micros)

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
        self.model.check_told(self.data, self.configured)

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
    max_examples=60,
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
    model.active = {5 * MINUTE, 60 * MINUTE, DAY}
    block = Block.empty(SYMBOLS, [before, session], Interval(MINUTE))
    block.fill(frame([(*key, values) for key, (values, _) in model.bars.items()]))
    data = SessionData(SYMBOLS, before, derived=map(Interval, model.active))
    data.start_session(session, block)
    offsets = st.integers(0, session.end - session.start + 2 * MINUTE)
    for offset in sorted(draws.draw(st.lists(offsets, min_size=1, max_size=4))):
        model.now = session.start + offset
        data.advance_to(model.now)
        model.check(data)
