"""Bars in PostgreSQL, sent both ways as whole columns of big-endian numbers.

They are written in COPY's binary format
(https://www.postgresql.org/docs/current/sql-copy.html, Binary Format): rows of numbers have one
size and layout, so that all rows together are one numpy array.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.errors import StoreError
from stream_coord.stores.database import open_database
from stream_coord.stores.sql.database import Parameter
from stream_coord.stores.sql.tables import TABLES, Kind, Query, Table

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    import sqlalchemy as sa
    from numpy.typing import NDArray

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
_END = b"\xff\xff"
_NUMBERS: dict[Kind, str] = {"integer": ">i8", "real": ">f8"}
_SENDS: dict[Kind, str] = {"integer": "int8send", "real": "float8send"}
_NATIVE: dict[Kind, str] = {"integer": "=i8", "real": "=f8"}
_INTS = re.compile(r"ints\(\?\) (\w+)")
_COLUMNS = Query(
    "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a "
    "ON a.attrelid = c.oid WHERE pg_table_is_visible(c.oid) AND a.attnum > 0 "
    "AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
    {"name": "text", "column": "text"},
)


class PostgresDatabase:
    """A `BarDatabase` in a PostgreSQL database, in the first schema of its search path.

    Args:
        url: Its address; see `stream_coord.stores.database.open_database`.
        root: Not used by an address of PostgreSQL.

    Raises:
        ConfigError: `url` is no such address, or psycopg is not installed.
    """

    def __init__(self, url: str, root: Path) -> None:
        self._database = open_database(url, root, create=False, subject="store", error=StoreError)
        weakref.finalize(self, self._database.engine.dispose)  # whoever forgets a store ends it

    @property
    def url(self) -> str:
        """The database's address, without the password."""
        return self._database.url

    @property
    def shared(self) -> bool:
        """Whether a ledger may be here too: it may."""
        return True

    def exists(self) -> bool:
        """Return True: a server that has no such database says so when it is asked."""
        return True

    @contextmanager
    def reading(self) -> Iterator[PostgresTransaction]:
        """Give a transaction that sees one state; see `BarDatabase.reading`."""
        with self._database.reading() as connection:
            yield PostgresTransaction(connection)

    @contextmanager
    def writing(self, *, create: bool = False) -> Iterator[PostgresTransaction]:
        """Give the one transaction that may write; see `BarDatabase.writing`.

        Writers take turns, by an advisory lock.
        """
        with self._database.writing() as connection:
            transaction = PostgresTransaction(connection)
            if create:
                transaction.lock_versions()
            yield transaction

    def compact(self) -> None:
        """Give the room of replaced rows back to the tables, and look at their statistics."""
        warnings: list[str] = []  # a table that its user may not vacuum is skipped, with a warning

        def heed(notice: psycopg.errors.Diagnostic) -> None:
            if notice.severity_nonlocalized == "WARNING":
                warnings.append(str(notice.message_primary))

        with self._database.errors():
            engine = self._database.engine.execution_options(isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                driver = _driver(connection)
                driver.add_notice_handler(heed)
                driver.execute(
                    f"VACUUM (ANALYZE) {', '.join(table.name for table in TABLES)}".encode()
                )
                driver.remove_notice_handler(heed)
        if warnings:
            raise StoreError(
                f"the store {self.url} cannot be compacted: {warnings[0]}",
                "Let the owner of its tables do it.",
            )

    @property
    def bytes(self) -> int:
        """The size of the tables and their indexes."""
        names = [table.name for table in TABLES]
        size = Query("SELECT sum(pg_total_relation_size(value::regclass))::bigint FROM names", {})
        with self._database.reading() as connection:
            sql = size.sql.replace("names", "unnest(%s::text[]) AS t (value)")
            row = connection.exec_driver_sql(sql, (names,)).one()
        return int(row[0])

    def close(self) -> None:
        """Let go of the server."""
        self._database.close()


class PostgresTransaction:
    """A `BarTransaction` on a connection of SQLAlchemy's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._driver = _driver(connection)

    def read(self, query: Query, *parameters: Parameter) -> pl.DataFrame:
        """Return a query's rows; see `BarTransaction.read`."""
        import polars as pl

        sql = _INTS.sub(r"unnest(%s::bigint[]) AS \1 (value)", query.sql).replace("?", "%s")
        if "text" not in query.columns.values():
            return self._read_numbers(sql, parameters, query.columns)
        with self._driver.cursor() as cursor:
            rows = cursor.execute(sql.encode(), parameters).fetchall()
        return pl.DataFrame(rows, schema=query.schema(), orient="row")

    def put(self, table: Table, rows: pl.DataFrame) -> None:
        """Add or replace rows, by way of a table that only this transaction sees."""
        if rows.is_empty():
            return
        staged = f"staged_{table.name}"
        with self._driver.cursor() as cursor:
            made = f"CREATE TEMP TABLE {staged} (LIKE {table.name}) ON COMMIT DROP"
            cursor.execute(made.encode())
            self._copy_in(cursor, staged, table, rows)
            cursor.execute(table.upsert(f"TABLE {staged}").encode())
            cursor.execute(f"DROP TABLE {staged}".encode())

    def tables(self) -> Mapping[str, set[str]]:
        """Return the columns of all tables that are visible."""
        found: dict[str, set[str]] = {}
        for name, column in self.read(_COLUMNS).iter_rows():
            found.setdefault(name, set()).add(column)
        return found

    def create(self, table: Table) -> None:
        """Make a table."""
        self._driver.execute(table.ddl().encode())

    def lock_versions(self) -> None:
        """Wait for whoever makes another part, such as a ledger, in the same database."""
        from stream_coord.stores.database.postgres import lock_key
        from stream_coord.stores.database.versions import VERSIONS

        self._driver.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(VERSIONS),))

    def _read_numbers(
        self, sql: str, parameters: tuple[Parameter, ...], columns: Mapping[str, Kind]
    ) -> pl.DataFrame:
        """Return the rows of a query, for which the server makes one text of bytes a column.

        COPY would send a message a row, and taking 200,000 of them costs five times as much.
        """
        import polars as pl

        strung = [f"string_agg({_SENDS[kind]}({name}), '')" for name, kind in columns.items()]
        whole = f"SELECT {', '.join(strung)} FROM ({sql}) AS found"  # noqa: S608 -- our own names
        with self._driver.cursor(binary=True) as cursor:
            row = cursor.execute(whole.encode(), parameters).fetchone() or ()
        contents = [each if isinstance(each, bytes) else b"" for each in row]  # null: no rows
        return pl.DataFrame(
            {
                name: np.frombuffer(content, _NUMBERS[kind]).astype(_NATIVE[kind])
                for (name, kind), content in zip(columns.items(), contents, strict=True)
            },
            schema=Query("", columns).schema(),
        )

    @staticmethod
    def _copy_in(
        cursor: psycopg.Cursor[tuple[object, ...]], into: str, table: Table, rows: pl.DataFrame
    ) -> None:
        rows = rows.select(*table.columns)
        if "text" in table.columns.values():
            with cursor.copy(f"COPY {into} FROM STDIN".encode()) as copy:
                for row in rows.iter_rows():
                    copy.write_row(row)
            return
        with cursor.copy(f"COPY {into} FROM STDIN (FORMAT binary)".encode()) as copy:
            copy.write(_SIGNATURE)
            for part in rows.iter_slices(100_000):
                copy.write(_packed(part, table.columns).tobytes())
            copy.write(_END)


def _driver(connection: sa.Connection) -> psycopg.Connection[tuple[object, ...]]:
    from psycopg import Connection

    driver = connection.connection.driver_connection
    if not isinstance(driver, Connection):
        raise StoreError("the connection to PostgreSQL is closed")
    return driver


def _layout(columns: Mapping[str, Kind]) -> np.dtype[np.void]:
    """Return the layout of a row of numbers: how many, and of each its size and itself."""
    fields = [("", ">i2")]
    for name, kind in columns.items():
        fields += [(f"size {name}", ">i4"), (name, _NUMBERS[kind])]
    return np.dtype(fields)


def _packed(rows: pl.DataFrame, columns: Mapping[str, Kind]) -> NDArray[np.void]:
    packed = np.empty(len(rows), _layout(columns))
    packed["f0"] = len(columns)
    for name in columns:
        packed[f"size {name}"] = 8
        packed[name] = rows[name].to_numpy()
    return packed
