"""`SessionData`: history and the current session, and of it only what a strategy may see now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, Bar, parse_symbols
from stream_coord.calendars import Session
from stream_coord.errors import SessionStoreError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.aio import AsyncSession
from stream_coord.session.arrival import Arrival
from stream_coord.session.block import Block, Floats, Ints, symbol_rows
from stream_coord.session.latest import LatestBars
from stream_coord.session.reading import SessionReads, parsed
from stream_coord.session.series import Kept, Series, Trailing, check_derivable
from stream_coord.session.subscriptions import Subscriptions
from stream_coord.session.writing import Current, check_values

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Arrival", "HistorySource", "SessionData"]

DEFAULT_TRAILING = 5
"""As in the settings."""


class HistorySource(Protocol):
    """Where history comes from (see `stream_coord.history.History`)."""

    def load(
        self, symbols: Sequence[str], session: Session, derived: Iterable[Interval] = ()
    ) -> Series:
        """Return the bars of the sessions before `session`, and none of its own."""
        ...

    def following(
        self, series: Series, session: Session, symbols: tuple[str, ...] | None = None
    ) -> Series:
        """Return what follows a series; splits in between are taken into account."""
        ...


class SessionData(SessionReads):
    """The bars of many symbols in the current session and some before it, visible up to `now`.

    Reads hand out only bars whose end is at or before `now`. They are plain calls, safe from any
    thread while another one advances the clock or adds bars. Arrays are read-only views of the
    store, valid until the next step; copy what is to be kept.

    History and the current session are one run of bars: the reads go on across the boundary.

    Reads without an `interval` are of the base bars; with one (``"5m"``, ``"1d"``) of bars that are
    derived of these. An interval that nobody configured is activated when it is first asked for:
    derived back to the oldest session that is held, and kept up from then on. Such a reading call
    raises `SessionStoreError` for an interval that cannot be built of the base bars, and
    `IntervalError` for a text that is no interval.

    Args:
        symbols: The symbols, in any order.
        session: The first session.
        interval: The base interval; one minute by default.
        derived: Intervals to derive from the start.
        trailing: How many sessions before the current one stay when a session rolls.
        kept: The intervals of which they stay; None: of the base bars, and so of all. Without the
            base interval among them, only these derived intervals have history.

    Attributes:
        derived: The intervals to derive from the start, shorter ones first.
        newest_end: End of the newest bar of the current session that came in by `add_bar` or
            `add_bars_batch`, of any symbol, visible or not; UTC microseconds, None before the
            first.
        subscriptions: Who waits for bars to come; a replay publishes them there.
        aio: The store's calls for event loops; ``async for bar in aio.subscribe(...)``.

    Raises:
        SymbolError: one of `symbols` is no symbol.
        SessionStoreError: one of `derived` cannot be built of the base bars.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        session: Session,
        interval: Interval | None = None,
        derived: Iterable[Interval] = (),
        trailing: int = DEFAULT_TRAILING,
        kept: Iterable[Interval] | None = None,
    ) -> None:
        super().__init__(interval or Interval(MINUTE))
        self.derived = tuple(sorted({*derived} - {self._interval}))
        self._history_source: HistorySource | None = None
        self.newest_end: int | None = None
        if trailing < 0:
            raise SessionStoreError(f"trailing is {trailing}; it cannot be negative")
        self._trailing = Trailing(trailing, None if kept is None else tuple(kept))
        self._asked: set[Interval] = {*(self._trailing.intervals or ())} - {self._interval}
        self._stopped = False
        self._streams = False
        self.subscriptions = Subscriptions(lambda: self.symbols, self._interval, self.activate)
        self.aio = AsyncSession(self)
        self._beginning = Lock()  # held while one session follows another
        self._writing = Lock()
        self._latest = LatestBars(self._newest, self._writing)
        self.latest = self._latest.__getitem__
        checked = tuple(map(str, parse_symbols(symbols)))
        self._begin(session, self._empty(checked, session), replayed=False)

    @property
    def session(self) -> Session:
        """The current session."""
        return self._current.session

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions whose bars are held, oldest first; the last one is the current one."""
        return self._series.sessions

    @property
    def _pristine(self) -> Series:
        """What a replay tells of: the bars it began with, and what upkeep filled.

        A strategy's own bars are not in it.
        """
        return self._current.pristine

    @property
    def _series(self) -> Series:
        """What is read: the pristine bars, or a copy of them with a strategy's own."""
        return self._current.series

    # -- time ----------------------------------------------------------------------------------

    def start_session(self, session: Session, bars: Block | Series | None = None) -> None:
        """Begin a session, with none of its bars visible yet; the symbols are the bars'.

        Args:
            session: The session.
            bars: Its bars, as far as they are known beforehand (a replay knows them all); their
                last session is `session`. None: the symbols stay, and all bars will come through
                `add_bar`.

        Raises:
            SessionStoreError: the bars are of another interval or another session, or the current
                session streams.
            IntervalError: the session is no whole number of bars.
        """
        self._refuse_in_replay("start_session()")
        replayed = bars is not None
        if replayed:
            self.subscriptions.begin()
        if bars is None:
            bars = self._empty(self.symbols, session)
        series = Series(bars) if isinstance(bars, Block) else bars
        self._check(session, series)
        with self._beginning:
            self._begin(session, series, replayed=replayed)

    def roll_session(self, session: Session, bars: Series | None = None) -> None:
        """Go on to a session: the current one becomes the newest of history, the oldest leaves.

        No bar is moved for it, unless the memory is full or there are other symbols. What a
        strategy itself added to a replay is left behind. Views of the bars until now are worth
        nothing any more: `Bars` say so when they are asked, arrays show bars that are still to
        come.

        Args:
            session: The session, after the current one.
            bars: What follows the current series, made ready beforehand (`Series.following`),
                with the session's bars as far as they are known: all, in a replay. None: all will
                come through `add_bar`.

        Raises:
            SessionStoreError: the session is not after the current one, the bars are of another
                interval or another session, or the current session streams.
            IntervalError: the session is no whole number of bars.
        """
        self._refuse_in_replay("roll_session()")
        with self._beginning:
            current, replayed = self._current, bars is not None
            if session.start < current.session.end:
                raise SessionStoreError(
                    f"the session {session.date} is not after the current one, "
                    f"{current.session.date}",
                    "Begin it with start_session() to start over.",
                )
            if replayed:
                self.subscriptions.begin()
            if bars is None:
                source, last = self._history_source, current.pristine
                bars = source.following(last, session) if source else last.following(session)
            self._check(session, bars)
            self._begin(session, bars, replayed=replayed, before=current)

    def use_history(self, source: HistorySource | None) -> None:
        """Say where `load_historical_bars`, and a roll over a split, take what they need from."""
        self._history_source = source

    def load_historical_bars(self, source: HistorySource | None = None) -> None:
        """Take history, all of it anew, from where it is kept; today stays as it is.

        A replay whose settings say ``history.auto_load`` has done so when a session begins.

        Args:
            source: Where it is, from now on; None: where `use_history` says.

        Raises:
            SessionStoreError: there is no such source, the session rolled meanwhile, or, in a
                replay, the history is not of the sessions that there is room for.
            StoreCorruptError: stored bytes are not what was written.
        """
        source = source or self._history_source
        if source is None:
            raise SessionStoreError(
                "there is nowhere to load history from",
                "Give a stream_coord.history.History; a replay has one unless history.enabled is "
                "false or history.trailing_days is 0.",
            )
        self._history_source = source
        current = self._current
        loaded = source.load(self.symbols, current.session, tuple(current.series.derived))
        with self._writing:
            if self._current is not current:
                raise SessionStoreError("the session has changed while its history was loaded")
            current.take_history(loaded)
            self._trailing = loaded.trailing
            self._visible = current.visible
            self._latest.expire()

    @contextmanager
    def _driven(self) -> Iterator[None]:
        """Let a replay alone move the clock and begin sessions; for as long as one streams."""
        self._streams = True
        try:
            yield
        finally:
            self._streams = False

    def _refuse_in_replay(self, call: str) -> None:
        if self._streams:
            raise SessionStoreError(
                f"{call} is for feeds: a replay moves on by itself",
                "What may be seen at this minute is what there is.",
            )

    def _empty(self, symbols: Sequence[str], session: Session) -> Series:
        # Without room for what follows, which mostly is other bars: a roll makes it.
        base = Block.empty(symbols, [session], self._interval)
        return Series(base, self.derived, self._trailing)

    def _check(self, session: Session, series: Series) -> None:
        base = series.base
        if base.interval != self._interval or not (
            np.array_equal(base.starts[base.today :], session.grid(self._interval))
        ):
            raise SessionStoreError("the block is of another interval or of another session")

    def _begin(
        self, session: Session, series: Series, *, replayed: bool, before: Current | None = None
    ) -> None:
        with self._writing:
            if before is not None:
                series.arrive(before.pristine)
            series.trailing = self._trailing
            for interval in chain(self.derived, self._asked):
                series.activate(interval)
            self._current = Current(session, series, self.derived, replayed=replayed)
            self._visible = self._current.visible
            self.newest_end = None
            self._latest.expire()

    def activate(self, interval: Interval | str) -> None:
        """Derive the bars of an interval from now on, in this session and all that follow.

        Raises:
            SessionStoreError: they cannot be built of the base bars.
            IntervalError: `interval` is none.
        """
        wanted = parsed(interval)
        if wanted != self._interval:
            check_derivable(wanted, self._interval)
            with self._writing:
                self._asked.add(wanted)
                self._current.activate(wanted)

    def advance_to(self, now: int) -> None:
        """Move the clock; bars that end at or before `now` become visible.

        Args:
            now: UTC microseconds; never earlier than before within a session.

        Raises:
            SessionStoreError: `now` lies before the present time, or a replay moves the clock.
        """
        if now < self.now:
            raise SessionStoreError(
                f"cannot turn the clock back from {self.now} to {now} (UTC microseconds)",
                "Begin a session with start_session() to start over.",
            )
        self._refuse_in_replay("advance_to()")
        self._show(self._visible.slots_ended(now), now)

    def _show(self, slots: int, now: int) -> None:
        """Make the first `slots` slots visible: a replay's step, which knows its slot by heart."""
        if self._stopped:
            raise KeyboardInterrupt("the replay was stopped")
        with self._writing:
            visible = self._visible
            # Time before bars: who reads bars and then the time must not see it lag behind.
            visible.now.micros = now
            visible.cursor = slots
            self._latest.expire()

    def stop(self) -> None:
        """Stop the replay that advances this store, at its next step; from any thread.

        In the replay's thread it is as if Ctrl-C had been pressed there: a `KeyboardInterrupt`.
        """
        self._stopped = True
        self.subscriptions.close()

    # -- bars from a feed ----------------------------------------------------------------------

    def add_bar(
        self, symbol: str, start: int, values: tuple[float, ...], flags: int = 0
    ) -> Arrival:
        """Take one bar from any feed; it is visible from its end on.

        Args:
            symbol: The symbol.
            start: Start in UTC microseconds.
            values: open, high, low, close, volume; in the terms of the current session, also where
                the bar is one of history and a split lies between.
            flags: Bits of `stream_coord.bars`.

        Raises:
            SessionStoreError: unknown symbol, values that no bar can have, or, in a replay, a
                minute that is still to come; nothing was kept.
        """
        column = np.array(values, np.float64).reshape(-1, 1)
        check_values(column, (symbol,))
        starts, bits = np.array([start]), np.array([flags], np.uint8)
        return next(iter(self._put(lambda: self._rows_of(symbol), starts, column, bits)))

    def add_bars_batch(self, frame: pl.DataFrame) -> Counter[Arrival]:
        """Take a bar frame from any feed, all of it or nothing.

        Returns:
            How many bars arrived in which way.

        Raises:
            SessionStoreError: as for `add_bar`.
        """
        values = np.array([frame[field].to_numpy() for field in FIELDS], np.float64)
        check_values(values, frame["symbol"])
        starts, bits = frame["start"].to_numpy(), np.zeros(len(frame), np.uint8)
        return self._put(lambda: symbol_rows(frame, self.symbols), starts, values, bits)

    def _rows_of(self, symbol: str) -> Ints:
        return np.array([self._row(self._visible, symbol)])

    def _put(
        self,
        find_rows: Callable[[], Ints],
        starts: Ints,
        values: Floats,
        flags: NDArray[np.uint8],
    ) -> Counter[Arrival]:
        """Put bars where they belong and say what they were to the store."""
        with self._writing:  # rows and slots are those of the session that is written to
            arrivals = self._current.put(find_rows(), starts, values, flags)
            self._visible = self._current.visible
            self.newest_end = self._current.newest_end
            self._latest.expire()
        return arrivals

    @property
    def has_updates(self) -> bool:
        """Whether `drain_updates` would return any."""
        return bool(self._current.updates)

    def drain_updates(self) -> list[Bar]:
        """Return the late and revised bars since the last call, in order of arrival.

        Each shows what its arrival left; a minute that was revised twice comes twice. The derived
        bars that were rebuilt, at all active intervals, follow those that they are built of.
        """
        if not self.has_updates:
            return []
        with self._writing:
            return self._current.drain_updates()

    # -- upkeep --------------------------------------------------------------------------------

    def keep(
        self,
        rows: Ints,
        slots: Ints,
        values: Floats,
        flags: NDArray[np.uint8],
        of: Block | None = None,
    ) -> Kept:
        """Write what upkeep found of past minutes, visible from now on.

        It becomes part of what a replay tells of (`pristine`), and of what is read; only a
        synthetic bar never takes the place of a real one, not even of a strategy's. The changed
        bars come as updates: base bars by symbol and time, then the rebuilt derived bars whose end
        is past, by interval, symbol and time (one that ends this very moment is still to be told
        of for the first time).

        Args:
            rows: The symbols' rows; int64, shape (n,).
            slots: Slots of the base block; int64, shape (n,); no cell twice.
            values: open, high, low, close, volume; float64, shape (5, n).
            flags: Bits of `stream_coord.bars`; uint8, shape (n,).
            of: The block whose slots these are, if it may be another one by now: once its session
                is over nothing is written. None: the current one.

        Returns:
            The cells of the pristine series that changed, in the order of the updates, of the base
            and the configured intervals.

        Raises:
            SessionStoreError: a minute that is still to come; nothing was written.
        """
        with self._writing:
            here = self._current.slots(slots, of)
            if here is None:
                return Kept([])
            kept = self._current.keep(rows, here, values, flags)
            self._latest.expire()
        return kept

    def note_states(
        self, rows: Ints, slots: Ints, states: NDArray[np.uint8], of: Block | None = None
    ) -> None:
        """Note what upkeep learned of minutes without a bar, for `metrics`.

        Args:
            rows: The symbols' rows; int64, shape (n,).
            slots: Slots of the base block; int64, shape (n,); those of history are left out.
            states: MISSING, NO_TRADE or UNRESOLVED of `stream_coord.compute.gaps`; shape (n,).
            of: As for `keep`.
        """
        with self._writing:
            here = self._current.slots(slots, of)
            if here is not None:
                self._current.note_states(rows, here, states)

    def _newest(self, symbol: str) -> Bar | None:
        visible = self._visible
        return visible.newest(self._row(visible, symbol))
