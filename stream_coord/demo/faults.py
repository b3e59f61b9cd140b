"""What goes wrong with the bars of a made-up market, and the lines of CSV that show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, NamedTuple

import numpy as np

from stream_coord.bars import FIELDS
from stream_coord.demo.market import Cell, Draws, Market, csv_line

HEADER = ("symbol", "time", *FIELDS)

# How much of each is planted; gaps and late runs by their minutes.
_SINGLE_GAPS = 12
_RUNS = (2, 3, 5, 8, 13, 34)
_OPEN_GAP, _CLOSE_GAP = 7, 12
_LATE = (1, 1, 1, 2, 4, 9)
_DUPLICATES, _SUPERSEDED, _REVISIONS, _REPEATS = 9, 4, 12, 5

_SESSION_MISSED = date(2018, 11, 8)
_FIRST_LISTED = date(2018, 11, 12)

_BAD_ROWS: tuple[tuple[str, dict[str, str]], ...] = (
    ("not-finite", {"close": "nan"}),
    ("not-finite", {"high": "inf"}),
    ("not-finite", {"open": "1e400"}),
    ("high-too-low", {"high": "0.01"}),
    ("low-too-high", {"high": "99999.99", "low": "99999.98"}),
    ("nonpositive-price", {"low": "0.00"}),
    ("nonpositive-price", {"open": "-1.25", "low": "-1.25"}),
    ("negative-volume", {"volume": "-100"}),
    ("unparsable", {"close": "n/a"}),
    ("unparsable", {"volume": ""}),
    ("unparsable", {"time": "2018-13-45 10:00:00"}),
    ("misaligned", {"time": "{minute}:30"}),
    ("out-of-range", {"time": "1899-12-30 09:30:00"}),
    ("nonexistent-time", {"time": "2018-03-11 02:30:00"}),
    ("ambiguous-time", {"time": "2018-11-04 01:30:00"}),
    ("bad-symbol", {"symbol": "../../etc/x"}),
    ("bad-symbol", {"symbol": "BAD[/B]"}),
    ("bad-line", {"close": "17,05"}),  # a decimal comma: one field too many
)
"""The word that the reason begins with, and what a row has in place of its bar's own texts."""


class Run(NamedTuple):
    """Successive minutes of one symbol in one session."""

    kind: str
    symbol: int
    minute: int
    minutes: int = 1

    @property
    def cell(self) -> Cell:
        """The first minute."""
        return self.symbol, self.minute

    def cells(self) -> Iterator[Cell]:
        """Yield every minute."""
        return ((self.symbol, minute) for minute in range(self.minute, self.minute + self.minutes))


@dataclass(frozen=True)
class Plan:
    """What goes wrong.

    Attributes:
        gaps: What is missing for good.
        late: What is missing first, and comes with the corrections.
        duplicates: Bars that are in their session's file twice.
        superseded: Bars that are there twice, the first time with other values.
        revisions: Bars with other values, which the corrections put right.
        repeats: Bars that the corrections repeat as they are.
        rejects: Rows of the sessions' files that are no bars; the kind is the reason's first word.
        rejects_again: Those that are in the corrections just as bad.
        lines: What a session's file has in the place of a bar's own line; empty for nothing.
        appended: Bars whose own line is (once more) at the end of their session's file.
        corrections: The lines of the corrections.
    """

    gaps: list[Run] = field(default_factory=list)
    late: list[Run] = field(default_factory=list)
    duplicates: list[Run] = field(default_factory=list)
    superseded: list[Run] = field(default_factory=list)
    revisions: list[Run] = field(default_factory=list)
    repeats: list[Run] = field(default_factory=list)
    rejects: list[Run] = field(default_factory=list)
    rejects_again: list[Run] = field(default_factory=list)
    lines: dict[Cell, str] = field(default_factory=dict)
    appended: list[Cell] = field(default_factory=list)
    corrections: dict[Cell, str] = field(default_factory=dict)


def plan_faults(draws: Draws, market: Market) -> Plan:
    """Choose what goes wrong where; no two faults of a symbol are in successive minutes."""
    claims = _Claims(draws, market)
    plan = Plan()
    _plan_absent(plan, claims, market)
    _plan_rejects(plan, claims, market)
    _plan_twofold(plan, claims, market)
    return plan


def first_version(bar: Sequence[int]) -> list[int]:
    """Return what a vendor says of a bar at first: three cents higher, a hundred shares more."""
    open_, high, low, close, volume = bar
    return [open_, high + 3, low, close, volume + 100]


