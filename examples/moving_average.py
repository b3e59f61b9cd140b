"""A strategy that counts how often two moving averages of the close cross.

The averages go back over the nights: history and today are one run of bars, and a day's first
minute has the whole of the slow one.

sc replay --from 2018-11-02 --to 2018-11-23 --strategy moving_average.py:MovingAverage
"""

from __future__ import annotations

from stream_coord.bars import Bar
from stream_coord.strategy import Strategy


class MovingAverage(Strategy):
    """Goes long when the fast average rises above the slow one, flat when it falls below.

    Args:
        fast: Bars of the fast average.
        slow: Bars of the slow average.
    """

    def __init__(self, fast: int = 20, slow: int = 200) -> None:
        self.fast = fast
        self.slow = slow
        self.long: set[str] = set()
        self.crossings = 0
        self.at_the_open = 0

    def on_bar(self, bar: Bar) -> None:
        """Compare the averages whenever a bar ends."""
        closes = self.session.last_n(bar.symbol, self.slow).close
        if len(closes) < self.slow:
            return
        rising = closes[-self.fast :].mean() > closes.mean()
        if rising != (bar.symbol in self.long):
            self.crossings += 1
            self.at_the_open += bar.start == self.session.session.open
            (self.long.add if rising else self.long.discard)(bar.symbol)

    def result(self) -> object:
        """Return what `sc replay` prints as the result."""
        return {"crossings": self.crossings, "in the first minute": self.at_the_open}
