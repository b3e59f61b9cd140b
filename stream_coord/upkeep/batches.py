"""A batch of sessions: what the store lacks and the ledger remembers of it, asked for at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.bars import FIELDS, empty_frame
from stream_coord.calendars import Session
from stream_coord.compute.gaps import (
    FILLED,
    MISSING,
    STATES,
    Bits,
    Bools,
    GapCells,
    Ints,
    gap_ranges,
    gap_rows,
)
from stream_coord.compute.quality import GapRow
from stream_coord.interval import Interval
from stream_coord.session.block import Block, slots_of, symbol_rows
from stream_coord.session.quality import names_in, recall, tell_apart
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import Disagreement, GapChange
from stream_coord.upkeep.asking import Answers, Enquirer
from stream_coord.upkeep.states import learn, reopen_for

if TYPE_CHECKING:
    import polars as pl

_ROW = tuple(field.name for field in fields(GapRow))
Key = tuple[str, str]
"""A symbol and a session."""


@dataclass(frozen=True, slots=True)
class SessionGaps:
    """The minutes of one session that are, or were, without a bar.

    Attributes:
        date: The session's date, ``YYYY-MM-DD``.
        symbols: The symbols that are held to account, sorted by code point.
        starts: The regular grid, UTC microseconds; int64, shape (R,).
        absent: Minutes without a bar when they were looked at; rows are positions in `symbols`,
            slots in `starts`.
        once_filled: Minutes that have a bar because it was filled, likewise.
        remembered: What the ledger knew of `symbols`.
    """

    date: str
    symbols: tuple[str, ...]
    starts: Ints
    absent: GapCells
    once_filled: GapCells
    remembered: Sequence[GapRow]

    def rows(self, interval: Interval) -> Iterator[GapRow]:
        """Yield all that is known of them now as ranges, by symbol and start."""
        cells = self.absent.merged(self.once_filled)
        return gap_rows(
            cells.runs(), self.symbols, self.date, self.starts, interval.micros, cells.names
        )


@dataclass(frozen=True)
class Look:
    """How the gaps of sessions are seen.

    Attributes:
        store: Where the bars are.
        interval: Their interval.
        due: Only minutes that end no later count; UTC microseconds.
        sources: Who can be asked.
        reopen: Whether all that is remembered of minutes without a bar is forgotten.
    """

    store: BarStore
    interval: Interval
    due: int
    sources: Enquirer
    reopen: bool = False

    def at(
        self, session: Session, symbols: Sequence[str], remembered: Sequence[GapRow]
    ) -> SessionGaps:
        """Look at a session: which minutes have no bar, and what is known of them.

        What the ledger remembers and the store does not bear out is dropped: a gap whose bars have
        come in is none any more, and a filled one whose bars are gone is missing again.

        Args:
            session: The session.
            symbols: The symbols that are held to account, sorted by code point.
            remembered: What the ledger knows of this session's gaps, and of any symbol's.

        Raises:
            IntervalError: the session is no whole number of bars.
            StoreCorruptError: stored bytes are not what was written.
        """
        grid = Block.empty((), [session], self.interval)
        starts = grid.starts[grid.regular]
        symbols = tuple(symbols)
        asked_about = set(symbols)
        known = [gap for gap in remembered if gap.symbol in asked_about]
        names = names_in(known, self.sources.names)
        present = self._present(session, symbols, starts)
        # What the ledger knows of was due once, whatever the clock says now.
        due = _mask(known, symbols, starts) | (starts + self.interval.micros <= self.due)
        kept = [gap for gap in known if gap.state == STATES[FILLED] or not self.reopen]
        absent, once_filled = recall(present, due, symbols, starts, kept, names)
        reopen_for(absent, self.sources.every_bit)
        return SessionGaps(
            session.date.isoformat(), symbols, starts, absent, once_filled, tuple(known)
        )

    def _present(self, session: Session, symbols: Sequence[str], starts: Ints) -> Bools:
        """Return which minutes of the regular grid have a stored bar; bool, shape (S, R)."""
        frame = self.store.read(self.interval, symbols, session.open, session.close)
        present = np.zeros((len(symbols), len(starts)), np.bool_)
        if len(frame):
            slots = slots_of(starts, self.interval, frame["start"].to_numpy())
            inside = slots >= 0
            present[symbol_rows(frame, symbols)[inside], slots[inside]] = True
        return present


class Batch:
    """Some sessions' gaps, asked for with one question to each source.

    Args:
        parts: The sessions' gaps, by session.
        interval: The bars' interval.

    Attributes:
        absent: Minutes without a bar; `asked` of them are asked for.
        found: How many of those a source has.
        bars: What it has, as a bar frame.
        by_source: How many of them by the identity of the source.
        disagreements: What sources have besides that is something else.
    """

    def __init__(self, parts: Sequence[SessionGaps], interval: Interval) -> None:
        self.parts = parts
        self.interval = interval
        self._asked = [np.flatnonzero(part.absent.state == MISSING) for part in parts]
        self.absent = sum(len(part.absent) for part in parts)
        self.asked = sum(map(len, self._asked))
        self.found = 0
        self.bars: pl.DataFrame = empty_frame()
        self.by_source: dict[str, int] = {}
        self.disagreements: list[Disagreement] = []

    def ask(self, enquirer: Enquirer, attempts: int, now: int) -> None:
        """Ask for all that is missing, and take over what is answered; see `learn`."""
        symbols = sorted({symbol for part in self.parts for symbol in part.symbols})
        rows, starts, empty, asked = self._question(symbols)
        order = np.lexsort((starts, rows))
        answers = enquirer.ask(symbols, rows[order], starts[order], empty[order], asked[order])
        place = np.argsort(order)
        for part, which in zip(self.parts, self._asked, strict=True):
            mine, place = place[: len(which)], place[len(which) :]
            learn(part.absent, which, answers.take(mine), attempts, now)
        self._keep(answers, symbols, rows[order], starts[order], enquirer.names)

    def counts(self) -> dict[str, int]:
        """Return how many minutes without a bar there were, by the state that they are in now."""
        counts = np.zeros(len(STATES), np.int64)
        for part in self.parts:
            counts += np.bincount(part.absent.state, minlength=len(STATES))
        return dict(zip(STATES, counts.tolist(), strict=True))

    def gaps(self, first_bars: Mapping[str, int]) -> list[GapRow]:
        """Return all gaps as they are now, by session, symbol and start.

        Args:
            first_bars: The start of each symbol's first stored bar.
        """
        rows = (row for part in self.parts for row in part.rows(self.interval))
        return list(tell_apart(rows, self.first_bars(first_bars)))

    def first_bars(self, stored: Mapping[str, int]) -> dict[str, int]:
        """Return the start of each symbol's first bar, of those stored and those found.

        Args:
            stored: The same of those stored alone.
        """
        first = dict(stored)
        firsts = self.bars.unique("symbol", keep="first", maintain_order=True)
        for symbol, start in firsts.select("symbol", "start").iter_rows():
            first[symbol] = min(start, first.get(symbol, start))
        return first

    def change(self, gaps: Iterable[GapRow]) -> GapChange:
        """Return what is known anew of `gaps`, and nothing of what the ledger knows already."""
        known = _by_symbol(row for part in self.parts for row in part.remembered)
        now = _by_symbol(gaps)
        scope = tuple(key for key in sorted({*known, *now}) if known.get(key) != now.get(key))
        rows = tuple(row for key in scope for row in now.get(key, ()))
        return GapChange(str(self.interval), scope, rows, tuple(self.disagreements))

    def _question(self, symbols: Sequence[str]) -> tuple[Ints, Ints, Bits, Bits]:
        row_of = {symbol: row for row, symbol in enumerate(symbols)}
        rows, starts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        empty, asked = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for part, which in zip(self.parts, self._asked, strict=True):
            cells = part.absent
            number = np.array([row_of[symbol] for symbol in part.symbols], np.int64)
            rows.append(number[cells.rows[which]])
            starts.append(part.starts[cells.slots[which]])
            empty.append(cells.empty[which])
            asked.append(cells.asked[which])
        return (
            np.concatenate(rows),
            np.concatenate(starts),
            np.concatenate(empty),
            np.concatenate(asked),
        )

    def _keep(
        self,
        answers: Answers,
        symbols: Sequence[str],
        rows: Ints,
        starts: Ints,
        names: Sequence[str],
    ) -> None:
        import polars as pl

        found = np.flatnonzero(answers.found)
        self.found = len(found)
        self.bars = pl.DataFrame(
            {
                "symbol": pl.Series(symbols, dtype=pl.String).gather(rows[found]),
                "start": starts[found],
                **dict(zip(FIELDS, answers.values[:, found], strict=True)),
            }
        )
        counts = np.bincount(answers.source[found], minlength=len(names)).tolist()
        self.by_source = {name: n for name, n in zip(names, counts, strict=True) if n}
        self.disagreements = answers.disagreements


def _mask(gaps: Iterable[GapRow], symbols: Sequence[str], starts: Ints) -> Bools:
    """Return which minutes some gaps hold; bool, shape (S, R)."""
    mask = np.zeros((len(symbols), len(starts)), np.bool_)
    ranges = gap_ranges(gaps, {symbol: row for row, symbol in enumerate(symbols)}, starts)
    for row, first, stop in zip(ranges.rows, ranges.first, ranges.stop, strict=True):
        mask[row, first:stop] = True
    return mask


def _by_symbol(gaps: Iterable[GapRow]) -> dict[Key, list[GapRow]]:
    """Return gaps by symbol and session, without what the ledger knows of them besides."""
    groups: dict[Key, list[GapRow]] = {}
    for gap in gaps:
        plain = GapRow(*(getattr(gap, name) for name in _ROW))
        groups.setdefault((gap.symbol, gap.session), []).append(plain)
    return groups
