"""Gaps: expected minutes without a bar, found, and what became of them.

A minute's state:

=============  =====================================================================
``missing``    no bar, and nobody has explained it yet
``no_trade``   every source that covers the minute has answered, and none has a bar
``filled``     a source had the bar
``unresolved`` given up on after the last retry
=============  =====================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stream_coord.compute.quality import GapRow

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bits = NDArray[np.uint64]

STATES = ("missing", "no_trade", "filled", "unresolved")
MISSING, NO_TRADE, FILLED, UNRESOLVED = range(len(STATES))

MAX_NAMES = 64
"""As many sources as a bit set of `GapCells` can tell apart."""


@dataclass(frozen=True, slots=True)
class GapRuns:
    """Gaps of many symbols as three arrays of equal length, by row and then by slot.

    Attributes:
        rows: The symbol's row; int64.
        first: The gap's first slot; int64.
        stop: The slot after the gap's last one; int64.
    """

    rows: Ints
    first: Ints
    stop: Ints


def gap_runs(present: Bools, expected: Bools) -> GapRuns:
    """Return the maximal runs of slots that are expected and not present.

    A run ends where a slot is present or not expected. Slots are neighbours on the grid, not on
    the clock: a gap goes on across a lunch break.

    Args:
        present: Whether there is a bar; shape (S, T).
        expected: Whether one is due; shape (T,) or (S, T).
    """
    rows, width = present.shape[0], present.shape[1] + 1
    # One line of all rows, a False before, between and after them: each run is a pair of changes.
    missing = np.zeros(rows * width + 1, np.bool_)
    np.greater(expected, present, out=missing[1:].reshape(rows, width)[:, :-1])
    edges = np.flatnonzero(missing[1:] != missing[:-1])
    begins, ends = edges[::2], edges[1::2]
    row = begins // width
    return GapRuns(row, begins - row * width, ends - row * width)


@dataclass(frozen=True, slots=True)
class CellRuns:
    """Runs of neighbouring slots of one row, and what is known of their minutes.

    Attributes:
        rows: The symbol's row; int64, shape (N,).
        first: The run's first slot on the session's regular grid; int64, shape (N,).
        stop: The slot after its last one; int64, shape (N,).
        state: Index in `STATES`; uint8, shape (N,).
        tries: How often it was asked for in vain because a source failed; int32, shape (N,).
        last_try: When it was asked for last, UTC microseconds, 0 for never; int64, shape (N,).
        source: Index of the source that filled it, -1 for none; int16, shape (N,).
        asked: Bit i: the source i was asked; uint64, shape (N,).
        empty: Bit i: the source i has confirmed that it has no bar; uint64, shape (N,).
    """

    rows: Ints
    first: Ints
    stop: Ints
    state: NDArray[np.uint8]
    tries: NDArray[np.int32]
    last_try: Ints
    source: NDArray[np.int16]
    asked: Bits
    empty: Bits

    def __len__(self) -> int:
        return len(self.rows)


ATTRIBUTES = tuple(field.name for field in fields(CellRuns))[3:]
"""What is known of a minute, by name: the fields that `CellRuns` and `GapCells` share."""


@dataclass(slots=True)
class GapCells:
    """The expected minutes of one session that are, or were, without a bar; by row, then slot.

    Attributes:
        rows: The symbol's row; int64, shape (N,).
        slots: Position on the session's regular grid; int64, shape (N,).
        state: As `CellRuns`, and so are `tries`, `last_try`, `source`, `asked` and `empty`.
        names: The identities of the sources that `source` and the bits speak of; at most 64.
    """

    rows: Ints
    slots: Ints
    state: NDArray[np.uint8]
    tries: NDArray[np.int32]
    last_try: Ints
    source: NDArray[np.int16]
    asked: Bits
    empty: Bits
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, present: Bools, expected: Bools, names: Sequence[str] = ()) -> GapCells:
        """Return the expected minutes without a bar, all of them missing and never asked for.

        Args:
            present: Whether there is a real bar; shape (S, R), R slots of the regular grid.
            expected: Which symbols are held to account, shape (S,), or which of their minutes,
                shape (S, R).
            names: The identities of the sources.
        """
        due = expected[:, None] if expected.ndim == 1 else expected
        missing = np.flatnonzero(np.greater(due, present))
        rows = missing // max(1, present.shape[1])
        slots = missing - rows * present.shape[1]
        count = len(rows)
        return cls(
            rows,
            slots,
            np.full(count, MISSING, np.uint8),
            np.zeros(count, np.int32),
            np.zeros(count, np.int64),
            np.full(count, -1, np.int16),
            np.zeros(count, np.uint64),
            np.zeros(count, np.uint64),
            tuple(names),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def runs(self) -> CellRuns:
        """Return the maximal runs of neighbouring slots of one row with all attributes equal."""
        begins = np.ones(len(self) + 1, np.bool_)
        inside = begins[1:-1]
        np.not_equal(np.diff(self.slots), 1, out=inside)
        for values in (self.rows, *(getattr(self, name) for name in ATTRIBUTES)):
            inside |= values[1:] != values[:-1]
        edges = np.flatnonzero(begins)
        first = edges[:-1]
        known = {name: getattr(self, name)[first] for name in ATTRIBUTES}
        return CellRuns(self.rows[first], self.slots[first], self.slots[edges[1:] - 1] + 1, **known)

    def merged(self, other: GapCells) -> GapCells:
        """Return the cells of both, which have none in common and the same `names`."""
        rows = np.concatenate([self.rows, other.rows])
        slots = np.concatenate([self.slots, other.slots])
        order = np.lexsort((slots, rows))
        known = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])[order]
            for name in ATTRIBUTES
        }
        return GapCells(rows[order], slots[order], **known, names=self.names)

    def apply_ranges(self, ranges: CellRuns) -> None:
        """Take over what is known of the cells inside `ranges`; where they overlap, the last wins.

        Args:
            ranges: Ranges of slots, in any order, with sources numbered as in `names`; slots that
                are no cells are passed over.
        """
        if not len(self) or not len(ranges):
            return
        width = max(int(self.slots.max()), int(ranges.stop.max())) + 1
        keys = self.rows * width + self.slots
        low = np.searchsorted(keys, ranges.rows * width + ranges.first)
        counts = np.searchsorted(keys, ranges.rows * width + ranges.stop) - low
        of_range = np.repeat(np.arange(len(ranges)), counts)
        passed = np.repeat(counts.cumsum() - counts, counts)
        cells = low[of_range] + np.arange(len(of_range)) - passed
        for name in ATTRIBUTES:
            getattr(self, name)[cells] = getattr(ranges, name)[of_range]


def source_bits(identities: Iterable[str], names: Sequence[str]) -> int:
    """Return the bit set of some sources; those that `names` lacks have no bit.

    >>> source_bits(["b", "gone"], ["a", "b"])
    2
    """
    known = set(identities)
    return sum(1 << bit for bit, name in enumerate(names) if name in known)


def source_names(bits: int, names: Sequence[str]) -> tuple[str, ...]:
    """Return the sources whose bits are set, in the order of `names`.

    >>> source_names(2, ["a", "b"])
    ('b',)
    """
    return tuple(name for bit, name in enumerate(names) if bits >> bit & 1)


def gap_rows(
    runs: CellRuns,
    symbols: Sequence[str],
    session: str,
    starts: Ints,
    interval_micros: int,
    names: Sequence[str] = (),
) -> Iterator[GapRow]:
    """Yield runs as people and ledgers read them, in the same order.

    Args:
        runs: The runs of one session.
        symbols: The symbol of each row.
        session: The session's date, ``YYYY-MM-DD``.
        starts: The session's regular grid, UTC microseconds; int64, shape (R,).
        interval_micros: The bars' interval, microseconds.
        names: The identities of the sources that the runs number.
    """
    begins = starts[runs.first].tolist()
    ends = (starts[runs.stop - 1] + interval_micros).tolist()
    minutes = (runs.stop - runs.first).tolist()
    known = (getattr(runs, name).tolist() for name in ATTRIBUTES)
    columns = zip(runs.rows.tolist(), begins, ends, minutes, *known, strict=True)
    for row, start, end, count, state, tries, last_try, source, asked, empty in columns:
        yield GapRow(
            symbols[row],
            session,
            start,
            end,
            count,
            STATES[state],
            kind="session" if count == len(starts) else "minutes",
            source=names[source] if source >= 0 else None,
            tries=tries,
            last_try=last_try or None,
            asked=source_names(asked, names),
            empty=source_names(empty, names),
        )


def gap_ranges(
    rows: Iterable[GapRow], symbols: Mapping[str, int], starts: Ints, names: Sequence[str] = ()
) -> CellRuns:
    """Return what rows say as ranges of slots; the reverse of `gap_rows`.

    Args:
        rows: Gaps of one session; those of other symbols are left out.
        symbols: The row of each symbol.
        starts: The session's regular grid, UTC microseconds; int64, shape (R,).
        names: The identities of the sources that the ranges shall number; others are forgotten.
    """
    known = [row for row in rows if row.symbol in symbols]
    source_of = {name: number for number, name in enumerate(names)}
    return CellRuns(
        np.array([symbols[row.symbol] for row in known], np.int64),
        np.searchsorted(starts, np.array([row.start for row in known], np.int64)),
        np.searchsorted(starts, np.array([row.end for row in known], np.int64)),
        np.array([STATES.index(row.state) for row in known], np.uint8),
        np.array([row.tries for row in known], np.int32),
        np.array([row.last_try or 0 for row in known], np.int64),
        np.array([source_of.get(row.source or "", -1) for row in known], np.int16),
        np.array([source_bits(row.asked, names) for row in known], np.uint64),
        np.array([source_bits(row.empty, names) for row in known], np.uint64),
    )
