"""The log of a Delta store: which bar files are live, and one atomic step to the next set.

Every commit records two numbers in the log as application transactions: the table version that it
makes (`_VERSION`) and a hash of all paths that are live after it (`_FILES`). Both are part of the
snapshot that deltalake computes, checkpoint or not, and are compared with it, so that a damaged
log cannot make a day vanish. They serve concurrency too: two commits on the same base collide.

What such a check cannot see is that the newest commits are gone altogether. On a local disk the
file `_HEAD` names a version that the table has reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from stream_coord.bars import FIELDS
from stream_coord.clock import Clock, from_micros
from stream_coord.errors import StoreCorruptError, StoreError, StoreMissingError
from stream_coord.files import new_file, sync_path
from stream_coord.stores.delta.files import BarFile, is_local
from stream_coord.stores.library_errors import library_errors_as

if TYPE_CHECKING:
    import polars as pl
    from deltalake import CommitProperties, DeltaTable, Schema
    from deltalake.transaction import AddAction, RemoveAction

_VERSION = "stream-coord.version"
_FILES = "stream-coord.files"
_HEAD = "_stream_coord_head"
_PARTITION = ["interval", "date"]
_LOG_HINT = (
    "If its files can be read, the table's log is damaged: restore _delta_log from a backup, or "
    "import the bars into a new store."
)
_ROOT_HINT = "Correct the store's url, or the rights on that place."
_COMMIT_HINT = "Nothing was stored; the old bars are intact."
_UNFIT = re.compile(r"[%\\\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Snapshot:
    """One version of the table.

    Attributes:
        version: The table's version.
        files: The live files by interval and UTC date, dates ascending.
    """

    version: int
    files: dict[str, dict[date, tuple[BarFile, ...]]]

    @property
    def live(self) -> set[BarFile]:
        """All live files."""
        return {file for days in self.files.values() for day in days.values() for file in day}


@dataclass(frozen=True)
class NewFile:
    """A file to commit, with its group table (for the statistics that other readers prune by)."""

    file: BarFile
    groups: pl.DataFrame


class DeltaLog:
    """Opens a table, tells its newest snapshot and commits changes to it; safe to share by threads.

    Args:
        root: An absolute directory, or the URL of a bucket's folder.
        clock: Dates the removals, which a vacuum goes by.
        create: Make the table if there is none.

    Raises:
        StoreError: there is no table and `create` is false, or it cannot be opened.
    """

    def __init__(self, root: str, clock: Clock, *, create: bool) -> None:
        self._root = root
        self._clock = clock
        self._lock = Lock()
        _require_table(root, create=create)
        self._table = _open_table(root)
        self._snapshot = self._verified()
        self._refresh()

    @property
    def url(self) -> str:
        """The store's address."""
        return f"delta:{self._root}"

    def snapshot(self) -> Snapshot:
        """Return the newest version of the table.

        Raises:
            StoreCorruptError: the log is damaged.
            StoreError: another program changed the table.
        """
        with self._lock:
            self._refresh()
            return self._snapshot

    def commit(
        self,
        base: Snapshot,
        added: Sequence[NewFile],
        removed: Sequence[BarFile],
        *,
        data_change: bool = True,
    ) -> bool:
        """Replace files in one atomic step; false if the table is no longer at `base`.

        Args:
            base: What the change was planned for.
            added: New files, already written.
            removed: Live files that go.
            data_change: Whether the bars change, or only the files that they are in; those who
                follow the table's changes pass over the latter.

        Raises:
            StoreError: the commit failed for another reason.
        """
        from deltalake.exceptions import CommitFailedError

        with self._lock:
            if self._table.version() != base.version:
                return False
            try:
                self._write_commit(base, added, removed, data_change)
            except StoreError as error:
                # A bucket may lose its answer, a checkpoint may fail after the commit: look.
                self._refresh()
                if not {new.file for new in added} <= self._snapshot.live:
                    if isinstance(error.__cause__, CommitFailedError):
                        return False
                    raise
            self._sync(base.version + 1)
        return True

    def _write_commit(
        self,
        base: Snapshot,
        added: Sequence[NewFile],
        removed: Sequence[BarFile],
        data_change: bool,
    ) -> None:
        now_millis = self._clock.now() // 1000
        actions: list[AddAction | RemoveAction] = []
        actions += [_add_action(new, now_millis, data_change) for new in added]
        actions += [_remove_action(file, now_millis, data_change) for file in removed]
        live = (base.live - set(removed)) | {new.file for new in added}
        with library_errors_as(StoreError, f"cannot commit to {self._root}", _COMMIT_HINT):
            self._table.create_write_transaction(
                actions,
                mode="append",
                schema=_schema(),
                partition_by=_PARTITION,
                commit_properties=_marked(base.version + 1, live),
            )

    def _refresh(self) -> None:
        head = self._head()  # first: a commit in between may raise it, never the other way round
        message = f"cannot read the log of the bar store {self._root}"
        with library_errors_as(StoreCorruptError, message, _LOG_HINT):
            self._table.update_incremental()
        if self._table.version() != self._snapshot.version:
            self._snapshot = self._verified()
        if self._snapshot.version < head:
            raise StoreCorruptError(
                f"the log of the bar store {self._root} ends at version "
                f"{self._snapshot.version}, but the store has reached version {head}",
                f"Restore _delta_log from a backup, or delete {_HEAD} to go on with what is left.",
            )

    def _verified(self) -> Snapshot:
        """Return the table's current version after comparing it with the marks of its commit."""
        version, live = self._table.version(), self._live_files()
        message = f"cannot read the log of the bar store {self._root}"
        with library_errors_as(StoreCorruptError, message, _LOG_HINT):
            marks = [self._table.transaction_version(name) for name in (_VERSION, _FILES)]
        if marks[0] != version:
            raise StoreError(
                f"the last change of the bar store {self._root} (version {version}) was not made "
                "by stream-coord",
                "Another program wrote the table, or its log is damaged: restore it from a "
                "backup, or import the bars into a new store.",
            )
        if marks[1] != _hash_paths(live):
            raise StoreCorruptError(
                f"the log of the bar store {self._root} does not list the files that it should",
                _LOG_HINT,
            )
        return Snapshot(version, _by_interval_and_day(live))

    def _live_files(self) -> list[BarFile]:
        import polars as pl

        message = f"cannot read the log of the bar store {self._root}"
        with library_errors_as(StoreCorruptError, message, _LOG_HINT):
            actions = pl.DataFrame(self._table.get_add_actions(flatten=True))
            columns = ("path", "size_bytes", "partition.interval", "partition.date")
            rows = actions.select(columns).rows()
            files = [BarFile.of_path(path, size_bytes) for path, size_bytes, *_ in rows]
        for file, (*_, interval, day) in zip(files, rows, strict=True):
            if (file.interval, file.day) != (interval, day):
                raise StoreCorruptError(
                    f"the log of the bar store {self._root} gives {file.path} to {interval}, {day}",
                    _LOG_HINT,
                )
        return files

    def _head(self) -> int:
        """Return a version that the table has reached, 0 if nobody noted one."""
        if not is_local(self._root):
            return 0
        path = Path(self._root, _HEAD)
        hint = "Delete that file; nothing but this check needs it."
        with library_errors_as(StoreCorruptError, f"cannot read {path}", hint):
            return int((path.read_bytes() if path.exists() else b"") or b"0")

    def _sync(self, version: int) -> None:
        """Make a commit survive a power loss, then note its version."""
        if not is_local(self._root):
            return
        log = Path(self._root, "_delta_log")
        hint = "The bars are stored, but might not survive a power loss."
        with library_errors_as(StoreError, f"cannot sync {log}", hint):
            sync_path(log / f"{version:020}.json")
            sync_path(log)
            with new_file(Path(self._root, _HEAD)) as stream:
                stream.write(f"{version}\n".encode())


