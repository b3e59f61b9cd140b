"""Derived bars beside pandas and polars, on the same bars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.figures import UNITS_PER_SECOND, Figure, Goal, Run, compare, statement
from benchmarks.lab import Lab
from benchmarks.sample import BASE, synthetic_bars
from stream_coord.compute.derive import Segments, buckets_of, derive
from stream_coord.interval import DAY, MINUTE
from stream_coord.session.block import Block

_FIVE_MINUTES = 5 * MINUTE
_FIRST_OR_LAST = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def a_session(lab: Lab, peer: str) -> Figure:
    return _five_minutes(lab, 1, 1, peer, "us", Goal(50))


def a_week(lab: Lab, peer: str) -> Figure:
    return _five_minutes(lab, lab.few, 6, peer, "ms", Goal(5))


def _five_minutes(
    lab: Lab, symbols: int, session_count: int, peer: str, unit: str, goal: Goal
) -> Figure:
    sessions = lab.sessions[:session_count]
    frame = pl.concat([synthetic_bars(symbols, day) for day in sessions]).sort("symbol", "start")
    block = Block.empty(frame["symbol"].unique().sort().to_list(), sessions, BASE)
    block.fill(frame)
    opens = np.array([session.open for session in sessions])
    closes = np.array([session.close for session in sessions])
    segments = Segments(opens, closes, np.ones(len(opens), np.bool_), opens - opens % DAY)
    names = {"block": block, "buckets": buckets_of(segments, BASE.micros, _FIVE_MINUTES)}
    ours = "derive(block.values, block.present, block.flags, buckets)"
    resample = PEERS[peer](frame)
    value, floor = compare(
        _in(unit, statement(ours, lab.seconds, derive=derive, **names)),
        _in(unit, statement("resample()", lab.seconds, resample=resample)),
        lab.repeats,
    )
    text = f"5m bars of 1m, {symbols:,} x {len(block.starts):,} minutes"
    return Figure(text, value, unit, peer, floor, goal)


def _in(unit: str, micros: Run) -> Run:
    return lambda: micros() / UNITS_PER_SECOND["us"] * UNITS_PER_SECOND[unit]


def _pandas(frame: pl.DataFrame) -> Callable[[], object]:
    columns = {name: frame[name].to_numpy() for name in _FIRST_OR_LAST}
    times = pd.DatetimeIndex(frame["start"].cast(pl.Datetime("us")).to_numpy())
    bars = pd.DataFrame(columns, index=times)
    if frame["symbol"].n_unique() == 1:
        return lambda: bars.resample("5min").agg(_FIRST_OR_LAST)
    bars["symbol"] = pd.Categorical(frame["symbol"].to_list())
    keys = ["symbol", pd.Grouper(freq="5min")]
    return lambda: bars.groupby(keys, observed=True).agg(_FIRST_OR_LAST)


def _polars(frame: pl.DataFrame) -> Callable[[], object]:
    bars = frame.with_columns(pl.col("start").cast(pl.Datetime("us")))
    aggregates = [getattr(pl.col(name), what)() for name, what in _FIRST_OR_LAST.items()]
    return lambda: bars.group_by_dynamic("start", every="5m", group_by="symbol").agg(aggregates)


PEERS = {"pandas resample": _pandas, "polars group_by_dynamic": _polars}
