"""A block and the cursor that says how much of it may be seen; everything that reads a block.

Rows are positions in the block's symbols; the session store turns symbols into rows. A reader
takes what it needs from one `Visible`, so a session that begins meanwhile cannot mix with it.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

from stream_coord.bars import FIELDS, SYNTHETIC, Bar
from stream_coord.session.block import Block, Floats
from stream_coord.session.views import HIGH, LOW, VOLUME, Bars, SymbolMetrics, bar_at


class Visible:
    """What of a block may be seen: the slots before `cursor`.

    Args:
        block: The bars; written elsewhere, only read here.

    Attributes:
        block: The same memory, read-only.
        ends: End of each slot, UTC microseconds.
        cursor: Slots before this one are visible.
        row_of: Each symbol's row.
    """

    __slots__ = ("_holes", "_planes", "_regular_before", "block", "cursor", "ends", "row_of")

    def __init__(self, block: Block) -> None:
        self.block = block.readonly()
        self.ends = block.ends
        self.cursor = block.today
        self.row_of = {symbol: row for row, symbol in enumerate(block.symbols)}
        self._planes = dict(zip(FIELDS, self.block.values, strict=True))
        self._regular_before = np.concatenate([[0], np.cumsum(block.regular)])
        self._holes: list[list[int] | None] = [None] * len(block.symbols)

    def slots_ended(self, now: int) -> int:
        """Return how many slots end at or before `now` (UTC microseconds)."""
        return int(np.searchsorted(self.ends, now, "right"))

    def forget_holes(self, row: int) -> None:
        """Look for the row's holes anew when they are next needed: a bar was added."""
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

    def metrics(self, row: int) -> SymbolMetrics:
        """Return the numbers of a row since today's start."""
        return self.block.writes.consistent(lambda: self._metrics(row))

    def _newest(self, row: int) -> Bar | None:
        present, slot = self.block.present[row], self.cursor - 1
        if slot >= 0 and not present[slot]:
            earlier = np.flatnonzero(present[:slot])
            slot = int(earlier[-1]) if len(earlier) else -1
        return bar_at(self.block, row, slot) if slot >= 0 else None

    def _metrics(self, row: int) -> SymbolMetrics:
        block, today = self.block, slice(self.block.today, self.cursor)
        present = block.present[row, today]
        values = block.values[:, row, today][:, present]
        real = present & ((block.flags[row, today] & SYNTHETIC) == 0)
        expected = int(self._regular_before[today.stop] - self._regular_before[today.start])
        covered = int(np.count_nonzero(real & block.regular[today]))
        bars = values.shape[1]
        return SymbolMetrics(
            symbol=block.symbols[row],
            bars=bars,
            volume=float(values[VOLUME].sum()),
            high=float(values[HIGH].max()) if bars else math.nan,
            low=float(values[LOW].min()) if bars else math.nan,
            last_update=int(self.ends[today][present][-1]) if bars else None,
            expected=expected,
            present=covered,
            missing=expected - covered,
            quality=100.0 * covered / expected if expected else None,
        )

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
