"""Imports of any files in any batches do to a store what a plain dict says they should."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest import mock

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_coord import importing
from stream_coord.bars import FIELDS
from stream_coord.clock import FixedClock, from_micros, parse_moment
from stream_coord.importing import ImportTarget, batch, import_files
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources import csv
from stream_coord.sources.csv import CsvFormat
from stream_coord.stores.base import VersionedBars, WriteOutcome
from stream_coord.stores.ledger import FileRecord, open_ledger

if TYPE_CHECKING:
    from stream_coord.stores.base import BarStore

MIDNIGHT = parse_moment("2018-11-23T00:00:00Z")
CSV = CsvFormat(label="open", time_format="epoch-us")

NAMES = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")
Key = tuple[str, int]
Values = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """A line of a file, equal to itself alone; `values` of a bad one are None."""

    text: str
    key: Key
    values: Values | None


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Return a row of one of few keys (three symbols, two days) and few values, or a bad one."""
    symbol = draw(st.sampled_from("ABC"))
    start = MIDNIGHT + draw(st.sampled_from([-1, 0, 1, 2])) * MINUTE
    values = (2.0, 3.0, 1.0, draw(st.sampled_from([1.0, 2.0])), draw(st.sampled_from([0.0, 5.5])))
    numbers = [str(value) for value in values]
    bad = draw(st.sampled_from([""] * 8 + ["x", "nan", "-1", "4", "1,1", '"1']))
    if bad:
        numbers[2] = bad
    text = ",".join((symbol, str(start), *numbers))
    return Row(text, (symbol, start), None if bad else values)


files = st.lists(st.lists(rows(), max_size=8), min_size=1, max_size=5)


@dataclass
class Model:
    """A store and a ledger as plain as they can be."""

    bars: dict[Key, Values] = field(default_factory=dict)
    revisions: Counter[tuple[Key, Values, Values]] = field(default_factory=Counter)

    def add(self, together: Sequence[Sequence[Row]]) -> list[tuple[int, ...]]:
        """Add files at once; return what became of the rows of each, as `counts` has it."""
        last = {row.key: row for file in together for row in file if row.values is not None}
        before = dict(self.bars)
        return [self._add_file(file, last, before) for file in together]

    def _add_file(
        self, rows: Sequence[Row], last: dict[Key, Row], before: dict[Key, Values]
    ) -> tuple[int, ...]:
        found = Counter[str](dict.fromkeys(NAMES[1:], 0))
        for row in rows:
            old = before.get(row.key)
            if row.values is None:
                found["rejected"] += 1
            elif row is not last[row.key]:
                found["duplicates"] += 1
                found["superseded"] += row.values != last[row.key].values
            else:
                found["out_of_session"] += row.key[1] < MIDNIGHT
                fate = "stored" if old is None else "duplicates" if old == row.values else "revised"
                found[fate] += 1
                if old is not None and fate == "revised":
                    self.revisions[row.key, old, row.values] += 1
                self.bars[row.key] = row.values
        return len(rows), *(found[name] for name in NAMES[1:])


