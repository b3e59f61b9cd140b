"""One session's bars at every interval: the base bars, and what is derived of them.

A derived block always equals what `stream_coord.compute.derive` makes of the whole base block: it
is made when an interval is activated, and every write rebuilds exactly the buckets that it hits.
So it holds buckets that are not over yet, too; as everywhere, what may be seen of it is for the
session store's clock to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from stream_coord.calendars import Session
from stream_coord.compute.derive import Buckets, Derived, Segments, buckets_of, derive, derive_one
from stream_coord.errors import SessionStoreError
from stream_coord.interval import DAY, Interval
from stream_coord.session.block import Block, Floats, Ints, Writes

_FEW_CELLS = 8
"""So many are built one by one in less time than together."""

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Touched:
    """Cells of one block, each once, by row and then by slot.

    Attributes:
        block: The block.
        rows: int64, shape (n,).
        slots: int64, shape (n,).
    """

    block: Block
    rows: Ints
    slots: Ints

    def ended(self, now: int) -> Touched:
        """Return the cells whose end is not after `now` (UTC microseconds)."""
        over = self.block.ends[self.slots] <= now
        return Touched(self.block, self.rows[over], self.slots[over])


@dataclass(frozen=True, slots=True)
class Kept:
    """What `SessionData.keep` changed, in the order in which a replay tells of it.

    Attributes:
        cells: Block, rows and slots: the base cells, then the cells of each configured derived
            interval that are rebuilt and were delivered before; int64, shape (n,) each.
    """

    cells: list[tuple[Block, Ints, Ints]]


class Series:
    """The base bars of some sessions and the derived bars of each active interval.

    Args:
        base: The base bars.
        derived: The intervals to derive; the base interval itself is left out.

    Attributes:
        base: The base bars. Who writes them other than by `put` does so before the first
            interval is activated.
        derived: The derived blocks by interval, shorter ones first. Never changed in place, so
            that other threads may go through it.

    Raises:
        SessionStoreError: an interval that cannot be built of the base bars.
    """

    def __init__(self, base: Block, derived: Iterable[Interval] = ()) -> None:
        self.base = base
        self.derived: dict[Interval, Block] = {}
        self._buckets: dict[Interval, Buckets] = {}
        for interval in derived:
            self.activate(interval)

    def activate(self, interval: Interval) -> Block:
        """Return the block of an interval, which is derived now if it was not before.

        Raises:
            SessionStoreError: it cannot be built of the base bars.
        """
        base = self.base
        if interval == base.interval:
            return base
        if interval not in self.derived:
            check_derivable(interval, base.interval)
            segments = _segments_of(base.sessions)
            buckets = buckets_of(segments, base.interval.micros, interval.micros)
            self._buckets[interval] = buckets
            block = _derived_block(base, interval, buckets)
            self.derived = dict(sorted({**self.derived, interval: block}.items()))
        return self.derived[interval]

    def buckets(self, interval: Interval) -> Buckets:
        """Return the buckets of an active derived interval."""
        return self._buckets[interval]

    def put(
        self, rows: Ints, slots: Ints, values: Floats, flags: NDArray[np.uint8]
    ) -> list[Touched]:
        """Write base bars and rebuild the derived bars that they are part of.

        Args:
            rows: The symbols' rows; shape (n,).
            slots: Base slots; shape (n,), no cell twice.
            values: open, high, low, close, volume; shape (5, n).
            flags: The bits of `stream_coord.bars`; shape (n,).

        Returns:
            The derived cells that were rebuilt, by interval.
        """
        base, touched = self.base, self.touched(rows, slots)
        with base.writes.under_way():
            base.values[:, rows, slots] = values
            base.flags[rows, slots] = flags
            base.present[rows, slots] = True
            for cells in touched:
                self._rebuild(cells)
        return touched

    def touched(self, rows: Ints, slots: Ints) -> list[Touched]:
        """Return the derived cells that base cells are part of, by interval."""
        found = []
        for interval, block in self.derived.items():
            if len(rows) == 1:  # as upkeep mostly does, and a feed: a third of the time
                bucket = int(self._buckets[interval].of_slot[slots[0]])
                if bucket >= 0:
                    found.append(Touched(block, rows, np.array([bucket])))
                continue
            buckets = self._buckets[interval].of_slot[slots]
            inside = buckets >= 0  # a 1d bar has nothing of what is beyond the regular hours
            if inside.any():
                cells = np.unique(rows[inside] * len(block.starts) + buckets[inside])
                found.append(Touched(block, *np.divmod(cells, len(block.starts))))
        return found

    def copy(self) -> Series:
        """Return a series with the same bars in memory of its own."""
        writes = Writes()
        other = Series(self.base.copy(writes))
        other.derived = {interval: block.copy(writes) for interval, block in self.derived.items()}
        other._buckets = dict(self._buckets)
        return other

    def _rebuild(self, cells: Touched) -> None:
        """Build these derived cells anew; many in one go, as if they were one symbol's day."""
        if len(cells.rows) <= _FEW_CELLS:
            for row, slot in zip(cells.rows.tolist(), cells.slots.tolist(), strict=True):
                self._rebuild_one(cells.block, row, slot)
            return
        block, buckets = cells.block, self._buckets[cells.block.interval]
        first, widths = buckets.first[cells.slots], buckets.n_expected[cells.slots]
        stops = np.cumsum(widths)
        slots = np.arange(stops[-1]) + np.repeat(first - (stops - widths), widths)
        derived = derive_cells(
            self.base,
            np.repeat(cells.rows, widths),
            slots,
            Buckets(
                stops - widths,
                stops,
                buckets.starts[cells.slots],
                buckets.ends[cells.slots],
                buckets.regular[cells.slots],
                buckets.truncated[cells.slots],
                np.repeat(np.arange(len(widths)), widths),
            ),
        )
        where = cells.rows, cells.slots
        block.values[:, *where] = derived.values[:, 0]
        block.flags[where] = derived.flags[0]
        block.present[where] = derived.present[0]
        if block.n is not None:
            block.n[where] = derived.n[0]

    def _rebuild_one(self, block: Block, row: int, slot: int) -> None:
        base, buckets = self.base, self._buckets[block.interval]
        slots = slice(int(buckets.first[slot]), int(buckets.stop[slot]))
        derived = derive_one(
            base.values[:, row, slots],
            base.present[row, slots],
            base.flags[row, slots],
            bool(buckets.truncated[slot]),
        )
        if derived is not None and block.n is not None:
            block.values[:, row, slot], block.flags[row, slot], block.n[row, slot] = derived
            block.present[row, slot] = True


