"""Replays with history: none sees what is to come, and rolling on is the same as loading anew."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.bars import FIELDS, Bar, frame_schema
from stream_coord.calendars import Calendar, Session, open_calendar
from stream_coord.compute.splits import Split, Splits
from stream_coord.coordinator import Coordinator
from stream_coord.errors import NoBarsError, StoreCorruptError
from stream_coord.history import History
from stream_coord.interval import MINUTE, Interval
from stream_coord.planning import Universe
from stream_coord.session.boundaries import StateChange
from stream_coord.session.data import SessionData
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.strategy import Strategy
from stream_coord.upkeep import Upkeep

SYMBOLS = ("A.B", "AB", "a")
ONE_MINUTE = Interval(MINUTE)
TWO, THREE, ONE_DAY = map(Interval.parse, ("2m", "3m", "1d"))
OVERRIDES = {
    "every": {"pre": "09:29", "open": "09:30", "close": "09:34", "post": "09:35"},
    "wed": {"break_start": "09:32", "break_end": "09:33", "close": "09:36", "post": "09:37"},
    "2024-11-29": {"close": "09:32", "post": "09:33"},
}
Bars = dict[tuple[str, int], tuple[float, ...]]


@cache
def calendar() -> Calendar:
    return open_calendar("NYSE", "extended", OVERRIDES)


@cache
def days() -> tuple[Session, ...]:
    """From a Monday on; the ninth one, the day after a holiday, is half as long."""
    return calendar().sessions(date(2024, 11, 18), date(2025, 1, 31))


def minutes_of(session: Session) -> list[int]:
    return [start for part in session.segments for start in range(part.open, part.close, MINUTE)]


def scattered(seed: int, sessions: Sequence[Session], share: float = 0.7) -> Bars:
    """Return bars of most minutes, as crooked as real ones; of "A.B" in the last three sessions."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, no secret
    found: Bars = {}
    for number, session in enumerate(sessions):
        for symbol in SYMBOLS if number >= len(sessions) - 3 else SYMBOLS[1:]:
            for start in minutes_of(session):
                if chance.random() < share:
                    low, one, other, high = sorted(chance.uniform(1, 99) for _ in range(4))
                    found[symbol, start] = (one, high, low, other, chance.uniform(0, 1e6))
    return found


def everything(data: SessionData) -> list[object]:
    """Return what every reader says, as plain values."""
    answers: list[object] = [data.latest_many(), data.symbols, data.sessions]
    for interval in (None, "2m", "3m", "1d"):
        for symbol in data.symbols:
            held = data.all_bars(symbol, interval)
            answers += [list(held), data.count(symbol, interval)]
            answers += [list(data.last_n(symbol, n, interval)) for n in (1, 4)]
            answers += [list(data.since(symbol, data.now - 3 * MINUTE, interval))]
            answers += [data.window(symbol, 99, name, interval).tolist() for name in FIELDS]
            answers += [data.in_progress(symbol, interval or ONE_MINUTE)]
        answers += [data.cross_section("volume", back, interval).tolist() for back in (0, 5)]
    answers += [data.metrics(symbol) for symbol in data.symbols]
    return answers


@dataclass(frozen=True)
class Record:
    """What a strategy was called for, and all that it could see at that moment."""

    session: date
    now: int
    call: object
    answers: str


class Recorder(Strategy):
    """Asks everything at every call but those of a minute that all follow each other."""

    intervals = ("2m", "1d")

    def __init__(self) -> None:
        self.records: list[Record] = []

    def note(self, call: object) -> None:
        answers = repr(everything(self.session))
        self.records.append(Record(self.session.session.date, self.session.now, call, answers))

    def on_session_start(self) -> None:
        self.note("start")

    def on_bar(self, bar: Bar) -> None:
        session = self.session.session.date
        self.records.append(Record(session, self.session.now, bar, "as at the step's end"))

    on_update = on_bar

    def on_step(self, now: int) -> None:
        self.note(now)

    def on_state(self, change: StateChange) -> None:
        self.note(change)

    def on_session_end(self) -> None:
        self.note("end")


