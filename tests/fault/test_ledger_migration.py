"""Older ledgers, made by statements of their time: brought up to date, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import (
    Cursor,
    GapChange,
    SealRecord,
    SessionRow,
    StateRecord,
    open_ledger,
)

NOBODY = 65534
HERE = Path("/")

JOB = """
        id {id} NOT NULL PRIMARY KEY,
        started BIGINT NOT NULL,
        finished BIGINT,
        status {text} NOT NULL,"""
JOB_CHECKS = """
        CHECK (status IN ('running', 'done', 'failed', 'interrupted')),
        CHECK ((status = 'running') = (finished IS NULL))
"""
COLUMNS_1 = {
    "schema_version": "part TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL",
    "imports": f"""{JOB}
        interval {{text}} NOT NULL,
        settings {{text}} NOT NULL,{JOB_CHECKS}""",
    "import_files": """
        id {id} NOT NULL PRIMARY KEY,
        import_id INTEGER NOT NULL,
        path {text} NOT NULL,
        format {text} NOT NULL,
        rows BIGINT NOT NULL,
        stored BIGINT NOT NULL,
        duplicates BIGINT NOT NULL,
        superseded BIGINT NOT NULL,
        revised BIGINT NOT NULL,
        rejected BIGINT NOT NULL,
        out_of_session BIGINT NOT NULL,
        sealed BOOLEAN NOT NULL,
        UNIQUE (import_id, path),
        FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE
    """,
    "revisions": """
        file_id INTEGER NOT NULL,
        kind {text} NOT NULL CHECK (kind IN ('revised', 'superseded')),
        symbol {text} NOT NULL,
        start BIGINT NOT NULL,
        old_open {double} NOT NULL,
        old_high {double} NOT NULL,
        old_low {double} NOT NULL,
        old_close {double} NOT NULL,
        old_volume {double} NOT NULL,
        open {double} NOT NULL,
        high {double} NOT NULL,
        low {double} NOT NULL,
        close {double} NOT NULL,
        volume {double} NOT NULL,
        FOREIGN KEY (file_id) REFERENCES import_files (id) ON DELETE CASCADE
    """,
    "rejects": """
        file_id INTEGER NOT NULL,
        "row" BIGINT NOT NULL,
        symbol {text},
        start BIGINT,
        reason {text} NOT NULL,
        raw {text},
        FOREIGN KEY (file_id) REFERENCES import_files (id) ON DELETE CASCADE
    """,
    "runs": f"""{JOB}
        command {{text}} NOT NULL,
        settings {{text}} NOT NULL,
        config_digest {{text}} NOT NULL,
        calendar {{text}} NOT NULL,
        calendar_version {{text}} NOT NULL,
        store {{text}} NOT NULL,
        program_version {{text}} NOT NULL,
        digest {{text}},
        sessions BIGINT NOT NULL,
        bars BIGINT NOT NULL,
        derived_bars BIGINT NOT NULL,
        updates BIGINT NOT NULL,
        timings JSON NOT NULL,
        error {{text}},{JOB_CHECKS}""",
    "run_sessions": """
        id {id} NOT NULL PRIMARY KEY,
        run_id INTEGER NOT NULL,
        session {text} NOT NULL,
        open BIGINT NOT NULL,
        close BIGINT NOT NULL,
        digest {text} NOT NULL,
        data_version {text} NOT NULL,
        bars BIGINT NOT NULL,
        derived_bars BIGINT NOT NULL,
        updates BIGINT NOT NULL,
        UNIQUE (run_id, session),
        FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE
    """,
    "run_quality": """
        session_id INTEGER NOT NULL,
        symbol {text} NOT NULL,
        expected INTEGER NOT NULL,
        present INTEGER NOT NULL,
        missing INTEGER NOT NULL,
        no_trade INTEGER NOT NULL,
        unresolved INTEGER NOT NULL,
        filled INTEGER NOT NULL,
        PRIMARY KEY (session_id, symbol),
        FOREIGN KEY (session_id) REFERENCES run_sessions (id) ON DELETE CASCADE
    """,
    "run_gaps": """
        session_id INTEGER NOT NULL,
        symbol {text} NOT NULL,
        start BIGINT NOT NULL,
        "end" BIGINT NOT NULL,
        minutes INTEGER NOT NULL,
        state {text} NOT NULL CHECK (state IN ('missing', 'no_trade', 'filled', 'unresolved')),
        PRIMARY KEY (session_id, symbol, start),
        FOREIGN KEY (session_id) REFERENCES run_sessions (id) ON DELETE CASCADE
    """,
}
GAP_2 = """
        "end" BIGINT NOT NULL,
        minutes INTEGER NOT NULL,
        state {text} NOT NULL CHECK (state IN ('missing', 'no_trade', 'filled', 'unresolved')),
        kind {text} DEFAULT 'minutes' NOT NULL
            CHECK (kind IN ('minutes', 'session', 'before_first')),
        source {text},
        tries INTEGER DEFAULT '0' NOT NULL,
        last_try BIGINT,
