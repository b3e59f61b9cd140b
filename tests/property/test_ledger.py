"""Any sequence of calls leaves the ledger as a plain model of lists and dicts says."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path

import polars as pl
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

from stream_coord.bars import FIELDS
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import (
    FileRecord,
    Outcome,
    SessionRecord,
    SessionRow,
    open_ledger,
)

MEMORY = Path("/dev/shm")  # noqa: S108 -- hundreds of commits; on a disk each waits for it
COUNTS = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")

Revision = tuple[str, str, int, float, float]  # kind, symbol, start, old price, new price
Reject = tuple[int, str]  # row, reason


@dataclass
class ModelFile:
    record: FileRecord
    revisions: Counter[Revision]
    rejects: list[Reject]
    sealed: bool = False


@dataclass
class ModelImport:
    interval: str
    status: str = "running"
    files: dict[str, ModelFile] = field(default_factory=dict)


@dataclass
class ModelRun:
    status: str = "running"
    sessions: dict[str, SessionRecord] = field(default_factory=dict)


picks = st.integers(0, 3)
paths = st.sampled_from(["a.csv", "b.csv", "ü'.csv"])
symbols = st.sampled_from(["A", "BRK.B", "Z"])
dates = st.sampled_from(["2018-11-21", "2018-11-23", "2018-11-26"])
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["done", "failed", "interrupted"])
minutes = st.integers(0, 2).map(lambda minute: 60 * minute)
prices = st.sampled_from([1.0, 2.5])
kinds = st.sampled_from(["revised", "superseded"])
revision_rows = st.lists(st.tuples(kinds, symbols, minutes, prices, prices), max_size=4)
reject_rows = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["nan", "high < low"])))
counts = st.integers(0, 2**40)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside the model; every id is the position in the model's list, plus one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.ledger = open_ledger(url, Path("/"), create=True)
        self.imports: list[ModelImport] = []
        self.runs: list[ModelRun] = []

    def teardown(self) -> None:
        try:
            self.same_answers()
        finally:
            self.ledger.close()

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(self.url, Path("/"))

    @rule(interval=st.sampled_from(["1m", "5m"]))
    def begin_import(self, interval: str) -> None:
        self.imports.append(ModelImport(interval))
        assert self.ledger.begin_import(7, interval, "") == len(self.imports)

    @precondition(lambda self: self.imports)
    @rule(pick=picks, path=paths, count=counts, revised=revision_rows, rejected=reject_rows)
    def record_file(
        self, pick: int, path: str, count: int, revised: list[Revision], rejected: list[Reject]
    ) -> None:
        number = pick % len(self.imports)
        job = self.imports[number]
        record = FileRecord(path, "csv", *(count + place for place in range(7)))
        arguments = (
            number + 1,
            [record],
            revision_frame(path, revised),
            reject_frame(path, rejected),
        )
        earlier = job.files.get(path)
        if job.status != "running" or (earlier and earlier.sealed):
            with pytest.raises(LedgerError):
                self.ledger.record_files(*arguments)
            return
        self.ledger.record_files(*arguments)
        known = {
            row
            for other in self.imports
            for file in other.files.values()
            if file.sealed and other.interval == job.interval
            for row in file.revisions
        }
        kept = Counter(row for row in revised if row[0] == "revised")
        kept.update({row for row in revised if row[0] == "superseded"} - known)
        job.files[path] = ModelFile(record, kept, rejected)

    @precondition(lambda self: self.imports)
    @rule(pick=picks, path=paths)
    def seal_file(self, pick: int, path: str) -> None:
        number = pick % len(self.imports)
        job = self.imports[number]
        if job.status != "running" or path not in job.files:
            with pytest.raises(LedgerError):
                self.ledger.seal_files(number + 1, [path])
            return
        self.ledger.seal_files(number + 1, [path])
        job.files[path].sealed = True

    @precondition(lambda self: self.imports)
    @rule(pick=picks, outcome=outcomes)
    def finish_import(self, pick: int, outcome: Outcome) -> None:
        number = pick % len(self.imports)
        if self.imports[number].status != "running":
            with pytest.raises(LedgerError):
                self.ledger.finish_import(number + 1, 8, outcome)
            return
        self.ledger.finish_import(number + 1, 8, outcome)
        self.imports[number].status = outcome

    @rule()
    def begin_run(self) -> None:
        self.runs.append(ModelRun())
        run_id = self.ledger.begin_run(
            7,
            "replay",
            settings="",
            config_digest="",
            calendar="NYSE",
            calendar_version="5",
            store="delta:data/bars",
            program_version="0",
        )
        assert run_id == len(self.runs)

    @precondition(lambda self: self.runs)
    @rule(pick=picks, date=dates, present=st.dictionaries(symbols, st.integers(0, 390)))
    def record_session(self, pick: int, date: str, present: dict[str, int]) -> None:
        number = pick % len(self.runs)
        run = self.runs[number]
        quality = [
            QualityRow(symbol, date, 390, bars, missing=390 - bars)
            for symbol, bars in present.items()
        ]
        gaps = [
            GapRow(row.symbol, date, 60, 60 + row.missing, row.missing, "missing")
            for row in quality
            if row.missing
        ]
        bars = sum(present.values())
        record = SessionRecord(date, 10, 20, f"d{bars}", "v", bars, 1, 2, quality, gaps)
        if run.status != "running" or date in run.sessions:
            with pytest.raises(LedgerError):
                self.ledger.record_session(number + 1, record)
            return
        self.ledger.record_session(number + 1, record)
        run.sessions[date] = record

    @precondition(lambda self: self.runs)
    @rule(pick=picks, outcome=outcomes, bars=counts)
    def finish_run(self, pick: int, outcome: Outcome, bars: int) -> None:
        number = pick % len(self.runs)
        run = self.runs[number]
        if run.status != "running":
            with pytest.raises(LedgerError):
                self.finish(number + 1, outcome, bars)
            return
        self.finish(number + 1, outcome, bars)
        run.status = outcome
        assert self.ledger.runs()[-number - 1].bars == bars

    def finish(self, run_id: int, outcome: Outcome, bars: int) -> None:
        self.ledger.finish_run(
            run_id,
            8,
            outcome,
            digest=None,
            sessions=1,
            bars=bars,
            derived_bars=0,
            updates=0,
            timings={},
        )

    @rule()
    def same_answers(self) -> None:
        self.same_imports()
        self.same_rows()
        rows = [(row.id, row.status) for row in self.ledger.runs()]
        expected = [(number, run.status) for number, run in enumerate(self.runs, 1)]
        assert rows == expected[::-1]
        for number, run in enumerate(self.runs, 1):
            self.same_sessions(number, run)

    def same_imports(self) -> None:
        rows = self.ledger.imports()
        assert [row.id for row in rows] == list(range(len(self.imports), 0, -1))
        for row in rows:
            job = self.imports[row.id - 1]
            sealed = [file.record for file in job.files.values() if file.sealed]
            assert (row.interval, row.status) == (job.interval, job.status)
            assert (row.files, row.pending) == (len(sealed), len(job.files) - len(sealed))
            for name in COUNTS:
                assert getattr(row, name) == sum(getattr(record, name) for record in sealed)

    def same_rows(self) -> None:
        newest: dict[str, list[Reject]] = {}
        found: Counter[tuple[object, ...]] = Counter()
        kinds: Counter[str] = Counter()
        for number, job in enumerate(self.imports, 1):
            for path, file in job.files.items():
                for row, times in file.revisions.items():
                    found[number, path, file.sealed, job.interval, *row] += times
                    kinds[row[0]] += times * file.sealed
                if file.sealed:
                    newest[path] = file.rejects
        reasons = Counter(reason for rejects in newest.values() for _, reason in rejects)
        assert self.ledger.reject_counts() == reasons
        assert self.ledger.revision_counts() == +kinds
        columns = ("import_id", "path", "sealed", "interval")
        frame = self.ledger.revisions().select(
            *columns, "kind", "symbol", "start", "old_open", "volume"
        )
        assert Counter(frame.rows()) == found

    def same_sessions(self, run_id: int, run: ModelRun) -> None:
        records = [run.sessions[date] for date in sorted(run.sessions)]
        assert self.ledger.run_sessions(run_id) == [
            SessionRow(record.session, 10, 20, record.digest, "v", record.bars, 1, 2)
            for record in records
        ]
        quality = [row for record in records for row in record.quality]
        gaps = [row for record in records for row in record.gaps]
        place = attrgetter("session", "symbol")
        assert self.ledger.run_quality(run_id) == sorted(quality, key=place)
        assert self.ledger.run_gaps(run_id) == sorted(gaps, key=place)


def revision_frame(path: str, rows: list[Revision]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "path": path,
                "kind": kind,
                "symbol": symbol,
                "start": start,
                **{f"old_{name}": old for name in FIELDS},
                **dict.fromkeys(FIELDS, new),
            }
            for kind, symbol, start, old, new in rows
        ]
    )


def reject_frame(path: str, rows: list[Reject]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"path": path, "row": row, "symbol": "A", "start": 0, "reason": reason, "raw": None}
            for row, reason in rows
        ]
    )


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
    class Machine(LedgerMachine):
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
