"""A session store that rolls from session to session, its bars made beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.sample import BASE
from stream_coord.calendars import Session
from stream_coord.interval import Interval
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData
from stream_coord.session.series import Series, Trailing

TRAILING = 5


class Rolling:
    """A session store whose window is full: five sessions of history, and today.

    Args:
        bars: The bars of one session. All sessions have the same, so that they are quickly there.
        sessions: The sessions, as long as that one: those of the window, and those that follow.
        derived: The intervals to derive.

    Attributes:
        data: The session store.
        series: What it reads.
    """

    def __init__(
        self, bars: Block, sessions: Sequence[Session], derived: Sequence[Interval]
    ) -> None:
        window, self._coming = sessions[: TRAILING + 1], iter(sessions[TRAILING + 1 :])
        self._bars = bars
        self.series = Series.empty(bars.symbols, window, BASE, derived, Trailing(TRAILING))
        for first in self.series.base.slots.firsts:
            self._put(self.series, first)
        self.series.derive_from(0)
        self.data = SessionData(bars.symbols, window[-1], BASE, derived, TRAILING)
        self.data.start_session(window[-1], self.series)

    def fill_memory(self) -> None:
        """Leave no room to slide over, so that what follows is copied."""
        self.series = self.series.copy()
        self.data.start_session(self.data.session, self.series)

    def ready(self, rescaled: Iterable[tuple[int, float]] = ()) -> tuple[Session, Series]:
        """Return the next session and its series, ready to roll to."""
        session = next(self._coming)
        following = self.series.following(session, rescaled=rescaled)
        today = following.base.today
        self._put(following, today)
        following.derive_from(today)
        self.series = following
        return session, following

    def roll(self, times: int) -> None:
        """Roll so many times."""
        for _ in range(times):
            self.data.roll_session(*self.ready())

    def _put(self, series: Series, first: int) -> None:
        part = series.base.planes.part(first, first + len(self._bars.starts))
        part.take(self._bars.planes, slice(None))
