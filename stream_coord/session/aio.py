"""The session store's calls as awaitables, and bars that an event loop can wait for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stream_coord.bars import Bar
from stream_coord.calendars import Session
from stream_coord.interval import Interval
from stream_coord.session.arrival import Arrival
from stream_coord.session.subscriptions import DEFAULT_QUEUE_BARS, Subscription, Subscriptions
from stream_coord.session.views import Bars, SymbolMetrics

if TYPE_CHECKING:
    import polars as pl

_BEGINNING = -(2**63)


class _Store(Protocol):
    """What `AsyncSession` asks of a session store."""

    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def interval(self) -> Interval: ...
    def latest_bar(self, symbol: str, interval: Interval | str | None = None) -> Bar | None: ...
    def latest_many(
        self, symbols: Iterable[str] | None = None, interval: Interval | str | None = None
    ) -> dict[str, Bar | None]: ...
    def last_n(self, symbol: str, n: int, interval: Interval | str | None = None) -> Bars: ...
    def since(self, symbol: str, start: int, interval: Interval | str | None = None) -> Bars: ...
    def count(self, symbol: str, interval: Interval | str | None = None) -> int: ...
    def all_bars(self, symbol: str, interval: Interval | str | None = None) -> Bars: ...
    def in_progress(self, symbol: str, interval: Interval | str) -> Bar | None: ...
    def metrics(self, symbol: str) -> SymbolMetrics: ...
    def start_session(self, session: Session) -> None: ...
    def roll_session(self, session: Session) -> None: ...
    def load_historical_bars(self) -> None: ...
    def add_bar(
        self, symbol: str, start: int, values: tuple[float, ...], flags: int = 0
    ) -> Arrival: ...
    def add_bars_batch(self, frame: pl.DataFrame) -> Counter[Arrival]: ...


@dataclass(frozen=True, slots=True)
class SessionMetrics(SymbolMetrics):
    """A symbol's numbers, under the name that they have in event loops as well."""

    @property
    def bar_quality(self) -> float | None:
        """Regular minutes present, in percent of those due; None when none is due yet."""
        return self.quality


