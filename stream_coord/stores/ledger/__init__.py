"""The ledger: the SQL database of what happened, imports and runs.

polars and sqlalchemy are imported where a ledger is opened or asked, never by importing one of
these modules.
"""

from __future__ import annotations

from pathlib import Path

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import ConfigError, LedgerError
from stream_coord.stores.ledger.base import Outcome
from stream_coord.stores.ledger.imports import FileRecord, ImportLedger, ImportRow
from stream_coord.stores.ledger.runs import RunLedger, RunRow, SessionRecord, SessionRow
from stream_coord.stores.ledger.schema import no_ledger, prepare, storable
from stream_coord.stores.ledger.sqlite import ledger_errors, sqlite_engine

__all__ = [
    "FileRecord",
    "GapRow",
    "ImportRow",
    "Ledger",
    "Outcome",
    "QualityRow",
    "RunRow",
    "SessionRecord",
    "SessionRow",
    "open_ledger",
]


class Ledger(ImportLedger, RunLedger):
    """What happened: which files were imported, what became of their rows, what was run.

    Every writing call is one transaction, on the disk when the call returns. Threads and processes
    may share a ledger: writers wait for each other. After a fork, open it anew.

    Every call raises `LedgerError` when the ledger cannot be read or written.
    """


def open_ledger(url: str, root: Path, *, create: bool = False) -> Ledger:
    """Open a ledger; an older one is brought up to date, if it can be written.

    A ledger in a read-only folder can be read.

    Args:
        url: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.
        root: What a relative path is relative to.
        create: Make the ledger, and the folders it is in, where there is none.

    Raises:
        ConfigError: `url` is no such address.
        LedgerError: there is no ledger, it cannot be opened, it is of a newer version, or the
            file is something else.
    """
    path, masked = _ledger_path(url, root)
    name = storable(str(path))
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise LedgerError(f"{name} is a folder", "Name a file in [ledger] url.")
        if not create and not path.exists():
            raise no_ledger(name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LedgerError(f"the ledger {name} cannot be opened: {reason}") from error
    engine = sqlite_engine(path, create=create)
    try:
        with ledger_errors(name):
            prepare(engine, name, create=create)
    except BaseException:
        engine.dispose()
        raise
    return Ledger(engine, storable(masked), name)


def _ledger_path(url: str, root: Path) -> tuple[Path, str]:
    """Return the file that a ledger's URL names, and the URL without secrets."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    hint = "Write sqlite:///path/to/ledger.db; this version keeps its ledger in SQLite only."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("[ledger] url is no database URL", hint) from None
    if parsed.drivername != "sqlite":
        raise ConfigError(f"[ledger] url cannot be of the kind {parsed.drivername!r}", hint)
    if parsed.database in {None, "", ":memory:"} or parsed.host or parsed.query:
        raise ConfigError("[ledger] url does not name just a file", hint)
    return (root / str(parsed.database)).absolute(), parsed.render_as_string(hide_password=True)
