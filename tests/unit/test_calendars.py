"""Sessions, and the ways to look them up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from stream_coord.calendars import Calendar, Segment, Session, open_calendar
from stream_coord.clock import to_micros
from stream_coord.errors import CalendarError
from stream_coord.interval import HOUR, MINUTE, Interval

ONE_MINUTE, ONE_HOUR = Interval.parse("1m"), Interval.parse("1h")

BLACK_FRIDAY = date(2018, 11, 23)


def utc(text: str) -> int:
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schedules")


@pytest.fixture(scope="module")
def nyse(cache_dir: Path) -> Calendar:
    return open_calendar("NYSE", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def nyse_extended(cache_dir: Path) -> Calendar:
    return open_calendar("NYSE", "extended", cache_dir=cache_dir)


# --- Session -------------------------------------------------------------------------------------

LUNCH_DAY = Session(
    date(2024, 3, 8),
    (
        Segment(0, 2 * HOUR, "pre"),
        Segment(2 * HOUR, 5 * HOUR, "regular"),
        Segment(6 * HOUR, 8 * HOUR + 30 * MINUTE, "regular"),
        Segment(8 * HOUR + 30 * MINUTE, 9 * HOUR, "post"),
    ),
)


def test_a_session_knows_its_regular_part_and_what_is_streamed() -> None:
    assert (LUNCH_DAY.open, LUNCH_DAY.close) == (2 * HOUR, 8 * HOUR + 30 * MINUTE)
    assert (LUNCH_DAY.start, LUNCH_DAY.end) == (0, 9 * HOUR)
    assert LUNCH_DAY.regular == LUNCH_DAY.segments[1:3]


def test_the_grid_is_anchored_at_each_segment_and_its_last_bar_may_be_cut() -> None:
    hours = [0, 1, 2, 3, 4, 6, 7, 8, 8.5]
    assert LUNCH_DAY.grid(ONE_HOUR).tolist() == [hour * HOUR for hour in hours]
    expected = [False] * 2 + [True] * 6 + [False]
    assert LUNCH_DAY.regular_mask(ONE_HOUR).tolist() == expected


def test_grid_and_mask_have_the_documented_types() -> None:
    assert LUNCH_DAY.grid(ONE_MINUTE).dtype == np.int64
    assert LUNCH_DAY.regular_mask(ONE_MINUTE).dtype == np.bool_


# --- Calendar ------------------------------------------------------------------------------------


def test_a_calendar_says_where_its_sessions_come_from(nyse: Calendar) -> None:
    from importlib.metadata import version

    assert nyse.version == f"pandas-market-calendars {version('pandas-market-calendars')}"
    assert (nyse.name, nyse.hours, nyse.zone.key) == ("NYSE", "regular", "America/New_York")


def test_session_by_date(nyse: Calendar) -> None:
    session = nyse.session(BLACK_FRIDAY)
    regular = Segment(utc("2018-11-23T14:30"), utc("2018-11-23T18:00"), "regular")
    assert session == Session(BLACK_FRIDAY, (regular,))


def test_a_date_without_a_session_names_its_neighbours(nyse: Calendar) -> None:
    with pytest.raises(CalendarError) as caught:
        nyse.session(date(2018, 11, 22))
    assert "NYSE has no session on 2018-11-22 (Thursday)" in str(caught.value)
    assert "2018-11-21, 2018-11-23" in str(caught.value)


def test_at_the_end_of_the_calendar_only_one_neighbour_is_named(nyse: Calendar) -> None:
    with pytest.raises(CalendarError, match=r"The nearest sessions: 1970-01-02\."):
        nyse.session(date(1970, 1, 1))


def test_sessions_includes_both_ends_and_may_be_empty(nyse: Calendar) -> None:
    days = [s.date.day for s in nyse.sessions(date(2018, 11, 19), BLACK_FRIDAY)]
    assert days == [19, 20, 21, 23]
    assert nyse.sessions(date(2018, 11, 22), date(2018, 11, 22)) == ()
    assert nyse.sessions(BLACK_FRIDAY, date(2018, 11, 19)) == ()


def test_next_and_previous_session_are_strictly_after_and_before(nyse: Calendar) -> None:
    assert nyse.next_session(date(2018, 11, 21)).date == BLACK_FRIDAY
    assert nyse.next_session(date(2018, 11, 22)).date == BLACK_FRIDAY
    assert nyse.previous_session(BLACK_FRIDAY).date == date(2018, 11, 21)
    assert nyse.previous_session(date(2018, 11, 25)).date == BLACK_FRIDAY


def test_sessions_before_come_oldest_first(nyse: Calendar) -> None:
    dates = [str(s.date) for s in nyse.sessions_before(date(2018, 11, 26), 3)]
    assert dates == ["2018-11-20", "2018-11-21", "2018-11-23"]
    assert nyse.sessions_before(BLACK_FRIDAY, 0) == ()


def test_sessions_before_are_fewer_where_the_calendar_begins(nyse: Calendar) -> None:
    dates = [str(s.date) for s in nyse.sessions_before(date(1970, 1, 6), 5)]
    assert dates == ["1970-01-02", "1970-01-05"]


@pytest.mark.parametrize("day", [date(1969, 12, 31), date(2101, 1, 1)])
def test_dates_that_no_calendar_reaches_are_errors(nyse: Calendar, day: date) -> None:
    inside = date(2000, 1, 1)
    for call in (
        lambda: nyse.session(day),
        lambda: nyse.sessions(day, inside),
        lambda: nyse.sessions(inside, day),
        lambda: nyse.next_session(day),
        lambda: nyse.previous_session(day),
        lambda: nyse.sessions_before(day, 5),
    ):
        with pytest.raises(CalendarError, match="from 1970-01-01 to 2100-12-31"):
            call()


def test_no_session_after_the_last_or_before_the_first(nyse: Calendar) -> None:
    with pytest.raises(CalendarError, match="no session after 2100-12-31"):
        nyse.next_session(date(2100, 12, 31))
    with pytest.raises(CalendarError, match="no session before 1970-01-02"):
        nyse.previous_session(date(1970, 1, 2))


def test_session_at_a_moment_is_half_open(nyse: Calendar, nyse_extended: Calendar) -> None:
    opened, closed = utc("2018-11-23T14:30"), utc("2018-11-23T18:00")
    session = nyse.session(BLACK_FRIDAY)
    assert nyse.session_at(opened) == nyse.session_at(closed - 1) == session
    assert nyse.session_at(opened - 1) is None
    assert nyse.session_at(closed) is None
    assert nyse_extended.session_at(closed) == nyse_extended.session(BLACK_FRIDAY)
    assert nyse_extended.session_at(utc("2018-11-23T22:00")) is None


def test_session_at_moments_outside_the_calendar_is_none(nyse: Calendar) -> None:
    assert nyse.session_at(-(10**17)) is None
    assert nyse.session_at(10**17) is None


def test_a_lunch_break_belongs_to_its_session_but_not_to_regular_hours(cache_dir: Path) -> None:
    hkex = open_calendar("HKEX", cache_dir=cache_dir)
    noon = utc("2024-03-08T04:30")
    assert hkex.session_at(noon) == hkex.session(date(2024, 3, 8))
    assert not hkex.in_regular(np.array([noon])).any()


def test_sessions_between_moments_are_those_that_overlap(nyse: Calendar) -> None:
    friday = nyse.session(BLACK_FRIDAY)
    assert nyse.sessions_between(friday.open, friday.open + 1) == (friday,)
    assert nyse.sessions_between(friday.close - 1, friday.close + HOUR) == (friday,)
    assert nyse.sessions_between(friday.close, friday.close + HOUR) == ()
    assert nyse.sessions_between(friday.open - HOUR, friday.open) == ()
    assert nyse.sessions_between(friday.open + 5, friday.open + 5) == ()
    week = nyse.sessions_between(utc("2018-11-19T15:00"), utc("2018-11-23T15:00"))
    assert [s.date.day for s in week] == [19, 20, 21, 23]


def test_in_regular_takes_starts_in_any_order(nyse: Calendar, nyse_extended: Calendar) -> None:
    texts = ["2018-11-23T18:00", "2018-11-23T14:30", "2018-11-23T14:29", "2018-11-23T17:59"]
    starts = np.array([utc(text) for text in texts])
    assert nyse.in_regular(starts).tolist() == [False, True, False, True]
    assert nyse_extended.in_regular(starts).tolist() == [False, True, False, True]
    assert nyse.in_regular(np.array([], np.int64)).tolist() == []


def test_sessions_that_follow_without_a_pause_stay_apart(cache_dir: Path) -> None:
    always = open_calendar("24/7", cache_dir=cache_dir)
    midnight = utc("2024-03-10T00:00")
    session = always.session_at(midnight)
    assert session is not None
    assert session.date == date(2024, 3, 10)
    assert always.in_regular(np.array([midnight - 1, midnight, midnight + 1])).all()
    assert always.session(date(2100, 12, 31)).close == utc("2101-01-01T00:00")


def test_pre_and_post_market_end_at_the_regular_session(nyse_extended: Calendar) -> None:
    kinds = [segment.kind for segment in nyse_extended.session(BLACK_FRIDAY).segments]
    assert kinds == ["pre", "regular", "post"]
    # The open of 1974-01-16 was delayed, and the library starts the pre-market with it.
    late_open = nyse_extended.session(date(1974, 1, 16))
    assert [segment.kind for segment in late_open.segments] == ["regular", "post"]


# --- what can be wrong ---------------------------------------------------------------------------


def test_extended_hours_need_a_calendar_that_has_them(cache_dir: Path) -> None:
    with pytest.raises(CalendarError, match="'LSE' has no pre- or post-market times"):
        open_calendar("LSE", "extended", cache_dir=cache_dir)


def test_unknown_hours_are_an_error() -> None:
    with pytest.raises(CalendarError, match=r"'extnded' \(did you mean 'extended'\?\)"):
        open_calendar("NYSE", "extnded")


@pytest.mark.parametrize(
    ("name", "guess"), [("CME_Equities", "'CME_Equity'"), ("nyse", "'NYSE'"), ("24-7", "'24/7'")]
)
def test_an_unknown_calendar_brings_the_nearest_name(name: str, guess: str) -> None:
    with pytest.raises(CalendarError, match=f"{name}.*did you mean {guess}"):
        open_calendar(name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/passwd", "a\0b", "\udc80", "*"])
def test_a_calendar_name_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(CalendarError, match="unknown calendar"):
        open_calendar(name, cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("*"))


def test_a_calendar_that_the_library_cannot_compute_is_an_error() -> None:
    with pytest.raises(CalendarError, match="lists 'XSGO' but cannot compute its sessions"):
        open_calendar("XSGO")


def test_identity_depends_on_name_hours_and_overrides(cache_dir: Path) -> None:
    def identity(name: str, hours: str = "regular", **overrides: object) -> str:
        return open_calendar(name, hours, overrides, cache_dir).identity

    fri, mon = {"open": "10:00", "close": "15:00"}, {"close": "15:30"}
    identities = [
        identity("NYSE"),
        identity("NASDAQ"),
        identity("NYSE", "extended"),
        identity("NYSE", fri=fri),
        identity("NYSE", fri=mon),
        identity("NYSE", fri=fri, mon=mon),
    ]
    assert len(set(identities)) == len(identities)
    assert identity("NYSE") == identities[0]
    backwards = dict(reversed(fri.items()))
    assert identity("NYSE", mon=mon, fri=backwards) == identities[-1]
