"""What an import needs, and what it tells."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stream_coord.clock import Clock
from stream_coord.interval import Interval
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import FileRecord, Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        bytes_read: Bytes of the files, packed as they are, that have been read.
        bytes_stored: Those whose rows have been stored.
        total_bytes: Bytes of all files.
    """

    files: int
    total_files: int
    rows: int
    bytes_read: int
    bytes_stored: int
    total_bytes: int


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


class ImportInterruptedError(KeyboardInterrupt):
    """The import was interrupted; `kept` tells what of it is stored."""

    def __init__(self, kept: ImportSummary) -> None:
        super().__init__()
        self.kept = kept
