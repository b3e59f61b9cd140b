"""The figures as a table, and as what JSON holds."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

from benchmarks.chart import chart
from benchmarks.figures import Figure, Goal, Spread

_WIDTH = 200


def print_table(figures: Sequence[Figure]) -> None:
    """Print one row a figure: medians, the extremes in brackets. Samples are drawn below."""
    table = Table(title="Medians (lowest - highest)", caption=_machine())
    table.add_column("Figure", no_wrap=True)
    table.add_column("Unit")
    table.add_column("Value", justify="right")
    table.add_column("Floor or peer", overflow="fold")
    for header in ("Its value", "Ratio", "Goal", "Reached"):
        table.add_column(header, justify="right")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.unit,
            _spread(figure.value),
            figure.floor_name,
            "" if figure.floor is None else _spread(figure.floor),
            "" if figure.ratio is None else f"{_number(figure.ratio)}x",
            _goal(figure),
            {None: "", True: "yes", False: "no"}[figure.reached],
        )
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH  # a file has room
    console.print(table)
    for figure in figures:
        if figure.samples:
            console.print(_drawn(figure))


def as_dict(figure: Figure) -> dict[str, object]:
    """Return a figure as what JSON holds."""
    return {**asdict(figure), "ratio": figure.ratio, "reached": figure.reached}


def _drawn(figure: Figure) -> str:
    title = f"\n{figure.name}; one run, at the end of each session"
    if figure.ratio is not None:
        title += f"; {figure.floor_name} and then {figure.ratio - 1:+.1%}"
    return f"{title}\n{chart(figure.samples, figure.unit, 'sessions')}"


def _machine() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "polars", "deltalake"))
    return f"Python {platform.python_version()}, {libraries}; {os.cpu_count()} CPUs"


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)} - {_number(spread.high)})"


def _goal(figure: Figure) -> str:
    match figure.goal:
        case None:
            return ""
        case Goal(limit, "ratio"):
            return f"<= {limit:g}x"
        case Goal(limit):
            return f"{'>=' if figure.is_rate else '<='} {limit:g}"


def _number(value: float) -> str:
    """Return a positive number with three significant digits, or more before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"