@dataclass(frozen=True)
class Plan:
    """How to replay: the sessions, and how much history of what."""

    sessions: tuple[Session, ...]
    trailing: int
    kept: tuple[Interval, ...]
    splits: tuple[Split, ...] = ()
    derived: tuple[Interval, ...] = (TWO, THREE)
    synthesize: bool = False
    first: tuple[int, ...] | None = None
    """When each symbol begins to trade; None: all are there from the beginning."""
    seed: int = 0

    @property
    def bars(self) -> Bars:
        """The bars before, in and after the sessions."""
        return scattered(self.seed, days()[: days().index(self.sessions[-1]) + 2])


@dataclass
class Seen:
    """What came of a replay."""

    records: list[Record] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def upto(self, time: int) -> list[Record]:
        return [record for record in self.records if record.now <= time]

    def of(self, session: Session) -> list[Record]:
        return [record for record in self.records if record.session == session.date]


def replayed(store: BarStore, plan: Plan, *, watched: bool = True) -> Seen:
    history = History(store, calendar(), ONE_MINUTE, plan.trailing, plan.kept, Splits(plan.splits))
    last = None if plan.first is None else (plan.sessions[-1].end,) * len(SYMBOLS)
    recorder = Recorder() if watched else None
    coordinator = Coordinator(
        store,
        ONE_MINUTE,
        Universe(SYMBOLS, plan.first, last),
        plan.sessions,
        recorder,
        upkeep=Upkeep(derived=plan.derived, synthesize=plan.synthesize),
        history=history,
    )
    with suppress(NoBarsError):  # said at the very end, of what may be cut off here
        coordinator.run()
    digests = [session.digest for session in coordinator.replay.sessions]
    return Seen(recorder.records if recorder else [], digests)


@contextmanager
def stored(bars: Bars) -> Iterator[BarStore]:
    with TemporaryDirectory() as folder:
        store = open_store("sqlite:///bars.db", Path(folder), create=True)
        write(store, bars)
        yield store


def write(store: BarStore, bars: Bars) -> None:
    if bars:
        rows = [(*key, *bars[key]) for key in sorted(bars)]
        store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))


@st.composite
def plans(draw: st.DrawFn, most_sessions: int) -> Plan:
    """Some sessions, and splits on any day."""
    first, count = draw(st.integers(4, 9)), draw(st.integers(1, most_sessions))
    split = st.builds(
        Split,
        st.sampled_from(SYMBOLS),
        st.integers(0, 30).map(lambda number: date(2024, 11, 19) + timedelta(number)),
        st.sampled_from([7.0, 0.1, 1.5, 3.0]),
    )
    kept = st.sampled_from([(ONE_MINUTE,), (ONE_MINUTE, TWO), (THREE,), (TWO, ONE_DAY)])
    return Plan(
        days()[first : first + count],
        draw(st.integers(0, 3)),
        draw(kept),
        tuple(draw(st.lists(split, max_size=4, unique_by=lambda one: (one.symbol, one.day)))),
        synthesize=draw(st.booleans()),
        seed=draw(st.integers(0, 2**20)),
    )


@settings(max_examples=5)
@given(plans(most_sessions=2))
def test_each_answer_is_that_of_a_store_without_the_minutes_to_come(plan: Plan) -> None:
    bars = plan.bars
    with stored(bars) as store:
        whole = replayed(store, plan)
    cuts = [session.start for session in plan.sessions[:1]]
    cuts += [start + MINUTE for session in plan.sessions for start in minutes_of(session)]
    past = {key: bars[key] for key in bars if key[1] + MINUTE <= cuts[0]}
    with stored(past) as store:
        for before, cut in zip([cuts[0], *cuts], cuts, strict=False):
            write(store, {key: bars[key] for key in bars if before < key[1] + MINUTE <= cut})
            assert replayed(store, plan).upto(cut) == whole.upto(cut)


