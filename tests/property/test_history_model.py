"""History, rolls and loads beside a model: bars in a dict, searched from end to end each time."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, FILLED, TRUNCATED, Bar, frame_schema
from stream_coord.calendars import Calendar, Kind, Segment, Session, open_calendar
from stream_coord.compute.splits import Split, Splits
from stream_coord.errors import SessionStoreError
from stream_coord.history import History
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.data import Arrival, SessionData
from stream_coord.session.series import Series
from stream_coord.stores import open_store

Values = tuple[float, ...]
Key = tuple[str, int]
Bars = dict[Key, tuple[Values, int]]
"""Values and flags."""
DAY = 1440 * MINUTE
SYMBOLS = ("A.B", "AB", "a")
CLOSED = {date(2024, 11, 28), date(2024, 12, 25), date(2025, 1, 1), date(2025, 1, 9)}
EARLY = {date(2024, 11, 29), date(2024, 12, 24)}
OVERRIDES = {
    "every": {"pre": "09:29", "open": "09:30", "close": "09:34", "post": "09:35"},
    "wed": {"break_start": "09:32", "break_end": "09:33", "close": "09:37", "post": "09:38"},
    **{str(day): {"close": "09:32", "post": "09:33"} for day in EARLY},
}


def tiny_session(day: date) -> Session:
    """Four minutes a day; seven less a break of one on Wednesdays; two on an early close."""
    opened = int(datetime.combine(day, time(14, 30), UTC).timestamp()) * 1_000_000
    spans: list[tuple[int, int, Kind]] = [(-1, 0, "pre"), (0, 4, "regular"), (4, 5, "post")]
    if day in EARLY:
        spans = [(-1, 0, "pre"), (0, 2, "regular"), (2, 3, "post")]
    elif day.weekday() == 2:
        spans = [(-1, 0, "pre"), (0, 2, "regular"), (3, 7, "regular"), (7, 8, "post")]
    return Session(
        day,
        tuple(Segment(opened + a * MINUTE, opened + b * MINUTE, kind) for a, b, kind in spans),
    )


ALL_DAYS = tuple(
    tiny_session(day)
    for day in (date(2024, 11, 18) + timedelta(number) for number in range(60))
    if day.weekday() < 5 and day not in CLOSED
)


@cache
def calendar() -> Calendar:
    return open_calendar("NYSE", "extended", OVERRIDES)


def test_the_calendar_has_the_sessions_of_the_model() -> None:
    assert calendar().sessions(ALL_DAYS[0].date, ALL_DAYS[-1].date) == ALL_DAYS


def starts_in(session: Session, kind: Kind | None = None) -> list[int]:
    return [
        start
        for part in session.segments
        if kind in {None, part.kind}
        for start in range(part.open, part.close, MINUTE)
    ]


@dataclass(frozen=True)
class Bucket:
    """The minutes of a derived bar."""

    start: int
    end: int
    starts: tuple[int, ...]
    flags: int = 0


def buckets_in(session: Session, micros: int) -> Iterator[Bucket]:
    if micros == DAY:
        midnight = int(datetime.combine(session.date, time(), UTC).timestamp()) * 1_000_000
        yield Bucket(midnight, session.close, tuple(starts_in(session, "regular")))
        return
    for part in session.segments:
        for start in range(part.open, part.close, micros):
            end = min(start + micros, part.close)
            flags = TRUNCATED if end - start < micros else 0
            yield Bucket(start, end, tuple(range(start, end, MINUTE)), flags)


@dataclass
class Model:
    """What the store should hold, as plainly as it can be written down.

    `days` are history and today; `bars` base bars of today and, where these are kept, of history,
    as they are read; `told` those without a strategy's own; `frozen` the derived bars of those
    sessions of history of which no base bars are kept.
    """

    days: list[Session]
    trailing: int
    kept: frozenset[int]
    active: set[int]
    splits: Sequence[Split] = ()
    replayed: bool = False
    bars: Bars = field(default_factory=dict)
    told: Bars = field(default_factory=dict)
    frozen: dict[tuple[int, Key], Bar] = field(default_factory=dict)
    updates: list[Bar] = field(default_factory=list)
    newest_end: int | None = None
    now: int = 0

    def __post_init__(self) -> None:
        self.now = self.today.start

    @property
    def today(self) -> Session:
        return self.days[-1]

    @property
    def base_days(self) -> list[Session]:
        return self.days if MINUTE in self.kept else [self.today]

    @property
    def base_starts(self) -> list[int]:
        return [start for day in self.base_days for start in starts_in(day)]

    # -- what is read ----------------------------------------------------------------------------

    def slots(self, symbol: str, micros: int) -> list[tuple[Bucket, Bar | None]]:
        """Return the slots that are over, each with its bar."""
        return [(slot, bar) for slot, bar in self.all_slots(symbol, micros) if slot.end <= self.now]

    def all_slots(self, symbol: str, micros: int) -> Iterator[tuple[Bucket, Bar | None]]:
        for day in self.days:
            if day in self.base_days:
                for bucket in buckets_in(day, micros):
                    yield bucket, self.build(symbol, micros, bucket)
            elif micros in self.kept:
                for bucket in buckets_in(day, micros):
                    yield bucket, self.frozen.get((micros, (symbol, bucket.start)))

    def build(self, symbol: str, micros: int, bucket: Bucket) -> Bar | None:
        """Build a bar of those of its base bars that are over by now."""
        seen = [
            self.bars[symbol, start]
            for start in bucket.starts
            if (symbol, start) in self.bars and start + MINUTE <= self.now
        ]
        if not seen:
            return None
        opens, highs, lows, closes, volumes = zip(*(values for values, _ in seen), strict=True)
        values = opens[0], max(highs), min(lows), closes[-1], sum(volumes)
        flags = bucket.flags | (FILLED if any(bits for _, bits in seen) else 0)
        name, counts = str(Interval(micros)), (len(seen), len(bucket.starts))
        return Bar(symbol, name, bucket.start, bucket.end, *values, flags, *counts)

    # -- what changes it -------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """Begin a session without history, of a feed."""
        self.days, self.bars, self.frozen, self.updates = [session], {}, {}, []
        self.now, self.newest_end, self.replayed = session.start, None, False

    def roll(self, session: Session, bars: Bars | None = None) -> None:
        """Go on to a session; a replay brings its bars."""
        self.now = session.start  # all of the session that ends is over
        if self.replayed:
            self.bars = self.told  # what a strategy added is left behind
        self.freeze()
        for split in sorted(self.splits, key=lambda split: split.day):
            if self.today.date < split.day <= session.date:
                self.rescale(split)
        self.days = [*self.days, session][-1 - self.trailing :]
        self.forget()
        self.updates, self.newest_end, self.replayed = [], None, bars is not None
        self.bars |= bars or {}
        self.told = dict(self.bars)

    def load(self, stored: Bars) -> None:
        """Replace history by what is stored of the sessions before today."""
        at = ALL_DAYS.index(self.today)
        history = ALL_DAYS[max(at - self.trailing, 0) : at]
        past = Model([ALL_DAYS[0]], len(history), self.kept, self.active, self.splits)
        for day in (*history, self.today):  # as if they had passed one after the other
            past.roll(day)
            inside = set(starts_in(day)) if day != self.today else ()
            past.bars |= {key: cell for key, cell in stored.items() if key[1] in inside}
        self.days, self.frozen = past.days, past.frozen
        self.bars, self.told = (
            past.bars | {key: cell for key, cell in bars.items() if key[1] >= self.today.start}
            for bars in (self.bars, self.told)
        )

    def freeze(self) -> None:
        """Keep today's derived bars, if its base bars will not be kept."""
        for micros in self.kept if MINUTE not in self.kept else ():
            for symbol in SYMBOLS:
                for bucket in buckets_in(self.today, micros):
                    bar = self.build(symbol, micros, bucket)
                    if bar is not None:
                        self.frozen[micros, (symbol, bucket.start)] = bar

    def rescale(self, split: Split) -> None:
        for (symbol, start), ((*prices, volume), flags) in self.bars.items():
            if symbol == split.symbol:
                after = (price / split.ratio for price in prices)
                self.bars[symbol, start] = (*after, volume * split.ratio), flags
        for key, bar in self.frozen.items():
            if bar.symbol == split.symbol:
                scaled = {name: getattr(bar, name) / split.ratio for name in FIELDS[:4]}
                scaled["volume"] = bar.volume * split.ratio
                self.frozen[key] = msgspec.structs.replace(bar, **scaled)

    def forget(self) -> None:
        """Forget what lies before the oldest session, or is not kept of history."""
        starts = set(self.base_starts)
        self.bars = {key: cell for key, cell in self.bars.items() if key[1] in starts}
        oldest = {
            (micros, bucket.start)
            for micros in self.kept
            for day in self.days
            for bucket in buckets_in(day, micros)
        }
        self.frozen = {
            (micros, key): bar
            for (micros, key), bar in self.frozen.items()
            if (micros, key[1]) in oldest
        }

    def add(self, rows: Sequence[tuple[str, int, Values]]) -> list[Arrival]:
        """Add bars that come together, and note the updates."""
        late: list[Key] = []
        arrivals = [self.put(*row, late) for row in rows]
        self.tell(late, self.now)
        return arrivals

    def put(self, symbol: str, start: int, values: Values, late: list[Key]) -> Arrival:
        if start not in self.base_starts:
            return Arrival.OUT_OF_SESSION
        end, old = start + MINUTE, self.bars.get((symbol, start))
        if start >= self.today.start:
            self.newest_end = max(self.newest_end or end, end)
        if old is not None and old[0] == values:
            return Arrival.DUPLICATE
        self.bars[symbol, start] = values, 0
        over = end < self.now or (self.replayed and end == self.now)
        if over or (old and end == self.now):
            late.append((symbol, start))
        if old:
            return Arrival.REVISED
        return Arrival.LATE if over else Arrival.ADDED

    def keep(self, found: Bars) -> None:
        """Put upkeep's bars where they are read, and where they are told of.

        What a feed has brought meanwhile stays.
        """
        if not self.replayed:
            found = {key: cell for key, cell in found.items() if self.bars.get(key, cell)[1]}
        self.bars |= found
        self.told |= found
        self.tell(sorted(found), self.now - 1)

    def tell(self, keys: Sequence[Key], upto: int) -> None:
        """Note the updates: base bars, then derived ones that are over by a time."""
        self.updates += [bar for key in keys for bar in self.holding({key}, key[0], MINUTE)]
        for micros in sorted(self.active):
            for symbol in SYMBOLS:
                bars = self.holding({*keys}, symbol, micros)
                self.updates += [bar for bar in bars if bar.end <= upto]

    def holding(self, keys: set[Key], symbol: str, micros: int) -> list[Bar]:
        """Return the bars that are over and hold one of these minutes."""
        return [
            bar
            for slot, bar in self.slots(symbol, micros)
            if bar is not None and any((symbol, start) in keys for start in slot.starts)
        ]

    # -- comparing -------------------------------------------------------------------------------

    def check(self, data: SessionData) -> None:
        """Ask the store everything, and compare."""
        assert (data.now, data.session) == (self.now, self.today)
        assert data.sessions == tuple(self.days)
        assert data.newest_end == self.newest_end
        for micros in (MINUTE, *self.active):
            name = None if micros == MINUTE else str(Interval(micros))
            slots = [self.slots(symbol, micros) for symbol in SYMBOLS]
            for back in (0, 1, 5, 1000):
                column = [some[-1 - back][1] if back < len(some) else None for some in slots]
                assert same(data.cross_section("close", back, name), numbers(column, "close"))
            for symbol, some in zip(SYMBOLS, slots, strict=True):
                self.check_symbol(data, symbol, name, [bar for _, bar in some])
        for symbol in SYMBOLS:
            self.check_metrics(data, symbol)

    def check_symbol(
        self, data: SessionData, symbol: str, name: str | None, cells: list[Bar | None]
    ) -> None:
        bars = [bar for bar in cells if bar is not None]
        held = data.all_bars(symbol, name)
        assert list(held) == bars
        for column in ("start", "end", *FIELDS, "flags", "n", "n_expected"):
            assert same(getattr(held, column), [getattr(bar, column) for bar in bars])
        assert data.count(symbol, name) == len(bars)
        assert data.latest_bar(symbol, name) == (bars[-1] if bars else None)
        for start in (0, self.today.start, self.now - 2 * MINUTE, self.days[0].start + 1):
            since = [bar for bar in bars if bar.start >= start]
            assert list(data.since(symbol, start, name)) == since
        for n in (0, 1, 3, 9, 1000):
            assert list(data.last_n(symbol, n, name)) == bars[max(len(bars) - n, 0) :]
            window = data.window(symbol, n, "volume", name)
            assert same(window, numbers(cells[max(len(cells) - n, 0) :], "volume"))
        if name is not None:
            begun = [
                bucket
                for bucket in buckets_in(self.today, Interval.parse(name).micros)
                if bucket.end > self.now
            ]
            building = self.build(symbol, Interval.parse(name).micros, begun[0]) if begun else None
            assert data.in_progress(symbol, name) == building

    def check_metrics(self, data: SessionData, symbol: str) -> None:
        metrics = data.metrics(symbol)
        today = [bar for slot, bar in self.slots(symbol, MINUTE) if slot.start >= self.today.start]
        bars = [bar for bar in today if bar is not None]
        due = [start for start in starts_in(self.today, "regular") if start + MINUTE <= self.now]
        present = len([bar for bar in bars if bar.start in due])
        assert (metrics.bars, metrics.volume) == (len(bars), sum(bar.volume for bar in bars))
        assert same_number(metrics.high, max((bar.high for bar in bars), default=math.nan))
        assert same_number(metrics.low, min((bar.low for bar in bars), default=math.nan))
        assert metrics.last_update == (bars[-1].end if bars else None)
        assert (metrics.expected, metrics.present) == (len(due), present)
        assert metrics.filled == sum(bool(bar.flags) for bar in bars if bar.start in due)
        assert metrics.missing == len(due) - present
        assert metrics.quality == (100 * present / len(due) if due else None)


