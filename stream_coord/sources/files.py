"""Files as sources: read once, into a store that goes with the process, then asked like a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.bars import Symbol
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import InputFileError, SourceError, UsageError
from stream_coord.interval import Interval
from stream_coord.sources.base import Part, RawBars, find_files
from stream_coord.sources.csv import CsvFormat
from stream_coord.sources.doubts import Doubts, PartOrder
from stream_coord.sources.lean import LeanDay, LeanFormat
from stream_coord.sources.options import (
    CsvOptions,
    LeanOptions,
    RowOptions,
    in_settings,
    path_of,
    read_options,
)
from stream_coord.sources.parquet import ParquetFormat
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import Span, clip, joined
from stream_coord.sources.shelf import Shelf
from stream_coord.sources.steps import Steps
from stream_coord.sources.store import store_coverage

if TYPE_CHECKING:
    import polars as pl

    from stream_coord.stores.base import BarStore


class TableFilesSource:
    """A `BarSource` of CSV or Parquet files: a file, or all of a folder.

    They are read when the first question comes, all of them, and then cover what a store of their
    bars would (see `StoreSource`), but for the days of rows whose time or symbol cannot be read.

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
        covered = store_coverage(self._store(interval), interval, ranges, self._shelf.lasts)
        return self._shelf.doubts.certain(
            ranges, covered, interval, lambda parts: self._shelf.good(interval, parts)
        )

    @property
    def troubles(self) -> list[str]:
        """What could not be read, and is not covered therefore; a text for each file."""
        return self._shelf.doubts.troubles

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
            steps = Steps(interval)
            for path in find_files([self._path], self._format):
                for part in self._format.parts(path, interval):
                    self._take(part, interval, steps)
            steps.check(str(self._path))
            self._shelf.flush(interval)
            self._loaded = {interval}
        return self._shelf.store

    def _take(self, part: Part, interval: Interval, steps: Steps) -> None:
        order, own = PartOrder(), Steps(interval)

        def see(raw: RawBars, good: pl.DataFrame) -> None:
            order.add(raw.frame)
            own.add(good)

        self._shelf.take(part, interval, see)
        own.check(part.name)
        steps.merge(own)
        for symbol, span in order.spans():
            self._shelf.doubts.add(symbol, span)


class LeanSource:
    """A `BarSource` that is a folder of LEAN's trade files.

    Only files of the symbols and dates that are asked are read, each once. A file covers its day
    of the symbols whose bars it holds; a symbol's newest file up to its last bar, and one with a
    line whose time cannot be read only the minutes of its bars. A file that cannot be read at all
    covers nothing, and is tried again at the next question.

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
        self._failed = Doubts()

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts that lie on days with a file; see `BarSource.coverage`.

        Raises:
            SourceError: no file of what is asked can be read.
            StreamCoordError: the files cannot be found.
        """
        self._load(interval, ranges)
        symbols = {asked.symbol for asked in ranges}
        covered = clip(ranges, {name: joined(self._held[interval, name]) for name in symbols})
        doubts = Doubts()
        doubts.merge(self._shelf.doubts)
        doubts.merge(self._failed)
        return doubts.certain(
            ranges, covered, interval, lambda parts: self._shelf.good(interval, parts)
        )

    @property
    def troubles(self) -> list[str]:
        """What could not be read so far, and is not covered therefore."""
        return [*self._shelf.doubts.troubles, *self._failed.troubles]

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the files' bars; see `BarSource.bars`, and `Shelf.bars` of bad rows.

        Raises:
            StreamCoordError: the files cannot be found.
        """
        self._load(interval, ranges)
        return self._shelf.bars(interval, ranges)

    def close(self) -> None:
        """Remove what was kept aside."""
        self._read.clear()
        self._held.clear()
        self._failed = Doubts()
        self._shelf.close()
        self.__dict__.pop("_files", None)

    @cached_property
    def _files(self) -> dict[Interval, dict[str, list[tuple[Path, LeanDay]]]]:
        """The files by interval and symbol, in the order of their days, as their paths tell."""
        files: dict[Interval, dict[str, list[tuple[Path, LeanDay]]]] = {}
        for path in find_files([self._path], self._format):
            try:
                day = self._format.day(path)
            except UsageError:  # told when it is asked for
                day = self._format.day_of_any_zone(path)
            files.setdefault(day.interval, {}).setdefault(day.symbol, []).append((path, day))
        return files

    def _load(self, interval: Interval, ranges: Sequence[BarRange]) -> None:
        """Read the files of these symbols and days that have not been read."""
        new: dict[Path, tuple[LeanDay, bool, set[str]]] = {}
        for asked in ranges:
            files = self._of(interval, asked.symbol)
            newest = max((day.start for _, day in files), default=0)
            for path, day in files:
                if day.start < asked.end and asked.start < day.end and path not in self._read:
                    new.setdefault(path, (day, day.start == newest, set()))[2].add(asked.symbol)
        self._failed = Doubts()
        try:
            for path in sorted(new):
                self._read_file(path, interval, *new[path])
            self._shelf.flush(interval)
        except BaseException:
            self.close()  # begun anew at the next question
            raise

    def _read_file(
        self, path: Path, interval: Interval, day: LeanDay, is_newest: bool, asked: set[str]
    ) -> None:
        """Read a file; that it cannot be read is told of the symbols asked for, no others."""

        def see(raw: RawBars, _: pl.DataFrame) -> None:
            for symbol in raw.frame.filter(raw.frame["start"].is_null())["symbol"].unique():
                self._shelf.doubts.add(symbol, (day.start, day.end))

        lasts: dict[str, int] = {}
        try:
            for part in self._format.parts(path, interval):
                lasts |= self._shelf.take(part, interval, see)
        except (InputFileError, SourceError, UsageError) as error:
            self._failed.troubles.append(in_settings(error, ". "))
            for symbol in asked:
                self._failed.add(symbol, (day.start, day.end))
            return
        self._read.add(path)
        for symbol, last in lasts.items():
            end = min(day.end, last + interval.micros) if is_newest else day.end
            self._held[interval, symbol].append((day.start, end))

    def _of(self, interval: Interval, symbol: str) -> list[tuple[Path, LeanDay]]:
        """Return the files of a symbol, or of the future that it is a contract of."""
        files = self._files.get(interval, {})
        return files.get(symbol, []) or files.get(symbol.rpartition(".")[0], [])


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
