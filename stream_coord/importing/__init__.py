"""Importing files into a store: every row is stored, a duplicate, a revision or a reject.

Files are read piece by piece and stored in batches, so that many small files are few commits, and
a file may be larger than memory. Of the rows of one key in a batch the last one wins, whichever
file it is from; those before it count as duplicates of their own files. A large batch is stored in
several commits, each of all its rows of some dates. The ledger hears of a commit before the store
makes it (pending) and after (sealed), so that whatever happens in between is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stream_coord.ahead import one_ahead
from stream_coord.bars import COLUMNS
from stream_coord.errors import InputFileError, LedgerError
from stream_coord.importing.batch import Batch, Commit, Piece, judge_rows
from stream_coord.importing.results import (
    FailedFile,
    ImportInterruptedError,
    ImportProgress,
    ImportSummary,
    ImportTarget,
    RejectExample,
)
from stream_coord.sources.base import FileFormat, Part, find_files
from stream_coord.stores.base import WriteOutcome
from stream_coord.stores.ledger import FileRecord, Outcome
from stream_coord.stores.ledger.schema import COUNTS, storable
from stream_coord.stores.merge import empty_outcome

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "FailedFile",
    "ImportInterruptedError",
    "ImportProgress",
    "ImportSummary",
    "ImportTarget",
    "RejectExample",
    "import_files",
]

BATCH_ROWS = 30_000_000
BATCH_FILES = 2_000
EXAMPLES = 2
"""How many rejects of each reason a summary shows."""


def import_files(
    paths: Iterable[Path],
    fmt: FileFormat,
    target: ImportTarget,
    *,
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportSummary:
    """Import files and folders of one format, in memory that does not depend on their sizes.

    A file that cannot be read, to its end, fails alone: the others are imported, and the summary
    names it.

    Rows of one key collapse, the last one wins, within a batch: files are added to one until it
    has `BATCH_FILES` files or `BATCH_ROWS` rows. In a larger import, a row of a key that an earlier
    batch stored with other values is a revision, as if it came in an import of its own.

    A batch of more rows than fit into memory waits in a temporary file and is stored date by date.
    Wherever an import is stopped, what was committed so far stays, and the ledger's counts are
    those of just these rows; importing the same files again completes it.

    Args:
        paths: Files; or folders, of which all files of the format are taken.
        fmt: How to read them.
        target: Where their bars go.
        on_progress: Called after every piece that was read, and every commit.

    Raises:
        UsageError: a path does not exist, or what `fmt` states does not fit a file.
        StoreError: the store cannot be read or written.
        LedgerError: the ledger cannot be written.
        StreamCoordError: there is no room for temporary files.
        ImportInterruptedError: on an interrupt; it tells what was stored.
    """
    files = find_files(paths, fmt)
    with _journal(fmt, target) as job:
        job.run(files, on_progress or (lambda _: None))
    return job.summary()


@contextmanager
def _journal(fmt: FileFormat, target: ImportTarget) -> Iterator[_Job]:
    """Begin an import in the ledger, and record how it ends, however it ends."""
    stated = msgspec.to_builtins(fmt, enc_hook=str)  # a Symbol is a str
    settings = msgspec.json.encode({"format": fmt.name, **stated}).decode()
    ledger, now = target.ledger, target.clock.now
    job = _Job(fmt, target, ledger.begin_import(now(), str(target.interval), settings))
    try:
        yield job
    except BaseException as error:
        status: Outcome = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(LedgerError):  # what stopped the import is the error to report
            ledger.finish_import(job.id, now(), status)
        if isinstance(error, KeyboardInterrupt):
            job.catch_up()
            raise ImportInterruptedError(job.summary()) from error
        raise
    ledger.finish_import(job.id, now(), "failed" if job.failed else "done")


@dataclass(frozen=True)
class _Step:
    """What reading came to next.

    Attributes:
        name: The part's or the file's.
        found: Some rows of the part, why it or the file cannot be read, or None at its end.
        position: How many bytes of all files have been read.
        files: How many files have been read.
    """

    name: str
    found: Piece | InputFileError | None
    position: int
    files: int


class _Job:
    """A running import: parts wait in a batch until they are stored together."""

    def __init__(self, fmt: FileFormat, target: ImportTarget, import_id: int) -> None:
        self.id = import_id
        self.failed: list[FailedFile] = []
        self._fmt = fmt
        self._target = target
        self._batch = Batch()
        self._part_rows: int | None = None  # of the part that is being read
        self._files: dict[str, FileRecord] = {}
        self._sealing: dict[str, FileRecord] = {}  # sealed perhaps, and not in `_files` yet
        self._reasons: Counter[str] = Counter()
        self._examples: list[RejectExample] = []

    def run(self, files: Sequence[Path], on_progress: Callable[[ImportProgress], None]) -> None:
        """Import files; the next piece is read while the last one is taken."""
        sizes = [_size_bytes(path) for path in files]
        at = ImportProgress(0, len(files), 0, 0, 0, sum(sizes))
        with closing(one_ahead(self._read(files, sizes))) as steps:
            for step in steps:
                rows = self._take(step)
                if self._part_rows is None and (
                    self._batch.rows >= BATCH_ROWS or len(self._batch.paths) >= BATCH_FILES
                ):
                    at = self._flush(at, on_progress)
                at = replace(at, files=step.files, rows=at.rows + rows, bytes_read=step.position)
                on_progress(at)
        self._flush(at, on_progress)

    def _read(self, files: Sequence[Path], sizes: Sequence[int]) -> Generator[_Step]:
        """Read files one after the other; one that cannot be read fails by itself."""
        for done, (path, begin) in enumerate(
            zip(files, accumulate(sizes, initial=0), strict=False)
        ):
            try:
                for part in self._fmt.parts(path, self._target.interval):
                    yield from self._read_part(part, begin, done)
                found = None
            except InputFileError as error:
                found = error
            yield _Step(str(path), found, begin + sizes[done], done + 1)

    def _read_part(self, part: Part, begin: int, done: int) -> Iterator[_Step]:
        position = begin
        found: InputFileError | None = None
        try:
            for raw in part.pieces():
                position = begin + raw.position
                yield _Step(part.name, judge_rows(raw, self._target), position, done)
        except InputFileError as error:
            found = error
        yield _Step(part.name, found, position, done)

    def _take(self, step: _Step) -> int:
        """Put what was read into the batch, and return how many rows it has more."""
        if isinstance(step.found, Piece):
            if self._part_rows is None:
                self._part_rows = 0
                self._batch.paths.append(storable(step.name))
            self._batch.add(step.found)
            self._part_rows += step.found.rows
            return step.found.rows
        rows, self._part_rows = self._part_rows, None
        if step.found is None:
            return 0
        self.failed.append(FailedFile(storable(step.name), storable(str(step.found))))
        if rows is None:
            return 0
        self._batch.drop_last(rows)
        return -rows

    def _flush(
        self, at: ImportProgress, on_progress: Callable[[ImportProgress], None]
    ) -> ImportProgress:
        """Store the batch, and begin a new one."""
        batch, self._batch = self._batch, Batch()
        begin, rows = at.bytes_stored, 0
        with closing(batch.commits(self._target)) as commits:
            for commit in commits:
                rows += self._commit(commit, batch.paths)
                share = rows / max(batch.rows, 1)
                at = replace(at, bytes_stored=begin + int((at.bytes_read - begin) * share))
                on_progress(at)
        return replace(at, bytes_stored=at.bytes_read)

    def _commit(self, commit: Commit, paths: Sequence[str]) -> int:
        """Store some bars, tell the ledger, and return how many rows there were."""
        recorded: dict[str, FileRecord] = {}
        last: WriteOutcome | None = None

        def record(outcome: WriteOutcome) -> None:
            nonlocal last, recorded
            if last is not None and _same(outcome, last):  # a retry that has nothing new to tell
                return
            records = commit.records(outcome, self._fmt.name)
            revisions = commit.revisions(outcome)
            self._target.ledger.record_files(self.id, records, revisions, commit.rejects)
            recorded = {paths[n]: file for n, file in zip(commit.files, records, strict=True)}
            last = outcome

        if len(commit.bars):
            bars = commit.bars.select(COLUMNS)
            self._target.store.write(self._target.interval, bars, before_commit=record)
        else:
            record(empty_outcome())
        onto = {file.path: path for path, file in recorded.items() if file.path != path}
        self._sealing = recorded
        self._target.ledger.seal_files(self.id, [file.path for file in recorded.values()], onto)
        self._note_sealed()
        self._count_rejects(commit.rejects, {file.path: path for path, file in recorded.items()})
        return sum(file.rows for file in recorded.values())

    def _note_sealed(self) -> None:
        """Add the files of the commit that was sealed."""
        sealed = {}
        for path, file in self._sealing.items():
            known = self._files.get(path)
            sealed[path] = file if known is None else known.plus(file)
        self._files |= sealed  # all at once, wherever an interrupt strikes
        self._sealing = {}

    def catch_up(self) -> None:
        """Add what an interrupt struck between the ledger and here: the ledger is right."""
        with suppress(LedgerError):
            (sealed,) = (done.rows for done in self._target.ledger.imports() if done.id == self.id)
            if self._sealing and sealed > sum(file.rows for file in self._files.values()):
                self._note_sealed()

    def _count_rejects(self, rejects: pl.DataFrame, paths: Mapping[str, str]) -> None:
        """Count rejects and keep examples; `paths` has the file's path for the ledger's."""
        for (reason,), rows in rejects.group_by("reason", maintain_order=True):
            room = EXAMPLES - min(self._reasons[reason], EXAMPLES)
            self._reasons[reason] += len(rows)
            self._examples += [
                RejectExample(paths[path], row, reason, raw)
                for path, row, raw in rows.head(room).select("path", "row", "raw").iter_rows()
            ]

    def summary(self) -> ImportSummary:
        """Return what became of all files that were flushed."""
        files = tuple(self._files.values())
        totals = {name: sum(getattr(file, name) for file in files) for name in COUNTS}
        return ImportSummary(
            **totals,
            files=files,
            failed=tuple(self.failed),
            rejects_by_reason=dict(self._reasons.most_common()),
            examples=tuple(self._examples),
        )


def _size_bytes(path: Path) -> int:
    """Return a file's size; 0 of one that is gone, of which its reader will have more to say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _same(one: WriteOutcome, other: WriteOutcome) -> bool:
    """Return whether two outcomes of one write are equal; a store never forgets a key."""
    return one.counts.equals(other.counts) and one.revisions.equals(other.revisions)
