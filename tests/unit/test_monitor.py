"""Who looks after a session store that a feed fills: by hand, at a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from threading import enumerate as threads
from time import sleep

import numpy as np
import polars as pl
import pytest

from stream_coord import monitor as monitor_module
from stream_coord.bars import FILLED, frame_schema
from stream_coord.calendars import Calendar, Session
from stream_coord.calendars.schedule import MISSING, Schedule, day_number
from stream_coord.clock import FixedClock, SystemTimer, parse_moment
from stream_coord.compute.quality import GapRow
from stream_coord.errors import SessionStoreError
from stream_coord.interval import DAY, MINUTE, SECOND, Interval
from stream_coord.monitor import MonitorSettings, SessionMonitor
from stream_coord.session.boundaries import SessionState, StateChange
from stream_coord.session.data import SessionData
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores.ledger import Disagreement, SourceCall, StateRecord, open_ledger
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Enquirer

ONE_MINUTE = Interval(MINUTE)
FIRST = date(2018, 11, 19)
OPEN = parse_moment("2018-11-19T14:30:00Z")
LENGTH = 30
SYMBOLS = ("A", "B")
NOT_STARTED, PRE_MARKET, ACTIVE, POST_MARKET, ENDED, TIMEOUT, ERROR = SessionState


def calendar(
    *, lunch: bool = False, extended: bool = False, days: int = 8, length: int = LENGTH
) -> Calendar:
    """Return a calendar of half an hour a day, weekends too."""
    opens = OPEN + DAY * np.arange(days)
    times = np.full((days, 6), MISSING)
    times[:, 1], times[:, 4] = opens, opens + length * MINUTE
    if lunch:
        times[:, 2], times[:, 3] = opens + 10 * MINUTE, opens + 20 * MINUTE
    if extended:
        times[:, 0], times[:, 5] = opens - 10 * MINUTE, opens + 90 * MINUTE
    numbers = day_number(FIRST) + np.arange(days)
    hours = "extended" if extended else "regular"
    return Calendar("TEST", hours, Schedule("UTC", numbers, times), "by hand", "0")


def at(minute: float, day: int = 0) -> int:
    return OPEN + day * DAY + int(minute * MINUTE)


@dataclass
class World:
    """A feed's session store, its clock and its monitor, and what was told."""

    calendar: Calendar
    settings: MonitorSettings = field(default_factory=MonitorSettings)
    told: list[StateChange] = field(default_factory=list)
    recorded: list[tuple[date, StateChange]] = field(default_factory=list)
    on_state: Callable[[StateChange], None] = lambda _: None
    day: int = 0
    now: float = -60

    def __post_init__(self) -> None:
        days = self.calendar.sessions(FIRST, date(2018, 12, 31))
        self.clock = FixedClock(at(self.now))
        self.data = SessionData(SYMBOLS, days[self.day], ONE_MINUTE)
        self.monitor = SessionMonitor(
            self.data,
            self.calendar,
            self.clock,
            SystemTimer(),
            self.settings,
            self.tell,
            lambda session, change: self.recorded.append((session.date, change)),
        )

    def tell(self, change: StateChange) -> None:
        self.told.append(change)
        assert self.recorded[-1][1] is change
        self.on_state(change)

    def feed(self, minute: int, day: int = 0, symbol: str = "A") -> None:
        """Bring the bar that starts at a minute of a day."""
        self.data.add_bar(symbol, at(minute, day), (float(minute + 1),) * 4 + (100.0,))

    def look(self, minute: float, day: int = 0) -> list[tuple[float, str]]:
        """Look at a minute of a day, and return the states that are entered, with the minute."""
        self.clock.set(at(minute, day))
        before = len(self.told)
        changes = self.monitor.look()
        assert changes == self.told[before:] == [change for _, change in self.recorded[before:]]
        return [((change.time - OPEN) / MINUTE, change.entered.name) for change in changes]


def quiet(*, auto_roll: bool = True, upkeep: Upkeep | None = None) -> MonitorSettings:
    """Return settings under which silence is no matter."""
    return MonitorSettings(timeout_micros=DAY, auto_roll=auto_roll, upkeep=upkeep)


# -- states -----------------------------------------------------------------------------------


