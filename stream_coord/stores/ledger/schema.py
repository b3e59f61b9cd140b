"""The ledger's tables and their version, for any database.

sqlalchemy is slow to import, so every function here imports it itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, TypeVar

from stream_coord.bars import FIELDS
from stream_coord.stores.database import Schema
from stream_coord.stores.database.text import storable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

__all__ = ["COUNTS", "MINUTES", "RAW_CHARACTERS", "REVISION", "ledger_schema", "storable", "tables"]

_T = TypeVar("_T")

VERSION = 2
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


@cache
def tables() -> Tables:
    """Return the tables of schema version `VERSION`."""
    import sqlalchemy as sa

    metadata = sa.MetaData()
    _add_import_tables(metadata)
    _add_run_tables(metadata)
    _add_gap_tables(metadata)
    return Tables(metadata, **metadata.tables)


def _add_import_tables(metadata: sa.MetaData) -> None:
    import sqlalchemy as sa

    sa.Table(
        "imports",
        metadata,
        *_job_columns(),
        *_columns(_plain_text(), "interval"),
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
        *_columns(_plain_text(), "kind", "symbol"),
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
        *_columns(_plain_text(), "digest", nullable=True),
        *_columns(sa.BigInteger(), "sessions", "bars", "derived_bars", "updates"),
        *_columns(sa.JSON(), "timings"),
        *_columns(_text(), "error", nullable=True),
    )
    sa.Table(
        "run_sessions",
        metadata,
        *_columns(sa.Integer(), "id", primary_key=True),
        _parent("run_id", "runs.id"),
        *_columns(_plain_text(), "session"),
        *_columns(sa.BigInteger(), "open", "close"),
        *_columns(_plain_text(), "digest", "data_version"),
        *_columns(sa.BigInteger(), "bars", "derived_bars", "updates"),
        sa.UniqueConstraint("run_id", "session"),
    )
    sa.Table(
        "run_quality",
        metadata,
        _parent("session_id", "run_sessions.id", primary_key=True),
        *_columns(_plain_text(), "symbol", primary_key=True),
        *_columns(sa.Integer(), *MINUTES),
        sqlite_with_rowid=False,  # 40 % smaller; no other database hears of it
    )
    sa.Table(
        "run_gaps",
        metadata,
        _parent("session_id", "run_sessions.id", primary_key=True),
        *_columns(_plain_text(), "symbol", primary_key=True),
        *_columns(sa.BigInteger(), "start", primary_key=True),
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
        *_columns(_plain_text(), "interval", "session", "symbol", primary_key=True),
        *_columns(sa.BigInteger(), "start", primary_key=True),
        *_gap_columns(),
        *_attempt_columns(),
        *_columns(_names(), "asked", "empty"),
        sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),  # not deleted with it
        sqlite_with_rowid=False,
    )
    sa.Table(
        "gap_pending",
        metadata,
        _parent("run_id", "runs.id", primary_key=True),
        *_columns(sa.LargeBinary(), "change"),
    )
    sa.Table(
        "disagreements",
        metadata,
        *_columns(_plain_text(), "interval", "symbol", primary_key=True),
        *_columns(sa.BigInteger(), "start", primary_key=True),
        *_columns(_text(), "source", "other", primary_key=True),
        _parent("run_id", "runs.id", primary_key=True),
        *_columns(sa.Double(), *FIELDS, *(f"other_{field}" for field in FIELDS)),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "source_calls",
        metadata,
        *_columns(sa.Integer(), "id", primary_key=True),
        _parent("run_id", "runs.id", index=True),
        *_columns(_text(), "source"),
        *_columns(sa.BigInteger(), "at"),
        *_columns(sa.Double(), "seconds"),
        *_columns(sa.BigInteger(), "ranges", "minutes", "bars"),
        *_columns(_plain_text(), "outcome"),
        *_columns(_text(RAW_CHARACTERS), "error", nullable=True),
        sa.CheckConstraint("outcome IN ('answered', 'failed')"),
    )


def _gap_columns() -> list[sa.Column[int] | sa.Column[str] | sa.CheckConstraint]:
    import sqlalchemy as sa

    return [
        *_columns(sa.BigInteger(), "end"),
        *_columns(sa.Integer(), "minutes"),
        *_columns(_plain_text(), "state"),
        sa.CheckConstraint("state IN ('missing', 'no_trade', 'filled', 'unresolved')"),
    ]


def _attempt_columns() -> list[sa.Column[int] | sa.Column[str]]:
    """Return what version 2 says of each gap besides; the defaults are those of older rows."""
    import sqlalchemy as sa

    known = sa.CheckConstraint("kind IN ('minutes', 'session', 'before_first')")
    return [
        sa.Column("kind", _plain_text(), known, nullable=False, server_default="minutes"),
        *_columns(_text(), "source", nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        *_columns(sa.BigInteger(), "last_try", nullable=True),
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


MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _to_2}
"""By n, what brings a ledger of version n to version n + 1."""


def _job_columns() -> list[sa.Column[int] | sa.Column[str] | sa.CheckConstraint]:
    """Return what imports and runs have in common: one is running, or it has ended."""
    import sqlalchemy as sa

    return [
        *_columns(sa.Integer(), "id", primary_key=True),
        *_columns(sa.BigInteger(), "started"),
        *_columns(sa.BigInteger(), "finished", nullable=True),
        *_columns(_plain_text(), "status"),
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


def _plain_text() -> TypeEngine[str]:
    """Return the type of a text that every database sorts alike: by its bytes."""
    from sqlalchemy import Text

    return Text().with_variant(Text(collation="C"), "postgresql")


def _text(characters: int | None = None) -> TypeEngine[str]:
    """Return the type of a text from outside: made storable, and cut to `characters`."""
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeDecorator

    class OutsideText(TypeDecorator[str]):
        impl = _plain_text()
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- sqlalchemy's signature
            return None if value is None else storable(value)[:characters]

    return OutsideText()


def _names() -> TypeEngine[tuple[str, ...]]:
    """Return the type of a few names from outside: a JSON list, each made storable."""
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeDecorator

    class Names(TypeDecorator[tuple[str, ...]]):
        impl = _plain_text()
        cache_ok = True

        def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- sqlalchemy's signature
            return None if value is None else _written(value)

        def process_result_value(
            self,
            value: str | None,
            dialect: Dialect,  # noqa: ARG002 -- sqlalchemy's signature
        ) -> tuple[str, ...] | None:
            return None if value is None else _read(value)

    return Names()


@lru_cache
def _written(names: tuple[str, ...]) -> str:
    return json.dumps([storable(name) for name in names])


@lru_cache
def _read(text: str) -> tuple[str, ...]:
    names: object = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"no list of names: {text}")
    return tuple(names)


def ledger_schema() -> Schema:
    """Return the tables with their version, as a database knows them."""
    return Schema("ledger", VERSION, tables().metadata, MIGRATIONS)
