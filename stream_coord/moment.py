"""A replay at one moment, as seen from another thread while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stream_coord.bars import FILLED, SYNTHETIC
from stream_coord.calendars import Session
from stream_coord.session.block import Block, Bools, Ints
from stream_coord.session.boundaries import SessionState, StateChange


@dataclass(frozen=True)
class Moment:
    """How far a replay has come.

    Attributes:
        session: The session that streams.
        number: Which of the run's sessions it is, from 1.
        clock: Simulated time, UTC microseconds.
        state: The session's state.
        resting: Whether the session pauses now: a lunch break.
        bars: Base bars delivered since the run began.
        lag_seconds: How late the newest minute came; 0 at full speed.
        symbols: Those of which bars are expected, sorted by code point.
        due: Regular minutes that are over, those of the grace period left out.
        present: Of these, how many each symbol has; int64, shape of `symbols`.
    """

    session: Session
    number: int
    clock: int
    state: SessionState
    resting: bool
    bars: int
    lag_seconds: float
    symbols: tuple[str, ...]
    due: int
    present: Ints


@dataclass(frozen=True)
class Running:
    """The session that streams, and what it takes to tell how far it is.

    Attributes:
        session: The session.
        number: Which of the run's sessions it is, from 1.
        block: Its bars, those to come too.
        expected: Which symbols are held to account; bool, shape (S,).
        bars_before: Base bars of the sessions before it.
        grace_micros: How long after its end a bar may be absent without being missing.
        changes: The changes of its state, in order of time.
    """

    session: Session
    number: int
    block: Block
    expected: Bools
    bars_before: int
    grace_micros: int = 0
    changes: Sequence[StateChange] = ()

    def at(self, now: int, clock: int, lag_seconds: float) -> Moment:
        """Return what may be known at `now`.

        Args:
            now: End of the newest minute delivered, UTC microseconds.
            clock: Simulated time, UTC microseconds.
            lag_seconds: How late the newest minute came.
        """
        return self.block.writes.consistent(lambda: self._at(now, clock, lag_seconds))

    def state_at(self, now: int) -> SessionState:
        """Return the state of the session at a time."""
        passed = [change.entered for change in self.changes if change.time <= now]
        return passed[-1] if passed else SessionState.NOT_STARTED

    def _at(self, now: int, clock: int, lag_seconds: float) -> Moment:
        block = self.block
        over = now >= self.session.end
        seen, due = (
            slice(block.today, int(np.searchsorted(block.ends, time, side="right")))
            for time in (now, now if over else now - self.grace_micros)
        )
        present, regular = block.present[:, due], block.regular[due]
        real = present & ((block.flags[:, due] & SYNTHETIC) == 0) & regular
        delivered = block.present[:, seen] & (block.flags[:, seen] & (SYNTHETIC | FILLED) == 0)
        rows = np.flatnonzero(self.expected).tolist()
        return Moment(
            session=self.session,
            number=self.number,
            clock=clock,
            state=self.state_at(now),
            resting=any(
                before.close < clock < after.open
                for before, after in pairwise(self.session.segments)
            ),
            bars=self.bars_before + int(np.count_nonzero(delivered)),
            lag_seconds=lag_seconds,
            symbols=tuple(block.symbols[row] for row in rows),
            due=int(np.count_nonzero(regular)),
            present=np.count_nonzero(real, axis=1)[rows],
        )
