"""The table [calendar.overrides]: what it changes, which entry wins, what it refuses."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from stream_coord.calendars import Calendar, open_calendar
from stream_coord.clock import from_micros
from stream_coord.errors import CalendarError

DAY = "2024-03-08"  # a Friday; New York is at UTC-5, Chicago at UTC-6, Hong Kong at UTC+8


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schedules")


def opened(name: str, toml: str, cache_dir: Path, hours: str = "regular") -> Calendar:
    return open_calendar(name, hours, tomllib.loads(toml), cache_dir)


def local(calendar: Calendar, day: str) -> str:
    """Write a session's segments in exchange-local time, for example ``09:30-16:00``."""
    segments = calendar.session(date.fromisoformat(day)).segments
    edges = [
        [from_micros(edge).astimezone(calendar.zone) for edge in (segment.open, segment.close)]
        for segment in segments
    ]
    return " ".join(f"{start:%H:%M}-{end:%H:%M}" for start, end in edges)


def utc_open(calendar: Calendar, day: str) -> datetime:
    return from_micros(calendar.session(date.fromisoformat(day)).open)


# --- what it changes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "toml", "expected"),
    [
        ("NYSE", f'{DAY} = {{ close = "13:00" }}', "09:30-13:00"),
        ("NYSE", f'{DAY} = {{ open = "10:15", close = "13:00" }}', "10:15-13:00"),
        ("JPX", f'{DAY} = {{ break_start = "11:00" }}', "09:00-11:00 12:30-15:00"),
        ("NYSE", '03-08 = { close = "13:00" }', "09:30-13:00"),
        ("NYSE", 'fri = { close = "15:30" }', "09:30-15:30"),
        ("NYSE", 'every = { close = "15:45" }', "09:30-15:45"),
        ("NYSE", 'thu = { close = "15:30" }\n03-09 = { close = "13:00" }', "09:30-16:00"),
        ("HKEX", f"{DAY} = {{ break = false }}", "09:30-16:00"),
        ("HKEX", "every = { break = false }", "09:30-16:00"),
        ("HKEX", f'{DAY} = {{ break_end = "13:30" }}', "09:30-12:00 13:30-16:00"),
        ("HKEX", f'{DAY} = {{ close = "12:00" }}', "09:30-12:00"),
        ("HKEX", f'{DAY} = {{ close = "12:30" }}', "09:30-12:30"),
    ],
)  # fmt: skip
def test_named_times_change_and_the_others_stay(
    name: str, toml: str, expected: str, cache_dir: Path
) -> None:
    assert local(opened(name, toml, cache_dir), DAY) == expected


def test_only_the_sessions_that_a_key_names_change(cache_dir: Path) -> None:
    plain = open_calendar("NYSE", cache_dir=cache_dir)
    changed = opened("NYSE", '12-24 = { close = "12:00" }\ntue = { open = "10:00" }', cache_dir)
    days = (date(2018, 1, 1), date(2024, 12, 31))
    before, after = plain.sessions(*days), changed.sessions(*days)
    assert [s.date for s in before] == [s.date for s in after]
    for old, new in zip(before, after, strict=True):
        eve, tuesday = (old.date.month, old.date.day) == (12, 24), old.date.weekday() == 1
        assert (old.close != new.close) == eve
        assert (old.open != new.open) == tuesday


def test_february_29_is_a_day_of_leap_years(cache_dir: Path) -> None:
    calendar = opened("NYSE", '02-29 = "closed"', cache_dir)
    assert calendar.sessions(date(2024, 2, 29), date(2024, 3, 1))[0].date == date(2024, 3, 1)
    assert calendar.next_session(date(2023, 2, 28)).date == date(2023, 3, 1)


def test_the_more_specific_key_wins_time_by_time(cache_dir: Path) -> None:
    table = {
        "2024-03-08": 'open = "10:01"',
        "03-08": 'open = "10:02", close = "15:02"',
        "fri": 'open = "10:03", close = "15:03", break_start = "12:03"',
        "every": 'open = "10:04", close = "15:04", break_start = "12:04", break_end = "12:44"',
    }
    toml = "\n".join(f"{key} = {{ {value} }}" for key, value in table.items())
    assert local(opened("NYSE", toml, cache_dir), DAY) == "10:01-12:03 12:44-15:02"


def test_a_date_takes_back_what_a_recurring_key_closed_or_unbroke(cache_dir: Path) -> None:
    closed = opened("NYSE", f'03-08 = "closed"\n{DAY} = {{ close = "13:00" }}', cache_dir)
    assert local(closed, DAY) == "09:30-13:00"
    assert closed.sessions(date(2023, 3, 8), date(2023, 3, 8)) == ()
    toml = f'every = {{ break = false }}\n{DAY} = {{ break_start = "12:10", break_end = "12:20" }}'
    assert local(opened("HKEX", toml, cache_dir), DAY) == "09:30-12:10 12:20-16:00"
    toml = f'every = {{ break_end = "14:00" }}\n{DAY} = {{ break = false }}'
    assert local(opened("HKEX", toml, cache_dir), DAY) == "09:30-16:00"


