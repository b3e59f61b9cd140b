"""Any sequence of changes leaves the gaps that a dict says, whenever the ledger is reopened."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stream_coord.compute.quality import GapRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import (
    Disagreement,
    GapChange,
    GapState,
    SourceCall,
    SourceCallRow,
    open_ledger,
)

MEMORY = Path("/dev/shm")  # noqa: S108 -- hundreds of commits; on a disk each waits for it
INTERVALS = ("1m", "5m")
SYMBOLS = ("A", "BRK.B", "Z", "a")
SESSIONS = ("2018-11-21", "2018-11-23", "2018-11-26")
NAMES = ("web: http", "files: csv ü'%", "other: store")
MINUTE = 60_000_000

Pair = tuple[str, str]  # symbol, session
Key = tuple[str, str, str, int]  # interval, session, symbol, start

pairs = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(SESSIONS))
names = st.lists(st.sampled_from(NAMES), unique=True).map(tuple)
values = st.tuples(*[st.floats(0, 1e9)] * 5)
times = st.one_of(st.none(), st.integers(-(2**62), 2**62))


@st.composite
def gaps_of(draw: st.DrawFn, symbol: str, session: str) -> list[GapRow]:
    """Return ranges that do not overlap, in any order."""
    edges = draw(st.lists(st.integers(0, 30), unique=True, max_size=6).map(sorted))
    rows = [
        GapRow(
            symbol,
            session,
            first * MINUTE,
            stop * MINUTE,
            stop - first,
            draw(st.sampled_from(["missing", "no_trade", "filled", "unresolved"])),
            draw(st.sampled_from(["minutes", "session", "before_first"])),
            draw(st.one_of(st.none(), st.sampled_from(NAMES))),
            draw(st.integers(0, 9)),
            draw(times),
            draw(names),
            draw(names),
        )
        for first, stop in zip(edges[::2], edges[1::2], strict=False)
    ]
    return draw(st.permutations(rows))


@st.composite
def changes(draw: st.DrawFn) -> GapChange:
    scope = draw(st.lists(pairs, unique=True, max_size=4))
    minutes = st.integers(0, 2).map(lambda minute: minute * MINUTE)
    unequal = st.builds(
        Disagreement,
        st.sampled_from(SYMBOLS),
        minutes,
        st.just(NAMES[0]),
        st.sampled_from(NAMES[1:]),
        values,
        values,
    )
    return GapChange(
        draw(st.sampled_from(INTERVALS)),
        tuple(scope),
        tuple(gap for pair in scope for gap in draw(gaps_of(*pair))),
        tuple(draw(st.lists(unequal, max_size=3, unique_by=lambda row: astuple(row)[:4]))),
    )


@dataclass
class Model:
    """What the ledger must know."""

    running: dict[int, bool] = field(default_factory=dict)
    states: dict[Key, tuple[GapRow, int]] = field(default_factory=dict)
    pending: dict[int, GapChange] = field(default_factory=dict)
    unequal: dict[tuple[object, ...], Disagreement] = field(default_factory=dict)
    calls: list[tuple[int, SourceCall]] = field(default_factory=list)

    def seal(self, run_id: int, change: GapChange) -> None:
        for interval, session, symbol, start in list(self.states):
            if interval == change.interval and (symbol, session) in change.scope:
                del self.states[interval, session, symbol, start]
        for gap in change.gaps:
            self.states[change.interval, gap.session, gap.symbol, gap.start] = gap, run_id
        for row in change.disagreements:
            key = (row.symbol, row.start, run_id, change.interval, row.source, row.other)
            self.unequal[key] = row
        self.pending.pop(run_id, None)


class GapMachine(RuleBasedStateMachine):
    """The ledger beside the model; ids of runs count from one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.ledger = open_ledger(url, Path("/"), create=True)
        self.model = Model()

    def teardown(self) -> None:
        try:
            self.same_answers()
        finally:
            self.ledger.close()

    def run(self, pick: int) -> int:
        return pick % len(self.model.running) + 1

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(self.url, Path("/"))
        self.same_answers()

    @rule()
    def begin_run(self) -> None:
        run_id = self.ledger.begin_run(
            7,
            "fill-gaps",
            settings="",
            config_digest="",
            calendar="NYSE",
            calendar_version="5",
            store="delta:data/bars",
            program_version="0",
        )
        self.model.running[run_id] = True
        assert list(self.model.running) == list(range(1, run_id + 1))

    @precondition(lambda self: any(self.model.running.values()))
    @rule()
    def finish_run(self) -> None:
        run_id = next(number for number, runs in self.model.running.items() if runs)
        self.ledger.finish_run(
            run_id,
            8,
            "interrupted",
            digest=None,
            sessions=0,
            bars=0,
            derived_bars=0,
            updates=0,
            timings={},
        )
        self.model.running[run_id] = False

    @precondition(lambda self: self.model.running)
    @rule(pick=st.integers(0, 3), change=changes())
    def pend(self, pick: int, change: GapChange) -> None:
        run_id = self.run(pick)
        if not self.model.running[run_id]:
            with pytest.raises(LedgerError):
                self.ledger.pend_gaps(run_id, change)
            return
        self.ledger.pend_gaps(run_id, change)
        self.model.pending[run_id] = change

    @precondition(lambda self: self.model.running)
    @rule(pick=st.integers(0, 3), change=changes())
    def seal(self, pick: int, change: GapChange) -> None:
        self.ledger.seal_gaps(self.run(pick), change)
        self.model.seal(self.run(pick), change)

    @precondition(lambda self: self.model.pending)
    @rule(keep=st.booleans())
    def recover(self, keep: bool) -> None:
        (run_id, change), *_ = self.ledger.pending_gaps()
        if keep:
            self.ledger.seal_gaps(run_id, change)
            self.model.seal(run_id, change)
            return
        self.ledger.drop_pending(run_id)
        del self.model.pending[run_id]

    @precondition(lambda self: self.model.running)
    @rule(pick=st.integers(0, 3), bars=st.integers(0, 2**40), failed=st.booleans())
    def record_calls(self, pick: int, bars: int, failed: bool) -> None:
        run_id = self.run(pick)
        call = SourceCall(
            NAMES[pick % 3],
            bars,
            0.25,
            1,
            2,
            bars,
            "failed" if failed else "answered",
            "429" if failed else None,
        )
        if not self.model.running[run_id]:
            with pytest.raises(LedgerError):
                self.ledger.record_calls(run_id, [call])
            return
        self.ledger.record_calls(run_id, [call] * pick)
        self.model.calls += [(run_id, call)] * pick

    @rule(
        interval=st.sampled_from(INTERVALS),
        first=st.sampled_from(SESSIONS),
        last=st.sampled_from(SESSIONS),
        symbols=st.one_of(st.none(), st.lists(st.sampled_from(SYMBOLS))),
    )
    def same_part(self, interval: str, first: str, last: str, symbols: list[str] | None) -> None:
        assert tuples(self.ledger.gap_states(interval, first, last, symbols)) == [
            (*astuple(gap), run_id)
            for (of, session, symbol, _), (gap, run_id) in sorted(self.model.states.items())
            if of == interval and first <= session <= last
            if symbols is None or symbol in symbols
        ]

    @rule()
    def same_answers(self) -> None:
        for each in INTERVALS:
            self.same_part(each, SESSIONS[0], SESSIONS[-1], None)
        assert self.ledger.pending_gaps() == sorted(self.model.pending.items())
        for interval in (None, *INTERVALS):
            found = [
                (
                    (row.symbol, row.start, row.run_id, row.interval, row.source, row.other),
                    row.values,
                    row.other_values,
                )
                for row in self.ledger.disagreements(interval)
            ]
            assert found == [
                (key, row.values, row.other_values)
                for key, row in sorted(self.model.unequal.items())
                if interval in (None, key[3])
            ]
        for run_id in (None, *self.model.running):
            calls = [
                (*astuple(call), number)
                for number, call in self.model.calls
                if run_id in (None, number)
            ]
            assert tuples(self.ledger.source_calls(run_id)) == calls


def tuples(rows: Sequence[GapState] | Sequence[SourceCallRow]) -> list[tuple[object, ...]]:
    return [astuple(row) for row in rows]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Return a function that returns the address of a database with nothing in it."""
    if request.param == "postgresql":
        yield partial(emptied, request.getfixturevalue("postgres_url"))
        return
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        numbers = count()
        yield lambda: f"sqlite:///{folder}/{next(numbers)}.db"


def emptied(url: str) -> str:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


def test_any_changes_leave_what_the_model_says(empty: Callable[[], str]) -> None:
    class Machine(GapMachine):
        def __init__(self) -> None:
            super().__init__(empty())

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
