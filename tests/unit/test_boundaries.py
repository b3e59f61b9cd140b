"""The states of a session: hand-made days, minute by minute."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.interval import MINUTE, SECOND
from stream_coord.session.boundaries import (
    Boundaries,
    SessionState,
    StateChange,
    planned_changes,
    roll_time,
    state_changes,
)

DAY = date(2018, 11, 23)
OPEN = parse_moment("2018-11-23T14:30:00Z")
NOT_STARTED, PRE_MARKET, ACTIVE, POST_MARKET, ENDED, TIMEOUT, ERROR = SessionState


def at(minute: float) -> int:
    return OPEN + int(minute * MINUTE)


def session(*spans: tuple[int, int, Kind]) -> Session:
    return Session(DAY, tuple(Segment(at(begin), at(end), kind) for begin, end, kind in spans))


REGULAR = session((0, 30, "regular"))
EXTENDED = session((-20, 0, "pre"), (0, 30, "regular"), (30, 50, "post"))
LUNCH = session((0, 30, "regular"), (90, 120, "regular"))


def changes(day: Session, ends: list[float], timeout: int = 5) -> list[tuple[float, str]]:
    """Return the states that are entered, with the minute."""
    known = np.array([at(end) for end in ends], np.int64)
    all_changes = state_changes(day, known, timeout * MINUTE)
    left = [NOT_STARTED, *(change.entered for change in all_changes)]
    assert [change.left for change in all_changes] == left[:-1]
    return [((change.time - OPEN) / MINUTE, change.entered.name) for change in all_changes]


def where(boundaries: Boundaries) -> tuple[SessionState, str | None]:
    return boundaries.state, boundaries.cause


def steady(first: int, last: int) -> list[float]:
    return [float(end) for end in range(first, last + 1)]


def test_the_numbers_of_the_states_are_those_of_the_digest() -> None:
    assert {state.name: state.value for state in SessionState} == {
        "NOT_STARTED": 0,
        "PRE_MARKET": 1,
        "ACTIVE": 2,
        "POST_MARKET": 3,
        "ENDED": 4,
        "TIMEOUT": 5,
        "ERROR": 6,
    }


def test_a_feed_that_falls_silent_for_six_minutes_comes_back() -> None:
    ends = steady(1, 10) + steady(16, 30)
    assert changes(REGULAR, ends) == [(0, "ACTIVE"), (15, "TIMEOUT"), (16, "ACTIVE"), (30, "ENDED")]


def test_a_bar_that_ends_as_the_time_is_up_comes_in_time() -> None:
    assert changes(REGULAR, steady(1, 10) + steady(15, 30)) == [(0, "ACTIVE"), (30, "ENDED")]


def test_silence_begins_at_the_open_whatever_came_before_it() -> None:
    ends = [*steady(-19, -10), *steady(8, 28)]
    assert changes(EXTENDED, ends) == [
        (-20, "PRE_MARKET"),
        (0, "ACTIVE"),
        (5, "TIMEOUT"),
        (8, "ACTIVE"),
        (30, "POST_MARKET"),
        (50, "ENDED"),
    ]


@pytest.mark.parametrize("later", [[], [30.0], [31.0, 40.0]])
def test_a_timeout_ends_at_the_close(later: list[float]) -> None:
    """Even where a bar ends there: the session is active no longer."""
    assert changes(EXTENDED, [*steady(1, 20), *later])[1:] == [
        (0, "ACTIVE"),
        (25, "TIMEOUT"),
        (30, "POST_MARKET"),
        (50, "ENDED"),
    ]
    assert changes(REGULAR, [])[1:] == [(5, "TIMEOUT"), (30, "ENDED")]


def test_silence_that_would_last_to_the_close_or_longer_is_none() -> None:
    assert changes(REGULAR, steady(1, 25)) == [(0, "ACTIVE"), (30, "ENDED")]
    assert changes(REGULAR, steady(1, 24))[1:] == [(29, "TIMEOUT"), (30, "ENDED")]


def test_a_break_does_not_count() -> None:
    """Three minutes before lunch and two after it are five."""
    assert changes(LUNCH, steady(1, 27) + steady(94, 120))[1:] == [
        (92, "TIMEOUT"),
        (94, "ACTIVE"),
        (120, "ENDED"),
    ]
    assert changes(LUNCH, steady(1, 27) + steady(92, 120))[1:] == [(120, "ENDED")]
    assert changes(LUNCH, steady(1, 30) + steady(95, 120))[1:] == [(120, "ENDED")]


def test_silence_is_up_as_the_break_begins_not_after_it() -> None:
    assert changes(LUNCH, steady(1, 25) + steady(91, 120))[1:] == [
        (30, "TIMEOUT"),
        (91, "ACTIVE"),
        (120, "ENDED"),
    ]


def test_a_day_without_silence_goes_as_planned() -> None:
    for day in (REGULAR, EXTENDED, LUNCH):
        known = np.arange(day.start, day.end, MINUTE) + MINUTE
        assert state_changes(day, known, MINUTE) == planned_changes(day)


def test_who_looks_late_learns_what_was_planned_with_its_time_and_silence_with_his() -> None:
    boundaries = Boundaries(EXTENDED, 5 * MINUTE)
    assert boundaries.next_change() == at(-20)
    assert boundaries.at(at(-21)) == []
    assert boundaries.at(at(9.5)) == [
        StateChange(at(-20), NOT_STARTED, PRE_MARKET),
        StateChange(at(0), PRE_MARKET, ACTIVE),
        StateChange(at(9.5), ACTIVE, TIMEOUT),
    ]
    assert boundaries.next_change() == at(30)
    boundaries.data(at(9))
    assert boundaries.at(at(10)) == [StateChange(at(10), TIMEOUT, ACTIVE)]
    assert boundaries.next_change() == at(14)
    assert boundaries.at(at(1000)) == [
        StateChange(at(30), ACTIVE, POST_MARKET),
        StateChange(at(50), POST_MARKET, ENDED),
    ]
    assert boundaries.next_change() is None


def test_a_bar_that_came_too_late_to_matter_does_not_end_the_silence() -> None:
    boundaries = Boundaries(REGULAR, 5 * MINUTE)
    boundaries.at(at(12))
    boundaries.data(at(7))
    assert boundaries.at(at(12)) == []
    boundaries.data(at(8))
    boundaries.data(at(2))
    assert [change.entered for change in boundaries.at(at(12))] == [ACTIVE]


def test_an_error_stays_until_it_is_cleared() -> None:
    boundaries = Boundaries(REGULAR, 5 * MINUTE)
    boundaries.at(at(0))
    assert boundaries.fail(at(1), "no disk") == StateChange(at(1), ACTIVE, ERROR, "no disk")
    assert where(boundaries) == (ERROR, "no disk")
    assert boundaries.fail(at(2), "no memory") is None
    assert where(boundaries) == (ERROR, "no disk")
    assert boundaries.at(at(20)) == []
    assert boundaries.next_change() is None
    assert boundaries.clear(at(29)) == StateChange(at(29), ERROR, TIMEOUT)
    assert where(boundaries) == (TIMEOUT, None)
    assert boundaries.at(at(30)) == [StateChange(at(30), TIMEOUT, ENDED)]


def test_an_error_can_outlast_the_session_or_come_before_and_after_it() -> None:
    boundaries = Boundaries(REGULAR, 5 * MINUTE)
    assert boundaries.clear(at(-9)) is None
    boundaries.fail(at(-9), "x")
    assert boundaries.clear(at(-8)) == StateChange(at(-8), ERROR, NOT_STARTED)
    boundaries.fail(at(-7), "x")
    assert boundaries.clear(at(99)) == StateChange(at(99), ERROR, ENDED)
    assert boundaries.fail(at(100), "x") == StateChange(at(100), ENDED, ERROR, "x")


def test_a_session_is_rolled_some_time_after_its_close() -> None:
    tomorrow = session((1440, 1470, "regular"))
    assert roll_time(REGULAR, tomorrow, 30 * MINUTE) == at(60)
    assert roll_time(REGULAR, tomorrow, 0) == at(30)
    assert roll_time(REGULAR, tomorrow, 2000 * MINUTE) == at(1440)
    assert roll_time(REGULAR, session((40, 45, "pre"), (45, 50, "regular")), 30 * MINUTE) == at(40)
    assert roll_time(REGULAR, session((30, 60, "regular")), 30 * MINUTE) == at(30)


def test_a_session_is_not_rolled_while_its_post_market_is_streamed() -> None:
    tomorrow = session((1440, 1470, "regular"))
    assert roll_time(EXTENDED, tomorrow, 10 * MINUTE) == at(50)
    assert roll_time(EXTENDED, tomorrow, 30 * MINUTE) == at(60)


def test_half_a_minute_of_silence() -> None:
    timeout = 90 * SECOND
    known = np.array([at(1), at(2), at(4)], np.int64)
    times = [change.time for change in state_changes(REGULAR, known, timeout)]
    assert times == [at(0), at(3.5), at(4), at(5.5), at(30)]
