"""Bars from the store into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.calendars import Session
from stream_coord.history import History, Shortfall, shortfall_of, with_bars
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.session.block import Block, Bools
from stream_coord.session.series import Series
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class LoadedSession:
    """A session's bars, ready to stream.

    Attributes:
        session: The session.
        series: Its bars, those of the derived intervals too, after those of history.
        out_of_session: Stored bars within its span that have no slot on its grid.
        data_version: Hash of the data versions of all symbol-days it was read from, 32 hex digits.
        follows: Whether the series follows the one that was loaded before.
        shortfall: What its history lacks; None: nothing, or there is to be none.
    """

    session: Session
    series: Series
    out_of_session: int
    data_version: str
    follows: bool = False
    shortfall: Shortfall | None = None

    @property
    def block(self) -> Block:
        """Its base bars."""
        return self.series.base


class Loader:
    """Loads the sessions of a run one after the other, each behind the one before.

    A session may be loaded while the one before it is in use, and not earlier.

    Args:
        store: Where the bars are.
        interval: The base interval.
        universe: The symbols.
        history: Where history comes from; None: there is to be none.
    """

    def __init__(
        self, store: BarStore, interval: Interval, universe: Universe, history: History | None
    ) -> None:
        self._store = store
        self._interval = interval
        self._universe = universe
        self._history = history
        self._before: Series | None = None
        self._symbols: tuple[str, ...] = ()  # those of the session before
        self._has = np.zeros((0, 0), np.bool_)  # who has bars of it, and of those before it

    def load(self, session: Session, derived: Iterable[Interval] = ()) -> LoadedSession:
        """Read and verify a session's bars and, where it does not follow the last one, its history.

        Args:
            session: The session.
            derived: The intervals to derive; those of the session before stay.

        Raises:
            SessionStoreError: bars of a derived interval cannot be built of base bars.
            StoreCorruptError: stored bytes are not what was written.
        """
        symbols, before = self._universe.symbols_in(session), self._before
        follows = before is not None
        if self._history is not None:
            series, follows = self._history.ready(symbols, session, derived, before)
        elif before is not None:
            series = before.following(session, symbols)
        else:
            series = Series.empty(symbols, [session], self._interval, derived)
        loaded = fill_session(self._store, series)
        self._before = series
        return replace(loaded, follows=follows, shortfall=self._shortfall(loaded, follows))

    def _shortfall(self, loaded: LoadedSession, follows: bool) -> Shortfall | None:
        """Return what history lacks, as it is stored: what upkeep fills in memory is left out."""
        history, series = self._history, loaded.series
        if history is None or not history.auto_load:
            return None
        block = max((series.base, *series.derived.values()), key=lambda one: len(one.sessions))
        if follows:
            has = self._rearranged(block.symbols)
            has = has[len(has) - len(block.sessions) + 1 :]
        else:
            has = with_bars(block)[:-1]
        days = [session.date for session in block.sessions[:-1]]
        self._has = np.concatenate([has, with_bars(series.base, of_today=True)])
        self._symbols = block.symbols
        return shortfall_of(loaded.session, block.symbols, days, has)

    def _rearranged(self, symbols: tuple[str, ...]) -> Bools:
        """Return who has bars, with columns for these symbols, some of which may be new."""
        if symbols == self._symbols:
            return self._has
        row_of = {symbol: row for row, symbol in enumerate(symbols)}
        has = np.zeros((len(self._has), len(symbols)), np.bool_)
        has[:, [row_of[symbol] for symbol in self._symbols]] = self._has
        return has


def load_session(
    store: BarStore,
    interval: Interval,
    symbols: Sequence[str],
    session: Session,
    derived: Iterable[Interval] = (),
) -> LoadedSession:
    """Read and verify one session's bars.

    Args:
        store: Where they are.
        interval: The base interval.
        symbols: Of which symbols.
        session: Of which session.
        derived: The intervals to derive of them.

    Raises:
        SessionStoreError: bars of a derived interval cannot be built of base bars.
        StoreCorruptError: stored bytes are not what was written.
    """
    series = Series(Block.empty(symbols, [session], interval))
    loaded = fill_session(store, series)
    for derive in derived:
        series.activate(derive)
    return loaded


def fill_session(store: BarStore, series: Series) -> LoadedSession:
    """Read and verify the bars of the newest session of a series, which has none of them yet.

    Raises:
        StoreCorruptError: stored bytes are not what was written.
    """
    base = series.base
    session = base.sessions[-1]
    read = store.read_versioned(base.interval, base.symbols, session.start, session.end)
    outside = series.fill(read.bars)
    return LoadedSession(session, series, outside, data_version(read.versions))


def data_version(versions: pl.DataFrame) -> str:
    """Return one hash of the data versions of some symbol-days, 32 hex digits.

    Args:
        versions: What `BarStore.versions` returns.
    """
    from xxhash import xxh3_128_hexdigest

    rows = versions["date", "symbol", "checksum"].rows()
    text = "".join(f"{day} {symbol} {checksum}\n" for day, symbol, checksum in rows)
    return xxh3_128_hexdigest(text.encode())