class _Claims:
    """Gives out minutes that are free, and whose neighbours are."""

    def __init__(self, draws: Draws, market: Market) -> None:
        self._draws = draws
        self._edges = market.edges
        self._free = np.ones(market.bars.shape[:2], np.bool_)

    def session(self, kind: str, symbol: int, session: int) -> Run:
        """Claim a whole session, of which nothing is taken yet."""
        first, end = self._edges[session : session + 2]
        return self._claim(Run(kind, symbol, first, end - first))

    def minutes(
        self, kind: str, minutes: int = 1, at: Literal["open", "close", "inside"] = "inside"
    ) -> Run:
        """Claim minutes of any symbol and session, at an edge of the session or at neither."""
        while True:
            symbol = self._draws.below(len(self._free))
            session = self._draws.below(len(self._edges) - 1)
            first, last = self._edges[session], self._edges[session + 1] - minutes
            inside = first + 1 + self._draws.below(last - first - 1)
            minute = {"open": first, "close": last, "inside": inside}[at]
            if self._free[symbol, minute : minute + minutes].all():
                return self._claim(Run(kind, symbol, minute, minutes))

    def _claim(self, run: Run) -> Run:
        around = slice(max(run.minute - 1, 0), run.minute + run.minutes + 1)
        self._free[run.symbol, around] = False
        return run


def _plan_absent(plan: Plan, claims: _Claims, market: Market) -> None:
    days = [session.date for session in market.sessions]
    symbols = len(market.symbols)
    plan.gaps.extend(
        claims.session("not-listed", symbols - 1, number)
        for number, day in enumerate(days)
        if day < _FIRST_LISTED
    )
    plan.gaps.append(claims.session("session", symbols // 2, days.index(_SESSION_MISSED)))
    plan.gaps.append(claims.minutes("open", _OPEN_GAP, at="open"))
    plan.gaps.append(claims.minutes("close", _CLOSE_GAP, at="close"))
    plan.gaps.extend(claims.minutes("run", minutes) for minutes in _RUNS)
    plan.gaps.extend(claims.minutes("minute") for _ in range(_SINGLE_GAPS))
    plan.late.extend(claims.minutes("late", minutes) for minutes in _LATE)
    plan.lines.update((cell, "") for run in plan.gaps + plan.late for cell in run.cells())
    plan.corrections.update((cell, market.line(cell)) for run in plan.late for cell in run.cells())


def _plan_rejects(plan: Plan, claims: _Claims, market: Market) -> None:
    """Put a bad row in the place of a good one, which comes with the corrections or never."""
    for number, (reason, changes) in enumerate(_BAD_ROWS):
        run = claims.minutes(reason)
        good = market.line(run.cell)
        bad = _spoilt(good, changes)
        plan.rejects.append(run)
        plan.lines[run.cell] = bad
        if number % 2 == 0:
            plan.late.append(run._replace(kind="repaired"))
            plan.corrections[run.cell] = good
            continue
        plan.gaps.append(run._replace(kind="rejected"))
        if number % 3 == 0:
            plan.rejects_again.append(run)
            plan.corrections[run.cell] = bad


def _spoilt(line: str, changes: dict[str, str]) -> str:
    fields = dict(zip(HEADER, line.split(","), strict=True))
    minute = fields["time"].removesuffix(":00")
    fields |= {name: text.format(minute=minute) for name, text in changes.items()}
    return ",".join(fields.values())


def _plan_twofold(plan: Plan, claims: _Claims, market: Market) -> None:
    """Plan the bars of which there are two rows."""
    plan.duplicates.extend(claims.minutes("") for _ in range(_DUPLICATES))
    plan.superseded.extend(claims.minutes("") for _ in range(_SUPERSEDED))
    plan.revisions.extend(claims.minutes("") for _ in range(_REVISIONS))
    plan.repeats.extend(claims.minutes("") for _ in range(_REPEATS))
    plan.lines.update((run.cell, market.line(run.cell)) for run in plan.duplicates)
    for run in plan.superseded + plan.revisions:
        symbol, minute = run.cell
        bar = first_version(market.bar(run.cell))
        plan.lines[run.cell] = csv_line(market.symbols[symbol], market.times[minute], bar)
    plan.appended.extend(run.cell for run in plan.duplicates + plan.superseded)
    again = plan.revisions + plan.repeats
    plan.corrections.update((run.cell, market.line(run.cell)) for run in again)