class FromMidnight:
    """Regular hours that begin at `MIDNIGHT`."""

    def in_regular(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.greater_equal(starts, MIDNIGHT)


class DictStore:
    """A bar store in a dict."""

    url = "dict:"

    def __init__(self) -> None:
        self.bars: dict[Key, Values] = {}

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None] | None = None,
    ) -> WriteOutcome:
        """Store rows one by one, and insist on the contract of a bar frame."""
        assert interval == Interval(MINUTE)
        keys = bars.select("symbol", "start").rows()
        assert keys == sorted(set(keys))
        counts: dict[tuple[str, date], list[int]] = {}
        revisions, fates = [], []
        for symbol, start, *values in bars.iter_rows():
            old = self.bars.get((symbol, start))
            fate = 0 if old is None else 1 if old == tuple(values) else 2
            day = counts.setdefault((symbol, from_micros(start).date()), [0, 0, 0])
            day[fate] += 1
            fates.append((symbol, start, *(fate == n for n in range(3))))
            if old is not None and fate == 2:
                revisions.append((symbol, start, *old, *values))
        outcome = WriteOutcome(
            pl.DataFrame(
                [(*key, *numbers) for key, numbers in counts.items()],
                schema=["symbol", "date", "stored", "duplicates", "revised"],
                orient="row",
            ),
            pl.DataFrame(
                revisions,
                schema={
                    "symbol": pl.String,
                    "start": pl.Int64,
                    **{f"old_{name}": pl.Float64 for name in FIELDS},
                    **dict.fromkeys(FIELDS, pl.Float64),
                },
                orient="row",
            ),
            pl.DataFrame(
                fates,
                schema={"symbol": pl.String, "start": pl.Int64}
                | dict.fromkeys(("stored", "duplicates", "revised"), pl.Boolean),
                orient="row",
            ),
        )
        if before_commit is not None:
            before_commit(outcome)
        self.bars |= {(symbol, start): tuple(v) for symbol, start, *v in bars.iter_rows()}
        return outcome

    def read(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> pl.DataFrame:
        raise NotImplementedError

    def read_versioned(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> VersionedBars:
        raise NotImplementedError

    def versions(
        self, interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        raise NotImplementedError

    def days(self, interval: Interval) -> list[date]:
        raise NotImplementedError

    def spans(self, interval: Interval) -> pl.DataFrame:
        raise NotImplementedError


def counts(record: FileRecord) -> tuple[int, ...]:
    return tuple(getattr(record, name) for name in NAMES)


def in_batches(files: list[list[Row]], most_files: int, most_rows: int) -> list[list[list[Row]]]:
    """Cut files into batches that end with the file that makes so many files, or rows."""
    batches: list[list[list[Row]]] = []
    for file in files:
        if batches and len(batches[-1]) < most_files and sum(map(len, batches[-1])) < most_rows:
            batches[-1].append(file)
        else:
            batches.append([file])
    return batches


@contextmanager
def batches(files: int, rows: int, memory: int) -> Iterator[None]:
    """Make batches smaller, and memory, so that a batch is several commits."""
    with (
        mock.patch.object(importing, "BATCH_FILES", files),
        mock.patch.object(importing, "BATCH_ROWS", rows),
        mock.patch.object(batch, "MEMORY_ROWS", memory),
        mock.patch.object(batch, "MEMORY_REJECTS", memory),
        mock.patch.object(csv, "BLOCK_BYTES", 20 * memory),
    ):
        yield


@given(
    files=files,
    batch_files=st.integers(1, 4),
    batch_rows=st.integers(1, 30),
    memory=st.integers(1, 20),
)
@settings(max_examples=15, deadline=None)
def test_imports_do_what_a_dict_does(
    files: list[list[Row]], batch_files: int, batch_rows: int, memory: int
) -> None:
    """File by file, in one import and in a second one of the same files, in any memory."""
    model, store = Model(), DictStore()
    with tempfile.TemporaryDirectory() as folder, batches(batch_files, batch_rows, memory):
        root = Path(folder)
        paths = [root / f"{n}.csv" for n in range(len(files))]
        header = "symbol,time,open,high,low,close,volume"
        for path, file in zip(paths, files, strict=True):
            path.write_text("\n".join([header, *(row.text for row in file)]))
        with open_ledger("sqlite:///ledger.db", root, create=True) as ledger:
            target = ImportTarget(
                cast("BarStore", store),
                ledger,
                FromMidnight(),
                Interval(MINUTE),
                FixedClock(MIDNIGHT + DAY),
            )
            for _ in range(2):
                expected = [
                    file
                    for together in in_batches(files, batch_files, batch_rows)
                    for file in model.add(together)
                ]
                summary = import_files(paths, CSV, target)
                assert [counts(file) for file in summary.files] == expected
                assert store.bars == model.bars
                (row,) = ledger.imports(1)
                totals = [sum(file[n] for file in expected) for n in range(len(NAMES))]
                assert [getattr(row, name) for name in NAMES] == totals
                assert (row.files, row.pending) == (len(files), 0)
                assert len(ledger.rejects(row.id)) == row.rejected
            revised = ledger.revisions().filter(pl.col("kind") == "revised")
            old = [f"old_{name}" for name in FIELDS]
            found = Counter(
                ((symbol, start), tuple(values[:5]), tuple(values[5:]))
                for symbol, start, *values in revised.select(
                    "symbol", "start", *old, *FIELDS
                ).rows()
            )
            assert found == model.revisions
