"""What every bar store promises, and the checksum that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol

from stream_coord.interval import Interval

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True)
class WriteOutcome:
    """What became of the rows of one write.

    Attributes:
        counts: One row per (symbol, date) of the write, with the columns ``symbol`` (String),
            ``date`` (Date, UTC), ``stored``, ``duplicates``, ``revised`` (Int64). Their sum over
            the three is the number of rows written.
        revisions: The revised rows: ``symbol``, ``start``, the values that were stored as
            ``old_open, old_high, old_low, old_close, old_volume`` and the new ones as ``open`` ...
            ``volume``.
        fates: One row per row of the write, in any order: ``symbol``, ``start``, and of the
            Booleans ``stored``, ``duplicates`` and ``revised`` one that is true. The counts sum
            them up.
    """

    counts: pl.DataFrame
    revisions: pl.DataFrame
    fates: pl.DataFrame

    @property
    def stored(self) -> int:
        """Rows with a key that the store did not hold."""
        return int(self.counts["stored"].sum())

    @property
    def duplicates(self) -> int:
        """Rows equal to what the store holds."""
        return int(self.counts["duplicates"].sum())

    @property
    def revised(self) -> int:
        """Rows that replaced other values of a stored key."""
        return int(self.counts["revised"].sum())


@dataclass(frozen=True)
class VersionedBars:
    """Bars, and the data versions that they are of: one state of the store, not two.

    Attributes:
        bars: A bar frame.
        versions: The versions of every symbol-day that was read, as `BarStore.versions` gives them.
    """

    bars: pl.DataFrame
    versions: pl.DataFrame


RETAIN_HOURS = 168
"""How long `BarStore.compact` keeps replaced files by default: a week."""


@dataclass(frozen=True)
class Compaction:
    """What a compaction did, or would do.

    Attributes:
        files_before: Files that held the store's bars; None where a store has no such files.
        files_after: Files that hold them now.
        bytes_before: What the store's bars took; None where it cannot be told.
        bytes_after: What they take now; None also where only a real run can tell.
        deleted_files: Files deleted because nobody needs them any more.
        deleted_bytes: What those took.
        notes: What else a user should know, a sentence each.
    """

    files_before: int | None
    files_after: int | None
    bytes_before: int | None
    bytes_after: int | None
    deleted_files: int = 0
    deleted_bytes: int = 0
    notes: tuple[str, ...] = ()


class BarStore(Protocol):
    """Where bars are kept, cut by interval and UTC date.

    A store depends on no calendar. Every (interval, date, symbol) has a content checksum
    (`content_checksum`) that is committed atomically with its rows, verified when its bars are
    read, and serves as its data version.
    """

    @property
    def url(self) -> str:
        """The store's address without secrets, fit to be printed."""
        ...

    def read(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> pl.DataFrame:
        """Return the bar frame of all bars with ``start <= bar.start < end``, verified.

        Args:
            interval: The bars' interval.
            symbols: Which symbols; None for all. One without bars is simply absent.
            start: UTC microseconds.
            end: UTC microseconds, exclusive; nothing is read where it is not after `start`.

        Raises:
            StoreCorruptError: stored bytes differ from what was written (names date and symbol).
        """
        ...

    def read_versioned(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> VersionedBars:
        """Return what `read` does, together with the data versions that it read."""
        ...

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None] | None = None,
    ) -> WriteOutcome:
        """Store a bar frame atomically: all of it with its checksums, or nothing.

        Args:
            interval: The bars' interval.
            bars: A bar frame; validated, no key twice.
            before_commit: Called with the outcome just before the commit, again for every retry,
                and also if nothing changes and there is nothing to commit; the last call's outcome
                is the one returned. What it raises stops the write, with nothing stored.
        """
        ...

    def versions(
        self, interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return the data versions of the UTC dates first..last; reads no bars.

        Returns:
            Columns ``date`` (Date), ``symbol`` (String), ``rows`` (Int64), ``checksum`` (String,
            32 hex digits), sorted by (date, symbol).
        """
        ...

    def intervals(self) -> list[Interval]:
        """Return the intervals that the store holds bars of, ascending; reads no bars."""
        ...

    def days(self, interval: Interval) -> list[date]:
        """Return the UTC dates that hold bars, ascending; reads no bars."""
        ...

    def spans(self, interval: Interval) -> pl.DataFrame:
        """Return each symbol's stored extent; reads no bars.

        Returns:
            Columns ``symbol`` (String), ``first``, ``last`` (Int64, starts of its first and last
            bar in UTC microseconds), ``rows`` (Int64), sorted by symbol.
        """
        ...

    def compact(
        self,
        *,
        retain_hours: int = RETAIN_HOURS,
        dry_run: bool = False,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> Compaction:
        """Make the store small and quick to read; its bars and data versions stay as they are.

        It may be stopped anywhere: the store is whole then, and a second run completes it.

        Args:
            retain_hours: How long what was replaced stays for those who still read it; without
                meaning for a store that looks after that by itself.
            dry_run: Change nothing; reads no bars.
            on_progress: Called with the parts done, all parts, and what is done.

        Raises:
            UsageError: `retain_hours` is out of range.
            StoreCorruptError: stored bytes differ from what was written.
            StoreError: the store cannot be changed.
        """
        ...

    def close(self) -> None:
        """Let go of connections; calling it again does nothing more."""
        ...


def content_checksum(columns: Iterable[NDArray[np.generic]]) -> str:
    """Return the checksum of one (interval, date, symbol) as 32 hex digits.

    XXH3-128 over the little-endian bytes of the columns start (int64), open, high, low, close,
    volume (float64), one whole column after the other, rows ascending by start. It depends on no
    file layout and no backend.

    Args:
        columns: The six contiguous arrays of equal length, in that order.
    """
    from xxhash import xxh3_128

    digest = xxh3_128()
    for column in columns:
        digest.update(column.data)
    return digest.hexdigest()
