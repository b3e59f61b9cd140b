"""Clocks, and the few conversions between microseconds and text.

Nothing else in the package reads the wall clock: a test, ``--now`` or a replay passes its own.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from threading import Event
from typing import Protocol
from zoneinfo import ZoneInfo

from stream_coord.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Clock(Protocol):
    """Something that knows what time it is."""

    def now(self) -> int:
        """Return the time in UTC microseconds since the epoch."""
        ...


class SystemClock:
    """The wall clock."""

    def now(self) -> int:
        """Return the wall clock's time in UTC microseconds since the epoch."""
        return time.time_ns() // 1000


class FixedClock:
    """A clock that stands still until it is set; for ``--now``, replays and tests.

    Args:
        now: UTC microseconds since the epoch.
    """

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        """Return the time last set."""
        return self._now

    def set(self, now: int) -> None:
        """Move the clock to `now` (UTC microseconds)."""
        self._now = now


class Timer(Protocol):
    """Something that measures seconds and lets them pass; for pacing."""

    def seconds(self) -> float:
        """Return seconds since any fixed moment; they never run backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after about so many seconds; sooner when woken or when Ctrl-C is pressed."""
        ...

    def wake(self) -> None:
        """End the sleep under way, and let nobody sleep any more; from any thread."""
        ...


class SystemTimer:
    """The machine's own seconds; they stand still while it is suspended."""

    def __init__(self) -> None:
        self._awake = Event()

    def seconds(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep; in the main thread the exception of Ctrl-C ends it at once."""
        self._awake.wait(seconds)

    def wake(self) -> None:
        """End the sleep under way, and let nobody sleep any more; from any thread."""
        self._awake.set()


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as UTC microseconds, exactly.

    >>> to_micros(datetime(2018, 11, 4, 6, tzinfo=UTC))
    1541311200000000
    """
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return UTC microseconds as an aware UTC datetime, exactly."""
    return _EPOCH + timedelta(microseconds=int(micros))  # of an array's element, too


def day_number(day: date) -> int:
    """Return a date as a number of days since 1970-01-01.

    >>> day_number(date(2018, 11, 2))
    17837
    """
    return day.toordinal() - _EPOCH.toordinal()


def day_of_number(number: int) -> date:
    """Return the date that is so many days after 1970-01-01."""
    return date.fromordinal(_EPOCH.toordinal() + number)


def parse_date(text: str) -> date:
    """Read ``YYYY-MM-DD``.

    Raises:
        UsageError: `text` is no such date.
    """
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not a date", "Write YYYY-MM-DD, for example 2018-11-23.")


def parse_moment(text: str) -> int:
    """Read an ISO 8601 time with its UTC offset and return UTC microseconds.

    Raises:
        UsageError: `text` is no such time, or has no offset.

    >>> parse_moment("2018-11-23T09:30:00-05:00")
    1542983400000000
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and 1970 <= moment.year <= 2100:
            return to_micros(moment)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"{text!r} is not a time with an offset",
        "Write ISO 8601 with an offset or Z, 1970 to 2100, for example 2018-11-23T14:30:00Z.",
    )


def format_moment(micros: int, zone: ZoneInfo | None = None) -> str:
    """Return a time for people, to the second: local with its offset, or UTC with ``Z``.

    >>> format_moment(1542983400000000)
    '2018-11-23 14:30:00Z'
    >>> format_moment(1542983400000000, ZoneInfo("America/New_York"))
    '2018-11-23 09:30:00-05:00'
    """
    moment = from_micros(micros)
    if zone is None:
        return f"{moment:%Y-%m-%d %H:%M:%S}Z"
    return moment.astimezone(zone).isoformat(sep=" ", timespec="seconds")
