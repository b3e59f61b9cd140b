"""Upkeep in a replay equals a model that goes through every check and every minute.

The model knows nothing of arrays: bars are in dicts, minutes are looked at one by one, and the
digest is packed record by record from what the docstring of `stream_coord.compute.digest` says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from stream_coord.bars import FILLED, SYNTHETIC, TRUNCATED, Bar, frame_schema
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import FixedClock, SystemTimer, parse_moment
from stream_coord.errors import SourceError
from stream_coord.interval import MINUTE, SECOND, Interval
from stream_coord.session.block import Block
from stream_coord.session.boundaries import StateChange, planned_changes
from stream_coord.session.data import SessionData
from stream_coord.session.series import Series
from stream_coord.session.views import SymbolMetrics
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.keeper import Keeper

OPEN = parse_moment("2018-11-23T14:30:00Z")
DAY = date(2018, 11, 23)
SYMBOLS = ("A", "B", "a")
Key = tuple[str, int]
Values = tuple[float, ...]
PlainBar = tuple[Values, int]
"""Values and flags."""


@dataclass
class Scripted:
    """A source with some bars of some symbols that fails at some calls.

    Attributes:
        bars: What it has.
        covered: The symbols it can tell of.
        fails: Whether its n-th call fails; later ones do not.
        calls: How often it was asked.
    """

    bars: dict[Key, Values]
    covered: frozenset[str]
    fails: Sequence[bool]
    calls: int = 0

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> list[BarRange]:
        assert interval == Interval(MINUTE)
        return [part for part in ranges if part.symbol in self.covered]

    def bars_of(self, part: BarRange) -> list[tuple[object, ...]]:
        return [
            (symbol, start, *values)
            for (symbol, start), values in self.bars.items()
            if symbol == part.symbol and part.start <= start < part.end
        ]

    def close(self) -> None:
        """Nothing is open."""


class Source:
    """`Scripted`, as a source."""

    def __init__(self, script: Scripted) -> None:
        self.script = script
        self.coverage = script.coverage
        self.close = script.close

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        number, self.script.calls = self.script.calls, self.script.calls + 1
        if number < len(self.script.fails) and self.script.fails[number]:
            raise SourceError("out of order")
        rows = [row for part in ranges for row in self.script.bars_of(part)]
        return pl.DataFrame(rows, schema=frame_schema(), orient="row")


@dataclass
class Case:
    """A session with holes, a source, and how upkeep goes about it."""

    session: Session
    stored: dict[Key, Values]
    script: Scripted
    expected: tuple[bool, ...]
    derived: tuple[int, ...]
    step: int
    grace: int
    attempts: int
    synthesize: bool
    look_ahead: bool


@dataclass
class Model:
    """What must come of a case: events in order, and how each minute ends."""

    case: Case
    known: dict[Key, PlainBar] = field(default_factory=dict)
    records: list[bytes] = field(default_factory=list)
    updates: list[tuple[int, int, str, int]] = field(default_factory=list)
    states: dict[Key, str] = field(default_factory=dict)
    metrics: list[tuple[int, str, int, int, int, int, int]] = field(default_factory=list)

    def run(self) -> str:
        case, session = self.case, self.case.session
        self.open = dict.fromkeys(self.missing(), True)
        self.found: dict[Key, Values] = {}
        self.tries = dict.fromkeys(self.open, 0)
        self.settled: set[Key] = set()
        self.failed_ever = False
        self.states = dict.fromkeys(self.open, "missing")
        self.failures, self.ask_after = 0, session.open
        if case.look_ahead and any(self.open.values()):
            self.ask([])
        minutes = [
            (start, part.kind == "regular")
            for part in session.segments
            for start in range(part.open, part.close, MINUTE)
        ]
        checks = set(range(session.open, session.end + 1, case.step)) | {session.end}
        changes: dict[int, list[StateChange]] = {}
        for change in planned_changes(session):
            changes.setdefault(change.time, []).append(change)
        ends = {start + MINUTE: start for start, _ in minutes}
        for now in sorted({*ends, *checks, *changes}):
            if now in ends:
                for symbol in SYMBOLS:
                    if (symbol, ends[now]) in case.stored:
                        self.known[symbol, ends[now]] = (case.stored[symbol, ends[now]], 0)
                        self.record(now, 1, MINUTE, symbol, self.known[symbol, ends[now]])
            if now in checks:
                self.check(now)
            if now in ends:
                self.derive(now)
                self.measure(now)
            for change in changes.get(now, []):
                left, entered = change.left.value, change.entered.value
                self.records.append(
                    struct.pack("<qIIQq5d", now, 5, 0, 0, 0, left, entered, 0, 0, 0)
                )
        header = f"stream-coord digest 1\0{session.date:%Y-%m-%d}\0".encode()
        return xxh3_128_digest(header + b"".join(self.records)).hex()

    def grid(self) -> list[int]:
        regular = [part for part in self.case.session.segments if part.kind == "regular"]
        return [start for part in regular for start in range(part.open, part.close, MINUTE)]

    def missing(self) -> list[Key]:
        return [
            (symbol, start)
            for symbol, expected in zip(SYMBOLS, self.case.expected, strict=True)
            for start in self.grid()
            if expected and (symbol, start) not in self.case.stored
        ]

    def first_check(self, key: Key) -> int:
        case, session = self.case, self.case.session
        at = session.open
        while at < key[1] + MINUTE + case.grace:
            at += case.step
        return min(at, session.end)

    def ask(self, due: Sequence[Key]) -> bool:
        """Ask for all open minutes, which is a try of those that are due; return if it failed."""
        case = self.case
        wanted = [key for key, is_open in self.open.items() if is_open]
        covered = [key for key in wanted if key[0] in case.script.covered]
        for key in wanted:
            if key not in covered:
                self.open[key] = False
        if not covered:
            return False
        number, case.script.calls = case.script.calls, case.script.calls + 1
        if number < len(case.script.fails) and case.script.fails[number]:
            self.failed_ever = True
            for key in covered:
                self.tries[key] += key in due
                if self.tries[key] >= case.attempts:
                    self.open[key], self.states[key] = False, "unresolved"
            return True
        for key in covered:
            self.open[key] = False
            if key in case.script.bars:
                self.found[key] = case.script.bars[key]
            else:
                self.states[key] = "no_trade"
        return False

    def check(self, now: int) -> None:
        due = [k for k in self.missing() if self.first_check(k) <= now and k not in self.settled]
        patient = now <= self.ask_after and now < self.case.session.end
        if any(self.open[key] for key in due) and not patient:
            self.failures = self.failures + 1 if self.ask(due) else 0
            pause = 2 ** (self.failures - self.case.attempts)
            self.ask_after = now + int(pause if pause > 1 else 0) * self.case.step
        fills = [key for key in due if key in self.found]
        self.settled |= {key for key in due if not self.open[key]}
        for key in fills:
            self.known[key] = (self.found[key], FILLED)
            self.states[key] = "filled"
        self.tell(now, fills)
        if self.case.synthesize:
            new = [k for k in due if self.first_check(k) == now and self.states[k] != "filled"]
            flat = []
            for symbol, start in new:  # by symbol, then by start: a flat bar follows a flat bar
                before = [k for k in self.known if k[0] == symbol and k[1] < start]
                if before:
                    close = self.known[max(before)][0][3]
                    self.known[symbol, start] = ((close, close, close, close, 0.0), SYNTHETIC)
                    flat.append((symbol, start))
            self.tell(now, flat)

    def tell(self, now: int, changed: list[Key]) -> None:
        for key in sorted(changed):
            self.update(now, MINUTE, key[0], key[1], key[1] + MINUTE, self.known[key])
        for longer in self.case.derived:
            for symbol in SYMBOLS:
                for start, end, cut in self.buckets(longer):
                    if end < now and any(s == symbol and start <= at < end for s, at in changed):
                        bar = self.bar(symbol, start, end, cut)
                        assert bar is not None
                        self.update(now, longer, symbol, start, end, bar)

    def derive(self, now: int) -> None:
        for longer in self.case.derived:
            for start, end, cut in self.buckets(longer):
                for symbol in SYMBOLS:
                    if end == now and (bar := self.bar(symbol, start, end, cut)):
                        self.record(now, 3, longer, symbol, bar)

    def buckets(self, longer: int) -> list[tuple[int, int, bool]]:
        return [
            (at, min(at + longer, part.close), at + longer > part.close)
            for part in self.case.session.segments
            for at in range(part.open, part.close, longer)
        ]

    def bar(self, symbol: str, start: int, end: int, cut: bool) -> PlainBar | None:
        held = [self.known[k] for k in sorted(self.known) if k[0] == symbol and start <= k[1] < end]
        if not held:
            return None
        real = [values for values, flags in held if not flags & SYNTHETIC]
        opens, highs, lows, closes, volumes = zip(*(real or [v for v, _ in held]), strict=True)
        flags = (0 if real else SYNTHETIC) | (TRUNCATED if cut else 0)
        return (opens[0], max(highs), min(lows), closes[-1], sum(volumes)), flags

    def update(
        self, now: int, interval: int, symbol: str, start: int, end: int, bar: PlainBar
    ) -> None:
        late = (now - end) // SECOND << 8
        self.record(now, 2, interval, symbol, (bar[0], bar[1] & 5 | late))
        self.updates.append((now, interval, symbol, start))

    def record(self, now: int, rank: int, interval: int, symbol: str, bar: PlainBar) -> None:
        values, flags = bar
        flags = flags if rank == 2 else flags & 5
        key = xxh3_64_intdigest(symbol.encode())
        self.records.append(struct.pack("<qIIQq5d", now, rank, flags, key, interval, *values))

    def measure(self, now: int) -> None:
        session, grace = self.case.session, self.case.grace
        over = now >= session.end
        due = [at for at in self.grid() if at + MINUTE + grace <= now or over]
        for symbol, expected in zip(SYMBOLS, self.case.expected, strict=True):
            if not expected:
                continue
            real = [at for at in due if self.known.get((symbol, at), ((), 1))[1] & SYNTHETIC == 0]
            filled = [at for at in real if self.known[symbol, at][1] & FILLED]
            checked = [at for at in due if over or self.first_check((symbol, at)) <= now]
            no_trade, unresolved = (
                sum(self.states.get((symbol, at)) == state for at in checked)
                for state in ("no_trade", "unresolved")
            )
            counts = len(due), len(real), len(filled), no_trade, unresolved
            self.metrics.append((now, symbol, *counts))


class Noting(Strategy):
    """Notes updates and metrics."""

    def __init__(self, expected: Sequence[bool]) -> None:
        self.updates: list[tuple[int, int, str, int]] = []
        self.metrics: list[tuple[int, str, int, int, int, int, int]] = []
        self.expected = [s for s, is_expected in zip(SYMBOLS, expected, strict=True) if is_expected]

    def on_update(self, bar: Bar) -> None:
        interval = Interval.parse(bar.interval).micros
        self.updates.append((self.session.now, interval, bar.symbol, bar.start))

    def on_step(self, now: int) -> None:
        for symbol in self.expected:
            m = self.session.metrics(symbol)
            check_identity(m)
            self.metrics.append(
                (now, symbol, m.expected, m.present, m.filled, m.no_trade, m.unresolved)
            )


def check_identity(m: SymbolMetrics) -> None:
    assert m.expected == m.present + m.missing + m.no_trade + m.unresolved
    assert min(m.present, m.missing, m.no_trade, m.unresolved) >= 0
    assert m.filled <= m.present
    if m.expected:
        assert m.quality is not None
        assert math.isclose(m.quality, 100 * m.present / m.expected)
        assert m.coverage is not None
        assert math.isclose(m.coverage, 100 * (m.present + m.no_trade) / m.expected)
    else:
        assert m.quality is m.coverage is None


def block_of(case: Case) -> Block:
    rows = [(*key, *case.stored[key]) for key in sorted(case.stored)]
    block = Block.empty(SYMBOLS, [case.session], Interval(MINUTE))
    assert block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row")) == 0
    return block


def streamed(case: Case, strategy: Strategy | None) -> tuple[str, SessionStream, Keeper]:
    case.script.calls = 0
    source = NamedSource("s", "s: scripted", Source(case.script))
    enquirer = Enquirer([source], Interval(MINUTE), FixedClock(OPEN), SystemTimer())
    derived = tuple(map(Interval, case.derived))
    upkeep = Upkeep(enquirer, derived, case.step, case.attempts, case.grace, case.synthesize)
    series = Series(block_of(case), derived)
    keeper = Keeper(upkeep, case.session, series.base, np.array(case.expected))
    if case.look_ahead:
        keeper.look_ahead()
    data = SessionData(SYMBOLS, case.session, Interval(MINUTE), derived)
    data.start_session(case.session, series)
    keeper.begin(data)
    if strategy is not None:
        strategy.session = data
    # Longer than any session of this model: silence is another model's affair.
    patience = 10_000 * MINUTE
    stream = SessionStream(data, strategy, lambda: None, keeper=keeper, timeout_micros=patience)
    return stream.run(), stream, keeper


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kinds: list[Kind] = ["regular"] * draw(st.integers(1, 2))
    kinds = ["pre", *kinds] if draw(st.booleans()) else kinds
    kinds = [*kinds, "post"] if draw(st.booleans()) else kinds
    segments, time = [], OPEN
    for kind in kinds:
        length, pause = draw(st.integers(1, 7)), draw(st.integers(0, 2))
        segments.append(Segment(time, time + length * MINUTE, kind))
        time += (length + pause) * MINUTE
    session = Session(DAY, tuple(segments))
    starts = [start for part in segments for start in range(part.open, part.close, MINUTE)]
    price = st.integers(1, 9).map(float)
    values: st.SearchStrategy[Values] = st.tuples(price, price, price, price, price).map(
        lambda v: (v[0], max(v[:4]), min(v[:4]), v[3], v[4])
    )
    keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(starts))
    bars = st.dictionaries(keys, values, max_size=30)
    return Case(
        session,
        draw(bars),
        Scripted(
            draw(bars),
            draw(st.frozensets(st.sampled_from(SYMBOLS), min_size=1)),
            draw(st.lists(st.booleans(), max_size=4) | st.just([True] * 9)),
        ),
        draw(st.tuples(*[st.booleans()] * 3)),
        tuple(sorted(draw(st.sets(st.sampled_from([2, 3, 5]), max_size=2)))),
        draw(st.sampled_from([60, 90, 120, 300, 45])) * SECOND,
        draw(st.sampled_from([0, 0, 30, 60, 150])) * SECOND,
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None)
@given(cases())
def test_upkeep_does_what_a_model_does_minute_by_minute(case: Case) -> None:
    case.derived = tuple(n * MINUTE for n in case.derived)
    model = Model(case)
    case.script.calls = 0
    digest = model.run()
    asked = case.script.calls
    noting = Noting(case.expected)
    streamed_digest, stream, keeper = streamed(case, noting)
    assert case.script.calls == asked
    assert noting.updates == model.updates
    assert noting.metrics == model.metrics
    assert streamed_digest == digest
    assert stream.updates == len(model.updates)

    unwatched_digest, stream, _ = streamed(case, None)
    assert unwatched_digest == digest
    assert stream.updates == len(model.updates)

    quality = keeper.quality()
    at_the_end: dict[Key, str] = {}
    for gap in quality.gaps():
        at = [start for start in model.grid() if gap.start <= start < gap.end]
        assert len(at) == gap.minutes
        at_the_end |= {(gap.symbol, start): gap.state for start in at}
    assert at_the_end == model.states
    for row in quality.rows():
        states = [state for (symbol, _), state in model.states.items() if symbol == row.symbol]
        there = sum((row.symbol, start) in case.stored for start in model.grid())
        assert row.expected == len(model.grid())
        assert row.present == there + states.count("filled")
        assert row.filled == states.count("filled")
        assert row.no_trade == states.count("no_trade")
        assert row.unresolved == states.count("unresolved")
        assert row.missing == states.count("missing")
        assert row.expected == row.present + row.missing + row.no_trade + row.unresolved
