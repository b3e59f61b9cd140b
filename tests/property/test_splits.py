"""Splits beside brute force, exact fractions, and a plain model of importing them."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_coord.clock import FixedClock
from stream_coord.compute.splits import Split, Splits, rescale
from stream_coord.importing.actions import ActionFormat, import_actions
from stream_coord.stores.ledger import open_ledger

SYMBOLS = ("A", "B", "BRK.B")
DAYS = [date(2014, 6, 1) + timedelta(days=n) for n in range(12)]
RATIOS = (7.0, 2.0, 1.5, 3.0, 0.1, 1 / 3, 1 / 150, 1.0123)

symbols = st.sampled_from(SYMBOLS)
splits_ = st.builds(Split, symbols, st.sampled_from(DAYS), st.sampled_from(RATIOS))
sessions_ = st.lists(st.sampled_from(DAYS), min_size=1, max_size=8, unique=True).map(sorted)
seeds = st.integers(0, 2**32 - 1)


def raw_bars(sessions: list[date], seed: int) -> NDArray[np.float64]:
    """Return bars, two slots a session; shape (5, symbols, slots)."""
    shape = (5, len(SYMBOLS), 2 * len(sessions))
    return np.random.default_rng(seed).uniform(0.01, 5000, shape)


def at_once(splits: Splits, sessions: list[date], raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each session's bars in the last one's terms."""
    bars = raw.copy()
    for number, session in enumerate(sessions):
        for row, split in splits.known(SYMBOLS, session, sessions[-1]):
            rescale(bars, row, split.ratio, 2 * number, 2 * number + 2)
    return bars


@given(st.lists(splits_, max_size=12), sessions_, seeds)
def test_rolling_on_day_by_day_is_bit_for_bit_what_going_at_once_is(
    rows: list[Split], sessions: list[date], seed: int
) -> None:
    splits, raw = Splits(rows), raw_bars(sessions, seed)
    rolled = raw.copy()
    for number, (before, session) in enumerate(pairwise(sessions), 1):
        for row, split in splits.known(SYMBOLS, before, session):
            rescale(rolled, row, split.ratio, 0, 2 * number)
    assert rolled.tobytes() == at_once(splits, sessions, raw).tobytes()


@given(st.lists(splits_, max_size=12), sessions_, seeds)
def test_bars_are_what_exact_fractions_make_of_them(
    rows: list[Split], sessions: list[date], seed: int
) -> None:
    raw = raw_bars(sessions, seed)
    bars = at_once(Splits(rows), sessions, raw)
    ratios = {(row.symbol, row.day): Fraction(row.ratio) for row in rows}
    for row, symbol in enumerate(SYMBOLS):
        for slot in range(raw.shape[2]):
            own, last = sessions[slot // 2], sessions[-1]
            factor = Fraction(1)
            for day in DAYS:
                if own < day <= last:
                    factor *= ratios.get((symbol, day), 1)
            for field in range(5):
                old = Fraction(raw[field, row, slot])
                exact = old * factor if field == 4 else old / factor
                assert abs(Fraction(bars[field, row, slot]) - exact) <= exact * Fraction(1e-12)


@given(st.floats(1e-3, 1e6), st.sampled_from(RATIOS) | st.floats(1e-3, 1e3))
def test_one_split_is_rounded_once(old: float, ratio: float) -> None:
    values = np.full((5, 1, 1), old)
    rescale(values, 0, ratio, 0, 1)
    assert set(values[:4, 0, 0].tolist()) == {float(Fraction(old) / Fraction(ratio))}
    assert float(values[4, 0, 0]) == float(Fraction(old) * Fraction(ratio))


@given(
    st.lists(splits_, max_size=12),
    st.permutations(SYMBOLS),
    st.sampled_from(DAYS),
    st.sampled_from(DAYS),
)
def test_the_known_splits_are_those_of_a_walk_day_by_day(
    rows: list[Split], asked: list[str], after: date, upto: date
) -> None:
    last = {(row.symbol, row.day): row for row in rows}
    walk = [
        (row, last[symbol, day])
        for day in DAYS
        if after < day <= upto
        for row, symbol in enumerate(asked[:2])
        if (symbol, day) in last
    ]
    splits = Splits(rows)
    assert splits.known(asked[:2], after, upto) == walk
    assert list(splits) == [last[key] for key in sorted(last)]
    assert len(splits) == len(last)


imports_ = st.lists(
    st.lists(st.lists(splits_ | st.none(), max_size=6), min_size=1, max_size=3), max_size=3
)


def write(folder: Path, files: list[list[Split | None]]) -> list[Path]:
    """Write files of splits; None is a row that is none."""
    paths = [folder / f"{number}.csv" for number in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        lines = ["x,y" if row is None else f"{row.symbol},{row.ratio!r},{row.day}" for row in rows]
        path.write_text("\n".join(["symbol,ratio,date", *lines]))
    return paths


@settings(max_examples=20)
@given(imports_)
def test_imports_are_what_a_dictionary_makes_of_them(
    imports: list[list[list[Split | None]]],
) -> None:
    known: dict[tuple[str, date], float] = {}
    revisions = []
    with TemporaryDirectory() as name, open_ledger("sqlite:///l.db", Path(name), create=True) as it:
        for files in imports:
            paths = write(Path(name), files)
            rows = [row for file in files for row in file]
            news = {(row.symbol, row.day): row.ratio for row in rows if row is not None}
            stored = sum(key not in known for key in news)
            changed = [(*k, known[k], r) for k, r in news.items() if known.get(k, r) != r]
            known |= news
            revisions += changed
            for again in (False, True):
                done = import_actions(paths, ActionFormat(), it, FixedClock(0))
                good = sum(row is not None for row in rows)
                gone = sum(r is not None and news[r.symbol, r.day] != r.ratio for r in rows)
                assert (done.rows, done.rejected) == (len(rows), len(rows) - good)
                assert done.stored == (0 if again else stored)
                assert done.revised == (0 if again else len(changed))
                assert done.duplicates == good - done.stored - done.revised
                assert done.superseded == gone
                assert {(s.symbol, s.day): s.ratio for s in it.splits()} == known
        assert sum(one.revised for one in it.imports()) == len(revisions)
