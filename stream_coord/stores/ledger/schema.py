"""The ledger's tables and their version, for any database.

sqlalchemy is slow to import, so every function here imports it itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from stream_coord.bars import FIELDS
from stream_coord.errors import LedgerError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

_T = TypeVar("_T")

VERSION = 1
"""The schema version that this program writes."""

MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {}
"""By n, what brings a ledger of version n to version n + 1."""

RAW_CHARACTERS = 500
"""How many characters of a rejected row's text are kept."""

COUNTS = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")
MINUTES = ("expected", "present", "missing", "no_trade", "unresolved", "filled")
REVISION = ("symbol", "start", *(f"old_{field}" for field in FIELDS), *FIELDS)

_PART = "ledger"  # a bar store in the same database would have a version of its own


@dataclass(frozen=True)
class Tables:
    """The ledger's tables; times are UTC microseconds."""

    metadata: sa.MetaData
    schema_version: sa.Table
    imports: sa.Table
    import_files: sa.Table
    revisions: sa.Table
    rejects: sa.Table
    runs: sa.Table
    run_sessions: sa.Table
    run_quality: sa.Table
    run_gaps: sa.Table


@cache
def tables() -> Tables:
    """Return the tables of schema version `VERSION`."""
    import sqlalchemy as sa

    metadata = sa.MetaData()
    _add_import_tables(metadata)
    _add_run_tables(metadata)
    sa.Table(
        "schema_version",
        metadata,
        *_columns(sa.Text(), "part", primary_key=True),
        *_columns(sa.Integer(), "version"),
    )
    return Tables(metadata, **metadata.tables)


def _add_import_tables(metadata: sa.MetaData) -> None:
    import sqlalchemy as sa

    sa.Table(
        "imports",
        metadata,
        *_job_columns(),
        *_columns(sa.Text(), "interval"),
        *_columns(_text(), "settings"),
    )
    sa.Table(
        "import_files",
        metadata,
        *_columns(sa.Integer(), "id", primary_key=True),
        _parent("import_id", "imports.id"),
        *_columns(_text(), "path", "format"),
        *_columns(sa.BigInteger(), *COUNTS),
        *_columns(sa.Boolean(), "sealed"),
        sa.UniqueConstraint("import_id", "path"),
    )
    sa.Table(
        "revisions",
        metadata,
        _parent("file_id", "import_files.id", index=True),
        *_columns(sa.Text(), "kind", "symbol"),
        *_columns(sa.BigInteger(), "start"),
        *_columns(sa.Double(), *REVISION[2:]),
        sa.CheckConstraint("kind IN ('revised', 'superseded')"),
        sa.Index("ix_revisions_bar", "symbol", "start"),
    )
    sa.Table(
        "rejects",
        metadata,
        _parent("file_id", "import_files.id", index=True),
        *_columns(sa.BigInteger(), "row"),
        *_columns(_text(RAW_CHARACTERS), "symbol", nullable=True),
        *_columns(sa.BigInteger(), "start", nullable=True),
        *_columns(_text(), "reason"),
        *_columns(_text(RAW_CHARACTERS), "raw", nullable=True),
    )


def _add_run_tables(metadata: sa.MetaData) -> None:
    import sqlalchemy as sa

    sa.Table(
        "runs",
        metadata,
        *_job_columns(),
        *_columns(_text(), "command", "settings", "config_digest"),
        *_columns(_text(), "calendar", "calendar_version", "store", "program_version"),
        *_columns(sa.Text(), "digest", nullable=True),
        *_columns(sa.BigInteger(), "sessions", "bars", "derived_bars", "updates"),
        *_columns(sa.JSON(), "timings"),
        *_columns(_text(), "error", nullable=True),
    )
    sa.Table(
        "run_sessions",
        metadata,
        *_columns(sa.Integer(), "id", primary_key=True),
        _parent("run_id", "runs.id"),
        *_columns(sa.Text(), "session"),
        *_columns(sa.BigInteger(), "open", "close"),
        *_columns(sa.Text(), "digest", "data_version"),
        *_columns(sa.BigInteger(), "bars", "derived_bars", "updates"),
        sa.UniqueConstraint("run_id", "session"),
    )
    sa.Table(
        "run_quality",
        metadata,
        _parent("session_id", "run_sessions.id", primary_key=True),
        *_columns(sa.Text(), "symbol", primary_key=True),
        *_columns(sa.Integer(), *MINUTES),
        sqlite_with_rowid=False,  # 40 % smaller; no other database hears of it
    )
    sa.Table(
        "run_gaps",
        metadata,
        _parent("session_id", "run_sessions.id", primary_key=True),
        *_columns(sa.Text(), "symbol", primary_key=True),
        *_columns(sa.BigInteger(), "start", primary_key=True),
        *_columns(sa.BigInteger(), "end"),
        *_columns(sa.Integer(), "minutes"),
        *_columns(sa.Text(), "state"),
        sa.CheckConstraint("state IN ('missing', 'no_trade', 'filled', 'unresolved')"),
        sqlite_with_rowid=False,
    )


