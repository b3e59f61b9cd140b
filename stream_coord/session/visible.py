"""What may be seen of a session's bars: the blocks, the time, and everything that reads a block.

Rows are positions in the blocks' symbols; the session store turns symbols into rows. A reader
takes what it needs from one `Visible`, so that it sees one session, whichever begins meanwhile.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, Bar
from stream_coord.compute.derive import Buckets, derive_one
from stream_coord.compute.gaps import NO_TRADE, UNRESOLVED
from stream_coord.interval import Interval
from stream_coord.session.block import Block, Floats, Ints
from stream_coord.session.series import Series
from stream_coord.session.views import HIGH, LOW, VOLUME, Bars, SymbolMetrics, bar_at


class Now:
    """The session store's time, which all views of one session share.

    Attributes:
        micros: UTC microseconds.
    """

    __slots__ = ("micros",)

    def __init__(self, micros: int) -> None:
        self.micros = micros


class Readable(ABC):
    """What of a block may be seen: the slots before the cursor.

    Args:
        block: The bars; written elsewhere, only read here.

    Attributes:
        block: The same memory, read-only.
    """

    __slots__ = ("_holes", "_planes", "block")

    def __init__(self, block: Block) -> None:
        self.block = block.readonly()
        self._planes = dict(zip(FIELDS, self.block.values, strict=True))
        self._holes: list[list[int] | None] = [None] * len(block.symbols)

    @property
    @abstractmethod
    def cursor(self) -> int:
        """Slots before this one are visible."""

    def forget_holes(self, rows: Ints) -> None:
        """Look for the rows' holes anew when they are next needed: bars were added."""
        for row in set(rows.tolist()):
            self._holes[row] = None

    def newest(self, row: int) -> Bar | None:
        """Return the newest visible bar of a row."""
        return self.block.writes.consistent(lambda: self._newest(row))

    def last_n(self, row: int, n: int) -> Bars:
        """Return the last `n` visible bars of a row, a view unless a bar is missing between."""
        cursor = self.cursor
        begin = cursor - n
        holes = self._holes[row]
        if holes is None:
            holes = self._find_holes(row)
        if begin >= 0 and (
            not holes or not (at := bisect_left(holes, cursor)) or holes[at - 1] < begin
        ):
            return Bars(self.block, row, slice(begin, cursor))
        return self._existing(row, 0, cursor, n)

    def since(self, row: int, start: int) -> Bars:
        """Return the visible bars of a row whose start is at or after `start`."""
        cursor = self.cursor
        begin = min(int(np.searchsorted(self.block.starts, start)), cursor)
        return self._existing(row, begin, cursor, cursor)

    def window(self, row: int, n: int, field: str) -> Floats:
        """Return the last `n` visible slots of a row, NaN in holes; shape (<= n,).

        Raises:
            KeyError: no such field.
        """
        cursor = self.cursor
        begin = cursor - n
        plane: Floats = self._planes[field]
        return plane[row, max(begin, 0) : cursor]

    def cross_section(self, field: str, back: int) -> Floats:
        """Return the slot `back` before the newest visible one, of all rows; shape (S,).

        Raises:
            KeyError: no such field.
        """
        plane, slot = self._planes[field], self.cursor - 1 - back
        return plane[:, slot] if slot >= 0 else np.full(len(plane), np.nan)

    def count(self, row: int) -> int:
        """Return how many bars of a row are visible."""
        return int(np.count_nonzero(self.block.present[row, : self.cursor]))

    def _newest(self, row: int) -> Bar | None:
        present, slot = self.block.present[row], self.cursor - 1
        if slot >= 0 and not present[slot]:
            earlier = np.flatnonzero(present[:slot])
            slot = int(earlier[-1]) if len(earlier) else -1
        return bar_at(self.block, row, slot) if slot >= 0 else None

    def _existing(self, row: int, begin: int, cursor: int, n: int) -> Bars:
        slots = begin + np.flatnonzero(self.block.present[row, begin:cursor])
        slots = slots[max(len(slots) - n, 0) :]
        if len(slots) and slots[-1] - slots[0] + 1 == len(slots):
            return Bars(self.block, row, slice(int(slots[0]), int(slots[-1]) + 1))
        return Bars(self.block, row, slots)

    def _find_holes(self, row: int) -> list[int]:
        writes = self.block.writes
        count = writes.count
        holes: list[int] = np.flatnonzero(~self.block.present[row]).tolist()
        self._holes[row] = holes
        if count & 1 or count != writes.count:  # a bar came in between: look again next time
            self._holes[row] = None
        return holes


class DerivedVisible(Readable):
    """What of a derived block may be seen: the bars whose end is not after now.

    The cursor is found when somebody asks, so that a step of the clock costs no more for it.

    Args:
        block: The derived bars.
        buckets: What they are built of: the last of them, where history has no base bars.
        now: The session store's time.
    """

    __slots__ = ("_before", "_buckets", "_ends", "_now")

    def __init__(self, block: Block, buckets: Buckets, now: Now) -> None:
        super().__init__(block)
        self._buckets = buckets
        self._before = len(block.starts) - len(buckets)
        self._ends: list[int] = block.ends.tolist()
        self._now = now

    @property
    def cursor(self) -> int:
        """Slots before this one are visible."""
        return bisect_right(self._ends, self._now.micros)

    def in_progress(self, base: Visible, row: int) -> Bar | None:
        """Return the bar of the bucket that is not over yet, of the base bars that may be seen."""
        return base.block.writes.consistent(lambda: self._in_progress(base, row))

    def _in_progress(self, base: Visible, row: int) -> Bar | None:
        buckets, cursor = self._buckets, self.cursor
        slot = cursor - self._before
        if slot == len(buckets):
            return None
        seen = slice(int(buckets.first[slot]), min(base.cursor, int(buckets.stop[slot])))
        bars = base.block
        cut = bool(buckets.truncated[slot])
        derived = derive_one(
            bars.values[:, row, seen], bars.present[row, seen], bars.flags[row, seen], cut
        )
        if derived is None:
            return None
        (opened, high, low, closed, volume), flags, count = derived
        return Bar(
            base.block.symbols[row],
            self.block.label,
            int(buckets.starts[slot]),
            self._ends[cursor],
            opened,
            high,
            low,
            closed,
            volume,
            flags,
            count,
            int(buckets.stop[slot] - buckets.first[slot]),
        )


