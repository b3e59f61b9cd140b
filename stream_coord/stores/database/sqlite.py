"""What only SQLite understands: how a file is opened and locked, what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stream_coord.errors import LedgerError, StoreError
from stream_coord.stores.database.base import (
    DAMAGED,
    Database,
    Flavour,
    Reason,
    Subject,
    no_such,
    quiet_pool,
)
from stream_coord.stores.database.text import storable

if TYPE_CHECKING:
    import sqlalchemy as sa

_T = TypeVar("_T")

WAIT_SECONDS = 0.5
WAITS = 120
"""How often a transaction waits `WAIT_SECONDS` for its turn. Many short waits, because Python gets
to see Ctrl-C only between them."""

_REASONS = {
    sqlite3.SQLITE_BUSY: Reason(
        "is busy: another process keeps writing it", "Try again later.", "conflict"
    ),
    sqlite3.SQLITE_READONLY: Reason(
        "cannot be written: the file or its folder is read-only",
        "Change the permissions, or name another file in {url}.",
    ),
    sqlite3.SQLITE_CANTOPEN: Reason(
        "cannot be opened",
        "Look at the permissions of the file and of its folder; a copy of both may open.",
    ),
    sqlite3.SQLITE_NOTADB: Reason(
        "is no SQLite database",
        "Correct {url}, or move the file out of the way: `sc import` makes a new one.",
    ),
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_FULL: Reason(
        "cannot be written: the disk is full", "Make room, then run it again."
    ),
}


def open_sqlite(
    address: sa.URL,
    root: Path,
    *,
    create: bool,
    subject: Subject,
    error: type[LedgerError | StoreError],
) -> Database:
    """Return the database in a SQLite file (see `open_database`)."""
    path = (root / str(address.database)).absolute()
    name = storable(str(path))
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise error(f"{name} is a folder", f"Name a file in [{subject}] url.")
        if not create and not path.exists():
            raise no_such(subject, name, error)
    except (OSError, ValueError) as caught:
        reason = getattr(caught, "strerror", None) or caught
        raise error(f"the {subject} {name} cannot be opened: {reason}") from caught
    return Database(
        engine=sqlite_engine(path, create=create),
        url=storable(address.render_as_string(hide_password=True)),
        name=name,
        subject=subject,
        error=error,
        flavour=Flavour(
            raises=sqlite3.Error,
            explain=explain,
            writing={},
            lock=lambda _connection, _name: None,  # a transaction that writes is the only one
        ),
        path=path,
    )


def explain(error: BaseException | None) -> Reason:
    """Return what an error of SQLite means."""
    return _REASONS.get(_code(error)) or Reason(f"failed: {error}")


def sqlite_engine(path: Path, *, create: bool) -> sa.Engine:
    """Return an engine for a SQLite file; nothing is opened yet.

    A transaction with the execution option ``writes`` takes the write lock as it begins (BEGIN
    IMMEDIATE): two that begin with a plain BEGIN, read and then write deadlock. A commit is on the
    disk when it returns (WAL with synchronous=FULL; NORMAL can lose the last ones at power loss).

    Args:
        path: The file, absolute.
        create: Whether to make the file where there is none.
    """
    import sqlalchemy as sa

    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: _connect(path, create=create),
        poolclass=sa.QueuePool,
        hide_parameters=True,
    )
    quiet_pool()  # Ctrl-C while it lets go of a connection would be a traceback
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine, "invalidate", _roll_back)
    return engine


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    cursor = connection.connection.cursor()
    _patiently(lambda: cursor.execute("BEGIN IMMEDIATE" if writes else "BEGIN"))
    cursor.close()


def _roll_back(connection: sqlite3.Connection, *_: object) -> None:
    """Give up the write lock of a connection that Ctrl-C broke, before it is closed.

    SQLite closes a connection only when its last statement is gone, and the traceback of the
    KeyboardInterrupt keeps that; until then, whoever records the interruption would wait.
    """
    connection.rollback()


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    try:
        return _patiently(lambda: open_file(path, "rwc" if create else "rw"))
    except sqlite3.OperationalError as error:
        # WAL keeps two files beside this one, and in a read-only folder nobody can make them.
        # `immutable` does without, but would not see the commits that a -wal file holds.
        file = path.resolve()  # a link may be elsewhere
        wal = file.with_name(f"{file.name}-wal")
        if _code(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN} or wal.exists():
            raise
    return open_file(path, "ro&immutable=1")


def _patiently(attempt: Callable[[], _T]) -> _T:
    """Call `attempt` until no other process is in its way, `WAITS` times at most."""
    for _ in range(WAITS - 1):
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY:
                raise
    return attempt()


def open_file(path: Path, mode: str, wait_seconds: float = WAIT_SECONDS) -> sqlite3.Connection:
    """Open a file in one of SQLite's modes (``ro``, ``rw``, ``rwc``, or more of a URI's query).

    Raises:
        sqlite3.Error: it cannot be opened, or is no SQLite file.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=wait_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # Reading is what opens the file. One that is somebody else's stays as it is.
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if mode == "rwc" and not tables:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _code(error: BaseException | None) -> int:
    """Return the primary result code of a SQLite error, 0 of any other."""
    if str(error).startswith("Could not decode"):  # Python's own, without a code
        return sqlite3.SQLITE_CORRUPT
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
