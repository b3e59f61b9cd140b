"""Every bar store against a plain dict: what `BarStore` promises, whatever keeps the bars.

A further backend is one more entry of `BACKENDS`.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import xxhash
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore, WriteOutcome

Values = tuple[float, ...]
Key = tuple[str, int]
Model = dict[Key, Values]

POSTGRES_TABLES = ("bars", "bar_days", "series", "dates")
DAY = 86_400_000_000
MINUTE = 60_000_000
FIRST_DAY = date(2018, 11, 2)
FIRST_MIDNIGHT = int(datetime(2018, 11, 2, tzinfo=UTC).timestamp()) * 1_000_000
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)


@dataclass(frozen=True)
class Backend:
    """How to open a store in a directory, and what of it an idempotent write leaves as it is."""

    open: Callable[[Path], BarStore]
    fingerprint: Callable[[Path], object]
    wipe: Callable[[Path], None] = shutil.rmtree


def sqlite_rows(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "bars.db")) as connection:
        return list(connection.iterdump())


def every_byte(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


BACKENDS = {
    "delta": Backend(
        open=lambda directory: open_store("delta:bars", directory, create=True),
        fingerprint=every_byte,
    ),
    "sqlite": Backend(
        open=lambda directory: open_store("sqlite:///bars.db", directory, create=True),
        fingerprint=sqlite_rows,
    ),
}


@pytest.fixture(params=[*BACKENDS, "postgres"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return each backend; of PostgreSQL one with a database of this test's own."""
    if request.param != "postgres":
        return BACKENDS[request.param]
    url = request.getfixturevalue("postgres_url")
    psycopg = pytest.importorskip("psycopg")
    address = url.replace("+psycopg", "")

    def rows(_: Path) -> object:
        with psycopg.connect(address) as connection:
            return [
                connection.execute(f"TABLE {table} ORDER BY 1, 2, 3").fetchall()
                for table in POSTGRES_TABLES
            ]

    def wipe(directory: Path) -> None:
        shutil.rmtree(directory)
        with psycopg.connect(address) as connection:
            connection.execute(f"TRUNCATE {', '.join(POSTGRES_TABLES)}")

    return Backend(lambda directory: open_store(url, directory, create=True), rows, wipe)


symbols = st.sampled_from(["A", "AA", "B", "BRK.B", "a", "^VIX", "Z/9"])
starts = st.builds(
    lambda day, minute: FIRST_MIDNIGHT + day * DAY + minute * MINUTE,
    st.integers(0, 2),
    st.sampled_from([0, 1, 2, 719, 720, 1438, 1439]),
)
values = st.tuples(
    *[st.sampled_from([1.0, 1.5, 0.1])] * 4, st.sampled_from([0.0, -0.0, 100.0, 1e12, 0.3])
)
rows = st.dictionaries(st.tuples(symbols, starts), values, max_size=25)
intervals = st.sampled_from([Interval.parse("1m"), Interval.parse("5m")])
edges = st.builds(lambda start, shift: start + shift, starts, st.sampled_from([-1, 0, 1, MINUTE]))


def frame(bars: Model) -> pl.DataFrame:
    return pl.DataFrame([(*key, *bars[key]) for key in sorted(bars)], schema=SCHEMA, orient="row")