"""
COLUMNS_2 = COLUMNS_1 | {
    "run_gaps": f"""
        session_id INTEGER NOT NULL,
        symbol {{text}} NOT NULL,
        start BIGINT NOT NULL,{GAP_2}
        PRIMARY KEY (session_id, symbol, start),
        FOREIGN KEY (session_id) REFERENCES run_sessions (id) ON DELETE CASCADE
    """,
    "gap_states": f"""
        interval {{text}} NOT NULL,
        session {{text}} NOT NULL,
        symbol {{text}} NOT NULL,
        start BIGINT NOT NULL,{GAP_2}
        asked {{text}} NOT NULL,
        empty {{text}} NOT NULL,
        run_id INTEGER NOT NULL,
        PRIMARY KEY (interval, session, symbol, start),
        FOREIGN KEY (run_id) REFERENCES runs (id)
    """,
    "gap_pending": """
        run_id INTEGER NOT NULL PRIMARY KEY,
        change {bytes} NOT NULL,
        FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE
    """,
    "disagreements": """
        interval {text} NOT NULL,
        symbol {text} NOT NULL,
        start BIGINT NOT NULL,
        source {text} NOT NULL,
        other {text} NOT NULL,
        run_id INTEGER NOT NULL,
        open {double} NOT NULL,
        high {double} NOT NULL,
        low {double} NOT NULL,
        close {double} NOT NULL,
        volume {double} NOT NULL,
        other_open {double} NOT NULL,
        other_high {double} NOT NULL,
        other_low {double} NOT NULL,
        other_close {double} NOT NULL,
        other_volume {double} NOT NULL,
        PRIMARY KEY (interval, symbol, start, source, other, run_id),
        FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE
    """,
    "source_calls": """
        id {id} NOT NULL PRIMARY KEY,
        run_id INTEGER NOT NULL,
        source {text} NOT NULL,
        at BIGINT NOT NULL,
        seconds {double} NOT NULL,
        ranges BIGINT NOT NULL,
        minutes BIGINT NOT NULL,
        bars BIGINT NOT NULL,
        outcome {text} NOT NULL CHECK (outcome IN ('answered', 'failed')),
        error {text},
        FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE
    """,
}
COLUMNS = {1: COLUMNS_1, 2: COLUMNS_2}
WITHOUT_ROWID = {"run_quality", "run_gaps", "gap_states", "disagreements"}
INDEXES_1 = (
    "CREATE INDEX ix_revisions_file_id ON revisions (file_id)",
    "CREATE INDEX ix_revisions_bar ON revisions (symbol, start)",
    "CREATE INDEX ix_rejects_file_id ON rejects (file_id)",
)
INDEXES = {
    1: INDEXES_1,
    2: (*INDEXES_1, "CREATE INDEX ix_source_calls_run_id ON source_calls (run_id)"),
}
SAME_ROWS = (
    "INSERT INTO imports (started, finished, status, interval, settings)"
    " VALUES (10, 20, 'done', '1m', 'tz = ''UTC''')",
    "INSERT INTO import_files (import_id, path, format, rows, stored, duplicates, superseded,"
    " revised, rejected, out_of_session, sealed)"
    " VALUES (1, 'spy.csv', 'csv', 10, 5, 1, 1, 1, 2, 3, true)",
    "INSERT INTO revisions VALUES (1, 'revised', 'SPY', 60, 1, 2, 0.5, 1.5, 9, 1, 2, 0.5, 1.5, 8)",
    "INSERT INTO rejects VALUES (1, 7, NULL, NULL, 'nan', 'x,y')",
    "INSERT INTO runs (started, status, command, settings, config_digest, calendar,"
    " calendar_version, store, program_version, sessions, bars, derived_bars, updates, timings)"
    " VALUES (30, 'running', 'replay', 'symbols = []', 'c0', 'NYSE', '5', 'delta:bars', '0.1',"
    """ 0, 0, 0, 0, '{"total": 1.5}')""",
    "INSERT INTO run_sessions (run_id, session, open, close, digest, data_version, bars,"
    " derived_bars, updates) VALUES (1, '2018-11-23', 100, 200, 'd1', 'v1', 419, 80, 2)",
    "INSERT INTO run_quality VALUES (1, 'SPY', 210, 207, 2, 1, 0, 0)",
)
ROWS_1 = (
    *SAME_ROWS,
    "INSERT INTO run_gaps VALUES (1, 'SPY', 120, 240, 2, 'missing')",
    "INSERT INTO run_gaps VALUES (1, 'SPY', 300, 360, 1, 'no_trade')",
    "INSERT INTO schema_version VALUES ('ledger', 1)",
)
PENDING = zlib.compress(
    msgspec.msgpack.encode({"interval": "1m", "scope": [["SPY", "2018-11-23"]], "gaps": []})
).hex()
ROWS_2 = (
    *SAME_ROWS,
    "INSERT INTO run_gaps VALUES (1, 'SPY', 120, 240, 2, 'missing', 'minutes', NULL, 0, NULL)",
    "INSERT INTO run_gaps VALUES (1, 'SPY', 300, 360, 1, 'filled', 'minutes', 'web', 2, 400)",
    "INSERT INTO gap_states VALUES ('1m', '2018-11-23', 'SPY', 120, 240, 2, 'no_trade',"
    """ 'session', NULL, 3, 401, '["web", "files"]', '["web"]', 1)""",
    "INSERT INTO gap_pending VALUES (1, {pending})",
    "INSERT INTO disagreements VALUES ('1m', 'SPY', 300, 'web', 'files', 1,"
    " 1, 2, 0.5, 1.5, 9, 1, 2, 0.5, 1.5, 8)",
    "INSERT INTO source_calls (run_id, source, at, seconds, ranges, minutes, bars, outcome, error)"
    " VALUES (1, 'web', 400, 0.25, 1, 2, 0, 'failed', '429')",
    "INSERT INTO schema_version VALUES ('ledger', 2)",
)
ROWS = {1: ROWS_1, 2: ROWS_2}


def statements(kind: str, version: int) -> Iterator[str]:
    """Yield what makes a ledger of an older version with something in every table."""
    sqlite = kind == "sqlite"
    types = {
        "id": "INTEGER" if sqlite else "SERIAL",
        "text": "TEXT" if sqlite else 'TEXT COLLATE "C"',
        "double": "DOUBLE" if sqlite else "DOUBLE PRECISION",
        "bytes": "BLOB" if sqlite else "BYTEA",
    }
    for name, columns in COLUMNS[version].items():
        end = " WITHOUT ROWID" if sqlite and name in WITHOUT_ROWID else ""
        yield f"CREATE TABLE {name} ({columns.format(**types)}){end}"
    yield from INDEXES[version]
    pending = f"X'{PENDING}'" if sqlite else f"decode('{PENDING}', 'hex')"
    yield from (row.replace("{pending}", pending) for row in ROWS[version])


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Execute SQL behind the ledger's back, and return the rows of the last statement."""
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def make(url: str, version: int) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    execute(url, *statements(url[:6], version))


