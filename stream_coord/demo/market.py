"""A made-up market: what really happened, before anything goes wrong with its bars.

Symbols share a market factor and differ in price, volatility and volume. Volatility and volume are
highest near the open and the close, and prices jump over night.

A seed gives the same bars on every machine: all arithmetic is on integers, drawn from the raw
words of a PCG64, which unlike numpy's distributions never change with a version.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from stream_coord.calendars import Session
from stream_coord.clock import from_micros
from stream_coord.interval import MINUTE, Interval

TIME_ZONE = "America/New_York"
Cell = tuple[int, int]
"""A bar of the market: the number of its symbol, the number of its minute."""

_TICKERS = (
    "AQRV BLZN CVTK DRMO ELQN FJRD GRVX HLMQ.B IXOR JUNQ "
    "KVLR LMNQ MZRA NQVA OPLZ PYQR QRTZ RVLT SQND TRVQ"
)
_SUFFIXES = ("", *"ABCDEFGHI")
MOST_SYMBOLS = 200

_TICKS = 5  # prices in a minute, of which open, high, low and close are taken
_ONE = 10**9  # returns are in parts of this
_NIGHT_PERCENT = 1500  # of a tick's standard deviation is that of the return over night

_OUTSIDE_SYMBOLS = 3
_OUTSIDE_MINUTES = (0, 15, 30, 45)  # a bar in the quarter of an hour from each


class Draws:
    """Random integers that are the same everywhere.

    Args:
        seed: Not negative.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def _octets(self, size: int) -> NDArray[np.int64]:
        """Return shape (size, 8), uniform from 0 to 255."""
        words = np.asarray(self._bits.random_raw(size), "<u8")
        return words.view(np.uint8).reshape(size, 8).astype(np.int64)

    def below(self, bound: int) -> int:
        """Return an integer from 0 to `bound` - 1."""
        return int(self._bits.random_raw()) % bound

    def normal(self, size: int) -> NDArray[np.int64]:
        """Return integers, nearly normal with mean 0 and standard deviation 209."""
        sums: NDArray[np.int64] = self._octets(size).sum(axis=1)
        return sums - 8 * 255 // 2

    def skewed(self, size: int) -> NDArray[np.int64]:
        """Return integers from 1 to 65,536 with mean 16,512, most of them below it."""
        octets = self._octets(size) + 1
        return octets[:, 0] * octets[:, 1]


@dataclass(frozen=True)
class Market:
    """Every bar of the regular sessions.

    Attributes:
        symbols: The symbols.
        sessions: The sessions.
        edges: The number of each session's first minute, and of the minute after the last.
        starts: UTC microseconds of each minute.
        times: The same as local text without offset.
        bars: Shape (symbols, minutes, 5), int64: open, high, low, close in cents, and volume.
    """

    symbols: tuple[str, ...]
    sessions: tuple[Session, ...]
    edges: list[int]
    starts: list[int]
    times: list[str]
    bars: NDArray[np.int64]

    def bar(self, cell: Cell) -> list[int]:
        """Return open, high, low, close in cents, and volume."""
        bar: list[int] = self.bars[cell].tolist()
        return bar

    def line(self, cell: Cell) -> str:
        """Return a bar as a line of CSV."""
        symbol, minute = cell
        return csv_line(self.symbols[symbol], self.times[minute], self.bar(cell))

    def session_of(self, minute: int) -> int:
        """Return the number of a minute's session."""
        return bisect(self.edges, minute) - 1


def csv_line(symbol: str, time: str, bar: list[int]) -> str:
    """Return symbol, time, open, high, low, close, volume as a line of CSV."""
    open_, high, low, close = bar[0] / 100, bar[1] / 100, bar[2] / 100, bar[3] / 100
    return f"{symbol},{time},{open_:.2f},{high:.2f},{low:.2f},{close:.2f},{bar[4]}"


def make_market(draws: Draws, sessions: tuple[Session, ...], count: int) -> Market:
    """Make up the bars of `count` symbols in the regular hours of `sessions`."""
    interval = Interval(MINUTE)
    grids = [session.grid(interval)[session.regular_mask(interval)] for session in sessions]
    edges = np.cumsum([0, *map(len, grids)]).tolist()
    starts = np.concatenate(grids).tolist()
    smile = np.concatenate([_smile(len(grid)) for grid in grids])
    weights = np.repeat(80 + 120 * smile // 1000, _TICKS)
    weights[np.multiply(edges[:-1], _TICKS)] = _NIGHT_PERCENT
    factor = draws.normal(weights.size)
    bars = np.stack([_symbol_bars(draws, factor, weights, smile) for _ in range(count)])
    symbols = [ticker + suffix for suffix in _SUFFIXES for ticker in _TICKERS.split()]
    return Market(tuple(symbols[:count]), sessions, edges, starts, list(map(_local, starts)), bars)


def outside_lines(draws: Draws, market: Market, session: int) -> tuple[list[str], list[str]]:
    """Make up the few bars before the open and after the close, as lines in the order of time."""
    first, last = market.edges[session], market.edges[session + 1] - 1
    day = market.sessions[session]
    before = _sparse_lines(draws, market, day.open - 60 * MINUTE, market.bars[:, first, 0])
    after = _sparse_lines(draws, market, day.close, market.bars[:, last, 3])
    return before, after


def _sparse_lines(draws: Draws, market: Market, begin: int, cents: NDArray[np.int64]) -> list[str]:
    """Return bars near the prices `cents` in the hour from `begin` on."""
    rows: list[tuple[str, str, list[int]]] = []
    for symbol, price in zip(market.symbols[:_OUTSIDE_SYMBOLS], cents.tolist(), strict=False):
        for minute in _OUTSIDE_MINUTES:
            time = _local(begin + (minute + draws.below(15)) * MINUTE)
            first, last = price - 2 + draws.below(5), price - 2 + draws.below(5)
            bar = [first, max(first, last), min(first, last), last, 1 + draws.below(500)]
            rows.append((time, symbol, bar))
    return [csv_line(symbol, time, bar) for time, symbol, bar in sorted(rows)]


def _local(micros: int) -> str:
    return str(from_micros(micros).astimezone(ZoneInfo(TIME_ZONE)).replace(tzinfo=None))


def _smile(minutes: int) -> NDArray[np.int64]:
    """Return per mille for each minute of a session: near 1000 at its edges, 0 in its middle."""
    from_middle = 2 * np.arange(minutes, dtype=np.int64) + 1 - minutes
    return 1000 * from_middle**4 // minutes**4


def _symbol_bars(
    draws: Draws,
    factor: NDArray[np.int64],
    weights: NDArray[np.int64],
    smile: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return one symbol's bars, shape (minutes, 5).

    Args:
        draws: Where its own part comes from.
        factor: The market's part of the return in every tick.
        weights: Of every tick's return, in percent.
        smile: Of every minute, per mille.
    """
    level_cents, shares = (
        least + draws.below(least) for least in (500 << draws.below(6), 100 << draws.below(8))
    )
    shared, own = 100_000 + draws.below(200_000), 150_000 + draws.below(450_000)
    returns = (shared * factor + own * draws.normal(factor.size)) * weights // (209 * 100)
    path = level_cents * (_ONE + np.cumsum(returns)) // _ONE
    ticks = np.maximum(path, 100).reshape(smile.size, _TICKS)
    first, last = ticks[:, 0], ticks[:, -1]
    volume = 1 + shares * (60 + 340 * smile // 1000) * draws.skewed(smile.size) // (16_512 * 100)
    return np.column_stack((first, ticks.max(axis=1), ticks.min(axis=1), last, volume))
