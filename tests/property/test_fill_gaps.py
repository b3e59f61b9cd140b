"""Minutes deleted from a store and filled back: checksums and states are what they have to be."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.errors import SourceError
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import open_ledger
from stream_coord.upkeep import fill
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.fill import FillOptions, FillSummary, fill_gaps

MINUTE = 60_000_000
DAY = 1_440 * MINUTE
OPEN = 1_541_169_000_000_000  # 2018-11-02 14:30 UTC
FIRST = date(2018, 11, 2)
ONE = Interval.parse("1m")
FIELDS = ("open", "high", "low", "close", "volume")
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(FIELDS, pl.Float64)
SETUP = dict.fromkeys(
    ("settings", "config_digest", "calendar", "calendar_version", "store", "program_version"), ""
)


def sessions_of(count: int, minutes: int) -> tuple[Session, ...]:
    """Return sessions of two halves with a break of an hour."""
    half = minutes // 2 * MINUTE
    return tuple(
        Session(
            FIRST + timedelta(days=n),
            (
                Segment(OPEN + n * DAY, OPEN + n * DAY + half, "regular"),
                Segment(
                    OPEN + n * DAY + half + 60 * MINUTE,
                    OPEN + n * DAY + 2 * half + 60 * MINUTE,
                    "regular",
                ),
            ),
        )
        for n in range(count)
    )


@dataclass(frozen=True)
class Plan:
    store: BarStore
    universe: Universe
    sessions: tuple[Session, ...]
    interval: Interval = ONE


class StoreAsSource:
    """All bars of a store; covers everything."""

    def __init__(self, store: BarStore) -> None:
        self.store = store

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return ranges

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        symbols = sorted({part.symbol for part in ranges})
        return self.store.read(interval, symbols, ranges[0].start - 100 * DAY, 2**60)

    def close(self) -> None: ...


@pytest.mark.parametrize("url", ["sqlite:///holed.db", "delta:holed"])
def test_1000_deleted_minutes_are_filled_back(tmp_path: Path, url: str) -> None:
    symbols, sessions = ("AIG", "BRK.B", "IBM", "a"), sessions_of(4, 390)
    random = np.random.default_rng(20181102)
    grid = np.concatenate([session.grid(ONE) for session in sessions])
    count = len(symbols) * len(grid)
    price = np.round(random.uniform(10, 500, count), 4)
    full = pl.DataFrame(
        {
            "symbol": np.repeat(symbols, len(grid)),
            "start": np.tile(grid, len(symbols)),
            **dict.fromkeys(FIELDS[:4], price),
            "volume": random.integers(0, 10**6, count).astype(float),
        }
    ).cast(SCHEMA)  # type: ignore[arg-type]
    gone = random.choice(count, 1_000, replace=False)
    kept = full.filter(~pl.Series(np.isin(np.arange(count), gone)))
    other = "delta:full" if url.startswith("sqlite") else "sqlite:///full.db"
    with (
        closing(open_store(other, tmp_path, create=True)) as whole,
        closing(open_store(url, tmp_path, create=True)) as holed,
        open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger,
    ):
        whole.write(ONE, full)
        holed.write(ONE, kept)
        last = FIRST + timedelta(days=9)
        assert not holed.versions(ONE, FIRST, last).equals(whole.versions(ONE, FIRST, last))
        run = ledger.begin_run(0, "fill-gaps", **SETUP)
        enquirer = Enquirer(
            [NamedSource("full", "full", StoreAsSource(whole))], ONE, FixedClock(0), SystemTimer()
        )
        with patch.object(fill, "BATCH_MINUTES", 3_000):
            got = fill_gaps(
                Plan(holed, Universe(symbols), sessions),
                ledger,
                enquirer,
                FixedClock(sessions[-1].close),
                run,
            )
        assert (got.minutes_missing, got.filled) == (1_000, 1_000)
        assert holed.versions(ONE, FIRST, last).equals(whole.versions(ONE, FIRST, last))
        assert holed.read(ONE, None, 0, 2**60).equals(full)
        assert sum(gap.minutes for gap in got.gaps) == 1_000
        assert len(enquirer.take_calls()) == 0
        assert [call.bars for call in ledger.source_calls()] != [1_000]  # there were batches


MINUTES = 4
SMALL = sessions_of(3, MINUTES)
Cell = tuple[str, int, int]
cells = st.tuples(st.sampled_from("AB"), st.integers(0, 2), st.integers(0, MINUTES - 1))


@dataclass
class Sometimes:
    """A source that has some cells, covers some sessions, and fails now and then."""

    has: frozenset[Cell]
    covers: frozenset[int]
    fails: list[bool]
    asked: int = 0

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return [part for part in ranges if (part.start - OPEN) // DAY in self.covers]

    def bars(self, _: Interval, __: Sequence[BarRange]) -> pl.DataFrame:
        self.asked += 1
        if self.fails.pop():
            raise SourceError("now and then")
        return bars_of(self.has, 2.0)

    def close(self) -> None: ...


def bars_of(having: frozenset[Cell], price: float) -> pl.DataFrame:
    rows = [
        (symbol, int(SMALL[n].grid(ONE)[minute]), *[price] * 4, 1.0)
        for symbol, n, minute in sorted(having)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


sources = st.builds(
    Sometimes,
    has=st.frozensets(cells, max_size=15),
    covers=st.frozensets(st.integers(0, 2)),
    fails=st.just([]),
)


@settings(max_examples=25)
@given(
    st.frozensets(cells, min_size=1),
    st.lists(sources, max_size=2),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.frozensets(cells, max_size=3)), max_size=4),
    st.integers(1, 3),
    st.sampled_from([1, 8, 100]),
)
def test_runs_one_after_the_other_do_what_a_model_of_single_minutes_does(
    stored: frozenset[Cell],
    sources: list[Sometimes],
    runs: list[tuple[bool, bool, frozenset[Cell]]],
    attempts: int,
    batch_minutes: int,
) -> None:
    every = [(s, n, m) for s in "AB" for n in range(3) for m in range(MINUTES)]
    present, filled = set(stored), set()
    empty: dict[Cell, set[int]] = {cell: set() for cell in every}
    tries = dict.fromkeys(every, 0)
    explained: set[Cell] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_store("sqlite:///bars.db", Path(folder), create=True)) as store,
        open_ledger("sqlite:///ledger.db", Path(folder), create=True) as ledger,
        patch.object(fill, "BATCH_MINUTES", batch_minutes),
    ):
        store.write(ONE, bars_of(stored, 1.0))
        for number, (first_fails, second_fails, imported) in enumerate(runs):
            new = imported - present
            store.write(ONE, bars_of(frozenset(new), 1.0))
            present |= new
            fails = (first_fails, second_fails)
            for source, failing in zip(sources, fails, strict=False):
                source.fails = [failing] * 99
            run = ledger.begin_run(number, "fill-gaps", **SETUP)
            named = [NamedSource(f"{n}", f"{n}", each) for n, each in enumerate(sources)]
            got = fill_gaps(
                Plan(store, Universe(("A", "B")), SMALL),
                ledger,
                Enquirer(named, ONE, FixedClock(0), SystemTimer()),
                FixedClock(SMALL[-1].close),
                run,
                FillOptions(attempts=attempts),
            )
            now_filled = set()
            for cell in sorted(set(every) - present - explained):
                covering = {n for n, s in enumerate(sources) if cell[1] in s.covers}
                failing_now = {n for n in covering - empty[cell] if fails[n]}
                having = {n for n in covering if cell in sources[n].has and not fails[n]}
                empty[cell] |= covering - failing_now - having
                if having - empty[cell]:
                    now_filled.add(cell)
                elif failing_now:
                    tries[cell] += 1
                    explained |= {cell} if tries[cell] >= attempts else set()
                elif covering:
                    explained.add(cell)
            explained -= present
            filled |= now_filled
            present |= now_filled
            check(got, len(now_filled), len(set(every) - present - explained))
            states = {
                (gap.symbol, n, minute): gap.state
                for gap in ledger.gap_states("1m", "2018-01-01", "2019-01-01")
                for n, session in enumerate(SMALL)
                for minute, start in enumerate(session.grid(ONE).tolist())
                if gap.start <= start < gap.end
            }
            assert {cell for cell, state in states.items() if state == "filled"} == filled
            open_cells = set(every) - present - explained
            assert {cell for cell, state in states.items() if state == "missing"} == open_cells
            assert states.keys() - filled == set(every) - present
            assert ledger.pending_gaps() == []
            held = store.read(ONE, None, 0, 2**60)
            prices = dict(zip(held.select("symbol", "start").rows(), held["close"], strict=True))
            assert prices == {
                (s, int(SMALL[n].grid(ONE)[m])): 2.0 if (s, n, m) in filled else 1.0
                for s, n, m in present
            }


def check(got: FillSummary, filled: int, still_missing: int) -> None:
    assert got.filled == filled
    assert got.still_missing == still_missing
    parts = got.filled + got.no_trade + got.unresolved + got.still_missing
    assert got.minutes_missing == parts
