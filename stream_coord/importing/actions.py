"""Importing splits: every row of a file is stored, a duplicate, a revision or a reject.

Files of splits are small: all are read first, and then the ledger takes them in one transaction.
So an import that is stopped anywhere has changed everything it was to change, or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import msgspec

from stream_coord.bars import Symbol
from stream_coord.clock import Clock, parse_date
from stream_coord.compute.splits import Split
from stream_coord.errors import InputFileError, UsageError, near_miss
from stream_coord.importing import EXAMPLES
from stream_coord.importing.results import FailedFile, ImportSummary, RejectExample
from stream_coord.sources.archives import Member, members
from stream_coord.sources.base import find_files
from stream_coord.sources.csv import CsvFormat
from stream_coord.sources.lines import line_texts, split_line, whole_lines
from stream_coord.stores.ledger import Ledger
from stream_coord.stores.ledger.schema import COUNTS, storable
from stream_coord.stores.ledger.splits import FORMAT, RejectedRow, SplitChange, SplitFile

FIELDS = ("date", "symbol", "ratio")
SMALLEST, LARGEST = 1e-6, 1e6
"""Ratios that a split may have; one beyond is a slip that would leave no price a price."""
_BLANK = b" \t\v\f"


@dataclass(frozen=True, kw_only=True)
class ActionFormat:
    """How to read files of splits: CSV with a header, plain, gzipped or in zip archives.

    Attributes:
        delimiter: What separates the fields, one ASCII character.
        columns: By field (date, symbol, ratio) the header of its column; a field that is left out
            is its own header. Capitals do not matter, and other columns are ignored.

    Raises:
        UsageError: one of them is impossible.
    """

    delimiter: str = ","
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.find([])  # checks the delimiter, as for bars
        for name in self.columns:
            if name not in FIELDS:
                raise UsageError(
                    f"{name!r} is no field of a split{near_miss(name, FIELDS)}",
                    f"The fields are {', '.join(FIELDS)}.",
                )

    def find(self, paths: Iterable[Path]) -> list[Path]:
        """Return the files that `paths` stand for, as `find_files` does for CSV files of bars."""
        fmt = CsvFormat(label="open", delimiter=self.delimiter)
        try:
            return find_files(paths, fmt)
        except UsageError as error:
            error.hint = "Name CSV files of splits, or folders that hold some."
            raise

    def read(self, path: Path) -> list[SplitFile]:
        """Read the file, or every member of a zip archive.

        Raises:
            InputFileError: it cannot be read, or is no such file.
        """
        return [self._read(member) for member in members(path)]

    def _read(self, member: Member) -> SplitFile:
        lines = _lines(member)
        _, header = next(lines, (0, b""))
        headers = self._headers(header, member.name)
        places = self._places(headers, member.name)
        splits: list[Split] = []
        rejects: list[RejectedRow] = []
        for row, line in lines:
            found = self._judge(row, line, len(headers), places)
            if isinstance(found, Split):
                splits.append(found)
            else:
                rejects.append(found)
        return SplitFile(storable(member.name), splits, rejects)

    def _judge(
        self, row: int, line: bytes, width: int, places: Sequence[int]
    ) -> Split | RejectedRow:
        cells = split_line(line, self.delimiter)
        (raw,) = line_texts(line, [1])
        if isinstance(cells, str):
            return RejectedRow(row, None, cells, raw)
        if len(cells) != width:
            return RejectedRow(row, None, f"bad-line: not {width} fields", raw)
        day, symbol, ratio = (cells[place].strip(" \t") for place in places)
        found = judge_split(day, symbol, ratio)
        return found if isinstance(found, Split) else RejectedRow(row, symbol, found, raw)

    def _headers(self, line: bytes, name: str) -> list[str]:
        if not line:
            raise InputFileError(f"{name} is empty")
        headers = split_line(line, self.delimiter)
        if isinstance(headers, str):
            reason = headers.removeprefix("bad-line: ")
            raise InputFileError(f"{name} is not a CSV file (in its first line: {reason})")
        return [header.strip(" \t") for header in headers]

    def _places(self, headers: Sequence[str], name: str) -> list[int]:
        """Return the position of each field's column."""
        known = [header.casefold() for header in headers]
        wanted = {field: self.columns.get(field, field) for field in FIELDS}
        there = f"Its columns: {', '.join(header[:40] for header in headers[:40])}."
        for field_, header in wanted.items():
            if header.casefold() not in known:
                raise InputFileError(
                    f"{name} has no column {header!r}{near_miss(header, headers)}",
                    f"{there} State --column {field_}=HEADER, or another --delimiter.",
                )
            if known.count(header.casefold()) > 1:
                raise InputFileError(f"{name} has the column {header!r} more than once", there)
        return [known.index(header.casefold()) for header in wanted.values()]


