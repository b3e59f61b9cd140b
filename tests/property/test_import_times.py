"""Times read from texts and numbers are those of Python's own datetime and zoneinfo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.sources.times import datetime_times, epoch_text_times, local_times, text_times

ZONES = ("America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

moments = st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2099-12-30"))
zones = st.sampled_from(ZONES)


@st.composite
def clock_changes(draw: st.DrawFn) -> tuple[datetime, str]:
    """Return a local time within two hours of one at which some clocks change."""
    year = draw(st.integers(2008, 2099))
    month, day, zone = draw(
        st.sampled_from([(3, 14, ZONES[0]), (11, 7, ZONES[0]), (3, 31, ZONES[1]), (4, 7, ZONES[3])])
    )
    last = datetime.fromisoformat(f"{year}-{month:02}-{day:02}")
    sunday = last - timedelta(days=(last.weekday() + 1) % 7)
    return sunday + timedelta(minutes=draw(st.integers(0, 240))), zone


def utc_of_wall(wall: datetime, zone: str) -> int | str:
    """Return UTC microseconds, or why there are none."""
    early, late = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1))
    if early.utcoffset() == late.utcoffset():
        return (early - EPOCH) // MICROSECOND
    exists = early.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == wall
    return "ambiguous-time" if exists else "nonexistent-time"


def only(frame: pl.DataFrame) -> int | str:
    """Return the one row's start, or the code of its reason."""
    start: int | None
    reason: str | None
    start, reason = frame.row(0)
    if start is not None:
        assert reason is None
        return start
    assert reason is not None
    return reason.partition(":")[0]


@given(st.one_of(st.tuples(moments, zones), clock_changes()))
@settings(max_examples=150, deadline=None)
def test_local_times_are_those_of_zoneinfo(case: tuple[datetime, str]) -> None:
    wall, zone = case
    local = (wall.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
    expected = utc_of_wall(wall, zone)
    assert only(local_times(pl.Series([local]), zone)) == expected
    assert only(datetime_times(pl.Series([wall], dtype=pl.Datetime("us")), zone)) == expected


@given(moments, st.sampled_from("T "), st.sampled_from(["minutes", "seconds", "microseconds"]))
@settings(max_examples=60, deadline=None)
def test_iso_texts_are_read_as_by_fromisoformat(moment: datetime, mark: str, unit: str) -> None:
    text = moment.isoformat(mark, unit)
    expected = (datetime.fromisoformat(text + "+00:00") - EPOCH) // MICROSECOND
    assert only(text_times(pl.Series([text]), "iso", "UTC")) == expected


@given(moments, st.integers(-23 * 60, 23 * 60), st.sampled_from(["", " "]))
@settings(max_examples=60, deadline=None)
def test_an_offset_in_the_text_wins_over_the_stated_zone(
    moment: datetime, minutes: int, gap: str
) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    naive, offset = aware.isoformat()[:-6], aware.isoformat()[-6:]
    texts = pl.Series([naive + gap + offset, naive + gap + offset.replace(":", "")])
    expected = (aware - EPOCH) // MICROSECOND
    assert text_times(texts, "iso", "Asia/Tokyo")["start"].to_list() == [expected] * 2


@given(st.integers(0, 4 * 10**18), st.sampled_from(["s", "ms", "us", "ns"]))
@settings(max_examples=100, deadline=None)
def test_epoch_texts_are_exact_to_the_microsecond(nanoseconds: int, unit: str) -> None:
    """With or without a decimal point; what is finer than a microsecond has no start."""
    digits = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    whole, fraction = divmod(nanoseconds, 10**digits)
    text = f"{whole}.{fraction:0{digits}}" if digits else f"{whole}.000"
    got = only(epoch_text_times(pl.Series([text]), {"s": 6, "ms": 3, "us": 0, "ns": -3}[unit]))
    assert got == ("misaligned" if nanoseconds % 1000 else nanoseconds // 1000)


@given(st.text("0123456789-:. TZ+", max_size=26))
@settings(max_examples=100, deadline=None)
def test_what_python_does_not_read_is_unparsable(text: str) -> None:
    frame = text_times(pl.Series([text]), "iso", "UTC")
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        assert only(frame) == "unparsable"
    else:  # Python reads more forms than we do, such as a week's day
        assert only(frame) in {"unparsable", (moment - EPOCH) // MICROSECOND}
