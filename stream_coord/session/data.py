"""`SessionData`: the bars of the current session, and only those that a strategy may see now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, SYNTHETIC, Bar, parse_symbols
from stream_coord.calendars import Session
from stream_coord.errors import SessionStoreError, near_miss
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.aio import AsyncSession
from stream_coord.session.arrival import Arrival
from stream_coord.session.block import Block, Bools, Floats, Ints, slots_of, symbol_rows
from stream_coord.session.latest import LatestBars
from stream_coord.session.subscriptions import Subscriptions
from stream_coord.session.views import Bars, SymbolMetrics, bar_at
from stream_coord.session.visible import Visible

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Arrival", "SessionData"]


class SessionData:
    """The current session's bars of many symbols, visible up to `now`.

    Reads hand out only bars whose end is at or before `now`. They are plain calls, safe from any
    thread while another one advances the clock or adds bars. Arrays are read-only views of the
    store, valid until the next step; copy what is to be kept.

    Args:
        symbols: The symbols, in any order.
        session: The first session.
        interval: The base interval; one minute by default.

    Attributes:
        subscriptions: Who waits for bars to come; a replay publishes them there.
        aio: The store's calls for event loops; ``async for bar in aio.subscribe(...)``.

    Raises:
        SymbolError: one of `symbols` is no symbol.
    """

    latest: Callable[[str], Bar | None]
    """``latest(symbol)`` is the newest visible bar, or None. Asked again within the same minute it
    costs a dict look-up."""

    def __init__(
        self, symbols: Iterable[str], session: Session, interval: Interval | None = None
    ) -> None:
        self._interval = interval or Interval(MINUTE)
        self._stopped = False
        self.subscriptions = Subscriptions(lambda: self.symbols, self._interval)
        self.aio = AsyncSession(self)
        self._writing = Lock()
        self._latest = LatestBars(self._newest, self._writing)
        self.latest = self._latest.__getitem__
        checked = tuple(map(str, parse_symbols(symbols)))
        self._begin(session, Block.empty(checked, [session], self._interval), replayed=False)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The current session's symbols, sorted by code point."""
        return self._visible.block.symbols

    @property
    def session(self) -> Session:
        """The current session."""
        return self._session

    @property
    def interval(self) -> Interval:
        """The base interval."""
        return self._interval

    @property
    def now(self) -> int:
        """UTC microseconds: bars that end at or before this are visible."""
        return self._now

    # -- time ----------------------------------------------------------------------------------

    def start_session(self, session: Session, block: Block | None = None) -> None:
        """Begin a session, with none of its bars visible yet; the symbols are the block's.

        Args:
            session: The session.
            block: Its bars, as far as they are known beforehand (a replay knows them all); its
                last session is `session`. None: the symbols stay, and all bars will come through
                `add_bar`.

        Raises:
            SessionStoreError: the block is of another interval or another session.
            IntervalError: the session is no whole number of bars.
        """
        replayed = block is not None
        if replayed:
            self.subscriptions.begin()
        if block is None:
            block = Block.empty(self.symbols, [session], self._interval)
        today = block.starts[block.today :]
        if block.interval != self._interval or not (
            np.array_equal(today, session.grid(self._interval))
        ):
            raise SessionStoreError("the block is of another interval or of another session")
        self._begin(session, block, replayed=replayed)

    def _begin(self, session: Session, block: Block, *, replayed: bool) -> None:
        with self._writing:
            self._session = session
            self._replayed = replayed
            self._block = block
            # Time before bars: who reads bars and then the time must not see it lag behind.
            self._now = session.start
            self._visible = Visible(block)
            self._updates: list[Bar] = []
            self._latest.expire()

    def advance_to(self, now: int) -> None:
        """Move the clock; bars that end at or before `now` become visible.

        Args:
            now: UTC microseconds; never earlier than before within a session.

        Raises:
            SessionStoreError: `now` lies before the present time.
        """
        if now < self._now:
            raise SessionStoreError(
                f"cannot turn the clock back from {self._now} to {now} (UTC microseconds)",
                "Begin a session with start_session() to start over.",
            )
        self.show(self._visible.slots_ended(now), now)

    def show(self, slots: int, now: int) -> None:
        """Make the first `slots` slots visible: a replay's step, which knows its slot by heart."""
        if self._stopped:
            raise KeyboardInterrupt("the replay was stopped")
        with self._writing:
            self._now = now  # before the bars, as in _begin()
            self._visible.cursor = slots
            self._latest.expire()

    def stop(self) -> None:
        """Stop the replay that advances this store, at its next step; from any thread.

        In the replay's thread it is as if Ctrl-C had been pressed there: a `KeyboardInterrupt`.
        """
        self._stopped = True
        self.subscriptions.close()

    # -- reading -------------------------------------------------------------------------------

    def latest_many(self, symbols: Iterable[str] | None = None) -> dict[str, Bar | None]:
        """Return the newest visible bar of each symbol (None: of all symbols)."""
        wanted = self.symbols if symbols is None else symbols
        return {symbol: self.latest(symbol) for symbol in wanted}

    def last_n(self, symbol: str, n: int) -> Bars:
        """Return the last `n` bars that exist, fewer where there are fewer; oldest first."""
        visible = self._visible
        row = visible.row_of.get(symbol)
        if row is None:
            raise self._unknown(symbol)
        if n < 0:
            raise _negative("n", n)
        return visible.last_n(row, n)

    def since(self, symbol: str, start: int) -> Bars:
        """Return the visible bars whose start is at or after `start` (UTC microseconds)."""
        visible, row = self._find(symbol)
        return visible.since(row, start)

    def window(self, symbol: str, n: int, field: str = "close") -> Floats:
        """Return the last `n` slots of one field, NaN in holes; a view, oldest first.

        Args:
            symbol: The symbol.
            n: Number of slots; fewer come back where fewer have passed.
            field: open, high, low, close or volume.
        """
        visible = self._visible
        row = visible.row_of.get(symbol)
        if row is None:
            raise self._unknown(symbol)
        if n < 0:
            raise _negative("n", n)
        try:
            return visible.window(row, n, field)
        except KeyError:
            raise _unknown_field(field) from None

    def cross_section(self, field: str = "close", back: int = 0) -> Floats:
        """Return one minute of all symbols, in the order of `symbols`; NaN where no bar is.

        Args:
            field: open, high, low, close or volume.
            back: How many minutes before the newest visible one.

        Returns:
            float64, shape (S,), a view; all NaN where so many minutes have not passed yet.
        """
        if back < 0:
            raise _negative("back", back)
        try:
            return self._visible.cross_section(field, back)
        except KeyError:
            raise _unknown_field(field) from None

    def count(self, symbol: str) -> int:
        """Return how many bars of the symbol are visible."""
        visible, row = self._find(symbol)
        return visible.count(row)

    def metrics(self, symbol: str) -> SymbolMetrics:
        """Return the current session's numbers of one symbol, up to now."""
        visible, row = self._find(symbol)
        return visible.metrics(row)

    # -- bars from a feed ----------------------------------------------------------------------

    def add_bar(
        self, symbol: str, start: int, values: tuple[float, ...], flags: int = 0
    ) -> Arrival:
        """Take one bar from any feed; it is visible from its end on.

        Args:
            symbol: The symbol.
            start: Start in UTC microseconds.
            values: open, high, low, close, volume.
            flags: Bits of `stream_coord.bars`.

        Raises:
            SessionStoreError: unknown symbol, values that no bar can have, or, in a replay, a
                minute that is still to come; nothing was kept.
        """
        column = np.array(values, np.float64).reshape(-1, 1)
        _check_values(column, (symbol,))
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
        _check_values(values, frame["symbol"])
        starts, bits = frame["start"].to_numpy(), np.zeros(len(frame), np.uint8)
        return self._put(lambda: symbol_rows(frame, self.symbols), starts, values, bits)

    def _rows_of(self, symbol: str) -> Ints:
        return np.array([self._find(symbol)[1]])

    @property
    def has_updates(self) -> bool:
        """Whether `drain_updates` would return any."""
        return bool(self._updates)

    def drain_updates(self) -> list[Bar]:
        """Return the late and revised bars since the last call, in order of arrival.

        Each shows what its arrival left; a minute that was revised twice comes twice.
        """
        if not self._updates:
            return []
        with self._writing:
            updates, self._updates = self._updates, []
        return updates

    def _put(
        self,
        find_rows: Callable[[], Ints],
        starts: Ints,
        values: Floats,
        flags: NDArray[np.uint8],
    ) -> Counter[Arrival]:
        """Put bars where they belong and say what they were to the store."""
        with self._writing:  # rows and slots are those of the session that is written to
            rows = find_rows()
            slots = slots_of(self._block.starts, self._interval, starts)
            if self._replayed and (slots >= self._visible.cursor).any():
                raise SessionStoreError(
                    "a replay brings the bars of the minutes to come itself; add only past ones"
                )
            inside = slots >= 0
            arrivals = self._write(rows[inside], slots[inside], values[:, inside], flags[inside])
            self._latest.expire()
        if outside := len(slots) - int(np.count_nonzero(inside)):
            arrivals[Arrival.OUT_OF_SESSION] = outside
        return arrivals

    def _write(
        self, rows: Ints, slots: Ints, values: Floats, flags: NDArray[np.uint8]
    ) -> Counter[Arrival]:
        block = self._block
        there = block.present[rows, slots]
        same = there & (block.values[:, rows, slots] == values).all(axis=0)
        # A real bar takes the place of a synthetic one even where their values agree.
        same &= (block.flags[rows, slots] ^ flags) & SYNTHETIC == 0
        fresh, ends = ~same, self._visible.ends[slots]
        # A replay has delivered the minute that ends now; a feed may be about to.
        over = ends <= self._now if self._replayed else ends < self._now
        with block.writes.under_way():
            block.values[:, rows[fresh], slots[fresh]] = values[:, fresh]
            block.flags[rows[fresh], slots[fresh]] = flags[fresh]
            block.present[rows, slots] = True
            for row in set(rows[~there].tolist()):
                self._visible.forget_holes(row)
        self._note_updates(rows, slots, fresh & (there | over))
        counts = {
            Arrival.ADDED: ~there & ~over,
            Arrival.LATE: ~there & over,
            Arrival.DUPLICATE: same,
            Arrival.REVISED: there & ~same,
        }
        return Counter({kind: n for kind, of in counts.items() if (n := int(of.sum()))})

    def _note_updates(self, rows: Ints, slots: Ints, changed: Bools) -> None:
        seen = changed & (slots < self._visible.cursor)
        for row, slot in zip(rows[seen].tolist(), slots[seen].tolist(), strict=True):
            self._updates.append(bar_at(self._block, row, slot))

    # -- looking up ----------------------------------------------------------------------------

    def _newest(self, symbol: str) -> Bar | None:
        visible, row = self._find(symbol)
        return visible.newest(row)

    def _find(self, symbol: str) -> tuple[Visible, int]:
        visible = self._visible
        row = visible.row_of.get(symbol)
        if row is None:
            raise self._unknown(symbol)
        return visible, row

    def _unknown(self, symbol: str) -> SessionStoreError:
        return SessionStoreError(
            f"the session has no symbol {symbol!r}{near_miss(symbol, self.symbols)}"
        )


def _check_values(values: Floats, symbols: Iterable[str]) -> None:
    """Raise for the first bar whose values no bar can have; `values` has shape (5, n)."""
    if values.shape[0] != len(FIELDS):
        raise SessionStoreError(f"a bar has {len(FIELDS)} values: {', '.join(FIELDS)}")
    opens, highs, lows, closes, volumes = values
    sound = (
        np.isfinite(values).all(axis=0)
        & (highs >= np.maximum(np.maximum(opens, closes), lows))
        & (lows <= np.minimum(opens, closes))
        & (volumes >= 0)
    )
    if not sound.all():
        bad = int(np.flatnonzero(~sound)[0])
        found = dict(zip(FIELDS, values[:, bad].tolist(), strict=True))
        raise SessionStoreError(
            f"no bar has these values: {list(symbols)[bad]} {found}",
            "Values are finite, high is the highest, low the lowest, volume not negative.",
        )


def _negative(name: str, value: int) -> SessionStoreError:
    return SessionStoreError(f"{name} is {value}; it cannot be negative")


def _unknown_field(field: str) -> SessionStoreError:
    return SessionStoreError(
        f"no field {field!r}{near_miss(field, FIELDS)}", f"Fields are {', '.join(FIELDS)}."
    )
