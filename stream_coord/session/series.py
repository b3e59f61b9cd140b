"""Some sessions' bars at every interval: the base bars, and what is derived of them.

A derived block equals what `stream_coord.compute.derive` makes of the whole base block: it is made
when an interval is activated, and every write rebuilds exactly the buckets that it hits. So it
holds buckets that are not over yet, too; as everywhere, what may be seen of it is for the session
store's clock to say. Where history is kept of a derived interval and not of the base bars, its
block begins with sessions that the base block does not have; those bars are final.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stream_coord.calendars import Session
from stream_coord.compute.derive import Buckets, Derived, Segments, buckets_of, derive, derive_one
from stream_coord.compute.splits import rescale
from stream_coord.errors import SessionStoreError
from stream_coord.interval import DAY, Interval
from stream_coord.session.block import Block, Floats, Ints, Slots, Writes
from stream_coord.session.sliding import Planes

if TYPE_CHECKING:
    import polars as pl

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


@dataclass(frozen=True, slots=True)
class Trailing:
    """How much history is kept.

    Attributes:
        sessions: How many sessions before the current one.
        intervals: Of which intervals; None: of the base bars, and so of all. Where the base
            interval is among them it is of all intervals as well.
    """

    sessions: int = 0
    intervals: tuple[Interval, ...] | None = None

    def of(self, interval: Interval, base: Interval) -> int:
        """Return how many sessions before the current one are kept of an interval."""
        kept = self.intervals
        return self.sessions if kept is None or base in kept or interval in kept else 0


class Series:
    """The base bars of some sessions and the derived bars of each active interval.

    Args:
        base: The base bars.
        derived: The intervals to derive; the base interval itself is left out.
        trailing: How much history is kept when a session follows.
        before: Sessions before those of the base bars, oldest first: the derived intervals of
            which history is kept have slots for them, without bars at first.

    Attributes:
        base: The base bars. Who writes them other than by `put` calls `derive_from` afterwards.
        derived: The derived blocks by interval, shorter ones first. Never changed in place, so
            that other threads may go through it.
        trailing: As given.

    Raises:
        SessionStoreError: an interval that cannot be built of the base bars.
    """

    def __init__(
        self,
        base: Block,
        derived: Iterable[Interval] = (),
        trailing: Trailing = Trailing(),
        before: Sequence[Session] = (),
    ) -> None:
        self.base = base
        self.trailing = trailing
        self.derived: dict[Interval, Block] = {}
        self._before = tuple(before)
        self._buckets: dict[Interval, Buckets] = {}
        self._rescaled: tuple[tuple[int, float], ...] = ()
        self._history_changed = False  # perhaps while the next series was made ready
        for interval in derived:
            self.activate(interval)

    @classmethod
    def empty(
        cls,
        symbols: Sequence[str],
        sessions: Sequence[Session],
        interval: Interval,
        derived: Iterable[Interval] = (),
        trailing: Trailing = Trailing(),
    ) -> Series:
        """Return a series without bars, with room for sessions that follow.

        Args:
            symbols: The symbols, sorted by code point.
            sessions: The sessions, oldest first; the last one is today, the others are history.
            interval: The base interval.
            derived: The intervals to derive.
            trailing: How much history is kept.

        Raises:
            IntervalError: a session's segments are no whole number of bars.
            SessionStoreError: an interval that cannot be built of the base bars.
        """
        kept = trailing.of(interval, interval)
        slots = Slots.of_base(sessions[-1 - kept :], interval)
        base = Block.of(tuple(map(str, symbols)), slots, Writes(), kept + 1)
        before = () if kept else sessions[:-1]
        return cls(base, sorted({*derived} - {interval}), trailing, before)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions that any of its bars are of, oldest first."""
        return max((block.sessions for block in (self.base, *self.derived.values())), key=len)

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
            kept = self.trailing.of(interval, base.interval)
            sessions = (*self._before, *base.sessions) if kept else base.sessions
            slots, self._buckets[interval] = _derived_slots(sessions, interval, base)
            room = kept + 1 if base.has_room else 0
            block = Block.of(base.symbols, slots, base.writes, room)
            self._derive(block, 0)
            self.derived = dict(sorted({**self.derived, interval: block}.items()))
        return self.derived[interval]

    def buckets(self, interval: Interval) -> Buckets:
        """Return the buckets of an active derived interval, over the base slots."""
        return self._buckets[interval]

    def before(self, interval: Interval) -> int:
        """Return how many slots of a derived block lie before those of `buckets`."""
        return len(self.derived[interval].starts) - len(self._buckets[interval])

    def fill(self, frame: pl.DataFrame) -> int:
        """Put base bars of today into their slots, and derive what is built of them.

        Args:
            frame: A bar frame whose symbols are all in the series.

        Returns:
            How many of its bars have no slot.
        """
        outside = self.base.fill(frame)
        self.derive_from(self.base.today)
        return outside

    def derive_from(self, slot: int) -> None:
        """Build the derived bars anew from the one on that holds a base slot."""
        for block in self.derived.values():
            self._derive(block, slot)

    def following(
        self,
        session: Session,
        symbols: tuple[str, ...] | None = None,
        rescaled: Iterable[tuple[int, float]] = (),
    ) -> Series:
        """Return the series of the next session, made ready while this one is in use.

        It has the same derived intervals, and no bars of `session` yet. What it has of history is
        whole when it arrives (`arrive`), and not before.

        Args:
            session: The session.
            symbols: Its symbols; those that this series has not have no history. None: the same.
            rescaled: The splits between this session and that one, oldest first: the row of the
                symbol and the ratio by which its history is rescaled as it arrives.
        """
        names, base = self.base.symbols if symbols is None else symbols, self.base
        kept = self.trailing.of(base.interval, base.interval)
        slots = Slots.of_base(_latest(base.sessions, session, kept), base.interval)
        other = Series(base.following(names, slots, Writes(), kept + 1), (), self.trailing)
        other._rescaled = tuple(rescaled)
        for interval, block in self.derived.items():
            kept = self.trailing.of(interval, base.interval)
            sessions = _latest(block.sessions, session, kept)
            slots, other._buckets[interval] = _derived_slots(sessions, interval, other.base)
            next_block = block.following(names, slots, other.base.writes, kept + 1)
            other.derived[interval] = next_block
            other._before = max(other._before, sessions[: -len(other.base.sessions)], key=len)
        return other

    def arrive(self, before: Series) -> None:
        """Take over today's bars of the series that this one follows, now that they are final.

        Nobody may read that one any more.
        """
        self.base.arrive(before.base, anew=before._history_changed)
        for interval, block in self.derived.items():
            if interval in before.derived:
                block.arrive(before.derived[interval], anew=before._history_changed)
        for row, ratio in self._rescaled:
            self.rescale(row, ratio, self.base.sessions[-1].date)
        self._rescaled = ()

    def rescale(self, row: int, ratio: float, day: date) -> None:
        """Bring a symbol's bars of the sessions before a split into the terms after it.

        Args:
            row: The symbol's row.
            ratio: New shares for an old one.
            day: The date of the split; bars of that session and later ones stay as they are.
        """
        base = self.base
        stop = _first_slot(base, day)
        with base.writes.under_way():
            rescale(base.values, row, ratio, 0, stop)
            for interval, block in self.derived.items():
                before = self.before(interval)
                rescale(block.values, row, ratio, 0, min(before, _first_slot(block, day)))
                if stop:
                    upto = int(np.searchsorted(self._buckets[interval].first, stop))
                    self._derive(block, 0, upto, slice(row, row + 1))

    def take_today(self, other: Series) -> None:
        """Take over today's base bars of another series of the same symbols and session."""
        mine, theirs = self.base, other.base
        part = theirs.planes.part(theirs.today, len(theirs.starts))
        mine.planes.part(mine.today, len(mine.starts)).take(part, slice(None))
        self.derive_from(mine.today)

    def take_history(self, other: Series) -> None:
        """Take over all bars before today of another series of the same symbols and sessions."""
        self._history_changed = True
        pairs = [(self.base, other.base)]
        pairs += [(mine, other.activate(at)) for at, mine in self.derived.items()]
        with self.base.writes.under_way():
            for mine, theirs in pairs:
                mine.planes.part(0, mine.today).take(
                    theirs.planes.part(0, theirs.today), slice(None)
                )

    def put_history(self, bars: Series) -> None:
        """Take over the derived bars of some sessions of which no base bars are kept.

        Args:
            bars: Their bars, of the same symbols; every kept interval is active in it.
        """
        for interval, block in bars.derived.items():
            mine = self.derived[interval]
            first = int(np.searchsorted(mine.starts, block.starts[0]))
            mine.planes.part(first, first + len(block.starts)).take(block.planes, slice(None))

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
                    at = np.array([bucket + self.before(interval)])
                    found.append(Touched(block, rows, at))
                continue
            buckets = self._buckets[interval].of_slot[slots]
            inside = buckets >= 0  # a 1d bar has nothing of what is beyond the regular hours
            if inside.any():
                at = buckets[inside] + self.before(interval)
                cells = np.unique(rows[inside] * len(block.starts) + at)
                found.append(Touched(block, *np.divmod(cells, len(block.starts))))
        return found

    def copy(self) -> Series:
        """Return a series with the same bars in memory of its own."""
        writes = Writes()
        other = Series(self.base.copy(writes), (), self.trailing, self._before)
        other.derived = {interval: block.copy(writes) for interval, block in self.derived.items()}
        other._buckets = dict(self._buckets)
        return other

    def _derive(
        self, block: Block, slot: int, stop: int | None = None, rows: slice = slice(None)
    ) -> None:
        """Build derived bars of some rows: from the one that holds a base slot to a bucket."""
        base, buckets = self.base, self._buckets[block.interval]
        first = int(np.searchsorted(buckets.stop, slot, "right"))
        derived = derive(
            base.values[:, rows], base.present[rows], base.flags[rows], buckets, first, stop
        )
        before = len(block.starts) - len(buckets)
        last = len(buckets) if stop is None else stop
        cells = Planes(derived.values, derived.present, derived.flags, derived.n)
        block.planes.part(before + first, before + last).take(cells, rows)

    def _rebuild(self, cells: Touched) -> None:
        """Build these derived cells anew; many in one go, as if they were one symbol's day."""
        if len(cells.rows) <= _FEW_CELLS:
            for row, slot in zip(cells.rows.tolist(), cells.slots.tolist(), strict=True):
                self._rebuild_one(cells.block, row, slot)
            return
        block, buckets = cells.block, self._buckets[cells.block.interval]
        at = cells.slots - self.before(block.interval)
        first, widths = buckets.first[at], buckets.n_expected[at]
        stops = np.cumsum(widths)
        slots = np.arange(stops[-1]) + np.repeat(first - (stops - widths), widths)
        derived = derive_cells(
            self.base,
            np.repeat(cells.rows, widths),
            slots,
            Buckets(
                stops - widths,
                stops,
                buckets.starts[at],
                buckets.ends[at],
                buckets.regular[at],
                buckets.truncated[at],
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
        bucket = slot - self.before(block.interval)
        slots = slice(int(buckets.first[bucket]), int(buckets.stop[bucket]))
        derived = derive_one(
            base.values[:, row, slots],
            base.present[row, slots],
            base.flags[row, slots],
            bool(buckets.truncated[bucket]),
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


def _derived_slots(
    sessions: tuple[Session, ...], interval: Interval, base: Block
) -> tuple[Slots, Buckets]:
    """Return the slots of a derived interval over some sessions, and the buckets over base slots.

    The base block's sessions are the last of `sessions`.
    """
    every = buckets_of(_segments_of(sessions), base.interval.micros, interval.micros)
    if len(sessions) == len(base.sessions):
        buckets, firsts = every, base.slots.firsts
    else:
        segments = _segments_of(base.sessions)
        buckets = buckets_of(segments, base.interval.micros, interval.micros)
        firsts = Slots.of_base(sessions, base.interval).firsts
    first_slots = np.searchsorted(every.first, firsts).tolist()
    slots = Slots(
        interval,
        sessions,
        every.starts,
        every.ends,
        every.regular,
        tuple(first_slots),
        every.n_expected,
    )
    return slots, buckets


def _latest(sessions: tuple[Session, ...], session: Session, kept: int) -> tuple[Session, ...]:
    """Return a session and those before it that are kept."""
    return (*sessions, session)[-1 - kept :]


def _first_slot(block: Block, day: date) -> int:
    """Return the first slot of the sessions of a date and later ones."""
    firsts = (*block.slots.firsts, len(block.starts))
    return firsts[sum(session.date < day for session in block.sessions)]
