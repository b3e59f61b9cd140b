"""A bar store in PostgreSQL when something is wrong: clear words, in time, never the password."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from stream_coord.errors import StoreError
from stream_coord.stores import open_store

BARS = "symbol,time,open,high,low,close,volume\nSPY,2018-11-23 09:30,1,1,1,1,1\n"
IMPORT = ("import", "bars.csv", "--tz", "America/New_York", "--label", "open")
REPLAY = ("replay", "--session", "2018-11-23", "--json")
WRONG = "hunter2+wrong"

Run = Callable[..., Any]


@pytest.fixture
def place(sc: Run, tmp_path: Path) -> Callable[[str], Run]:
    """Return a function that takes a store's address and returns ``sc`` with that store.

    The password goes into the environment. What a call prints and leaves does not show it.
    """
    (tmp_path / "bars.csv").write_text(BARS)

    def with_store(url: str) -> Run:
        password = str(sa.make_url(url).password)
        secret = quote(password, safe="")
        shown = url.replace(secret, "${STORE_PASSWORD}")
        (tmp_path / "sc.toml").write_text(f'[store]\nurl = "{shown}"\n')

        def run(*args: object) -> Any:
            answer = sc(*args, STORE_PASSWORD=secret)
            left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
            for form in (password, secret):
                assert form not in answer.out + answer.err
                assert not any(form.encode() in content for content in left)
            return answer

        return run

    return with_store


def run_in_vain(run: Run, *words: str) -> None:
    """Whatever asks the store says the same, on stderr, and ends with exit code 1."""
    for command in (IMPORT, REPLAY, ("store", "info"), ("report",)):
        answer = run(*command)
        assert answer.code == 1, (command, answer.err)
        assert answer.out == ""
        for word in words:
            assert word in answer.err, command


def test_bars_go_in_and_out(place: Callable[[str], Run], postgres_url: str) -> None:
    run = place(postgres_url)
    assert run(*IMPORT).code == 0
    assert run(*REPLAY).document["bars"] == 1
    assert "***" in run("store", "info").out
    assert run("store", "verify", "--json").document["damaged"] == []
    assert run("store", "compact").code == 0
    assert run("report").code == 0


def test_a_server_that_is_down(place: Callable[[str], Run], postgres_server: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    url = postgres_server.url("bars").replace(f":{postgres_server.port}/", f":{port}/")
    run_in_vain(place(url), f"127.0.0.1:{port}/bars", "no server listens there")


def test_a_server_that_says_nothing(place: Callable[[str], Run]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        url = f"postgresql+psycopg://quant:{quote(WRONG)}@127.0.0.1:{port}/b?connect_timeout=1"
        run_in_vain(place(url), "does not answer in time", "connect_timeout")


def test_a_wrong_password(place: Callable[[str], Run], postgres_server: Any) -> None:
    run_in_vain(place(postgres_server.url("postgres", password=WRONG)), "refuses", "password")


def test_an_unknown_database(place: Callable[[str], Run], postgres_server: Any) -> None:
    run_in_vain(place(postgres_server.url("absent")), "/absent", "no such database")


def test_tables_of_another_shape(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str
) -> None:
    name = str(sa.make_url(postgres_url).database)
    postgres_server.execute("CREATE TABLE bars (ticker text)", database=name)
    run_in_vain(place(postgres_url), "no bar store", "another program (bars)", "[store] url")


def test_a_user_who_may_only_read_replays_and_does_not_import(
    place: Callable[[str], Run], postgres_server: Any, postgres_url: str, tmp_path: Path
) -> None:
    assert place(postgres_url)(*IMPORT).code == 0
    name = str(sa.make_url(postgres_url).database)
    secret = postgres_server.password.replace("'", "''")
    role = f"{name}_reader"
    postgres_server.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD '{secret}'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        database=name,
    )
    try:
        run = place(postgres_server.url(name, user=role))
        assert run(*REPLAY).document["bars"] == 1
        (tmp_path / "bars.csv").write_text(BARS.replace("09:30", "09:31"))
        refused = run(*IMPORT)
        assert refused.code == 1
        assert "may not do that" in refused.err
        compacted = run("store", "compact")
        assert compacted.code == 1
        assert "cannot be compacted" in compacted.err
        assert "grant" in refused.err
    finally:
        postgres_server.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}", database=name)


def test_no_error_shows_the_password_to_a_program(postgres_server: Any, tmp_path: Path) -> None:
    url = postgres_server.url("postgres", password=WRONG)
    with pytest.raises(StoreError) as caught:
        open_store(url, tmp_path, create=True)
    assert WRONG not in str(caught.value)
    assert quote(WRONG) not in repr(caught.value)