def numbers(bars: Sequence[Bar | None], column: str) -> list[float]:
    return [math.nan if bar is None else getattr(bar, column) for bar in bars]


def same(array: NDArray[np.generic], expected: Sequence[float]) -> bool:
    """Compare values and their types, NaN equal to NaN."""
    return repr(array.tolist()) == repr(list(expected))


def same_number(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def frame(bars: Bars) -> pl.DataFrame:
    rows = [(*key, *bars[key][0]) for key in sorted(bars)]
    return pl.DataFrame(rows, schema=frame_schema(), orient="row")


@st.composite
def values_of_bars(draw: st.DrawFn) -> Values:
    """Few different values, so that duplicates happen; exact in sums of any order and halved."""
    low, body, high = sorted(draw(st.tuples(*[st.integers(1, 3)] * 3)))
    opened, closed = draw(st.permutations([low, body]))
    return (float(opened), float(high), float(low), float(closed), float(draw(st.integers(0, 2))))


def scattered(seed: int, sessions: Sequence[Session]) -> Bars:
    """Return bars of half the minutes, all in order of size; the third symbol comes late."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, no secret
    found: Bars = {}
    for number, session in enumerate(sessions):
        for symbol in SYMBOLS if number > len(sessions) // 2 else SYMBOLS[:2]:
            for start in (*starts_in(session), session.end):  # the last is in no session
                if chance.random() < 0.6:
                    low, body, other, high = sorted(chance.choices(range(1, 9), k=4))
                    volume = chance.randrange(4)
                    values = tuple(map(float, (body, high, low, other, volume)))
                    found[symbol, start] = values, 0
    return found


TWO, THREE = 2 * MINUTE, 3 * MINUTE
KEPT = [{MINUTE}, {MINUTE, TWO}, {TWO}, {TWO, DAY}]
MINUTES = st.sampled_from([0, 1, 3, 5, 9])
FIRST = 5
"""The machine begins in this session, so that there is something before it."""


class Days(RuleBasedStateMachine):
    """Sessions follow each other, history is loaded and rolled, bars come at any time."""

    @initialize(
        seed=st.integers(0, 2**20),
        trailing=st.integers(0, 3),
        cramped=st.booleans(),
        kept=st.sampled_from(KEPT),
        splits=st.lists(
            st.tuples(
                st.sampled_from(SYMBOLS[:2]),
                st.integers(FIRST - 2, FIRST + 6),
                st.sampled_from([2.0, 4.0, 0.5]),
            ),
            max_size=6,
            unique_by=lambda split: split[:2],
        ),
    )
    def begin(
        self,
        seed: int,
        trailing: int,
        cramped: bool,
        kept: set[int],
        splits: list[tuple[str, int, float]],
    ) -> None:
        self.patch = pytest.MonkeyPatch()
        if cramped:  # history is read piece by piece, and a session that rolls is copied
            self.patch.setattr("stream_coord.history._READ_BARS", 1)
            self.patch.setattr("stream_coord.session.sliding._SPARE_SESSIONS", 0)
            self.patch.setattr("stream_coord.session.sliding._SPARE_SHARE", 10**9)
        self.folder = TemporaryDirectory()
        self.store = open_store("sqlite:///bars.db", Path(self.folder.name), create=True)
        self.stored = scattered(seed, ALL_DAYS[:9])
        self.store.write(Interval(MINUTE), frame(self.stored))
        known = [Split(symbol, ALL_DAYS[day].date, ratio) for symbol, day, ratio in splits]
        active = (kept | {TWO}) - {MINUTE}
        self.model = Model([ALL_DAYS[FIRST]], trailing, frozenset(kept), active, known)
        intervals = tuple(map(Interval, kept))
        self.data = SessionData(
            reversed(SYMBOLS),
            ALL_DAYS[FIRST],
            derived=map(Interval, active),
            trailing=trailing,
            kept=intervals,
        )
        self.history = History(
            self.store, calendar(), Interval(MINUTE), trailing, intervals, Splits(known)
        )
        self.data.use_history(self.history)
        self.ready: tuple[Session, Series, Bars] | None = None
        self.steps = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
            self.patch.undo()

    def following(self, days: int) -> Session | None:
        at = ALL_DAYS.index(self.model.today) + days
        return ALL_DAYS[at] if at < len(ALL_DAYS) else None

    @rule(minutes=st.integers(0, 4), micros=st.sampled_from([0, 0, 1, MINUTE - 1]))
    def advance(self, minutes: int, micros: int) -> None:
        self.model.now += minutes * MINUTE + micros
        self.data.advance_to(self.model.now)

    @rule(days=st.sampled_from([1, 1, 1, 2]), seed=st.integers(0, 2**20), minutes=MINUTES)
    def go_on_with_a_feed(self, days: int, seed: int, minutes: int) -> None:
        """A feed goes on, perhaps leaving sessions out, and brings most of the next one's bars."""
        if (session := self.following(days)) is not None:
            self.model.roll(session)
            self.data.roll_session(session)
            self.ready = None
            self.advance(minutes, 0)
            self.add_batch(seed)

    @rule(seed=st.integers(0, 2**20), minutes=MINUTES)
    def go_on_with_a_replay(self, seed: int, minutes: int) -> None:
        self.make_ready(seed)
        if self.ready is not None:
            session, series, bars = self.ready
            self.model.roll(session, bars)
            self.data.roll_session(session, series)
            self.ready = None
            self.advance(minutes, 0)

    @precondition(lambda self: self.model.replayed)
    @rule(seed=st.integers(0, 2**20))
    def make_ready(self, seed: int) -> None:
        """A replay loads the next session while this one streams."""
        if self.ready is None and (session := self.following(1)) is not None:
            bars = scattered(seed, [session])
            outside = {key for key in bars if key[1] == session.end}
            series = self.history.following(self.data._pristine, session)
            assert series.fill(frame(bars)) == len(outside)
            self.ready = session, series, {key: bars[key] for key in bars.keys() - outside}

    @rule(seed=st.integers(0, 2**20) | st.none())
    def load(self, seed: int | None) -> None:
        """History is loaded; perhaps others have written to the store meanwhile."""
        at = ALL_DAYS.index(self.model.today)
        if seed is not None:
            bars = scattered(seed, ALL_DAYS[max(at - 3, 0) : at + 1])
            self.stored |= bars
            self.store.write(Interval(MINUTE), frame(bars))
        window = list(ALL_DAYS[max(at - self.model.trailing, 0) : at + 1])
        if self.model.replayed and self.model.days != window:
            with pytest.raises(SessionStoreError, match="no room for this history"):
                self.data.load_historical_bars()
            return
        self.model.load(self.stored)
        self.data.load_historical_bars()

    @precondition(lambda self: self.steps > 9)
    @rule()
    def start_session(self) -> None:
        if (session := self.following(1)) is not None:
            self.steps = 0
            self.model.begin(session)
            self.data.start_session(session)
            self.ready = None

    def starts_to_add(self) -> list[int]:
        """In a replay only past ones; beside them, ones of no session."""
        starts = self.model.base_starts
        if self.model.replayed:
            starts = [start for start in starts if start + MINUTE <= self.model.now]
        return [*starts, self.model.days[0].start - MINUTE, self.model.today.end]

    @rule(seed=st.integers(0, 2**20))
    def add_batch(self, seed: int) -> None:
        allowed = {*self.starts_to_add()}
        batch = {k: cell for k, cell in scattered(seed, self.model.days).items() if k[1] in allowed}
        expected = self.model.add([(*key, batch[key][0]) for key in sorted(batch)])
        assert self.data.add_bars_batch(frame(batch)) == Counter(expected)

    @rule(draws=st.data(), again=st.booleans())
    def add_bars_one_by_one(self, draws: st.DataObject, again: bool) -> None:
        """New ones, other values for known ones, or just the same ones again."""
        starts = self.starts_to_add()
        keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from([*starts[-9:], *starts]))
        row = st.tuples(keys, values_of_bars())
        for key, new in draws.draw(st.lists(row, min_size=1, max_size=4)):
            values = self.model.bars[key][0] if again and key in self.model.bars else new
            (expected,) = self.model.add([(*key, values)])
            assert self.data.add_bar(*key, values) is expected

    @rule(seed=st.integers(0, 2**20))
    def keep(self, seed: int) -> None:
        """Upkeep fills minutes of today."""
        model = self.model
        past = [start for start in starts_in(model.today) if start + MINUTE <= model.now]
        scatter = scattered(seed, [model.today]).items()
        found = {key: (values, FILLED) for key, (values, _) in scatter if key[1] in past[::2]}
        rows = np.array([SYMBOLS.index(symbol) for symbol, _ in found], np.int64)
        slots = np.array([model.base_starts.index(start) for _, start in found], np.int64)
        columns = np.array([values for values, _ in found.values()]).reshape(-1, len(FIELDS)).T
        model.keep(found)
        self.data.keep(rows, slots, columns, np.full(len(found), FILLED, np.uint8))

    @rule()
    def ask_for_another_interval(self) -> None:
        self.data.last_n("AB", 1, "3m")
        self.model.active.add(THREE)

    @invariant()
    def every_answer_is_the_models(self) -> None:
        if hasattr(self, "model"):  # not before `begin`
            self.steps += 1
            assert self.data.drain_updates() == self.model.updates
            self.model.updates = []
            self.model.check(self.data)


