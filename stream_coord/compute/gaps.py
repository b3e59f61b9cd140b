"""Gaps: maximal runs of expected minutes without a bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GapRuns:
    """Gaps of many symbols as three arrays of equal length, by row and then by slot.

    Attributes:
        rows: The symbol's row; int64.
        first: The gap's first slot; int64.
        stop: The slot after the gap's last one; int64.
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]


def gap_runs(present: NDArray[np.bool_], expected: NDArray[np.bool_]) -> GapRuns:
    """Return the maximal runs of slots that are expected and not present.

    A run ends where a slot is present or not expected. Slots are neighbours on the grid, not on
    the clock: a gap goes on across a lunch break.

    Args:
        present: Whether there is a bar; shape (S, T).
        expected: Whether one is due; shape (T,) or (S, T).
    """
    missing = np.zeros((present.shape[0], present.shape[1] + 2), np.int8)
    missing[:, 1:-1] = ~present & expected
    change = np.diff(missing, axis=1)
    rows, first = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)
    return GapRuns(rows, first, stop)
