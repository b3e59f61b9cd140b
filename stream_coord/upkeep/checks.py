"""What upkeep does at its checks alike, in a replay and for a feed: when, whom, with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS
from stream_coord.compute.gaps import MISSING, NO_TRADE, UNRESOLVED, CellRuns, GapCells
from stream_coord.session.block import Block, Bools, Floats, Ints
from stream_coord.session.data import SessionData
from stream_coord.session.views import CLOSE, VOLUME
from stream_coord.upkeep import Upkeep

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Checks:
    """When upkeep looks after a session, and when it asks again after failures.

    Checks are at the open, every so often after it, and one last time.

    Args:
        upkeep: How.
        opened: The open of the session, UTC microseconds.
        last: The last check, UTC microseconds; at it everything is due, and nobody is patient.
    """

    def __init__(self, upkeep: Upkeep, opened: int, last: int) -> None:
        self._opened = opened
        self._last = last
        self._step = upkeep.check_micros
        self._grace = upkeep.grace_micros
        self._attempts = upkeep.attempts
        self._failures = 0  # of questions, one after the other
        self._ask_after = opened

    def of(self, ends: Ints) -> Ints:
        """Return the first check at which each bar is due, by its end; UTC microseconds."""
        late = ends + self._grace - self._opened
        return np.minimum(self._opened + -(-late // self._step) * self._step, self._last)

    def at(self, now: int) -> int:
        """Return the newest check at or before `now`."""
        return self._last if now >= self._last else now - (now - self._opened) % self._step

    def may_ask(self, now: int) -> bool:
        """Return whether the sources may be asked at a check."""
        return now > self._ask_after or now >= self._last

    def asked(self, now: int, failed: bool) -> None:
        """Note that they were: after as many failures in a row as there are attempts, be patient.

        That is, let twice as many checks pass each time. A source that is down all day would
        otherwise be waited for at each of hundreds of checks.
        """
        self._failures = self._failures + 1 if failed else 0
        too_many = self._failures - self._attempts
        pause = 2**too_many if too_many > 0 else 0
        self._ask_after = now + pause * self._step

    def again(self, now: int) -> int | None:
        """Return the next check after `now` at which to ask; None: the last one is past."""
        now = max(now, min(self._ask_after, self._last - 1))
        later = self.at(now) + self._step
        return min(later, self._last) if now < self._last else None


def reopen_unanswered(cells: GapCells | CellRuns, enquirer: Enquirer | None) -> Bools:
    """Return which remembered minutes are to be asked for, which makes them missing again.

    That is, all of which not every source is known to lack the bar; none where there is nobody to
    ask. A run's attempts are its own: those of others do not count.
    """
    if enquirer is None:
        return np.zeros(len(cells), np.bool_)
    everybody = enquirer.every_bit
    answered: Bools = (cells.state == NO_TRADE) & ((cells.empty & everybody) == everybody)
    cells.state[~answered] = MISSING
    cells.tries[:] = 0
    return ~answered


def note_known(cells: GapCells, slots: Ints, data: SessionData, of: Block | None = None) -> None:
    """Tell the session store which minutes are explained, or given up on.

    Args:
        cells: The minutes.
        slots: The slot of the base block of each slot of the regular grid; int64, shape (R,).
        data: The session store.
        of: The base block whose slots these are, if the store may have another one by now.
    """
    known = np.flatnonzero((cells.state == NO_TRADE) | (cells.state == UNRESOLVED))
    if len(known):
        data.note_states(cells.rows[known], slots[cells.slots[known]], cells.state[known], of)


def flat_bars(block: Block, rows: Ints, slots: Ints) -> tuple[Ints, Ints, Floats]:
    """Return a bar without volume at the last close for each cell that has one before it today.

    Args:
        block: The bars.
        rows: int64, shape (n,).
        slots: int64, shape (n,).

    Returns:
        Rows, slots and values of m <= n cells; int64 (m,), int64 (m,) and float64 (5, m).
    """
    closes = _closes_before(block, rows, slots)
    known = ~np.isnan(closes)
    values = np.zeros((len(FIELDS), int(known.sum())))
    values[:VOLUME] = closes[known]
    return rows[known], slots[known], values


def columns(plane: NDArray[_Scalar], slots: Ints) -> NDArray[_Scalar]:
    """Return some columns; a view where they are neighbours, which they mostly are."""
    if len(slots) and slots[-1] - slots[0] + 1 == len(slots):
        return plane[:, slots[0] : slots[-1] + 1]
    return plane[:, slots]


def _closes_before(block: Block, rows: Ints, slots: Ints) -> Floats:
    """Return the close of today's last bar before each of some cells, NaN where there is none.

    Not yesterday's: what a replay delivers does not depend on how much history it has.
    """
    closes = np.full(len(rows), np.nan)
    for row in np.unique(rows).tolist():
        chosen = rows == row
        stop = int(slots[chosen].max())
        there = block.today + np.flatnonzero(block.present[row, block.today : stop])
        at = np.searchsorted(there, slots[chosen]) - 1
        found = block.values[CLOSE, row, there[at]] if len(there) else np.nan
        closes[chosen] = np.where(at >= 0, found, np.nan)
    return closes
