"""Trading sessions: when a calendar's exchange is open, minute by minute.

A `Calendar` is a table of sessions in memory, searched by date or by moment; `Session` objects are
made when somebody asks for one. Dates are session labels (trade dates): the session of a Monday may
open on Sunday evening. Moments are UTC microseconds, and spans are half-open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from stream_coord.calendars.overrides import apply_overrides
from stream_coord.calendars.schedule import (
    BREAK_END,
    CLOSE,
    FIRST_DAY,
    LAST_DAY,
    MISSING,
    OPEN,
    POST,
    PRE,
    Schedule,
    day_number,
    installed_versions,
    library_schedule,
    number_day,
)
from stream_coord.errors import CalendarError, near_miss
from stream_coord.interval import DAY, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["pre", "regular", "post"]

HOURS = ("regular", "extended")

_SPANS: tuple[tuple[int, Kind], ...] = (
    (PRE, "pre"),
    (OPEN, "regular"),
    (BREAK_END, "regular"),
    (CLOSE, "post"),
)
"""Which column of `Schedule.edges` begins what; it ends at the next column."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a session without interruption.

    Attributes:
        open: UTC microseconds.
        close: UTC microseconds, exclusive.
        kind: Only ``"regular"`` ones are expected to have a bar in each minute.
    """

    open: int
    close: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session.

    Attributes:
        date: Its label, the trade date.
        segments: What is streamed, chronological: the regular ones (two where there is a break),
            and under ``hours = "extended"`` pre- and post-market. None of them is empty.
    """

    date: date
    segments: tuple[Segment, ...]

    @property
    def regular(self) -> tuple[Segment, ...]:
        """The segments of the regular session; at least one."""
        return tuple(segment for segment in self.segments if segment.kind == "regular")

    @property
    def open(self) -> int:
        """Open of the regular session, UTC microseconds."""
        return self.regular[0].open

    @property
    def close(self) -> int:
        """Close of the regular session, UTC microseconds, exclusive."""
        return self.regular[-1].close

    @property
    def start(self) -> int:
        """Begin of what is streamed, UTC microseconds."""
        return self.segments[0].open

    @property
    def end(self) -> int:
        """End of what is streamed, UTC microseconds, exclusive."""
        return self.segments[-1].close

    def grid(self, interval: Interval) -> NDArray[np.int64]:
        """Return the starts of the base bars of all segments, ascending, UTC microseconds.

        Each segment begins a bar at its open; its last bar may be cut by its close.

        Args:
            interval: The base interval (not ``1d``, which is the whole regular session).
        """
        return np.concatenate(
            [np.arange(part.open, part.close, interval.micros) for part in self.segments]
        )

    def regular_mask(self, interval: Interval) -> NDArray[np.bool_]:
        """Return which bars of `grid` are expected: those of regular segments."""
        kinds = [part.kind == "regular" for part in self.segments]
        bars = [-((part.open - part.close) // interval.micros) for part in self.segments]
        return np.repeat(kinds, bars)


class Calendar:
    """The sessions of one exchange from 1970 to 2100; made by `open_calendar`.

    Attributes:
        name: The library's name for the calendar.
        hours: ``"regular"`` or ``"extended"``: whether pre- and post-market are streamed.
        zone: The exchange's time zone.
        version: The library and its version, for people and run records.
        identity: A hash (32 hex digits) of all that the sessions depend on: name, hours, versions
            of library and time-zone rules, overrides.
    """

    def __init__(
        self, name: str, hours: str, schedule: Schedule, version: str, identity: str
    ) -> None:
        self.name = name
        self.hours = hours
        self.zone = ZoneInfo(schedule.zone)
        self.version = version
        self.identity = identity
        self._days = schedule.days
        self._edges = schedule.edges()
        # Opens and closes alternate, so the parity of the edges passed says whether it is open.
        self._regular_edges = self._edges[:, OPEN:POST].ravel()
        if hours == "regular":
            self._edges[:, PRE] = self._edges[:, OPEN]
            self._edges[:, POST] = self._edges[:, CLOSE]
        self._starts = self._edges[:, PRE].copy()
        self._ends = self._edges[:, POST].copy()

    def __repr__(self) -> str:
        return f"Calendar({self.name!r}, hours={self.hours!r}, version={self.version!r})"

    def session(self, day: date) -> Session:
        """Return the session of a date.

        Raises:
            CalendarError: there is none; names the sessions before and after.
        """
        row = self._row(day)
        if row < len(self._days) and self._days[row] == day_number(day):
            return self._session(row)
        around = (number_day(int(number)) for number in self._days[max(row - 1, 0) : row + 1])
        raise CalendarError(
            f"{self.name} has no session on {day} ({day:%A})",
            f"The nearest sessions: {', '.join(map(str, around)) or 'none at all'}.",
        )

    def sessions(self, first: date, last: date) -> tuple[Session, ...]:
        """Return the sessions of the dates first..last, both included; there may be none.

        Raises:
            CalendarError: a date that no calendar reaches.
        """
        return self._range(self._row(first), self._row(last, after=True))

    def next_session(self, day: date) -> Session:
        """Return the first session after a date.

        Raises:
            CalendarError: there is none.
        """
        row = self._row(day, after=True)
        if row == len(self._days):
            raise CalendarError(f"{self.name} has no session after {day}", _reach())
        return self._session(row)

    def previous_session(self, day: date) -> Session:
        """Return the last session before a date.

        Raises:
            CalendarError: there is none.
        """
        row = self._row(day)
        if row == 0:
            raise CalendarError(f"{self.name} has no session before {day}", _reach())
        return self._session(row - 1)

    def sessions_before(self, day: date, n: int) -> tuple[Session, ...]:
        """Return the `n` sessions before a date, oldest first; fewer where the calendar begins.

        Raises:
            CalendarError: a date that no calendar reaches.
        """
        row = self._row(day)
        return self._range(max(row - n, 0), row)

    def session_at(self, micros: int) -> Session | None:
        """Return the session that is streamed at a moment (``start <= micros < end``), if any.

        A break, and a pause between segments, belongs to its session.
        """
        row = int(np.searchsorted(self._starts, micros, side="right")) - 1
        return self._session(row) if row >= 0 and micros < self._ends[row] else None

    def session_from(self, micros: int) -> Session:
        """Return the session that is under way at a moment, or else the next one.

        Raises:
            CalendarError: there is none.
        """
        row = int(np.searchsorted(self._ends, micros, side="right"))
        if row == len(self._days):
            moment = number_day(micros // DAY)
            raise CalendarError(f"{self.name} has no session after {moment}", _reach())
        return self._session(row)

    def sessions_between(self, start: int, end: int) -> tuple[Session, ...]:
        """Return the sessions whose streamed span overlaps [start, end), UTC microseconds."""
        if end <= start:
            return ()
        return self._range(
            int(np.searchsorted(self._ends, start, side="right")),
            int(np.searchsorted(self._starts, end, side="left")),
        )

    def in_regular(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which bar starts (int64, UTC microseconds, any order) are inside regular hours."""
        passed = np.searchsorted(self._regular_edges, starts, side="right")
        return np.equal(passed % 2, 1)

    def _row(self, day: date, *, after: bool = False) -> int:
        """Return the row of the first session on or after a date; after it if `after`."""
        if not FIRST_DAY <= day <= LAST_DAY:
            raise CalendarError(f"{day} is beyond the calendar", _reach())
        side: Literal["left", "right"] = "right" if after else "left"
        return int(np.searchsorted(self._days, day_number(day), side=side))

    def _range(self, first: int, end: int) -> tuple[Session, ...]:
        return tuple(map(self._session, range(first, end)))

    def _session(self, row: int) -> Session:
        edges = self._edges[row].tolist()
        segments = tuple(
            Segment(edges[edge], edges[edge + 1], kind)
            for edge, kind in _SPANS
            if edges[edge] < edges[edge + 1]
        )
        return Session(number_day(int(self._days[row])), segments)


def _reach() -> str:
    return f"Calendars reach from {FIRST_DAY} to {LAST_DAY}."


def open_calendar(
    name: str,
    hours: str = "regular",
    overrides: Mapping[str, object] | None = None,
    cache_dir: Path | None = None,
) -> Calendar:
    """Open a calendar by its name in pandas-market-calendars.

    Args:
        name: For example ``"NYSE"``, ``"CME_Equity"``, ``"24/7"``.
        hours: ``"regular"``, or ``"extended"`` for pre- and post-market as well.
        overrides: The table ``[calendar.overrides]`` (see `stream_coord.calendars.overrides`).
        cache_dir: Where computed schedules are kept, so that pandas is not imported the next time;
            None for nowhere.

    Raises:
        CalendarError: unknown calendar or hours, no pre- and post-market for ``"extended"``, or a
            wrong override.
    """
    if hours not in HOURS:
        raise CalendarError(
            f"unknown hours {hours!r}{near_miss(hours, HOURS)}", f"Allowed: {', '.join(HOURS)}."
        )
    versions = installed_versions()
    schedule = library_schedule(name, versions, cache_dir)
    if overrides:
        schedule = apply_overrides(schedule, overrides)
    if hours == "extended" and (schedule.times[:, [PRE, POST]] == MISSING).all():
        raise CalendarError(
            f"calendar {name!r} has no pre- or post-market times, so hours cannot be 'extended'",
            'Use hours = "regular", a calendar that has them (NYSE), or calendar.overrides with '
            '"every" = { pre = "04:00", post = "20:00" }.',
        )
    identity = _identity(name, hours, *versions, overrides or {})
    return Calendar(name, hours, schedule, versions.library, identity)


def _identity(*parts: object) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(msgspec.json.encode(parts, order="sorted"))
