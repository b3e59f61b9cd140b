"""Sample bars with planted faults, and a truth file that lists every one of them.

They are those of a made-up market (see `demo.market`) in the 15 NYSE sessions from 2018-11-02 to
2018-11-23: clocks change on 11-04, 11-22 is Thanksgiving and 11-23 closes early. The files are
such as a vendor sends: one of bars for each session, and one of corrections. What is wrong with
them (see `demo.faults`), and what it gives to import first the bars and then the corrections, is
in ``truth.json`` (see `Truth`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

import msgspec

from stream_coord.calendars import Calendar
from stream_coord.clock import format_moment
from stream_coord.demo.faults import HEADER, Plan, Run, first_version, plan_faults
from stream_coord.demo.market import (
    MOST_SYMBOLS,
    TIME_ZONE,
    Cell,
    Draws,
    Market,
    make_market,
    outside_lines,
)
from stream_coord.errors import StreamCoordError, UsageError

FIRST_SESSION, LAST_SESSION = date(2018, 11, 2), date(2018, 11, 23)
SESSIONS = 15
FEWEST_SYMBOLS = 10
BARS, CORRECTIONS, TRUTH = "bars", "corrections", "truth.json"


@dataclass(frozen=True)
class DemoFiles:
    """What was written.

    Attributes:
        bars: The folder of the sessions' files, to be imported first.
        corrections: The folder of what came later.
        truth: The truth file.
    """

    bars: Path
    corrections: Path
    truth: Path


class Planted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault; what does not apply is left out.

    Attributes:
        kind: Of a gap why: a ``minute`` or ``run`` inside the session, at its ``open`` or
            ``close``, the whole ``session``, ``not-listed`` yet, or ``rejected`` for a bad row.
            Of late rows ``late``, or ``repaired`` where there was a bad row before.
        symbol: The symbol.
        session: The session's date.
        start: Start of the first minute, UTC.
        start_micros: The same in microseconds since the epoch.
        minutes: How many minutes it is.
        file: Where its rows are.
        rows: Their line numbers; the header is line 1. Of duplicates and superseded rows in the
            bars the one that gives way and the one that stays.
        reason: The word that the reject's reason begins with.
        line: The line that is no bar.
        old: Open, high, low, close, volume of the row that gives way.
        new: The same of the one that stays.
    """

    kind: str = ""
    symbol: str
    session: str
    start: str
    start_micros: int
    minutes: int
    file: str = ""
    rows: tuple[int, ...] = ()
    reason: str = ""
    line: str = ""
    old: tuple[float, ...] = ()
    new: tuple[float, ...] = ()


class Counts(msgspec.Struct, kw_only=True):
    """What it gives to import a file: ``rows = stored + duplicates + revised + rejected``.

    `superseded` are the duplicates that had other values than the row that stays, and
    `out_of_session` the stored rows that are outside regular hours.
    """

    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    superseded: int = 0
    revised: int = 0
    rejected: int = 0
    out_of_session: int = 0

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """Return the sums."""
        total = Counter[str]()
        for part in parts:
            total.update(msgspec.structs.asdict(part))
        return cls(**total)


