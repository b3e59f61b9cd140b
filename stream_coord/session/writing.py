"""The current session's bars while they change: bars of a feed, late ones, fills of upkeep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, Bar
from stream_coord.calendars import Session
from stream_coord.errors import SessionStoreError
from stream_coord.interval import Interval
from stream_coord.session.arrival import Arrival
from stream_coord.session.block import Block, Bools, Floats, Ints, slots_of
from stream_coord.session.series import Kept, Series, Touched
from stream_coord.session.views import bar_at
from stream_coord.session.visible import Visible


class Current:
    """The current session's bars, and all that changes them.

    Everything here is done with the session store's lock held.

    Args:
        session: The session.
        series: Its bars, as far as they are known beforehand.
        configured: The derived intervals of which `keep` reports.
        replayed: Whether the bars are all there, so that none of a minute to come may be added.

    Attributes:
        session: The session.
        replayed: Whether the session is replayed.
        pristine: The bars that a replay tells of, and upkeep's fills; no strategy changes them.
        series: The bars that are read. They are the pristine ones until a strategy adds some of
            its own to a replay, and from then on a copy.
        visible: What of `series` may be seen.
        updates: Late and revised bars that nobody was told of yet, in order of arrival.
        newest_end: End of the newest bar of the session that was put; None before the first.
    """

    def __init__(
        self,
        session: Session,
        series: Series,
        configured: tuple[Interval, ...],
        *,
        replayed: bool,
    ) -> None:
        self.session = session
        self.replayed = replayed
        self._told = (series.base.interval, *configured)
        self.pristine = self.series = series
        self.visible = Visible(series, session.start)
        self.updates: list[Bar] = []
        self.newest_end: int | None = None

    def activate(self, interval: Interval) -> None:
        """Derive the bars of an interval, if they are not derived already.

        Raises:
            SessionStoreError: they cannot be built of the base bars.
        """
        self.pristine.activate(interval)
        self.series.activate(interval)
        if interval in self.series.derived and interval not in self.visible.derived:
            self.visible.activate(self.series, interval)

    def put(
        self, rows: Ints, starts: Ints, values: Floats, flags: NDArray[np.uint8]
    ) -> Counter[Arrival]:
        """Put bars where they belong and say what they were to the store.

        Args:
            rows: The symbols' rows; shape (n,).
            starts: Starts in UTC microseconds; shape (n,), no bar twice.
            values: open, high, low, close, volume; shape (5, n).
            flags: Bits of `stream_coord.bars`; shape (n,).

        Raises:
            SessionStoreError: in a replay, one of a minute that is still to come.
        """
        base = self.series.base
        slots = slots_of(base.starts, base.interval, starts)
        if self.replayed and (slots >= self.visible.cursor).any():
            raise SessionStoreError(
                "a replay brings the bars of the minutes to come itself; add only past ones"
            )
        inside = slots >= 0
        if (newest := slots.max(initial=-1)) >= base.today:
            self.newest_end = max(self.newest_end or 0, int(base.ends[newest]))
        arrivals = self._put(rows[inside], slots[inside], values[:, inside], flags[inside])
        if outside := len(slots) - int(np.count_nonzero(inside)):
            arrivals[Arrival.OUT_OF_SESSION] = outside
        return arrivals

    def keep(self, rows: Ints, slots: Ints, values: Floats, flags: NDArray[np.uint8]) -> Kept:
        """Write what upkeep found of past minutes; arguments as for `SessionData.keep`.

        Raises:
            SessionStoreError: a minute that is still to come.
        """
        if (slots >= self.visible.cursor).any():
            raise SessionStoreError("upkeep fills past minutes only; this one is still to come")
        order = np.lexsort((slots, rows))
        cells = rows[order], slots[order], values[:, order], flags[order]
        kept = self._keep(self.pristine, *cells)
        own = kept if self.series is self.pristine else self._keep(self.series, *cells)
        self.visible.forget_holes(rows)
        self._tell(own)
        told = [some for some in kept if some.block.interval in self._told]
        return Kept([(some.block, some.rows, some.slots) for some in told])

    def take_history(self, loaded: Series) -> None:
        """Let history be what was loaded, of the same symbols and session.

        Raises:
            SessionStoreError: in a replay, where it is not of the sessions that there is room for.
        """
        if not self.replayed:
            loaded.take_today(self.series)
            self.visible = self.visible.moved_to(loaded)
            self.pristine = self.series = loaded
            return
        if loaded.sessions != self.series.sessions:
            raise SessionStoreError(
                "the replay has no room for this history",
                "It holds as many sessions as history.trailing_days of its settings says.",
            )
        for series in {id(some): some for some in (self.pristine, self.series)}.values():
            series.take_history(loaded)
        self.visible.forget_holes(np.arange(len(loaded.base.symbols)))

    def note_states(self, rows: Ints, slots: Ints, states: NDArray[np.uint8]) -> None:
        """Note what upkeep learned of minutes without a bar."""
        with self.series.base.writes.under_way():
            self.visible.note(rows, slots, states)

    def slots(self, slots: Ints, of: Block | None) -> Ints | None:
        """Return slots of a block as those of the current one; None: its session is over."""
        base = self.pristine.base
        if of is None or of is base:
            return slots
        if of.sessions[-1] != self.session:
            return None
        return slots + (base.today - of.today)

    def drain_updates(self) -> list[Bar]:
        """Return the updates and forget them."""
        updates, self.updates = self.updates, []
        return updates

    def _put(
        self, rows: Ints, slots: Ints, values: Floats, flags: NDArray[np.uint8]
    ) -> Counter[Arrival]:
        base, now = self.series.base, self.visible.now.micros
        there = base.present[rows, slots]
        same = there & (base.values[:, rows, slots] == values).all(axis=0)
        # A real bar takes the place of a synthetic one even where their values agree.
        same &= (base.flags[rows, slots] ^ flags) & SYNTHETIC == 0
        # A replay has delivered the minute that ends now; a feed may be about to.
        ends = base.ends[slots]
        over = ends <= now if self.replayed else ends < now
        fresh = ~same
        if fresh.any():
            self._write(rows[fresh], slots[fresh], values[:, fresh], flags[fresh])
            self._tell(self._late(rows, slots, fresh & (there | over)))
        counts = {
            Arrival.ADDED: ~there & ~over,
            Arrival.LATE: ~there & over,
            Arrival.DUPLICATE: same,
            Arrival.REVISED: there & ~same,
        }
        return Counter({kind: n for kind, of in counts.items() if (n := int(of.sum()))})

    def _write(self, rows: Ints, slots: Ints, values: Floats, flags: NDArray[np.uint8]) -> None:
        if self.replayed and self.series is self.pristine:
            # What a strategy adds is its own doing: what the replay tells of stays as it is.
            self.series = self.series.copy()
            self.visible = self.visible.moved_to(self.series)
        self.series.put(rows, slots, values, flags)
        self.visible.forget_holes(rows)

    def _late(self, rows: Ints, slots: Ints, changed: Bools) -> list[Touched]:
        """Return the visible cells that changed: base cells, then derived ones."""
        seen = changed & (slots < self.visible.cursor)
        base = Touched(self.series.base, rows[seen], slots[seen])
        derived = self.series.touched(base.rows, base.slots)
        return [base, *(some.ended(self.visible.now.micros) for some in derived)]

    def _keep(
        self,
        series: Series,
        rows: Ints,
        slots: Ints,
        values: Floats,
        flags: NDArray[np.uint8],
    ) -> list[Touched]:
        """Write to a series; return the base cells and the rebuilt ones delivered before now."""
        base = series.base
        real = base.present[rows, slots] & (base.flags[rows, slots] & SYNTHETIC == 0)
        new = ~real | (flags & SYNTHETIC == 0)  # no synthetic bar takes the place of a real one
        if not self.replayed:  # nor a filled one that of a bar which the feed has brought meanwhile
            new &= ~real | (base.flags[rows, slots] & FILLED != 0)
        rows, slots = rows[new], slots[new]
        derived = series.put(rows, slots, values[:, new], flags[new])
        # Derived bars that end now are not delivered yet: they come after upkeep.
        ended = [some.ended(self.visible.now.micros - 1) for some in derived]
        return [some for some in (Touched(base, rows, slots), *ended) if len(some.rows)]

    def _tell(self, cells: Iterable[Touched]) -> None:
        for some in cells:
            for row, slot in zip(some.rows.tolist(), some.slots.tolist(), strict=True):
                self.updates.append(bar_at(some.block, row, slot))


def check_values(values: Floats, symbols: Iterable[str]) -> None:
    """Raise for the first bar whose values no bar can have; `values` has shape (5, n).

    Raises:
        SessionStoreError: names the symbol and the values.
    """
    if values.shape[0] != len(FIELDS):
        raise SessionStoreError(f"a bar has {len(FIELDS)} values: {', '.join(FIELDS)}")
    opens, highs, lows, closes, volumes = values
    sound = (
        np.isfinite(values).all(axis=0)
        & (highs >= np.maximum(np.maximum(opens, closes), lows))
        & (lows <= np.minimum(opens, closes))
        & (volumes >= 0)
    )
    if not sound.all():
        bad = int(np.flatnonzero(~sound)[0])
        found = dict(zip(FIELDS, values[:, bad].tolist(), strict=True))
        raise SessionStoreError(
            f"no bar has these values: {list(symbols)[bad]} {found}",
            "Values are finite, high is the highest, low the lowest, volume not negative.",
        )
