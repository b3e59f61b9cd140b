"""The version of our tables in a database: made, recognised, migrated.

A ledger and a bar store in one database are parts with versions of their own, in one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from stream_coord.errors import LedgerError, StoreError
from stream_coord.stores.database.base import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

VERSIONS = "schema_version"


@dataclass(frozen=True)
class Schema:
    """The tables of one part.

    Attributes:
        part: Its name in the table of versions, for example ``ledger``.
        version: The version of `metadata`.
        metadata: The tables; that of versions is none of them.
        migrations: By n, what brings version n to version n + 1.
    """

    part: str
    version: int
    metadata: sa.MetaData
    migrations: Mapping[int, Callable[[sa.Connection], None]] = field(default_factory=dict)


def prepare(database: Database, schema: Schema, *, create: bool, migrate: bool = True) -> None:
    """Make sure that a database holds the tables of `schema`, at its version.

    Older ones are migrated in one transaction. With `create`, a database that holds none of the
    tables gets them; several processes may do so at once.

    Raises:
        StreamCoordError: the database's own error: it holds no such tables, newer ones, older ones
            though there is to be no migration, or tables of another program or shape under our
            names.
    """
    with database.reading() as connection:
        found = _version(connection, database, schema)
    if found == schema.version:
        return
    if found is None and not create:
        raise database.absent()
    if found is not None and not migrate:
        raise database.error(
            f"the {database.subject} {database.name} has schema version {found} and must be "
            f"brought to {schema.version} first",
            "A call that may write brings it up to date: one without --dry-run.",
        )
    try:
        with database.writing() as connection:
            _bring_up_to_date(connection, database, schema)
    except database.error as error:
        if found is not None:
            error.message += (
                f"; it has schema version {found} and must be brought to {schema.version} first"
            )
        raise


def _bring_up_to_date(connection: sa.Connection, database: Database, schema: Schema) -> None:
    database.flavour.lock(connection, VERSIONS)  # other parts have their own writers
    # Again, under the locks: another process may have been quicker.
    found = _version(connection, database, schema)
    if found is None:
        _versions().metadata.create_all(connection)
        schema.metadata.create_all(connection, checkfirst=False)
        row = {"part": schema.part, "version": schema.version}
        connection.execute(_versions().insert(), row)
    else:
        _migrate(connection, schema, found)


@cache
def _versions() -> sa.Table:
    import sqlalchemy as sa

    return sa.Table(
        VERSIONS,
        sa.MetaData(),
        sa.Column("part", sa.Text(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
    )


def _version(connection: sa.Connection, database: Database, schema: Schema) -> int | None:
    """Return the version of a part, None where nothing of it is there."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    taken = sorted(tables & schema.metadata.tables.keys())
    version: object = None
    if VERSIONS in tables:
        if not {"part", "version"} <= _columns(inspector, VERSIONS):
            raise _foreign(database, [VERSIONS, *taken])
        ours = _versions()
        version = connection.execute(
            sa.select(ours.c.version).where(ours.c.part == schema.part)
        ).scalar_one_or_none()
    if version is None and not taken:
        return None
    if not isinstance(version, int):
        raise _foreign(database, taken or [VERSIONS])
    _check_version(database, schema, version)
    if version == schema.version:
        _check_shape(inspector, database, schema)
    return version


def _check_version(database: Database, schema: Schema, version: int) -> None:
    subject = f"the {database.subject} {database.name} has schema version {version}"
    if version > schema.version:
        raise database.error(
            f"{subject}; this program knows {schema.version}",
            "Use the newer stream-coord that wrote it, or name another database in "
            f"[{database.subject}] url.",
        )
    if not schema.migrations.keys() >= set(range(version, schema.version)):
        raise database.error(
            f"{subject}, which cannot be migrated",
            f"Name another database in [{database.subject}] url.",
        )


def _check_shape(inspector: sa.Inspector, database: Database, schema: Schema) -> None:
    """Look whether each table that is there has its columns; one that is gone says so when used."""
    names = list(schema.metadata.tables)
    found = inspector.get_multi_columns(filter_names=names)
    for (_, name), columns in found.items():
        missing = sorted(
            set(schema.metadata.tables[name].columns.keys())
            - {column["name"] for column in columns}
        )
        if missing:
            raise database.error(
                f"the {database.subject} {database.name} has tables of another shape: "
                f"{name} is without {', '.join(missing)}",
                f"Put a backup in its place, or name another database in [{database.subject}] url.",
            )


def _columns(inspector: sa.Inspector, table: str) -> set[str]:
    return {column["name"] for column in inspector.get_columns(table)}


def _foreign(database: Database, tables: list[str]) -> LedgerError | StoreError:
    return database.error(
        f"{database.name} is no {database.subject}: it holds tables of another program "
        f"({', '.join(tables)})",
        f"Name a database of its own in [{database.subject}] url.",
    )


def _migrate(connection: sa.Connection, schema: Schema, found: int) -> None:
    for version in range(found, schema.version):
        schema.migrations[version](connection)
    ours = _versions()
    connection.execute(
        ours.update().where(ours.c.part == schema.part).values(version=schema.version)
    )
