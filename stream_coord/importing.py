"""Importing files into a store: every row is stored, a duplicate, a revision or a reject.

Files are read one by one and stored in batches, so that many small files are few commits. Of the
rows of one key in a batch the last one wins, whichever file it is from; those before it count as
duplicates of their own files. The ledger hears of a file before the store commits it (pending) and
after (sealed), so that whatever happens in between is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from stream_coord.bars import COLUMNS
from stream_coord.clock import Clock
from stream_coord.compute.validate import collapse, validate
from stream_coord.errors import InputFileError, LedgerError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.sources.base import FileFormat, Part, RawBars, find_files
from stream_coord.stores.base import BarStore, WriteOutcome
from stream_coord.stores.ledger import FileRecord, Ledger, Outcome
from stream_coord.stores.ledger.schema import COUNTS, storable
from stream_coord.stores.merge import FATES, KEY, empty_outcome, start_date

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

BATCH_ROWS = 2_000_000
BATCH_FILES = 2_000
EXAMPLES = 2
"""How many rejects of each reason a summary shows."""


class RegularHours(Protocol):
    """Something that knows the regular hours, such as a `stream_coord.calendars.Calendar`."""

    def in_regular(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which starts (UTC microseconds) are inside regular hours."""
        ...


@dataclass(frozen=True)
class ImportTarget:
    """Where bars go, and what they are measured by.

    Attributes:
        store: Takes the bars.
        ledger: Takes what became of every row.
        calendar: Tells which bars are out of session.
        interval: The bars' interval.
        clock: Dates the import.
        allow_nonpositive: The symbols whose prices may be zero or negative.
    """

    store: BarStore
    ledger: Ledger
    calendar: RegularHours
    interval: Interval
    clock: Clock
    allow_nonpositive: Collection[str] = ()


@dataclass(frozen=True)
class ImportProgress:
    """How far an import has come.

    Attributes:
        files: Files read.
        total_files: Files in all.
        rows: Rows read.
    """

    files: int
    total_files: int
    rows: int


@dataclass(frozen=True)
class FailedFile:
    """A file that could not be imported at all, and why."""

    path: str
    message: str


@dataclass(frozen=True)
class RejectExample:
    """A rejected row; `raw` is its text, cut if it is long."""

    path: str
    row: int
    reason: str
    raw: str


@dataclass(frozen=True)
class ImportSummary:
    """What became of every row: ``rows = stored + duplicates + revised + rejected``.

    Attributes:
        rows: Rows in all files that could be read.
        stored: Rows with a new key.
        duplicates: Rows equal to a stored bar, or followed by one of the same key in their batch.
        superseded: Those of the duplicates whose values differ from what follows.
        revised: Rows that replaced other values of a stored key.
        rejected: Rows that are no bars.
        out_of_session: Bars (one a key and batch) outside the calendar's regular hours.
        files: The same for each file; the members of an archive count as files.
        failed: Files that could not be read; nothing of them was imported.
        rejects_by_reason: Numbers of rejects, most first.
        examples: The first few rejects of each reason.
    """

    rows: int
    stored: int
    duplicates: int
    superseded: int
    revised: int
    rejected: int
    out_of_session: int
    files: tuple[FileRecord, ...]
    failed: tuple[FailedFile, ...]
    rejects_by_reason: dict[str, int]
    examples: tuple[RejectExample, ...]


