"""Another bar store as a source: Delta Lake, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import empty_frame
from stream_coord.clock import day_of_number
from stream_coord.config.settings import SourceSettings
from stream_coord.interval import DAY, Interval
from stream_coord.sources.options import address_of, no_options
from stream_coord.sources.places import store_place
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import clip, day_extents, days_of, inside
from stream_coord.stores import open_store

if TYPE_CHECKING:
    import polars as pl

    from stream_coord.stores.base import BarStore

MOST_SYMBOL_DAYS = 4_000
"""How many symbol-days are read at a time."""
_SPARE_SYMBOL_DAYS = 64


class StoreSource:
    """A `BarSource` that is a bar store.

    It covers the UTC dates on which it holds any bar of a symbol, the symbol's last date up to its
    last bar. Which that is, is looked up when the store is opened.

    Args:
        settings: Its table; `url` is the store's address.
        root: The folder that a relative path starts from.

    Raises:
        ConfigError: there is no address, or it is none of a store; or there are options.
    """

    def __init__(self, settings: SourceSettings, root: Path) -> None:
        no_options(settings)
        self._url = address_of(settings)
        self._root = root
        self._store: BarStore | None = None
        self._lasts: dict[Interval, dict[str, int]] = {}
        store_place(self._url, root)

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts that lie on dates of the store; see `BarSource.coverage`.

        Raises:
            StoreError: the store cannot be opened or read.
        """
        store = self._opened()
        if interval not in self._lasts:
            spans = store.spans(interval)
            self._lasts[interval] = dict(spans.select("symbol", "last").iter_rows())
        return store_coverage(store, interval, ranges, self._lasts[interval])

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the store's bars, verified; see `BarSource.bars`.

        Raises:
            StoreError: the store cannot be opened or read; as `StoreCorruptError` where stored
                bytes are not what was written.
        """
        return store_bars(self._opened(), interval, ranges)

    def close(self) -> None:
        """Close the store."""
        store, self._store = self._store, None
        self._lasts.clear()
        if store is not None:
            store.close()

    def _opened(self) -> BarStore:
        if self._store is None:
            self._store = open_store(self._url, self._root)
        return self._store


def store_coverage(
    store: BarStore, interval: Interval, ranges: Sequence[BarRange], lasts: Mapping[str, int]
) -> list[BarRange]:
    """Return the parts of `ranges` that a store covers; reads no bars.

    Args:
        store: The store.
        interval: The bars' interval.
        ranges: What is asked for.
        lasts: By symbol the start of its last bar in the store.
    """
    import polars as pl

    symbols = sorted({asked.symbol for asked in ranges} & lasts.keys())
    if not symbols:
        return []
    first = min(asked.start for asked in ranges) // DAY
    last = (max(asked.end for asked in ranges) - 1) // DAY
    versions = store.versions(interval, day_of_number(first), day_of_number(last), symbols)
    held = versions.select("symbol", pl.col("date").to_physical()).iter_rows()
    return clip(ranges, day_extents(held, lasts, interval))


def store_bars(store: BarStore, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
    """Return the bars of `ranges` in few reads, each of a bounded number of symbol-days."""
    import polars as pl

    found = [empty_frame()]
    for first, last, symbols in _reads(days_of(ranges)):
        start, end = first * DAY, (last + 1) * DAY
        asked = [each for each in ranges if each.start < end and each.end > start]
        found.append(inside(store.read(interval, sorted(symbols), start, end), asked))
    return pl.concat(found)


def _reads(days: Mapping[int, set[str]]) -> Iterator[tuple[int, int, set[str]]]:
    """Yield first day, last day and symbols of each read.

    A store is asked for a block of days and symbols: neighbouring days are one read as long as
    it is at most about half in vain.
    """
    first = last = needed = 0
    symbols: set[str] = set()
    for day, own in days.items():
        union = symbols | own
        size = len(union) * (day + 1 - first)
        useful = 2 * (needed + len(own)) + _SPARE_SYMBOL_DAYS
        if symbols and size <= min(useful, MOST_SYMBOL_DAYS):
            last, symbols, needed = day, union, needed + len(own)
            continue
        if symbols:
            yield first, last, symbols
        first, last, symbols, needed = day, day, own, len(own)
    if symbols:
        yield first, last, symbols
