"""What a session's bars were worth, measured on its block and kept without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stream_coord.bars import SYNTHETIC
from stream_coord.calendars import Session
from stream_coord.compute.gaps import GapRuns, gap_runs
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.session.block import Block, Bools, Ints


@dataclass(frozen=True)
class SessionQuality:
    """The quality of one session, a few bytes a symbol; rows are made when asked for.

    Attributes:
        session: The session.
        symbols: All symbols, sorted by code point.
        expected: Which of them were held to account; bool, shape (S,).
        present: Regular minutes with a real bar; int64, shape (S,).
        runs: Gaps on the regular grid.
    """

    session: Session
    symbols: tuple[str, ...]
    expected: Bools
    present: Ints
    runs: GapRuns
    _starts: Ints
    _interval_micros: int

    def rows(self) -> Iterator[QualityRow]:
        """Yield one row per expected symbol."""
        date_text, due = self.session.date.isoformat(), len(self._starts)
        for row in np.flatnonzero(self.expected).tolist():
            count = int(self.present[row])
            yield QualityRow(self.symbols[row], date_text, due, count, missing=due - count)

    def gaps(self) -> Iterator[GapRow]:
        """Yield the gaps of the expected symbols, by symbol and then by time."""
        date_text, runs = self.session.date.isoformat(), self.runs
        starts = self._starts[runs.first].tolist()
        ends = (self._starts[runs.stop - 1] + self._interval_micros).tolist()
        minutes = (runs.stop - runs.first).tolist()
        for row, start, end, count in zip(runs.rows.tolist(), starts, ends, minutes, strict=True):
            yield GapRow(self.symbols[row], date_text, start, end, count, "missing")


def measure_session(block: Block, session: Session, expected: Bools) -> SessionQuality:
    """Measure today's session of a block.

    Args:
        block: The bars.
        session: The block's newest session.
        expected: Which symbols are held to account; bool, shape (S,).
    """
    today = slice(block.today, None)
    regular = np.flatnonzero(block.regular[today])
    real = block.present[:, today] & ((block.flags[:, today] & SYNTHETIC) == 0)
    present = real[:, regular]
    return SessionQuality(
        session,
        block.symbols,
        expected,
        np.count_nonzero(present, axis=1),
        gap_runs(present, np.broadcast_to(expected[:, None], present.shape)),
        block.starts[today][regular],
        block.interval.micros,
    )