class Visible(Readable):
    """What of a series may be seen: its base bars before `cursor`, and what is derived of them.

    Args:
        series: The bars; written elsewhere, only read here.
        now: The session store's time, UTC microseconds.

    Attributes:
        ends: End of each base slot, UTC microseconds.
        cursor: Base slots before this one are visible.
        now: The session store's time.
        row_of: Each symbol's row.
        derived: What may be seen of the active derived intervals, by interval and by name.
    """

    __slots__ = ("_states", "cursor", "derived", "ends", "now", "row_of")

    cursor: int

    def __init__(self, series: Series, now: int) -> None:
        block = series.base
        super().__init__(block)
        self.ends = block.ends
        self.cursor = block.today
        self.now = Now(now)
        self.row_of = {symbol: row for row, symbol in enumerate(block.symbols)}
        # What is known of today's minutes without a bar: MISSING, NO_TRADE or UNRESOLVED.
        self._states = np.zeros(block.present[:, block.today :].shape, np.uint8)
        self.derived: dict[Interval | str, DerivedVisible] = {}
        for interval in series.derived:
            self.activate(series, interval)

    def activate(self, series: Series, interval: Interval) -> None:
        """Show an interval of the series, which is active in it."""
        view = DerivedVisible(series.derived[interval], series.buckets(interval), self.now)
        self.derived |= {interval: view, view.block.label: view}

    def moved_to(self, series: Series) -> Visible:
        """Return the same moment of another series of the same session, whatever its history."""
        other = Visible(series, self.now.micros)
        other.cursor = self.cursor - self.block.today + other.block.today
        other._states = self._states
        return other

    def forget_holes(self, rows: Ints) -> None:
        """Look for the rows' holes anew when they are next needed, at every interval."""
        super().forget_holes(rows)
        for view in self.derived.values():
            view.forget_holes(rows)

    def slots_ended(self, now: int) -> int:
        """Return how many base slots end at or before `now` (UTC microseconds)."""
        return int(np.searchsorted(self.ends, now, "right"))

    def note(self, rows: Ints, slots: Ints, states: NDArray[np.uint8]) -> None:
        """Note what is known of minutes without a bar; those of history are left out."""
        here = slots >= self.block.today
        self._states[rows[here], slots[here] - self.block.today] = states[here]

    def metrics(self, row: int, grace_micros: int = 0, check_micros: int = 0) -> SymbolMetrics:
        """Return the numbers of a row since today's start.

        Args:
            row: The row.
            grace_micros: For how long after its end no bar of a minute is expected yet.
            check_micros: Time between upkeep's checks; 0: what it knows shows at once.
        """
        return self.block.writes.consistent(
            lambda: self._metrics(row, *self._due(grace_micros, check_micros))
        )

    def _due(self, grace_micros: int, check_micros: int) -> tuple[int, int]:
        """Return before which slots bars are due, and before which upkeep has been asked."""
        now, cursor, session = self.now.micros, self.cursor, self.block.sessions[-1]
        if now >= session.end:  # what was not there by now will not come
            return cursor, cursor
        checked = now - (now - session.open) % check_micros if check_micros else now
        due, known = (self.slots_ended(time - grace_micros) for time in (now, checked))
        return min(due, cursor), min(known, cursor)

    def _metrics(self, row: int, due: int, known: int) -> SymbolMetrics:
        block, today = self.block, slice(self.block.today, self.cursor)
        present = block.present[row, today]
        values = block.values[:, row, today][:, present]
        bars = values.shape[1]
        expected, real, filled, no_trade, unresolved = self._minutes(row, due, known)
        return SymbolMetrics(
            symbol=block.symbols[row],
            bars=bars,
            volume=float(values[VOLUME].sum()),
            high=float(values[HIGH].max()) if bars else math.nan,
            low=float(values[LOW].min()) if bars else math.nan,
            last_update=int(self.ends[today][present][-1]) if bars else None,
            expected=expected,
            present=real,
            missing=expected - real - no_trade - unresolved,
            no_trade=no_trade,
            unresolved=unresolved,
            filled=filled,
            quality=100.0 * real / expected if expected else None,
            coverage=100.0 * (real + no_trade) / expected if expected else None,
        )

    def _minutes(self, row: int, due: int, known: int) -> tuple[int, int, int, int, int]:
        """Count today's minutes: expected, with a real bar, filled, no_trade, unresolved."""
        block, today = self.block, slice(self.block.today, due)
        flags, regular = block.flags[row, today], block.regular[today]
        real = block.present[row, today] & regular & ((flags & SYNTHETIC) == 0)
        filled = real & ((flags & FILLED) != 0)
        absent = (regular & ~real)[: max(known - block.today, 0)]
        states = self._states[row, : len(absent)][absent]
        return (
            int(np.count_nonzero(regular)),
            int(np.count_nonzero(real)),
            int(np.count_nonzero(filled)),
            int(np.count_nonzero(states == NO_TRADE)),
            int(np.count_nonzero(states == UNRESOLVED)),
        )