class SymbolSession(msgspec.Struct, frozen=True, kw_only=True):
    """The regular minutes of a symbol in a session: ``expected = present + missing``.

    They are counted after both imports; `late` are those of the present that came with the
    corrections.
    """

    symbol: str
    session: str
    expected: int
    present: int
    missing: int
    late: int


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to know of the sample bars.

    Attributes:
        seed: What they were made from.
        time_zone: The zone of the files' times.
        label: What a time is of its bar.
        interval: The bars' interval.
        symbols: The symbols.
        imports: What it gives to import a folder, in the order in which that is to be done.
        files: The same by file.
        symbol_sessions: Every symbol in every session.
        gaps: What is missing in the end; each is a maximal run within its session.
        late: What only the bars lack, because it comes with the corrections; likewise maximal runs.
        duplicates: Rows that are there twice; in the corrections, rows equal to the stored bar.
        superseded: Rows that a later one in the same file replaces.
        revisions: Bars that the corrections change.
        rejects: Rows that are no bars.
    """

    seed: int
    time_zone: str
    label: str
    interval: str
    symbols: tuple[str, ...]
    imports: dict[str, Counts]
    files: dict[str, Counts]
    symbol_sessions: list[SymbolSession]
    gaps: list[Planted]
    late: list[Planted]
    duplicates: list[Planted]
    superseded: list[Planted]
    revisions: list[Planted]
    rejects: list[Planted]


def write_demo(
    folder: Path, calendar: Calendar, *, seed: int = 2018, symbols: int = 20
) -> DemoFiles:
    """Write sample bars and their truth file.

    The files are CSV with the columns of `HEADER`; a time is local to `TIME_ZONE`, without offset,
    and labels its bar's open. Files of the same names are replaced.

    Args:
        folder: Made where it does not exist.
        calendar: That of the NYSE.
        seed: The same seed gives the same bytes; not negative.
        symbols: How many, from `FEWEST_SYMBOLS` to `MOST_SYMBOLS`.

    Raises:
        UsageError: a number out of its range, or another calendar.
        StreamCoordError: the folder cannot be written.
    """
    if not FEWEST_SYMBOLS <= symbols <= MOST_SYMBOLS or seed < 0:
        raise UsageError(
            f"no sample bars can be made of {symbols} symbols with seed {seed}",
            f"Allowed: {FEWEST_SYMBOLS} to {MOST_SYMBOLS} symbols, and a seed of 0 or more.",
        )
    sessions = calendar.sessions(FIRST_SESSION, LAST_SESSION)
    if calendar.name != "NYSE" or len(sessions) != SESSIONS:
        raise UsageError(
            f"{calendar.name} has {len(sessions)} sessions from {FIRST_SESSION} to {LAST_SESSION}",
            f"Sample bars are of the {SESSIONS} that NYSE has; use that calendar, not overridden.",
        )
    draws = Draws(seed)
    market = make_market(draws, sessions, symbols)
    plan = plan_faults(draws, market)
    bars = [_bar_file(draws, market, plan, number) for number in range(len(market.sessions))]
    corrections = _correction_file(plan)
    truth = _Teller(market, plan, bars, corrections).truth(seed)
    for file in (*bars, corrections):
        _write(folder / file.name, "\n".join((*file.lines, "")).encode())
    _write(folder / TRUTH, msgspec.json.format(msgspec.json.encode(truth), indent=1) + b"\n")
    return DemoFiles(folder / BARS, folder / CORRECTIONS, folder / TRUTH)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise StreamCoordError(f"{path} cannot be written: {error.strerror or error}") from error


@dataclass
class _File:
    """A file in the making.

    Attributes:
        name: Its path in the folder.
        lines: Its lines.
        rows: The line numbers of bars that the truth file may speak of.
        outside: How many of the lines are bars outside regular hours.
    """

    name: str
    lines: list[str] = field(default_factory=lambda: [",".join(HEADER)])
    rows: dict[Cell, tuple[int, ...]] = field(default_factory=dict)
    outside: int = 0

    def add(self, cell: Cell, line: str) -> None:
        self.lines.append(line)
        self.rows[cell] = (*self.rows.get(cell, ()), len(self.lines))


def _bar_file(draws: Draws, market: Market, plan: Plan, number: int) -> _File:
    """Return a session's file: by time, then what the vendor noticed at the end of the day."""
    file = _File(f"{BARS}/{market.sessions[number].date}.csv")
    minutes = range(*market.edges[number : number + 2])
    before, after = outside_lines(draws, market, number)
    file.outside = len(before + after)
    file.lines += before
    for cell in ((symbol, minute) for minute in minutes for symbol in range(len(market.symbols))):
        line = plan.lines.get(cell)
        if line is None:
            file.lines.append(market.line(cell))
        elif line:
            file.add(cell, line)
    file.lines += after
    for cell in plan.appended:
        if cell[1] in minutes:
            file.add(cell, market.line(cell))
    return file


def _correction_file(plan: Plan) -> _File:
    """Return the file of the Monday after the last session, by time."""
    file = _File(f"{CORRECTIONS}/2018-11-26.csv")
    for cell in sorted(plan.corrections, key=lambda cell: cell[::-1]):
        file.add(cell, plan.corrections[cell])
    return file


