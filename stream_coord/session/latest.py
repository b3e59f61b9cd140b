"""Newest bars by symbol, kept for as long as they are the newest."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from stream_coord.bars import Bar


class LatestBars(dict[str, Bar | None]):
    """Newest bars by symbol, found when first asked for in a minute, kept until it is over.

    Args:
        find: Returns a symbol's newest bar, or raises for an unknown symbol.
        writing: Held by whoever changes what `find` would return.
    """

    def __init__(self, find: Callable[[str], Bar | None], writing: Lock) -> None:
        super().__init__()
        self._find = find
        self._writing = writing
        self._minute = 0

    def expire(self) -> None:
        """Forget all; called with the lock held."""
        self._minute += 1
        self.clear()

    def __missing__(self, symbol: str) -> Bar | None:
        minute = self._minute
        bar = self._find(symbol)
        with self._writing:
            if minute == self._minute:  # a bar of a minute that is over must not stay
                self[symbol] = bar
        return bar
