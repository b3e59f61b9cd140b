"""Compaction of a Delta store: small files become full ones, and files that nobody needs go.

Rewriting goes through ordinary commits, some dates at a time. What a commit replaced stays on disk
for those who still read the version before it, and is deleted when it has been out of use for long
enough; so are leftovers of writes that were killed. A kill between any two steps leaves a whole
table: at worst new files that no commit names, which a later compaction finds as leftovers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stream_coord.clock import Clock
from stream_coord.errors import StoreError, UsageError
from stream_coord.stores.base import Compaction
from stream_coord.stores.delta.commits import Day, DayChange, commit_days
from stream_coord.stores.delta.files import (
    SMALL_FILE_ROWS,
    BarFile,
    BarFiles,
    cut_into_files,
    is_local,
)
from stream_coord.stores.delta.log import DeltaLog, NewFile, Snapshot
from stream_coord.stores.groups import with_offsets
from stream_coord.stores.library_errors import library_errors_as

if TYPE_CHECKING:
    import polars as pl

_DATES_A_COMMIT = 16
_HOUR_MILLIS = 3_600_000
# A read or a write that runs may need a file that is in no version any more, or not yet.
_LEAST_HOURS = 1
# The log tells for 30 days when a file went out of use.
_MOST_HOURS = 720
_LEFTOVER = re.compile(r"[0-9a-f]{32}\.parquet|\.[0-9a-f]{32}\.parquet\.[0-9a-f]{16}")


class _Remove(msgspec.Struct):
    path: str
    deletion_millis: int = msgspec.field(name="deletionTimestamp")


class _LogLine(msgspec.Struct):
    remove: _Remove | None = None


@dataclass(frozen=True)
class _UnusedFile:
    """A file on disk that is not live.

    Attributes:
        path: Its absolute path.
        size_bytes: Its size.
        since_millis: When it went out of use, or was written if it never was in use; milliseconds
            since the epoch.
    """

    path: Path
    size_bytes: int
    since_millis: int


@dataclass(frozen=True)
class Compactor:
    """Compacts one table.

    Attributes:
        root: An absolute directory, or the URL of a bucket's folder.
        log: The table's log.
        files: The table's files.
        clock: Tells how long files have been out of use.
        sleep: Waits so many seconds before a commit is tried again.
    """

    root: str
    log: DeltaLog
    files: BarFiles
    clock: Clock
    sleep: Callable[[float], None]

    def run(
        self,
        retain_hours: int,
        *,
        dry_run: bool,
        on_progress: Callable[[int, int, str], None] | None,
    ) -> Compaction:
        """Merge small files and delete unneeded ones; arguments as in `BarStore.compact`."""
        if not _LEAST_HOURS <= retain_hours <= _MOST_HOURS:
            raise UsageError(
                f"replaced files cannot be kept for {retain_hours} hours",
                f"Give {_LEAST_HOURS} to {_MOST_HOURS}: a command that is running may need them "
                "for an hour, and the table's log knows for 30 days when they were replaced.",
            )
        before = self.log.snapshot().live
        saved = self._mergeable() if dry_run else self._merge_small_files(on_progress)
        after = self.log.snapshot().live
        unused = self._unused() if is_local(self.root) else []
        oldest_millis = self.clock.now() // 1000 - retain_hours * _HOUR_MILLIS
        unneeded = [file for file in unused if file.since_millis < oldest_millis]
        if not dry_run:
            _delete(unneeded)
        return Compaction(
            files_before=len(before),
            files_after=len(after) - saved,
            bytes_before=_size_bytes(before),
            bytes_after=None if saved else _size_bytes(after),
            deleted_files=len(unneeded),
            deleted_bytes=_size_bytes(unneeded),
            notes=self._notes([file for file in unused if file not in unneeded], retain_hours),
        )

    def _merge_small_files(self, on_progress: Callable[[int, int, str], None] | None) -> int:
        """Rewrite the small files of every date that has several; return 0, none is left to."""
        days = _crowded_days(self.log.snapshot())
        for done in range(0, len(days), _DATES_A_COMMIT):
            if on_progress is not None:
                on_progress(done, len(days), str(days[done][1]))
            batch = days[done : done + _DATES_A_COMMIT]
            commit_days(self.log, self.files, batch, self._merge, self.sleep, data_change=False)
        return 0

    def _merge(self, day: Day, base: tuple[BarFile, ...]) -> DayChange:
        groups = self._small_groups(base)
        if groups.is_empty():
            return DayChange(base=base)
        small = set(groups["path"])
        added = self.files.write(*day, self.files.read(groups))  # reading verifies every group
        removed = tuple(file for file in base if file.path in small)
        return DayChange(base=base, added=tuple(NewFile(*each) for each in added), removed=removed)

    def _small_groups(self, base: Sequence[BarFile]) -> pl.DataFrame:
        """Return the groups of a date's small files; none where there is only one such file."""
        import polars as pl

        groups = self.files.groups(base)
        small = groups.filter(pl.col("rows").sum().over("path") < SMALL_FILE_ROWS)
        return small if small["path"].n_unique() > 1 else small.clear()

    def _mergeable(self) -> int:
        """Return how many files fewer a merge would leave; reads no bars."""
        snapshot = self.log.snapshot()
        saved = 0
        for interval, day in _crowded_days(snapshot):
            groups = self._small_groups(snapshot.files[interval][day])
            merged = cut_into_files(with_offsets(groups.sort("symbol")))
            saved += groups["path"].n_unique() - len(merged)
        return saved

    def _unused(self) -> list[_UnusedFile]:
        """Return the bar files of a local table that are not live."""
        root = Path(self.root)
        with library_errors_as(
            StoreError, f"cannot look through {root}", "Check the rights on it."
        ):
            # The order counts: what is committed after the first step is too young to be deleted.
            found = sorted(_bar_files(root))
            live = {file.path for file in self.log.snapshot().live}
            removals = _removals(root / "_delta_log")
        return [
            _UnusedFile(root / path, size_bytes, max(written_millis, removals.get(path, 0)))
            for path, size_bytes, written_millis in found
            if path not in live
        ]

    def _notes(self, kept: Sequence[_UnusedFile], retain_hours: int) -> tuple[str, ...]:
        if not is_local(self.root):
            return ("In a bucket, files that nobody needs any more are not deleted.",)
        if not kept:
            return ()
        return (
            f"{len(kept):,} replaced files ({_size_bytes(kept):,} bytes) are kept until they have "
            f"been out of use for {retain_hours} hours.",
        )


