"""Jobs on whole stores: what one holds, and whether all of it is sound.

They go through a store date by date, and through a large date by slices of its symbols, so that
memory is set by neither the store's size nor its number of symbols.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stream_coord.clock import day_number
from stream_coord.config.files import current_folder
from stream_coord.config.masking import MaskedText, expand, mask_secrets, shown_form
from stream_coord.errors import (
    StoreCorruptError,
    StoreMissingError,
    StreamCoordError,
    UsageError,
)
from stream_coord.interval import DAY, Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore, Compaction, VersionedBars

if TYPE_CHECKING:
    import polars as pl

SLICE_ROWS = 500_000
"""Rows that are read, or written, at a time; more only where one symbol has more on one date."""

_DATABASE_SUFFIXES = {".db", ".sqlite", ".sqlite3"}

Progress = Callable[[int, int, str], None]
"""Takes the dates done, all dates, and the one at hand."""


class SymbolDay(NamedTuple):
    """A symbol on one UTC date; `symbol` is None where a whole date cannot be read."""

    interval: Interval
    date: date
    symbol: str | None


@dataclass(frozen=True)
class StoreAddress:
    """The address of a store as a user gives it.

    Attributes:
        url: The address; a `MaskedText` where it holds a secret.
    """

    url: str

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] = os.environ) -> StoreAddress:
        """Read an address, with each ``${NAME}`` replaced from the environment.

        Raises:
            UsageError: a variable is not set, or `text` is a path without a kind.
        """
        try:
            url = expand(text, environ)
        except ValueError as error:
            raise UsageError(f"the address {shown_form(text)!r}: {error}") from None
        if ":" not in url:
            raise UsageError(
                f"{url!r} is not the address of a store{_guess(url)}",
                "Write delta:PATH, sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE.",
            )
        return cls(url)

    def open(self, *, create: bool = False) -> BarStore:
        """Open the store; a relative path starts at the current folder.

        Raises:
            ConfigError: it is no address of a store.
            StoreMissingError: there is no store.
            StoreError: it cannot be opened.
        """
        return open_store(self.url, current_folder(), create=create)

    def open_if_there(self) -> BarStore | None:
        """Open the store; None where there is none yet."""
        try:
            return self.open()
        except StoreMissingError:
            return None

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Keep the address's secrets out of errors that pass through the body."""
        try:
            yield
        except StreamCoordError as error:
            secrets = self.url.secrets if isinstance(self.url, MaskedText) else ()
            error.message = mask_secrets(error.message, secrets)
            error.hint = error.hint and mask_secrets(error.hint, secrets)
            raise


@dataclass(frozen=True)
class IntervalInfo:
    """What a store holds of one interval.

    Attributes:
        interval: The interval.
        symbols: How many symbols.
        dates: How many UTC dates.
        first: The first of them.
        last: The last of them.
        rows: How many bars.
    """

    interval: Interval
    symbols: int
    dates: int
    first: date
    last: date
    rows: int


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        url: Its address without secrets.
        kind: ``delta``, ``sqlite`` or ``postgresql``.
        intervals: By interval, ascending.
        compaction: What a compaction would do; tells files and bytes.
    """

    url: str
    kind: str
    intervals: tuple[IntervalInfo, ...]
    compaction: Compaction


@dataclass(frozen=True)
class Damage:
    """Bars that cannot be read as they were written.

    Attributes:
        where: Whose bars.
        message: What is wrong.
    """

    where: SymbolDay
    message: str


@dataclass(frozen=True)
class Verification:
    """What became of reading every bar of a store.

    Attributes:
        symbol_days: The symbol-days that are sound.
        rows: Their bars.
        damaged: All that is not.
    """

    symbol_days: int
    rows: int
    damaged: tuple[Damage, ...]


def store_info(store: BarStore) -> StoreInfo:
    """Return what a store holds; reads no bars."""
    kind = store.url.partition(":")[0].partition("+")[0]
    infos = tuple(_interval_info(store, interval) for interval in store.intervals())
    return StoreInfo(store.url, kind, infos, store.compact(dry_run=True))


def verify_store(store: BarStore, on_progress: Progress | None = None) -> Verification:
    """Read every bar of a store and compare it with its checksum; go on where some are damaged."""
    symbol_days = rows = 0
    damaged: list[Damage] = []
    plan = [(interval, day) for interval in store.intervals() for day in store.days(interval)]
    for done, (interval, day) in enumerate(plan):
        if on_progress is not None:
            on_progress(done, len(plan), str(day))
        for part in _read_sound(store, interval, day):
            if isinstance(part, Damage):
                damaged.append(part)
            else:
                symbol_days += part.versions.height
                rows += part.bars.height
    return Verification(symbol_days, rows, tuple(damaged))


def read_narrowing(
    store: BarStore, interval: Interval, day: date, symbols: Sequence[str]
) -> Iterator[VersionedBars | Damage]:
    """Yield the bars of some symbols on a date; by halves where they cannot be read at once."""
    start = day_number(day) * DAY
    try:
        yield store.read_versioned(interval, symbols, start, start + DAY)
        return
    except StoreCorruptError as error:
        if len(symbols) == 1:
            yield Damage(SymbolDay(interval, day, symbols[0]), error.message)
            return
    half = len(symbols) // 2
    yield from read_narrowing(store, interval, day, symbols[:half])
    yield from read_narrowing(store, interval, day, symbols[half:])


def symbol_slices(versions: pl.DataFrame) -> list[list[str]]:
    """Cut the symbols of a date's versions so that each part has about `SLICE_ROWS` bars."""
    import polars as pl

    rows = pl.col("rows")
    number = ((rows.cum_sum() - rows) // SLICE_ROWS).alias("number")
    parts = versions.select("symbol", number).partition_by("number", maintain_order=True)
    return [part["symbol"].to_list() for part in parts]


def _interval_info(store: BarStore, interval: Interval) -> IntervalInfo:
    spans, days = store.spans(interval), store.days(interval)
    return IntervalInfo(
        interval, spans.height, len(days), days[0], days[-1], sum(spans["rows"].to_list())
    )


def _read_sound(store: BarStore, interval: Interval, day: date) -> Iterator[VersionedBars | Damage]:
    """Yield a date's bars slice by slice, and what of them is damaged."""
    try:
        versions = store.versions(interval, day, day)
    except StoreCorruptError as error:
        yield Damage(SymbolDay(interval, day, None), error.message)
        return
    for symbols in symbol_slices(versions):
        yield from read_narrowing(store, interval, day, symbols)


def _guess(path: str) -> str:
    """Return which address a path without a kind may stand for."""
    is_database = Path(path).suffix in _DATABASE_SUFFIXES or Path(path).is_file()
    return f" (did you mean '{'sqlite:///' if is_database else 'delta:'}{path}'?)"
