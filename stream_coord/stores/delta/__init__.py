"""The bar store that is a Delta Lake table: a directory or a bucket that other engines read too.

The table is partitioned by interval and UTC date. Every (interval, date, symbol) lies in exactly
one live file. A write makes one new file a date (several if there is much of it); it takes in the
files whose bars it changes and the small ones, so that a date has full files and small ones that
shrink geometrically. Their number, and how often a bar is rewritten, grow with a logarithm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stream_coord.clock import Clock, SystemClock, day_number
from stream_coord.interval import DAY, Interval
from stream_coord.stores.base import RETAIN_HOURS, Compaction, VersionedBars, WriteOutcome
from stream_coord.stores.delta.commits import Day, DayChange, commit_days
from stream_coord.stores.delta.compaction import Compactor
from stream_coord.stores.delta.files import SMALL_FILE_ROWS, BarFile, BarFiles
from stream_coord.stores.delta.log import DeltaLog, NewFile
from stream_coord.stores.merge import (
    KEY,
    empty_outcome,
    join_outcomes,
    merge_bars,
    normal_frame,
    split_days,
)

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class _DayMerge(DayChange):
    """What a write does to one date, and what becomes of its rows."""

    outcome: WriteOutcome


class DeltaStore:
    """A `BarStore` in a Delta Lake table; safe to share by threads and processes.

    Reads and writes see the newest commit of any process. Credentials of a bucket come from the
    environment, the way deltalake and polars read them (``AWS_ACCESS_KEY_ID``, ...).

    Args:
        root: An absolute directory, or the URL of a bucket's folder.
        create: Make the table if there is none.
        clock: Dates the replaced files, which a vacuum goes by; the wall clock by default.
        sleep: Waits so many seconds before a commit is tried again.

    Raises:
        StoreError: there is no table and `create` is false, or it cannot be opened.
    """

    def __init__(
        self,
        root: str,
        *,
        create: bool = False,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._files = BarFiles(root)
        self._log = DeltaLog(root, self._clock, create=create)

    @property
    def url(self) -> str:
        """The store's address, ``delta:`` and the directory or bucket."""
        return self._log.url

    def read(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> pl.DataFrame:
        """Return the verified bars of ``[start, end)``; see `BarStore.read`.

        Whole UTC dates of the asked symbols are read and compared with their checksums, then cut.
        """
        return self.read_versioned(interval, symbols, start, end).bars

    def read_versioned(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> VersionedBars:
        """Return the bars of `read` and their data versions, of one commit."""
        import polars as pl

        groups = self._groups(interval, start, end, symbols)
        bars = self._files.read(groups)
        whole = (pl.col("first") >= start) & (pl.col("last") < end)
        if not groups.select(whole.all()).item():
            bars = bars.filter(pl.col("start").is_between(start, end, closed="left"))
        return VersionedBars(bars, _versions(groups))

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None] | None = None,
    ) -> WriteOutcome:
        """Store a bar frame in one commit, or in none if nothing changes; see `BarStore.write`.

        Raises:
            StoreConflictError: other writers committed first, time and again.
            StoreCorruptError: stored bars that the write touches are damaged.
            StoreError: `bars` is no bar frame, or nothing can be written.
        """
        days = split_days(normal_frame(bars))
        outcome = empty_outcome()

        def plan(day: Day, base: tuple[BarFile, ...]) -> _DayMerge:
            return self._merge_day(day, days[day[1]], base)

        def tell(merges: list[_DayMerge]) -> None:
            nonlocal outcome
            outcome = join_outcomes([merge.outcome for merge in merges])
            if before_commit is not None:
                before_commit(outcome)

        named = [(str(interval), day) for day in days]
        commit_days(self._log, self._files, named, plan, self._sleep, before_commit=tell)
        return outcome

    def versions(
        self, interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return the data versions of the UTC dates first..last; see `BarStore.versions`."""
        groups = self._groups(interval, _day_start(first), _day_start(last) + DAY, symbols)
        return _versions(groups)

    def intervals(self) -> list[Interval]:
        """Return the intervals that the store holds bars of, ascending."""
        return sorted(Interval.parse(name) for name in self._log.snapshot().files)

    def days(self, interval: Interval) -> list[date]:
        """Return the UTC dates that hold bars, ascending."""
        return list(self._log.snapshot().files.get(str(interval), {}))

    def spans(self, interval: Interval) -> pl.DataFrame:
        """Return each symbol's stored extent; see `BarStore.spans`."""
        import polars as pl

        days = self.days(interval)
        end = _day_start(days[-1]) + DAY if days else 0
        groups = self._groups(interval, _day_start(days[0]) if days else 0, end, None)
        extent = (pl.col("first").min(), pl.col("last").max(), pl.col("rows").sum())
        return groups.group_by("symbol").agg(*extent).sort("symbol")

    def compact(
        self,
        *,
        retain_hours: int = RETAIN_HOURS,
        dry_run: bool = False,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> Compaction:
        """Merge small files, then delete files that nobody needs; see `BarStore.compact`.

        A file is deleted when it went out of use, or was written and never came into use, more
        than `retain_hours` (1 to 720) ago. In a bucket none is deleted.
        """
        compactor = Compactor(self._root, self._log, self._files, self._clock, self._sleep)
        return compactor.run(retain_hours, dry_run=dry_run, on_progress=on_progress)

    def close(self) -> None:
        """Do nothing: no file stays open between two calls."""

    def _groups(
        self, interval: Interval, start: int, end: int, symbols: Sequence[str] | None
    ) -> pl.DataFrame:
        """Return the group table of all dates that ``[start, end)`` touches."""
        import polars as pl

        days = self._log.snapshot().files.get(str(interval), {})
        files = [
            file
            for day, day_files in days.items()
            if max(start, _day_start(day)) < min(end, _day_start(day) + DAY)
            for file in day_files
        ]
        groups = self._files.groups(files)
        return groups if symbols is None else groups.filter(pl.col("symbol").is_in(list(symbols)))

    def _merge_day(self, day: Day, bars: pl.DataFrame, base: tuple[BarFile, ...]) -> _DayMerge:
        import polars as pl

        groups = self._files.groups(base)
        symbols = bars["symbol"].unique().to_list()
        stored = self._files.read(groups.filter(pl.col("symbol").is_in(symbols)))
        merge = merge_bars(stored, bars)
        changed_symbols = merge.changed_symbols
        changed = pl.col("symbol").is_in(changed_symbols)
        every = len(changed_symbols) == len(symbols)  # the rule, and then there is nothing to cut
        new = merge.bars if every else merge.bars.filter(changed)
        if new.is_empty():
            return _DayMerge(base=base, outcome=merge.outcome)
        removed = _files_to_replace(groups, groups.filter(changed), new.height)
        kept = self._files.read(groups.filter(pl.col("path").is_in(list(removed)) & ~changed))
        merged = new if kept.is_empty() else pl.concat([kept, new]).sort(KEY)
        added = tuple(NewFile(*each) for each in self._files.write(*day, merged))
        gone = tuple(file for file in base if file.path in removed)
        return _DayMerge(base=base, added=added, removed=gone, outcome=merge.outcome)


def _files_to_replace(groups: pl.DataFrame, changed: pl.DataFrame, new_rows: int) -> set[str]:
    """Return the paths of a date's files that a new file takes in.

    Those are the files with changed groups, and of the small others each that has less than twice
    the rows gathered so far, smallest first: each of those left is at least twice the next one.
    """
    import polars as pl

    sizes = groups.group_by("path").agg(pl.col("rows").sum()).sort("rows", "path")
    replaced = set(changed["path"])
    total = new_rows + sum(rows for path, rows in sizes.iter_rows() if path in replaced)
    for path, rows in sizes.iter_rows():
        if path not in replaced and rows < min(2 * total, SMALL_FILE_ROWS):
            replaced.add(path)
            total += rows
    return replaced


def _versions(groups: pl.DataFrame) -> pl.DataFrame:
    return groups.select("date", "symbol", "rows", "checksum").sort("date", "symbol")


def _day_start(day: date) -> int:
    return day_number(day) * DAY
