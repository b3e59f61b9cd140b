"""Copies between stores against plain dicts: a union that the source wins, stopped or not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord import copying, storing
from stream_coord.copying import Copied, CopyChoice, copy_store
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore, WriteOutcome

URLS = ["delta:{name}", "sqlite:///{name}"]
DAY, MINUTE = 86_400_000_000, 60_000_000
FIRST_DAY = date(2018, 11, 2)
FIRST_MIDNIGHT = int(datetime(2018, 11, 2, tzinfo=UTC).timestamp()) * 1_000_000
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)

Key = tuple[str, str, int]
Model = dict[Key, float]

intervals = st.sampled_from(["1m", "5m"])
symbols = st.sampled_from(["A", "B", "BRK.B", "a"])
starts = st.builds(
    lambda day, minute: FIRST_MIDNIGHT + day * DAY + minute * MINUTE,
    st.integers(0, 3),
    st.sampled_from([0, 5, 1435]),
)
models = st.dictionaries(
    st.tuples(intervals, symbols, starts), st.sampled_from([1.0, 1.5, 2.0]), max_size=25
)
pairs = st.sampled_from([*product(URLS, URLS)])


class StoppedError(Exception):
    """What stops a copy."""


def fill(store: BarStore, model: Model) -> BarStore:
    for interval in sorted({interval for interval, *_ in model}):
        rows = [
            (symbol, start, *[price] * 4, 100.0)
            for (name, symbol, start), price in sorted(model.items())
            if name == interval
        ]
        store.write(Interval.parse(interval), pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return store


def contents(store: BarStore) -> Model:
    return {
        (str(interval), symbol, start): close
        for interval in store.intervals()
        for symbol, start, close in store.read(interval, None, 0, 10**17)[
            "symbol", "start", "close"
        ].iter_rows()
    }


def symbol_days(model: Model) -> dict[tuple[str, date, str], dict[int, float]]:
    groups: dict[tuple[str, date, str], dict[int, float]] = {}
    for (interval, symbol, start), price in model.items():
        day = FIRST_DAY + timedelta(days=(start - FIRST_MIDNIGHT) // DAY)
        groups.setdefault((interval, day, symbol), {})[start] = price
    return groups


def check(done: Copied, source: Model, target: Model) -> None:
    """Compare what a whole copy said with what the two models say."""
    ours, theirs = symbol_days(source), symbol_days(target)
    unlike = {place: rows for place, rows in ours.items() if theirs.get(place) != rows}
    changed = {
        place
        for place, rows in unlike.items()
        if any(theirs.get(place, {}).get(start) != price for start, price in rows.items())
    }
    known = [theirs.get(place, {}).get(start) for place, rows in unlike.items() for start in rows]
    prices = [price for rows in unlike.values() for price in rows.values()]
    equal = sum(mine == other for mine, other in zip(prices, known, strict=True))
    stored = known.count(None)
    assert (done.symbol_days, done.copied) == (len(ours), len(changed))
    assert done.skipped == len(ours) - len(changed)
    assert (done.rows, done.stored, done.duplicates) == (len(prices), stored, equal)
    assert done.revised == len(prices) - stored - equal
    left = {p for p, rows in unlike.items() if set(theirs.get(p, {})) - set(rows)}
    assert {(str(w.interval), w.date, w.symbol) for w in done.differing} == left
    assert done.damaged == []


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is lost here: do not wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


slices = st.sampled_from([3, 10**6])
quick = settings(max_examples=20, deadline=None)


@quick
@given(source=models, target=models, urls=pairs, rows=slices)
def test_a_copy_is_the_union_and_a_second_one_copies_nothing(
    source: Model, target: Model, urls: tuple[str, str], rows: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, sliced(rows):
        src, dst = stores(Path(directory), urls, source, target)
        check(copy_store(src, dst, CopyChoice()), source, target)
        assert contents(dst) == target | source
        assert contents(src) == source
        check(copy_store(src, dst, CopyChoice()), source, target | source)


@quick
@given(
    source=models,
    target=models,
    urls=pairs,
    rows=slices,
    stop_at=st.integers(0, 5),
    committed=st.booleans(),
)
def test_a_copy_that_was_stopped_goes_on(
    source: Model,
    target: Model,
    urls: tuple[str, str],
    rows: int,
    stop_at: int,
    committed: bool,
) -> None:
    with tempfile.TemporaryDirectory() as directory, sliced(rows):
        src, dst = stores(Path(directory), urls, source, target)
        write, writes = dst.write, 0

        def writing(interval: Interval, bars: pl.DataFrame) -> WriteOutcome:
            nonlocal writes
            writes += 1
            if writes > stop_at and not committed:
                raise StoppedError
            outcome = write(interval, bars)
            if writes > stop_at:
                raise StoppedError
            return outcome

        with patch.object(dst, "write", writing):
            try:
                copy_store(src, dst, CopyChoice())
            except StoppedError:
                between = contents(dst)
                assert all(between[k] in (target.get(k), source.get(k)) for k in between)
                assert target.keys() <= between.keys() <= target.keys() | source.keys()
        copy_store(src, dst, CopyChoice())
        assert contents(dst) == target | source
        last = copy_store(src, dst, CopyChoice())
        assert (last.copied, last.stored, last.revised) == (0, 0, 0)


@contextmanager
def sliced(rows: int) -> Iterator[None]:
    with patch.object(storing, "SLICE_ROWS", rows), patch.object(copying, "SLICE_ROWS", rows):
        yield


def stores(
    directory: Path, urls: tuple[str, str], source: Model, target: Model
) -> tuple[BarStore, BarStore]:
    src = open_store(urls[0].format(name="source"), directory, create=True)
    dst = open_store(urls[1].format(name="target"), directory, create=True)
    return fill(src, source), fill(dst, target)
