"""A ledger in PostgreSQL when something is wrong: clear words, in time, and never the password."""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from stream_coord.errors import (
    ConfigError,
    LedgerError,
    StoreConflictError,
    StoreCorruptError,
    StoreError,
)
from stream_coord.stores.database import Database, open_database, postgres
from stream_coord.stores.ledger import Ledger, open_ledger

HERE = Path("/")
WRONG = "hunter2+wrong"
BARS = "symbol,time,open,high,low,close,volume\nSPY,2018-11-23 09:30,1,1,1,1,1\n"
IMPORT = ("import", "bars.csv", "--tz", "America/New_York", "--label", "open")

Run = Callable[..., Any]


def name_of(url: str) -> str:
    return str(sa.make_url(url).database)


@pytest.fixture
def place(sc: Run, tmp_path: Path) -> Callable[[str], Run]:
    """Return a function that takes a ledger's address and returns ``sc`` with that ledger.

    The password goes into the environment. What a call prints and leaves does not show it.
    """
    (tmp_path / "bars.csv").write_text(BARS)

    def with_ledger(url: str) -> Run:
        password = str(sa.make_url(url).password)
        secret = quote(password, safe="")
        shown = url.replace(secret, "${LEDGER_PASSWORD}")
        (tmp_path / "sc.toml").write_text(f'[ledger]\nurl = "{shown}"\n')

        def run(*args: object) -> Any:
            answer = sc(*args, LEDGER_PASSWORD=secret)
            left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
            for form in (password, secret):
                assert form not in answer.out + answer.err
                assert not any(form.encode() in content for content in left)
            return answer

        return run

    return with_ledger


def run_in_vain(run: Run, *words: str) -> None:
    answer = run(*IMPORT)
    assert answer.code == 1, answer.err
    assert answer.out == ""
    for word in words:
        assert word in answer.err


def test_a_ledger_in_postgresql_keeps_imports_and_runs(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str
) -> None:
    run = place(postgres_url)
    assert run(*IMPORT).code == 0
    assert run("replay", "--session", "2018-11-23").code == 0
    assert run("report").code == 0
    rows = postgres_server.execute(
        "SELECT settings, status, bars FROM runs", database=name_of(postgres_url)
    )
    assert [row[1:] for row in rows] == [("done", 1)]
    assert "${LEDGER_PASSWORD}" in rows[0][0]
    assert postgres_server.password not in rows[0][0]


def test_a_server_that_is_down_is_an_error(
    place: Callable[[str], Run], postgres_server: Any
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    url = postgres_server.url("ledger").replace(f":{postgres_server.port}/", f":{port}/")
    run_in_vain(place(url), f"127.0.0.1:{port}/ledger", "no server listens there")


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_asked(
    place: Callable[[str], Run],
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        url = f"postgresql+psycopg://quant:{quote(WRONG)}@127.0.0.1:{port}/l?connect_timeout=1"
        run_in_vain(place(url), "does not answer in time", "connect_timeout")


def test_a_wait_has_an_end_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres._DEFAULTS, "connect_timeout", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(LedgerError, match="does not answer in time"):
            open_ledger(f"postgresql://quant@127.0.0.1:{port}/l", HERE)


def test_a_wrong_password_is_an_error(place: Callable[[str], Run], postgres_server: Any) -> None:
    run_in_vain(place(postgres_server.url("postgres", password=WRONG)), "refuses", "password")


def test_an_unknown_database_is_an_error(place: Callable[[str], Run], postgres_server: Any) -> None:
    run_in_vain(place(postgres_server.url("absent")), "/absent", "no such database")


def test_an_unknown_user_is_an_error(place: Callable[[str], Run], postgres_server: Any) -> None:
    run_in_vain(place(postgres_server.url("postgres", user="absent")), "absent@", "refuses")


def test_an_unknown_host_is_an_error(place: Callable[[str], Run]) -> None:
    run_in_vain(place(f"postgresql://quant:{quote(WRONG)}@host.invalid/l"), "host is unknown")


def test_tables_of_another_shape_are_an_error(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str
) -> None:
    run = place(postgres_url)
    postgres_server.execute(
        "CREATE TABLE runs (id text)",
        "CREATE TABLE notes (id text)",
        database=name_of(postgres_url),
    )
    run_in_vain(run, "is no ledger", "another program (runs)", "[ledger] url")


@pytest.fixture
def role(postgres_server: Any, postgres_url: str) -> Iterator[str]:
    """Return a role that can log in with the server's password and owns nothing."""
    name = f"{name_of(postgres_url)}_quant"
    secret = postgres_server.password.replace("'", "''")
    postgres_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{secret}'")
    yield name
    postgres_server.execute(f"DROP OWNED BY {name}", database=name_of(postgres_url))
    postgres_server.execute(f"DROP ROLE {name}")


def test_a_user_who_may_only_read_reads(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str, role: str
) -> None:
    database = name_of(postgres_url)
    open_ledger(postgres_url, HERE, create=True).close()
    run = place(postgres_server.url(database, user=role))
    run_in_vain(run, "may not do that", "grant")
    postgres_server.execute(
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", database=database
    )
    run_in_vain(run, "may not do that", "grant")
    with open_ledger(postgres_server.url(database, user=role), HERE) as ledger:
        assert ledger.runs() == []


def test_a_user_whose_transactions_are_read_only_reads(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str, role: str
) -> None:
    database = name_of(postgres_url)
    open_ledger(postgres_url, HERE, create=True).close()
    postgres_server.execute(
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
        database=database,
    )
    url = postgres_server.url(database, user=role)
    run_in_vain(place(url), "read-only")
    with open_ledger(url, HERE) as ledger:
        assert ledger.runs() == []


def test_a_user_who_may_make_no_tables_makes_no_ledger(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str, role: str
) -> None:
    postgres_server.execute(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=name_of(postgres_url)
    )
    run = place(postgres_server.url(name_of(postgres_url), user=role))
    run_in_vain(run, "may not do that", "grant")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC", "does not let this user in"),
        ("ALTER ROLE {role} NOLOGIN", "does not let this user in"),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "too many connections"),
    ],
)
def test_a_user_who_is_not_let_in_is_told(
    postgres_server: Any, postgres_url: str, role: str, statement: str, words: str
) -> None:
    database = name_of(postgres_url)
    postgres_server.execute(statement.format(database=database, role=role))
    with pytest.raises(LedgerError, match=words):
        open_ledger(postgres_server.url(database, user=role), HERE, create=True)


