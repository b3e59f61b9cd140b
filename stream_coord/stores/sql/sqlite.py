"""Bars in a SQLite file, read and written by whole columns through ADBC.

Python's own ``sqlite3`` must not touch the file: it is another copy of SQLite, and of two copies
in one process, one that closes the file drops the locks that the other holds on it
(https://www.sqlite.org/howtocorrupt.html, 2.2.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.errors import StoreCorruptError, StoreError
from stream_coord.stores.sql.database import Parameter
from stream_coord.stores.sql.tables import Query, Table

if TYPE_CHECKING:
    import polars as pl
    from adbc_driver_manager import AdbcConnection, AdbcStatement

WAIT_MILLISECONDS = 500
WAITS = 120
"""How often a transaction waits `WAIT_MILLISECONDS` for its turn. Many short waits, because Python
gets to see Ctrl-C only between them."""

_BUSY = "database is locked"
_CLOSED = ("readonly database", "unable to open database")
_COLUMNS = Query(
    "SELECT t.name, c.name AS column FROM sqlite_master t CROSS JOIN pragma_table_info(t.name) c "
    "WHERE t.type IN ('table', 'view')",
    {"name": "text", "column": "text"},
)
_RESTORE = "Restore the file from a backup, or import its bars into a new store."
_REASONS: dict[str, tuple[type[StoreError], str, str]] = {
    # what SQLite or the driver says: the error, what it means, what to do
    _BUSY: (StoreError, "is busy: another process keeps writing it", "Try again later."),
    "readonly database": (
        StoreError,
        "cannot be written: the file or its folder is read-only",
        "Change the permissions, or name another file in [store] url.",
    ),
    "file is not a database": (
        StoreError,
        "is no SQLite database",
        "Correct [store] url, or move the file out of the way.",
    ),
    "is full": (StoreError, "cannot be written: the disk is full", "Make room and run it again."),
    "malformed": (StoreCorruptError, "is damaged", _RESTORE),
    "ype mismatch": (StoreCorruptError, "is damaged: a value has another type", _RESTORE),
    "to open": (  # it failed, or was unable
        StoreError,
        "cannot be opened",
        "Look at the permissions of the file and of its folder; a copy of both may open.",
    ),
}


class SqliteDatabase:
    """A `BarDatabase` in one file, with a write-ahead log: readers and a writer do not wait.

    Args:
        path: The file, absolute.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def url(self) -> str:
        """The file's address."""
        return f"sqlite:///{self._path}"

    @property
    def shared(self) -> bool:
        """Whether a ledger may be here too: no, its library is the other copy of SQLite."""
        return False

    def exists(self) -> bool:
        """Return whether there is a file."""
        if "\0" in str(self._path):  # SQLite would take what is before it for the name
            raise StoreError(f"the store {self.url!r} cannot be opened: its name holds a NUL")
        try:
            if self._path.is_dir():
                raise StoreError(f"{self._path} is a folder", "Name a file in [store] url.")
            return self._path.exists() and self._path.stat().st_size > 0
        except OSError as error:
            raise StoreError(f"the store {self.url} cannot be opened: {error.strerror}") from error

    @contextmanager
    def reading(self) -> Iterator[SqliteTransaction]:
        """Give a transaction that sees one state; see `BarDatabase.reading`."""
        with ExitStack() as stack:
            yield self._begin_reading(stack)

    @contextmanager
    def writing(self, *, create: bool = False) -> Iterator[SqliteTransaction]:
        """Give the one transaction that may write; see `BarDatabase.writing`.

        It has the write lock from its beginning (of two that first read and then write, one would
        fail). A commit is on the disk when it returns.
        """
        if create:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = error.strerror
                raise StoreError(f"the store {self.url} cannot be made: {why}") from error
        with self._connection("rwc" if create else "rw") as transaction:
            if create:
                transaction.execute("PRAGMA journal_mode = WAL")
            transaction.execute("PRAGMA synchronous = FULL")
            transaction.execute("BEGIN IMMEDIATE")
            try:
                yield transaction
                transaction.execute("COMMIT")
            except BaseException:
                with suppress(Exception):  # what stopped the transaction is the error to report
                    transaction.execute("ROLLBACK")
                raise

    def compact(self) -> None:
        """Write the file anew, without the room that deleted and replaced rows left."""
        with self._connection("rw") as transaction:
            transaction.execute("VACUUM")
            transaction.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self._path.stat().st_size

    def close(self) -> None:
        """Do nothing: no connection outlives its transaction."""

    def _begin_reading(self, stack: ExitStack) -> SqliteTransaction:
        try:
            with ExitStack() as attempt:
                transaction = attempt.enter_context(self._connection("rw"))
                transaction.begin_reading()
                stack.push(attempt.pop_all())
                return transaction
        except StoreError as error:
            # WAL keeps two files beside this one, and in a read-only folder nobody can make them.
            # `immutable` does without, but would not see the commits that a -wal file holds.
            file = self._path.resolve()  # a link may be elsewhere
            wal = file.with_name(f"{file.name}-wal")
            if not any(said in str(error.__cause__) for said in _CLOSED) or wal.exists():
                raise
        transaction = stack.enter_context(self._connection("ro&immutable=1"))
        transaction.begin_reading()
        return transaction

    @contextmanager
    def _connection(self, mode: str) -> Iterator[SqliteTransaction]:
        import adbc_driver_manager as adbc
        import adbc_driver_sqlite

        driver = adbc_driver_sqlite._driver_path()
        uri = f"{self._path.as_uri()}?mode={mode}"
        with ExitStack() as stack:
            with _errors(self.url):
                database = stack.enter_context(adbc.AdbcDatabase(driver=driver, uri=uri))
                connection = stack.enter_context(adbc.AdbcConnection(database))
            transaction = SqliteTransaction(connection, self.url)
            transaction.execute(f"PRAGMA busy_timeout = {WAIT_MILLISECONDS}")
            yield transaction


