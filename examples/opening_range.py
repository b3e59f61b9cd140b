"""A strategy that counts breakouts from each day's first quarter of an hour, in the day's terms.

It acts on 15-minute bars, and asks for the day's own volume and for the hour in progress.

sc replay --from 2018-11-02 --to 2018-11-23 --strategy opening_range.py:OpeningRange
"""

from __future__ import annotations

from collections import Counter

from stream_coord.bars import Bar
from stream_coord.strategy import Strategy


class OpeningRange(Strategy):
    """Counts 15-minute closes beyond the range of the first 15-minute bar of the day."""

    intervals = ("15m", "1d")

    def __init__(self) -> None:
        self.ranges: dict[str, Bar] = {}
        self.breakouts: Counter[str] = Counter()
        self.volume = 0.0
        self.early = 0

    def on_session_start(self) -> None:
        """Begin each day without a range."""
        self.ranges.clear()

    def on_bar(self, bar: Bar) -> None:
        """Look at the 15-minute bars, and at the day's bar when the market has closed."""
        if bar.interval == "1d":
            self.volume += bar.volume
        elif bar.interval == "15m":
            self.compare(bar)

    def on_update(self, bar: Bar) -> None:
        """Take a range that was rebuilt because a minute of it came late."""
        known = self.ranges.get(bar.symbol)
        if known is not None and (bar.interval, bar.start) == (known.interval, known.start):
            self.ranges[bar.symbol] = bar

    def compare(self, bar: Bar) -> None:
        """Compare a 15-minute close with the day's range."""
        known = self.ranges.setdefault(bar.symbol, bar)
        side = "up" if bar.close > known.high else "down" if bar.close < known.low else ""
        if side:
            self.breakouts[side] += 1
            hour = self.session.in_progress(bar.symbol, "1h")
            self.early += hour is not None and hour.n < hour.n_expected // 2

    def result(self) -> object:
        """Return what `sc replay` prints as the result."""
        return {**self.breakouts, "early in their hour": self.early, "volume": self.volume}