def derive_cells(base: Block, rows: Ints, slots: Ints, buckets: Buckets) -> Derived:
    """Derive of base cells in any order, with buckets over their positions; shapes (5, 1, K)."""
    return derive(
        base.values[:, rows, slots][:, None],
        base.present[rows, slots][None],
        base.flags[rows, slots][None],
        buckets,
    )


def check_derivable(interval: Interval, base: Interval) -> None:
    """Raise unless bars of an interval can be built of base bars.

    Raises:
        SessionStoreError: it is no whole multiple of the base interval, at least 2 times it.
    """
    if interval.micros <= base.micros or interval.micros % base.micros or interval.micros > DAY:
        raise SessionStoreError(
            f"the session has no {interval} bars: they cannot be built of its {base} bars",
            f"Ask for {base}, a whole multiple of it such as {Interval(2 * base.micros)}, or 1d.",
        )


def _segments_of(sessions: Sequence[Session]) -> Segments:
    """Return the segments of all sessions, one after the other."""
    parts = [(part, session) for session in sessions for part in session.segments]
    return Segments(
        np.array([part.open for part, _ in parts], np.int64),
        np.array([part.close for part, _ in parts], np.int64),
        np.array([part.kind == "regular" for part, _ in parts], np.bool_),
        np.array([(session.date - _EPOCH).days * DAY for _, session in parts], np.int64),
    )


def _derived_block(base: Block, interval: Interval, buckets: Buckets) -> Block:
    derived = derive(base.values, base.present, base.flags, buckets)
    return Block(
        interval=interval,
        label=str(interval),
        symbols=base.symbols,
        sessions=base.sessions,
        starts=buckets.starts,
        ends=buckets.ends,
        regular=buckets.regular,
        values=derived.values,
        present=derived.present,
        flags=derived.flags,
        today=int(np.searchsorted(buckets.first, base.today)),
        n=derived.n,
        n_expected=buckets.n_expected,
        writes=base.writes,
    )
