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
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS
from stream_coord.calendars import Session
from stream_coord.clock import format_moment
from stream_coord.errors import IntervalError, SessionStoreError, near_miss
from stream_coord.interval import Interval
from stream_coord.session.sliding import Planes, Sliding

if TYPE_CHECKING:
    import polars as pl

_FEW = 32
"""So many starts are found one by one in less time than a table takes."""

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Answer = TypeVar("_Answer")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Writes:
    """Tells readers, who take no lock, whether somebody wrote while they read.

    Needed because numpy lets other threads run while it copies many values.
    """

    __slots__ = ("count", "gone")

    def __init__(self) -> None:
        self.count = 0  # odd while somebody writes; grows with every write
        self.gone = False  # whether the memory is that of other bars by now

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


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of an interval over some sessions, oldest first.

    Attributes:
        interval: The interval.
        sessions: The sessions; at least one.
        starts: Start of each slot, UTC microseconds, int64, shape (C,), ascending.
        ends: End of each slot, likewise.
        regular: Whether a slot is of the regular hours; bool, shape (C,).
        firsts: The first slot of each session.
        n_expected: Base slots of each bucket, int64, shape (C,); None of base slots.
    """

    interval: Interval
    sessions: tuple[Session, ...]
    starts: Ints
    ends: Ints
    regular: Bools
    firsts: tuple[int, ...]
    n_expected: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def longest(self) -> int:
        """The most slots that one of the sessions has."""
        return max(stop - first for first, stop in pairwise((*self.firsts, len(self))))

    @classmethod
    def of_base(cls, sessions: Sequence[Session], interval: Interval) -> Slots:
        """Return the base slots of some sessions.

        Raises:
            IntervalError: a session's segments are no whole number of bars.
        """
        for session in sessions:
            _check_fit(session, interval)
        grids = [session.grid(interval) for session in sessions]
        starts = np.concatenate(grids)
        return cls(
            interval,
            tuple(sessions),
            starts,
            starts + interval.micros,
            np.concatenate([session.regular_mask(interval) for session in sessions]),
            tuple(accumulate(map(len, grids[:-1]), initial=0)),
        )


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
        slots: What the slots are.
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
    n: NDArray[np.int32] | None
    n_expected: Ints | None
    slots: Slots
    writes: Writes = field(repr=False, compare=False)
    _memory: Sliding | None = field(default=None, compare=False)
    _offset: int = field(default=0, compare=False)

    def __repr__(self) -> str:
        # Not the bars: the block holds what is still to come.
        return f"<block of {self.label} bars, {len(self.symbols)} x {len(self.starts)}>"

    @classmethod
    def empty(
        cls, symbols: Sequence[str], sessions: Sequence[Session], interval: Interval
    ) -> Block:
        """Return a block without base bars for `sessions`, oldest first; the last one is today.

        Raises:
            IntervalError: a session's segments are no whole number of bars.
        """
        names = tuple(map(str, symbols))  # plain text, which every encoder knows
        return cls.of(names, Slots.of_base(sessions, interval), Writes())

    @classmethod
    def of(
        cls, symbols: tuple[str, ...], slots: Slots, writes: Writes, most_sessions: int = 0
    ) -> Block:
        """Return a block without bars.

        Args:
            symbols: Its rows, sorted by code point.
            slots: Its slots.
            writes: Counts the writes.
            most_sessions: If more than one, there is room for windows of so many that follow.
        """
        counted, rows = slots.n_expected is not None, len(symbols)
        if most_sessions > 1:
            sessions = max(most_sessions, len(slots.sessions))
            memory = Sliding.roomy(rows, sessions, slots.longest, counted=counted)
        else:
            memory = Sliding(rows, len(slots), 0, counted=counted)
        block = cls._view(symbols, slots, writes, memory.window(0, len(slots)), memory)
        block.planes.clear()
        return block

    @classmethod
    def _view(
        cls,
        symbols: tuple[str, ...],
        slots: Slots,
        writes: Writes,
        planes: Planes,
        memory: Sliding | None = None,
        offset: int = 0,
    ) -> Block:
        return cls(
            interval=slots.interval,
            label=str(slots.interval),
            symbols=symbols,
            sessions=slots.sessions,
            starts=slots.starts,
            ends=slots.ends,
            regular=slots.regular,
            values=planes.values,
            present=planes.present,
            flags=planes.flags,
            today=slots.firsts[-1],
            n=planes.n,
            n_expected=slots.n_expected,
            slots=slots,
            writes=writes,
            _memory=memory,
            _offset=offset,
        )

    @property
    def has_room(self) -> bool:
        """Whether there is memory for sessions that follow."""
        return self._memory is not None and self._memory.width > len(self.starts)

    @property
    def planes(self) -> Planes:
        """The cells."""
        return Planes(self.values, self.present, self.flags, self.n)

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
            _memory=None,
        )

    def copy(self, writes: Writes) -> Block:
        """Return a block with bars of its own, whose writes are counted by `writes`."""
        return self._view(self.symbols, self.slots, writes, self.planes.copy())

    def following(
        self, symbols: tuple[str, ...], slots: Slots, writes: Writes, most_sessions: int
    ) -> Block:
        """Return the block of a later window, whose newest session has no bars yet.

        Where there is room it is the same memory, seen from further on. Then nothing of this block
        is changed by it, only of those before it, and what is still written here is seen there.
        Otherwise the bars are copied: those of history now, those of today by `arrive`. Where
        there is no history, a block has memory of its own.

        Args:
            symbols: Its rows; those that this block has not have no history.
            slots: Its slots: of the newest sessions of this block, or of none, and of one more.
            writes: Counts the writes.
            most_sessions: How many sessions a window has at most.
        """
        begin = self._first_of(slots)
        offset, memory = self._offset + begin, self._memory
        if most_sessions == 1:
            return self.of(symbols, slots, writes)
        if (
            memory is not None
            and symbols == self.symbols
            and begin + len(slots) <= memory.width
            and memory.holds(offset, len(slots))
        ):
            planes = memory.window(offset, len(slots))
            block = self._view(symbols, slots, writes, planes, memory, offset)
        else:
            block = self.of(symbols, slots, writes, most_sessions)
            block._copy(self, begin, self.today)
        block.planes.part(block.today, len(slots)).clear()
        return block

    def arrive(self, before: Block, *, anew: bool) -> None:
        """Take over the bars of the block that this one follows, now that they are final.

        Where the two share memory, that one's is given up: other bars will take its place.

        Args:
            before: That block.
            anew: Whether history is not what it was when this block was made: all is taken over,
                and not today's bars alone.
        """
        if self._memory is before._memory:
            before.writes.gone = True
        else:
            first = before._first_of(self.slots)
            self._copy(before, first if anew else max(first, before.today), len(before.starts))

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
        width = self._memory.width if self._memory else len(self.starts)
        line = self._memory.line if self._memory else None
        cells = self._offset + symbol_rows(frame, self.symbols) * width + slots
        inside = slots >= 0
        outside = len(slots) - int(np.count_nonzero(inside))
        if outside:
            cells = cells[inside]
        present = self.present.reshape(-1) if line is None else line.present
        planes = self.values.reshape(len(FIELDS), -1) if line is None else line.values
        present[cells] = True
        for name, plane in zip(FIELDS, planes, strict=True):
            column = frame[name].to_numpy()
            plane[cells] = column[inside] if outside else column
        return outside

    def _first_of(self, slots: Slots) -> int:
        """Return the slot here at which a later window begins."""
        return int(np.searchsorted(self.starts, slots.starts[0]))

    def _copy(self, other: Block, first: int, stop: int) -> None:
        """Copy the slots first ... stop - 1 of a block that this one follows."""
        if first >= stop:
            return
        at = other._first_of(self.slots)
        rows: Ints | slice = slice(None)
        if self.symbols != other.symbols:
            row_of = {symbol: row for row, symbol in enumerate(self.symbols)}
            rows = np.array([row_of[symbol] for symbol in other.symbols], np.int64)
        self.planes.part(first - at, stop - at).take(other.planes.part(first, stop), rows)


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
    if len(starts) <= _FEW:
        at = np.minimum(np.searchsorted(grid, starts), len(grid) - 1)
        return np.where(grid[at] == starts, at, -1)
    # A table over the whole span, nights included: one division and one look-up a bar, where a
    # binary search would take nine steps.
    positions, table = _slot_table(grid, interval)
    since = starts - grid[0]
    offsets = since // interval.micros  # a product is had for less than a remainder
    inside = (offsets * interval.micros == since) & (offsets >= 0) & (offsets <= positions[-1])
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
