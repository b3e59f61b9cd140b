"""What tests of several rooms share: the installed command, and the real bars."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
# The same tree gets the same verdict; `make explore` looks for what nobody has met yet.
settings.register_profile("stream-coord", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("stream-coord")

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("SC_REAL_DATA", REPOSITORY / "../shared/data"))
COMMAND = Path(sys.executable).with_name("sc")


@dataclass(frozen=True)
class Answer:
    """What one call of the command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        assert self.out, self.err
        return json.loads(self.out)


@pytest.fixture
def sc(tmp_path: Path) -> Callable[..., Answer]:
    """Return a function that runs ``sc`` in the test's folder; keywords are its environment."""

    def run(*args: object, **environ: str) -> Answer:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SC_")}
        done = subprocess.run(
            [COMMAND, *map(str, args)],
            cwd=tmp_path,
            env=kept | {"COLUMNS": "200"} | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def real_bars() -> Path:
    """Return the folder of real LEAN bars."""
    folder = REAL_DATA / "lean"
    if not folder.is_dir():
        pytest.skip(f"the real bars are not at {folder} (SC_REAL_DATA names their folder)")
    return folder


POSTGRES_PASSWORD = "pg's p%ss/word"  # noqa: S105 -- of a server that lives as long as the tests
NOBODY = 65534


@dataclass(frozen=True)
class PostgresServer:
    """A real server with a superuser ``postgres``."""

    port: int
    password: str = POSTGRES_PASSWORD

    def url(self, database: str, user: str = "postgres", password: str = POSTGRES_PASSWORD) -> str:
        """Return the address of a database."""
        from urllib.parse import quote

        secret = quote(password, safe="")
        return f"postgresql+psycopg://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def wait(self, running: subprocess.Popen[str]) -> None:
        """Wait until the server answers."""
        import psycopg

        for _ in range(1_000):
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert running.poll() is None, running.communicate()[0]
                time.sleep(0.05)
            else:
                return
        pytest.fail("PostgreSQL was started, but does not answer")

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute SQL as the superuser, and return the rows of the last statement."""
        import psycopg

        with closing(
            psycopg.connect(
                host="127.0.0.1",
                port=self.port,
                user="postgres",
                password=self.password,
                dbname=database,
                autocommit=True,
            )
        ) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def roomy_memory() -> Path | None:
    """Return a folder in memory, where a database is made five times as quickly as on a disk."""
    memory = Path("/dev/shm")  # noqa: S108 -- a folder of its own is made there
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**31
    return memory if roomy and os.access(memory, os.W_OK) else None


def as_nobody(*command: str | Path) -> subprocess.Popen[str]:
    """Start a program that refuses root as somebody else, if root it is; it dies with us."""
    other = (
        [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    )
    prefix = ["setpriv", "--pdeathsig=SIGQUIT", *other] if other or shutil.which("setpriv") else []
    return subprocess.Popen(
        [*prefix, *command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )


def make_cluster(programs: Path, root: Path, port: int) -> None:
    """Make a server's data, with passwords that are checked and nothing that waits for a disk."""
    (root / "password").write_text(POSTGRES_PASSWORD)
    if os.geteuid() == 0:
        for path in (root, root / "password"):
            shutil.chown(path, NOBODY, NOBODY)
    usage = as_nobody(programs / "initdb", "--help").communicate()[0]
    # Not the order of bytes: most servers sort texts as some language does.
    icu = ["--locale-provider=icu", "--icu-locale=en-US"] if "--icu-locale" in usage else []
    access = ["--auth=scram-sha-256", "--username=postgres", f"--pwfile={root / 'password'}"]
    texts = ["--encoding=UTF8", "--locale=C.UTF-8", *icu]
    made = as_nobody(programs / "initdb", "--no-sync", f"--pgdata={root / 'data'}", *access, *texts)
    said, _ = made.communicate()
    assert made.returncode == 0, said
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "32MB",
        "dynamic_shared_memory_type": "mmap",  # in the data's folder, so that nothing is left
        "logging_collector": "on",  # into a file, not into a pipe that nobody reads
    }
    with (root / "data" / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in options.items())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server for the tests of one worker, on this machine only."""
    programs = postgres_programs()
    if programs is None:
        message = "there is no PostgreSQL server here: apt-get install postgresql"
        if os.environ.get("CI") or os.environ.get("SC_REQUIRE_POSTGRES"):
            pytest.fail(message)
        pytest.skip(message)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="sc-postgres-", dir=roomy_memory()) as root:
        make_cluster(programs, Path(root), port)
        running = as_nobody(programs / "postgres", "-D", Path(root, "data"))
        try:
            server = PostgresServer(port)
            server.wait(running)
            yield server
        finally:
            running.send_signal(signal.SIGQUIT)
            running.communicate()


_databases = count(1)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the address of an empty database of this test's own."""
    name = f"test_{next(_databases)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
