"""Sessions that a settings file changes: the table ``[calendar.overrides]``.

A key says which sessions, a value what becomes of them::

    [calendar.overrides]
    every = { post = "18:00" }                            # all sessions
    fri = { close = "15:00" }                             # every Friday's
    12-24 = { close = "12:00", break = false }            # that day each year
    2025-01-09 = "closed"                                 # that date
    2025-03-29 = { open = "10:00", close = "13:00" }      # that date

A key that says more wins: date over month and day over weekday over every. ``"closed"`` is for
dates and for month and day. ``break = false`` takes the break away. A date that has no session gets
one from its own open and close, and none of the recurring changes; recurring keys only change
sessions that the calendar has.

Times are local to the exchange, ``HH:MM`` or ``HH:MM:SS``, and count from the session's date; with
an offset such as ``-1`` or ``+1`` at their end, from the day before or after it. One exception, for
calendars that open the evening before: an ``open`` or ``pre`` without an offset keeps the local day
on which the calendar's own session opens: ``open = "18:00"`` for CME_Equity means that evening.

What a value does not name keeps the calendar's time. What no longer fits is dropped as it is
from the library's own sessions (`schedule.tidy`), such as the lunch break of a day that now
closes before it. But a time that is named and fits none of the sessions of its key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from stream_coord.calendars.schedule import (
    BREAK,
    BREAK_END,
    BREAK_START,
    CLOSE,
    FIELDS,
    FIRST_DAY,
    LAST_DAY,
    MISSING,
    OPEN,
    PRE,
    Schedule,
    day_number,
    first_overlap,
    number_day,
    tidy,
)
from stream_coord.clock import from_micros
from stream_coord.errors import CalendarError, near_miss
from stream_coord.interval import DAY, HOUR, MINUTE, SECOND

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY, WEEKDAY, MONTH_DAY, DATE = range(4)
"""What kind of key a rule has; a higher one wins."""

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = re.compile(r"(?:(\d{4})-)?(\d{2})-(\d{2})", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?([+-][0-7])?", re.ASCII)
_ORDER = "The times of a session pass in this order: " + " < ".join(FIELDS) + "."


class LocalTime(NamedTuple):
    """A wall-clock time of the exchange: microseconds after midnight, and its day if it says so."""

    text: str
    micros: int
    day_offset: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the table, checked as far as it can be without the sessions.

    Attributes:
        key: As written.
        rank: `EVERY`, `WEEKDAY`, `MONTH_DAY` or `DATE`.
        match: Which: weekday (Monday 0), 100 x month + day, or days since 1970-01-01.
        closed: Whether there is no session.
        no_break: Whether the break goes.
        times: New times by column of `Schedule.times`.
    """

    key: str
    rank: int
    match: int
    closed: bool = False
    no_break: bool = False
    times: dict[int, LocalTime] = field(default_factory=dict)

    def matches(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the days (days since 1970-01-01) the key means."""
        if self.rank == EVERY:
            return np.ones(len(days), np.bool_)
        if self.rank == WEEKDAY:
            return np.equal((days + FIRST_DAY.weekday()) % 7, self.match)
        return np.equal(_month_days(days) if self.rank == MONTH_DAY else days, self.match)

    @property
    def makes_session(self) -> bool:
        """Whether the rule says enough for a date that has no session."""
        return self.rank == DATE and {OPEN, CLOSE} <= self.times.keys()


def _month_days(days: NDArray[np.int64]) -> NDArray[np.int64]:
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    in_year: NDArray[np.int64] = months.astype(np.int64) % 12
    in_month: NDArray[np.int64] = (dates - months).astype(np.int64)
    return 100 * (in_year + 1) + in_month + 1


# --- reading the table ---------------------------------------------------------------------------


def parse_rules(overrides: Mapping[str, object]) -> tuple[Rule, ...]:
    """Read the table ``[calendar.overrides]``; what wins comes last.

    Raises:
        CalendarError: a key or value is wrong; names the key.
    """
    rules = (_parse_rule(key, value) for key, value in overrides.items())
    return tuple(sorted(rules, key=lambda rule: (rule.rank, rule.match)))


def _wrong(key: str, what: str, hint: str | None = None) -> CalendarError:
    return CalendarError(f"calendar.overrides, key {key!r}: {what}", hint)


def _parse_rule(key: str, value: object) -> Rule:
    rank, match = _parse_key(key)
    if value == "closed" and rank >= MONTH_DAY:
        return Rule(key, rank, match, closed=True)
    if not isinstance(value, Mapping) or not value:
        raise _wrong(
            key,
            f"{value!r} does not say what becomes of the session",
            'Write a table such as { close = "13:00" }, or "closed" for YYYY-MM-DD and MM-DD.',
        )
    fields = {str(name): text for name, text in value.items()}
    no_break = "break" in fields and _parse_no_break(key, fields)
    times = {_column(key, name): _parse_time(key, name, text) for name, text in fields.items()}
    return Rule(key, rank, match, no_break=no_break, times=times)


def _parse_key(key: str) -> tuple[int, int]:
    if key == "every":
        return EVERY, 0
    if key in _WEEKDAYS:
        return WEEKDAY, _WEEKDAYS.index(key)
    if parts := _DAY.fullmatch(key):
        year, month, day = (int(part or 2000) for part in parts.groups())  # 2000 has a 02-29
        try:
            when = date(year, month, day)
        except ValueError:
            raise _wrong(key, "there is no such day") from None
        if not parts[1]:
            return MONTH_DAY, 100 * month + day
        if FIRST_DAY <= when <= LAST_DAY:
            return DATE, day_number(when)
        raise _wrong(key, f"calendars reach from {FIRST_DAY} to {LAST_DAY}")
    guess = near_miss(key.lower(), ("every", *_WEEKDAYS))
    raise _wrong(key, f"this names no day{guess}", "Keys: YYYY-MM-DD, MM-DD, mon ... sun, every.")


def _parse_no_break(key: str, fields: dict[str, object]) -> bool:
    """Take ``break`` out of the fields and return that the break goes."""
    if fields.pop("break") is not False:
        raise _wrong(key, "break can only be false", "Set it with break_start and break_end.")
    if {"break_start", "break_end"} & fields.keys():
        raise _wrong(key, "break = false contradicts break_start and break_end")
    return True


def _column(key: str, name: str) -> int:
    if name not in FIELDS:
        allowed = (*FIELDS, "break")
        raise _wrong(
            key,
            f"unknown field {name!r}{near_miss(name, allowed)}",
            f"Fields: {', '.join(allowed)}.",
        )
    return FIELDS.index(name)


def _parse_time(key: str, name: str, text: object) -> LocalTime:
    if not (isinstance(text, str) and (parts := _TIME.fullmatch(text))):
        raise _wrong(
            key,
            f"{name} = {text!r} is not a local time",
            'Write "HH:MM" or "HH:MM:SS" as text, with a day offset if need be: "17:00-1".',
        )
    hours, minutes, seconds, offset = parts.groups()
    micros = int(hours) * HOUR + int(minutes) * MINUTE + int(seconds or 0) * SECOND
    return LocalTime(text, micros, None if offset is None else int(offset))


# --- applying it ---------------------------------------------------------------------------------


def apply_overrides(schedule: Schedule, overrides: Mapping[str, object]) -> Schedule:
    """Return the schedule with the changes of a table ``[calendar.overrides]``.

    Raises:
        CalendarError: an entry is wrong or does not fit the sessions; names its key.
    """
    rules = parse_rules(overrides)
    made = np.array([rule.match for rule in rules if rule.makes_session], np.int64)
    days = np.union1d(schedule.days, made)
    listed = np.isin(days, schedule.days)
    times = np.full((len(days), len(FIELDS)), MISSING)
    times[listed] = schedule.times

    source, kept = _choose_rules(rules, days, listed)
    days, times, source = days[kept], times[kept], source[kept]
    _set_times(rules, days, times, source, ZoneInfo(schedule.zone))
    _check_times(rules, days, times, source)

    changed = Schedule(schedule.zone, days, tidy(times))
    if (row := first_overlap(changed)) is not None:
        first, second = (number_day(int(day)) for day in days[row : row + 2])
        key = rules[source[row : row + 2].max()].key
        raise _wrong(key, f"the sessions of {first} and {second} would overlap")
    return changed


def _choose_rules(
    rules: tuple[Rule, ...], days: NDArray[np.int64], listed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which rule decides each time (-1: the calendar), and which sessions take place."""
    source = np.full((len(days), len(FIELDS)), -1)
    kept = np.ones(len(days), np.bool_)
    for number, rule in enumerate(rules):
        rows = rule.matches(days) & (listed | (rule.rank == DATE))
        if rule.rank == DATE and not rule.closed and not rows.any():
            raise _wrong(rule.key, "there is no session", "To make one, give both open and close.")
        kept[rows] = not rule.closed
        for column in (*rule.times, *((BREAK_START, BREAK_END) if rule.no_break else ())):
            source[rows, column] = number
    return source, kept


def _set_times(
    rules: tuple[Rule, ...],
    days: NDArray[np.int64],
    times: NDArray[np.int64],
    source: NDArray[np.int64],
    zone: ZoneInfo,
) -> None:
    """Write the rules' times into `times`."""
    changed = days[(source >= 0).any(axis=1)]
    if not changed.size:
        return
    offsets = _Offsets.around(zone, int(changed[0]), int(changed[-1]))
    own_opens = times[:, OPEN]
    open_days = np.where(own_opens == MISSING, days, offsets.to_local(own_opens) // DAY)
    for number, rule in enumerate(rules):
        if rule.no_break:
            times[:, BREAK][source[:, BREAK] == number] = MISSING
        for column, local in rule.times.items():
            rows = np.flatnonzero(source[:, column] == number)
            named_days = days + (local.day_offset or 0)
            keeps_day = local.day_offset is None and column in {PRE, OPEN}
            walls = (open_days if keeps_day else named_days)[rows] * DAY + local.micros
            times[rows, column], doubtful = offsets.to_utc(walls)
            if doubtful.any():
                day = number_day(int(walls[doubtful][0] // DAY))
                raise _wrong(
                    rule.key,
                    f"{FIELDS[column]} = {local.text!r} does not exist, or exists twice, on {day}, "
                    f"when the clocks of {zone.key} change",
                    "Give that date a key of its own with another time.",
                )


def _check_times(
    rules: tuple[Rule, ...],
    days: NDArray[np.int64],
    times: NDArray[np.int64],
    source: NDArray[np.int64],
) -> None:
    """Raise for a session that closes before it opens, or a named time that fits no session."""
    pre, opens, starts, ends, closes, post = times.T
    lasts = opens < closes
    if (bad := np.flatnonzero(~lasts)).size:
        row = bad[0]
        day = number_day(int(days[row]))
        key = rules[source[row].max()].key
        raise _wrong(key, f"the session of {day} would not close after its open", _ORDER)
    breaks = (opens < starts) & (starts < ends) & (ends < closes)
    fits = np.column_stack((pre < opens, lasts, breaks, breaks, lasts, post > closes))
    for number, rule in enumerate(rules):
        for column, local in rule.times.items():
            rows = source[:, column] == number
            if rows.any() and not fits[rows, column].any():
                what = f"{FIELDS[column]} = {local.text!r} does not fit into its session"
                raise _wrong(rule.key, what, _ORDER)


@dataclass(frozen=True, slots=True)
class _Offsets:
    """A zone's offsets from UTC around a span of days; all in microseconds.

    Attributes:
        changes: UTC moments at which the offset changes, ascending.
        offsets: The offset before the first change, then the one after each.
    """

    changes: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def around(cls, zone: ZoneInfo, first_day: int, last_day: int) -> _Offsets:
        """Find them by weekly samples and bisection: clocks do not change twice in a week."""
        samples = range((first_day - 14) * DAY, (last_day + 21) * DAY, 7 * DAY)
        changes, offsets = [], [_utc_offset(zone, samples[0])]
        for low, high in pairwise(samples):
            if _utc_offset(zone, high) != offsets[-1]:
                changes.append(_first_second_of_change(zone, low, high))
                offsets.append(_utc_offset(zone, high))
        return cls(np.array(changes, np.int64), np.array(offsets, np.int64))

    def to_local(self, moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the wall-clock times of UTC moments."""
        return moments + self.offsets[np.searchsorted(self.changes, moments, side="right")]

    def to_utc(self, walls: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the UTC moments of wall-clock times, and which of those do not exist once."""
        before, after = self.offsets[:-1], self.offsets[1:]
        # Between the two offsets of a change a wall-clock time is skipped, or comes twice.
        doubtful_from = np.append(self.changes + np.minimum(before, after), np.iinfo(np.int64).max)
        doubtful_to = self.changes + np.maximum(before, after)
        index = np.searchsorted(doubtful_to, walls, side="right")
        return walls - self.offsets[index], walls >= doubtful_from[index]


def _utc_offset(zone: ZoneInfo, micros: int) -> int:
    offset = from_micros(micros).astimezone(zone).utcoffset() or timedelta()
    return offset // timedelta(microseconds=1)


def _first_second_of_change(zone: ZoneInfo, low: int, high: int) -> int:
    """Return the first second at which the offset is no longer what it is at `low`."""
    offset = _utc_offset(zone, low)
    while high - low > SECOND:
        middle = (low + high) // 2 // SECOND * SECOND
        low, high = (middle, high) if _utc_offset(zone, middle) == offset else (low, middle)
    return high
