"""What a benchmark tells, and how it is measured.

A *run* is a call without arguments that does the work once and returns the quantity: microseconds,
megabars a second, megabytes. A figure and its floor are run in turns, so that whatever else the
machine does meets both.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Literal

Run = Callable[[], float]

UNITS_PER_SECOND = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}
_STATEMENTS = 20
"""How often a timed statement is written out, so that the loop around it does not count."""


@dataclass(frozen=True)
class Spread:
    """What several runs gave.

    Attributes:
        median: The middle one; `low` and `high` are the extremes.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, quantities: list[float]) -> Spread:
        """Return the spread of some quantities; at least one."""
        return cls(median(quantities), min(quantities), max(quantities))


@dataclass(frozen=True)
class Goal:
    """What is to be reached: a limit of the value or of the ratio.

    Attributes:
        limit: The limit, which itself is good enough.
        of: What it limits.
    """

    limit: float
    of: Literal["value", "ratio"] = "value"


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: What is measured.
        value: How it came out, in `unit`; more is better where the unit is a rate (``.../s``).
        unit: The unit of value and floor.
        floor_name: What it is held against, measured in turns with it; empty for nothing.
        floor: How that came out.
        goal: What is to be reached; None where there is no goal.
        samples: How it went on in one run, in `unit`, session by session; to be drawn.
    """

    name: str
    value: Spread
    unit: str
    floor_name: str = ""
    floor: Spread | None = None
    goal: Goal | None = None
    samples: tuple[float, ...] = ()

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")

    @property
    def ratio(self) -> float | None:
        """How many times the floor's cost it has; None without a floor."""
        if self.floor is None:
            return None
        cost = self.value.median / self.floor.median
        return 1 / cost if self.is_rate else cost

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        if self.goal.of == "ratio":
            return self.ratio is not None and self.ratio <= self.goal.limit
        value = self.value.median
        return value >= self.goal.limit if self.is_rate else value <= self.goal.limit


def duration(work: Callable[[], object], unit: str, count: int = 1) -> Run:
    """Return a run that tells how long `work` takes for each of `count` things that it does."""

    def run() -> float:
        return _seconds(work) * UNITS_PER_SECOND[unit] / count

    return run


def rate(work: Callable[[], object], count: int) -> Run:
    """Return a run that tells how many millions of `count` things `work` does in a second."""

    def run() -> float:
        return count / _seconds(work) / 1e6

    return run


def statement(text: str, seconds: float, **names: object) -> Run:
    """Return a run that tells how many microseconds a statement takes.

    Args:
        text: The statement.
        seconds: How long a run lasts at least, about.
        names: The local variables that it uses.
    """
    setup = f"{', '.join(names)}, = names"
    timer = Timer("\n".join([text] * _STATEMENTS), setup, globals={"names": names.values()})
    loops = 1
    while timer.timeit(loops) < seconds:
        loops *= 2
    return lambda: timer.timeit(loops) / (loops * _STATEMENTS) * UNITS_PER_SECOND["us"]


def measure(run: Run, repeats: int) -> Spread:
    """Return the spread of several runs."""
    return Spread.of([run() for _ in range(repeats)])


def compare(run: Run, floor: Run, repeats: int) -> tuple[Spread, Spread]:
    """Return the spreads of a figure and of its floor, run in turns."""
    pairs = [(run(), floor()) for _ in range(repeats)]
    values, floors = (list(column) for column in zip(*pairs, strict=True))
    return Spread.of(values), Spread.of(floors)


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()  # what earlier work left behind is not this one's to clear
    begun = perf_counter()
    result = work()
    taken = perf_counter() - begun
    del result  # freed outside of the time
    return taken
