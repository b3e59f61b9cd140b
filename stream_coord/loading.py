"""Bars from the store into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.calendars import Session
from stream_coord.interval import Interval
from stream_coord.session.block import Block
from stream_coord.session.series import Series
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class LoadedSession:
    """A session's bars, ready to stream.

    Attributes:
        session: The session.
        series: Its bars, those of the derived intervals too.
        out_of_session: Stored bars within its span that have no slot on its grid.
        data_version: Hash of the data versions of all symbol-days it was read from, 32 hex digits.
    """

    session: Session
    series: Series
    out_of_session: int
    data_version: str

    @property
    def block(self) -> Block:
        """Its base bars."""
        return self.series.base


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
    read = store.read_versioned(interval, symbols, session.start, session.end)
    block = Block.empty(symbols, [session], interval)
    outside = block.fill(read.bars)
    return LoadedSession(session, Series(block, derived), outside, data_version(read.versions))


def data_version(versions: pl.DataFrame) -> str:
    """Return one hash of the data versions of some symbol-days, 32 hex digits.

    Args:
        versions: What `BarStore.versions` returns.
    """
    from xxhash import xxh3_128_hexdigest

    rows = versions["date", "symbol", "checksum"].rows()
    text = "".join(f"{day} {symbol} {checksum}\n" for day, symbol, checksum in rows)
    return xxh3_128_hexdigest(text.encode())