class SqliteTransaction:
    """A `BarTransaction` on a connection of its own."""

    def __init__(self, connection: AdbcConnection, url: str) -> None:
        self._connection = connection
        self._url = url

    def read(self, query: Query, *parameters: Parameter) -> pl.DataFrame:
        """Return a query's rows; see `BarTransaction.read`."""
        import polars as pl

        values = [json.dumps(each) if isinstance(each, list) else each for each in parameters]
        bound = pl.DataFrame({str(place): [value] for place, value in enumerate(values)})
        schema = query.schema()
        with (
            _errors(self._url),
            self._statement(query.sql.replace("ints(?)", "json_each(?)")) as run,
        ):
            if values:
                run.bind_stream(bound)
            frame = pl.DataFrame(run.execute_query()[0])
            if frame.is_empty():  # SQLite knows the types of values, not of columns
                return pl.DataFrame(schema=schema)
            frame = _sound_texts(frame)
            if dict(frame.schema) != schema or any(frame.null_count().row(0)):
                raise pl.exceptions.SchemaError(f"type mismatch: {frame.schema}")
            return frame

    def put(self, table: Table, rows: pl.DataFrame) -> None:
        """Add or replace rows; see `BarTransaction.put`."""
        if len(rows):
            places = ", ".join("?" * len(table.columns))
            with _errors(self._url), self._statement(table.upsert(f"VALUES ({places})")) as run:
                run.bind_stream(rows.select(*table.columns))
                run.execute_update()

    def tables(self) -> Mapping[str, set[str]]:
        """Return the columns of all tables and views."""
        found: dict[str, set[str]] = {}
        for name, column in self.read(_COLUMNS).iter_rows():
            found.setdefault(name, set()).add(column)
        return found

    def create(self, table: Table) -> None:
        """Make a table; its rows lie in the order of its key."""
        self.execute(table.ddl(" WITHOUT ROWID"))

    def begin_reading(self) -> None:
        """Begin a transaction, and see the state of this moment.

        The first read is what takes a lock. It waits for a process that has the file to itself, as
        the last one to close it has until the log is in the file and on the disk.
        """
        self.execute("BEGIN")
        self.execute("SELECT count(*) FROM sqlite_master")

    def execute(self, sql: str) -> None:
        """Execute a statement as soon as no other process is in its way."""
        import adbc_driver_manager as adbc

        with _errors(self._url), self._statement(sql) as run:
            for waited in range(WAITS):
                try:
                    run.execute_update()
                    return
                except adbc.Error as error:
                    if _BUSY not in str(error) or waited == WAITS - 1:
                        raise

    @contextmanager
    def _statement(self, sql: str) -> Iterator[AdbcStatement]:
        from adbc_driver_manager import AdbcStatement

        with AdbcStatement(self._connection) as statement:
            statement.set_sql_query(sql)
            yield statement


def _sound_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with texts that are UTF-8: of others polars makes a panic, later.

    A text that is none, or null, is damaged: another one in its place is as wrong.
    """
    import polars as pl

    content = frame.select(pl.col(pl.String).cast(pl.Binary).fill_null(b""))
    try:
        return frame.with_columns(content.cast(pl.String))
    except pl.exceptions.ComputeError:
        decoded = [[each.decode(errors="replace") for each in column] for column in content]
        return frame.with_columns(map(pl.Series, content.columns, decoded))


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn what the driver raises into a `StoreError`; so too what polars makes of it."""
    import adbc_driver_manager as adbc
    import polars as pl

    try:
        yield
    except (adbc.Error, pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        for said, (kind, meaning, hint) in _REASONS.items():
            if said in str(error):
                raise kind(f"the store {url} {meaning}", hint) from error
        said = str(error).partition("\n")[0]
        raise StoreError(f"the store {url} failed: {said}") from error
