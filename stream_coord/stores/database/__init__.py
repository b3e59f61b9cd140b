"""What any of our SQL databases needs: an address, an engine, transactions, errors, versions.

sqlalchemy and the databases' drivers are imported where a database is opened or asked, never by
importing one of these modules.
"""

from __future__ import annotations

from pathlib import Path

from stream_coord.errors import LedgerError, StoreError
from stream_coord.stores.database.address import parse_address
from stream_coord.stores.database.base import Database, Subject
from stream_coord.stores.database.text import storable
from stream_coord.stores.database.versions import Schema, prepare

__all__ = ["Database", "Schema", "Subject", "open_database", "prepare", "storable"]


def open_database(
    url: str,
    root: Path,
    *,
    create: bool,
    subject: Subject,
    error: type[LedgerError | StoreError],
) -> Database:
    """Return the database at an address; a server is first asked when a transaction begins.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, or
            ``postgresql+psycopg://user:password@host:port/database?option=value`` with options of
            libpq; what is left out, libpq takes from where it always does (``PGPASSWORD``,
            ``~/.pgpass``, ...).
        root: What a relative path is relative to.
        create: Make a SQLite file, and the folders it is in, where there is none. Databases of a
            server are made by its administrator.
        subject: What is kept there; messages name it.
        error: What to raise if the database cannot be opened, read or written.

    Raises:
        ConfigError: `url` is no such address, or its driver is not installed.
        StreamCoordError: an `error`: there is no such file, or it cannot be opened.
    """
    address = parse_address(url, subject)
    if address.drivername == "sqlite":
        from stream_coord.stores.database.sqlite import open_sqlite

        return open_sqlite(address, root, create=create, subject=subject, error=error)
    from stream_coord.stores.database.postgres import open_postgres

    return open_postgres(address, subject=subject, error=error)
