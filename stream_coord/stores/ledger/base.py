"""What importing and running share: transactions on the ledger, and jobs that begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from stream_coord.errors import LedgerError
from stream_coord.stores.database import Database
from stream_coord.stores.database.alone import alone

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import sqlalchemy as sa

Outcome = Literal["done", "failed", "interrupted"]
"""How an import or a run ends; until then its status is ``running``."""

Values = Mapping[str, object]


class OfSession(Protocol):
    """A row that belongs to a session."""

    @property
    def session(self) -> str:
        """The session's date, ``YYYY-MM-DD``."""


class LedgerBase:
    """An opened ledger database.

    Attributes:
        url: The ledger's address without secrets.
    """

    def __init__(self, database: Database) -> None:
        self.url = database.url
        self._database = database

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; calling it again does nothing more."""
        self._database.close()

    def alone(self, work: str, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Wait for the right to do some work, which one process at a time has, and have it.

        Args:
            work: Its name, for example ``fill-gaps``.
            on_wait: Called once, if another process has the right.
        """
        return alone(self._database, work, on_wait)

    def _writing(self) -> AbstractContextManager[sa.Connection]:
        return self._database.writing()

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        return self._database.reading()

    def _begin(self, jobs: sa.Table, values: Values) -> int:
        """Add an import or a run that is running, and return its id."""
        with self._writing() as connection:
            return insert_row(connection, jobs, {**values, "status": "running"})

    def _finish(self, jobs: sa.Table, job_id: int, values: Values) -> None:
        """Write down how a running import or run ended."""
        with self._writing() as connection:
            running(connection, jobs, job_id)
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(values))

    def _counts(self, statement: sa.Select[str, int]) -> dict[str, int]:
        with self._reading() as connection:
            return dict(connection.execute(statement).all())


def running(connection: sa.Connection, jobs: sa.Table, job_id: int) -> sa.RowMapping:
    """Return the row of an import or a run that has not ended.

    Raises:
        LedgerError: there is none with this id, or it has ended.
    """
    row = connection.execute(jobs.select().where(jobs.c.id == job_id)).mappings().one_or_none()
    if row is None or row["status"] != "running":
        state = "unknown" if row is None else row["status"]
        raise LedgerError(f"number {job_id} of the ledger's {jobs.name} is {state}, not running")
    return row


def insert_row(connection: sa.Connection, table: sa.Table, values: Values) -> int:
    """Add one row, and return its id."""
    id_: int = connection.execute(table.insert().returning(table.c.id), values).scalar_one()
    return id_


def execute_many(
    connection: sa.Connection, statement: sa.Executable, rows: Sequence[Values]
) -> None:
    """Execute a statement for each of `rows`, which may be none."""
    if rows:
        connection.execute(statement, rows)


def check_session(session: str, rows: Iterable[OfSession]) -> None:
    """Make sure that rows are of one session.

    Raises:
        LedgerError: a row is of another session.
    """
    for row in rows:
        if row.session != session:
            raise LedgerError(f"a row of session {row.session} is among those of {session}")


def values_of(
    rows: Iterable[object], names: Iterable[str], **same: object
) -> list[dict[str, object]]:
    """Return the attributes `names` of each row, with what is the `same` for all."""
    names = tuple(names)
    return [{name: getattr(row, name) for name in names} | same for row in rows]
