"""The bars that everybody gets, and what everybody must have seen of them.

The strategy is the same everywhere: count the bars, sum their closes, keep each symbol's last
close. It does next to nothing, so that what is measured is the engine that calls it.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import polars as pl

from benchmarks.sample import Sample, nyse_sessions, symbol_names, synthetic_bars
from stream_coord.calendars import Session

Loaded = TypeVar("Loaded")

TOLERANCE = 1e-12
"""Relative. Sums of floats differ in their last digits with the order of the terms; a cent too much
in one of a million bars at 100 is 1e-10."""


@dataclass(frozen=True)
class Tally:
    """What a strategy saw.

    Attributes:
        bars: How many bars.
        closes: The sum of their closes.
        last_closes: The sum of the symbols' last closes.
    """

    bars: int
    closes: float
    last_closes: float

    @classmethod
    def of(cls, bars: int, closes: float, last: Iterable[float]) -> Tally:
        """Return the tally of so many bars; `last`: the last close of each symbol."""
        return cls(int(bars), float(closes), math.fsum(last))

    def agrees_with(self, truth: Tally) -> bool:
        """Whether the counts are equal, and the sums within `TOLERANCE`."""
        return self.bars == truth.bars and all(
            math.isclose(mine, other, rel_tol=TOLERANCE)
            for mine, other in (
                (self.closes, truth.closes),
                (self.last_closes, truth.last_closes),
            )
        )


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        tally: What the strategy saw.
        loading_seconds: From a polars frame in memory to a library that is ready to run.
        run_seconds: From there until the strategy has seen the last bar.
    """

    tally: Tally
    loading_seconds: float
    run_seconds: float


def measured(load: Callable[[], Loaded], run: Callable[[Loaded], Tally]) -> Measured:
    """Load, then run, and time both."""
    begun = perf_counter()
    loaded = load()
    ready = perf_counter()
    gc.collect()  # what loading left behind is not the run's to clear
    started = perf_counter()
    tally = run(loaded)
    return Measured(tally, ready - begun, perf_counter() - started)


@dataclass(frozen=True)
class Market:
    """Synthetic bars of some symbols and sessions.

    Attributes:
        folder: Where its Delta store is, and the schedule of its sessions.
        symbol_count: How many symbols.
        session_count: How many sessions, from the first on; the store may have more.
    """

    folder: Path
    symbol_count: int
    session_count: int

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Its sessions, oldest first."""
        return nyse_sessions(self.session_count, self.folder / ".sc")

    @property
    def sample(self) -> Sample:
        """Its Delta store."""
        return Sample(self.folder / "bars", tuple(symbol_names(self.symbol_count)), self.sessions)

    def write(self) -> None:
        """Make the bars and store them."""
        Sample.write(self.folder / "bars", self.symbol_count, self.sessions)

    def by_session(self) -> Iterator[tuple[Session, pl.DataFrame]]:
        """Yield each session with its bar frame, made anew: the same in every process."""
        for session in self.sessions:
            yield session, synthetic_bars(self.symbol_count, session)

    def frame(self) -> pl.DataFrame:
        """Return the bar frame of all sessions."""
        return pl.concat([bars for _, bars in self.by_session()]).sort("symbol", "start")

    def truth(self) -> Tally:
        """Return what everybody must see, summed bar by bar and exactly rounded."""
        closes: list[float] = []
        last: dict[str, float] = {}
        for symbol, close in self.frame().select("symbol", "close").iter_rows():
            closes.append(close)
            last[symbol] = close
        return Tally.of(len(closes), math.fsum(closes), last.values())
