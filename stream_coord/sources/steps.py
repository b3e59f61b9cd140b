"""Whether bars are of the interval that they are taken for, or of a coarser one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.errors import SourceError
from stream_coord.interval import HOUR, Interval

if TYPE_CHECKING:
    import polars as pl

ROWS_TO_TELL = {5: 10, 4: 10, 3: 13, 2: 20}
"""How many bars of a symbol that all start on multiples of so many intervals are no accident.

An accident of fewer than one in a million: an illiquid symbol has bars of odd minutes too.
"""


@dataclass(slots=True)
class _Seen:
    rows: int
    factors: set[int]
    step: int | None


class Steps:
    """How far apart the bars of each symbol are.

    Args:
        interval: The interval that they are taken for.
    """

    def __init__(self, interval: Interval) -> None:
        self._interval = interval
        self._seen: dict[str, _Seen] = {}

    def add(self, bars: pl.DataFrame) -> None:
        """Take some bars: at least ``symbol`` and ``start``."""
        import polars as pl

        fine = [symbol for symbol, seen in self._seen.items() if not seen.factors]
        number = pl.col("start") // self._interval.micros
        counts = (
            (bars.filter(~pl.col("symbol").is_in(fine)) if fine else bars)
            .group_by("symbol")
            .agg(
                pl.col("start").n_unique().alias("rows"),
                pl.col("start").unique().sort().diff().min().alias("step"),
                *((number % factor == 0).all().alias(f"{factor}") for factor in ROWS_TO_TELL),
            )
        )
        for symbol, rows, step, *whole in counts.iter_rows():
            factors = {k for k, every in zip(ROWS_TO_TELL, whole, strict=True) if every}
            self._take(symbol, _Seen(rows, factors, step))

    def merge(self, other: Steps) -> None:
        """Take the bars that another took."""
        for symbol, seen in other._seen.items():
            self._take(symbol, _Seen(seen.rows, set(seen.factors), seen.step))

    def _take(self, symbol: str, new: _Seen) -> None:
        old = self._seen.setdefault(symbol, new)
        if old is not new:
            old.rows += new.rows
            old.factors &= new.factors
            old.step = min(filter(None, (old.step, new.step)), default=None)

    def check(self, name: str) -> None:
        """Check that no symbol's bars seem to be of a coarser interval.

        Raises:
            SourceError: they do; `name` says what holds them.
        """
        widest = max(HOUR, 60 * self._interval.micros)
        for symbol, seen in self._seen.items():
            told = any(seen.rows >= ROWS_TO_TELL[factor] for factor in seen.factors)
            if told and seen.step is not None and seen.step <= widest:
                raise SourceError(
                    f"{name} seems to hold bars of {Interval(seen.step)}, not of "
                    f"{self._interval}: so far apart, at least, are all {seen.rows} of {symbol}",
                    f"Name one that holds bars of {self._interval}.",
                )