def test_closed_takes_the_session_away(cache_dir: Path) -> None:
    calendar = opened("NYSE", '2025-01-09 = "closed"\n2024-03-08 = "closed"', cache_dir)
    with pytest.raises(CalendarError, match="no session on 2024-03-08"):
        calendar.session(date(2024, 3, 8))
    assert calendar.next_session(date(2024, 3, 7)).date == date(2024, 3, 11)


def test_a_date_with_open_and_close_makes_a_session_of_its_own(cache_dir: Path) -> None:
    toml = '2024-03-09 = { open = "10:00", close = "13:00" }\nsat = { close = "12:00" }'
    calendar = opened("NYSE", toml + '\nevery = { pre = "07:00" }', cache_dir, "extended")
    assert local(calendar, "2024-03-09") == "10:00-13:00"
    assert calendar.next_session(date(2024, 3, 8)).date == date(2024, 3, 9)
    toml = '2024-03-09 = { pre = "08:00", open = "10:00", close = "13:00", post = "14:00" }'
    made = opened("LSE", toml, cache_dir, "extended")
    assert local(made, "2024-03-09") == "08:00-10:00 10:00-13:00 13:00-14:00"


def test_pre_and_post_make_extended_hours_and_are_cut_at_the_session(cache_dir: Path) -> None:
    calendar = opened("LSE", 'every = { pre = "07:00", post = "17:00" }', cache_dir, "extended")
    assert local(calendar, DAY) == "07:00-08:00 08:00-16:30 16:30-17:00"
    calendar = opened("NYSE", f'{DAY} = {{ open = "03:30" }}', cache_dir, "extended")
    assert local(calendar, DAY) == "03:30-16:00 16:00-20:00"
    calendar = opened("NYSE", f'{DAY} = {{ open = "11:00" }}', cache_dir, "extended")
    assert local(calendar, DAY) == "04:00-11:00 11:00-16:00 16:00-20:00"


def test_a_recurring_break_is_dropped_where_it_does_not_fit(cache_dir: Path) -> None:
    toml = 'every = { break_start = "12:30", break_end = "13:00" }'
    calendar = opened("NYSE", toml, cache_dir)
    assert local(calendar, DAY) == "09:30-12:30 13:00-16:00"
    assert local(calendar, "2018-11-23") == "09:30-13:00"  # an early close


# --- local time ----------------------------------------------------------------------------------


def test_recurring_times_follow_the_clocks(cache_dir: Path) -> None:
    calendar = opened("NYSE", 'every = { open = "10:00" }', cache_dir)
    assert utc_open(calendar, "2024-03-08") == datetime(2024, 3, 8, 15, tzinfo=UTC)
    assert utc_open(calendar, "2024-03-11") == datetime(2024, 3, 11, 14, tzinfo=UTC)
    assert utc_open(calendar, "2024-11-01") == datetime(2024, 11, 1, 14, tzinfo=UTC)
    assert utc_open(calendar, "2024-11-04") == datetime(2024, 11, 4, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18:00", datetime(2024, 3, 10, 23, tzinfo=UTC)),
        ("18:00-1", datetime(2024, 3, 10, 23, tzinfo=UTC)),
        ("08:30+0", datetime(2024, 3, 11, 13, 30, tzinfo=UTC)),
        ("18:30:15", datetime(2024, 3, 10, 23, 30, 15, tzinfo=UTC)),
    ],
)
def test_an_evening_open_stays_in_the_evening(
    text: str, expected: datetime, cache_dir: Path
) -> None:
    """CME_Equity's Monday opens on Sunday 17:00; the clocks had changed that morning."""
    calendar = opened("CME_Equity", f'2024-03-11 = {{ open = "{text}" }}', cache_dir)
    assert utc_open(calendar, "2024-03-11") == expected


def test_a_close_counts_from_the_session_date(cache_dir: Path) -> None:
    calendar = opened("CME_Equity", '2024-11-29 = { close = "12:15" }', cache_dir)
    close = from_micros(calendar.session(date(2024, 11, 29)).close)
    assert close == datetime(2024, 11, 29, 18, 15, tzinfo=UTC)
    toml = f'{DAY} = {{ open = "22:00", close = "04:00+1" }}'
    session = opened("24/7", toml + '\n2024-03-09 = "closed"', cache_dir).session(date(2024, 3, 8))
    assert from_micros(session.close) == datetime(2024, 3, 9, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "day", "text"),
    [
        ("NYSE", "2024-03-10", "02:30"),
        ("NYSE", "2024-03-10", "02:00"),
        ("NYSE", "2024-11-03", "01:00"),
        ("NYSE", "2024-11-03", "01:59:59"),
        ("LSE", "2024-03-31", "01:30"),
        ("LSE", "2024-10-27", "01:30"),
    ],
)
def test_a_local_time_that_does_not_exist_once_is_refused(
    name: str, day: str, text: str, cache_dir: Path
) -> None:
    with pytest.raises(CalendarError, match=f"key '{day}': open = '{text}' does not exist, or"):
        opened(name, f'{day} = {{ open = "{text}", close = "12:00" }}', cache_dir)