class AsyncSession:
    """A session store for event loops: ``session.aio``.

    Every call answers at once, from memory, and lets no other task run meanwhile; they are
    awaitables so that code written for a remote store runs as it is. What waits is ``async for``
    over `subscribe`. As everywhere, only bars whose end is at or before ``session.now`` are seen,
    and times are UTC microseconds. Reads without an `interval` are of the base bars; an interval
    that nobody configured is activated when it is first asked for, back to the oldest session held.

    All of them raise `SessionStoreError` for a symbol that the session does not have, and for an
    interval that cannot be built of its base bars.

    Args:
        store: The session store.
    """

    def __init__(self, store: _Store) -> None:
        self._store = store

    def subscribe(
        self,
        symbol: str,
        interval: Interval | str | None = None,
        queue_bars: int = DEFAULT_QUEUE_BARS,
    ) -> Subscription:
        """Return what ``async for`` takes a symbol's coming bars from; `Subscription` tells how.

        Args:
            symbol: The symbol.
            interval: The bars' interval; None for the base interval.
            queue_bars: In a paced run, bars that may wait before the oldest is dropped.

        Raises:
            SessionStoreError: no such symbol, or no bars of this interval.
        """
        return self._store.subscriptions.subscribe(
            symbol, interval or self._store.interval, queue_bars
        )

    # -- reading -------------------------------------------------------------------------------

    async def get_latest_bar(
        self, symbol: str, interval: Interval | str | None = None
    ) -> Bar | None:
        """Return the newest visible bar; None before the first."""
        return self._store.latest_bar(symbol, interval)

    async def get_latest_bars_multi(
        self, symbols: Iterable[str] | None = None, interval: Interval | str | None = None
    ) -> dict[str, Bar | None]:
        """Return the newest visible bar of each symbol (None: of all symbols)."""
        return self._store.latest_many(symbols, interval)

    async def get_bar_in_progress(self, symbol: str, interval: Interval | str) -> Bar | None:
        """Return the derived bar that is not over yet, of the base bars seen so far, if any."""
        return self._store.in_progress(symbol, interval)

    async def get_last_n_bars(
        self, symbol: str, n: int, interval: Interval | str | None = None
    ) -> Bars:
        """Return the last `n` bars that exist, fewer where there are fewer; oldest first.

        The columns are views, valid until the next step: copy what is kept over an ``await``.
        """
        return self._store.last_n(symbol, n, interval)

    async def get_bars_since(
        self, symbol: str, start: int, interval: Interval | str | None = None
    ) -> Bars:
        """Return the visible bars whose start is at or after `start`; views, oldest first."""
        return self._store.since(symbol, start, interval)

    async def get_bars(
        self,
        symbol: str,
        start: int | None = None,
        end: int | None = None,
        interval: Interval | str | None = None,
    ) -> list[Bar]:
        """Return the visible bars of a span as objects, oldest first.

        Args:
            symbol: The symbol.
            start: The first bar's start at the earliest; None: from the oldest visible bar on.
            end: All bars' starts lie before it; None: up to the newest visible bar.
            interval: The bars' interval; None for the base interval.
        """
        bars = self._store.since(symbol, _BEGINNING if start is None else start, interval)
        return list(bars if end is None else islice(bars, int(np.searchsorted(bars.start, end))))

    async def get_bar_count(self, symbol: str, interval: Interval | str | None = None) -> int:
        """Return how many bars of the symbol are visible, those of history too."""
        return self._store.count(symbol, interval)

    async def get_all_bars_including_historical(
        self, symbol: str, interval: Interval | str | None = None
    ) -> Bars:
        """Return all visible bars, those of history first; views, oldest first."""
        return self._store.all_bars(symbol, interval)

    async def get_session_metrics(self, symbol: str) -> SessionMetrics:
        """Return the current session's numbers of one symbol up to now, `bar_quality` included."""
        return SessionMetrics(**asdict(self._store.metrics(symbol)))

    # -- bars from a feed ----------------------------------------------------------------------

    async def start_new_session(self, session: Session) -> None:
        """Begin a session of the same symbols whose bars will all come through `add_bar`.

        It begins without history; `roll_session` goes on from the current one. For a feed: a
        replay begins its sessions itself.
        """
        self._store.start_session(session)

    async def roll_session(self, session: Session) -> None:
        """Let the current session become the newest one of history, and begin `session`.

        The oldest session of history leaves. For a feed; a replay rolls by itself.

        Raises:
            SessionStoreError: the session is not after the current one.
        """
        self._store.roll_session(session)

    async def load_historical_bars(self) -> None:
        """Take all history anew from where it is kept; today stays as it is.

        It reads the store, and lets no other task run meanwhile.

        Raises:
            SessionStoreError: there is nowhere to load it from.
        """
        self._store.load_historical_bars()

    async def add_bar(
        self, symbol: str, start: int, values: tuple[float, ...], flags: int = 0
    ) -> Arrival:
        """Take one bar from a feed, visible from its end on, and say what it was to the store.

        Args:
            symbol: The symbol.
            start: Start in UTC microseconds.
            values: open, high, low, close, volume.
            flags: Bits of `stream_coord.bars`.

        Raises:
            SessionStoreError: also for values that no bar can have, and, in a replay, for a minute
                that is still to come; nothing was kept.
        """
        return self._store.add_bar(symbol, start, values, flags)

    async def add_bars_batch(self, frame: pl.DataFrame) -> Counter[Arrival]:
        """Take a bar frame from a feed, all of it or nothing, and count what arrived how.

        Raises:
            SessionStoreError: as for `add_bar`.
        """
        return self._store.add_bars_batch(frame)