def _crowded_days(snapshot: Snapshot) -> list[Day]:
    """Return the dates with more than one file."""
    return [
        (interval, day)
        for interval, days in snapshot.files.items()
        for day, files in days.items()
        if len(files) > 1
    ]


def _size_bytes(files: Iterable[BarFile | _UnusedFile]) -> int:
    return sum(file.size_bytes for file in files)


def _delete(unneeded: Sequence[_UnusedFile]) -> None:
    """Delete files; one that somebody else has deleted is fine."""
    for file in unneeded:
        hint = "Check the rights on its directory; the bars are intact."
        with library_errors_as(StoreError, f"cannot delete {file.path}", hint):
            file.path.unlink(missing_ok=True)


def _bar_files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yield relative path, size and time of writing (milliseconds) of all bar files on disk."""
    for path in root.glob("interval=*/date=*/*"):
        if not _LEFTOVER.fullmatch(path.name):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:  # a writer has renamed it, or taken it back
            continue
        yield str(path.relative_to(root)), status.st_size, status.st_mtime_ns // 1_000_000


def _removals(log: Path) -> dict[str, int]:
    """Return when files went out of use, as far as the log goes back."""
    removals = {}
    for path in log.glob("*.json"):
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:  # the log has been shortened meanwhile
            continue
        for line in lines:
            if b'"remove"' in line:
                remove = msgspec.json.decode(line, type=_LogLine).remove
                if remove is not None:
                    removals[remove.path] = remove.deletion_millis
    return removals
