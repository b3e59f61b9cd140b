"""The ledger's page on splits: which ones are known, from which file, and what they replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from math import inf
from typing import TYPE_CHECKING, Literal

from stream_coord.compute.splits import Split
from stream_coord.stores.ledger.base import LedgerBase, Outcome, execute_many, insert_row
from stream_coord.stores.ledger.imports import FileRecord
from stream_coord.stores.ledger.schema import tables

if TYPE_CHECKING:
    import sqlalchemy as sa

INTERVAL = "splits"
"""What the ledger has in place of an interval for an import of splits."""
FORMAT = "actions"

_SLICE = 20_000  # databases bound the values of one statement

Fate = Literal["stored", "duplicates", "revised"]
Key = tuple[str, date]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is no split; `symbol` and `raw` are its text, `row` is its line's number."""

    row: int
    symbol: str | None
    reason: str
    raw: str


@dataclass(frozen=True)
class SplitFile:
    """Every row of a file of splits: in file order the splits, and the rejects."""

    path: str
    splits: Sequence[Split]
    rejects: Sequence[RejectedRow]


@dataclass(frozen=True, slots=True)
class SplitChange:
    """A split that an import brought.

    Attributes:
        split: The split.
        old_ratio: What the ledger had for its symbol and day; None where it had nothing.
    """

    split: Split
    old_ratio: float | None

    @property
    def fate(self) -> Fate:
        """What became of it, by the name of its count in a `FileRecord`."""
        if self.old_ratio is None:
            return "stored"
        return "duplicates" if self.old_ratio == self.split.ratio else "revised"


@dataclass(frozen=True)
class SplitImport:
    """What became of every row: the counts of each file, and the splits by symbol and day."""

    files: list[FileRecord]
    changes: list[SplitChange]


class SplitLedger(LedgerBase):
    """Which splits are known."""

    def import_splits(
        self,
        files: Sequence[SplitFile],
        *,
        started: int,
        finished: int,
        status: Outcome,
        settings: str,
    ) -> SplitImport:
        """Record an import of splits as a whole, in one transaction.

        Of the rows of one symbol and day the last one wins, whichever file it is from; those
        before it count as duplicates of their own files. Its ratio replaces what was known, and
        the old one is kept.

        Args:
            files: The files, in order, each path once.
            started: When the import began, UTC microseconds.
            finished: When it ended, UTC microseconds.
            status: How it ended; ``failed`` if there were files that could not be read.
            settings: How the files were read.
        """
        last = {_key(split): (n, split) for n, file in enumerate(files) for split in file.splits}
        job = {"started": started, "finished": finished, "status": status, "settings": settings}
        t = tables()
        with self._writing() as connection:
            import_id = insert_row(connection, t.imports, {**job, "interval": INTERVAL})
            old = {_key(split): split.ratio for split in _known(connection, {s for s, _ in last})}
            own: list[dict[Key, SplitChange]] = [{} for _ in files]
            for key, (number, split) in last.items():
                own[number][key] = SplitChange(split, old.get(key))
            every = {key: change for changes in own for key, change in changes.items()}
            records = [_record(*pair, every) for pair in zip(files, own, strict=True)]
            for file, record, changes in zip(files, records, own, strict=True):
                row = {**asdict(record), "import_id": import_id, "sealed": True}
                file_id = insert_row(connection, t.import_files, row)
                _add_rejects(connection, file_id, file.rejects)
                _add_changes(connection, file_id, list(changes.values()))
        return SplitImport(records, [every[key] for key in sorted(every)])

    def splits(self, symbols: Iterable[str] | None = None) -> list[Split]:
        """Return the known splits, by symbol and day.

        Args:
            symbols: Of these symbols only; None for all.
        """
        with self._reading() as connection:
            return _known(connection, symbols)


def _key(split: Split) -> Key:
    return split.symbol, split.day


def _known(connection: sa.Connection, symbols: Iterable[str] | None) -> list[Split]:
    import sqlalchemy as sa

    table = tables().splits
    every = sa.select(table.c.symbol, table.c.day, table.c.ratio).order_by(
        table.c.symbol, table.c.day
    )
    statements = [every]
    if symbols is not None:
        names = sorted(set(symbols))
        parts = (names[at : at + _SLICE] for at in range(0, len(names), _SLICE))
        statements = [every.where(table.c.symbol.in_(part)) for part in parts]
    return [_split(*row) for each in statements for row in connection.execute(each)]


def _split(symbol: str, day: str, ratio: float) -> Split:
    """Return a stored split; SQLite lets any value be in any column.

    Raises:
        ValueError: no writer of ours has stored it.
    """
    split = Split(symbol, date.fromisoformat(str(day)), float(ratio))
    if not 0 < split.ratio < inf:
        raise ValueError(f"no ratio: {ratio}")
    return split


def _record(
    file: SplitFile, own: Mapping[Key, SplitChange], every: Mapping[Key, SplitChange]
) -> FileRecord:
    """Return what became of a file's rows: `own` of them won, `every` one of all files."""
    fates = Counter(change.fate for change in own.values())
    return FileRecord(
        file.path,
        FORMAT,
        rows=len(file.splits) + len(file.rejects),
        stored=fates["stored"],
        duplicates=len(file.splits) - fates["stored"] - fates["revised"],
        superseded=sum(split.ratio != every[_key(split)].split.ratio for split in file.splits),
        revised=fates["revised"],
        rejected=len(file.rejects),
        out_of_session=0,
    )


def _add_rejects(connection: sa.Connection, file_id: int, rejects: Sequence[RejectedRow]) -> None:
    rows = [{**asdict(reject), "start": None, "file_id": file_id} for reject in rejects]
    execute_many(connection, tables().rejects.insert(), rows)


def _add_changes(connection: sa.Connection, file_id: int, changes: Sequence[SplitChange]) -> None:
    """Write down what is new, and the old ratio of what is revised."""
    import sqlalchemy as sa

    splits, revisions = tables().splits, tables().split_revisions
    gone = splits.delete().where(
        splits.c.symbol == sa.bindparam("of"), splits.c.day == sa.bindparam("at")
    )
    rows = {
        change: {
            "symbol": change.split.symbol,
            "day": change.split.day.isoformat(),
            "ratio": change.split.ratio,
            "file_id": file_id,
        }
        for change in changes
        if change.fate != "duplicates"
    }
    revised = {change: row for change, row in rows.items() if change.fate == "revised"}
    execute_many(connection, gone, [{"of": r["symbol"], "at": r["day"]} for r in revised.values()])
    execute_many(connection, splits.insert(), list(rows.values()))
    old = [{**row, "old_ratio": change.old_ratio} for change, row in revised.items()]
    execute_many(connection, revisions.insert(), old)