@dataclass(frozen=True)
class _Teller:
    """Tells the truth about the files."""

    market: Market
    plan: Plan
    bars: Sequence[_File]
    corrections: _File

    def truth(self, seed: int) -> Truth:
        plan, late_file = self.plan, self.corrections
        bars = {file.name: self._bar_counts(number) for number, file in enumerate(self.bars)}
        corrections = self._correction_counts()
        return Truth(
            seed=seed,
            time_zone=TIME_ZONE,
            label="open",
            interval="1m",
            symbols=self.market.symbols,
            imports={BARS: Counts.total(bars.values()), CORRECTIONS: corrections},
            files={**bars, late_file.name: corrections},
            symbol_sessions=list(self._symbol_sessions()),
            gaps=[self._planted(run) for run in plan.gaps],
            late=[self._planted(run, late_file) for run in plan.late],
            duplicates=[self._planted(run, self._file(run)) for run in plan.duplicates]
            + [self._planted(run, late_file) for run in plan.repeats],
            superseded=[self._changed(run, self._file(run)) for run in plan.superseded],
            revisions=[self._changed(run, late_file) for run in plan.revisions],
            rejects=[self._reject(run, self._file(run)) for run in plan.rejects]
            + [self._reject(run, late_file) for run in plan.rejects_again],
        )

    def _file(self, run: Run) -> _File:
        return self.bars[self.market.session_of(run.minute)]

    def _planted(self, run: Run, file: _File | None = None) -> Planted:
        start = self.market.starts[run.minute]
        return Planted(
            kind=run.kind,
            symbol=self.market.symbols[run.symbol],
            session=str(self.market.sessions[self.market.session_of(run.minute)].date),
            start=format_moment(start),
            start_micros=start,
            minutes=run.minutes,
            file=file.name if file else "",
            rows=tuple(row for cell in run.cells() for row in file.rows[cell]) if file else (),
        )

    def _changed(self, run: Run, file: _File) -> Planted:
        new = self.market.bar(run.cell)
        return msgspec.structs.replace(
            self._planted(run, file), old=_values(first_version(new)), new=_values(new)
        )

    def _reject(self, run: Run, file: _File) -> Planted:
        planted = self._planted(run, file)
        line = file.lines[planted.rows[0] - 1]
        return msgspec.structs.replace(planted, kind="", reason=run.kind, line=line)

    def _bar_counts(self, number: int) -> Counts:
        rows = len(self.bars[number].lines) - 1
        duplicates, superseded, rejected = (
            sum(self.market.session_of(run.minute) == number for run in runs)
            for runs in (self.plan.duplicates, self.plan.superseded, self.plan.rejects)
        )
        return Counts(
            rows=rows,
            stored=rows - duplicates - superseded - rejected,
            duplicates=duplicates + superseded,
            superseded=superseded,
            rejected=rejected,
            out_of_session=self.bars[number].outside,
        )

    def _correction_counts(self) -> Counts:
        return Counts(
            rows=len(self.corrections.lines) - 1,
            stored=sum(run.minutes for run in self.plan.late),
            duplicates=len(self.plan.repeats),
            revised=len(self.plan.revisions),
            rejected=len(self.plan.rejects_again),
        )

    def _symbol_sessions(self) -> Iterator[SymbolSession]:
        missing, late = map(self._minutes_by_session, (self.plan.gaps, self.plan.late))
        for symbol, name in enumerate(self.market.symbols):
            for number, session in enumerate(self.market.sessions):
                expected = self.market.edges[number + 1] - self.market.edges[number]
                yield SymbolSession(
                    symbol=name,
                    session=str(session.date),
                    expected=expected,
                    present=expected - missing[symbol, number],
                    missing=missing[symbol, number],
                    late=late[symbol, number],
                )

    def _minutes_by_session(self, runs: Iterable[Run]) -> Counter[tuple[int, int]]:
        """Return the minutes by the numbers of symbol and session."""
        minutes = Counter[tuple[int, int]]()
        for run in runs:
            minutes[run.symbol, self.market.session_of(run.minute)] += run.minutes
        return minutes


def _values(bar: Sequence[int]) -> tuple[float, ...]:
    """Return prices in dollars, and the volume."""
    return *(cents / 100 for cents in bar[:4]), float(bar[4])