def contents(url: str, version: int) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table of a version, with all columns that the table has now."""
    engine, metadata = sa.create_engine(url), sa.MetaData()
    try:
        metadata.reflect(engine, only=list(COLUMNS[version]))
        with engine.connect() as connection:
            return {
                name: [tuple(row) for row in connection.execute(table.select())]
                for name, table in metadata.tables.items()
            }
    finally:
        engine.dispose()


def shape(url: str) -> dict[str, object]:
    """Return the tables as the database describes them, whatever the order of their columns."""
    engine = sa.create_engine(url)
    try:
        inspector = sa.inspect(engine)
        return {
            name: (
                {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)},
                inspector.get_pk_constraint(name)["constrained_columns"],
                sorted(
                    (key["constrained_columns"], key["referred_table"], key["options"])
                    for key in inspector.get_foreign_keys(name)
                ),
                sorted(str(index["column_names"]) for index in inspector.get_indexes(name)),
                sorted(
                    "".join(check["sqltext"].split())
                    for check in inspector.get_check_constraints(name)
                ),
            )
            for name in inspector.get_table_names()
        }
    finally:
        engine.dispose()


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    """Return which version is brought up to date."""
    number: int = request.param
    return number


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, version: int) -> str:
    """Return the address of a ledger of that version."""
    address = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        address = request.getfixturevalue("postgres_url")
    make(address, version)
    return address


def test_every_row_is_kept(url: str, version: int) -> None:
    before = contents(url, version)
    assert all(before.values())
    for _ in range(2):
        open_ledger(url, HERE).close()
    after = contents(url, version)
    assert after.pop("schema_version") == [("ledger", 3)]
    if version == 1:
        gaps = [(*row, "minutes", None, 0, None) for row in before["run_gaps"]]
        assert sorted(after.pop("run_gaps"), key=str) == gaps
    assert after == {name: before[name] for name in after}


def test_who_may_change_nothing_is_told(url: str, version: int) -> None:
    before, old = contents(url, version), shape(url)
    words = f"has schema version {version} and must be brought to 3 first\n.*without --dry-run"
    with pytest.raises(LedgerError, match=words):
        open_ledger(url, HERE, migrate=False)
    assert (contents(url, version), shape(url)) == (before, old)
    open_ledger(url, HERE).close()
    with open_ledger(url, HERE, migrate=False) as ledger:
        assert len(ledger.run_gaps(1)) == 2


def test_what_is_kept_is_what_is_read(url: str) -> None:
    with open_ledger(url, HERE) as ledger:
        (run,) = ledger.runs()
        assert (run.id, run.started, run.status, run.timings) == (1, 30, "running", {"total": 1.5})
        assert ledger.run_sessions(1) == [
            SessionRow("2018-11-23", 100, 200, "d1", "v1", 419, 80, 2)
        ]
        assert ledger.run_quality(1) == [QualityRow("SPY", "2018-11-23", 210, 207, 2, 1)]
        missing, _ = ledger.run_gaps(1)
        assert missing == GapRow("SPY", "2018-11-23", 120, 240, 2, "missing")
        (made,) = ledger.imports()
        assert (made.rows, made.stored, made.files) == (10, 5, 1)
        assert ledger.reject_counts() == {"nan": 1}
        assert ledger.revisions()["old_volume"].to_list() == [9.0]


@pytest.mark.parametrize("version", [1], indirect=True)
def test_what_version_1_says_of_gaps_is_read(url: str) -> None:
    with open_ledger(url, HERE) as ledger:
        _, silent = ledger.run_gaps(1)
        assert silent == GapRow("SPY", "2018-11-23", 300, 360, 1, "no_trade")
        assert ledger.gap_states("1m", "2000-01-01", "2100-01-01") == []


@pytest.mark.parametrize("version", [2], indirect=True)
def test_what_version_2_says_of_gaps_is_read(url: str) -> None:
    with open_ledger(url, HERE) as ledger:
        _, filled = ledger.run_gaps(1)
        assert filled == GapRow(
            "SPY", "2018-11-23", 300, 360, 1, "filled", source="web", tries=2, last_try=400
        )
        (state,) = ledger.gap_states("1m", "2000-01-01", "2100-01-01")
        assert (state.state, state.kind, state.tries) == ("no_trade", "session", 3)
        assert (state.asked, state.empty, state.run_id) == (("web", "files"), ("web",), 1)
        assert ledger.pending_gaps() == [(1, GapChange("1m", (("SPY", "2018-11-23"),)))]
        (unequal,) = ledger.disagreements()
        assert (unequal.source, unequal.values[-1], unequal.other_values[-1]) == ("web", 9, 8)
        (call,) = ledger.source_calls()
        assert (call.seconds, call.outcome, call.error) == (0.25, "failed", "429")


def test_what_is_new_can_be_written(url: str) -> None:
    with open_ledger(url, HERE) as ledger:
        gap = GapRow("SPY", "2018-11-23", 120, 240, 2, "filled", source="web", tries=1, last_try=9)
        ledger.seal_gaps(1, GapChange("1m", (("SPY", "2018-11-23"),), (gap,)))
        assert [s.source for s in ledger.gap_states("1m", "2018-11-23", "2018-11-23")] == ["web"]
        quality = QualityRow("SPY", "2018-11-23", 210, 210)
        seal = SealRecord("2018-11-23", 100, 200, 210, "v2", [quality], {"SPY": "c1"})
        change = StateRecord("2018-11-23", 200, "ACTIVE", "ENDED")
        assert (ledger.states(), ledger.cursor("mine"), ledger.seals()) == ([], None, [])
        ledger.seal_session(1, "mine", seal, "2018-11-26", 300, [change])
        assert ledger.cursor("mine") == Cursor("mine", "2018-11-26", 300, 1)
        assert ledger.seal_quality(1) == [quality]
        assert [(s.time, s.entered, s.run_id) for s in ledger.states()] == [(200, "ENDED", 1)]
    execute(url, "INSERT INTO splits VALUES ('AAPL', '2014-06-09', 7.0, 1)")


def test_a_migrated_ledger_is_like_a_new_one(url: str, tmp_path: Path) -> None:
    open_ledger(url, HERE).close()
    migrated = shape(url)
    if url.startswith("sqlite"):
        for table in (*WITHOUT_ROWID, "splits", "seal_rows"):
            with pytest.raises(sa.exc.OperationalError, match="no such column: rowid"):
                execute(url, f"SELECT rowid FROM {table}")  # noqa: S608 -- names of ours
        url = f"sqlite:///{tmp_path}/new.db"
    else:
        execute(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    open_ledger(url, HERE, create=True).close()
    assert migrated == shape(url)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run_gaps SET kind = 'hour'",
        "UPDATE run_gaps SET kind = NULL",
        "UPDATE run_gaps SET tries = NULL",
    ],
)
def test_the_new_columns_are_checked(url: str, statement: str) -> None:
    open_ledger(url, HERE).close()
    with pytest.raises(sa.exc.IntegrityError):
        execute(url, statement)


def test_two_processes_may_bring_it_up_to_date_at_once(url: str) -> None:
    code = """
