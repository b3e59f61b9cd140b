"""Bars handed from the replay's thread to event loops that wait for them.

The replay calls `Subscriptions.publish` at the end of every minute; ``async for bar in
subscription`` takes the bars out in an event loop of another thread. How the two keep pace:

At full speed they go in step: the replay holds still after each minute until every reader has
taken its bars of that minute and waits for the next one. What a reader finds in the session store
is therefore the state at its bar's end, never a later one.

In a paced run the clock waits for nobody: each reader has a queue of limited size; when it is
full the oldest bar is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, get_ident
from typing import TYPE_CHECKING

from stream_coord.bars import Bar
from stream_coord.clock import format_moment
from stream_coord.errors import SessionStoreError, near_miss
from stream_coord.interval import Interval

if TYPE_CHECKING:
    import asyncio  # slow to import, and a replay without subscribers needs none of it

DEFAULT_QUEUE_BARS = 1024
"""Bars that a reader of a paced run may lag behind before it loses the oldest."""

_LOOK_AROUND_SECONDS = 0.25
"""How often a replay that is held up looks whether the reader's event loop is gone."""


class Subscriptions:
    """All who wait for the bars of one session store.

    Args:
        symbols: Returns the symbols of the current session.
        interval: The base interval.
        activate: Has the bars of another interval derived, or raises.

    Attributes:
        paced: Whether the run is paced; False: the replay and its readers go in step.
        later: Symbols that a later session brings. Who sets a run up may subscribe to them; once
            it has begun nobody may, since that would tell what is still to come.
    """

    def __init__(
        self,
        symbols: Callable[[], Sequence[str]],
        interval: Interval,
        activate: Callable[[Interval], None],
    ) -> None:
        self.paced = False
        self.later: Sequence[str] = ()
        self._symbols = symbols
        self._interval = interval
        self._activate = activate
        # Its lock is reentrant, because the garbage collector may close a reader at any moment,
        # also in a thread that is in here. Who closes one changes nothing else, for that reason.
        self._changed = Condition()
        self._readers: tuple[_Reader, ...] = ()
        self._replay_thread: int | None = None
        self._closed = False

    @property
    def active(self) -> bool:
        """Whether somebody waits for bars, so that minutes must be published."""
        return bool(self._present())

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The derived intervals whose bars somebody waits for, shorter ones first."""
        wanted = {reader.interval for reader in self._present()}
        return tuple(sorted(wanted - {self._interval}))

    def subscribe(
        self, symbol: str, interval: Interval | str, queue_bars: int = DEFAULT_QUEUE_BARS
    ) -> Subscription:
        """Return a subscription to one symbol's bars; see `Subscription`.

        Args:
            symbol: A symbol of the current session; before a replay begins, of any of its sessions.
            interval: The base interval, or one to derive; it is activated.
            queue_bars: How far a paced run may get ahead of a reader, in bars; at least 1.

        Raises:
            SessionStoreError: the session has no such symbol, or can have no such bars.
            IntervalError: `interval` is none.
        """
        symbols = self._symbols()
        if symbol not in symbols and symbol not in self.later:
            raise SessionStoreError(
                f"the session has no symbol {symbol!r}{near_miss(symbol, symbols)}"
            )
        wanted = Interval.parse(interval) if isinstance(interval, str) else interval
        if queue_bars < 1:
            raise SessionStoreError(f"queue_bars is {queue_bars}; it must be at least 1")
        self._activate(wanted)
        return Subscription(self, symbol, wanted, queue_bars)

    # -- the replay's side ---------------------------------------------------------------------

    def begin(self) -> None:
        """Note that this thread runs the replay; nobody can wait for bars in it."""
        self._replay_thread = get_ident()
        self.later = ()

    def publish(self, now: int, bars: Sequence[Bar]) -> None:
        """Hand out the bars of a minute that ends; at full speed, wait until they are taken.

        Args:
            now: The minute's end, UTC microseconds.
            bars: Updates, base bars and derived bars, in order of delivery.

        Raises:
            SessionStoreError: a reader's event loop runs in this very thread.
        """
        with self._changed:
            self._readers = self._present()
            for reader in self._readers:
                if reader.thread == get_ident():
                    raise _same_thread(f" at {format_moment(now)}")
                reader.take([bar for bar in bars if reader.wants(bar)], self.paced)
            while not self.paced and self._held_up():
                self._changed.wait(_LOOK_AROUND_SECONDS)

    def close(self) -> None:
        """End every iteration, once its reader has taken what is queued; none begins any more."""
        with self._changed:
            self._closed = True
            self._replay_thread = None
            for reader in self._readers:
                reader.close()

    def _held_up(self) -> bool:
        """Return whether somebody still works on bars of this minute.

        A task that reads several subscriptions in turn is back when it waits for any of them:
        if the replay waited for it to come back to all, the two would wait for each other.
        """
        readers = self._present()
        waiting = {reader.home for reader in readers if reader.waiting}
        return any(reader.home not in waiting for reader in readers)

    def _present(self) -> tuple[_Reader, ...]:
        return tuple(reader for reader in self._readers if not reader.gone)

    # -- the readers' side, called by `BarIterator` ----------------------------------------------

    def _next(self, reader: _Reader) -> Bar | asyncio.Future[None] | None:
        """Return the reader's next bar, what it must wait for, or None when nothing comes."""
        with self._changed:
            if reader.queue:
                return reader.queue.popleft()
            if reader.closed or self._closed:
                return None
            if get_ident() == self._replay_thread:
                raise _same_thread()
            if reader.waits_for is not None:
                raise SessionStoreError(
                    f"two tasks wait for the next bar of {reader.symbol} in one iteration",
                    "Let each iterate over the subscription with an `async for` of its own.",
                )
            if reader not in self._readers:
                self._readers = (*self._readers, reader)
            self._changed.notify_all()
            return reader.wait()