def utc_date(start: int) -> date:
    return FIRST_DAY + timedelta(days=(start - FIRST_MIDNIGHT) // DAY)


def checksum(bars: dict[int, Values]) -> str:
    """The documented layout, packed number by number."""
    packed = b"".join(struct.pack("<q", start) for start in sorted(bars))
    for column in range(5):
        for start in sorted(bars):
            packed += struct.pack("<d", bars[start][column] or 0.0)  # -0.0 is 0.0
    return xxhash.xxh3_128_hexdigest(packed)


class RefusedError(Exception):
    """What a caller's `before_commit` raises."""


class StoreMachine(RuleBasedStateMachine):
    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="contract-"))
        self.model: dict[Interval, Model] = {}

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            store.close()
        self.backend.wipe(self.directory)

    @initialize()
    def open_twice(self) -> None:
        self.stores = [self.backend.open(self.directory) for _ in range(2)]

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = self.backend.open(self.directory)

    @rule(which=st.integers(0, 1), interval=intervals, bars=rows)
    def write(self, which: int, interval: Interval, bars: Model) -> None:
        model = self.model.setdefault(interval, {})
        before = self.backend.fingerprint(self.directory)
        told: list[WriteOutcome] = []
        outcome = self.stores[which].write(interval, frame(bars), before_commit=told.append)
        assert [id(each) for each in told] == [id(outcome)]
        check_outcome(outcome, model, bars)
        if outcome.stored == outcome.revised == 0:
            assert self.backend.fingerprint(self.directory) == before
        model.update(bars)

    @rule(which=st.integers(0, 1), interval=intervals, data=st.data())
    def write_stored_bars_again(self, which: int, interval: Interval, data: st.DataObject) -> None:
        model = self.model.get(interval, {})
        chosen = data.draw(st.sets(st.sampled_from(sorted(model)))) if model else set()
        before = self.backend.fingerprint(self.directory)
        outcome = self.stores[which].write(interval, frame({key: model[key] for key in chosen}))
        assert (outcome.stored, outcome.duplicates, outcome.revised) == (0, len(chosen), 0)
        assert self.backend.fingerprint(self.directory) == before

    @rule(which=st.integers(0, 1), interval=intervals, bars=rows)
    def refuse(self, which: int, interval: Interval, bars: Model) -> None:
        def refuse(outcome: WriteOutcome) -> None:
            raise RefusedError

        before = self.backend.fingerprint(self.directory)
        with pytest.raises(RefusedError):
            self.stores[which].write(interval, frame(bars), before_commit=refuse)
        assert self.backend.fingerprint(self.directory) == before

    @rule(
        which=st.integers(0, 1),
        interval=intervals,
        asked=st.none() | st.lists(symbols | st.just("NONE")),
        start=edges,
        end=edges,
    )
    def read(
        self, which: int, interval: Interval, asked: list[str] | None, start: int, end: int
    ) -> None:
        expected = {
            key: bar
            for key, bar in self.model.get(interval, {}).items()
            if start <= key[1] < end and (asked is None or key[0] in asked)
        }
        got = self.stores[which].read(interval, asked, start, end)
        assert dict(got.schema) == SCHEMA
        assert got.rows() == frame(expected).rows()
        both = self.stores[which].read_versioned(interval, asked, start, end)
        assert both.bars.equals(got)
        days = (utc_date(start), utc_date(max(start, end - 1)))
        known = self.stores[which].versions(interval, *days, asked)
        assert both.versions.equals(known if start < end else known.clear())

    @rule(
        which=st.integers(0, 1),
        interval=intervals,
        asked=st.none() | st.lists(symbols),
        first=st.integers(-1, 3),
        last=st.integers(-1, 3),
    )
    def versions(
        self, which: int, interval: Interval, asked: list[str] | None, first: int, last: int
    ) -> None:
        groups: dict[tuple[date, str], dict[int, Values]] = {}
        for (symbol, start), bar in self.model.get(interval, {}).items():
            groups.setdefault((utc_date(start), symbol), {})[start] = bar
        bounds = FIRST_DAY + timedelta(days=first), FIRST_DAY + timedelta(days=last)
        got = self.stores[which].versions(interval, *bounds, asked)
        assert dict(got.schema) == {
            "date": pl.Date, "symbol": pl.String, "rows": pl.Int64, "checksum": pl.String
        }  # fmt: skip
        assert got.rows() == [
            (day, symbol, len(bars), checksum(bars))
            for (day, symbol), bars in sorted(groups.items())
            if bounds[0] <= day <= bounds[1] and (asked is None or symbol in asked)
        ]

    @precondition(lambda self: hasattr(self, "stores"))
    @invariant()
    def days_and_spans(self) -> None:
        for interval in (Interval.parse("1m"), Interval.parse("5m")):
            model = self.model.get(interval, {})
            by_symbol: dict[str, list[int]] = {}
            for symbol, start in model:
                by_symbol.setdefault(symbol, []).append(start)
            for store in self.stores:
                assert (interval in store.intervals()) == bool(model)
                assert store.days(interval) == sorted({utc_date(start) for _, start in model})
                spans = store.spans(interval)
                assert spans.columns == ["symbol", "first", "last", "rows"]
                assert spans.rows() == [
                    (symbol, min(found), max(found), len(found))
                    for symbol, found in sorted(by_symbol.items())
                ]


def check_outcome(outcome: WriteOutcome, model: Model, bars: Model) -> None:
    counts: dict[tuple[str, date], list[int]] = {}
    revisions = []
    for key in sorted(bars):
        fate = 0 if key not in model else 1 if model[key] == bars[key] else 2
        counts.setdefault((key[0], utc_date(key[1])), [0, 0, 0])[fate] += 1
        if fate == 2:
            revisions.append((*key, *model[key], *bars[key]))
    assert outcome.counts.columns == ["symbol", "date", "stored", "duplicates", "revised"]
    assert sorted(outcome.counts.rows()) == [(*key, *counts[key]) for key in sorted(counts)]
    assert sorted(outcome.revisions.rows()) == revisions


def test_an_empty_range_has_neither_bars_nor_versions(backend: Backend, tmp_path: Path) -> None:
    store, interval = backend.open(tmp_path), Interval.parse("1m")
    noon = FIRST_MIDNIGHT + DAY // 2
    store.write(interval, frame({("A", noon - MINUTE): (1.0,) * 5, ("A", noon): (1.0,) * 5}))
    for start, end in ((noon, noon), (noon - 1, noon - 1), (noon + 1, noon - 1)):
        both = store.read_versioned(interval, None, start, end)
        assert (both.bars.height, both.versions.height) == (0, 0)


def test_store_behaves_like_a_dict(backend: Backend, request: pytest.FixtureRequest) -> None:
    machine = type("Machine", (StoreMachine,), {"backend": backend})
    quick = settings(
        # A server takes five times as long for each.
        max_examples=10 if "postgres" in request.node.name else 25,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=quick)