def import_files(
    paths: Iterable[Path],
    fmt: FileFormat,
    target: ImportTarget,
    *,
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportSummary:
    """Import files and folders of one format.

    A file that cannot be read fails alone: the others are imported, and the summary names it. On
    an interrupt, the files committed so far stay, whole, and nothing of any other.

    Rows of one key collapse, the last one wins, within a batch of `BATCH_FILES` files or
    `BATCH_ROWS` rows (a larger file is a batch by itself). In a larger import, a row of a key that
    an earlier batch stored with other values is a revision, as if it came in an import of its own.

    Args:
        paths: Files; or folders, of which all files of the format are taken.
        fmt: How to read them.
        target: Where their bars go.
        on_progress: Called after every file.

    Raises:
        UsageError: a path does not exist, or what `fmt` states does not fit a file.
        StoreError: the store cannot be read or written.
        LedgerError: the ledger cannot be written.
    """
    files = find_files(paths, fmt)
    with _journal(fmt, target) as job:
        for done, path in enumerate(files, 1):
            job.add_file(path)
            if on_progress is not None:
                on_progress(ImportProgress(done, len(files), job.rows))
        job.flush()
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
        raise
    ledger.finish_import(job.id, now(), "failed" if job.failed else "done")


@dataclass(frozen=True)
class _Waiting:
    """A part that was read and waits for its batch to be full; `path` is its name, storable."""

    path: str
    raw: RawBars


class _Job:
    """A running import: parts wait in a batch until they are stored together."""

    def __init__(self, fmt: FileFormat, target: ImportTarget, import_id: int) -> None:
        self.id = import_id
        self.rows = 0
        self.failed: list[FailedFile] = []
        self._fmt = fmt
        self._target = target
        self._batch: list[_Waiting] = []
        self._batch_rows = 0
        self._files: list[FileRecord] = []
        self._reasons: Counter[str] = Counter()
        self._examples: list[RejectExample] = []

    def add_file(self, path: Path) -> None:
        """Read a file into the batch; one that cannot be read fails by itself."""
        try:
            for part in self._fmt.parts(path, self._target.interval):
                self._add_part(part)
        except InputFileError as error:
            self._fail(str(path), error)

    def _add_part(self, part: Part) -> None:
        try:
            raw = part.read()
        except InputFileError as error:
            self._fail(part.name, error)
            return
        rows = len(raw.frame)
        if self._batch_rows + rows > BATCH_ROWS or len(self._batch) >= BATCH_FILES:
            self.flush()
        self._batch.append(_Waiting(storable(part.name), raw))
        self._batch_rows += rows
        self.rows += rows

    def _fail(self, name: str, error: InputFileError) -> None:
        self.failed.append(FailedFile(storable(name), storable(str(error))))

    def flush(self) -> None:
        """Store the batch in one commit, and begin a new one."""
        if not self._batch:
            return
        judged = _judge(self._batch, self._target)
        recorded: list[FileRecord] = []
        last: WriteOutcome | None = None

        def record(outcome: WriteOutcome) -> None:
            nonlocal last
            if last is not None and _same(outcome, last):  # a retry that has nothing new to tell
                return
            recorded[:] = judged.records(outcome, self._fmt.name)
            revisions = judged.revisions(outcome)
            self._target.ledger.record_files(self.id, recorded, revisions, judged.rejects)
            last = outcome

        if len(judged.bars):
            bars = judged.bars.select(COLUMNS)
            self._target.store.write(self._target.interval, bars, before_commit=record)
        else:
            record(empty_outcome())
        self._target.ledger.seal_files(self.id, [file.path for file in recorded])
        self._files += recorded
        self._count_rejects(judged.rejects)
        self._batch, self._batch_rows = [], 0

    def _count_rejects(self, rejects: pl.DataFrame) -> None:
        for (reason,), rows in rejects.group_by("reason", maintain_order=True):
            room = EXAMPLES - min(self._reasons[reason], EXAMPLES)
            self._reasons[reason] += len(rows)
            self._examples += [
                RejectExample(path, row, reason, raw)
                for path, row, raw in rows.head(room).select("path", "row", "raw").iter_rows()
            ]

    def summary(self) -> ImportSummary:
        """Return what became of all files that were flushed."""
        totals = {name: sum(getattr(file, name) for file in self._files) for name in COUNTS}
        return ImportSummary(
            **totals,
            files=tuple(self._files),
            failed=tuple(self.failed),
            rejects_by_reason=dict(self._reasons.most_common()),
            examples=tuple(self._examples),
        )


def _same(one: WriteOutcome, other: WriteOutcome) -> bool:
    """Return whether two outcomes of one write are equal; a store never forgets a key."""
    return one.counts.equals(other.counts) and one.revisions.equals(other.revisions)


@dataclass(frozen=True)
class _Judged:
    """A batch, judged and collapsed.

    Attributes:
        paths: The files' paths; ``file`` in the frames is a position in it.
        bars: A bar frame, and ``file``.
        owners: Which ``file`` has the bars of a ``symbol`` and UTC ``date``, where it is only one:
            the store's counts are enough for these.
        shared: All other bars' ``symbol``, ``start`` and ``file``.
        superseded: As in `Collapsed`, and ``file``.
        rejects: As the ledger wants them.
        tallies: Of each count in a `FileRecord` that is known before the store has seen the bars,
            one number per file (int64).
    """

    paths: pl.Series
    bars: pl.DataFrame
    owners: pl.DataFrame
    shared: pl.DataFrame
    superseded: pl.DataFrame
    rejects: pl.DataFrame
    tallies: dict[str, NDArray[np.int64]]

    def records(self, outcome: WriteOutcome, format_name: str) -> list[FileRecord]:
        """Return what became of every file's rows."""
        counts = outcome.counts.join(self.owners, on=("symbol", "date"))
        fates = self.shared.join(outcome.fates, on=KEY)
        tallies = dict(self.tallies)
        for frame, fate in product((counts, fates), FATES):
            tallies[fate] = tallies.get(fate, 0) + _per_file(frame, len(self.paths), fate)
        missing = tallies["rows"] - sum(tallies[fate] for fate in (*FATES, "rejected"))
        if missing.any():
            raise StreamCoordError(
                f"internal error: {missing[missing != 0][0]} rows of "
                f"{self.paths.filter(missing != 0)[0]} are not accounted for",
                "Nothing of it was imported. Please report this.",
            )
        return [
            FileRecord(path, format_name, **{name: int(t[n]) for name, t in tallies.items()})
            for n, path in enumerate(self.paths)
        ]

    def revisions(self, outcome: WriteOutcome) -> pl.DataFrame:
        """Return the superseded and the revised rows, as the ledger wants them."""
        import polars as pl

        revised = outcome.revisions.join(self.bars.select(*KEY, "file"), on=KEY)
        both = pl.concat(
            [
                self.superseded.with_columns(kind=pl.lit("superseded")),
                revised.with_columns(kind=pl.lit("revised")),
            ],
            how="diagonal",
        )
        return both.with_columns(path=self.paths.gather(both["file"])).drop("file")


def _judge(batch: Sequence[_Waiting], target: ImportTarget) -> _Judged:
    import polars as pl

    raw = pl.concat(
        waiting.raw.frame.with_columns(pl.lit(n, pl.UInt32).alias("file"))
        for n, waiting in enumerate(batch)
    )
    judged = validate(raw, target.interval, target.allow_nonpositive)
    collapsed = collapse(judged.good, target.interval)
    bars, rejects = collapsed.bars, judged.rejects
    regular = target.calendar.in_regular(bars["start"].to_numpy())
    frames = {
        "rows": raw,
        "duplicates": judged.good,
        "superseded": collapsed.superseded,
        "rejected": rejects,
        "out_of_session": bars.filter(~pl.Series(regular)),
    }
    tallies = {name: _per_file(frame, len(batch)) for name, frame in frames.items()}
    tallies["duplicates"] -= _per_file(bars, len(batch))
    texts = [
        text
        for (n,), rows in rejects.group_by("file", maintain_order=True)
        for text in batch[n].raw.raw(rows["row"].to_list())
    ]
    dated = bars.select(*KEY, "file", start_date().alias("date"))
    days = dated.select("symbol", "date", "file").unique()
    owners = days.unique(("symbol", "date"), keep="none")
    paths = pl.Series([waiting.path for waiting in batch])
    known = {"path": paths.gather(rejects["file"]), "raw": pl.Series(texts, dtype=pl.String)}
    return _Judged(
        paths=paths,
        bars=bars,
        owners=owners,
        shared=dated.join(owners, on=("symbol", "date"), how="anti").select(*KEY, "file"),
        superseded=collapsed.superseded,
        rejects=rejects.with_columns(**known).drop("file"),
        tallies=tallies,
    )


def _per_file(frame: pl.DataFrame, files: int, column: str | None = None) -> NDArray[np.int64]:
    """Return how many rows each file has, or what their `column` adds up to."""
    import numpy as np

    weights = None if column is None else frame[column].to_numpy()
    sums = np.bincount(frame["file"].to_numpy(), weights, files)
    return sums.astype(np.int64)
