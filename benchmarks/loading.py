"""Reads from the store: bars, data versions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import adbc_driver_manager as adbc
import adbc_driver_sqlite
import polars as pl

from benchmarks.figures import Figure, Goal, compare, duration
from benchmarks.lab import Lab
from benchmarks.sample import BASE, synthetic_bars
from stream_coord.bars import COLUMNS
from stream_coord.loading import load_session
from stream_coord.stores import open_store
from stream_coord.stores.merge import KEY

_DAYS = 5


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


def load_five_days_from_sqlite(lab: Lab) -> Figure:
    """Whole days, verified, against what ADBC itself takes for the same rows."""
    url, file = five_days_in_sqlite(lab)
    start, end = lab.sessions[0].start, lab.sessions[_DAYS - 1].end
    value, floor = compare(
        duration(lambda: open_store(url, lab.folder).read(BASE, None, start, end), "ms"),
        duration(lambda: read_with_adbc(file), "ms"),
        lab.repeats,
    )
    name = f"load of {_DAYS} days from SQLite, verified, {lab.few:,} symbols"
    return Figure(name, value, "ms", "ADBC", floor, Goal(2, "ratio"))


@cache
def five_days_in_sqlite(lab: Lab) -> tuple[str, Path]:
    """Return the address and the file of a store with the bars of the first five sessions."""
    file = lab.folder / "bars.db"
    url = f"sqlite:///{file}"
    bars = pl.concat(synthetic_bars(lab.few, session) for session in lab.sessions[:_DAYS])
    open_store(url, lab.folder, create=True).write(BASE, bars.sort(KEY))
    return url, file


def read_with_adbc(file: Path) -> pl.DataFrame:
    """Return all bars of a SQLite store, as they are read from there into polars."""
    with (
        adbc.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=str(file)) as database,
        adbc.AdbcConnection(database) as connection,
        adbc.AdbcStatement(connection) as statement,
    ):
        statement.set_sql_query("SELECT * FROM bars")
        return pl.DataFrame(statement.execute_query()[0])


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
