"""Upkeep of a feed equals a model that goes through every minute with dicts.

Bars come when they come, or never; the source has some of them, lags behind, and fails at times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.bars import FILLED, SYNTHETIC, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer, parse_moment
from stream_coord.errors import SourceError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.data import SessionData
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.feeding import FeedKeeper

OPEN = parse_moment("2018-11-23T14:30:00Z")
SYMBOLS = ("A", "B", "C")
Key = tuple[str, int]
"""A symbol and a minute of the session: 0 is the first."""

FEED, SOURCE = 1.0, 2.0
"""What is added to a minute to have the price of its bar, by who has brought it."""


@dataclass(frozen=True)
class Case:
    """A session of a feed.

    Attributes:
        lunch: Minutes of the morning, of the break and of the afternoon.
        arrivals: How many minutes after its end each bar of the feed comes.
        held: The minutes that the source has.
        lag: How many minutes the source is behind; what is newer it does not cover.
        fails: Whether its n-th call fails; later ones do not.
        expected: Who is held to account.
        step, grace: In minutes, as `attempts` and `synthesize` those of `Upkeep`.
        delay: Minutes from the close to the last check.
    """

    lunch: tuple[int, int, int]
    arrivals: dict[Key, int]
    held: frozenset[Key]
    lag: int
    fails: tuple[bool, ...]
    expected: frozenset[str]
    step: int
    grace: int
    attempts: int
    synthesize: bool
    delay: int

    @property
    def minutes(self) -> list[int]:
        """The minutes of the session."""
        morning, pause, afternoon = self.lunch
        return [*range(morning), *range(morning + pause, morning + pause + afternoon)]

    @property
    def session(self) -> Session:
        morning, pause, afternoon = (minutes * MINUTE for minutes in self.lunch)
        again = OPEN + morning + pause
        spans = ((OPEN, OPEN + morning), (again, again + afternoon))
        return Session(
            date(2018, 11, 23), tuple(Segment(begin, end, "regular") for begin, end in spans)
        )

    @property
    def last(self) -> int:
        """The last check."""
        return sum(self.lunch) + self.delay


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lunch = draw(st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 8)))
    morning, pause, afternoon = lunch
    minutes = [*range(morning), *range(morning + pause, morning + pause + afternoon)]
    keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(minutes))
    small = st.integers(0, 4)
    return Case(
        lunch,
        draw(st.dictionaries(keys, st.integers(-1, 6))),
        draw(st.frozensets(keys)),
        draw(small),
        tuple(draw(st.lists(st.booleans(), max_size=9))),
        draw(st.frozensets(st.sampled_from(SYMBOLS), min_size=1)),
        draw(st.integers(1, 4)),
        draw(small),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(small),
    )


@dataclass
class Source:
    """What a case says of its source."""

    case: Case
    now: int = 0
    calls: int = 0

    def covers(self, minute: int) -> bool:
        return minute < self.now - self.case.lag

    def fails(self) -> bool:
        self.calls += 1
        return self.calls <= len(self.case.fails) and self.case.fails[self.calls - 1]

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> list[BarRange]:
        edge = OPEN + (self.now - self.case.lag) * MINUTE
        return [
            BarRange(part.symbol, part.start, min(part.end, edge))
            for part in ranges
            if part.start < edge
        ]

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        if self.fails():
            raise SourceError("out of order")
        rows = [
            (part.symbol, OPEN + minute * MINUTE, *(minute + SOURCE,) * 4, 5.0)
            for part in ranges
            for symbol, minute in sorted(self.case.held)
            if symbol == part.symbol and part.start <= OPEN + minute * MINUTE < part.end
        ]
        return pl.DataFrame(rows, schema=frame_schema(), orient="row")

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Model:
    """What must come of a case.

    Attributes:
        bars: The close and the flags of each bar that is there.
        gaps: State and tries of each minute without a bar of the feed, once it was due.
    """

    case: Case
    bars: dict[Key, tuple[float, int]] = field(default_factory=dict)
    gaps: dict[Key, tuple[str, int]] = field(default_factory=dict)
    failures: int = 0
    ask_after: int = 0

    def __post_init__(self) -> None:
        self.source = Source(self.case)

    def feed(self, key: Key) -> None:
        self.bars[key] = (key[1] + FEED, 0)
        self.gaps.pop(key, None)

    def first_check(self, minute: int) -> int:
        due = minute + 1 + self.case.grace
        step = self.case.step
        return min((due + step - 1) // step * step, self.case.last)

    def check(self, now: int) -> None:
        case = self.case
        new = [
            (symbol, minute)
            for symbol in sorted(case.expected)
            for minute in case.minutes
            if self.first_check(minute) == now and (symbol, minute) not in self.bars
        ]
        self.gaps |= dict.fromkeys(new, ("missing", 0))
        asked = [key for key, (state, _) in sorted(self.gaps.items()) if state == "missing"]
        if asked and (now > self.ask_after or now == case.last):
            self.ask(asked, now)
        for symbol, minute in new:
            earlier = [other for name, other in self.bars if name == symbol and other < minute]
            if case.synthesize and (symbol, minute) not in self.bars and earlier:
                self.bars[symbol, minute] = (self.bars[symbol, max(earlier)][0], SYNTHETIC)

    def ask(self, asked: list[Key], now: int) -> None:
        self.source.now = now
        covered = [key for key in asked if self.source.covers(key[1])]
        failed = bool(covered) and self.source.fails()
        for key in covered:
            tries = self.gaps[key][1]
            if failed:
                given_up = tries + 1 >= self.case.attempts
                self.gaps[key] = ("unresolved" if given_up else "missing", tries + 1)
            elif key in self.case.held:
                self.gaps[key] = ("filled", tries)
                self.bars[key] = (key[1] + SOURCE, FILLED)
            else:
                self.gaps[key] = ("no_trade", tries)
        self.failures = self.failures + 1 if failed else 0
        pause = (
            2 ** (self.failures - self.case.attempts) if self.failures > self.case.attempts else 0
        )
        self.ask_after = now + pause * self.case.step


def gaps_of(keeper: FeedKeeper, minutes: list[int]) -> dict[Key, tuple[str, int]]:
    return {
        (gap.symbol, minute): (gap.state, gap.tries)
        for gap in keeper.gaps()
        for minute in minutes  # a gap goes on across the break
        if gap.start <= OPEN + minute * MINUTE < gap.end
    }


def bars_of(data: SessionData) -> dict[Key, tuple[float, int]]:
    return {
        (symbol, (bar.start - OPEN) // MINUTE): (bar.close, bar.flags)
        for symbol in SYMBOLS
        for bar in data.all_bars(symbol)
    }


@settings(max_examples=100)
@given(cases())
def test_each_minute_is_as_in_the_model(case: Case) -> None:
    source, model, session = Source(case), Model(case), case.session
    named = [NamedSource("s", "s: test", source)]
    enquirer = Enquirer(named, Interval(MINUTE), FixedClock(OPEN), SystemTimer())
    upkeep = Upkeep(
        enquirer,
        check_micros=case.step * MINUTE,
        attempts=case.attempts,
        grace_micros=case.grace * MINUTE,
        synthesize=case.synthesize,
    )
    data = SessionData(SYMBOLS, session, Interval(MINUTE))
    keeper = FeedKeeper(upkeep, data, OPEN + case.last * MINUTE, case.expected)
    coming = [key for key in case.arrivals if key[1] in case.minutes]
    for now in range(case.last + 1):
        source.now = now
        for symbol, minute in coming:
            if max(minute + 1 + case.arrivals[symbol, minute], 0) == now:
                data.add_bar(symbol, OPEN + minute * MINUTE, (minute + FEED,) * 4 + (1.0,))
                model.feed((symbol, minute))
        micros = OPEN + now * MINUTE
        data.advance_to(min(micros, session.end))
        check = keeper.next_check
        if check is not None and check <= micros:
            keeper.check(micros)
        if now % case.step == 0 or now == case.last:
            model.check(now)
        shown = {key: bar for key, bar in model.bars.items() if key[1] < now}
        assert bars_of(data) == shown
        assert gaps_of(keeper, case.minutes) == model.gaps
    assert keeper.next_check is None
    assert source.calls == model.source.calls