@settings(max_examples=10)
@given(plans(most_sessions=2), st.data())
def test_whatever_the_minutes_to_come_bring_changes_no_answer(
    plan: Plan, draws: st.DataObject
) -> None:
    bars = plan.bars
    minutes = [start for session in plan.sessions for start in minutes_of(session)]
    cut = draws.draw(st.sampled_from(minutes)) + MINUTE
    with stored(bars) as store:
        whole = replayed(store, plan)
    garbage: Bars = {
        (symbol, start): (1e9, 2e9, 1e-3, 1e6, 1e12)
        for symbol in SYMBOLS
        for session in days()[: days().index(plan.sessions[-1]) + 3]
        for start in minutes_of(session)
        if start + MINUTE > cut
    }
    today = [session for session in plan.sessions if session.start < cut][-1]
    later = [
        Split(symbol, today.date + timedelta(day), 11.0) for symbol in SYMBOLS for day in (1, 2, 9)
    ]
    known = [split for split in plan.splits if split.day <= today.date]
    past = {key: bars[key] for key in bars if key[1] + MINUTE <= cut}
    with stored(past | garbage) as store:
        other = replayed(store, replace(plan, splits=(*known, *later)))
    assert other.upto(cut) == whole.upto(cut)
    assert len(whole.upto(cut)) > 1


@settings(max_examples=10)
@given(plans(most_sessions=6), st.booleans(), st.sampled_from([1, 1, 1, 2]))
def test_rolling_on_is_the_same_as_loading_each_session_anew(
    plan: Plan, joining: bool, step: int
) -> None:
    # Where a session is left out it loads; what was synthesized is not in the store.
    plan = replace(plan, sessions=plan.sessions[::step], synthesize=False)
    if joining:  # symbols that have no bars yet are not in the first sessions
        firsts = (min(start for of, start in plan.bars if of == symbol) for symbol in SYMBOLS)
        plan = replace(plan, first=tuple(firsts))
    compare_rolling(plan)


@pytest.mark.parametrize("kept", [(ONE_MINUTE,), (TWO, ONE_DAY)])
def test_rolling_through_a_month_is_the_same_as_loading(kept: tuple[Interval, ...]) -> None:
    """Longer than the session store has room for without moving bars."""
    splits = tuple(
        Split(SYMBOLS[number % 2], days()[number].date, 1.1) for number in range(4, 26, 3)
    )
    compare_rolling(Plan(days()[4:26], 2, kept, splits))


def compare_rolling(plan: Plan) -> None:
    with stored(plan.bars) as store:
        rolled = replayed(store, plan)
        unwatched = replayed(store, plan, watched=False)
        single = [replayed(store, replace(plan, sessions=(one,))) for one in plan.sessions]
    for session, alone in zip(plan.sessions, single, strict=True):
        assert rolled.of(session) == alone.records
    assert rolled.digests == [digest for alone in single for digest in alone.digests]
    assert unwatched.digests == rolled.digests


@pytest.mark.parametrize("synthesize", [False, True])
@settings(max_examples=5)
@given(plans(most_sessions=2), st.integers(0, 2**20))
def test_the_digest_of_a_session_does_not_depend_on_its_history(
    synthesize: bool, plan: Plan, seed: int
) -> None:
    """Not of what was before it, nor of how much of that is loaded, nor of splits."""
    plan = replace(plan, synthesize=synthesize, kept=(ONE_MINUTE,))
    begin = plan.sessions[0].start
    old = scattered(seed, days()[: days().index(plan.sessions[0])])
    of_today = {
        key: values
        for key, values in plan.bars.items()
        if key[1] >= begin + 3 * MINUTE or key[0] == "AB"  # the others begin with a hole
    }
    digests = []
    for bars in (of_today, of_today | old):
        with stored(bars) as store:
            for trailing in (0, 1, 3):
                variant = replace(plan, trailing=trailing)
                digests.append(replayed(store, variant, watched=False).digests)
            digests.append(replayed(store, replace(plan, splits=()), watched=False).digests)
    assert digests == digests[:1] * len(digests)


