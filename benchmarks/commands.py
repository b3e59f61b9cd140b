"""Whole processes: how long `sc` takes, and how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, Goal, Run, Spread, compare, duration
from benchmarks.lab import Lab

_PYTHON = sys.executable
_SC = str(Path(_PYTHON).with_name("sc"))
_LIBRARIES = "numpy, polars, deltalake, sqlalchemy, msgspec, typer, xxhash, rich.table"
_SETTINGS = """\
[store]
url = "delta:{folder}"

[ledger]
url = "sqlite:///ledger.db"
"""
# A process takes over the peak of the one that started it, so a small one stands between.
_PEAK_OF = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def help_text(lab: Lab, code: str) -> Figure:
    value, floor = _compare(lab, _whole([_SC, "--help"]), _whole(_python(code)))
    name = "sc --help, whole process"
    return Figure(name, value, "ms", f"python -c '{code}'", floor, Goal(150))


def replay_to_first_bar(lab: Lab) -> Figure:
    command = [*_replay(lab), "--session", _day(lab, 1), "--json"]

    def first_bar() -> float:
        timings: dict[str, float] = json.loads(_output(command))["timings"]
        return timings["first_bar"] * 1e3

    name = "sc replay of a session, main() to first bar"
    return _beside_imports(lab, name, first_bar, Goal(400))


def replay_process(lab: Lab) -> Figure:
    run = _whole([*_replay(lab), "--session", _day(lab, 1), "--quiet"])
    return _beside_imports(lab, "sc replay of a session, whole process", run)


def replay_memory(lab: Lab) -> Figure:
    few, many = (1, len(lab.sessions)) if lab.quick else (20, 100)
    value, floor = _compare(lab, _peak(lab, many), _peak(lab, few))
    name = f"peak memory of sc replay, {many} sessions, {lab.few:,} symbols"
    return Figure(name, value, "MB", f"{few} sessions", floor, Goal(1.1, "ratio"))


def _beside_imports(lab: Lab, name: str, run: Run, goal: Goal | None = None) -> Figure:
    value, floor = _compare(lab, run, _whole(_python(f"import {_LIBRARIES}")))
    return Figure(name, value, "ms", "import of its libraries", floor, goal)


def _compare(lab: Lab, run: Run, floor: Run) -> tuple[Spread, Spread]:
    if not lab.quick:
        run()  # leaves compiled modules and a warm calendar behind
    return compare(run, floor, lab.repeats)


def _peak(lab: Lab, sessions: int) -> Run:
    dates = ["--from", _day(lab, 0), "--to", _day(lab, sessions - 1)]
    command = [_PYTHON, "-c", _PEAK_OF, *_replay(lab), *dates, "--quiet"]
    unit = 1 if sys.platform == "darwin" else 1024
    return lambda: int(_output(command)) * unit / 1e6


def _replay(lab: Lab) -> list[str]:
    """Return a command that replays sessions of few symbols, its settings in place."""
    settings = lab.folder / "sc.toml"
    settings.write_text(_SETTINGS.format(folder=lab.sample(lab.few).folder.name))
    return [_SC, "replay", "--config", str(settings)]


def _day(lab: Lab, session: int) -> str:
    return lab.sessions[session].date.isoformat()


def _python(code: str) -> list[str]:
    return [_PYTHON, "-c", code]


def _whole(command: Sequence[str]) -> Run:
    return duration(lambda: _output(command), "ms")


def _output(command: Sequence[str]) -> bytes:
    # Settings of whoever measures must not reach what is measured.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SC_")}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
