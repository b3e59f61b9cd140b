"""Files as sources: read once, into a store that goes with the process, then asked like a store."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, FIELDS, Symbol
from stream_coord.compute.validate import collapse, validate
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import SourceError
from stream_coord.interval import Interval
from stream_coord.sources.base import Part, find_files
from stream_coord.sources.csv import CsvFormat
from stream_coord.sources.lean import LeanDay, LeanFormat
from stream_coord.sources.options import (
    CsvOptions,
    LeanOptions,
    RowOptions,
    path_of,
    read_options,
)
from stream_coord.sources.parquet import ParquetFormat
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import Span, clip, inside, joined
from stream_coord.sources.store import store_bars, store_coverage
from stream_coord.stores import open_store

if TYPE_CHECKING:
    import polars as pl

    from stream_coord.stores.base import BarStore

BATCH_ROWS = 1_000_000
"""Rows that are stored at a time."""
MOST_BAD_ROWS = 1_000_000


class TableFilesSource:
    """A `BarSource` of CSV or Parquet files: a file, or all of a folder.

    They are read when the first question comes, all of them, and then cover what a store of their
    bars would (see `StoreSource`).

    Args:
        settings: Its table; `path` is the file or the folder, and the options are what ``sc
            import`` is told of such files.
        root: The folder that a relative path starts from.

    Raises:
        UsageError: a setting is missing, unknown or impossible; as `ConfigError` mostly.
    """

    def __init__(self, settings: SourceSettings, root: Path) -> None:
        self._path = path_of(settings, root)
        self._format = _csv(settings) if settings.kind == "csv" else _parquet(settings)
        self._shelf = Shelf(settings.allow_nonpositive)
        self._loaded: set[Interval] = set()

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts that lie on dates with bars; see `BarSource.coverage`.

        Raises:
            StreamCoordError: the files cannot be found or read.
        """
        return store_coverage(self._store(interval), interval, ranges)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the files' bars; see `BarSource.bars`, and `Shelf.bars` of bad rows.

        Raises:
            StreamCoordError: the files cannot be found or read.
        """
        self._store(interval)
        return self._shelf.bars(interval, ranges)

    def close(self) -> None:
        """Remove what was kept aside."""
        self._loaded.clear()
        self._shelf.close()

    def _store(self, interval: Interval) -> BarStore:
        if interval not in self._loaded:
            self._shelf.close()  # what an attempt left that did not come to its end
            for path in find_files([self._path], self._format):
                for part in self._format.parts(path, interval):
                    self._shelf.take(part, interval)
            self._shelf.flush(interval)
            self._loaded = {interval}
        return self._shelf.store


class LeanSource:
    """A `BarSource` that is a folder of LEAN's trade files.

    Only files of the symbols and dates that are asked are read, each once. A file covers its day
    of the symbols whose bars it holds.

    Args:
        settings: Its table; `path` is the folder, the options are ``tz`` and ``symbol``.
        root: The folder that a relative path starts from.

    Raises:
        UsageError: a setting is missing, unknown or impossible; as `ConfigError` mostly.
    """

    def __init__(self, settings: SourceSettings, root: Path) -> None:
        options = read_options(LeanOptions, settings.options)
        self._path = path_of(settings, root)
        self._format = LeanFormat(tz=options.tz, symbol=_symbol(options.symbol))
        self._shelf = Shelf(settings.allow_nonpositive)
        self._read: set[Path] = set()
        self._held: defaultdict[tuple[Interval, str], list[Span]] = defaultdict(list)

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts that lie on days with a file; see `BarSource.coverage`.

        Raises:
            StreamCoordError: the files cannot be found or read.
        """
        self._load(interval, ranges)
        symbols = {asked.symbol for asked in ranges}
        return clip(ranges, {name: joined(self._held[interval, name]) for name in symbols})

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the files' bars; see `BarSource.bars`, and `Shelf.bars` of bad rows.

        Raises:
            StreamCoordError: the files cannot be found or read.
        """
        self._load(interval, ranges)
        return self._shelf.bars(interval, ranges)

    def close(self) -> None:
        """Remove what was kept aside."""
        self._read.clear()
        self._held.clear()
        self._shelf.close()
        self.__dict__.pop("_files", None)

    @cached_property
    def _files(self) -> dict[Interval, dict[str, list[tuple[Path, LeanDay]]]]:
        """The files by interval and symbol, as their paths tell."""
        files: dict[Interval, dict[str, list[tuple[Path, LeanDay]]]] = {}
        for path in find_files([self._path], self._format):
            day = self._format.day(path)
            files.setdefault(day.interval, {}).setdefault(day.symbol, []).append((path, day))
        return files

    def _load(self, interval: Interval, ranges: Sequence[BarRange]) -> None:
        """Read the files of these symbols and days that have not been read."""
        new = {
            path: day
            for asked in ranges
            for path, day in self._of(interval, asked.symbol)
            if day.start < asked.end and asked.start < day.end and path not in self._read
        }
        try:
            for path in sorted(new):
                for part in self._format.parts(path, interval):
                    for symbol in self._shelf.take(part, interval):
                        self._held[interval, symbol].append((new[path].start, new[path].end))
            self._shelf.flush(interval)
        except BaseException:
            self.close()  # begun anew at the next question
            raise
        self._read |= new.keys()

    def _of(self, interval: Interval, symbol: str) -> list[tuple[Path, LeanDay]]:
        """Return the files of a symbol, or of the future that it is a contract of."""
        files = self._files.get(interval, {})
        return files.get(symbol, []) or files.get(symbol.rpartition(".")[0], [])


class Shelf:
    """Bars that were read from files, in a store in a temporary folder.

    The folder goes with `close`, with this object, or when the interpreter ends.

    Args:
        allow_nonpositive: The symbols whose prices may be zero or negative.
    """

    def __init__(self, allow_nonpositive: Collection[str]) -> None:
        self._allowed = allow_nonpositive
        self._store: BarStore | None = None
        self._remove: weakref.finalize[[str], Shelf] | None = None
        self._waiting: list[pl.DataFrame] = []
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

    def take(self, part: Part, interval: Interval) -> set[str]:
        """Read a part to its end, and return the symbols that it has good bars of.

        Raises:
            InputFileError: it cannot be read.
            SourceError: no row of it is a bar, or a million are none.
        """
        symbols: set[str] = set()
        reason = None
        for raw in part.pieces():
            judged = validate(raw.frame, interval, self._allowed)
            symbols |= set(judged.good["symbol"].unique())
            self._waiting.append(judged.good.select(COLUMNS))
            if len(judged.rejects):
                reason = reason or judged.rejects["reason"][0]
                self._bad.append(judged.rejects.select(COLUMNS[:2]).drop_nulls())
            if sum(map(len, self._waiting)) >= BATCH_ROWS:
                self.flush(interval)
        if reason and not symbols:
            raise SourceError(f"no row of {part.name} is a bar; the first is rejected: {reason}")
        if sum(map(len, self._bad)) > MOST_BAD_ROWS:
            raise SourceError(f"too many rows are no bars; one of {part.name} is {reason}")
        return symbols

    def flush(self, interval: Interval) -> None:
        """Store what was read; of the rows of one key the last one wins.

        Raises:
            StoreError: there is no room for it.
        """
        import polars as pl

        rows, self._waiting = self._waiting, []
        if rows:
            self.store.write(interval, collapse(pl.concat(rows), interval).bars)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the bars of `ranges`, and for a row that is no bar one that is none either.

        Its values are NaN where no good row has its symbol and start: its minute is not empty, but
        what it holds cannot be told.
        """
        import polars as pl

        good = store_bars(self.store, interval, ranges)
        if not self._bad:
            return good
        self._bad = [pl.concat(self._bad).unique()]
        bad = inside(self._bad[0], ranges).join(good, on=COLUMNS[:2], how="anti")
        return pl.concat([good, bad.with_columns(pl.lit(math.nan).alias(name) for name in FIELDS)])

    def close(self) -> None:
        """Remove everything."""
        store, self._store = self._store, None
        self._waiting, self._bad = [], []
        if store is not None:
            store.close()
        if self._remove is not None:
            self._remove()
            self._remove = None


def _csv(settings: SourceSettings) -> CsvFormat:
    options = read_options(CsvOptions, settings.options)
    return CsvFormat(
        label=options.label,
        tz=options.tz,
        symbol=_symbol(options.symbol),
        columns=options.headers,
        time_format=options.time_format,
        delimiter="\t" if options.delimiter == "\\t" else options.delimiter,
        header=options.header,
    )


def _parquet(settings: SourceSettings) -> ParquetFormat:
    options = read_options(RowOptions, settings.options)
    return ParquetFormat(
        label=options.label,
        tz=options.tz,
        symbol=_symbol(options.symbol),
        columns=options.headers,
        time_format=options.time_format,
    )


def _symbol(text: str | None) -> Symbol | None:
    return None if text is None else Symbol.parse(text)
