"""``python -m benchmarks.resident``: processes that say how much memory they hold."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.rolling import TRAILING, Rolling
from benchmarks.sample import BASE, nyse_sessions, symbol_names, synthetic_bars
from stream_coord.clock import SystemClock
from stream_coord.config import load_config
from stream_coord.coordinator import ReplayedSession
from stream_coord.interval import Interval
from stream_coord.opening import ledger_of, plan_replay
from stream_coord.runs import record_replay
from stream_coord.session.block import Block

_ROLLS = 8
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Trace:
    """A replay, as it was at the end of each session.

    Attributes:
        resident: How much of the process was in memory, MiB.
        moments: When it was, in seconds.
        bars: How many bars the session had.
    """

    resident: list[float]
    moments: list[float]
    bars: list[int]

    @property
    def session_seconds(self) -> list[float]:
        """How long each session but the first took."""
        return [end - begin for begin, end in zip(self.moments, self.moments[1:], strict=False)]

    @property
    def bar_nanos(self) -> float:
        """Nanoseconds a bar, all sessions but the first."""
        return (self.moments[-1] - self.moments[0]) / sum(self.bars[1:]) * 1e9


def traced_replay(settings: Path, first: date, last: date) -> Trace:
    """Replay sessions in a process of its own, and in every way as `sc replay` does."""
    return Trace(**json.loads(_child("replay", str(settings), f"{first}", f"{last}")))


def store_megabytes(symbols: int) -> float:
    """Return by how much a session store of 1m and 5m bars lets a process of its own grow."""
    return float(_child("store", str(symbols)))


def _child(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "benchmarks.resident", *arguments]
    root = Path(__file__).parents[1]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=root).stdout


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    size = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], check=True, stdout=subprocess.PIPE
    ).stdout
    return int(size) * 1024


def _settled_bytes() -> int:
    """Return what is in memory without what is free, where the C library gives that back."""
    gc.collect()
    with suppress(AttributeError):  # only that of GNU does, when asked
        ctypes.CDLL(None).malloc_trim(0)
    return _resident_bytes()


def _replay(settings: Path, first: date, last: date) -> Trace:
    config = load_config(settings, environ={})  # none of whoever measures
    plan = plan_replay(config, first, last)
    trace = Trace([], [], [])

    def note(replayed: ReplayedSession) -> None:
        trace.moments.append(perf_counter())
        trace.resident.append(_resident_bytes() / 2**20)
        trace.bars.append(replayed.bars)

    with ledger_of(config, create=True) as ledger:
        record_replay(plan.coordinator(), ledger, SystemClock(), config, plan.calendar, note)
    return trace


def _growth(symbols: int) -> float:
    """Return how many megabytes a full window is, after some rolls."""
    with TemporaryDirectory() as name:
        sessions = nyse_sessions(TRAILING + 1 + _ROLLS, Path(name))

    def rolled(count: int) -> tuple[int, Rolling]:
        bars = Block.empty(symbol_names(count), sessions[:1], BASE)
        bars.fill(synthetic_bars(count, sessions[0]))
        before = _settled_bytes()
        rolling = Rolling(bars, sessions, [Interval.parse("5m")])
        rolling.roll(_ROLLS)
        return _settled_bytes() - before, rolling

    _, first = rolled(1)  # leaves behind what is there once in a process
    grown, _ = rolled(symbols)
    del first  # not before, so that nobody takes over its memory
    return grown / 1e6


def main() -> None:
    """Do as the arguments say, and print what came of it as JSON."""
    what, *given = sys.argv[1:]
    if what == "store":
        print(_growth(int(given[0])))
    else:
        settings, first, last = given
        trace = _replay(Path(settings), date.fromisoformat(first), date.fromisoformat(last))
        print(json.dumps(asdict(trace)))


if __name__ == "__main__":
    main()
