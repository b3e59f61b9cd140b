"""The right to do some work on a database, which one process at a time has.

The right ends with the process that has it, however that ends. Of a SQLite file it is a lock on
its folder, so that no file is left behind; of a PostgreSQL database an advisory lock of a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import sleep

from stream_coord.files import folder_right
from stream_coord.stores.database.base import Database

_POLL_SECONDS = 0.2


@contextmanager
def alone(database: Database, work: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Wait for the right to do `work`, and have it.

    Args:
        database: Where the work is done.
        work: Its name. The works of all databases in one folder, if they are files, are one.
        on_wait: Called once, if another process has the right.

    Raises:
        StreamCoordError: the database's own error: it cannot be reached.
    """
    path = database.path
    with (
        folder_right(path.resolve().parent)
        if path is not None
        else _on_server(database, work) as take
    ):
        if not take():
            on_wait()
            while not take():
                sleep(_POLL_SECONDS)
        yield


@contextmanager
def _on_server(database: Database, work: str) -> Iterator[Callable[[], bool]]:
    import sqlalchemy as sa

    from stream_coord.stores.database.postgres import lock_key

    key = {"key": lock_key(f"alone {work}")}
    with database.errors():
        plain = database.engine.connect()
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")

    def take() -> bool:
        with database.errors():
            question = sa.text("SELECT pg_try_advisory_lock(:key)")
            return bool(connection.execute(question, key).scalar_one())

    try:
        yield take
    finally:
        # Of a connection that is broken the server frees the lock by itself.
        with suppress(sa.exc.SQLAlchemyError):
            connection.execute(sa.text("SELECT pg_advisory_unlock_all()"))
        connection.close()
