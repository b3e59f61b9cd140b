"""The ledger's tables and their version, for any database.

sqlalchemy is slow to import, so every function here imports it itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from stream_coord.bars import FIELDS
from stream_coord.stores.database import Schema
from stream_coord.stores.database.text import storable
from stream_coord.stores.ledger.columns import (
    columns,
    name_list,
    outside_text,
    parent,
    plain_text,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["COUNTS", "MINUTES", "RAW_CHARACTERS", "REVISION", "ledger_schema", "storable", "tables"]

VERSION = 3
"""The schema version that this program writes."""

RAW_CHARACTERS = 500
"""How many characters of a rejected row's text are kept."""

COUNTS = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")
MINUTES = ("expected", "present", "missing", "no_trade", "unresolved", "filled")
REVISION = ("symbol", "start", *(f"old_{field}" for field in FIELDS), *FIELDS)


@dataclass(frozen=True)
class Tables:
    """The ledger's tables; times are UTC microseconds."""

    metadata: sa.MetaData
    imports: sa.Table
    import_files: sa.Table
    revisions: sa.Table
    rejects: sa.Table
    runs: sa.Table
    run_sessions: sa.Table
    run_quality: sa.Table
    run_gaps: sa.Table
    gap_states: sa.Table
    gap_pending: sa.Table
    disagreements: sa.Table
    source_calls: sa.Table
    splits: sa.Table
    split_revisions: sa.Table
    session_states: sa.Table
    cursors: sa.Table
    seals: sa.Table
    seal_rows: sa.Table


@cache
def tables() -> Tables:
    """Return the tables of schema version `VERSION`."""
    import sqlalchemy as sa

    metadata = sa.MetaData()
    _add_import_tables(metadata)
    _add_run_tables(metadata)
    _add_gap_tables(metadata)
    _add_split_tables(metadata)
    _add_session_tables(metadata)
    return Tables(metadata, **metadata.tables)


def _add_import_tables(metadata: sa.MetaData) -> None:
    import sqlalchemy as sa

    sa.Table(
        "imports",
        metadata,
        *_job_columns(),
        *columns(plain_text(), "interval"),
        *columns(outside_text(), "settings"),
    )
    sa.Table(
        "import_files",
        metadata,
        *columns(sa.Integer(), "id", primary_key=True),
        parent("import_id", "imports.id"),
        *columns(outside_text(), "path", "format"),
        *columns(sa.BigInteger(), *COUNTS),
        *columns(sa.Boolean(), "sealed"),
        sa.UniqueConstraint("import_id", "path"),
    )
    sa.Table(
        "revisions",
        metadata,
        parent("file_id", "import_files.id", index=True),
        *columns(plain_text(), "kind", "symbol"),
        *columns(sa.BigInteger(), "start"),
        *columns(sa.Double(), *REVISION[2:]),
        sa.CheckConstraint("kind IN ('revised', 'superseded')"),
        sa.Index("ix_revisions_bar", "symbol", "start"),
    )
    sa.Table(
        "rejects",
        metadata,
        parent("file_id", "import_files.id", index=True),
        *columns(sa.BigInteger(), "row"),
        *columns(outside_text(RAW_CHARACTERS), "symbol", nullable=True),
        *columns(sa.BigInteger(), "start", nullable=True),
        *columns(outside_text(), "reason"),
        *columns(outside_text(RAW_CHARACTERS), "raw", nullable=True),
    )