@dataclass(frozen=True)
class ActionSummary(ImportSummary):
    """What became of every row, and of every split.

    Attributes:
        splits: The splits that won, by symbol and day, and what was known before.
    """

    splits: tuple[SplitChange, ...]


def import_actions(
    paths: Iterable[Path], fmt: ActionFormat, ledger: Ledger, clock: Clock
) -> ActionSummary:
    """Import files of splits into the ledger; importing them again changes nothing.

    Of the rows of one symbol and day the last one wins, whichever file it is from. A file that
    cannot be read fails alone: the others are imported, and the summary names it.

    Args:
        paths: Files; or folders, of which all CSV files are taken.
        fmt: How to read them.
        ledger: Takes the splits, and what became of every row.
        clock: Dates the import.

    Raises:
        UsageError: a path does not exist.
        LedgerError: the ledger cannot be written.
    """
    started = clock.now()
    files, failed = _read_all(fmt, fmt.find(paths))
    stated = {"format": FORMAT, **msgspec.to_builtins(fmt)}
    done = ledger.import_splits(
        files,
        started=started,
        finished=clock.now(),
        status="failed" if failed else "done",
        settings=msgspec.json.encode(stated).decode(),
    )
    reasons = Counter(reject.reason for file in files for reject in file.rejects)
    return ActionSummary(
        **{name: sum(getattr(file, name) for file in done.files) for name in COUNTS},
        files=tuple(done.files),
        failed=tuple(failed),
        rejects_by_reason=dict(reasons.most_common()),
        examples=tuple(_examples(files)),
        splits=tuple(done.changes),
    )


def _read_all(fmt: ActionFormat, paths: Sequence[Path]) -> tuple[list[SplitFile], list[FailedFile]]:
    files: list[SplitFile] = []
    failed: list[FailedFile] = []
    for path in paths:
        try:
            files += fmt.read(path)
        except InputFileError as error:
            failed.append(FailedFile(storable(str(path)), storable(str(error))))
    return list(_told_apart(files)), failed


def _told_apart(files: Iterable[SplitFile]) -> Iterator[SplitFile]:
    """Number the files whose paths are the same, as those of odd names may be once storable."""
    seen: Counter[str] = Counter()
    for file in files:
        seen[file.path] += 1
        again = seen[file.path] > 1
        yield replace(file, path=f"{file.path}//{seen[file.path]}") if again else file


def _examples(files: Iterable[SplitFile]) -> Iterator[RejectExample]:
    """Yield the first few rejects of each reason."""
    seen: Counter[str] = Counter()
    for file in files:
        for reject in file.rejects:
            seen[reject.reason] += 1
            if seen[reject.reason] <= EXAMPLES:
                yield RejectExample(file.path, reject.row, reject.reason, reject.raw)


def _lines(member: Member) -> Iterator[tuple[int, bytes]]:
    """Return the lines that are not blank, with their numbers from 1."""
    blocks = whole_lines(member.chunks(), member.name)
    lines = (line for block in blocks for line in block.removesuffix(b"\n").split(b"\n"))
    return ((row, line) for row, line in enumerate(lines, 1) if line.strip(_BLANK))


def judge_split(day: str, symbol: str, ratio: str) -> Split | str:
    """Return a row's split, or why it is none; the word before the colon is stable.

    >>> judge_split("2014-06-09", "AAPL", "7:1")
    Split(symbol='AAPL', day=datetime.date(2014, 6, 9), ratio=7.0)
    >>> judge_split("2014-06-09", "AAPL", "1")
    'no-split: ratio is 1'
    """
    try:
        date = parse_date(day)
    except UsageError:
        return "unparsable: date"
    if not 1970 <= date.year <= 2099:
        return "out-of-range: the date is not within 1970 to 2099"
    try:
        Symbol.parse(symbol)
    except UsageError:
        return "bad-symbol: not a symbol"
    value = _ratio(ratio)
    return value if isinstance(value, str) else Split(symbol, date, value)


def _ratio(text: str) -> float | str:
    """Return new shares for one old one (``7``, ``7:1``, ``7/1``), or why the text says none."""
    before, colon, after = text.replace("/", ":").partition(":")
    try:
        new, old = _number(before), _number(after) if colon else 1.0
    except ValueError:
        return "unparsable: ratio"
    if not (isfinite(new) and isfinite(old)):
        return "not-finite: ratio"
    if new <= 0 or old <= 0:
        return "nonpositive-ratio: ratio <= 0"
    ratio = new / old
    if not SMALLEST <= ratio <= LARGEST:
        return "out-of-range: the ratio is not within 1e-6 to 1e6"
    return ratio if ratio != 1 else "no-split: ratio is 1"


def _number(text: str) -> float:
    """Read a number as it is written in files of bars, too."""
    if "_" in text or not text.isascii():  # which Python's own numbers may have
        raise ValueError
    return float(text)
