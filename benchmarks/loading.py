"""Reads from the store: bars, data versions."""

from __future__ import annotations

import polars as pl

from benchmarks.figures import Figure, Goal, compare, duration
from benchmarks.lab import Lab
from benchmarks.sample import BASE
from stream_coord.bars import COLUMNS
from stream_coord.loading import load_session


def load_a_session(lab: Lab, symbols: int) -> Figure:
    sample = lab.sample(symbols)
    session = sample.sessions[-1]
    files = sample.files(session)
    # A store of its own for each run: in a replay, too, a session's files are read once.
    stores = [sample.open() for _ in range(lab.repeats)]
    value, floor = compare(
        duration(lambda: load_session(stores.pop(), BASE, sample.symbols, session), "ms"),
        duration(lambda: pl.read_parquet(files, columns=list(COLUMNS), glob=False), "ms"),
        lab.repeats,
    )
    name = f"load of a session, verified, {symbols:,} symbols"
    return Figure(name, value, "ms", "polars read_parquet", floor, Goal(3, "ratio"))


def data_versions(lab: Lab) -> Figure:
    sample = lab.sample(lab.few)
    first, last = sample.sessions[0].date, sample.sessions[-1].date
    files = [file for session in sample.sessions for file in sample.files(session)]
    stores = [sample.open() for _ in range(lab.repeats)]
    value, floor = compare(
        duration(lambda: stores.pop().versions(BASE, first, last), "ms"),
        duration(lambda: [pl.read_parquet_metadata(file) for file in files], "ms"),
        lab.repeats,
    )
    name = f"data versions of {len(sample.sessions)} dates, {lab.few:,} symbols"
    return Figure(name, value, "ms", "polars: the files' metadata", floor)