def _add_run_tables(metadata: sa.MetaData) -> None:
    import sqlalchemy as sa

    sa.Table(
        "runs",
        metadata,
        *_job_columns(),
        *columns(outside_text(), "command", "settings", "config_digest"),
        *columns(outside_text(), "calendar", "calendar_version", "store", "program_version"),
        *columns(plain_text(), "digest", nullable=True),
        *columns(sa.BigInteger(), "sessions", "bars", "derived_bars", "updates"),
        *columns(sa.JSON(), "timings"),
        *columns(outside_text(), "error", nullable=True),
    )
    sa.Table(
        "run_sessions",
        metadata,
        *columns(sa.Integer(), "id", primary_key=True),
        parent("run_id", "runs.id"),
        *columns(plain_text(), "session"),
        *columns(sa.BigInteger(), "open", "close"),
        *columns(plain_text(), "digest", "data_version"),
        *columns(sa.BigInteger(), "bars", "derived_bars", "updates"),
        sa.UniqueConstraint("run_id", "session"),
    )
    sa.Table(
        "run_quality",
        metadata,
        parent("session_id", "run_sessions.id", primary_key=True),
        *columns(plain_text(), "symbol", primary_key=True),
        *columns(sa.Integer(), *MINUTES),
        sqlite_with_rowid=False,  # 40 % smaller; no other database hears of it
    )
    sa.Table(
        "run_gaps",
        metadata,
        parent("session_id", "run_sessions.id", primary_key=True),
        *columns(plain_text(), "symbol", primary_key=True),
        *columns(sa.BigInteger(), "start", primary_key=True),
        *_gap_columns(),
        *_attempt_columns(),
        sqlite_with_rowid=False,
    )


