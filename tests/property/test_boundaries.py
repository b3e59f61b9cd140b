"""A session's states equal a model that counts silence half a minute at a time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.calendars import Segment, Session, open_calendar
from stream_coord.clock import parse_moment, to_micros
from stream_coord.interval import MINUTE, SECOND
from stream_coord.session.boundaries import (
    Boundaries,
    SessionState,
    StateChange,
    state_changes,
)

OPEN = parse_moment("2018-11-23T14:30:00Z")
TICK = 30 * SECOND
Change = tuple[int, str, str]


def model(session: Session, ends: set[int], timeout: int) -> list[Change]:
    """Walk through a session and count how long nothing has come while it traded."""
    trading = [(part.open, part.close) for part in session.segments if part.kind == "regular"]
    opened, close = trading[0][0], trading[-1][1]
    begin, end = session.segments[0].open, session.segments[-1].close
    changes, state, quiet = [], "NOT_STARTED", 0
    for now in range(begin - 2 * MINUTE, end + 2 * MINUTE, TICK):
        if any(first < now <= last for first, last in trading):
            quiet += TICK
        if now in ends or now <= opened:
            quiet = 0
        if now >= end:
            wanted = "ENDED"
        elif now >= close:
            wanted = "POST_MARKET"
        elif now >= opened:
            wanted = "TIMEOUT" if quiet >= timeout else "ACTIVE"
        else:
            wanted = "PRE_MARKET" if now >= begin else "NOT_STARTED"
        if wanted != state:
            changes.append((now, state, wanted))
            state = wanted
    return changes


def plain(changes: Iterable[StateChange]) -> list[Change]:
    assert all(change.cause is None for change in changes)
    return [(change.time, change.left.name, change.entered.name) for change in changes]


def looked_at(session: Session, ends: set[int], timeout: int) -> list[StateChange]:
    """Look at a session each minute, and when it says that something changes."""
    boundaries, changes = Boundaries(session, timeout), []
    for now in range(session.start - 2 * MINUTE, session.end + 2 * MINUTE, MINUTE):
        while (next_change := boundaries.next_change()) is not None and next_change < now:
            changes += boundaries.at(next_change)
        if now in ends:
            boundaries.data(now)
        changes += boundaries.at(now)
        assert not boundaries.at(now)
    assert boundaries.next_change() is None
    return changes


def grid_ends(session: Session) -> list[int]:
    return [
        start + MINUTE
        for part in session.segments
        for start in range(part.open, part.close, MINUTE)
    ]


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Up to two breaks, pre- and post-market, with and without a pause before and after."""
    length, pause = st.integers(1, 12), st.integers(0, 4)
    edge, segments = OPEN, []
    if draw(st.booleans()):
        begin = edge - MINUTE * draw(length)
        segments.append(Segment(begin, edge, "pre"))
        edge += MINUTE * draw(pause)
    for _ in range(draw(st.integers(1, 3))):
        close = edge + MINUTE * draw(length)
        segments.append(Segment(edge, close, "regular"))
        edge = close + MINUTE * (1 + draw(pause))
    if draw(st.booleans()):
        edge = segments[-1].close + MINUTE * draw(pause)
        segments.append(Segment(edge, edge + MINUTE * draw(length), "post"))
    return Session(date(2018, 11, 23), tuple(segments))


@given(sessions(), st.integers(1, 16).map(TICK.__mul__), st.data())
def test_all_three_say_the_same(session: Session, timeout: int, data: st.DataObject) -> None:
    possible = grid_ends(session)
    there = data.draw(st.lists(st.booleans(), min_size=len(possible), max_size=len(possible)))
    ends = {end for end, here in zip(possible, there, strict=True) if here}
    expected = model(session, ends, timeout)
    known = np.array(sorted(ends), np.int64)
    assert plain(state_changes(session, known, timeout)) == expected
    assert plain(looked_at(session, ends, timeout)) == expected


@given(sessions(), st.integers(1, 16).map(TICK.__mul__), st.data())
def test_a_clearing_finds_the_session_where_it_would_be_without_the_error(
    session: Session, timeout: int, data: st.DataObject
) -> None:
    possible = grid_ends(session)
    ends = set(data.draw(st.lists(st.sampled_from(possible))))
    moments = st.integers(session.start - MINUTE, session.end + MINUTE)
    failed, cleared = sorted((data.draw(moments), data.draw(moments)))
    sound, failing = Boundaries(session, timeout), Boundaries(session, timeout)
    for now in range(session.start - 2 * MINUTE, session.end + 2 * MINUTE, MINUTE):
        for boundaries in (sound, failing):
            if now in ends:
                boundaries.data(now)
        sound.at(now)
        before = failing.state
        changes = failing.at(now)
        if now - MINUTE < failed <= now:
            before = failing.state
            change = failing.fail(now, "a disk is full")
            assert change == StateChange(now, before, SessionState.ERROR, "a disk is full")
            assert failing.fail(now, "another") is None
            assert failing.next_change() is None
        elif failing.state is SessionState.ERROR:
            assert not changes
            assert (failing.state, failing.cause) == (before, "a disk is full")
        if now - MINUTE < cleared <= now:
            assert failing.clear(now) == StateChange(now, SessionState.ERROR, sound.state)
            assert failing.cause is None
        if not failed <= now < cleared:
            assert failing.state is sound.state


REAL = {
    # The open and the close of the regular hours, and what is streamed besides.
    "NYSE, closing early": ("NYSE", "extended", date(2018, 11, 23)),
    "a lunch break": ("HKEX", "regular", date(2018, 11, 22)),
    "from the evening before": ("CME_Equity", "regular", date(2018, 11, 20)),
}


@pytest.mark.parametrize("case", REAL)
def test_real_sessions(case: str) -> None:
    name, hours, day = REAL[case]
    session = open_calendar(name, hours).session(day)
    possible = np.array(grid_ends(session))
    assert len(possible) >= 330
    if name == "CME_Equity":
        assert session.start < to_micros(datetime(2018, 11, 20, tzinfo=UTC))
    # Bars come in bursts with silences of up to ten minutes between.
    random = np.random.default_rng(len(possible))
    there = np.repeat(random.random(len(possible)) < 0.5, random.integers(1, 12, len(possible)))
    ends = set(possible[there[: len(possible)]].tolist())
    changes = state_changes(session, np.array(sorted(ends)), 5 * MINUTE)
    assert plain(changes) == model(session, ends, 5 * MINUTE)
    assert plain(looked_at(session, ends, 5 * MINUTE)) == plain(changes)
    assert sum(change.entered is SessionState.TIMEOUT for change in changes) > 5