class Subscription:
    """One symbol's bars to come, for ``async for bar in subscription``.

    - An iteration begins when its first bar is asked for, and gets the bars from the replay's next
      minute on (at full speed a replay without subscribers takes strides of many minutes, up to
      whole sessions: from its next stride on); those before are in the session store. Until it
      begins it holds nobody up. It goes on over session boundaries; a session without the symbol
      simply brings no bars. It ends when the run ends, also when the run fails.
    - A bar that was filled in or revised (of a derived interval: rebuilt) comes as an update,
      ahead of the new bar of the minute in which that happened. Its `end` tells: an update's lies
      before ``session.now``.
    - At full speed the replay stands still while the loop's body runs, so that at each new bar
      ``session.now == bar.end``, however long the body takes. Every bar comes exactly once.
    - In a paced run the replay goes on. When `queue_bars` bars are waiting the oldest is dropped
      for each new one; `dropped` counts them.
    - Leaving the loop, by ``break``, an error or cancellation, ends the iteration and lets the
      replay go on, as does the end of the task that began it. Who asks for bars by hand, with
      ``bars = aiter(subscription)`` and ``await anext(bars)``, ends it with ``await
      bars.aclose()``. A time-out (`asyncio.wait_for`) around ``anext(bars)`` loses no bar.
    - A task that reads several subscriptions in turn is taken to be back when it waits for any of
      them; the bars of the others queue up meanwhile. Read each in a task of its own to see every
      bar at its end.

    Attributes:
        symbol: The symbol.
        interval: The bars' interval.
        queue_bars: Bars that may be waiting in a paced run.
        dropped: Bars dropped so far, over all iterations; always 0 at full speed.
    """

    def __init__(
        self, subscriptions: Subscriptions, symbol: str, interval: Interval, queue_bars: int
    ) -> None:
        self.symbol = symbol
        self.interval = interval
        self.queue_bars = queue_bars
        self.dropped = 0
        self._subscriptions = subscriptions

    def __repr__(self) -> str:
        return f"<subscription to {self.interval} bars of {self.symbol}>"

    def __aiter__(self) -> BarIterator:
        return BarIterator(self._subscriptions, self)


