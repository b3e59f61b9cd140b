"""Answers of random sources against a model that looks at one minute after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.errors import SourceError
from stream_coord.interval import Interval
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.upkeep.asking import Enquirer

MINUTE = 60_000_000
OPEN = 1_541_169_000_000_000
ONE = Interval.parse("1m")
SYMBOLS = ("A", "B")
MINUTES = (0, 1, 2, 5, 6)
CELLS = tuple(product(SYMBOLS, MINUTES))
BAD = -1.0
FIELDS = ("open", "high", "low", "close", "volume")
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(FIELDS, pl.Float64)

Cell = tuple[str, int]


@dataclass
class Model:
    """A source that covers some cells, has bars (some are none) of any, and may fail."""

    covers: frozenset[Cell]
    bars_of: dict[Cell, float]
    coverage_fails: bool
    bars_fail: bool
    compare: bool
    questions: list[set[Cell]] = field(default_factory=list)

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        if self.coverage_fails:
            raise SourceError("who knows")
        return [
            BarRange(symbol, OPEN + minute * MINUTE, OPEN + (minute + 1) * MINUTE)
            for symbol, minute in sorted(self.covers & cells_of(ranges))
        ]

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.questions.append(cells_of(ranges))
        if self.bars_fail:
            raise ConnectionError("gone")
        asked = {part.symbol for part in ranges}
        # More than was asked for is allowed; something else altogether is not.
        bars = self.bars_of if any(symbol in asked for symbol, _ in self.bars_of) else {}
        rows = [
            (symbol, OPEN + minute * MINUTE, *[price] * 4, 1.0)
            for (symbol, minute), price in bars.items()
        ]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def close(self) -> None: ...


def cells_of(ranges: Sequence[BarRange]) -> set[Cell]:
    assert list(ranges) == sorted(ranges)
    spans = [(part.symbol, minute) for part in ranges for minute in minutes_of(part)]
    assert len(spans) == len(set(spans)), "ranges overlap"
    return set(spans)


def minutes_of(part: BarRange) -> range:
    assert part.start < part.end
    return range((part.start - OPEN) // MINUTE, (part.end - OPEN) // MINUTE)


cells = st.sampled_from(CELLS)
models = st.builds(
    Model,
    covers=st.one_of(st.just(frozenset(CELLS)), st.frozensets(cells)),
    bars_of=st.dictionaries(cells, st.sampled_from([1.0, 2.0, BAD])),
    coverage_fails=st.integers(0, 4).map(lambda n: n == 0),
    bars_fail=st.integers(0, 4).map(lambda n: n == 0),
    compare=st.booleans(),
)


@dataclass
class Verdict:
    """What the sources make of one cell."""

    empty: int
    winner: int = -1
    price: float = np.nan
    failed: bool = False
    covered: bool = False
    asked: set[int] = field(default_factory=set)
    others: list[tuple[str, int, str, str, float, float]] = field(default_factory=list)


def verdict(cell: Cell, before: int, sources: Sequence[Model]) -> Verdict:
    known = Verdict(before, covered=before != 0)
    for number, source in enumerate(sources):
        if before >> number & 1 or (known.winner >= 0 and not source.compare):
            continue
        if source.coverage_fails:
            known.failed = True
        elif cell in source.covers:
            known.covered = True
            known.asked.add(number)
            hear(known, cell, number, source)
    return known


def hear(known: Verdict, cell: Cell, number: int, source: Model) -> None:
    has = source.bars_of.get(cell)
    if source.bars_fail or has == BAD:
        known.failed = True
    elif has is None:
        known.empty |= 1 << number
    elif known.winner < 0:
        known.winner, known.price = number, has
    elif has != known.price:
        known.others.append((*cell, f"{known.winner}", f"{number}", known.price, has))


@given(
    st.lists(models, max_size=4),
    st.frozensets(cells, min_size=1),
    st.lists(st.integers(0, 15), min_size=len(CELLS), max_size=len(CELLS)),
)
def test_answers_are_those_of_the_model(
    sources: list[Model], wanted: frozenset[Cell], known: list[int]
) -> None:
    every = (1 << len(sources)) - 1
    asked = sorted(wanted)
    before = [known[CELLS.index(cell)] & every for cell in asked]
    named = [NamedSource(f"{n}", f"{n}", each, each.compare) for n, each in enumerate(sources)]
    enquirer = Enquirer(named, ONE, FixedClock(0), SystemTimer())
    got = enquirer.ask(
        SYMBOLS,
        np.array([SYMBOLS.index(symbol) for symbol, _ in asked], np.int64),
        np.array([OPEN + minute * MINUTE for _, minute in asked], np.int64),
        np.array(before, np.uint64),
        np.zeros(len(asked), np.uint64),
    )
    verdicts = [verdict(cell, bits, sources) for cell, bits in zip(asked, before, strict=True)]
    for at, model in enumerate(verdicts):
        assert got.found[at] == (model.winner >= 0)
        assert got.source[at] == model.winner
        assert got.failed[at] == model.failed
        assert got.covered[at] == model.covered
        assert got.empty[at] == model.empty
        assert got.asked[at] == every
        values = [*[model.price] * 4, 1.0 if model.winner >= 0 else np.nan]
        assert np.array_equal(got.values[:, at], values, equal_nan=True)
    told = [
        (d.symbol, (d.start - OPEN) // MINUTE, d.source, d.other, d.values[0], d.other_values[0])
        for d in got.disagreements
    ]
    assert sorted(told) == sorted(other for model in verdicts for other in model.others)
    for number, source in enumerate(sources):
        question = {
            cell for cell, model in zip(asked, verdicts, strict=True) if number in model.asked
        }
        assert source.questions == ([question] if question else [])
