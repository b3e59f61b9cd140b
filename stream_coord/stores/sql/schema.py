"""The tables of an SQL store: made, recognised, migrated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from stream_coord.errors import StoreError, StoreMissingError
from stream_coord.stores.sql.database import BarDatabase, BarTransaction
from stream_coord.stores.sql.tables import PART, READ_VERSIONS, SCHEMA_VERSION, TABLES, Table

VERSION = 1
"""The version of the tables that this program reads and writes."""

MIGRATIONS: dict[int, Callable[[BarTransaction], None]] = {}
"""By n, what brings tables of version n to version n + 1."""

_OTHER_DATABASE = "Name a database of its own in [store] url."


def prepare(database: BarDatabase, *, create: bool) -> None:
    """Make sure that a database holds the tables of version `VERSION`.

    Older ones are migrated in one transaction.

    Args:
        database: The database.
        create: Make the tables, and a SQLite file, where there are none.

    Raises:
        StoreError: there is no store and `create` is false, it is of another version, or the
            tables are another program's.
    """
    found = None
    if database.exists():
        with database.reading() as transaction:
            found = _version(transaction, database)
    if found == VERSION:
        return
    if found is None and not create:
        raise StoreMissingError(
            f"there is no bar store at {database.url}",
            "`sc init` or `sc import` makes one; or correct [store] url.",
        )
    with database.writing(create=True) as transaction:
        # Again, under the write lock: another process may have been quicker.
        found = _version(transaction, database)
        if found != VERSION:
            _bring_up_to_date(transaction, found)


def _bring_up_to_date(transaction: BarTransaction, found: int | None) -> None:
    import polars as pl

    if found is None:
        there = transaction.tables()
        for table in (SCHEMA_VERSION, *TABLES):
            if table.name not in there:
                transaction.create(table)
    else:
        for version in range(found, VERSION):
            MIGRATIONS[version](transaction)
    transaction.put(SCHEMA_VERSION, pl.DataFrame({"part": [PART], "version": [VERSION]}))


def _version(transaction: BarTransaction, database: BarDatabase) -> int | None:
    """Return the version of our tables, None where nothing of a bar store is there.

    Raises:
        StoreError: they are newer than this program, or somebody else's.
    """
    url, there = database.url, transaction.tables()
    taken = sorted(there.keys() & {table.name for table in TABLES})
    versions: dict[str, int] = {}
    if SCHEMA_VERSION.name in there:
        _check_columns(there, SCHEMA_VERSION, url)
        versions = dict(transaction.read(READ_VERSIONS).rows())
    if not database.shared and versions.keys() - {PART}:
        raise StoreError(
            f"{url} is no bar store: it is a {', '.join(sorted(versions.keys() - {PART}))}",
            "A SQLite file cannot be both; name another file.",
        )
    version = versions.get(PART)
    if version is None:
        if taken:
            raise StoreError(
                f"{url} is no bar store: it holds tables of another program ({', '.join(taken)})",
                _OTHER_DATABASE,
            )
        return None
    if version > VERSION or not MIGRATIONS.keys() >= set(range(version, VERSION)):
        raise StoreError(
            f"the store {url} has schema version {version}; this program knows {VERSION}",
            f"Use the stream-coord that wrote it. {_OTHER_DATABASE}",
        )
    if version == VERSION:
        for table in TABLES:
            _check_columns(there, table, url)
    return version


def _check_columns(there: Mapping[str, Collection[str]], table: Table, url: str) -> None:
    missing = sorted(table.columns.keys() - set(there.get(table.name, ())))
    if missing:
        raise StoreError(
            f"{url} has tables of another shape: {table.name} is without {', '.join(missing)}",
            _OTHER_DATABASE,
        )
