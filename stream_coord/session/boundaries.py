"""The states of a session, and when it passes from one to the next.

A session goes NOT_STARTED -> PRE_MARKET -> ACTIVE -> POST_MARKET -> ENDED as its calendar says.
While it is active it is silent, TIMEOUT, once no bar of any symbol has come for a while, and active
again when bars come. ERROR needs a person, who clears it.

Silence is counted in trading time, from the open or from the end of the newest bar: a break within
the regular hours is no change of state, and the time of it does not count. At the close TIMEOUT
ends, as ACTIVE does.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_coord.calendars import Session


class SessionState(Enum):
    """Where a session stands; the numbers are part of the digest's record layout."""

    NOT_STARTED = 0
    PRE_MARKET = 1
    ACTIVE = 2
    POST_MARKET = 3
    ENDED = 4
    TIMEOUT = 5
    ERROR = 6


@dataclass(frozen=True, slots=True)
class StateChange:
    """A session passes from one state to another.

    Attributes:
        time: When, UTC microseconds.
        left: The state that ends.
        entered: The state that begins.
        cause: What went wrong, where ERROR begins.
    """

    time: int
    left: SessionState
    entered: SessionState
    cause: str | None = None


def planned_changes(session: Session) -> tuple[StateChange, ...]:
    """Return the changes that the calendar foresees for a session, in order of time.

    Pre- and post-market states exist where the session streams such segments. A break within the
    regular hours is no change: the session stays active.
    """
    entries = [(session.open, SessionState.ACTIVE)]
    if session.start < session.open:
        entries.insert(0, (session.start, SessionState.PRE_MARKET))
    if session.end > session.close:
        entries.append((session.close, SessionState.POST_MARKET))
    entries.append((session.end, SessionState.ENDED))
    left = SessionState.NOT_STARTED
    changes = []
    for time, entered in entries:
        changes.append(StateChange(time, left, entered))
        left = entered
    return tuple(changes)


def state_changes(
    session: Session, data_ends: NDArray[np.int64], timeout_micros: int
) -> tuple[StateChange, ...]:
    """Return all changes of a session whose bars are known, in order of time.

    TIMEOUT begins at the very moment at which the silence has lasted `timeout_micros`, unless a bar
    ends then, and ends with the next bar.

    Args:
        session: The session.
        data_ends: When a bar of any symbol ends, UTC microseconds, ascending; int64, shape (N,).
        timeout_micros: How long silence may last.
    """
    planned = planned_changes(session)
    opened, close = session.open, session.close
    first, stop = np.searchsorted(data_ends, opened, "right"), np.searchsorted(data_ends, close)
    heard = np.concatenate(([opened], data_ends[first:stop], [close]))
    deadlines = _deadlines(session, heard[:-1], timeout_micros)
    silent = np.flatnonzero(deadlines < heard[1:])
    if not len(silent):
        return planned
    silences = []
    for begin, end in zip(deadlines[silent].tolist(), heard[silent + 1].tolist(), strict=True):
        silences.append(StateChange(begin, SessionState.ACTIVE, SessionState.TIMEOUT))
        silences.append(StateChange(end, SessionState.TIMEOUT, SessionState.ACTIVE))
    at = 1 + [change.entered for change in planned].index(SessionState.ACTIVE)
    closing = planned[at]
    if silences[-1].time == close:
        silences.pop()
        closing = replace(closing, left=SessionState.TIMEOUT)
    return *planned[:at], *silences, closing, *planned[at + 1 :]


class Boundaries:
    """The state of a session that is under way, for whoever has a clock.

    It knows what it is told, and when: planned changes have the calendar's time however late it
    hears of them, but silence, and its end, are seen when somebody looks. Looked at each minute,
    and at each `next_change`, it goes through what `state_changes` returns. In ERROR time passes
    and nothing changes, until that is cleared.

    Not for several threads at a time.

    Args:
        session: The session.
        timeout_micros: How long silence may last.

    Attributes:
        session: As given.
        state: Where the session stood when it was last looked at.
        cause: What went wrong, while that is ERROR.
    """

    def __init__(self, session: Session, timeout_micros: int) -> None:
        self.session = session
        self.state = SessionState.NOT_STARTED
        self.cause: str | None = None
        self._timeout_micros = timeout_micros
        self._planned = planned_changes(session)
        self._times = [change.time for change in self._planned]
        self._passed = 0  # so many of the planned changes
        self._heard = session.open
        self._deadline = self._deadline_after(session.open)

    def data(self, end: int) -> None:
        """Hear that a bar of any symbol has come, which ends at `end` (UTC microseconds)."""
        if end > self._heard:
            self._heard = end
            self._deadline = self._deadline_after(end)

    def at(self, now: int) -> list[StateChange]:
        """Look what has changed by `now` (UTC microseconds), and return it in order of time."""
        if self.state is SessionState.ERROR:
            return []
        passed, self._passed = self._passed, max(self._passed, bisect_right(self._times, now))
        changes = [
            self._enter(planned.entered, planned.time)
            for planned in self._planned[passed : self._passed]
        ]
        if self._standing(now) is not self.state:
            changes.append(self._enter(self._standing(now), now))
        return changes

    def fail(self, now: int, cause: str) -> StateChange | None:
        """Enter ERROR; None if the session is in ERROR already: the first cause stays."""
        if self.state is SessionState.ERROR:
            return None
        return self._enter(SessionState.ERROR, now, cause)

    def clear(self, now: int) -> StateChange | None:
        """Leave ERROR for the state in which the session stands by now; None if it is in none."""
        if self.state is not SessionState.ERROR:
            return None
        self._passed = max(self._passed, bisect_right(self._times, now))
        return self._enter(self._standing(now), now)

    def next_change(self) -> int | None:
        """Return when the state changes next if no bar comes, UTC microseconds; None: never."""
        if self.state is SessionState.ERROR:
            return None
        times = self._times[self._passed : self._passed + 1]
        if self.state is SessionState.ACTIVE:
            times.append(self._deadline)
        return min(times, default=None)

    def _standing(self, now: int) -> SessionState:
        """Return the state in which the session is, but for ERROR."""
        if not self._passed:
            return SessionState.NOT_STARTED
        planned = self._planned[self._passed - 1].entered
        silent = planned is SessionState.ACTIVE and now >= self._deadline
        return SessionState.TIMEOUT if silent else planned

    def _enter(self, state: SessionState, time: int, cause: str | None = None) -> StateChange:
        change = StateChange(time, self.state, state, cause)
        self.state, self.cause = state, cause
        return change

    def _deadline_after(self, heard: int) -> int:
        return int(_deadlines(self.session, np.array([heard]), self._timeout_micros)[0])


def roll_time(session: Session, following: Session, delay_micros: int) -> int:
    """Return when a session is rolled by itself, UTC microseconds.

    That is some time after its close, but not before all of it has been streamed, and not after
    the next session has begun.
    """
    return min(max(session.close + delay_micros, session.end), following.start)


def _deadlines(
    session: Session, since: NDArray[np.int64], timeout_micros: int
) -> NDArray[np.int64]:
    """Return when so much trading time has passed since some moments, were there no close."""
    until = since + timeout_micros
    for before, after in pairwise(session.regular):
        pause = after.open - np.maximum(since, before.close)
        until += np.where((since < after.open) & (until > before.close), pause, 0)
    return until
