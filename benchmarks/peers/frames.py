"""polars and pandas: the same sums over whole columns, a floor, and row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol, cast

import pandas as pd
import polars as pl

from benchmarks.peers.market import Market, Measured, Tally, measured
from benchmarks.sample import BASE
from stream_coord.bars import FIELDS


class _Row(Protocol):
    symbol: str
    close: float


def pandas_bars(bars: pl.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each symbol with its bars, known by their ends, oldest first."""
    for (symbol,), part in bars.partition_by("symbol", as_dict=True, maintain_order=True).items():
        ends = pd.to_datetime(part["start"].to_numpy() + BASE.micros, unit="us", utc=True)
        yield symbol, pd.DataFrame({name: part[name].to_numpy() for name in FIELDS}, index=ends)


def polars_columns(market: Market) -> Measured:
    bars = market.frame()
    return measured(lambda: bars, _polars_sums)


def pandas_columns(market: Market) -> Measured:
    return measured(partial(_pandas_frame, market.frame()), _pandas_sums)


def pandas_rows(market: Market) -> Measured:
    return measured(partial(_pandas_frame, market.frame()), _pandas_loop)


def _polars_sums(bars: pl.DataFrame) -> Tally:
    close = pl.col("close")
    sums = bars.group_by("symbol").agg(pl.len(), close.sum().alias("closes"), close.last())
    counts, closes = (sums[name].to_numpy().sum() for name in ("len", "closes"))
    return Tally.of(counts, closes, sums["close"])


def _pandas_frame(bars: pl.DataFrame) -> pd.DataFrame:
    """Return all bars in the order of a replay; symbols as categories, which pandas advises."""
    columns = bars.sort("start", "symbol")
    symbols = pd.Categorical(columns["symbol"].to_list())
    numbers = {name: columns[name].to_numpy() for name in ("start", *FIELDS)}
    return pd.DataFrame({"symbol": symbols, **numbers})


def _pandas_sums(bars: pd.DataFrame) -> Tally:
    last = bars.groupby("symbol", observed=True)["close"].last()
    return Tally.of(len(bars), bars["close"].sum(), last)


def _pandas_loop(bars: pd.DataFrame) -> Tally:
    count, closes, last = 0, 0.0, dict[str, float]()
    for bar in cast("Iterable[_Row]", bars.itertuples(index=False)):
        close = bar.close
        count += 1
        closes += close
        last[bar.symbol] = close
    return Tally.of(count, closes, last.values())
