"""Bars that were read from files, kept aside in a store that goes with the process."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, FIELDS, SYMBOL_PATTERN
from stream_coord.compute.validate import END_OF_TIME, collapse, validate
from stream_coord.errors import SourceError
from stream_coord.interval import DAY, Interval
from stream_coord.sources.base import Part, RawBars
from stream_coord.sources.doubts import Doubts
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import inside
from stream_coord.sources.store import store_bars
from stream_coord.spool import Spool
from stream_coord.stores import open_store

if TYPE_CHECKING:
    import polars as pl

    from stream_coord.stores.base import BarStore

BATCH_ROWS = 1_000_000
"""Rows that are stored at a time."""
MOST_BAD_ROWS = 1_000_000


class Shelf:
    """Bars that were read from files, in a store in a temporary folder.

    The folder goes with `close`, with this object, or when the interpreter ends.

    Args:
        allow_nonpositive: The symbols whose prices may be zero or negative.

    Attributes:
        lasts: By symbol the start of its last bar.
        doubts: Where rows are whose time or symbol cannot be read.
    """

    def __init__(self, allow_nonpositive: Collection[str]) -> None:
        self.lasts: dict[str, int] = {}
        self.doubts = Doubts()
        self._bad_rows = 0
        self._allowed = allow_nonpositive
        self._store: BarStore | None = None
        self._remove: weakref.finalize[[str], Shelf] | None = None
        self._spool: Spool | None = None
        self._bad: list[pl.DataFrame] = []

    @property
    def store(self) -> BarStore:
        """The store; made when it is first needed."""
        if self._store is None:
            folder = tempfile.mkdtemp(prefix="stream-coord-")
            self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            # Delta: as quick to fill as SQLite, and quicker to read many symbols of.
            self._store = open_store("delta:bars", Path(folder), create=True)
        return self._store

    def take(
        self, part: Part, interval: Interval, see: Callable[[RawBars, pl.DataFrame], None]
    ) -> dict[str, int]:
        """Read a part to its end, and return by symbol the start of its last good bar.

        Args:
            part: The part.
            interval: The bars' interval.
            see: Called with every piece of it, and the good bars in it.

        Raises:
            InputFileError: it cannot be read.
            SourceError: no row of it is a bar, or a million rows are none.
        """
        lasts: dict[str, int] = {}
        reason = None
        unread = _Unread(part.name)
        for raw in part.pieces():
            judged = validate(raw.frame, interval, self._allowed)
            see(raw, judged.good)
            for symbol, last in _lasts(judged.good):
                lasts[symbol] = max(last, lasts.get(symbol, last))
            self._spool = self._spool or _spool_of_days()
            self._spool.add(judged.good.select(COLUMNS))
            if len(judged.rejects):
                reason = reason or judged.rejects["reason"][0]
                self._bad.append(judged.rejects.select(COLUMNS[:2]).drop_nulls())
                self._bad_rows += len(judged.rejects)
                self.doubts.add_nameless(unread.take(judged.rejects), interval)
            if self._bad_rows > MOST_BAD_ROWS:
                raise SourceError(f"too many rows are no bars; one of {part.name} is {reason}")
        if reason and not lasts:
            raise SourceError(f"no row of {part.name} is a bar; the first is rejected: {reason}")
        if unread.count:
            self.doubts.troubles.append(str(unread))
        for symbol, last in lasts.items():
            self.lasts[symbol] = max(last, self.lasts.get(symbol, last))
        return lasts

    def flush(self, interval: Interval) -> None:
        """Store what was read; of the rows of one key the last one wins.

        Raises:
            StreamCoordError: there is no room for it.
        """
        spool, self._spool = self._spool, None
        # Day by day: a store would write a day's bars again with each batch that has some.
        for lot in spool.drain() if spool else ():
            self.store.write(interval, collapse(lot, interval).bars)

    def good(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the bars of `ranges`."""
        return store_bars(self.store, interval, ranges)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the bars of `ranges`, and for a row that is no bar one that is none either.

        Its values are NaN where no good row has its symbol and start: its minute is not empty, but
        what it holds cannot be told.
        """
        import polars as pl

        good = self.good(interval, ranges)
        if not self._bad:
            return good
        self._bad = [pl.concat(self._bad).unique()]
        bad = inside(self._bad[0], ranges).join(good, on=COLUMNS[:2], how="anti")
        return pl.concat([good, bad.with_columns(pl.lit(math.nan).alias(name) for name in FIELDS)])

    def close(self) -> None:
        """Remove everything."""
        store, self._store = self._store, None
        self._spool, self._bad, self._bad_rows = None, [], 0
        self.lasts, self.doubts = {}, Doubts()
        if store is not None:
            store.close()
        if self._remove is not None:
            self._remove()
            self._remove = None


def _spool_of_days() -> Spool:
    import polars as pl

    return Spool(BATCH_ROWS, [pl.col("start") // DAY])


class _Unread:
    """The rows of a part whose time or symbol cannot be read."""

    def __init__(self, name: str) -> None:
        self.count = 0
        self._name = name
        self._first = ""

    def take(self, rejects: pl.DataFrame) -> pl.Series:
        """Take note of those among `rejects`; return the times of those without a symbol."""
        import polars as pl

        timed = pl.col("start").is_between(0, END_OF_TIME, closed="left").fill_null(value=False)
        named = pl.col("symbol").str.contains(SYMBOL_PATTERN).fill_null(value=False)
        unread = rejects.filter(~(timed & named))
        if len(unread) and not self.count:
            self._first = f"row {unread['row'][0]} of {self._name}: {unread['reason'][0]}"
        self.count += len(unread)
        return unread.filter(timed)["start"]

    def __str__(self) -> str:
        more = f", and {self.count - 1} more rows" if self.count > 1 else ""
        return f"{self._first}{more}; the bars around it cannot be told"


def _lasts(bars: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """Return each symbol and the start of its last bar."""
    import polars as pl

    found: Iterator[tuple[str, int]] = (
        bars.group_by("symbol").agg(pl.col("start").max()).iter_rows()
    )
    return found
