"""An opened database: transactions that read or write, and what its errors mean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from stream_coord.errors import (
    LedgerError,
    LedgerMissingError,
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreMissingError,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

Subject = Literal["ledger", "store"]
"""What is kept in a database, as messages name it and as the settings do."""


class Reason(NamedTuple):
    """Why a database cannot be opened, read or written.

    Attributes:
        words: What follows "the ledger X " in a message.
        hint: What to do; ``{url}`` stands for the setting that holds the address.
        kind: ``damaged`` and ``conflict`` (worth another try) have errors of their own in a store.
    """

    words: str
    hint: str | None = None
    kind: Literal["failed", "damaged", "conflict"] = "failed"


DAMAGED = Reason(
    "is damaged",
    "Put a backup in its place, or move it out of the way: `sc import` makes a new one.",
    "damaged",
)


@dataclass(frozen=True)
class Flavour:
    """What only one kind of database understands.

    Attributes:
        raises: What its driver raises, besides what SQLAlchemy makes of it.
        explain: Says what an error of the driver means.
        writing: Options of SQLAlchemy for a transaction that writes. With the option ``writes``
            such a transaction takes its subject's write lock as it begins.
        lock: Waits, in a transaction that writes, for the others that hold the lock of a name.
    """

    raises: type[Exception]
    explain: Callable[[BaseException | None], Reason]
    writing: Mapping[str, object]
    lock: Callable[[sa.Connection, str], None]


@dataclass(frozen=True)
class Database:
    """A database that holds a ledger or a bar store; safe to share by threads, not by a fork.

    Attributes:
        engine: Its transactions see one state of the database from their first statement on.
        url: The address without secrets, fit to be printed.
        name: What messages call the ledger or the store: its file, or its server and database.
        subject: What is kept here.
        error: What its errors are turned into.
        flavour: What only this kind of database understands.
        path: The file of a SQLite database, absolute; None of another.
    """

    engine: sa.Engine
    url: str
    name: str
    subject: Subject
    error: type[LedgerError | StoreError]
    flavour: Flavour
    path: Path | None = None

    def __repr__(self) -> str:
        return f"Database({self.url!r})"

    def close(self) -> None:
        """Let go of the database; calling it again does nothing more."""
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a transaction that may write; it is committed unless something is raised.

        Writers of one subject wait for each other from the beginning of their transactions, and
        see all that was committed before. In SQLite, writers of all subjects do.
        """
        writer = self.engine.execution_options(writes=self.subject, **self.flavour.writing)
        with self.errors(), writer.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a transaction that sees one state of the database, and writes nothing.

        A `TypeError` or a `ValueError` inside is taken for a value that no writer of ours has
        stored: SQLite lets any value be in any column.
        """
        with self.errors(), self.engine.connect() as connection:
            try:
                yield connection
            except (TypeError, ValueError) as error:
                raise self.failure(DAMAGED) from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the database raises inside into `error`, or a subclass of it.

        The message has the database's own words, never a statement, a value or a password.
        """
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except (DBAPIError, self.flavour.raises) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise self.failure(self.flavour.explain(cause)) from error
        except (SQLAlchemyError, OverflowError, ValueError) as error:
            raise self.failure(Reason(f"failed: {type(error).__name__}")) from error

    def failure(self, reason: Reason) -> LedgerError | StoreError:
        """Return the error to raise for `reason`."""
        kind = self.error
        if issubclass(kind, StoreError):
            own = {"damaged": StoreCorruptError, "conflict": StoreConflictError}
            kind = own.get(reason.kind, kind)
        hint = reason.hint and reason.hint.format(url=f"[{self.subject}] url")
        return kind(f"the {self.subject} {self.name} {reason.words}", hint)

    def absent(self) -> LedgerError | StoreError:
        """Return the error that says that there is no ledger or store, and how to get one."""
        return no_such(self.subject, self.name, self.error)


@cache
def quiet_pool() -> None:
    """Keep SQLAlchemy's pool from printing, unless logging is set up: our errors say it all."""
    logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def no_such(
    subject: Subject, name: str, error: type[LedgerError | StoreError]
) -> LedgerError | StoreError:
    """Return the error that says that there is no ledger or store, and how to get one."""
    makers = {"ledger": "`sc import`, `sc replay` or `sc roll`", "store": "`sc import`"}
    missing = StoreMissingError if issubclass(error, StoreError) else LedgerMissingError
    return missing(
        f"there is no {subject} at {name}",
        f"{makers[subject]} makes one; or correct [{subject}] url.",
    )