import sys
from pathlib import Path
import sqlalchemy
from stream_coord.stores.ledger import open_ledger
print("ready", flush=True)
sys.stdin.readline()
with open_ledger(sys.argv[1], Path("/")) as ledger:
    print(len(ledger.run_gaps(1)), ledger.seals())
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.communicate()[0] for each in both] == ["2 []\n"] * 2
    assert execute(url, "SELECT version FROM schema_version") == [(3,)]


@pytest.mark.parametrize(
    ("version", "moment"),
    [
        (1, "ALTER TABLE run_gaps"),
        (1, "CREATE TABLE source_calls"),
        (1, "CREATE TABLE seals"),
        (1, "UPDATE schema_version"),
        (2, "CREATE TABLE splits"),
        (2, "CREATE TABLE seal_rows"),
        (2, "UPDATE schema_version"),
    ],
    indirect=["version"],
)
def test_a_process_that_is_killed_leaves_the_old_version(
    url: str, version: int, moment: str
) -> None:
    before, old = contents(url, version), shape(url)
    code = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from stream_coord.stores.ledger import open_ledger
def kill(*args):
    if args[2].strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
sa.event.listen(sa.Engine, "after_cursor_execute", kill)
open_ledger(sys.argv[1], Path("/"))
"""
    child = subprocess.run([sys.executable, "-c", code, url, moment], check=False)
    assert child.returncode == -signal.SIGKILL
    assert (contents(url, version), shape(url)) == (before, old)
    with open_ledger(url, HERE) as ledger:
        assert len(ledger.run_gaps(1)) == 2


class TestNoRight:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """A folder of an open name with a ledger of version 1 in it."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        make(f"sqlite:///{folder}/ledger.db", 1)
        yield folder
        folder.chmod(0o755)
        shutil.rmtree(folder)

    @pytest.mark.parametrize("create", [False, True])
    def test_in_a_read_only_folder_it_says_so(self, folder: Path, create: bool) -> None:
        """Root may write anything, so this goes on as somebody else where root runs the tests."""
        path, mine = folder / "ledger.db", os.geteuid()
        before = path.read_bytes()
        path.chmod(0o444)
        folder.chmod(0o555)
        if mine == 0:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(
                LedgerError,
                match=r"read-only; it has schema version 1 and must .* to 3 first\n.*permissions",
            ) as caught:
                open_ledger("sqlite:///ledger.db", folder, create=create)
        finally:
            os.seteuid(mine)
        assert str(path) in caught.value.message
        assert path.read_bytes() == before
        folder.chmod(0o755)
        path.chmod(0o644)
        with open_ledger("sqlite:///ledger.db", folder) as ledger:
            assert len(ledger.run_gaps(1)) == 2

    def test_a_user_who_may_only_read_is_told(
        self, postgres_url: str, postgres_server: Any
    ) -> None:
        make(postgres_url, 2)
        before = contents(postgres_url, 2)
        database = postgres_url.rpartition("/")[2]
        role = f"reader_{database}"
        postgres_server.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD '{role}'",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            database=database,
        )
        url = postgres_server.url(database, user=role, password=role)
        with pytest.raises(LedgerError, match="may not do that"):
            open_ledger(url, HERE)
        assert contents(postgres_url, 2) == before
        postgres_server.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}", database=database)
