"""Ranges of bars: which parts of them are covered, which bars are in them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from stream_coord.interval import DAY, Interval
from stream_coord.sources.protocol import BarRange

if TYPE_CHECKING:
    import polars as pl

Span = tuple[int, int]
"""[start, end) in UTC microseconds."""


def clip(ranges: Iterable[BarRange], extents: Mapping[str, Sequence[Span]]) -> list[BarRange]:
    """Return the parts of `ranges` that lie within the extents of their symbols, in order.

    Args:
        ranges: Any ranges.
        extents: By symbol, ascending and apart from each other (see `joined`).

    >>> clip([BarRange("A", 0, 9)], {"A": [(-5, 2), (6, 20)]})
    [BarRange(symbol='A', start=0, end=2), BarRange(symbol='A', start=6, end=9)]
    """
    found = []
    for asked in ranges:
        spans = extents.get(asked.symbol, ())
        first = bisect_right(spans, asked.start, key=lambda span: span[1])
        for start, end in islice(spans, first, None):
            if start >= asked.end:
                break
            found.append(BarRange(asked.symbol, max(start, asked.start), min(end, asked.end)))
    return found


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans sorted, those that touch or overlap as one.

    >>> joined([(5, 7), (0, 2), (2, 3)])
    [(0, 3), (5, 7)]
    """
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def days_of(ranges: Iterable[BarRange]) -> dict[int, set[str]]:
    """Return by UTC day (days since 1970, ascending) the symbols of whose bars some are asked."""
    days: defaultdict[int, set[str]] = defaultdict(set)
    for asked in ranges:
        for day in range(asked.start // DAY, (asked.end - 1) // DAY + 1):
            days[day].add(asked.symbol)
    return dict(sorted(days.items()))


def day_extents(
    held: Iterable[tuple[str, int]], lasts: Mapping[str, int], interval: Interval
) -> dict[str, list[Span]]:
    """Return what is covered by somebody who holds bars on some days.

    A UTC day with any bar of a symbol is covered whole; the day of its last bar only up to that
    bar's end, because more may be yet to come, and no day after it.

    Args:
        held: Symbols and days (since 1970) that have bars.
        lasts: By symbol the start of its last bar, UTC microseconds.
        interval: The bars' interval.
    """
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for symbol, day in held:
        last = lasts.get(symbol, -DAY) // interval.micros  # bars of a table may start in between
        end = min((day + 1) * DAY, (last + 1) * interval.micros)
        if day * DAY < end:
            spans[symbol].append((day * DAY, end))
    return {symbol: joined(own) for symbol, own in spans.items()}


def inside(bars: pl.DataFrame, ranges: Sequence[BarRange]) -> pl.DataFrame:
    """Return those of the bars that lie in one of `ranges`, sorted by start and symbol.

    Args:
        bars: At least ``symbol`` (String) and ``start`` (Int64).
        ranges: Not overlapping.
    """
    import polars as pl

    asked = pl.DataFrame(
        {
            "symbol": [each.symbol for each in ranges],
            "start": [each.start for each in ranges],
            "_end": [each.end for each in ranges],
        },
        schema={"symbol": pl.String, "start": pl.Int64, "_end": pl.Int64},
    )
    placed = bars.sort("start", "symbol").join_asof(
        asked.sort("start"), on="start", by="symbol", check_sortedness=False
    )
    return placed.filter(pl.col("start") < pl.col("_end")).drop("_end")
