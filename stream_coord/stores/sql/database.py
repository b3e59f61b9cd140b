"""What a bar store needs of an SQL database: transactions, whole columns in and out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from stream_coord.stores.sql.tables import Query, Table

if TYPE_CHECKING:
    import polars as pl

Parameter = int | str | list[int]


class BarTransaction(Protocol):
    """A transaction under way; it sees one state of the database."""

    def read(self, query: Query, *parameters: Parameter) -> pl.DataFrame:
        """Return a query's rows, with the schema of the query.

        Raises:
            StoreCorruptError: the database finds itself damaged, or gives values of other types.
        """
        ...

    def put(self, table: Table, rows: pl.DataFrame) -> None:
        """Add rows (a frame with the table's columns), each in the place of the one of its key."""
        ...

    def tables(self) -> Mapping[str, Collection[str]]:
        """Return the columns of all tables that are there, whoever's, by the tables' names."""
        ...

    def create(self, table: Table) -> None:
        """Make a table."""
        ...


class BarDatabase(Protocol):
    """A database; every transaction has a connection of its own, so that threads may share it.

    What the database itself raises comes out as a StoreError, in words.
    """

    @property
    def url(self) -> str:
        """Its address without secrets."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other parts, such as a ledger, may be kept in it too."""
        ...

    def exists(self) -> bool:
        """Return whether there is a database at all."""
        ...

    def reading(self) -> AbstractContextManager[BarTransaction]:
        """Give a transaction that only reads; it waits for nobody."""
        ...

    def compact(self) -> None:
        """Give back the room that replaced rows left."""
        ...

    @property
    def bytes(self) -> int:
        """The size on the disk."""
        ...

    def writing(self, *, create: bool = False) -> AbstractContextManager[BarTransaction]:
        """Give the one transaction that may write; it is committed unless something is raised.

        Args:
            create: Make the database where there is none.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