def _require_table(root: str, *, create: bool) -> None:
    """See to it that there is a table at `root`."""
    from deltalake import DeltaTable

    _check_root(root)
    with library_errors_as(StoreError, f"cannot look for a bar store at {root}", _ROOT_HINT):
        if DeltaTable.is_deltatable(root):
            return
    if is_local(root) and any(Path(root).glob("interval=*")):
        raise StoreCorruptError(
            f"the bar store {root} has lost its log",
            "Restore _delta_log from a backup, or import the bars into a new store.",
        )
    if not create:
        raise StoreMissingError(
            f"there is no bar store at {root}",
            "`sc import` makes one; or correct the store's url.",
        )
    _create_table(root)


def _check_root(root: str) -> None:
    if not is_local(root):
        return
    if _UNFIT.search(root):
        raise StoreError(
            f"{root!r} cannot hold a bar store",
            "Delta Lake takes no path with a percent sign, a backslash or a control character.",
        )
    if Path(root).exists() and not Path(root).is_dir():
        raise StoreError(f"{root} is not a directory", _ROOT_HINT)


def _create_table(root: str) -> None:
    from deltalake import DeltaTable

    with library_errors_as(StoreError, f"cannot make a bar store at {root}", _ROOT_HINT):
        try:
            DeltaTable.create(
                root, _schema(), partition_by=_PARTITION, commit_properties=_marked(0, ())
            )
        except Exception:
            if not DeltaTable.is_deltatable(root):  # somebody else may have made it meanwhile
                raise


