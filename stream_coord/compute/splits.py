"""Splits: which ones lie between two days, and bars brought to the terms after one.

A *ratio* is the number of new shares for one old one: 7.0 for a 7:1 split, 0.1 for a 1:10 reverse
split. A bar of a day s in the terms of a later day d has its prices divided, and its volume
multiplied, by the ratio of each split with s < split day <= d, one after the other, oldest first.
In this order, going on day by day gives bit for bit what going there at once does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who keeps splits in a database needs no arrays
    from stream_coord.compute.derive import Floats


@dataclass(frozen=True, slots=True)
class Split:
    """A split of one symbol.

    Attributes:
        symbol: The symbol.
        day: The first day on which the new shares trade (the ex-date).
        ratio: New shares for one old one; finite, above 0, not 1.
    """

    symbol: str
    day: date
    ratio: float


class Splits:
    """All splits that are known; of two of one symbol and day the last one counts.

    Iterating gives them by symbol, then by day.

    Args:
        rows: The splits, in any order.

    >>> splits = Splits([Split("AAPL", date(2014, 6, 9), 7.0)])
    >>> [split.ratio for _, split in splits.known(["AAPL"], date(2014, 6, 6), date(2014, 6, 9))]
    [7.0]
    """

    def __init__(self, rows: Iterable[Split] = ()) -> None:
        last = {(split.symbol, split.day): split for split in rows}
        self._by_day = sorted(last.values(), key=attrgetter("day", "symbol"))
        self._days = [split.day for split in self._by_day]

    def __len__(self) -> int:
        return len(self._by_day)

    def __iter__(self) -> Iterator[Split]:
        return iter(sorted(self._by_day, key=attrgetter("symbol", "day")))

    def known(self, symbols: Sequence[str], after: date, upto: date) -> list[tuple[int, Split]]:
        """Return the splits of some symbols with ``after < day <= upto``.

        Args:
            symbols: The symbols, each once.
            after: The day in whose terms the bars are.
            upto: The day in whose terms they are to be.

        Returns:
            Each split with its symbol's position in `symbols`; oldest first, then by position.
        """
        first, stop = (bisect_right(self._days, day) for day in (after, upto))
        if first >= stop:  # the rule: most days have no split
            return []
        rows = {symbol: row for row, symbol in enumerate(symbols)}
        between = self._by_day[first:stop]
        found = [(rows[split.symbol], split) for split in between if split.symbol in rows]
        return sorted(found, key=lambda pair: (pair[1].day, pair[0]))


def rescale(values: Floats, row: int, ratio: float, first: int, stop: int) -> None:
    """Bring some bars of one symbol, in place, to the terms after a split.

    A value that gets too large for a float64 becomes infinite.

    Args:
        values: Float64, shape (5, symbols, slots): open, high, low, close, volume.
        row: The symbol's row.
        ratio: New shares for one old one.
        first: The first slot to change.
        stop: The slot after the last one.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        values[:4, row, first:stop] /= ratio
        values[4, row, first:stop] *= ratio
