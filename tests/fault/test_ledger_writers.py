"""The ledger among other writers, and after writers that were interrupted or killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError, StoreError
from stream_coord.stores.database import Schema, open_database, postgres, prepare, sqlite
from stream_coord.stores.ledger import Ledger, SessionRecord, open_ledger
from stream_coord.stores.ledger import schema as ledger_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        address: str = request.getfixturevalue("postgres_url")
        return address
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(url, tmp_path, create=True) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer wait for less than the blink of an eye."""
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(sqlite, "WAITS", 3)
    monkeypatch.setattr(postgres, "WAIT_SECONDS", 0.01)


def begin_run(ledger: Ledger) -> int:
    return ledger.begin_run(
        1,
        "replay",
        settings="",
        config_digest="",
        calendar="NYSE",
        calendar_version="5",
        store="delta:data/bars",
        program_version="0",
    )


def session(day: int, symbols: int = 3) -> SessionRecord:
    date = f"2018-11-{day:02}"
    return SessionRecord(
        session=date,
        open=0,
        close=60,
        digest="d",
        data_version="v",
        bars=1,
        derived_bars=0,
        updates=0,
        quality=[QualityRow(f"S{n}", date, 390, 389, 1) for n in range(symbols)],
        gaps=[GapRow(f"S{n}", date, 60, 120, 1, "missing") for n in range(symbols)],
    )


def test_threads_of_one_ledger_wait_for_each_other(ledger: Ledger) -> None:
    def work(_: int) -> None:
        run_id = begin_run(ledger)
        for day in range(1, 9):
            ledger.record_session(run_id, session(day))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    runs = ledger.runs()
    assert len(runs) == 8
    for run in runs:
        assert len(ledger.run_sessions(run.id)) == 8
        assert len(ledger.run_quality(run.id)) == 24