Days.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
)
TestDays = Days.TestCase


@pytest.mark.parametrize("cramped", [False, True])
@pytest.mark.parametrize("kept", KEPT)
def test_what_is_loaded_stays_when_the_next_session_was_ready_before(
    cramped: bool, kept: set[int]
) -> None:
    """One walk that the machine takes too seldom; the store lacks what upkeep has filled."""
    days = Days()
    days.begin(seed=3, trailing=2, cramped=cramped, kept=kept, splits=[("AB", FIRST + 4, 2.0)])
    for seed in range(3):
        days.go_on_with_a_replay(seed, 9)
    days.keep(77)
    days.go_on_with_a_replay(9, 3)
    days.make_ready(5)
    days.load(None)
    days.every_answer_is_the_models()
    for seed in range(2):
        days.go_on_with_a_replay(seed, 3)
        days.every_answer_is_the_models()
    days.teardown()


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("trailing", [1, 3])
def test_forty_sessions_in_a_row(trailing: int, kept: set[int]) -> None:
    """Longer than the session store has room for without moving bars."""
    active = (kept | {TWO, DAY}) - {MINUTE}
    model = Model([ALL_DAYS[0]], trailing, frozenset(kept), active)
    data = SessionData(
        SYMBOLS,
        ALL_DAYS[0],
        derived=map(Interval, active),
        trailing=trailing,
        kept=map(Interval, kept),
    )
    for number, (day, following) in enumerate(pairwise(ALL_DAYS[:41])):
        bars = scattered(number, [day])
        model.add([(*key, bars[key][0]) for key in sorted(bars)])
        data.add_bars_batch(frame(bars))
        for now in (day.start + 2 * MINUTE, day.end):
            model.now = now
            data.advance_to(now)
            model.check(data)
        model.roll(following)
        data.roll_session(following)
        model.check(data)
