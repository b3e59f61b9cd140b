"""What the session store hands out: a run of one symbol's bars, and numbers about a symbol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, Bar
from stream_coord.errors import SessionStoreError
from stream_coord.session.block import Block, Floats, Ints

OPEN, HIGH, LOW, CLOSE, VOLUME = range(len(FIELDS))


class Bars(msgspec.Struct, gc=False, eq=False):
    """Consecutive existing bars of one symbol, oldest first; read-only.

    Columns are views of the session store where no bar is missing in between (valid until the
    next step), and copies where one is. A `Bar` is made only for whoever asks for one.

    When the session rolls, its memory is given to other bars: from then on whatever is asked for
    raises `SessionStoreError`. A column that was taken before may show anything.
    """

    _block: Block
    _row: int
    _slots: slice | Ints

    def __len__(self) -> int:
        slots = self._slots
        return slots.stop - slots.start if isinstance(slots, slice) else len(slots)

    def __repr__(self) -> str:
        # Not the fields: the block holds what is still to come.
        return f"<{len(self)} {self._block.label} bars of {self.symbol}>"

    @property
    def symbol(self) -> str:
        """The symbol."""
        return self._block.symbols[self._row]

    def _look(self) -> Block:
        """Return the block, if its memory is still that of these bars."""
        if self._block.writes.gone:
            raise SessionStoreError(
                f"these {self._block.label} bars of {self.symbol} are gone: the session has rolled",
                "Ask for them anew, or copy what is to be kept over a roll.",
            )
        return self._block

    @property
    def start(self) -> Ints:
        """Starts in UTC microseconds; int64, shape (n,)."""
        return self._block.starts[self._slots]

    @property
    def end(self) -> Ints:
        """Ends in UTC microseconds; int64, shape (n,)."""
        return self._block.ends[self._slots]

    @property
    def open(self) -> Floats:
        """First prices; float64, shape (n,)."""
        return self._column(OPEN)

    @property
    def high(self) -> Floats:
        """Highest prices; float64, shape (n,)."""
        return self._column(HIGH)

    @property
    def low(self) -> Floats:
        """Lowest prices; float64, shape (n,)."""
        return self._column(LOW)

    @property
    def close(self) -> Floats:
        """Last prices; float64, shape (n,)."""
        return self._column(CLOSE)

    @property
    def volume(self) -> Floats:
        """Traded quantities; float64, shape (n,)."""
        return self._column(VOLUME)

    @property
    def flags(self) -> NDArray[np.uint8]:
        """The bits of `stream_coord.bars`; uint8, shape (n,)."""
        return self._look().flags[self._row, self._slots]

    @property
    def n(self) -> NDArray[np.int32]:
        """Real base bars that each is built of (1 for a base bar); int32, shape (n,)."""
        counts = self._look().n
        if counts is None:
            return np.broadcast_to(np.int32(1), len(self))
        return counts[self._row, self._slots]

    @property
    def n_expected(self) -> Ints:
        """Base bars that each would be built of without a hole; int64, shape (n,)."""
        counts = self._block.n_expected
        return np.broadcast_to(np.int64(1), len(self)) if counts is None else counts[self._slots]

    def __getitem__(self, position: int) -> Bar:
        length = len(self)
        if not -length <= position < length:
            raise IndexError(f"bar {position} of {length}")
        slots = self._slots
        position %= length
        slot = slots.start + position if isinstance(slots, slice) else int(slots[position])
        return self._block.writes.consistent(lambda: bar_at(self._look(), self._row, slot))

    def __iter__(self) -> Iterator[Bar]:
        (opens, highs, lows, closes, volumes), *counts = self._block.writes.consistent(self._lists)
        starts: list[int] = self.start.tolist()
        ends: list[int] = self.end.tolist()
        names = repeat(self.symbol), repeat(self._block.label)
        return map(Bar, *names, starts, ends, opens, highs, lows, closes, volumes, *counts)

    def _lists(self) -> tuple[list[list[float]], *tuple[list[int], ...]]:
        """Return the values, the flags and, where they are not all 1, `n` and `n_expected`."""
        block, row, slots = self._look(), self._row, self._slots
        values, flags = block.values[:, row, slots].tolist(), block.flags[row, slots].tolist()
        if block.n is None:
            return values, flags
        return values, flags, self.n.tolist(), self.n_expected.tolist()

    def _column(self, field: int) -> Floats:
        return self._look().values[field, self._row, self._slots]


def bar_at(block: Block, row: int, slot: int) -> Bar:
    """Return the bar in one cell of a block; the cell holds one."""
    opened, high, low, closed, volume = block.values[:, row, slot].tolist()
    return Bar(
        block.symbols[row],
        block.label,
        int(block.starts[slot]),
        int(block.ends[slot]),
        opened,
        high,
        low,
        closed,
        volume,
        int(block.flags[row, slot]),
        1 if block.n is None else int(block.n[row, slot]),
        1 if block.n_expected is None else int(block.n_expected[slot]),
    )


@dataclass(frozen=True, slots=True)
class SymbolMetrics:
    """One symbol's current session up to now.

    ``expected == present + missing + no_trade + unresolved``, always.

    Attributes:
        symbol: The symbol.
        bars: Bars seen, of all streamed hours.
        volume: Traded quantity so far.
        high: Highest price so far; NaN without a bar, as is `low`.
        low: Lowest price so far.
        last_update: End of the newest bar in UTC microseconds; None without one.
        expected: Regular minutes that are due.
        present: Of these, those with a bar (synthetic ones do not count).
        missing: Of these, those without, of which nothing else is known.
        no_trade: Of these, those of which every source that covers them says that there is none.
        unresolved: Of these, those that are not asked for any more.
        filled: Of the present ones, those that upkeep filled.
        quality: ``present / expected`` in percent; None when nothing is due yet.
        coverage: ``(present + no_trade) / expected`` in percent; None when nothing is due yet.
    """

    symbol: str
    bars: int
    volume: float
    high: float
    low: float
    last_update: int | None
    expected: int
    present: int
    missing: int
    no_trade: int
    unresolved: int
    filled: int
    quality: float | None
    coverage: float | None