def test_processes_wait_for_each_other(ledger: Ledger, url: str) -> None:
    code = """
import sys
from pathlib import Path
from stream_coord.stores.ledger import QualityRow, SessionRecord, open_ledger
with open_ledger(sys.argv[1], Path("/")) as ledger:
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(40):
        run = ledger.begin_run(number, sys.argv[2], settings="", config_digest="", calendar="",
                               calendar_version="", store="", program_version="")
        quality = [QualityRow(str(n), "2018-11-01", 1, 1) for n in range(50)]
        ledger.record_session(run, SessionRecord("2018-11-01", 0, 1, "", "", 1, 0, 0, quality, []))
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
    for writer in writers:
        writer.communicate("go\n")
    assert [writer.returncode for writer in writers] == [0, 0]
    runs = ledger.runs()
    for name in ("left", "right"):
        assert [run.started for run in runs if run.command == name] == list(range(39, -1, -1))
    assert {len(ledger.run_quality(run.id)) for run in runs} == {50}


@pytest.mark.parametrize("attempt", range(4))
def test_many_may_make_a_ledger_at_once(url: str, attempt: int) -> None:
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait()
        with open_ledger(url, Path("/"), create=True) as ledger:
            begin_run(ledger)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with open_ledger(url, Path("/")) as ledger:
        assert len(ledger.runs()) == 6


@pytest.mark.parametrize("attempt", range(4))
def test_a_ledger_and_a_store_may_be_made_in_one_database_at_once(url: str, attempt: int) -> None:
    metadata = sa.MetaData()
    sa.Table("bars", metadata, sa.Column("symbol", sa.Text()))
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        if number % 2:
            open_ledger(url, Path("/"), create=True).close()
            return
        database = open_database(url, Path("/"), create=True, subject="store", error=StoreError)
        with closing(database):
            prepare(database, Schema("bars", 1, metadata), create=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with open_ledger(url, Path("/")) as ledger:
        assert ledger.runs() == []


def test_a_reader_sees_the_last_commit_while_another_writes(ledger: Ledger, url: str) -> None:
    run_id = begin_run(ledger)
    with open_ledger(url, Path("/")) as reader, ledger._writing() as connection:
        connection.execute(ledger_schema.tables().runs.delete())
        assert [run.id for run in reader.runs()] == [run_id]


def test_a_reader_sees_one_state_until_it_ends(ledger: Ledger, url: str) -> None:
    count = sa.select(sa.func.count()).select_from(ledger_schema.tables().runs)
    with open_ledger(url, Path("/")) as reader, reader._reading() as connection:
        assert connection.execute(count).scalar() == 0
        begin_run(ledger)
        assert connection.execute(count).scalar() == 0
    assert len(ledger.runs()) == 1


@pytest.mark.usefixtures("impatient")
def test_a_writer_gives_up_on_one_that_never_ends(ledger: Ledger, url: str) -> None:
    with open_ledger(url, Path("/")) as other, ledger._writing():
        with pytest.raises(LedgerError, match="is busy"):
            begin_run(other)
        assert other.runs() == []
    begin_run(ledger)
    assert len(ledger.runs()) == 1


@pytest.mark.parametrize("statement", ["SELECT", "INSERT INTO run_s", "INSERT INTO run_g"])
def test_an_interrupted_call_leaves_nothing_behind_and_no_lock(
    ledger: Ledger, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = begin_run(ledger)
    monkeypatch.setattr(sqlite, "WAITS", 1)

    def interrupt(*args: object) -> None:
        if str(args[2]).startswith(statement):
            raise KeyboardInterrupt

    engine = ledger._database.engine
    sa.event.listen(engine, "after_cursor_execute", interrupt)
    try:
        ledger.record_session(run_id, session(1))
    except KeyboardInterrupt:
        # While the interrupt is handled, as a command does it.
        sa.event.remove(engine, "after_cursor_execute", interrupt)
        ledger.record_session(run_id, session(2))
    assert [row.session for row in ledger.run_sessions(run_id)] == ["2018-11-02"]
    assert {row.session for row in ledger.run_quality(run_id)} == {"2018-11-02"}


@pytest.mark.usefixtures("impatient")
def test_an_interrupt_as_a_call_begins_leaves_no_lock(ledger: Ledger) -> None:
    def interrupt(_: sa.Connection) -> None:
        raise KeyboardInterrupt

    engine = ledger._database.engine
    sa.event.listen(engine, "begin", interrupt)
    try:
        begin_run(ledger)
    except KeyboardInterrupt:
        sa.event.remove(engine, "begin", interrupt)
        begin_run(ledger)
    assert len(ledger.runs()) == 1


def test_an_interrupt_as_sqlite_takes_its_lock_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patiently = sqlite._patiently

    def interrupted(attempt: Callable[[], object]) -> None:
        patiently(attempt)
        raise KeyboardInterrupt

    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        monkeypatch.setattr(sqlite, "_patiently", interrupted)
        try:
            begin_run(ledger)
        except KeyboardInterrupt:
            monkeypatch.setattr(sqlite, "_patiently", patiently)
            monkeypatch.setattr(sqlite, "WAITS", 1)
            begin_run(ledger)
        assert len(ledger.runs()) == 1


@pytest.mark.parametrize("moment", ["after_cursor_execute", "commit"])
def test_a_killed_writer_leaves_the_ledger_whole(ledger: Ledger, url: str, moment: str) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from stream_coord.stores.ledger import QualityRow, SessionRecord, open_ledger
quality = [QualityRow(str(n), "2018-11-01", 1, 1) for n in range(5000)]
with open_ledger(sys.argv[1], Path("/")) as ledger:
    run = ledger.begin_run(1, "replay", settings="", config_digest="", calendar="",
                           calendar_version="", store="", program_version="")
    def kill(*args):
        if sys.argv[2] == "commit" or "run_quality" in args[2]:
            os.kill(os.getpid(), signal.SIGKILL)
    ledger.record_session(run, SessionRecord("2018-11-01", 0, 1, "", "", 1, 0, 0, quality, []))
    sa.event.listen(sa.Engine, sys.argv[2], kill)
    ledger.record_session(run, SessionRecord("2018-11-02", 0, 1, "", "", 1, 0, 0, [
        QualityRow(str(n), "2018-11-02", 1, 1) for n in range(5000)], []))
"""
    child = subprocess.run([sys.executable, "-c", code, url, moment], check=False)
    assert child.returncode == -signal.SIGKILL
    (run,) = ledger.runs()
    assert run.status == "running"
    assert [row.session for row in ledger.run_sessions(run.id)] == ["2018-11-01"]
    assert len(ledger.run_quality(run.id)) == 5_000
    if url.startswith("sqlite"):
        with ledger._reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    ledger.record_session(run.id, session(2))