class BarIterator:
    """One iteration over a `Subscription`; it ends when it is let go of.

    Only the ``async for`` itself holds its iterator, so that ``break`` is noticed at once, and
    the replay holds none: it knows the `_Reader` behind it.
    """

    def __init__(self, subscriptions: Subscriptions, subscription: Subscription) -> None:
        self._subscriptions = subscriptions
        self._reader = _Reader(subscription, subscriptions._changed)

    def __aiter__(self) -> BarIterator:
        return self

    async def __anext__(self) -> Bar:
        while True:
            found = self._subscriptions._next(self._reader)
            if found is None:
                raise StopAsyncIteration
            if isinstance(found, Bar):
                return found
            try:
                await found
            finally:
                self._reader.waits_for = None

    async def aclose(self) -> None:
        """End the iteration, whatever is queued, and let the replay go on."""
        self._reader.close()
        self._reader.queue.clear()

    def __del__(self) -> None:
        self._reader.close()


class _Reader:
    """The replay's end of an iteration: what is queued, and whether somebody waits for more.

    All of it is read and written with the lock of `Subscriptions` held, except that it may be
    closed at any time and that `waits_for` is cleared in the event loop.

    Attributes:
        thread: The event loop's thread.
    """

    def __init__(self, subscription: Subscription, changed: Condition) -> None:
        self.symbol = subscription.symbol
        self.interval = subscription.interval
        self.queue: deque[Bar] = deque()
        self.waits_for: asyncio.Future[None] | None = None
        self.closed = False
        self.thread = 0
        self._label = str(subscription.interval)
        self._subscription = subscription
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task = _current_task()

    @property
    def home(self) -> object:
        """The task that began the iteration; the reader itself where that was in no task."""
        return self._task or self

    @property
    def waiting(self) -> bool:
        """Whether all its bars are taken and somebody waits for the next."""
        return self.waits_for is not None and not self.queue

    @property
    def gone(self) -> bool:
        """Whether it is closed, or nobody can come back for more and could not say so."""
        if self.closed or (self._loop is not None and self._loop.is_closed()):
            return True
        return self.waits_for is None and self._home_is_over

    @property
    def _home_is_over(self) -> bool:
        return self._task is not None and self._task.done()

    def wants(self, bar: Bar) -> bool:
        """Return whether a bar is of its symbol and interval."""
        return bar.symbol == self.symbol and bar.interval == self._label

    def wait(self) -> asyncio.Future[None]:
        """Return what the next bar, or the end, completes; called in the event loop."""
        from asyncio import get_running_loop

        if self._home_is_over:  # the iteration was handed on to another task
            self._task = _current_task()
        self._loop = get_running_loop()
        self.thread = get_ident()
        self.waits_for = self._loop.create_future()
        return self.waits_for

    def take(self, bars: Sequence[Bar], paced: bool) -> None:
        """Queue bars and wake whoever waits for them."""
        for bar in bars:
            if paced and len(self.queue) >= self._subscription.queue_bars:
                self.queue.popleft()
                self._subscription.dropped += 1
            self.queue.append(bar)
        if bars:
            self._wake()

    def close(self) -> None:
        """Bring no more bars."""
        self.closed = True
        with self._changed:
            self._wake()
            self._changed.notify_all()

    def _wake(self) -> None:
        waits_for = self.waits_for
        if waits_for is not None:
            with suppress(RuntimeError):  # its event loop is closed: nobody is there to wake
                waits_for.get_loop().call_soon_threadsafe(_complete, waits_for)


def _complete(waits_for: asyncio.Future[None]) -> None:
    if not waits_for.done():
        waits_for.set_result(None)


def _current_task() -> asyncio.Task[object] | None:
    from asyncio import current_task

    try:
        return current_task()
    except RuntimeError:  # no event loop runs here, yet
        return None


def _same_thread(moment: str = "") -> SessionStoreError:
    return SessionStoreError(
        f"bars are awaited{moment} in the very thread that replays them, which can never go on",
        "Run the replay beside the event loop with `await coordinator.run_async()`; a strategy "
        "gets its bars through on_bar.",
    )
