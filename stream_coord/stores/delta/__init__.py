"""The bar store that is a Delta Lake table: a directory or a bucket that other engines read too.

The table is partitioned by interval and UTC date. Every (interval, date, symbol) lies in exactly
one live file. A write makes one new file a date (several if there is much of it); it takes in the
files whose bars it changes and the small ones, so that a date has full files and small ones that
shrink geometrically. Their number, and how often a bar is rewritten, grow with a logarithm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from secrets import SystemRandom
from typing import TYPE_CHECKING

from stream_coord.clock import Clock, SystemClock
from stream_coord.errors import StoreConflictError, StoreError
from stream_coord.interval import DAY, Interval
from stream_coord.stores.base import VersionedBars, WriteOutcome
from stream_coord.stores.delta.files import SMALL_FILE_ROWS, BarFile, BarFiles
from stream_coord.stores.delta.log import DeltaLog, NewFile, Snapshot
from stream_coord.stores.merge import KEY, join_outcomes, merge_bars, normal_frame, split_days

if TYPE_CHECKING:
    import polars as pl

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_ATTEMPTS = 12


@dataclass(frozen=True)
class _DayPlan:
    """What a write does to one date.

    Attributes:
        base: The date's live files that the plan was made for.
        outcome: What becomes of the rows.
        added: The new files, if anything changes; already written.
        removed: The live files that it replaces.
    """

    base: tuple[BarFile, ...]
    outcome: WriteOutcome
    added: tuple[NewFile, ...] = ()
    removed: tuple[BarFile, ...] = ()


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
        self._sleep = sleep
        self._files = BarFiles(root)
        self._log = DeltaLog(root, clock or SystemClock(), create=create)

    @property
    def url(self) -> str:
        """The store's address, ``delta:`` and the directory or bucket."""
        return f"delta:{self._root}"

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
        plans: dict[date, _DayPlan] = {}
        try:
            for pause_seconds in _pauses():
                snapshot = self._log.snapshot()
                self._plan(str(interval), days, snapshot, plans)
                outcome = join_outcomes([plan.outcome for plan in plans.values()])
                if before_commit is not None:
                    before_commit(outcome)
                if self._commit(snapshot, plans):
                    return outcome
                self._sleep(pause_seconds)
            raise StoreConflictError(
                f"other writers of {self.url} committed first {_ATTEMPTS} times",
                "Nothing was stored; run it again when they are done.",
            )
        except BaseException:
            self._discard_uncommitted(plans)
            raise

    def versions(
        self, interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return the data versions of the UTC dates first..last; see `BarStore.versions`."""
        groups = self._groups(interval, _day_start(first), _day_start(last) + DAY, symbols)
        return _versions(groups)

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

    def _plan(
        self,
        interval: str,
        days: Mapping[date, pl.DataFrame],
        snapshot: Snapshot,
        plans: dict[date, _DayPlan],
    ) -> None:
        """Bring `plans` up to date; a date that nobody else has written keeps its plan."""
        live = snapshot.files.get(interval, {})
        for day, bars in days.items():
            base = live.get(day, ())
            old = plans.get(day)
            if old is not None and old.base == base:
                continue
            for new in old.added if old is not None else ():
                self._files.discard(new.file)
            plans[day] = self._plan_day(interval, day, bars, base)

    def _plan_day(
        self, interval: str, day: date, bars: pl.DataFrame, base: tuple[BarFile, ...]
    ) -> _DayPlan:
        import polars as pl

        groups = self._files.groups(base)
        symbols = bars["symbol"].unique().to_list()
        stored = self._files.read(groups.filter(pl.col("symbol").is_in(symbols)))
        merge = merge_bars(stored, bars)
        changed = pl.col("symbol").is_in(merge.changed_symbols)
        new = merge.bars.filter(changed)
        if new.is_empty():
            return _DayPlan(base, merge.outcome)
        removed = _files_to_replace(groups, groups.filter(changed), new.height)
        kept = self._files.read(groups.filter(pl.col("path").is_in(list(removed)) & ~changed))
        merged = new if kept.is_empty() else pl.concat([kept, new]).sort(KEY)
        added = tuple(NewFile(*each) for each in self._files.write(interval, day, merged))
        return _DayPlan(base, merge.outcome, added, tuple(f for f in base if f.path in removed))

    def _commit(self, snapshot: Snapshot, plans: Mapping[date, _DayPlan]) -> bool:
        added = [new for plan in plans.values() for new in plan.added]
        removed = [file for plan in plans.values() for file in plan.removed]
        return not added or self._log.commit(snapshot, added, removed)

    def _discard_uncommitted(self, plans: Mapping[date, _DayPlan]) -> None:
        """Delete the new files of a write that was stopped, unless its commit came through."""
        written = {new.file for plan in plans.values() for new in plan.added}
        with suppress(StoreError):  # what stopped the write is the error to report
            for file in written - self._log.snapshot().live:
                self._files.discard(file)


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
    return (day.toordinal() - _EPOCH_DAY) * DAY


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait after each attempt: doubling up to 1, half of it by chance."""
    chance = SystemRandom()
    for attempt in range(_ATTEMPTS):
        yield min(1.0, 0.01 * 2**attempt) * chance.uniform(0.5, 1.0)
