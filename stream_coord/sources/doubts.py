"""Rows that cannot be placed: a bar is somewhere in these spans, and nobody can tell where.

A minute without a bar in such a span is not known to be empty, so that it is not covered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from stream_coord.bars import SYMBOL_PATTERN
from stream_coord.compute.validate import END_OF_TIME
from stream_coord.errors import SourceError
from stream_coord.interval import DAY, Interval
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import Span, clip, joined

if TYPE_CHECKING:
    import polars as pl

ALWAYS: Span = (-(1 << 62), 1 << 62)
_MOST_MINUTES = 1_000
_NAMED = ("symbol", "before", "before_of", "after", "after_of")


class Doubts:
    """By symbol the spans in which rows are that could not be placed.

    Attributes:
        troubles: What was wrong, a text for every file or table.
    """

    def __init__(self) -> None:
        self._spans: defaultdict[str | None, list[Span]] = defaultdict(list)
        self.troubles: list[str] = []

    def add(self, symbol: str | None, span: Span) -> None:
        """Doubt the bars of a symbol, None: of all, in a span."""
        self._spans[symbol].append(span)

    def add_nameless(self, starts: pl.Series, interval: Interval) -> None:
        """Doubt the bars of all symbols at some times; if they are many, on their days."""
        if starts.is_empty():
            return
        length = interval.micros
        for size in (length, DAY):
            slots = (starts // size).unique().to_list()
            if len(slots) <= _MOST_MINUTES:
                break
        spans = ((slot * size, (slot + 1) * size) for slot in slots)
        self._spans[None] = joined([*self._spans[None], *spans])

    def merge(self, other: Doubts) -> None:
        """Doubt what another does too."""
        for symbol, spans in other._spans.items():
            self._spans[symbol] += spans
        self.troubles += other.troubles

    def doubtful(self, ranges: Sequence[BarRange]) -> list[BarRange]:
        """Return the parts of `ranges` that are in doubt."""
        return clip(ranges, self._of(ranges)) if self._spans else []

    def certain(
        self,
        asked: Sequence[BarRange],
        covered: Sequence[BarRange],
        interval: Interval,
        bars_of: Callable[[list[BarRange]], pl.DataFrame],
    ) -> list[BarRange]:
        """Return what is covered for certain: in a span in doubt, only minutes with a bar.

        Args:
            asked: What was asked for.
            covered: The parts of it that would be covered without a doubt.
            interval: The bars' interval.
            bars_of: Returns the bars of ranges.

        Raises:
            SourceError: all that was asked for is in doubt.
        """
        if not self._spans:
            return list(covered)
        spans = self._of(asked)
        doubtful = clip(covered, spans)
        found: defaultdict[str, list[Span]] = defaultdict(list)
        if doubtful:
            for symbol, start in bars_of(doubtful).select("symbol", "start").iter_rows():
                slot = start // interval.micros * interval.micros
                found[symbol].append((slot, slot + interval.micros))
        known = {symbol: joined([*_between(own), *found[symbol]]) for symbol, own in spans.items()}
        certain = clip(covered, known)
        if asked and not certain and clip(asked, spans) == list(asked):
            more = len(self.troubles) - 1
            raise SourceError(self.troubles[0] + (f" (and {more} more)" if more > 0 else ""))
        return certain

    def _of(self, ranges: Iterable[BarRange]) -> dict[str, list[Span]]:
        every = self._spans.get(None, [])
        symbols = {each.symbol for each in ranges}
        return {symbol: joined([*self._spans.get(symbol, []), *every]) for symbol in symbols}


def _between(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield what is not in `spans`, which are ascending and apart from each other."""
    begin, end = ALWAYS
    for start, stop in spans:
        if begin < start:
            yield begin, start
        begin = stop
    if begin < end:
        yield begin, end


class PartOrder:
    """Between which other rows of a part those are that cannot be placed.

    Where the rows of the part are in order, of all or of one symbol after the other, such a row is
    on a day between its neighbours'; else on any day of the part.
    """

    def __init__(self) -> None:
        self._last: pl.DataFrame | None = None
        self._lost: list[pl.DataFrame] = []
        self._orders = {"rising": True, "falling": True, "own rising": True, "own falling": True}
        self._days: Span | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Take the next rows of the part: ``symbol`` and ``start``, null where there is none."""
        import polars as pl

        sane = pl.col("start").is_between(0, END_OF_TIME, closed="left")
        start = pl.when(sane).then("start")
        of = pl.when(sane).then(pl.col("symbol").fill_null(""))
        read = rows.select("symbol", start=start, of=of)
        if self._last is not None:
            read = pl.concat([self._last, read])
        placed = read.filter(pl.col("start").is_not_null())
        if self._lost and len(placed):
            self._close(placed)
        if len(placed) < len(read):
            self._find(read)
        if len(placed):
            self._order(placed)
            self._last = placed[-1:]

    def _find(self, read: pl.DataFrame) -> None:
        """Keep the days and symbols of the neighbours of the rows without a time."""
        import polars as pl

        day = pl.col("start") // DAY
        lost = read.with_columns(
            before=day.forward_fill(),
            before_of=pl.col("of").forward_fill(),
            after=day.backward_fill(),
            after_of=pl.col("of").backward_fill(),
            symbol=pl.when(pl.col("symbol").str.contains(SYMBOL_PATTERN)).then("symbol"),
        ).filter(pl.col("start").is_null())
        self._lost = [pl.concat([*self._lost, lost.select(_NAMED)]).unique()]

    def _close(self, placed: pl.DataFrame) -> None:
        """Give rows at the end of earlier pieces the neighbour that follows them."""
        import polars as pl

        begin = 0 if self._last is None else 1
        if len(placed) > begin:
            start, of = placed["start"][begin], placed["of"][begin]
            after = pl.col("after").fill_null(start // DAY)
            self._lost = [
                lost.with_columns(after, pl.col("after_of").fill_null(of)) for lost in self._lost
            ]

    def _order(self, placed: pl.DataFrame) -> None:
        steps = placed["start"].diff()[1:]
        own = (placed["of"] == placed["of"].shift())[1:]
        rises, falls = steps >= 0, steps <= 0
        found = (rises, falls, rises | ~own, falls | ~own)
        for name, true in zip(self._orders, found, strict=True):
            self._orders[name] &= bool(true.all())
        starts = placed["start"].to_numpy()
        days = [starts.min().item() // DAY, starts.max().item() // DAY, *(self._days or ())]
        self._days = min(days), max(days)

    def spans(self) -> Iterator[tuple[str | None, Span]]:
        """Yield the symbols, None of one that cannot be read, and the spans of rows not placed."""
        import polars as pl

        if not self._lost:
            return
        lost = self._lost[0].select(
            "symbol",
            before=pl.coalesce("before", "after"),
            before_of=pl.coalesce("before_of", "after_of"),
            after=pl.coalesce("after", "before"),
            after_of=pl.coalesce("after_of", "before_of"),
        )
        rising, falling, own_rising, own_falling = self._orders.values()
        for symbol, before, before_of, after, after_of in lost.unique().iter_rows():
            of_one = before_of == after_of and symbol in {None, before_of}
            sure = rising or falling or (of_one and (own_rising or own_falling))
            if self._days is None or before is None:
                yield symbol, ALWAYS
                continue
            least, most = sorted((before, after)) if sure else self._days
            yield symbol, (least * DAY, (most + 1) * DAY)
