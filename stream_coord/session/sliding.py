"""Memory over which a window of slots slides, so that no bar is moved when a session rolls.

The rows of a block lie one after the other in one line, `width` slots each, and the window begins
at the same offset in all of them. To slide is to move that offset: what a row's window enters at
its end is where the next row's window has begun until now. So a few spare slots at the end of the
line, and not of each row, let the window of any number of symbols slide through many sessions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS

_SPARE_SHARE = 16
"""One part in so many of the line is there to slide over."""
_SPARE_SESSIONS = 8
"""At least so many sessions: it is little memory where there are few symbols."""


class Planes(NamedTuple):
    """The cells of a block.

    Attributes:
        values: float64, shape (5, S, C).
        present: bool, shape (S, C).
        flags: uint8, shape (S, C).
        n: int32, shape (S, C); None where all bars are base bars.
    """

    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    flags: NDArray[np.uint8]
    n: NDArray[np.int32] | None

    def clear(self) -> None:
        """Let the cells hold no bar."""
        self.values[...] = np.nan
        self.present[...] = False
        self.flags[...] = 0
        if self.n is not None:
            self.n[...] = 0

    def part(self, first: int, stop: int) -> Planes:
        """Return a view of the slots first ... stop - 1."""
        slots = slice(first, stop)
        n = None if self.n is None else self.n[:, slots]
        return Planes(self.values[..., slots], self.present[:, slots], self.flags[:, slots], n)

    def take(self, other: Planes, rows: NDArray[np.int64] | slice) -> None:
        """Copy the cells of `other`, row by row, to some rows here."""
        self.values[:, rows] = other.values
        self.present[rows] = other.present
        self.flags[rows] = other.flags
        if self.n is not None and other.n is not None:
            self.n[rows] = other.n

    def copy(self) -> Planes:
        """Return the same cells in memory of their own."""
        n = None if self.n is None else self.n.copy()
        return Planes(self.values.copy(), self.present.copy(), self.flags.copy(), n)


class Sliding:
    """The memory.

    Args:
        rows: How many symbols, S.
        width: How many slots there are for each at a time.
        spare: How many slots a window can slide through.
        counted: Whether there is a plane `n`.

    Attributes:
        line: All cells in one line; its planes have the shapes (5, L) and (L,).
        width: As given.
    """

    def __init__(self, rows: int, width: int, spare: int, *, counted: bool) -> None:
        self._rows = rows
        self.width = width
        cells = rows * width + spare
        self.line = Planes(
            np.empty((len(FIELDS), cells)),
            np.empty(cells, np.bool_),
            np.empty(cells, np.uint8),
            np.empty(cells, np.int32) if counted else None,
        )

    @classmethod
    def roomy(cls, rows: int, sessions: int, longest: int, *, counted: bool) -> Sliding:
        """Return memory for some sessions and the one that is made ready to follow them.

        Args:
            rows: How many symbols.
            sessions: How many sessions a window has.
            longest: How many slots a session has at most.
            counted: Whether there is a plane `n`.
        """
        width = (sessions + 1) * longest
        spare = max(rows * width // _SPARE_SHARE, _SPARE_SESSIONS * longest)
        return cls(rows, width, spare, counted=counted)

    def holds(self, offset: int, slots: int) -> bool:
        """Return whether a window of so many slots can begin at `offset`."""
        return slots <= self.width and offset + self._rows * self.width <= len(self.line.flags)

    def window(self, offset: int, slots: int) -> Planes:
        """Return a view of the cells of a window."""
        stop, shape = offset + self._rows * self.width, (self._rows, self.width)
        values, present, flags, n = self.line
        return Planes(
            values[:, offset:stop].reshape(len(FIELDS), *shape)[..., :slots],
            present[offset:stop].reshape(shape)[:, :slots],
            flags[offset:stop].reshape(shape)[:, :slots],
            None if n is None else n[offset:stop].reshape(shape)[:, :slots],
        )
