"""Imports of files into a new store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.figures import Figure, Goal, compare, measure, rate
from benchmarks.lab import Lab
from benchmarks.sample import BASE, synthetic_bars
from stream_coord.calendars import open_calendar
from stream_coord.clock import SystemClock
from stream_coord.importing import ImportTarget, import_files
from stream_coord.sources.csv import CsvFormat
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger

_LARGE_SYMBOLS = 350  # with 250 sessions, a file of 2 GB
# A process takes over the peak of the one that started it, so a small one stands between.
_PEAK_OF = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


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


def import_large_csv(lab: Lab, sorted_by: str) -> Figure:
    """Import a file of 2 GB by a process of its own."""
    with TemporaryDirectory(dir=lab.folder) as name:
        file = Path(name) / "bars.csv"
        rows = _write_large_csv(lab, file, sorted_by)
        value, floor = compare(
            rate(lambda: _peak_mib_of_import(file), rows),
            rate(lambda: _read_and_write(file), rows),
            min(lab.repeats, 3),
        )
    title = f"sc import of a CSV file, {len(lab.sessions)} sessions, sorted by {sorted_by}"
    return Figure(title, value, "M rows/s", "polars read_csv, write_parquet", floor, Goal(1))


def import_memory(lab: Lab, sorted_by: str) -> Figure:
    """Import a file of 2 GB by a process of its own, and see how much memory it takes."""
    with TemporaryDirectory(dir=lab.folder) as name:
        file = Path(name) / "bars.csv"
        _write_large_csv(lab, file, sorted_by)
        value = measure(lambda: _peak_mib_of_import(file), min(lab.repeats, 3))
    title = f"peak memory of sc import, {len(lab.sessions)} sessions, sorted by {sorted_by}"
    return Figure(title, value, "MiB", goal=Goal(512))


def _write_large_csv(lab: Lab, file: Path, sorted_by: str) -> int:
    """Write the bars of all sessions, and return how many there are."""
    symbols = lab.few if lab.quick else _LARGE_SYMBOLS
    frame = pl.concat(synthetic_bars(symbols, session) for session in lab.sessions)
    _write_csv(frame.sort("start" if sorted_by == "time" else sorted_by, maintain_order=True), file)
    return len(frame)


def _peak_mib_of_import(file: Path) -> float:
    with TemporaryDirectory(dir=file.parent) as folder:
        sc = str(Path(sys.executable).with_name("sc"))
        subprocess.run([sc, "init", folder], check=True, stdout=subprocess.DEVNULL)
        stated = ["--label", "open", "--tz", "America/New_York", "--config", f"{folder}/sc.toml"]
        command = [sys.executable, "-c", _PEAK_OF, sc, "import", str(file), *stated, "--quiet"]
        peak = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        return int(peak) * (1 if sys.platform == "darwin" else 1024) / 2**20


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
