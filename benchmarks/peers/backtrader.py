"""backtrader: `Cerebro` with feeds that are preloaded and run once.

Set up to run fast, by what its documentation says of each option: `preload` and `runonce` (its
defaults, "to speed up the entire system"), `stdstats=False` (no observers), the close lines looked
up once, in `__init__`, as its quick start does. `exactbars=1`, which saves memory, turns both off,
and raises IndexError on bars of which a symbol lacks the first minute. `cerebro.run()` loads and
runs in one; the strategy's `start` and `stop` hooks tell the two apart.
"""
# mypy: disable-error-code="import-not-found", disallow-subclassing-any=False

from __future__ import annotations

import gc
from time import perf_counter

import backtrader as bt

from benchmarks.peers.frames import pandas_bars
from benchmarks.peers.market import Market, Measured, Tally


class Tallying(bt.Strategy):
    """Counts bars, sums their closes, keeps each symbol's last one."""

    def __init__(self) -> None:
        self.close_lines = [data.close for data in self.datas]
        self.lengths = [0] * len(self.datas)
        self.bars = 0
        self.closes = 0.0
        self.last = [0.0] * len(self.datas)
        self.loaded = self.started = self.stopped = 0.0

    def start(self) -> None:
        """Note that all data is loaded."""
        self.loaded = perf_counter()
        gc.collect()  # as for everybody else
        self.started = perf_counter()

    def next(self) -> None:
        """Take the bars of a minute into account: those of the feeds that are longer now."""
        lengths, last = self.lengths, self.last
        for number, line in enumerate(self.close_lines):
            length = len(line)
            if length > lengths[number]:
                lengths[number] = length
                close = line[0]
                self.bars += 1
                self.closes += close
                last[number] = close

    def prenext(self) -> None:
        """Do the same until each feed has had a bar."""
        self.next()

    def stop(self) -> None:
        """Note that the last bar is through."""
        self.stopped = perf_counter()


def preloaded(market: Market) -> Measured:
    bars = market.frame()
    begun = perf_counter()
    cerebro = bt.Cerebro(preload=True, runonce=True, stdstats=False)
    cerebro.addstrategy(Tallying)
    for symbol, frame in pandas_bars(bars):
        feed = bt.feeds.PandasDirectData(
            dataname=frame, timeframe=bt.TimeFrame.Minutes, openinterest=-1
        )
        cerebro.adddata(feed, name=symbol)
    (strategy,) = cerebro.run()
    tally = Tally.of(strategy.bars, strategy.closes, strategy.last)
    return Measured(tally, strategy.loaded - begun, strategy.stopped - strategy.started)