class TestConnection:
    @pytest.fixture
    def ledger(self, postgres_url: str) -> Iterator[Ledger]:
        with open_ledger(postgres_url, HERE, create=True) as opened:
            yield opened

    @staticmethod
    def cut(postgres_server: Any) -> None:
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'stream-coord'"
        )

    def test_one_that_is_lost_in_silence_is_made_anew(
        self, ledger: Ledger, postgres_server: Any
    ) -> None:
        assert ledger.runs() == []
        self.cut(postgres_server)
        assert ledger.runs() == []

    def test_one_that_is_lost_in_a_transaction_is_an_error(
        self, ledger: Ledger, postgres_server: Any
    ) -> None:
        def cut_and_ask() -> None:
            with ledger._writing() as connection:
                self.cut(postgres_server)
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(LedgerError, match="lost its connection"):
            cut_and_ask()
        assert ledger.runs() == []


class TestWords:
    """What the server says by a code becomes words of ours; the codes are PostgreSQL's."""

    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Database]:
        with closing(
            open_database(postgres_url, HERE, create=False, subject="store", error=StoreError)
        ) as database:
            yield database

    @pytest.mark.parametrize(
        ("state", "error", "words"),
        [
            ("53100", StoreError, "disk is full"),
            ("53200", StoreError, "out of memory"),
            ("53300", StoreError, "too many connections"),
            ("40001", StoreConflictError, "another writer"),
            ("40P01", StoreConflictError, "another writer"),
            ("55P03", StoreConflictError, "is busy"),
            ("57014", StoreError, "took too long"),
            ("08006", StoreError, "lost its connection"),
            ("57P03", StoreError, "starting or stopping"),
            ("XX001", StoreCorruptError, "is damaged"),
            ("22012", StoreError, "failed: the reason"),
        ],
    )
    def test_a_code_has_its_words(
        self, store: Database, state: str, error: type[StoreError], words: str
    ) -> None:
        raising = f"DO $$ BEGIN RAISE 'the reason' USING ERRCODE = '{state}'; END $$"
        with pytest.raises(error, match=words) as caught, store.reading() as connection:
            connection.exec_driver_sql(raising)
        assert type(caught.value) is error
        assert store.name in str(caught.value)

    def test_values_are_not_in_the_words(self, store: Database) -> None:
        with store.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE t (x text UNIQUE)")
        with pytest.raises(StoreError) as caught, store.writing() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES ('private'), ('private')")
        assert "unique" in str(caught.value)
        assert "private" not in str(caught.value)


class TestAddress:
    def test_nothing_shows_the_password(self, postgres_server: Any) -> None:
        url = postgres_server.url("postgres", password=WRONG)
        database = open_database(url, HERE, create=False, subject="ledger", error=LedgerError)
        shown = [repr(vars(database)), str(database), database.name, database.url]
        with closing(database), pytest.raises(LedgerError) as caught, database.reading() as reader:
            reader.execute(sa.text("SELECT 1"))
        shown += traceback.format_exception(caught.value)
        assert not any(WRONG in text or quote(WRONG) in text for text in shown)
        assert "postgres:***@127.0.0.1" in database.url

    def test_plain_postgresql_is_psycopg_and_options_are_kept(self, postgres_url: str) -> None:
        plain = postgres_url.replace("+psycopg", "") + "?sslmode=disable&application_name=mine"
        with (
            closing(
                open_database(plain, HERE, create=False, subject="store", error=StoreError)
            ) as database,
            database.reading() as connection,
        ):
            name = connection.exec_driver_sql("SHOW application_name").scalar()
        assert (name, connection.dialect.driver) == ("mine", "psycopg")

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("sslmod=require", r"'sslmod' that libpq does not know \(did you mean 'sslmode'\?\)"),
            ("plugin=evil", "'plugin'"),
            ("host=a,b&port=1,2,3", "contradict each other"),
        ],
    )
    def test_an_option_that_is_none_is_refused(self, option: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            open_ledger(f"postgresql://quant:{quote(WRONG)}@db.example/l?{option}", HERE)

    def test_a_missing_library_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "psycopg"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ConfigError, match=r'pip install "stream-coord\[postgres\]"'):
            open_ledger("postgresql://db.example/l", HERE)
