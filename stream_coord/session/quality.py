"""What a session's bars were worth, measured on its block and kept without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import SYNTHETIC
from stream_coord.calendars import Session
from stream_coord.compute.gaps import (
    FILLED,
    MAX_NAMES,
    MISSING,
    NO_TRADE,
    STATES,
    UNRESOLVED,
    CellRuns,
    GapCells,
    gap_ranges,
    gap_rows,
)
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.session.block import Block, Bools, Ints

_Scalar = TypeVar("_Scalar", bound=np.generic)


class SessionQuality:
    """The quality of one session, a few bytes a symbol and a gap; rows are made when asked for.

    Args:
        session: The session.
        symbols: All symbols, sorted by code point.
        expected: Which of them are held to account; bool, shape (S,).
        present: Regular minutes with a real bar, filled ones included; int64, shape (S,).
        cells: The expected minutes that are, or were, without a bar; not kept.
        starts: The session's regular grid, UTC microseconds; int64, shape (R,).
        interval_micros: The bars' interval, microseconds.
    """

    def __init__(
        self,
        session: Session,
        symbols: tuple[str, ...],
        expected: Bools,
        present: Ints,
        cells: GapCells,
        starts: Ints,
        interval_micros: int,
    ) -> None:
        self.session = session
        self.symbols = symbols
        self.expected = expected
        self.present = present
        shape = (len(symbols), len(STATES))
        cell_states = cells.rows * len(STATES) + cells.state
        counts = np.bincount(cell_states, minlength=shape[0] * shape[1])
        self._counts = counts.astype(np.int32).reshape(shape)
        self._runs = _compact(cells.runs())
        self._names = cells.names
        self._starts = starts
        self._interval_micros = interval_micros

    def rows(self) -> Iterator[QualityRow]:
        """Yield one row per expected symbol."""
        date_text, due = self.session.date.isoformat(), len(self._starts)
        for row in np.flatnonzero(self.expected).tolist():
            counts = self._counts[row].tolist()
            yield QualityRow(
                self.symbols[row],
                date_text,
                due,
                int(self.present[row]),
                missing=counts[MISSING],
                no_trade=counts[NO_TRADE],
                unresolved=counts[UNRESOLVED],
                filled=counts[FILLED],
            )

    def gaps(self) -> Iterator[GapRow]:
        """Yield the gaps of the expected symbols, by symbol and then by time."""
        return gap_rows(
            self._runs,
            self.symbols,
            self.session.date.isoformat(),
            self._starts,
            self._interval_micros,
            self._names,
        )


def measure_session(
    block: Block, session: Session, expected: Bools, states: Iterable[GapRow] = ()
) -> SessionQuality:
    """Measure today's session of a block.

    Args:
        block: The bars.
        session: The block's newest session.
        expected: Which symbols are held to account; bool, shape (S,).
        states: What is remembered of this session's gaps: a `filled` minute counts as filled
            where there is a bar, the other states count where there is none.
    """
    today = slice(block.today, None)
    regular = np.flatnonzero(block.regular[today])
    starts = block.starts[today][regular]
    real = block.present[:, today] & ((block.flags[:, today] & SYNTHETIC) == 0)
    present, states = real[:, regular], list(states)
    absent, once_filled = recall(present, expected, block.symbols, starts, states, names_in(states))
    return SessionQuality(
        session,
        block.symbols,
        expected,
        np.count_nonzero(present, axis=1),
        absent.merged(once_filled),
        starts,
        block.interval.micros,
    )


def recall(
    present: Bools,
    expected: Bools,
    symbols: Sequence[str],
    starts: Ints,
    states: Sequence[GapRow],
    names: Sequence[str] = (),
) -> tuple[GapCells, GapCells]:
    """Return the minutes that have no bar, and those that have one because it was filled.

    What is remembered of minutes without a bar applies to the first, save that they were filled:
    that bar is gone again. All that nobody remembers is missing.

    Args:
        present: Whether there is a real bar; shape (S, R), R slots of the regular grid.
        expected: Which symbols are held to account, shape (S,), or which of their minutes,
            shape (S, R).
        symbols: The symbol of each row.
        starts: The session's regular grid, UTC microseconds; int64, shape (R,).
        states: What is remembered of this session's gaps.
        names: The identities of the sources that the cells number; others are forgotten.
    """
    absent = GapCells.of(present, expected, names)
    nothing = GapCells.of(np.ones((0, 0), np.bool_), np.ones(0, np.bool_), names)
    if not states:
        return absent, nothing
    by_filled: tuple[list[GapRow], list[GapRow]] = ([], [])
    for state in states:
        by_filled[state.state == STATES[FILLED]].append(state)
    row_of = {symbol: row for row, symbol in enumerate(symbols)}
    others, filled = (gap_ranges(rows, row_of, starts, names) for rows in by_filled)
    absent.apply_ranges(others)
    if not len(filled):
        return absent, nothing
    unfilled = np.ones_like(present)
    for row, first, stop in zip(filled.rows, filled.first, filled.stop, strict=True):
        unfilled[row, first:stop] = ~present[row, first:stop]
    once_filled = GapCells.of(unfilled, expected, names)
    once_filled.apply_ranges(filled)
    return absent, once_filled


def tell_apart(rows: Iterable[GapRow], first_bars: Mapping[str, int]) -> Iterator[GapRow]:
    """Yield the gaps; those before a symbol's first stored bar say so (kind ``before_first``).

    Args:
        rows: The gaps.
        first_bars: Start of the first stored bar of each symbol that has one, UTC microseconds.
    """
    for row in rows:
        before = row.end <= first_bars.get(row.symbol, row.start)
        yield replace(row, kind="before_first") if before else row


def names_in(states: Iterable[GapRow], first: Sequence[str] = ()) -> tuple[str, ...]:
    """Return some sources and then all others spoken of, as many as cells can hold.

    Args:
        states: What is remembered of gaps.
        first: The identities of sources that come first, in this order.
    """
    spoken_of = (name for row in states for name in (row.source, *row.asked, *row.empty) if name)
    return tuple(dict.fromkeys((*first, *spoken_of)))[:MAX_NAMES]


def _compact(runs: CellRuns) -> CellRuns:
    """Return the runs in little memory: small numbers, and columns of one value only once."""
    columns = {each.name: getattr(runs, each.name) for each in fields(runs)}
    slots = {name: columns[name].astype(np.int32) for name in ("rows", "first", "stop")}
    return replace(runs, **{name: _once(column) for name, column in (columns | slots).items()})


def _once(column: NDArray[_Scalar]) -> NDArray[_Scalar]:
    if len(column) and (column == column[0]).all():
        return np.broadcast_to(column[0].copy(), column.shape)
    return column
