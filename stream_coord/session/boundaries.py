"""The states of a session, and when a replayed session passes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stream_coord.calendars import Session


class SessionState(Enum):
    """Where a session stands; the numbers are part of the digest's record layout."""

    NOT_STARTED = 0
    PRE_MARKET = 1
    ACTIVE = 2
    POST_MARKET = 3
    ENDED = 4


@dataclass(frozen=True, slots=True)
class StateChange:
    """A session passes from one state to another.

    Attributes:
        time: When, UTC microseconds.
        left: The state that ends.
        entered: The state that begins.
    """

    time: int
    left: SessionState
    entered: SessionState


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
