"""Copying bars from one store to another, whatever keeps them: only what differs, date by date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from stream_coord.errors import StoreCorruptError, UsageError, near_miss
from stream_coord.interval import Interval
from stream_coord.stores.base import BarStore, VersionedBars
from stream_coord.stores.merge import KEY
from stream_coord.storing import (
    SLICE_ROWS,
    Damage,
    Progress,
    SymbolDay,
    read_narrowing,
    symbol_slices,
)

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class CopyChoice:
    """What to copy.

    Attributes:
        symbols: Which symbols; None for all.
        first: The first UTC date; None for the first stored.
        last: The last UTC date; None for the last stored.
    """

    symbols: Sequence[str] | None = None
    first: date | None = None
    last: date | None = None

    def __post_init__(self) -> None:
        """Refuse a range that is empty."""
        if self.first and self.last and self.first > self.last:
            raise UsageError(
                f"the range {self.first} to {self.last} is empty", "Give the earlier date first."
            )

    def days(self, store: BarStore, interval: Interval) -> list[date]:
        """Return the store's dates of the range."""
        first, last = self.first or date.min, self.last or date.max
        return [day for day in store.days(interval) if first <= day <= last]


@dataclass
class Copied:
    """What became of a copy, or would: ``symbol_days = copied + skipped`` and those damaged.

    Attributes:
        symbol_days: The symbol-days of the source that were asked for.
        copied: Those of them that brought a new or another bar.
        skipped: Those that brought none.
        rows: The bars that were compared one by one: ``stored + duplicates + revised``.
        stored: Bars that the target did not hold.
        duplicates: Bars that it held already.
        revised: Bars that replaced others of the same key.
        differing: Symbol-days that still differ, because the target holds bars that the source
            has not.
        damaged: Symbol-days of the source that cannot be read, and were left out.
    """

    symbol_days: int = 0
    copied: int = 0
    skipped: int = 0
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    revised: int = 0
    differing: list[SymbolDay] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)


def copy_store(
    source: BarStore,
    target: BarStore | None,
    choice: CopyChoice,
    *,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Copied:
    """Copy the symbol-days whose checksums differ, as an import would: a bar replaces another one.

    What only the target holds stays. Every write is atomic, and a copy that was stopped goes on
    where it was when it is started again.

    Args:
        source: Where bars are read, and verified.
        target: Where they go; None for one that does not exist yet, in a dry run.
        choice: Which of them.
        dry_run: Compare checksums only; `copied` counts those that differ.
        on_progress: Told before each date.

    Raises:
        UsageError: both are the same store, or the source has nothing of a symbol.
        StoreError: one of them cannot be read or written.
    """
    if target is not None and _place(source.url) == _place(target.url):
        raise UsageError(f"{source.url} cannot be copied onto itself", "Give two stores.")
    _check_symbols(source, choice.symbols)
    copying = _Copying(source, target, choice.symbols)
    plan = [(i, day) for i in source.intervals() for day in choice.days(source, i)]
    for done, (interval, day) in enumerate(plan):
        if on_progress is not None:
            on_progress(done, len(plan), str(day))
        wanted = copying.differing(interval, day)
        if wanted is None:
            continue
        if dry_run:
            copying.copied.copied += wanted.height
        else:
            copying.add(interval, day, wanted)
    copying.flush()
    return copying.copied


class _Copying:
    """A copy on its way: small dates wait until they are worth a write."""

    def __init__(
        self, source: BarStore, target: BarStore | None, symbols: Sequence[str] | None
    ) -> None:
        self.copied = Copied()
        self._source = source
        self._target = target
        self._symbols = symbols
        self._interval: Interval | None = None
        self._waiting: list[VersionedBars] = []
        self._waiting_rows = 0

    def differing(self, interval: Interval, day: date) -> pl.DataFrame | None:
        """Return the source's versions of a date that the target does not have, if it can."""
        try:
            versions = self._source.versions(interval, day, day, self._symbols)
        except StoreCorruptError as error:
            self.copied.damaged.append(Damage(SymbolDay(interval, day, None), error.message))
            return None
        wanted = versions
        if self._target is not None:
            wanted = _unlike(versions, self._target.versions(interval, day, day, self._symbols))
        self.copied.symbol_days += versions.height
        self.copied.skipped += versions.height - wanted.height
        return wanted

    def add(self, interval: Interval, day: date, wanted: pl.DataFrame) -> None:
        """Copy these symbols of a date, now or with the dates that follow."""
        if interval != self._interval:
            self.flush()
            self._interval = interval
        for symbols in symbol_slices(wanted):
            for part in read_narrowing(self._source, interval, day, symbols):
                if isinstance(part, Damage):
                    self.copied.damaged.append(part)
                    continue
                if self._waiting_rows + part.bars.height > SLICE_ROWS:
                    self.flush()
                self._waiting.append(part)
                self._waiting_rows += part.bars.height

    def flush(self) -> None:
        """Write what waits, and look whether the target has the source's versions now."""
        import polars as pl

        if not self._waiting or self._interval is None or self._target is None:
            return
        bars = pl.concat(part.bars for part in self._waiting).sort(KEY)
        versions = pl.concat(part.versions for part in self._waiting)
        self._waiting, self._waiting_rows = [], 0
        outcome = self._target.write(self._interval, bars)
        changes = pl.col("stored") + pl.col("revised") > 0
        changed = outcome.counts.filter(changes).height
        self.copied.copied += changed
        self.copied.skipped += versions.height - changed
        self.copied.rows += bars.height
        self.copied.stored += outcome.stored
        self.copied.duplicates += outcome.duplicates
        self.copied.revised += outcome.revised
        self._compare(self._target, self._interval, versions)

    def _compare(self, target: BarStore, interval: Interval, versions: pl.DataFrame) -> None:
        symbols = versions["symbol"].unique().to_list()
        days = sorted(set(versions["date"].to_list()))
        now = target.versions(interval, days[0], days[-1], symbols)
        self.copied.differing += [
            SymbolDay(interval, day, symbol)
            for day, symbol in _unlike(versions, now).select("date", "symbol").iter_rows()
        ]


def _check_symbols(source: BarStore, symbols: Sequence[str] | None) -> None:
    if symbols is None:
        return
    known = {symbol for each in source.intervals() for symbol in source.spans(each)["symbol"]}
    unknown = [f"{symbol}{near_miss(symbol, known)}" for symbol in symbols if symbol not in known]
    if unknown:
        raise UsageError(
            f"{source.url} holds no bars of {', '.join(unknown)}",
            "Leave them out of --symbols; `sc store info` and `sc report` show what is stored.",
        )


def _unlike(versions: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `versions` with a checksum that `others` does not have there."""
    key = ["date", "symbol", "checksum"]
    return versions.join(others, on=key, how="anti", maintain_order="left")


def _place(url: str) -> str:
    """Return where a store is, the same for two ways to write one path."""
    for prefix in ("delta:", "sqlite:///"):
        path = url.removeprefix(prefix)
        if path != url and "://" not in path:
            return prefix + os.path.realpath(path)
    return url
