"""Which sessions and which symbols a replay or a report is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from stream_coord.calendars import Calendar, Session
from stream_coord.clock import from_micros, parse_date
from stream_coord.errors import CalendarError, NoBarsError, UsageError, near_miss
from stream_coord.interval import Interval
from stream_coord.session.block import Bools
from stream_coord.stores.base import BarStore

_NAMED = 5
"""Symbols that a note names before it counts the rest."""


@dataclass(frozen=True)
class Universe:
    """The symbols of a run, and in which sessions each is held to account.

    A symbol that the user lists is expected in every session. One that is merely in the store is
    expected from its first stored bar to its last.

    Attributes:
        symbols: Sorted by code point.
        first: Start of each symbol's first stored bar, UTC microseconds; None: all are listed.
        last: Start of each symbol's last stored bar; None: all are listed.
        notes: What a user should know about the choice, a sentence each.
    """

    symbols: tuple[str, ...]
    first: tuple[int, ...] | None = None
    last: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    def symbols_in(self, session: Session) -> tuple[str, ...]:
        """Return the symbols that a session has: none that first trades later in the run.

        What a strategy sees on a day must not depend on how far the run goes on.
        """
        if self.first is None:
            return self.symbols
        pairs = zip(self.symbols, self.first, strict=True)
        return tuple(symbol for symbol, first in pairs if first < session.end)

    def expected_in(self, session: Session) -> Bools:
        """Return which of `symbols_in` are expected in a session; bool, shape (S,)."""
        if self.first is None or self.last is None:
            return np.ones(len(self.symbols), np.bool_)
        known = np.array(self.first, np.int64) < session.end
        return (np.array(self.last, np.int64) >= session.start)[known]


def choose_sessions(
    calendar: Calendar, store: BarStore, interval: Interval, first: date | None, last: date | None
) -> tuple[Session, ...]:
    """Return the sessions of first..last; a missing end means the first or last stored session.

    Raises:
        UsageError: `first` is after `last`.
        NoBarsError: an end is open and the store is empty.
        CalendarError: the calendar has no session in that range.
    """
    if first is None or last is None:
        stored = _stored(calendar, store, interval)
        first = first or min(stored[0].date, last or stored[0].date)
        last = last or max(stored[-1].date, first)
    if first > last:
        raise UsageError(f"the range {first} to {last} is empty", "Give the earlier date first.")
    sessions = calendar.sessions(first, last)
    if not sessions:
        raise CalendarError(
            f"{calendar.name} has no session from {first} to {last}",
            f"The next one is on {calendar.next_session(last).date}.",
        )
    return sessions


def current_session(
    calendar: Calendar, store: BarStore, interval: Interval, cursor: str | None
) -> Session:
    """Return the current session: where the cursor is, at first the oldest stored one.

    Args:
        calendar: The calendar.
        store: Where the bars are; not asked where there is a cursor.
        interval: Their interval.
        cursor: The date of the cursor's session, ``YYYY-MM-DD``; None: it was never moved.

    Raises:
        CalendarError: the calendar has no session where the cursor is.
        NoBarsError: there is no cursor, and the store is empty.
    """
    if cursor is None:
        return _stored(calendar, store, interval)[0]
    try:
        return calendar.session(parse_date(cursor))
    except CalendarError as error:
        raise CalendarError(
            f"the current session is {cursor}, as `sc roll` left it, but {error.message}",
            "Take back what has changed in [calendar] since then, or add the session with "
            f"calendar.overrides. {error.hint}",
        ) from error


def next_to_replay(
    calendar: Calendar, store: BarStore, interval: Interval, cursor: str | None = None
) -> Session:
    """Return the session after the current one; arguments and errors as `current_session`."""
    return calendar.next_session(current_session(calendar, store, interval, cursor).date)


def _stored(calendar: Calendar, store: BarStore, interval: Interval) -> tuple[Session, ...]:
    sessions = stored_sessions(calendar, store, interval)
    if not sessions:
        raise NoBarsError(
            f"the store {store.url} holds no {interval} bars of any session",
            "Import some with `sc import`.",
        )
    return sessions


def stored_sessions(calendar: Calendar, store: BarStore, interval: Interval) -> tuple[Session, ...]:
    """Return the sessions from the oldest to the newest that the store has bars of."""
    spans = store.spans(interval)
    if spans.is_empty():
        return ()
    return calendar.sessions_between(
        min(spans["first"].to_list()), max(spans["last"].to_list()) + 1
    )


def choose_universe(
    store: BarStore, interval: Interval, sessions: Sequence[Session], listed: Sequence[str]
) -> Universe:
    """Return the symbols of a run: the listed ones, or those that the store has bars of then.

    Raises:
        NoBarsError: nothing is listed, and the store has no symbol with bars in these sessions.
    """
    if listed:
        symbols = tuple(sorted(set(map(str, listed))))
        return Universe(symbols, notes=_unknown_symbols(store, interval, sessions, symbols))
    spans = store.spans(interval)
    start, end = sessions[0].start, sessions[-1].end
    inside = spans.filter((spans["first"] < end) & (spans["last"] >= start))
    if inside.is_empty():
        raise NoBarsError(
            f"the store {store.url} holds no {interval} bars of "
            f"{sessions[0].date} to {sessions[-1].date}",
            _what_is_stored(store, interval),
        )
    return Universe(
        tuple(inside["symbol"].to_list()),
        tuple(inside["first"].to_list()),
        tuple(inside["last"].to_list()),
        _gone_symbols(spans.filter(spans["last"] < start)["symbol"].to_list(), sessions[0].date),
    )


def _unknown_symbols(
    store: BarStore, interval: Interval, sessions: Sequence[Session], listed: Sequence[str]
) -> tuple[str, ...]:
    first, last = from_micros(sessions[0].start).date(), from_micros(sessions[-1].end).date()
    absent = set(listed) - set(store.versions(interval, first, last, listed)["symbol"])
    if not absent:  # the rule, and spared a look at the whole store
        return ()
    stored = store.spans(interval)["symbol"].to_list()
    unknown = sorted(absent - set(stored))
    if len(unknown) > _NAMED:
        return (f"The store has no bars at all of {_some(unknown)}.",)
    return tuple(
        f"The store has no bars at all of {symbol}"
        f"{near_miss(symbol, stored) or near_miss(symbol.upper(), stored)}."
        for symbol in unknown
    )


def _gone_symbols(gone: Sequence[str], before: date) -> tuple[str, ...]:
    if not gone:
        return ()
    return (
        f"Left out, because their stored bars end before {before}: {_some(gone)}. "
        "List symbols in the settings or with --symbols to hold them to account.",
    )


def _some(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _NAMED:,} more" if len(symbols) > _NAMED else ""
    return ", ".join(symbols[:_NAMED]) + more


def _what_is_stored(store: BarStore, interval: Interval) -> str:
    days = store.days(interval)
    if not days:
        return "It holds none at all: import some with `sc import`."
    return f"It holds bars of {days[0]} to {days[-1]} (UTC dates)."