def test_a_feed_that_falls_silent_for_six_minutes_times_out_and_comes_back(tmp_path: Path) -> None:
    """And the ledger has it, with times."""
    world = World(calendar())
    ledger = open_ledger("sqlite:///ledger.db", tmp_path, create=True)
    run = ledger.begin_run(
        at(-60),
        "watch",
        calendar="TEST",
        calendar_version="0",
        config_digest="0",
        program_version="0",
        settings="",
        store="none",
    )
    seen: dict[float, str] = {}
    for minute in range(-1, 23):
        if 0 < minute <= 10 or minute >= 17:
            world.feed(minute - 1, symbol="AB"[minute % 2])
        seen |= dict(world.look(minute))
    assert seen == {0: "ACTIVE", 15: "TIMEOUT", 17: "ACTIVE"}
    records = [
        StateRecord(day.isoformat(), change.time, change.left.name, change.entered.name)
        for day, change in world.recorded
    ]
    ledger.record_states(run, records)
    rows = ledger.states(run)
    assert [(row.session, (row.time - OPEN) // MINUTE, row.left, row.entered) for row in rows] == [
        ("2018-11-19", 0, "NOT_STARTED", "ACTIVE"),
        ("2018-11-19", 15, "ACTIVE", "TIMEOUT"),
        ("2018-11-19", 17, "TIMEOUT", "ACTIVE"),
    ]
    ledger.close()


def test_what_upkeep_fills_is_no_sign_of_life() -> None:
    world = World(calendar())
    world.look(1)
    slot = np.array([0])
    world.data.keep(slot, slot, np.ones((5, 1)), np.array([FILLED], np.uint8))
    assert world.look(4.9) == []
    assert world.look(5) == [(5, "TIMEOUT")]


def test_a_lunch_break_is_not_counted() -> None:
    world = World(calendar(lunch=True))
    world.look(0)
    world.feed(6)
    for minute in range(7, 22):
        assert world.look(minute) == []
    assert world.look(22) == [(22, "TIMEOUT")]


def test_a_timeout_ends_at_the_close() -> None:
    world = World(calendar(extended=True))
    assert world.look(-3) == [(-10, "PRE_MARKET")]
    assert world.look(7) == [(0, "ACTIVE"), (7, "TIMEOUT")]
    assert world.look(31) == [(30, "POST_MARKET")]
    assert world.look(90) == [(90, "ENDED")]


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    world = World(calendar())
    assert world.look(7) == [(0, "ACTIVE"), (7, "TIMEOUT")]
    assert world.look(2) == []
    assert world.data.now == at(7)
    assert world.monitor.state is TIMEOUT


def test_bars_can_be_seen_once_they_have_ended() -> None:
    world = World(calendar())
    world.feed(0)
    world.look(0.9)
    assert world.data.latest("A") is None
    world.look(1)
    latest = world.data.latest("A")
    assert latest is not None
    assert latest.start == at(0)
    world.look(45)
    assert world.data.now == at(LENGTH)


def test_nobody_sleeps_until_a_clock_that_is_set_back_has_caught_up() -> None:
    world = World(calendar())
    world.look(7)
    world.clock.set(at(-360))
    assert world.monitor.next_look() == at(-359)


def test_one_knows_when_to_look_next() -> None:
    world = World(calendar(), MonitorSettings(check_micros=10 * MINUTE, timeout_micros=90 * SECOND))
    monitor = world.monitor
    world.look(-12)
    assert monitor.next_look() == at(-2)
    world.look(-2)
    assert monitor.next_look() == at(0)
    world.look(0)
    assert monitor.next_look() == at(1)  # a bar may end
    world.look(1.25)
    assert monitor.next_look() == at(1.5)  # silence is up
    world.look(29.5)
    assert monitor.next_look() == at(30)
    world.look(55)
    assert monitor.next_look() == at(60)  # the roll
    world.look(60)
    assert monitor.next_look() == at(70)


# -- the roll ---------------------------------------------------------------------------------


def test_a_session_is_rolled_half_an_hour_after_its_close() -> None:
    world = World(calendar(), quiet())
    world.feed(3)
    world.look(59)
    assert world.data.session.date == FIRST
    assert world.look(60) == []
    assert world.data.session.date == date(2018, 11, 20)
    assert world.monitor.state is NOT_STARTED
    assert [bar.start for bar in world.data.all_bars("A")] == [at(3)]
    world.feed(0, day=1)
    assert world.look(1, day=1) == [(24 * 60, "ACTIVE")]
    assert [bar.start for bar in world.data.all_bars("A")] == [at(3), at(0, 1)]
    assert {day for day, _ in world.recorded} == {FIRST, date(2018, 11, 20)}


def test_sessions_without_a_pause_between_them_are_rolled_as_one_ends() -> None:
    day = 24 * 60
    world = World(calendar(length=day), quiet())
    world.feed(day - 1)
    assert world.look(day - 1) == [(0, "ACTIVE")]
    assert world.look(day + 0.5) == [(day, "ENDED"), (day, "ACTIVE")]
    latest = world.data.latest("A")
    assert latest is not None
    assert latest.end == at(day)
    world.feed(day - 2)  # late, and of yesterday by now
    assert [bar.start for bar in world.data.all_bars("A")] == [at(day - 2), at(day - 1)]
    world.look(day + 1)
    assert world.data.session.date == date(2018, 11, 20)


def test_nothing_is_rolled_where_that_is_not_wanted() -> None:
    world = World(calendar(), quiet(auto_roll=False))
    assert world.look(0, day=3) == [(0, "ACTIVE"), (30, "ENDED")]
    assert world.data.session.date == FIRST
    assert world.look(0, day=4) == []


def test_a_monitor_that_begins_within_a_session_tells_what_was_planned_until_then() -> None:
    world = World(calendar(extended=True), now=11)
    world.feed(9)
    assert world.look(11) == [(-10, "PRE_MARKET"), (0, "ACTIVE")]


def test_a_monitor_that_begins_between_two_sessions_rolls_when_it_is_time() -> None:
    world = World(calendar(), now=40)
    assert world.look(40) == [(0, "ACTIVE"), (30, "ENDED")]
    assert world.data.session.date == FIRST
    world.look(60)
    assert world.data.session.date == date(2018, 11, 20)


def test_a_monitor_that_slept_rolls_through_the_sessions_one_by_one() -> None:
    world = World(calendar())
    world.look(-5)
    day = 24 * 60
    assert world.look(7, day=3) == [
        (0, "ACTIVE"),
        (30, "ENDED"),
        (day, "ACTIVE"),
        (day + 30, "ENDED"),
        (2 * day, "ACTIVE"),
        (2 * day + 30, "ENDED"),
        (3 * day, "ACTIVE"),
        (3 * day + 7, "TIMEOUT"),
    ]
    sessions = [session.date.day for session in world.data.sessions]
    assert sessions == [19, 20, 21, 22]
    assert [day.day for day, _ in world.recorded] == [19, 19, 20, 20, 21, 21, 22, 22]


def test_who_rolls_by_hand_is_followed() -> None:
    world = World(calendar(), quiet(auto_roll=False))
    world.look(29)
    world.data.roll_session(world.calendar.next_session(FIRST))
    world.feed(0, day=1)
    assert world.look(35) == [(30, "ENDED")]
    assert world.look(1, day=1) == [(24 * 60, "ACTIVE")]
    assert [day.day for day, _ in world.recorded] == [19, 19, 20]


def test_a_session_that_nothing_follows_goes_on_without_a_roll() -> None:
    world = World(calendar(days=2), quiet())
    assert world.look(0.5, day=1) == [
        (0, "ACTIVE"),
        (30, "ENDED"),
        (24 * 60 + 0.5, "ERROR"),
    ]
    assert str(world.monitor.cause).startswith("the calendar raised CalendarError: TEST has no")
    world.feed(0, day=1)
    assert world.look(1, day=1) == []
    assert [bar.start for bar in world.data.all_bars("A")] == [at(0, 1)]
    world.monitor.clear_error()
    assert world.monitor.state is ACTIVE
    assert world.look(60, day=1) == [(24 * 60 + 30, "ENDED")]
    assert world.look(0, day=2) == []


# -- errors -----------------------------------------------------------------------------------


def test_a_callback_that_raises_puts_the_session_into_error_and_nothing_is_rolled() -> None:
    def refuse(change: StateChange) -> None:
        if change.entered is ENDED:
            raise ZeroDivisionError("no\nmore")

    world = World(calendar(), quiet(), on_state=refuse)
    assert world.look(35) == [(0, "ACTIVE"), (30, "ENDED"), (35, "ERROR")]
    assert world.monitor.state is ERROR
    assert world.monitor.cause is not None
    assert world.monitor.cause.startswith("on_state raised ZeroDivisionError: no more (")
    assert world.told[-1] == StateChange(at(35), ENDED, ERROR, world.monitor.cause)
    assert world.look(0, day=2) == []
    assert world.data.session.date == FIRST
    world.monitor.clear_error()
    # It is told that the session has ended, and would not hear of it again.
    assert [change.entered for change in world.told[3:]] == [ENDED, ERROR]
    world.on_state = lambda _: None
    world.monitor.clear_error()
    assert world.told[-1] == StateChange(at(0, 2), ERROR, ENDED)
    assert world.look(0, day=2)[-1] == (2 * 24 * 60, "ACTIVE")
    assert world.data.session.date == date(2018, 11, 21)


def test_who_is_told_second_is_told_even_if_the_first_raises() -> None:
    world = World(calendar(), quiet())
    world.clock.set(at(1))
    told: list[SessionState] = []

    def fail(*_: object) -> None:
        raise OSError("no disk")

    monitor = SessionMonitor(
        world.data,
        world.calendar,
        world.clock,
        SystemTimer(),
        quiet(),
        lambda change: told.append(change.entered),
        fail,
    )
    assert [change.entered for change in monitor.look()] == [ACTIVE, ERROR]
    assert told == [ACTIVE, ERROR]
    assert str(monitor.cause).startswith("on_change raised OSError: no disk (")


def test_an_error_can_be_flagged_from_outside_and_time_goes_on_in_it() -> None:
    world = World(calendar())
    world.look(1)
    world.clock.set(at(1.5))
    world.monitor.flag_error("the line is dead")
    world.monitor.flag_error("so it is")
    assert world.told[1:] == [StateChange(at(1.5), ACTIVE, ERROR, "the line is dead")]
    world.feed(2)
    assert world.look(3) == []
    assert world.data.latest("A") is not None
    world.monitor.clear_error()
    world.monitor.clear_error()
    assert world.told[2:] == [StateChange(at(3), ERROR, ACTIVE)]


def test_an_error_is_not_over_because_somebody_rolls() -> None:
    world = World(calendar(), quiet())
    world.look(31)
    world.monitor.flag_error("bad bars")
    world.data.roll_session(world.calendar.next_session(FIRST))
    assert world.look(32) == [(32, "ERROR")]
    assert world.recorded[-1] == (
        date(2018, 11, 20),
        StateChange(at(32), NOT_STARTED, ERROR, "bad bars"),
    )


def test_a_roll_that_fails_is_an_error_and_done_once_that_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(calendar(), quiet())
    roll = world.data.roll_session

    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(world.data, "roll_session", fail)
    assert world.look(60) == [(0, "ACTIVE"), (30, "ENDED"), (60, "ERROR")]
    assert str(world.monitor.cause).startswith("the roll raised MemoryError")
    monkeypatch.setattr(world.data, "roll_session", roll)
    world.monitor.clear_error()
    world.look(61)
    assert world.data.session.date == date(2018, 11, 20)


def test_what_a_callback_flags_is_told_after_what_came_before() -> None:
    told: list[int] = []

    def flag(change: StateChange) -> None:
        if change.entered is ACTIVE:
            world.monitor.flag_error("the feed is lost")
            told.append(len(world.told))

    world = World(calendar(), quiet(), on_state=flag)
    assert world.look(35) == [(0, "ACTIVE"), (30, "ENDED"), (35, "ERROR")]
    assert [change.left for change in world.told] == [NOT_STARTED, ACTIVE, ENDED]
    assert world.monitor.cause == "the feed is lost"
    assert told == [1]


def test_an_error_is_not_cleared_by_who_is_told_of_it() -> None:
    """It would come back at once, and so on for ever."""

    def clear(change: StateChange) -> None:
        if change.entered is ERROR:
            world.monitor.clear_error()
        raise OSError("no disk")

    world = World(calendar(), quiet(), on_state=clear)
    assert world.look(1) == [(0, "ACTIVE"), (1, "ERROR")]
    assert str(world.monitor.cause).startswith("on_state raised OSError: no disk (")


def test_a_store_that_was_stopped_ends_a_look() -> None:
    world = World(calendar())
    world.data.stop()
    with pytest.raises(KeyboardInterrupt):
        world.look(1)


# -- upkeep -----------------------------------------------------------------------------------


class Source:
    """Has a bar of every minute; waits and fails as it is told."""

    def __init__(self, wait: Callable[[], object] = lambda: None, price: float = 7.0) -> None:
        self.wait = wait
        self.price = price
        self.asked: list[int] = []

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return ranges

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.asked.append(len(ranges))
        self.wait()
        rows = [
            (part.symbol, start, *(self.price,) * 5)
            for part in ranges
            for start in range(part.start, part.end, MINUTE)
        ]
        return pl.DataFrame(rows, schema=frame_schema(), orient="row")

    def close(self) -> None:
        """Nothing is open."""


def upkeep_of(*sources: Source) -> Upkeep:
    names = ("whole", "other")
    named = [
        NamedSource(name, f"{name}: test", source)
        for name, source in zip(names, sources, strict=False)
    ]
    return Upkeep(Enquirer(named, ONE_MINUTE, FixedClock(OPEN), SystemTimer()))


def test_what_does_not_come_is_filled_and_sessions_slept_over_too() -> None:
    known: list[int] = []
    world = World(
        calendar(),
        quiet(upkeep=upkeep_of(Source())),
        on_state=lambda _: known.append(sum(gap.minutes for gap in world.monitor.gaps())),
    )
    world.feed(0)
    world.look(1)
    assert [bar.start for bar in world.data.all_bars("B")] == [at(0)]
    assert [(gap.symbol, gap.state, gap.source) for gap in world.monitor.gaps()] == [
        ("B", "filled", "whole: test")
    ]
    world.look(2, day=2)
    for symbol in SYMBOLS:
        assert len(world.data.all_bars(symbol)) == 2 * LENGTH + 2
    first = world.data.all_bars("A")[0]
    assert (first.start, first.close, first.flags) == (at(0), 1.0, 0)
    whole = 2 * LENGTH
    # What was told of first, the open of the first day, was before its first check.
    assert known == [1, whole - 1, whole, whole, 4]


def test_upkeep_that_raises_is_an_error_and_goes_on() -> None:
    def remembered(_: Session, __: Sequence[str]) -> Sequence[GapRow]:
        raise OSError("no ledger")

    upkeep = Upkeep(remembered=remembered)
    world = World(calendar(), quiet(upkeep=upkeep))
    assert world.look(1) == [(0, "ACTIVE"), (1, "ERROR")]
    assert str(world.monitor.cause).startswith("upkeep raised OSError: no ledger (")
    assert world.look(2) == []
    assert world.data.now == at(2)


def test_who_was_asked_is_told_at_each_look_and_then_forgotten() -> None:
    told: list[tuple[list[tuple[str, int]], list[tuple[str, int, float, float]]]] = []

    def on_asked(calls: Sequence[SourceCall], others: Sequence[Disagreement]) -> None:
        told.append(
            (
                [(call.source, call.bars) for call in calls],
                [(row.symbol, row.start, row.values[3], row.other_values[3]) for row in others],
            )
        )

    upkeep = upkeep_of(Source(), Source(price=8.0))
    world = World(calendar(), replace(quiet(upkeep=upkeep), on_asked=on_asked))
    world.feed(0)
    world.feed(1)
    for minute in (0, 0.5, 1):
        world.look(minute)
    assert told == [([("whole: test", 1), ("other: test", 1)], [("B", at(0), 7.0, 8.0)])]
    world.feed(1, symbol="B")
    world.look(2)
    assert len(told) == 1
    world.look(5, day=1)
    # What was missing in the rest of a day, all at once, and then in the first minutes of the next.
    assert [calls for calls, _ in told[1:]] == [
        [("whole: test", 2 * (LENGTH - 2)), ("other: test", 2 * (LENGTH - 2))],
        [("whole: test", 10), ("other: test", 10)],
    ]
    assert [len(others) for _, others in told] == [1, 2 * (LENGTH - 2), 10]
    assert upkeep.enquirer is not None
    assert upkeep.enquirer.take_calls() == []


def test_who_cannot_note_who_was_asked_is_told_of_an_error() -> None:
    def refuse(*_: object) -> None:
        raise OSError("no disk")

    settings = replace(quiet(upkeep=upkeep_of(Source())), on_asked=refuse)
    world = World(calendar(), settings)
    assert world.look(1) == [(0, "ACTIVE"), (1, "ERROR")]
    assert str(world.monitor.cause).startswith("on_asked raised OSError: no disk (")


@pytest.mark.parametrize("minute", [31, 60])
def test_somebody_rolls_while_a_source_is_asked(minute: float) -> None:
    """What it answers is of no use any more; that is no error."""

    def roll() -> None:
        world.data.roll_session(world.calendar.next_session(FIRST))

    source = Source(roll)
    world = World(calendar(), quiet(upkeep=upkeep_of(source)))
    world.feed(0)
    assert world.look(minute) == [(0, "ACTIVE"), (30, "ENDED")]
    source.wait = lambda: None
    assert world.data.session.date == date(2018, 11, 20)
    assert world.monitor.state is NOT_STARTED
    assert [bar.start for bar in world.data.all_bars("A")] == [at(0)]
    world.feed(0, day=1)
    assert world.look(2, day=1) == [(24 * 60, "ACTIVE")]
    for symbol in SYMBOLS:
        assert [bar.start for bar in world.data.all_bars(symbol)][-2:] == [at(0, 1), at(1, 1)]


def test_somebody_starts_over_while_a_source_is_asked() -> None:
    def start_over() -> None:
        world.data.start_session(world.calendar.session(FIRST))
        source.wait = lambda: None

    source = Source(start_over)
    world = World(calendar(), quiet(upkeep=upkeep_of(source)), day=1)
    world.look(60, day=1)
    assert [session.date.day for session in world.data.sessions] == [19, 20, 21]
    assert [day.day for day, _ in world.recorded] == [20, 20, 19, 19, 20, 20]
    assert world.monitor.cause is None


def test_somebody_starts_over_before_upkeep_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(calendar(), quiet(upkeep=upkeep_of(Source())), day=1)
    advance = world.data.advance_to

    def advance_and_start_over(now: int) -> None:
        advance(now)
        monkeypatch.undo()
        world.data.start_session(world.calendar.session(FIRST))

    monkeypatch.setattr(world.data, "advance_to", advance_and_start_over)
    world.look(60, day=1)
    assert [day.day for day, _ in world.recorded] == [20, 20, 19, 19, 20, 20]
    assert len(world.data.all_bars("A")) == 2 * LENGTH
    assert world.monitor.cause is None


def test_somebody_is_quicker_to_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(calendar(), quiet())
    world.look(59)
    roll = world.data.roll_session

    def roll_twice(session: Session) -> None:
        roll(session)
        roll(session)

    monkeypatch.setattr(world.data, "roll_session", roll_twice)
    assert world.look(60) == []
    assert world.monitor.state is NOT_STARTED


def test_no_change_is_earlier_than_the_one_before_it() -> None:
    """Not even if an error is cleared while a look waits for a source."""

    def clear() -> None:
        world.clock.set(at(5.1))
        world.monitor.clear_error()

    settings = MonitorSettings(timeout_micros=int(5.05 * MINUTE), upkeep=upkeep_of(Source(clear)))
    world = World(calendar(), settings)
    world.look(0)
    world.monitor.flag_error("the line is dead")
    assert world.look(5) == [(5.1, "TIMEOUT")]
    assert world.monitor.next_look() == at(6)
    times = [change.time for change in world.told]
    assert times == sorted(times)


# -- threads ----------------------------------------------------------------------------------


class HandTimer:
    """Sleeps until the test says that time has passed."""

    def __init__(self) -> None:
        self.asleep: Queue[float] = Queue()
        self._go_on: Queue[None] = Queue()
        self._awake = False

    def seconds(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.asleep.put(seconds)
        if not self._awake:
            self._go_on.get(timeout=30)

    def wake(self) -> None:
        self._awake = True
        self._go_on.put(None)

    def let_pass(self) -> float:
        """End the sleep, and return how long the next one shall be, once that has begun."""
        self._go_on.put(None)
        return self.asleep.get(timeout=30)


def monitor_threads() -> list[Thread]:
    return [thread for thread in threads() if thread.name == "sc-monitor"]


def test_a_thread_looks_whenever_something_is_due() -> None:
    clock, timer, told = FixedClock(at(-2)), HandTimer(), list[StateChange]()
    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    settings = MonitorSettings(check_micros=90 * SECOND)
    monitor = SessionMonitor(data, calendar(), clock, timer, settings, told.append)
    with monitor:
        assert timer.asleep.get(timeout=30) == 90
        clock.set(at(-0.5))
        assert timer.let_pass() == 30
        clock.set(at(0))
        assert timer.let_pass() == 60
        assert [change.entered for change in told] == [ACTIVE]
        clock.set(at(7))
        timer.let_pass()
        data.add_bar("A", at(6), (1.0,) * 5)
        clock.set(at(8))
        timer.let_pass()
        clock.set(at(60))
        timer.let_pass()
        assert data.session.date == date(2018, 11, 20)
        assert len(monitor_threads()) == 1
    assert not monitor_threads()
    assert [(change.time, change.entered) for change in told] == [
        (at(0), ACTIVE),
        (at(7), TIMEOUT),
        (at(8), ACTIVE),
        (at(30), ENDED),
    ]
    with pytest.raises(SessionStoreError, match="only once"):
        monitor.start()
    monitor.stop()


def test_a_thread_goes_on_after_an_error_and_ends_when_a_callback_stops_it() -> None:
    clock, timer = FixedClock(at(-1)), HandTimer()
    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)

    def on_state(change: StateChange) -> None:
        if change.entered is ENDED:
            monitor.stop()
        raise ValueError(change.entered.name)

    monitor = SessionMonitor(data, calendar(), clock, timer, MonitorSettings(), on_state)
    monitor.start()
    timer.asleep.get(timeout=30)
    clock.set(at(1))
    timer.let_pass()
    assert monitor.state is ERROR
    assert "ACTIVE" in str(monitor.cause)
    clock.set(at(40))
    timer.let_pass()
    (thread,) = monitor_threads()
    monitor.clear_error()  # to ENDED, and that raises again
    thread.join(30)
    assert not thread.is_alive()
    assert monitor.state is ERROR
    assert "ENDED" in str(monitor.cause)


def test_a_thread_sleeps_no_longer_because_the_clock_is_set_back() -> None:
    clock, timer = FixedClock(at(7)), HandTimer()
    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    with SessionMonitor(data, calendar(), clock, timer, MonitorSettings()):
        assert timer.asleep.get(timeout=30) == 60
        clock.set(at(-360))
        assert timer.let_pass() == 60


def test_who_is_told_in_another_thread_may_stop_a_look_that_waits_for_a_source() -> None:
    asked, answer = Event(), Event()

    def hang() -> None:
        asked.set()
        answer.wait(30)

    def stop(change: StateChange) -> None:
        if change.entered is ERROR:
            monitor.stop()

    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    settings = MonitorSettings(upkeep=upkeep_of(Source(hang)))
    monitor = SessionMonitor(data, calendar(), FixedClock(at(1)), HandTimer(), settings, stop)
    monitor.start()
    assert asked.wait(30)
    (thread,) = monitor_threads()
    feed = Thread(target=monitor.flag_error, args=("the line is dead",), daemon=True)
    feed.start()
    feed.join(10)
    assert not feed.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    answer.set()


def test_who_is_told_by_a_look_by_hand_may_stop_the_thread_that_waits_for_its_end() -> None:
    def stop(_: StateChange) -> None:
        monitor.start()
        sleep(0.05)  # the thread begins its look, or will not any more
        monitor.stop()

    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    settings = MonitorSettings()
    monitor = SessionMonitor(data, calendar(), FixedClock(at(1)), HandTimer(), settings, stop)
    by_hand = Thread(target=monitor.look, daemon=True)
    by_hand.start()
    by_hand.join(10)
    assert not by_hand.is_alive()
    for thread in monitor_threads():
        thread.join(10)
    assert not monitor_threads()


def test_who_is_told_may_wait_for_a_thread_that_flags_an_error() -> None:
    def flag(change: StateChange) -> None:
        if change.entered is ACTIVE:
            feed = Thread(target=world.monitor.flag_error, args=("stop it",), daemon=True)
            feed.start()
            feed.join(10)
            assert not feed.is_alive()

    world = World(calendar(), quiet(), on_state=flag)
    assert world.look(35) == [(0, "ACTIVE"), (30, "ENDED"), (35, "ERROR")]
    assert world.monitor.cause == "stop it"


def test_a_session_is_not_rolled_before_all_is_told_of_it() -> None:
    telling, told = Event(), Event()

    def hold(_: StateChange) -> None:
        telling.set()
        assert told.wait(30)

    world = World(calendar(), quiet(upkeep=upkeep_of(Source())))
    world.look(31)
    world.monitor.flag_error("bad bars")
    world.on_state = hold
    person = Thread(target=world.monitor.clear_error)
    person.start()
    assert telling.wait(30)
    assert world.look(60) == []
    assert world.monitor.state is ENDED
    assert world.data.session.date == FIRST
    told.set()
    person.join(30)
    world.look(61)
    assert world.data.session.date == date(2018, 11, 20)


@pytest.mark.parametrize("answers", [True, False])
def test_a_source_that_hangs_holds_up_neither_looks_nor_the_end(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "_LONGEST_WAIT_SECONDS", 0.0)
    asked, answer, answered = Event(), Event(), Event()

    def hang() -> None:
        asked.set()
        assert answer.wait(30)

    clock, timer = FixedClock(at(1)), HandTimer()
    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    source = Source(hang)
    upkeep = upkeep_of(source)
    assert upkeep.enquirer is not None
    settings = MonitorSettings(upkeep=upkeep)
    monitor = SessionMonitor(data, calendar(), clock, timer, settings)
    ask = upkeep.enquirer.ask
    with monitor:
        timer.asleep.get(timeout=30)
        assert asked.wait(30)
        data.add_bar("A", at(0), (1.0,) * 5)
        clock.set(at(6))
        timer.let_pass()
        assert monitor.state is TIMEOUT
        assert source.asked == [2]
        assert data.now == at(6)
        if answers:
            answer.set()
            monitor._errands.start(lambda: ask((), np.empty(0, np.int64), np.empty(0, np.int64)))
            monitor._errands.start(answered.set)
            assert answered.wait(30)
            clock.set(at(7))
            timer.let_pass()
            # The feed has brought A's meanwhile.
            bars = [data.all_bars(symbol)[0] for symbol in SYMBOLS]
            assert [(bar.start, bar.close) for bar in bars] == [(at(0), 1.0), (at(0), 7.0)]
    assert not monitor_threads()
    answer.set()


def test_who_stops_a_monitor_waits_for_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "_LONGEST_WAIT_SECONDS", 60.0)
    asked, answer, came_back = Event(), Event(), Event()

    def hang() -> None:
        asked.set()
        answer.wait(30)
        came_back.set()

    data = SessionData(SYMBOLS, calendar().session(FIRST), ONE_MINUTE)
    settings = MonitorSettings(upkeep=upkeep_of(Source(hang)))
    with SessionMonitor(data, calendar(), FixedClock(at(1)), SystemTimer(), settings) as monitor:
        assert asked.wait(30)
    assert not came_back.is_set()
    assert not monitor_threads()
    assert monitor.cause is None
    answer.set()


def test_a_feed_adds_bars_from_another_thread_while_looks_are_taken() -> None:
    """Each bar is there in the end, of the feed or filled, and of the feed where it brought one."""
    world = World(calendar(), quiet(upkeep=upkeep_of(Source())))
    world.look(0)
    done = Event()

    def feed() -> None:
        for minute in range(LENGTH):
            for symbol in SYMBOLS:
                if (minute, symbol) != (13, "B"):
                    world.feed(minute, symbol=symbol)
        done.set()

    feeder = Thread(target=feed)
    feeder.start()
    minute = 0.0
    while not done.is_set() and minute < LENGTH:
        minute += 0.5
        world.look(minute)
    feeder.join(30)
    world.look(LENGTH)
    for symbol in SYMBOLS:
        bars = world.data.all_bars(symbol)
        assert [bar.start for bar in bars] == [at(n) for n in range(LENGTH)]
    assert world.data.all_bars("B")[13].close == 7.0
    for bar in world.data.all_bars("A"):
        assert bar.close == (bar.start - OPEN) // MINUTE + 1