def _add_gap_tables(metadata: sa.MetaData) -> None:
    """Add the tables that version 2 brought; whoever changes them writes these out in `_to_2`."""
    import sqlalchemy as sa

    sa.Table(
        "gap_states",
        metadata,
        *columns(plain_text(), "interval", "session", "symbol", primary_key=True),
        *columns(sa.BigInteger(), "start", primary_key=True),
        *_gap_columns(),
        *_attempt_columns(),
        *columns(name_list(), "asked", "empty"),
        _kept("run_id", "runs.id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "gap_pending",
        metadata,
        parent("run_id", "runs.id", primary_key=True),
        *columns(sa.LargeBinary(), "change"),
    )
    sa.Table(
        "disagreements",
        metadata,
        *columns(plain_text(), "interval", "symbol", primary_key=True),
        *columns(sa.BigInteger(), "start", primary_key=True),
        *columns(outside_text(), "source", "other", primary_key=True),
        parent("run_id", "runs.id", primary_key=True),
        *columns(sa.Double(), *FIELDS, *(f"other_{field}" for field in FIELDS)),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "source_calls",
        metadata,
        *columns(sa.Integer(), "id", primary_key=True),
        parent("run_id", "runs.id", index=True),
        *columns(outside_text(), "source"),
        *columns(sa.BigInteger(), "at"),
        *columns(sa.Double(), "seconds"),
        *columns(sa.BigInteger(), "ranges", "minutes", "bars"),
        *columns(plain_text(), "outcome"),
        *columns(outside_text(RAW_CHARACTERS), "error", nullable=True),
        sa.CheckConstraint("outcome IN ('answered', 'failed')"),
    )


def _add_split_tables(metadata: sa.MetaData) -> None:
    """Add the tables of splits, which version 3 brought; see `_add_gap_tables`."""
    import sqlalchemy as sa

    sa.Table(
        "splits",
        metadata,
        *columns(plain_text(), "symbol", "day", primary_key=True),
        *columns(sa.Double(), "ratio"),
        _kept("file_id", "import_files.id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "split_revisions",
        metadata,
        parent("file_id", "import_files.id", index=True),
        *columns(plain_text(), "symbol", "day"),
        *columns(sa.Double(), "old_ratio", "ratio"),
    )


def _add_session_tables(metadata: sa.MetaData) -> None:
    """Add the tables of sessions, which version 3 brought; see `_add_gap_tables`."""
    import sqlalchemy as sa

    sa.Table(
        "session_states",
        metadata,
        *columns(sa.Integer(), "id", primary_key=True),
        parent("run_id", "runs.id", index=True),
        *columns(plain_text(), "session"),
        *columns(sa.BigInteger(), "time"),
        *columns(plain_text(), "left", "entered"),
        *columns(outside_text(), "cause", nullable=True),
    )
    sa.Table(
        "cursors",
        metadata,
        *columns(outside_text(), "key", primary_key=True),
        *columns(plain_text(), "session"),
        *columns(sa.BigInteger(), "moved"),
        _kept("run_id", "runs.id"),
        *columns(outside_text(), "error", nullable=True),
    )
    sa.Table(
        "seals",
        metadata,
        *columns(sa.Integer(), "id", primary_key=True),
        *columns(outside_text(), "key"),
        *columns(plain_text(), "session"),
        _kept("run_id", "runs.id"),
        *columns(sa.BigInteger(), "at", "open", "close", "bars"),
        *columns(plain_text(), "data_version"),
        sa.UniqueConstraint("key", "session"),
    )
    sa.Table(
        "seal_rows",
        metadata,
        parent("seal_id", "seals.id", primary_key=True),
        *columns(plain_text(), "symbol", primary_key=True),
        *columns(sa.Integer(), *MINUTES),
        *columns(plain_text(), "checksum"),
        sqlite_with_rowid=False,
    )


def _kept(name: str, target: str) -> sa.Column[int]:
    """Return a reference to another table's row, which cannot be deleted while this one is."""
    import sqlalchemy as sa

    return sa.Column(name, sa.Integer(), sa.ForeignKey(target), nullable=False)


def _gap_columns() -> list[sa.Column[int] | sa.Column[str] | sa.CheckConstraint]:
    import sqlalchemy as sa

    return [
        *columns(sa.BigInteger(), "end"),
        *columns(sa.Integer(), "minutes"),
        *columns(plain_text(), "state"),
        sa.CheckConstraint("state IN ('missing', 'no_trade', 'filled', 'unresolved')"),
    ]


def _attempt_columns() -> list[sa.Column[int] | sa.Column[str]]:
    """Return what version 2 says of each gap besides; the defaults are those of older rows."""
    import sqlalchemy as sa

    known = sa.CheckConstraint("kind IN ('minutes', 'session', 'before_first')")
    return [
        sa.Column("kind", plain_text(), known, nullable=False, server_default="minutes"),
        *columns(outside_text(), "source", nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        *columns(sa.BigInteger(), "last_try", nullable=True),
    ]


def _to_2(connection: sa.Connection) -> None:
    """Bring a ledger of version 1 to version 2: the gaps of runs know more, states are kept."""
    from sqlalchemy.schema import CreateColumn

    for column in _attempt_columns():
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE run_gaps ADD COLUMN {definition}")
    t = tables()
    new = [t.gap_states, t.gap_pending, t.disagreements, t.source_calls]
    t.metadata.create_all(connection, new, checkfirst=False)


def _to_3(connection: sa.Connection) -> None:
    """Bring a ledger of version 2 to version 3: splits, and the life of sessions."""
    t = tables()
    new = [t.splits, t.split_revisions, t.session_states, t.cursors, t.seals, t.seal_rows]
    t.metadata.create_all(connection, new, checkfirst=False)


MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _to_2, 2: _to_3}
"""By n, what brings a ledger of version n to version n + 1."""


def _job_columns() -> list[sa.Column[int] | sa.Column[str] | sa.CheckConstraint]:
    """Return what imports and runs have in common: one is running, or it has ended."""
    import sqlalchemy as sa

    return [
        *columns(sa.Integer(), "id", primary_key=True),
        *columns(sa.BigInteger(), "started"),
        *columns(sa.BigInteger(), "finished", nullable=True),
        *columns(plain_text(), "status"),
        sa.CheckConstraint("status IN ('running', 'done', 'failed', 'interrupted')"),
        sa.CheckConstraint("(status = 'running') = (finished IS NULL)"),
    ]


def ledger_schema() -> Schema:
    """Return the tables with their version, as a database knows them."""
    return Schema("ledger", VERSION, tables().metadata, MIGRATIONS)