@pytest.mark.parametrize(
    ("day", "text", "hour"),
    [
        ("2024-03-10", "01:59:59", 6),
        ("2024-03-10", "03:00", 7),
        ("2024-11-03", "00:59:59", 4),
        ("2024-11-03", "02:00", 7),
    ],
)
def test_the_seconds_beside_a_clock_change_are_fine(
    day: str, text: str, hour: int, cache_dir: Path
) -> None:
    calendar = opened("NYSE", f'{day} = {{ open = "{text}", close = "12:00" }}', cache_dir)
    assert utc_open(calendar, day).hour == hour


def test_a_doubtful_time_of_a_recurring_key_can_be_mended_by_a_date(cache_dir: Path) -> None:
    """Only the time that wins is looked at."""
    sunday = '2024-03-10 = { open = "%s", close = "12:00" }'
    always = 'every = { open = "00:30" }\n'
    calendar = opened("NYSE", always + sunday % "03:30", cache_dir)
    assert utc_open(calendar, "2024-03-10") == datetime(2024, 3, 10, 7, 30, tzinfo=UTC)
    with pytest.raises(CalendarError, match="key '2024-03-10'"):
        opened("NYSE", always + sunday % "02:30", cache_dir)


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('2024-02-30 = "closed"', "key '2024-02-30': there is no such day"),
        ('13-01 = "closed"', "key '13-01': there is no such day"),
        ('1969-12-31 = "closed"', "key '1969-12-31': calendars reach from 1970-01-01 to"),
        ('2024-3-8 = "closed"', "key '2024-3-8': this names no day"),
        ('Friday = { close = "12:00" }', r"key 'Friday': this names no day"),
        ('evry = { close = "12:00" }', r"key 'evry'.*did you mean 'every'"),
        ('fri = "closed"', "key 'fri': 'closed' does not say"),
        ('every = "closed"', "key 'every': 'closed' does not say"),
        (f'{DAY} = "open"', f"key '{DAY}': 'open' does not say"),
        (f"{DAY} = true", f"key '{DAY}': True does not say"),
        (f"{DAY} = {{}}", f"key '{DAY}': {{}} does not say"),
        (f'{DAY} = {{ closing = "12:00" }}', r"unknown field 'closing'"),
        (f'{DAY} = {{ opn = "12:00" }}', r"unknown field 'opn' \(did you mean 'open'\?\)"),
        (f'{DAY} = {{ close = "9:30" }}', "close = '9:30' is not a local time"),
        (f'{DAY} = {{ close = "24:00" }}', "close = '24:00' is not a local time"),
        (f'{DAY} = {{ close = "12:60" }}', "close = '12:60' is not a local time"),
        (f'{DAY} = {{ close = "12:00\\n" }}', "is not a local time"),
        (f'{DAY} = {{ close = "12:00+9" }}', "is not a local time"),
        (f'{DAY} = {{ close = "\u0661\u0662:\u0660\u0660" }}', "is not a local time"),
        (f"{DAY} = {{ close = 12:00:00 }}", "is not a local time"),
        (f"{DAY} = {{ close = 1200 }}", "close = 1200 is not a local time"),
        (f"{DAY} = {{ break = true }}", "break can only be false"),
        (f'{DAY} = {{ break = false, break_end = "12:00" }}', "contradicts"),
        ('2024-03-09 = { close = "12:00" }', "key '2024-03-09': there is no session"),
        ('2024-03-09 = { open = "10:00" }', "key '2024-03-09': there is no session"),
        (f'{DAY} = {{ close = "09:30" }}', f"session of {DAY} would not close after its open"),
        (f'{DAY} = {{ open = "17:00" }}', f"session of {DAY} would not close after its open"),
        ('fri = { open = "17:00" }', "key 'fri': the session of 1970-01-02 would not"),
        (f'{DAY} = {{ break_start = "12:00" }}', "break_start = '12:00' does not fit"),
        (f'{DAY} = {{ break_start = "09:00", break_end = "10:00" }}', "does not fit"),
        (f'{DAY} = {{ break_start = "15:00", break_end = "16:00" }}', "does not fit"),
        (f'{DAY} = {{ break_start = "13:00", break_end = "12:00" }}', "does not fit"),
        ('every = { break_start = "17:00", break_end = "18:00" }', "key 'every': break_start"),
        (f'{DAY} = {{ pre = "10:00" }}', "pre = '10:00' does not fit"),
        (f'{DAY} = {{ post = "15:00" }}', "post = '15:00' does not fit"),
        (f'{DAY} = {{ close = "09:30+3" }}', f"sessions of {DAY} and 2024-03-11 would overlap"),
        ('2024-03-11 = { open = "15:00-3" }', f"sessions of {DAY} and 2024-03-11 would overlap"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_key(toml: str, message: str, cache_dir: Path) -> None:
    with pytest.raises(CalendarError, match=message) as caught:
        opened("NYSE", toml, cache_dir)
    assert "calendar.overrides" in str(caught.value)
