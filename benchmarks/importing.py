"""Imports of files into a new store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.figures import Figure, Goal, compare, rate
from benchmarks.lab import Lab
from benchmarks.sample import BASE, synthetic_bars
from stream_coord.calendars import open_calendar
from stream_coord.clock import SystemClock
from stream_coord.importing import ImportTarget, import_files
from stream_coord.sources.csv import CsvFormat
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger


def import_csv(lab: Lab) -> Figure:
    frame = pl.concat(synthetic_bars(lab.few, session) for session in lab.sessions[:25])
    with TemporaryDirectory(dir=lab.folder) as name:
        folder = Path(name)
        file = folder / "bars.csv"
        _write_csv(frame, file)
        value, floor = compare(
            rate(lambda: _import(lab, file), len(frame)),
            rate(lambda: _read_and_write(file), len(frame)),
            lab.repeats,
        )
    floor_name = "polars read_csv, write_parquet"
    return Figure("import of a CSV file", value, "M rows/s", floor_name, floor, Goal(1))


def _write_csv(frame: pl.DataFrame, file: Path) -> None:
    """Write bars the way vendors do: times as text, in the exchange's time zone."""
    utc = pl.col("start").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    local = utc.dt.convert_time_zone("America/New_York").dt.strftime("%Y-%m-%d %H:%M:%S")
    frame.with_columns(local).rename({"start": "time"}).write_csv(file)


def _import(lab: Lab, file: Path) -> None:
    with TemporaryDirectory(dir=file.parent) as name:
        root = Path(name)
        ledger = open_ledger("sqlite:///ledger.db", root, create=True)
        calendar = open_calendar("NYSE", cache_dir=lab.cache_dir)
        store = open_store("delta:bars", root, create=True)
        target = ImportTarget(store, ledger, calendar, BASE, SystemClock())
        import_files([file], CsvFormat(label="open", tz="America/New_York"), target)
        ledger.close()


def _read_and_write(file: Path) -> None:
    pl.read_csv(file).write_parquet(file.with_suffix(".parquet"))