def test_history_that_is_damaged_is_told_and_never_used() -> None:
    today = days()[6]
    plan = Plan((today,), 3, (ONE_MINUTE,))
    with stored(plan.bars) as store:
        whole = replayed(store, plan)
        file = store.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file)) as connection, connection:
            changed = connection.execute(
                "UPDATE bars SET close = close + 0.5 WHERE start BETWEEN ? AND ? "
                "AND series = (SELECT id FROM series WHERE symbol = 'AB')",
                (days()[4].start, days()[4].end),
            )
            assert changed.rowcount > 0
        with pytest.raises(StoreCorruptError, match=f"AB on {days()[4].date}"):
            replayed(store, plan)
        # Where that day is no part of what is loaded, nothing is amiss.
        assert replayed(store, replace(plan, trailing=1)).digests == whole.digests


class Averages(Strategy):
    """Notes, at the first minute of each session, an average that reaches back into others."""

    def __init__(self) -> None:
        self.found: list[tuple[float, int, float]] = []

    def on_session_start(self) -> None:
        self.first = True

    def on_step(self, _now: int) -> None:
        if self.first:
            held = self.session.all_bars("AB")
            average = float(self.session.last_n("AB", 8).close.mean())
            self.found.append((average, len(held), held[0].close))
        self.first = False


def test_the_first_minute_of_a_day_has_its_average_of_the_days_before() -> None:
    """Written out: 6, 6, 7, 6 and 6 minutes from Monday to Friday, at prices 1, 2, 3 ... 31."""
    sessions = days()[:5]
    minutes = [start for session in sessions for start in minutes_of(session)]
    bars: Bars = {
        ("AB", start): (*[float(price)] * 4, 1.0) for price, start in enumerate(minutes, 1)
    }
    averages = Averages()
    with stored(bars) as store:
        history = History(store, calendar(), ONE_MINUTE, 2)
        Coordinator(
            store, ONE_MINUTE, Universe(SYMBOLS), sessions[2:], averages, history=history
        ).run()
    assert averages.found == [
        (9.5, 13, 1.0),  # Wednesday: 6 ... 13; Monday and Tuesday before it
        (16.5, 14, 7.0),  # Thursday: 13 ... 20; Tuesday and Wednesday
        (22.5, 14, 13.0),  # Friday: 19 ... 26; Wednesday and Thursday
    ]


@pytest.mark.parametrize("first", [4, 5])
def test_two_splits_over_a_weekend_count_one_after_the_other(first: int) -> None:
    """Oldest first, to the last bit, whether Monday follows on Friday or is loaded by itself."""
    friday, monday = days()[4:6]
    values = (17.0, 18.0, 16.0, 17.0, 17.0)
    bars: Bars = {("AB", start): values for start in (friday.open, monday.open)}
    ratios = {friday.date: 3.0, monday.date - timedelta(2): 7.0, monday.date: 0.1}
    ratios[monday.date + timedelta(1)] = 5.0
    splits = Splits(Split("AB", day, ratios[day]) for day in sorted(ratios, reverse=True))
    with stored(bars) as store:
        coordinator = Coordinator(
            store,
            ONE_MINUTE,
            Universe(SYMBOLS),
            days()[first:6],
            history=History(store, calendar(), ONE_MINUTE, 1, splits=splits),
        )
        coordinator.run()
    old, new = coordinator.data.all_bars("AB")
    assert (old.open, old.volume) == (17.0 / 7.0 / 0.1, 17.0 * 7.0 * 0.1)
    assert old.open != 17.0 / 0.1 / 7.0
    assert old.volume != 17.0 * 0.1 * 7.0
    assert (new.open, new.volume) == (17.0, 17.0)
