"""The benchmarks run from end to end; how fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.chart import chart

_ROOT = Path(__file__).parents[2]

_ROWS = """\
latest bar by symbol, read again
latest bar by symbol, first read in a minute
last 20 bars
last 20 bars, their closes
last 20 bars of 5m
latest bar of 5m
bar of 60m in progress
a revised bar, 5m and 15m rebuilt
window of 20 slots
cross-section, copied, 4 symbols
cross-section, copied, 12 symbols
gaps in 390 bars
gaps, 4 symbols, 6 sessions
5m bars of 1m, 1 x 390 minutes
5m bars of 1m, 1 x 390 minutes
5m bars of 1m, 4 x 2,340 minutes
5m bars of 1m, 4 x 2,340 minutes
gap filling, 4 gaps in a batch, sqlite
gap filling, 4 gaps in a batch, delta
replay into on_bar, in memory, 4 symbols
replay into on_bar, in memory, 12 symbols
replay, upkeep, 5m + 15m, 1m into on_bar, in memory, 4 symbols
replay, upkeep, 5m + 15m, all into on_bar, in memory, 4 symbols
replay, upkeep, 5m + 15m, no callback, in memory, 4 symbols
replay, upkeep, 5m + 15m, 1m into on_bar, in memory, 12 symbols
replay, upkeep, 5m + 15m, all into on_bar, in memory, 12 symbols
replay, upkeep, 5m + 15m, no callback, in memory, 12 symbols
time per bar, upkeep that fills 0.00%, from the store
time per bar, upkeep that fills 0.03%, from the store
time per bar, upkeep that fills 0.20%, from the store
time per bar, into on_bar, 12 symbols
replay with no callback, in memory, 4 symbols
replay with no callback, in memory, 4 symbols
replay with no callback, in memory, 12 symbols
replay with no callback, in memory, 12 symbols
time per bar, with no callback, 12 symbols
replay into on_bar, from the store, 4 symbols
replay with no callback, from the store, 4 symbols
replay into on_bar, from the store, 12 symbols
replay with no callback, from the store, 12 symbols
load of a session, verified, 4 symbols
load of a session, verified, 12 symbols
load of 5 days from SQLite, verified, 4 symbols
history of 5 days, 1m + 5m, from Delta, verified, 4 symbols
history of 5 days, 1m + 5m, from SQLite, verified, 4 symbols
roll, 4 symbols
roll, one symbol has a split, 4 symbols
roll, memory is full: copied, 4 symbols
ahead of a roll: Series.following, 4 symbols
roll, 12 symbols
roll, one symbol has a split, 12 symbols
roll, memory is full: copied, 12 symbols
ahead of a roll: Series.following, 12 symbols
data versions of 6 dates, 4 symbols
import of a CSV file
sc --help, whole process
sc --help, whole process
sc replay of a session, main() to first bar
sc replay of a session, whole process
session store, 4 symbols, 5 days + session, 1m + 5m: allocated
session store, 100 symbols, 5 days + session, 1m + 5m: resident
peak memory of sc replay, 6 sessions, 4 symbols
""".splitlines()


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


def test_one_command_prints_a_row_for_every_figure(tmp_path: Path) -> None:
    """The table and the JSON document hold all figures, in order, each with a value."""
    document = tmp_path / "figures.json"

    done = _run("--quick", "--json", str(document))

    assert done.returncode == 0, done.stderr
    names = [line.split("│")[1].strip() for line in done.stdout.splitlines() if "│" in line]
    assert names == _ROWS
    figures = json.loads(document.read_text())
    assert [figure["name"] for figure in figures] == _ROWS
    for figure in figures:
        assert figure["value"]["median"] > 0
        assert (figure["ratio"] is None) == (figure["floor"] is None)
        assert (figure["reached"] is None) == (figure["goal"] is None)


def test_large_imports_are_measured_if_they_are_asked_for(tmp_path: Path) -> None:
    """Rate and peak memory, for a file in either order."""
    document = tmp_path / "figures.json"

    done = _run("--quick", "--only", "large", "--json", str(document))

    assert done.returncode == 0, done.stderr
    figures = json.loads(document.read_text())
    assert [figure["name"].rsplit(" by ")[1] for figure in figures] == ["time", "symbol"] * 2
    assert [figure["unit"] for figure in figures] == ["M rows/s"] * 2 + ["MiB"] * 2


def test_long_replays_are_measured_and_drawn_if_they_are_asked_for(tmp_path: Path) -> None:
    """Memory at the end of each session, as numbers and as a chart; time of bars and sessions."""
    document = tmp_path / "figures.json"

    done = _run("--quick", "--only", "long", "--json", str(document))

    assert done.returncode == 0, done.stderr
    figures = json.loads(document.read_text())
    assert [figure["unit"] for figure in figures] == ["MiB", "MiB", "ms", "ns", "ns"]
    assert [len(figure["samples"]) for figure in figures] == [6, 0, 0, 0, 0]
    most, last, *_ = figures
    assert most["value"]["median"] == max(most["samples"][5:])
    assert last["value"]["median"] == most["samples"][5]
    drawn = done.stdout[done.stdout.index("at the end of each session") :]
    assert "1 6 sessions" in drawn
    assert f"{max(most['samples']):,.4g} ┤" in drawn


def test_a_chart_shows_the_peak_of_each_column() -> None:
    """Columns begin at 0; where several numbers share one it is as high as the largest."""
    numbers = [4.0] * 150 + [8.0] + [2.0] * 49

    assert chart(numbers, "MiB", "sessions").splitlines() == [
        "MiB",
        "  8 ┤" + " " * 75 + "█" + " " * 24,
        *["    │" + " " * 75 + "█" + " " * 24] * 3,
        "  4 ┤" + "█" * 76 + " " * 24,
        "    │" + "█" * 76 + " " * 24,
        *["    │" + "█" * 100] * 2,
        "  0 └" + "─" * 100,
        "     1" + "200 sessions".rjust(99),
    ]


def test_an_unknown_group_is_a_usage_error_that_names_the_groups() -> None:
    """Nothing is measured for a group that does not exist."""
    done = _run("--quick", "--only", "nonsense")

    assert done.returncode == 2
    assert "memory" in done.stderr
    assert "Traceback" not in done.stderr
