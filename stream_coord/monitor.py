"""Looking after a session store that a feed fills: its time, its gaps, its states, its roll.

A replay knows when each of these is due. Here somebody has to look, again and again, at a clock:
`SessionMonitor.look` does it once, and `SessionMonitor.start` has a thread do it::

    data = SessionData(symbols, calendar.next_session(yesterday))
    with SessionMonitor(data, calendar, SystemClock(), SystemTimer(), MonitorSettings()):
        for symbol, start, values in feed:
            data.add_bar(symbol, start, values)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
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
    from stream_coord.stores.ledger import Disagreement, SourceCall
    from stream_coord.upkeep.asking import Answers

_LONGEST_WAIT_SECONDS = 5.0
"""So long a look of the thread waits for sources; what they answer later, a later look takes.

A roll waits no longer, and goes on without that.
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
        on_asked: Told at each look who was asked for bars since the last one, and of which minutes
            sources have different ones; not where nobody was asked.
    """

    timeout_micros: int = 5 * MINUTE
    check_micros: int = MINUTE
    roll_delay_micros: int = 30 * MINUTE
    auto_roll: bool = True
    upkeep: Upkeep | None = None
    expected: Collection[str] | None = None
    on_asked: Callable[[Sequence[SourceCall], Sequence[Disagreement]], None] = lambda _, __: None


class SessionMonitor:
    """Looks after a session store that a feed fills.

    At each look bars that have ended become visible, upkeep does what is due, changes of the
    session's state are told, and the session is rolled when it is time. All that is due since the
    last look is done, session by session, however long ago that was. The order is that of a
    replay: while upkeep waits for a source, which the thread does for some seconds at most, what
    has changed is not told yet.

    The feed adds bars from any thread meanwhile, and leaves the store's time to the monitor. What
    a callback or upkeep raises puts the session into ERROR: all goes on but the roll, until a
    person calls `clear_error`. A roll that is due waits for that, and until then the next session's
    bars are out of session: the store does not take them.

    Changes are told in order, one at a time, by the thread that looks or flags; where another one
    is telling just then, that one goes on with these. Nothing is locked meanwhile. A callback may
    do anything but `look` and `clear_error`; what it changes is told next.

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
        self._looker: Thread | None = None
        self._changing = RLock()  # held while the state changes, not while that is told
        self._untold: deque[tuple[Session, StateChange]] = deque()
        self._teller: Thread | None = None
        self._changes: list[StateChange] = []  # since the last look began
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
        """Do all that is due by now, and return the changes of state meanwhile, in order.

        They have been told, unless another thread is at it. Callbacks must not call it.
        """
        with self._looking:
            self._looker = current_thread()
            try:
                with self._changing:
                    self._changes = []
                    now = self._time()
                self._catch_up(now)
                while self._roll(now):
                    self._catch_up(now)
                return [*self._changes]
            finally:
                self._looker = None

    def next_look(self) -> int:
        """Return when something is due next, UTC microseconds; `check_micros` from now at most."""
        ends = self._data._pristine.base.ends
        coming = ends[np.searchsorted(ends, self._now, "right") :]
        due: list[int | None] = [
            self._boundaries.next_change(),
            self._keeper.next_check if self._keeper else None,
            self._roll_time if self._settings.auto_roll else None,
            *coming[:1].tolist(),
        ]
        later = [time for time in due if time is not None and time > self._now]
        # A clock that was set back is no reason to sleep until it has caught up.
        return min([*later, min(self._now, self._clock.now()) + self._settings.check_micros])

    def flag_error(self, cause: str) -> None:
        """Put the session into ERROR, which is told at once; from any thread.

        Where it is in ERROR already, nothing happens.
        """
        with self._change():
            self._fail(cause)

    def clear_error(self) -> None:
        """Let the session leave ERROR for the state it is in by now; from any thread.

        Where it is in no ERROR, nothing happens. A roll that is due comes with the next look.

        Raises:
            SessionStoreError: a callback called it, in which the error may come back at once.
        """
        if self._teller is current_thread():
            raise SessionStoreError(
                "a callback cannot clear an error", "It needs a person: clear it from elsewhere."
            )
        with self._change():
            self._hear()
            self._note(self._boundaries.clear(self._time()))

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

        From a callback of a look it returns at once, and the thread ends after it.
        """
        self._stopped = True
        self._errands.abandon()
        self._timer.wake()
        # Who is in the middle of a look may be what the thread waits for.
        if self._thread is not None and current_thread() not in (self._thread, self._looker):
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
                pause = self.next_look() - self._clock.now()
                self._timer.sleep(min(max(pause, 0), self._settings.check_micros) / 1e6)

    def _ask_beside(self, work: Callable[[], Answers]) -> Future[Answers]:
        """Ask in another thread, and wait for the answer only so long that looks go on."""
        future = self._errands.start(work)
        wait([future], _LONGEST_WAIT_SECONDS)
        return future

    # -- one look ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Turn to the session that the store has now; without one that follows it does not roll."""
        session = self._data.session
        self._boundaries = Boundaries(session, self._settings.timeout_micros)
        self._keeper: FeedKeeper | None = None
        self._roll_time: int | None = None
        self._following = self._calendar.next_session(session.date)
        self._roll_time = roll_time(session, self._following, self._settings.roll_delay_micros)

    def _catch_up(self, now: int) -> None:
        """Bring the session up to a time, and tell what has changed."""
        if self._data.session != self._boundaries.session:
            self._follow()
        causes: list[str] = []
        with _caught("upkeep", causes):
            self._look_after(now)
        with _caught("on_asked", causes):
            self._tell_who_was_asked()
        with self._change():
            self._hear()
            self._note(*self._boundaries.at(self._now))
            self._fail(*causes)

    def _follow(self) -> None:
        """Turn to a session that has begun since; an error is not over by that."""
        with self._change():
            self._note(*self._boundaries.at(self._now))
        with self._change():
            causes = [self._boundaries.cause] if self._boundaries.cause else []
            with _caught("the calendar", causes):
                self._begin()
            self._fail(*causes)

    def _look_after(self, now: int) -> None:
        """Show what has ended, and let upkeep do what is due."""
        data, session = self._data, self._boundaries.session
        shown = min(now, session.end)
        if shown > data.now:
            data.advance_to(shown)
        upkeep, expected = self._settings.upkeep, self._settings.expected
        if upkeep is None:
            return
        if self._keeper is None:
            last = self._roll_time or session.end
            self._keeper = FeedKeeper(upkeep, data, last, expected, self._ask)
        check = self._keeper.next_check
        # Somebody may have rolled meanwhile: the next look follows.
        if check is not None and check <= now and self._keeper.session == session:
            self._keeper.check(now)

    def _tell_who_was_asked(self) -> None:
        """Hand on what would pile up otherwise."""
        upkeep, keeper = self._settings.upkeep, self._keeper
        calls = upkeep.enquirer.take_calls() if upkeep and upkeep.enquirer else []
        disagreements = keeper.take_disagreements() if keeper else []
        if calls or disagreements:
            self._settings.on_asked(calls, disagreements)

    def _roll(self, now: int) -> bool:
        """Go on to the next session if it is time; return whether there is another one now."""
        data, causes = self._data, list[str]()
        with self._change():
            session = self._boundaries.session
            at = self._roll_time if self._settings.auto_roll else None
            due = at is not None and now >= at
            # Not while another thread tells of this session, whose gaps may be asked for.
            told = not (self._untold or self._teller)
            ended = self._boundaries.state is SessionState.ENDED
            if due and told and ended and not self._stopped and data.session == session:
                with _caught("the roll", causes):
                    data.roll_session(self._following)
            if data.session != session:  # even if that was somebody else, who was quicker
                return True
            self._fail(*causes)
            return False

    # -- the state -----------------------------------------------------------------------------

    def _time(self) -> int:
        """Return the clock's time; it stands still while a clock that was set back catches up.

        With the lock: a change is never earlier than the one before it.
        """
        self._now = max(self._now, self._clock.now())
        return self._now

    def _hear(self) -> None:
        if (newest := self._data.newest_end) is not None:
            self._boundaries.data(newest)

    def _note(self, *changes: StateChange | None) -> None:
        """Note changes that are to be told; with the lock."""
        for change in changes:
            if change is not None:
                self._changes.append(change)
                self._untold.append((self._boundaries.session, change))

    def _fail(self, *causes: str) -> None:
        """Enter ERROR for the first of some causes, if there is one; with the lock."""
        if causes:
            self._note(self._boundaries.fail(self._time(), causes[0]))

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Let the state change inside, with the lock, and tell of it when that is released."""
        with self._changing:
            yield
        while self._tell():
            pass

    def _tell(self) -> bool:
        """Tell of the oldest change that is untold; not if anybody is telling, and will go on."""
        with self._changing:
            if self._teller or not self._untold:
                return False
            self._teller = current_thread()
            session, change = self._untold.popleft()
        causes: list[str] = []
        try:
            with _caught("on_change", causes):
                self._on_change(session, change)
            with _caught("on_state", causes):
                self._on_state(change)
            with self._changing:
                self._fail(*causes)
        finally:
            self._teller = None
        return True


@contextmanager
def _caught(what: str, causes: list[str]) -> Iterator[None]:
    """Note what is raised inside, whatever it is; Ctrl-C goes on."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - polars panics and sys.exit() are no Exceptions
        causes.append(f"{what} raised {describe(error)}")
