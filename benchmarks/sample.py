"""Seeded synthetic bars, and stores that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from stream_coord.bars import FIELDS
from stream_coord.calendars import Session, open_calendar
from stream_coord.interval import MINUTE, Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

BASE = Interval(MINUTE)
_FIRST_DAY, _LAST_DAY = date(2017, 1, 1), date(2018, 12, 31)
_HOLES = 0.002
_BARS_PER_WRITE = 2_000_000


def nyse_sessions(count: int, cache_dir: Path) -> tuple[Session, ...]:
    """Return the first `count` NYSE sessions of 2017 and 2018."""
    return open_calendar("NYSE", cache_dir=cache_dir).sessions(_FIRST_DAY, _LAST_DAY)[:count]


def symbol_names(count: int) -> list[str]:
    """Return `count` symbols, sorted by code point."""
    return [f"S{number:05}" for number in range(count)]


def synthetic_bars(symbol_count: int, session: Session, *, whole: bool = False) -> pl.DataFrame:
    """Return a bar frame of random walks in cents, with 2 minutes of 1,000 missing unless whole.

    The same arguments give the same bars. A few holes are what real data has; without any, code
    that is quicker on whole arrays would be flattered.
    """
    starts = session.grid(BASE)
    shape = symbol_count, len(starts)
    random = np.random.default_rng([session.date.toordinal(), *shape])
    closes = 100 + random.normal(0, 0.03, shape).cumsum(axis=1)
    opens = np.column_stack((closes[:, :1], closes[:, :-1]))
    highs = np.maximum(opens, closes) + random.exponential(0.02, shape)
    lows = np.minimum(opens, closes) - random.exponential(0.02, shape)
    prices = [np.round(plane, 2) for plane in (opens, highs, lows, closes)]
    volumes = np.round(random.lognormal(6, 1, shape))
    columns = zip(FIELDS, (*prices, volumes), strict=True)
    symbol = pl.Series(symbol_names(symbol_count)).gather(np.arange(volumes.size) // len(starts))
    frame = pl.DataFrame(
        {"symbol": symbol, "start": np.tile(starts, symbol_count)}
        | {name: plane.ravel() for name, plane in columns}
    )
    return frame if whole else frame.filter(random.random(volumes.size) >= _HOLES)


@dataclass(frozen=True)
class Sample:
    """A Delta store with the synthetic bars of some sessions.

    Attributes:
        folder: The folder of the store.
        symbols: Its symbols, sorted.
        sessions: Its sessions, oldest first.
    """

    folder: Path
    symbols: tuple[str, ...]
    sessions: tuple[Session, ...]

    @classmethod
    def write(cls, folder: Path, symbol_count: int, sessions: tuple[Session, ...]) -> Sample:
        """Make the bars and store them."""
        store = open_store(f"delta:{folder}", folder, create=True)
        step = max(1, _BARS_PER_WRITE // (400 * symbol_count))
        for first in range(0, len(sessions), step):
            days = [synthetic_bars(symbol_count, day) for day in sessions[first : first + step]]
            store.write(BASE, pl.concat(days).sort("symbol", "start"))
        return cls(folder, tuple(symbol_names(symbol_count)), sessions)

    def open(self) -> BarStore:
        """Open the store anew: it remembers nothing of earlier reads."""
        return open_store(f"delta:{self.folder}", self.folder)

    def files(self, session: Session) -> list[Path]:
        """Return the Parquet files of a session's UTC date, for peers that read them."""
        return sorted(self.folder.glob(f"interval={BASE}/date={session.date}/*.parquet"))