def _job_columns() -> list[sa.Column[int] | sa.Column[str] | sa.CheckConstraint]:
    """Return what imports and runs have in common: one is running, or it has ended."""
    import sqlalchemy as sa

    return [
        *_columns(sa.Integer(), "id", primary_key=True),
        *_columns(sa.BigInteger(), "started"),
        *_columns(sa.BigInteger(), "finished", nullable=True),
        *_columns(sa.Text(), "status"),
        sa.CheckConstraint("status IN ('running', 'done', 'failed', 'interrupted')"),
        sa.CheckConstraint("(status = 'running') = (finished IS NULL)"),
    ]


def _columns(
    kind: TypeEngine[_T], *names: str, nullable: bool = False, primary_key: bool = False
) -> list[sa.Column[_T]]:
    import sqlalchemy as sa

    return [sa.Column(name, kind, nullable=nullable, primary_key=primary_key) for name in names]


def _parent(
    name: str, target: str, *, index: bool = False, primary_key: bool = False
) -> sa.Column[int]:
    """Return a reference to another table's row; this one is deleted with it."""
    import sqlalchemy as sa

    reference = sa.ForeignKey(target, ondelete="CASCADE")
    return sa.Column(
        name, sa.Integer(), reference, nullable=False, index=index, primary_key=primary_key
    )


def _text(characters: int | None = None) -> TypeEngine[str]:
    """Return the type of a text from outside: made storable, and cut to `characters`."""
    from sqlalchemy import Dialect, Text
    from sqlalchemy.types import TypeDecorator

    class OutsideText(TypeDecorator[str]):
        impl = Text
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- sqlalchemy's signature
            return None if value is None else storable(value)[:characters]

    return OutsideText()


def storable(text: str) -> str:
    r"""Return `text` with what databases refuse written out: lone surrogates and NUL.

    File names that are not UTF-8 hold the former, binary junk in a bad row the latter.

    >>> storable("caf\udce9\0")
    'caf\\udce9\\x00'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def prepare(engine: sa.Engine, name: str, *, create: bool) -> None:
    """Make sure that the database holds a ledger of version `VERSION`.

    An older ledger is migrated in one transaction. With `create`, a database that holds none of
    the ledger's tables gets them.

    Args:
        engine: The database.
        name: What messages call the ledger.
        create: Whether a ledger may be made.

    Raises:
        LedgerError: no ledger, a newer one, or somebody else's tables.
    """
    with engine.connect() as connection:
        found = _version(connection, name)
    if found == VERSION:
        return
    if found is None and not create:
        raise no_ledger(name)
    with engine.execution_options(writes=True).begin() as connection:
        # Again, under the write lock: another process may have been quicker.
        found = _version(connection, name)
        if found is None:
            tables().metadata.create_all(connection, checkfirst=False)
            row = {"part": _PART, "version": VERSION}
            connection.execute(tables().schema_version.insert(), row)
        else:
            _migrate(connection, found)


def no_ledger(name: str) -> LedgerError:
    """Return the error that says that there is no ledger, and how to get one."""
    return LedgerError(
        f"there is no ledger at {name}",
        "`sc import` or `sc replay` makes one; or correct [ledger] url.",
    )


def _version(connection: sa.Connection, name: str) -> int | None:
    """Return the ledger's version, None where nothing of a ledger is there."""
    import sqlalchemy as sa

    ours = tables().schema_version
    inspector = sa.inspect(connection)
    taken = sorted(set(inspector.get_table_names()) & set(tables().metadata.tables))
    if not taken:
        return None
    version: object = None
    if ours.name in taken and {"part", "version"} <= {
        column["name"] for column in inspector.get_columns(ours.name)
    }:
        version = connection.execute(
            sa.select(ours.c.version).where(ours.c.part == _PART)
        ).scalar_one_or_none()
    if not isinstance(version, int):
        raise LedgerError(
            f"{name} is no ledger: it holds tables of another program ({', '.join(taken)})",
            "Name a file of its own in [ledger] url.",
        )
    if version > VERSION:
        raise LedgerError(
            f"the ledger {name} has schema version {version}; this program knows {VERSION}",
            "Use the newer stream-coord that wrote it, or name another file in [ledger] url.",
        )
    if not MIGRATIONS.keys() >= set(range(version, VERSION)):
        raise LedgerError(
            f"the ledger {name} has schema version {version}, which cannot be migrated",
            "Name another file in [ledger] url.",
        )
    return version


def _migrate(connection: sa.Connection, found: int) -> None:
    for version in range(found, VERSION):
        MIGRATIONS[version](connection)
    ours = tables().schema_version
    connection.execute(ours.update().where(ours.c.part == _PART).values(version=VERSION))
