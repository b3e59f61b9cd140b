"""One interval's bars of all symbols, as one block of arrays.

Layout: ``values[field, symbol, slot]``. A slot is one grid minute (of a derived interval: one
bucket of them), so a symbol's window is one contiguous run, a replayed minute is one column, and
trailing history and today are neighbours.
Holes are NaN with ``present`` False. Everything of a session is in the block before it streams;
what a reader may see is decided by the session store's cursor, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS
from stream_coord.calendars import Session
from stream_coord.clock import format_moment
from stream_coord.errors import IntervalError, SessionStoreError, near_miss
from stream_coord.interval import Interval

if TYPE_CHECKING:
    import polars as pl

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Answer = TypeVar("_Answer")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Writes:
    """Tells readers, who take no lock, whether somebody wrote while they read.

    Needed because numpy lets other threads run while it copies many values.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0  # odd while somebody writes; grows with every write

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a write; one writer at a time."""
        self.count += 1
        try:
            yield
        finally:
            self.count += 1

    def consistent(self, read: Callable[[], _Answer]) -> _Answer:
        """Return what `read` returns when nobody wrote meanwhile (tries until that is so)."""
        while True:
            count = self.count
            answer = read()
            if count == self.count and not count & 1:
                return answer


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """The bars of `symbols` on the grid of some sessions, the newest session last.

    Attributes:
        interval: The bars' interval.
        label: The interval's name.
        symbols: Rows of the block, sorted by code point; shape (S,).
        sessions: The sessions, oldest first.
        starts: Start of each slot, UTC microseconds, int64, shape (C,), ascending.
        ends: End of each slot, likewise; a bar is visible from it on.
        regular: Whether a slot is of the regular hours, so that a bar is expected; bool, (C,).
        values: open, high, low, close, volume; float64, shape (5, S, C), NaN in holes.
        present: Whether there is a bar; bool, shape (S, C).
        flags: The bits of `stream_coord.bars`; uint8, shape (S, C).
        today: The first slot of the newest session; what lies before it is history.
        n: Real base bars that each derived bar is built of, int32, shape (S, C); None in a block
            of base bars.
        n_expected: Base slots of each bucket, int64, shape (C,); None in a block of base bars.
        writes: Counts the writes while others read.
    """

    interval: Interval
    label: str
    symbols: tuple[str, ...]
    sessions: tuple[Session, ...]
    starts: Ints
    ends: Ints
    regular: Bools
    values: Floats
    present: Bools
    flags: NDArray[np.uint8]
    today: int
    n: NDArray[np.int32] | None = None
    n_expected: Ints | None = None
    writes: Writes = field(default_factory=Writes, repr=False, compare=False)

    def __repr__(self) -> str:
        # Not the bars: the block holds what is still to come.
        return f"<block of {self.label} bars, {len(self.symbols)} x {len(self.starts)}>"

    @classmethod
    def empty(
        cls, symbols: Sequence[str], sessions: Sequence[Session], interval: Interval
    ) -> Block:
        """Return a block without bars for `sessions`, oldest first; the last one is today.

        Raises:
            IntervalError: a session's segments are no whole number of bars.
        """
        for session in sessions:
            _check_fit(session, interval)
        grids = [session.grid(interval) for session in sessions]
        starts = np.concatenate(grids)
        shape = (len(symbols), len(starts))
        return cls(
            interval=interval,
            label=str(interval),
            symbols=tuple(map(str, symbols)),  # plain text, which every encoder knows
            sessions=tuple(sessions),
            starts=starts,
            ends=starts + interval.micros,
            regular=np.concatenate([session.regular_mask(interval) for session in sessions]),
            values=np.full((len(FIELDS), *shape), np.nan),
            present=np.zeros(shape, np.bool_),
            flags=np.zeros(shape, np.uint8),
            today=len(starts) - len(grids[-1]),
        )

    def readonly(self) -> Block:
        """Return the same memory as a block that nobody can write through."""
        return replace(
            self,
            starts=_readonly(self.starts),
            ends=_readonly(self.ends),
            regular=_readonly(self.regular),
            values=_readonly(self.values),
            present=_readonly(self.present),
            flags=_readonly(self.flags),
            n=None if self.n is None else _readonly(self.n),
            n_expected=None if self.n_expected is None else _readonly(self.n_expected),
        )

    def copy(self, writes: Writes) -> Block:
        """Return a block with bars of its own, whose writes are counted by `writes`."""
        return replace(
            self,
            values=self.values.copy(),
            present=self.present.copy(),
            flags=self.flags.copy(),
            n=None if self.n is None else self.n.copy(),
            writes=writes,
        )

    def fill(self, frame: pl.DataFrame) -> int:
        """Put a bar frame's bars into their slots.

        Args:
            frame: A bar frame whose symbols are all in the block.

        Returns:
            How many of its bars have no slot (they lie outside the sessions' hours).
        """
        if frame.is_empty():
            return 0
        starts = frame["start"].to_numpy()
        slots = slots_of(self.starts, self.interval, starts)
        cells = symbol_rows(frame, self.symbols) * len(self.starts) + slots
        inside = slots >= 0
        outside = len(slots) - int(np.count_nonzero(inside))
        if outside:
            cells = cells[inside]
        self.present.reshape(-1)[cells] = True
        for name, plane in zip(FIELDS, self.values, strict=True):
            column = frame[name].to_numpy()
            plane.reshape(-1)[cells] = column[inside] if outside else column
        return outside


def symbol_rows(frame: pl.DataFrame, symbols: Sequence[str]) -> Ints:
    """Return the position in `symbols` of each row's symbol, int64, shape (rows,).

    Raises:
        SessionStoreError: the frame holds a symbol that `symbols` lacks.
    """
    runs = frame["symbol"].rle().struct.unnest()
    row_of = {symbol: row for row, symbol in enumerate(symbols)}
    try:
        rows = [row_of[symbol] for symbol in runs["value"].to_list()]
    except KeyError as error:
        unknown = error.args[0]
        raise SessionStoreError(
            f"the session has no symbol {unknown!r}{near_miss(unknown, symbols)}"
        ) from None
    return np.repeat(np.array(rows, np.int64), runs["len"].to_numpy())


def slots_of(grid: Ints, interval: Interval, starts: Ints) -> Ints:
    """Return the slot of each start, or -1 where the grid has none; int64.

    Args:
        grid: Ascending slot starts, all whole intervals apart; UTC microseconds.
        interval: The grid's interval.
        starts: The starts to look up, UTC microseconds.
    """
    if not len(grid):
        return np.full(len(starts), -1, np.int64)
    # A table over the whole span, nights included: one division and one look-up a bar, where a
    # binary search would take nine steps.
    positions, table = _slot_table(grid, interval)
    offsets, remainders = np.divmod(starts - grid[0], interval.micros)
    inside = (remainders == 0) & (offsets >= 0) & (offsets <= positions[-1])
    return np.where(inside, table[np.where(inside, offsets, 0)], -1)


def _slot_table(grid: Ints, interval: Interval) -> tuple[Ints, Ints]:
    positions = (grid - grid[0]) // interval.micros
    table = np.full(int(positions[-1]) + 1, -1, np.int64)
    table[positions] = np.arange(len(grid))
    return positions, table


def _check_fit(session: Session, interval: Interval) -> None:
    # Bars start at whole intervals since the epoch; on any other grid none would find its slot.
    for part in session.segments:
        if part.open % interval.micros or part.close % interval.micros:
            raise IntervalError(
                f"{interval} bars do not fit the session {session.date}, which trades from "
                f"{format_moment(part.open)} to {format_moment(part.close)}",
                "Take a base_interval that divides the hours of its calendar, such as 1m.",
            )


def _readonly(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    view = array.view()
    view.flags.writeable = False
    return view
