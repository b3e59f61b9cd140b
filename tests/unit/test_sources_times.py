"""Times as files write them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from stream_coord.clock import parse_moment
from stream_coord.errors import UsageError
from stream_coord.sources.times import (
    check_time_format,
    check_zone,
    datetime_times,
    epoch_times,
    local_times,
    text_times,
)


def read(text: str, time_format: str = "iso", tz: str | None = "America/New_York") -> object:
    """Return the start of one text, or its reason."""
    start, reason = text_times(pl.Series([text]), time_format, tz).row(0)
    return reason if start is None else start


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2018-11-23 09:30:00", "2018-11-23T14:30:00Z"),
        ("2018-11-23T09:30", "2018-11-23T14:30:00Z"),
        ("2018-07-02 09:30:00.250", "2018-07-02T13:30:00.250Z"),
        ("2018-07-02 09:30:00.000000000", "2018-07-02T13:30:00Z"),
        ("2018-11-23T09:30:00Z", "2018-11-23T09:30:00Z"),
        ("2018-11-23 09:30+01:00", "2018-11-23T08:30:00Z"),
        ("2018-11-23 09:30:00.5 -0500", "2018-11-23T14:30:00.500Z"),
        ("2018-11-23T09:30:00+09", "2018-11-23T00:30:00Z"),
    ],
)
def test_iso_times(text: str, utc: str) -> None:
    assert read(text) == parse_moment(utc)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "2018-11-23",
        "09:30",
        "2018-11-23 24:00",
        "2018-02-29 09:30",
        "2018-13-01 09:30",
        "2018-11-23 09:30:60",
        "2018-11-23 09:60",
        "18-11-23 09:30",
        "2018-11-23 9:30",
        "nan",
        "2018-11-23 09:30:00 EST",
        "20181123 093000",
        "2018-11-23 09:30:00+24:00",
        "1542983400",
        "\u0662018-11-23 09:30",
        "2018-11-23 09:30:00.0000001",
        "2018-11-23 09:30:00.",
        "x" * 99,
    ],
)
def test_anything_else_is_unparsable(text: str) -> None:
    assert read(text) == "unparsable: time"


def test_clock_changes_of_2018_in_new_york() -> None:
    """02:30 on March 11 does not exist; 01:30 on November 4 comes twice; their neighbours are."""
    assert read("2018-03-11 01:59") == parse_moment("2018-03-11T06:59:00Z")
    assert read("2018-03-11 02:30") == "nonexistent-time: clocks in America/New_York skip it"
    assert read("2018-03-11 03:00") == parse_moment("2018-03-11T07:00:00Z")
    assert read("2018-11-04 00:59") == parse_moment("2018-11-04T04:59:00Z")
    assert read("2018-11-04 01:30") == "ambiguous-time: clocks in America/New_York show it twice"
    assert read("2018-11-04 02:00") == parse_moment("2018-11-04T07:00:00Z")


def test_each_text_is_read_on_its_own() -> None:
    """Naive and aware times, forms and rubbish may be mixed."""
    texts = ["2018-11-23 09:30", "x", "2018-11-23T14:31:00Z", None, "2018-03-11 02:30:00"]
    frame = text_times(pl.Series(texts), "iso", "America/New_York")
    minute = parse_moment("2018-11-23T14:30:00Z")
    assert frame["start"].to_list() == [minute, None, minute + 60_000_000, None, None]
    codes = [reason and reason.partition(":")[0] for reason in frame["reason"]]
    assert codes == [None, "unparsable", None, "unparsable", "nonexistent-time"]


def test_without_a_zone_a_naive_time_is_no_time() -> None:
    frame = text_times(pl.Series(["2018-11-23 09:30", "2018-11-23 09:30Z"]), "iso", None)
    assert frame["start"].to_list() == [None, parse_moment("2018-11-23T09:30:00Z")]
    assert frame["reason"][0].startswith("no-offset: ")


def test_only_naive_times_and_no_zone_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"'2018-11-23 09:30' has no offset.*\n.*--tz"):
        text_times(pl.Series(["x", "2018-11-23 09:30"]), "iso", None)
    with pytest.raises(UsageError, match="has no offset"):
        datetime_times(pl.Series([datetime.fromisoformat("2018-11-23")]), None)


@pytest.mark.parametrize(
    ("text", "time_format", "utc"),
    [
        ("23.11.2018 09:30", "%d.%m.%Y %H:%M", "2018-11-23T14:30:00Z"),
        ("11/23/2018 9:30 AM", "%m/%d/%Y %I:%M %p", "2018-11-23T14:30:00Z"),
        ("20181123 093000", "%Y%m%d %H%M%S", "2018-11-23T14:30:00Z"),
        ("60 23.11.2018 09:30", "60 %d.%m.%Y %H:%M", "2018-11-23T14:30:00Z"),
        ("60 23.11.2018 09:30:00", "60 %d.%m.%Y %T", "2018-11-23T14:30:00Z"),
        ("20181123 09:30:00.250", "%Y%m%d %H:%M:%S.%f", "2018-11-23T14:30:00.250Z"),
        ("23.11.2018 09:30 +0100", "%d.%m.%Y %H:%M %z", "2018-11-23T08:30:00Z"),
        ("23.11.2018 09:30Z", "%d.%m.%Y %H:%M%z", "2018-11-23T09:30:00Z"),
        ("1542983400", "epoch-s", "2018-11-23T14:30:00Z"),
        ("1542983400.0", "epoch-s", "2018-11-23T14:30:00Z"),
        ("1542983400.5", "epoch-s", "2018-11-23T14:30:00.500Z"),
        ("1542983400000", "epoch-ms", "2018-11-23T14:30:00Z"),
        ("1542983400000000", "epoch-us", "2018-11-23T14:30:00Z"),
        ("1542983400000000000", "epoch-ns", "2018-11-23T14:30:00Z"),
    ],
)
def test_other_formats(text: str, time_format: str, utc: str) -> None:
    check_time_format(time_format)
    assert read(text, time_format) == parse_moment(utc)


@pytest.mark.parametrize(
    ("text", "time_format", "reason"),
    [
        ("1.5e9", "epoch-s", "unparsable: time"),
        ("0x5bf80000", "epoch-s", "unparsable: time"),
        ("1_542_983_400", "epoch-s", "unparsable: time"),
        ("", "epoch-s", "unparsable: time"),
        ("9223372036854775807", "epoch-s", "unparsable: time"),
        ("99999999999999999999", "epoch-us", "unparsable: time"),
        ("1542983400000000001", "epoch-ns", "misaligned: the time is no whole microsecond"),
        ("1542983400.0000001", "epoch-s", "misaligned: the time is no whole microsecond"),
        ("2018-11-23 09:30", "%d.%m.%Y %H:%M", "unparsable: time"),
        ("20181123 093060", "%Y%m%d %H%M%S", "unparsable: time"),
        ("2018-11-23 09:30:60", "%Y-%m-%d %H:%M:%S", "unparsable: time"),
        ("2018-11-23T09:30:60", "%Y-%m-%dT%T", "unparsable: time"),
        ("2018-11-23 09:30:60", "%F %T", "unparsable: time"),
        ("11/23/2018 09:30:60 AM", "%m/%d/%Y %I:%M:%S %p", "unparsable: time"),
        ("23.11.2018 09:30:60.250", "%d.%m.%Y %H:%M:%S.%f", "unparsable: time"),
        ("23.11.2018 09:30:60 +0100", "%d.%m.%Y %H:%M:%S %z", "unparsable: time"),
    ],
)
def test_what_does_not_fit_the_format_has_a_reason(
    text: str, time_format: str, reason: str
) -> None:
    assert read(text, time_format) == reason


def test_numbers_scale_without_wrapping() -> None:
    """A number whose microseconds overflow 64 bits is no time, rather than another one."""
    most = 2**63 - 1
    assert epoch_times(pl.Series([most, -most, 1, None]), 6)["start"].to_list() == [
        None,
        None,
        1_000_000,
        None,
    ]


def test_far_years_are_converted_like_any_other() -> None:
    year_9999 = 253_402_214_400_000_000  # 9999-12-31T00:00:00Z
    assert local_times(pl.Series([year_9999]), "UTC")["start"].to_list() == [year_9999]
    assert local_times(pl.Series([2**62, -(2**62)]), "America/New_York")["reason"].null_count() == 2


def test_datetimes_of_any_unit_and_zone() -> None:
    aware = pl.Series([datetime(2018, 11, 23, 14, 30, tzinfo=UTC)])
    start = parse_moment("2018-11-23T14:30:00Z")
    for unit in ("ms", "us", "ns"):
        here = aware.cast(pl.Datetime(unit, "Asia/Tokyo"))
        naive = pl.Series([datetime.fromisoformat("2018-11-23T09:30")]).cast(pl.Datetime(unit))
        assert datetime_times(here, None)["start"].to_list() == [start]
        assert datetime_times(naive, "America/New_York")["start"].to_list() == [start]
    finer = pl.Series([1], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    assert datetime_times(finer, None)["reason"][0].startswith("misaligned")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ISO", "no time format"),
        ("epoch", "did you mean 'epoch-"),
        ("", "no time format"),
        ("%Y-%m-%d", "does not state"),
        ("%H:%M", "does not state"),
        ("%d.%m.%Y %I:%M", "does not state"),
        ("%s", "not supported"),
        ("%Y-%m-%d %H:%M %Z", "not supported"),
        ("%Y-%m-%d %H:%M%", "not supported"),
    ],
)
def test_a_time_format_must_tell_the_minute(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_time_format(text)


@pytest.mark.parametrize("name", ["America/new_york", "EST/5", "../../etc/passwd", "", "localtime"])
def test_a_zone_must_be_known(name: str) -> None:
    with pytest.raises(UsageError, match="is not a time zone"):
        check_zone(name)