def _open_table(root: str) -> DeltaTable:
    from deltalake import DeltaTable

    with library_errors_as(StoreCorruptError, f"cannot open the bar store {root}", _LOG_HINT):
        return DeltaTable(root)


def _marked(version: int, live: Iterable[BarFile]) -> CommitProperties:
    """Return the properties of a commit that makes this version with these live files."""
    from deltalake import CommitProperties, Transaction

    marks = [Transaction(_VERSION, version), Transaction(_FILES, _hash_paths(live))]
    # A retry would put an outdated plan on top of another writer's commit.
    return CommitProperties(max_commit_retries=0, app_transactions=marks)


def _schema() -> Schema:
    from deltalake import Field, Schema
    from deltalake.schema import PrimitiveType

    types = {"interval": "string", "date": "date", "symbol": "string", "start": "timestamp"}
    types |= dict.fromkeys(FIELDS, "double")
    return Schema([Field(name, PrimitiveType(t), nullable=False) for name, t in types.items()])


def _add_action(new: NewFile, now_millis: int, data_change: bool) -> AddAction:
    import polars as pl
    from deltalake.transaction import AddAction

    symbol = pl.col("symbol")
    extent = (symbol.first(), symbol.last().alias("z"), pl.col("first").min(), pl.col("last").max())
    a, z, first, last = new.groups.select(*extent).row(0)
    statistics = {
        "numRecords": new.groups.select(pl.col("rows").sum()).item(),
        "minValues": {"symbol": a, "start": _moment(first)},
        "maxValues": {"symbol": z, "start": _moment(last)},
        "nullCount": dict.fromkeys(("symbol", "start", *FIELDS), 0),
    }
    file, values = new.file, _partition_values(new.file)
    stated = json.dumps(statistics)
    return AddAction(file.path, file.size_bytes, values, now_millis, data_change, stated)


def _remove_action(file: BarFile, now_millis: int, data_change: bool) -> RemoveAction:
    from deltalake.transaction import RemoveAction

    values = _partition_values(file)
    return RemoveAction(file.path, data_change, now_millis, file.size_bytes, values)


def _partition_values(file: BarFile) -> dict[str, str | None]:
    return {"interval": file.interval, "date": file.day.isoformat()}


def _moment(micros: int) -> str:
    return from_micros(micros).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _hash_paths(files: Iterable[BarFile]) -> int:
    """Return a hash of the set of paths that fits a signed 64-bit integer."""
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest("\n".join(sorted(file.path for file in files)).encode()) >> 1


def _by_interval_and_day(files: Iterable[BarFile]) -> dict[str, dict[date, tuple[BarFile, ...]]]:
    """Index files; dates ascending, a date's files by path, so that equal sets are equal."""
    index: dict[str, dict[date, tuple[BarFile, ...]]] = {}
    for file in sorted(files, key=lambda file: (file.day, file.path)):
        days = index.setdefault(file.interval, {})
        days[file.day] = (*days.get(file.day, ()), file)
    return index
