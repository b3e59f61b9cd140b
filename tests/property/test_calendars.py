"""Sessions hang together, and every search agrees with a walk through all of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.calendars import Calendar, open_calendar
from stream_coord.calendars.overrides import apply_overrides
from stream_coord.calendars.schedule import OPEN, Schedule, installed_versions, library_schedule
from stream_coord.clock import to_micros
from stream_coord.errors import CalendarError
from stream_coord.interval import DAY, HOUR, MINUTE, Interval

FIRST, LAST = date(2012, 10, 1), date(2013, 12, 31)  # holds CME's change of hours and DST weeks

NAMES = ("NYSE", "CME_Equity", "HKEX", "LSE", "24/7")
patient = settings(deadline=None)  # the first call for a calendar computes its schedule

CALENDARS = [(name, "regular") for name in NAMES] + [("NYSE", "extended")]


@cache
def calendar_of(name: str, hours: str) -> Calendar:
    return open_calendar(name, hours)


calendars = st.sampled_from(CALENDARS).map(lambda which: calendar_of(*which))
days = st.dates(FIRST, LAST)
moments = st.integers(
    to_micros(datetime(2012, 10, 8, tzinfo=UTC)), to_micros(datetime(2013, 12, 20, tzinfo=UTC))
)
intervals = st.sampled_from(["1s", "10s", "1m", "7m", "1h"]).map(Interval.parse)


@st.composite
def moments_near_edges(draw: st.DrawFn, calendar: Calendar) -> int:
    """Draw a moment; mostly one at, just before or just after an edge of a segment."""
    session = calendar.next_session(draw(days))
    edges = [edge for part in session.segments for edge in (part.open, part.close)]
    return draw(st.sampled_from(edges)) + draw(st.sampled_from([-1, 0, 1, -MINUTE, HOUR]))


@patient
@given(calendars, days)
def test_segments_are_ordered_and_sessions_never_overlap(calendar: Calendar, day: date) -> None:
    sessions = calendar.sessions(day, day + timedelta(days=20))
    for session in sessions:
        assert all(part.open < part.close for part in session.segments)
        assert all(a.close <= b.open for a, b in pairwise(session.segments))
        assert session.start <= session.open < session.close <= session.end
        assert 1 <= len(session.regular) <= 2
    for before, after in pairwise(sessions):
        assert before.date < after.date
        assert before.end <= after.start


@patient
@given(calendars, days, intervals)
def test_the_grid_is_what_walking_through_the_segments_gives(
    calendar: Calendar, day: date, interval: Interval
) -> None:
    session = calendar.next_session(day)
    walked = []
    for part in session.segments:
        start = part.open
        while start < part.close:
            walked.append((start, part.kind == "regular"))
            start += interval.micros
    grid, mask = session.grid(interval), session.regular_mask(interval)
    assert list(zip(grid.tolist(), mask.tolist(), strict=True)) == walked
    assert (np.diff(grid) > 0).all()


@patient
@given(calendars, days)
def test_next_and_previous_are_inverse(calendar: Calendar, day: date) -> None:
    following, preceding = calendar.next_session(day), calendar.previous_session(day)
    assert preceding.date < day < following.date
    between = calendar.sessions(preceding.date, following.date)[1:-1]
    assert [s.date for s in between] in ([], [day])
    assert calendar.previous_session(following.date) == (between or (preceding,))[0]
    assert calendar.next_session(preceding.date) == (between or (following,))[0]


@patient
@given(calendars, days, st.integers(0, 30))
def test_the_n_sessions_before_are_n_steps_back(calendar: Calendar, day: date, n: int) -> None:
    steps, at = [], day
    for _ in range(n):
        session = calendar.previous_session(at)
        steps.append(session)
        at = session.date
    assert calendar.sessions_before(day, n) == tuple(reversed(steps))


@patient
@given(st.data(), calendars)
def test_moments_find_the_session_that_a_walk_finds(
    data: st.DataObject, calendar: Calendar
) -> None:
    moment = data.draw(moments_near_edges(calendar) | moments)
    near = datetime.fromtimestamp(moment // 1_000_000, UTC).date()
    around = calendar.sessions(near - timedelta(days=8), near + timedelta(days=8))
    expected = next((s for s in around if s.start <= moment < s.end), None)
    assert calendar.session_at(moment) == expected


@patient
@given(st.data(), calendars)
def test_spans_find_the_sessions_that_a_walk_finds(data: st.DataObject, calendar: Calendar) -> None:
    start = data.draw(moments_near_edges(calendar))
    end = start + data.draw(st.integers(-DAY, 5 * DAY) | st.sampled_from([0, 1]))
    near = datetime.fromtimestamp(start // 1_000_000, UTC).date()
    around = calendar.sessions(near - timedelta(days=8), near + timedelta(days=13))
    expected = [s for s in around if max(s.start, start) < min(s.end, end)]
    assert list(calendar.sessions_between(start, end)) == expected


@patient
@given(st.data(), calendars)
def test_in_regular_agrees_with_a_walk(data: st.DataObject, calendar: Calendar) -> None:
    starts = data.draw(st.lists(moments_near_edges(calendar) | moments, max_size=20))
    everything = calendar.sessions(FIRST, LAST + timedelta(days=9))
    open_close = [(part.open, part.close) for s in everything for part in s.regular]
    expected = [any(opened <= start < closed for opened, closed in open_close) for start in starts]
    assert calendar.in_regular(np.array(starts, np.int64)).tolist() == expected


CHANGES = ["2024-03-10", "2024-11-03", "2024-03-31", "2024-10-27", "1970-04-26", "2100-10-31"]


@cache
def schedule_of(name: str) -> Schedule:
    return library_schedule(name, installed_versions(), None)


@patient
@given(
    st.sampled_from(["NYSE", "LSE", "JPX"]),
    st.sampled_from(CHANGES).map(date.fromisoformat) | days,
    st.times(max_value=time(3, 30)) | st.times(max_value=time(11, 59)),
)
def test_local_times_of_overrides_are_what_zoneinfo_says(name: str, day: date, at: time) -> None:
    """On clock-change Sundays most of all; a time that does not exist exactly once is refused."""
    overrides = {str(day): {"open": f"{at:%H:%M:%S}", "close": "23:00"}}
    schedule, wall = schedule_of(name), datetime.combine(day, at.replace(microsecond=0))
    earlier, later = (wall.replace(tzinfo=ZoneInfo(schedule.zone), fold=fold) for fold in (0, 1))
    if earlier.utcoffset() != later.utcoffset():
        with pytest.raises(CalendarError, match="does not exist, or exists twice"):
            apply_overrides(schedule, overrides)
    else:
        changed = apply_overrides(schedule, overrides)
        row = changed.days.tolist().index((day - date(1970, 1, 1)).days)
        assert changed.times[row, OPEN] == to_micros(earlier)
