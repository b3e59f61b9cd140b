"""Any sequence of calls leaves the states, cursors and seals that a dict says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

from stream_coord.compute.quality import QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import Cursor, SealRecord, StateRecord, StateRow, open_ledger

MEMORY = Path("/dev/shm")  # noqa: S108 -- hundreds of commits; on a disk each waits for it
KEYS = ("a", "A", "b")
SESSIONS = ("2018-11-21", "2018-11-23", "2018-11-26", "2018-11-27")
SYMBOLS = ("A", "BRK.B", "Z", "a")
NAMES = ("NOT_STARTED", "ACTIVE", "TIMEOUT", "ENDED", "ERROR")

keys = st.sampled_from(KEYS)
sessions = st.sampled_from(SESSIONS)
minutes = st.integers(0, 2**31 - 1)
wide = st.integers(-(2**63), 2**63 - 1)
causes = st.sampled_from([None, "", "damaged", "ü [/B] '%s' %"])
states = st.builds(
    StateRecord, sessions, wide, st.sampled_from(NAMES), st.sampled_from(NAMES), causes
)


@st.composite
def seals(draw: st.DrawFn) -> SealRecord:
    session = draw(sessions)
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), unique=True))
    counts = st.tuples(*[minutes] * 6)
    quality = [QualityRow(symbol, session, *draw(counts)) for symbol in symbols]
    checksums = {symbol: draw(st.sampled_from(["", "5f"])) for symbol in symbols[1:]}
    return SealRecord(session, draw(wide), draw(wide), draw(wide), "v", quality, checksums)


@dataclass
class Model:
    """What the ledger must know; the runs by number, with whether each is running."""

    running: dict[int, bool] = field(default_factory=dict)
    states: dict[int, list[StateRecord]] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    seals: dict[tuple[str, str], tuple[SealRecord, int, int]] = field(default_factory=dict)

    def may_seal(self, key: str, session: str) -> bool:
        cursor = self.cursors.get(key)
        return cursor is None or (cursor.session == session and cursor.error is None)


class SessionMachine(RuleBasedStateMachine):
    """The ledger beside the model; ids of runs count from one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.ledger = open_ledger(url, Path("/"), create=True)
        self.model = Model()
        self.clock = count(100)
        self.begin_run()
        self.begin_run()

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

    @rule()
    def begin_run(self) -> None:
        run_id = self.ledger.begin_run(
            7,
            "roll",
            settings="",
            config_digest="",
            calendar="NYSE",
            calendar_version="5",
            store="delta:data/bars",
            program_version="0",
        )
        self.model.running[run_id] = True
        self.model.states[run_id] = []

    @precondition(lambda self: sum(self.model.running.values()) > 1)
    @rule()
    def finish_run(self) -> None:
        run_id = next(number for number, runs in self.model.running.items() if runs)
        self.ledger.finish_run(
            run_id,
            8,
            "done",
            digest=None,
            sessions=0,
            bars=0,
            derived_bars=0,
            updates=0,
            timings={},
        )
        self.model.running[run_id] = False

    @rule(pick=st.integers(0, 3), some=st.lists(states, max_size=4))
    def record_states(self, pick: int, some: list[StateRecord]) -> None:
        run_id = self.run(pick)
        if not self.model.running[run_id]:
            with pytest.raises(LedgerError):
                self.ledger.record_states(run_id, some)
            return
        self.ledger.record_states(run_id, some)
        self.model.states[run_id] += some

    @rule(
        pick=st.integers(0, 3),
        key=keys,
        seal=seals(),
        following=sessions,
        some=st.lists(states, max_size=2),
    )
    def seal(
        self, pick: int, key: str, seal: SealRecord, following: str, some: list[StateRecord]
    ) -> None:
        run_id, now = self.run(pick), next(self.clock)
        if not (self.model.running[run_id] and self.model.may_seal(key, seal.session)):
            with pytest.raises(LedgerError):
                self.ledger.seal_session(run_id, key, seal, following, now, some)
            return
        self.ledger.seal_session(run_id, key, seal, following, now, some)
        self.model.seals[key, seal.session] = seal, run_id, now
        self.model.states[run_id] += some
        self.model.cursors[key] = Cursor(key, following, now, run_id, None)

    @rule(pick=st.integers(0, 3), key=keys, state=states)
    def flag_error(self, pick: int, key: str, state: StateRecord) -> None:
        run_id, now = self.run(pick), next(self.clock)
        known = self.model.cursors.get(key)
        there = known is None or known.session == state.session
        if not (self.model.running[run_id] and state.cause and there):
            with pytest.raises(LedgerError):
                self.ledger.flag_error(run_id, key, state, now)
            return
        self.ledger.flag_error(run_id, key, state, now)
        self.model.states[run_id].append(state)
        self.model.cursors[key] = Cursor(key, state.session, now, run_id, state.cause)

    @rule(pick=st.integers(0, 3), key=keys, state=states)
    def clear_error(self, pick: int, key: str, state: StateRecord) -> None:
        run_id, now = self.run(pick), next(self.clock)
        known = self.model.cursors.get(key)
        there = known is not None and known.error is not None and known.session == state.session
        if not (self.model.running[run_id] and there):
            with pytest.raises(LedgerError):
                self.ledger.clear_error(run_id, key, state, now)
            return
        self.ledger.clear_error(run_id, key, state, now)
        self.model.states[run_id].append(state)
        self.model.cursors[key] = Cursor(key, state.session, now, run_id, None)

    @rule(first=st.none() | sessions, last=st.none() | sessions)
    def same_states(self, first: str | None, last: str | None) -> None:
        for wanted in (None, *self.model.running, 99):
            assert self.ledger.states(wanted, first, last) == [
                StateRow(state.session, state.time, state.left, state.entered, state.cause, run_id)
                for run_id, some in self.model.states.items()
                if wanted in (None, run_id)
                for state in some
                if (first or "") <= state.session <= (last or "9")
            ]

    @rule()
    def same_answers(self) -> None:
        self.same_states(None, None)
        for key in (*KEYS, "none"):
            assert self.ledger.cursor(key) == self.model.cursors.get(key)
        for wanted in (None, *KEYS):
            rows = self.ledger.seals(wanted)
            known = sorted(key for key in self.model.seals if wanted in (None, key[0]))
            assert [(row.key, row.session) for row in rows] == known
        for row in self.ledger.seals():
            seal, run_id, now = self.model.seals[row.key, row.session]
            assert (row.open, row.close, row.bars) == (seal.open, seal.close, seal.bars)
            assert (row.data_version, row.run_id, row.at) == ("v", run_id, now)
            by_symbol = sorted(seal.quality, key=lambda each: each.symbol)
            assert self.ledger.seal_quality(row.id) == by_symbol
            assert list(self.ledger.seal_checksums(row.id).items()) == [
                (each.symbol, seal.checksums.get(each.symbol, "")) for each in by_symbol
            ]


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


def test_any_calls_leave_what_the_model_says(empty: Callable[[], str]) -> None:
    class Machine(SessionMachine):
        def __init__(self) -> None:
            super().__init__(empty())

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
