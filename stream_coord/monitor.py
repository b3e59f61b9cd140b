"""Looking after a session store that a feed fills: its time, its gaps, its states, its roll.

A replay knows when each of these is due. Here somebody has to look, again and again, at a clock:
`SessionMonitor.look` does it once, and `SessionMonitor.start` has a thread do it::

    data = SessionData(symbols, calendar.next_session(yesterday))
    with SessionMonitor(data, calendar, SystemClock(), SystemTimer(), MonitorSettings()):
        for symbol, start, values in feed:
            data.add_bar(symbol, start, values)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, RLock, Thread, current_thread
from typing import TYPE_CHECKING, Self

import numpy as np

from stream_coord.ahead import Errands
from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock, Timer
from stream_coord.errors import SessionStoreError
from stream_coord.interval import MINUTE
from stream_coord.session.boundaries import Boundaries, SessionState, StateChange, roll_time
from stream_coord.session.data import SessionData
from stream_coord.strategy import describe
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.feeding import FeedKeeper, at_once

if TYPE_CHECKING:
    from stream_coord.compute.quality import GapRow
    from stream_coord.upkeep.asking import Answers

_LONGEST_WAIT_SECONDS = 5.0
"""So long a look of the thread waits for sources; what they answer later, a later look takes.

A roll does not wait for it.
"""


@dataclass(frozen=True)
class MonitorSettings:
    """How a session store is looked after.

    Attributes:
        timeout_micros: How long no bar of any symbol may come while the session is active.
        check_micros: The longest time from one look of the thread to the next.
        roll_delay_micros: How long after its close a session is rolled.
        auto_roll: Whether sessions are rolled at all.
        upkeep: How missing minutes are looked after; None: not at all.
        expected: The symbols that are held to account for missing minutes; None: all.
    """

    timeout_micros: int = 5 * MINUTE
    check_micros: int = MINUTE
    roll_delay_micros: int = 30 * MINUTE
    auto_roll: bool = True
    upkeep: Upkeep | None = None
    expected: Collection[str] | None = None


class SessionMonitor:
    """Looks after a session store that a feed fills.

    At each look bars that have ended become visible, upkeep does what is due, changes of the
    session's state are told, and the session is rolled when it is time. All that is due since the
    last look is done, session by session, however long ago that was.

    The feed adds bars from any thread meanwhile, and leaves the store's time to the monitor. What
    a callback or upkeep raises puts the session into ERROR: all goes on but the roll, until a
    person calls `clear_error`.

    Used as a context manager it looks from a thread inside the ``with``.

    Args:
        data: The session store.
        calendar: Says which session follows.
        clock: The time.
        timer: Lets the thread sleep; nobody else may use it.
        settings: How it is looked after.
        on_state: Told of each change, such as `Strategy.on_state`.
        on_change: Told first, with the session, such as what writes the ledger.
    """

    def __init__(
        self,
        data: SessionData,
        calendar: Calendar,
        clock: Clock,
        timer: Timer,
        settings: MonitorSettings,
        on_state: Callable[[StateChange], None] = lambda _: None,
        on_change: Callable[[Session, StateChange], None] = lambda _, __: None,
    ) -> None:
        self._data = data
        self._calendar = calendar
        self._clock = clock
        self._timer = timer
        self._settings = settings
        self._on_state = on_state
        self._on_change = on_change
        self._looking = Lock()  # held for a whole look
        self._changing = RLock()  # held while the state changes and that is told
        self._errands = Errands()
        self._ask: Callable[[Callable[[], Answers]], Future[Answers]] = at_once
        self._thread: Thread | None = None
        self._stopped = False
        self._now = clock.now()
        self._begin()

    # -- what is known -------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """Where the session stood at the last look."""
        return self._boundaries.state

    @property
    def cause(self) -> str | None:
        """What went wrong, while the state is ERROR."""
        return self._boundaries.cause

    def gaps(self) -> list[GapRow]:
        """Return what upkeep knows of the current session's minutes without a bar of the feed.

        From any thread, and from callbacks: when a session is told to have ended, all is known of
        it that was known at its last check so far.
        """
        keeper = self._keeper
        return keeper.gaps() if keeper else []

    # -- looking -------------------------------------------------------------------------------

    def look(self) -> list[StateChange]:
        """Do all that is due by now, and return the changes of state, in order.

        Callbacks must not call it.
        """
        with self._looking:
            self._now = self._time()
            changes = self._catch_up()
            while self._roll(changes):
                changes += self._catch_up()
            return changes

    def next_look(self) -> int:
        """Return when something is due next, UTC microseconds; `check_micros` later at most."""
        ends = self._data._pristine.base.ends
        coming = ends[np.searchsorted(ends, self._now, "right") :]
        due: list[int | None] = [
            self._boundaries.next_change(),
            self._keeper.next_check if self._keeper else None,
            self._roll_time if self._settings.auto_roll else None,
            *coming[:1].tolist(),
        ]
        later = [time for time in due if time is not None and time > self._now]
        return min([*later, self._now + self._settings.check_micros])

    def flag_error(self, cause: str) -> None:
        """Put the session into ERROR, which is told at once; from any thread.

        Where it is in ERROR already, nothing happens.
        """
        self._fail(cause)

    def clear_error(self) -> None:
        """Let the session leave ERROR for the state it is in by now; from any thread.

        Where it is in no ERROR, nothing happens. A roll that is due comes with the next look.
        """
        with self._changing:
            self._hear()
            change = self._boundaries.clear(self._time())
            self._tell([change] if change else [])

    # -- the thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Look from a thread of its own, whenever something is due.

        Raises:
            SessionStoreError: it was started, or stopped, before.
        """
        if self._thread or self._stopped:
            raise SessionStoreError(
                "a session monitor runs only once", "Make another one of the same session store."
            )
        self._ask = self._ask_beside
        self._thread = Thread(target=self._look_on, name="sc-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, and return when the thread has ended; nobody waits for a source.

        From a callback it returns at once, and the thread ends after it.
        """
        self._stopped = True
        self._errands.abandon()
        self._timer.wake()
        if self._thread not in (None, current_thread()):
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _look_on(self) -> None:
        with suppress(KeyboardInterrupt):  # this was stopped, or the session store
            while not self._stopped:
                self.look()
                self._timer.sleep(max(self.next_look() - self._clock.now(), 0) / 1e6)

    def _ask_beside(self, work: Callable[[], Answers]) -> Future[Answers]:
        """Ask in another thread, and wait for the answer only so long that looks go on."""
        future = self._errands.start(work)
        wait([future], _LONGEST_WAIT_SECONDS)
        return future

    # -- one look ------------------------------------------------------------------------------

    def _time(self) -> int:
        """Return the clock's time; it stands still while a clock that was set back catches up."""
        return max(self._now, self._clock.now())

    def _begin(self) -> None:
        """Turn to the session that the store has now."""
        session = self._data.session
        following = self._calendar.next_session(session.date)
        self._boundaries = Boundaries(session, self._settings.timeout_micros)
        self._following = following
        self._roll_time = roll_time(session, following, self._settings.roll_delay_micros)
        self._keeper: FeedKeeper | None = None

    def _catch_up(self) -> list[StateChange]:
        """Bring the session up to now, and return the changes of its state."""
        changes = []
        if self._data.session != self._boundaries.session:
            changes += self._follow()
        causes: list[str] = []
        with _caught("upkeep", causes):
            self._look_after()
        with self._changing:
            self._hear()
            changes += self._tell(self._boundaries.at(self._now))
            return changes + (self._fail(causes[0]) if causes else [])

    def _follow(self) -> list[StateChange]:
        """Turn to a session that somebody else has begun; an error is not over by that."""
        with self._changing:
            changes = self._tell(self._boundaries.at(self._now))
            cause = self._boundaries.cause
            self._begin()
            return changes + (self._fail(cause) if cause else [])

    def _look_after(self) -> None:
        """Show what has ended, and let upkeep do what is due."""
        data, shown = self._data, min(self._now, self._boundaries.session.end)
        if shown > data.now:
            data.advance_to(shown)
        upkeep, expected = self._settings.upkeep, self._settings.expected
        if upkeep is None:
            return
        if self._keeper is None:
            self._keeper = FeedKeeper(upkeep, data, self._roll_time, expected, self._ask)
        check = self._keeper.next_check
        if check is not None and check <= self._now:
            self._keeper.check(self._now)

    def _roll(self, changes: list[StateChange]) -> bool:
        """Go on to the next session if it is time; return whether that was done."""
        with self._changing:
            due = self._settings.auto_roll and self._now >= self._roll_time
            if self._stopped or not due or self._boundaries.state is not SessionState.ENDED:
                return False
            causes: list[str] = []
            with _caught("the roll", causes):
                self._data.roll_session(self._following)
                self._begin()
            changes += self._fail(causes[0]) if causes else []
            return not causes

    # -- the state -----------------------------------------------------------------------------

    def _hear(self) -> None:
        if (newest := self._data.newest_end) is not None:
            self._boundaries.data(newest)

    def _tell(self, changes: list[StateChange]) -> list[StateChange]:
        """Tell of changes; return them, and the one to ERROR if somebody would not be told."""
        session, causes = self._boundaries.session, list[str]()
        for change in changes:
            with _caught("on_change", causes):
                self._on_change(session, change)
            with _caught("on_state", causes):
                self._on_state(change)
        return changes + (self._fail(causes[0]) if causes else [])

    def _fail(self, cause: str) -> list[StateChange]:
        with self._changing:
            change = self._boundaries.fail(self._time(), cause)
            return self._tell([change]) if change else []


@contextmanager
def _caught(what: str, causes: list[str]) -> Iterator[None]:
    """Note what is raised inside, whatever it is; Ctrl-C goes on."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - polars panics and sys.exit() are no Exceptions
        causes.append(f"{what} raised {describe(error)}")
