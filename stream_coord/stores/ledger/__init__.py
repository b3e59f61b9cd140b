"""The ledger: the SQL database of what happened: imports, runs, gaps, sessions, splits.

polars and sqlalchemy are imported where a ledger is opened or asked, never by importing one of
these modules.
"""

from __future__ import annotations

from pathlib import Path

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.database import open_database, prepare
from stream_coord.stores.ledger.base import Outcome
from stream_coord.stores.ledger.gaps import (
    Disagreement,
    DisagreementRow,
    GapChange,
    GapLedger,
    GapState,
    SourceCall,
    SourceCallRow,
)
from stream_coord.stores.ledger.imports import FileRecord, ImportLedger, ImportRow
from stream_coord.stores.ledger.runs import RunLedger, RunRow, SessionRecord, SessionRow
from stream_coord.stores.ledger.schema import ledger_schema
from stream_coord.stores.ledger.sessions import (
    Cursor,
    SealRecord,
    SealRow,
    SessionLedger,
    StateRecord,
    StateRow,
)
from stream_coord.stores.ledger.splits import SplitChange, SplitFile, SplitImport, SplitLedger

__all__ = [
    "Cursor",
    "Disagreement",
    "DisagreementRow",
    "FileRecord",
    "GapChange",
    "GapRow",
    "GapState",
    "ImportRow",
    "Ledger",
    "Outcome",
    "QualityRow",
    "RunRow",
    "SealRecord",
    "SealRow",
    "SessionRecord",
    "SessionRow",
    "SourceCall",
    "SourceCallRow",
    "SplitChange",
    "SplitFile",
    "SplitImport",
    "StateRecord",
    "StateRow",
    "open_ledger",
]


class Ledger(ImportLedger, RunLedger, GapLedger, SessionLedger, SplitLedger):
    """What happened: what was imported and run, what became of every row, gap and session.

    Every writing call is one transaction, on the disk when the call returns. Threads and processes
    may share a ledger: writers wait for each other. After a fork, open it anew.

    Every call raises `LedgerError` when the ledger cannot be read or written.
    """


def open_ledger(url: str, root: Path, *, create: bool = False, migrate: bool = True) -> Ledger:
    """Open a ledger; an older one is brought up to date, if it can be written.

    A ledger in a read-only folder can be read.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or
            ``postgresql+psycopg://user:password@host:port/database`` (see `open_database`).
        root: What a relative path is relative to.
        create: Make the ledger where there is none, in SQLite with its file and folders.
        migrate: Bring an older ledger up to date; False: change nothing, and refuse it.

    Raises:
        ConfigError: `url` is no such address.
        LedgerMissingError: there is no ledger.
        LedgerError: it cannot be opened, it is of a newer version, or of an older one that is not
            to be changed, or what is there is something else.
    """
    database = open_database(url, root, create=create, subject="ledger", error=LedgerError)
    try:
        prepare(database, ledger_schema(), create=create, migrate=migrate)
    except BaseException:
        database.close()
        raise
    return Ledger(database)
