"""A database of somebody else's, opened for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.errors import SourceError
from stream_coord.stores.database import storable
from stream_coord.stores.database.sqlite import open_file

if TYPE_CHECKING:
    import sqlalchemy as sa

WAIT_SECONDS = 30


class ForeignDatabase:
    """A SQLite file or a PostgreSQL database, of which transactions can do nothing but read.

    Args:
        url: Its address.
        root: The folder that a relative path starts from.

    Raises:
        ConfigError: it is no such address, or psycopg is not installed.
    """

    def __init__(self, url: str, root: Path) -> None:
        from stream_coord.stores.database.address import parse_address

        self._address = parse_address(url, "store")
        self._engine = (
            _sqlite_engine((root / str(self._address.database)).absolute())
            if self.is_sqlite
            else _postgres_engine(self._address)
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite file; else it is PostgreSQL's."""
        return self._address.drivername == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a transaction that sees one state and writes nothing; results are streamed.

        Raises:
            SourceError: what the database raises inside, in words without a value or a password.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                yield connection.execution_options(stream_results=True)
        except (SQLAlchemyError, sqlite3.Error, OverflowError) as error:
            raise SourceError(f"{self._name} {self._explain(error)}") from error

    def close(self) -> None:
        """Let go of connections; the next transaction makes new ones."""
        self._engine.dispose()

    @property
    def _name(self) -> str:
        kept = self._address.set(query={}).render_as_string(hide_password=True)
        return storable(kept)

    def _explain(self, error: Exception) -> str:
        from sqlalchemy.exc import DBAPIError

        from stream_coord.stores.database import postgres, sqlite

        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, sqlite3.Error):
            return sqlite.explain(cause).words
        if isinstance(error, DBAPIError):
            return postgres.explain(cause, str(self._address.password or "")).words
        return f"failed: {type(error).__name__}"


def _postgres_engine(address: sa.URL) -> sa.Engine:
    from stream_coord.stores.database.postgres import postgres_engine

    engine = postgres_engine(address, "its url")
    # Should the user be allowed to write, or a view call what does: the server refuses.
    return engine.execution_options(postgresql_readonly=True)


def _sqlite_engine(path: Path) -> sa.Engine:
    import sqlalchemy as sa

    engine = sa.create_engine(
        "sqlite://", creator=lambda: _connect(path), poolclass=sa.QueuePool, hide_parameters=True
    )
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return open_file(path, "ro", WAIT_SECONDS)
    except sqlite3.OperationalError:
        # A write-ahead log keeps two files beside this one, and in a read-only folder nobody can
        # make them. `immutable` does without, but would not see the commits that a log holds.
        file = path.resolve()
        if not file.exists() or file.with_name(f"{file.name}-wal").exists():
            raise
    return open_file(path, "ro&immutable=1", WAIT_SECONDS)
