"""The comparisons as a table, and as what JSON holds."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Spread
from benchmarks.peers.contestants import OURS
from benchmarks.peers.market import TOLERANCE, Market
from benchmarks.peers.results import Comparison, Result

_WIDTH = 200
_HEADERS = (
    "Version",
    "Bars",
    "Loading, s",
    "Run, s",
    "Run, bars/s",
    "Ours / peer, run",
    "Ours / peer, loading + run",
    "Goal",
    "Reached",
)
_REACHED: dict[tuple[bool | None, bool | None], str] = {
    (None, None): "",
    (True, True): "both",
    (True, False): "run only",
    (False, True): "loading + run only",
    (False, False): "no",
}
"""By whether the ratios of the run, and of loading and run, reach the goal."""


def print_table(
    ours: Sequence[Result], comparisons: Sequence[Comparison], market: Market, round_count: int
) -> None:
    """Print a row each, and below what the times include."""
    title = (
        f"1m bars of {market.symbol_count} symbols, {market.session_count} sessions; "
        f"medians of {round_count} rounds (lowest - highest), ours before each peer, "
        "each in a process of its own"
    )
    table = Table(title=title, caption=_machine())
    table.add_column("Library, setting", no_wrap=True)
    for header in _HEADERS:
        table.add_column(header, justify="right")
    for result in ours:
        table.add_row(*_cells(result))
    table.add_section()
    for one in comparisons:
        table.add_row(*(_cells(one.peer) + _ratios(one)))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH  # a file has room
    console.print(table)
    console.print(_notes(comparisons))


def as_dict(result: Result, comparison: Comparison | None = None) -> dict[str, object]:
    """Return a row as what JSON holds; the numbers are None for a peer that is not installed."""
    ran = bool(result.rounds)
    compared = comparison if ran else None
    return {
        **asdict(result.contestant),
        "version": result.contestant.version,
        "tally": asdict(result.tally) if ran else None,
        "loading_seconds": asdict(result.loading_seconds) if ran else None,
        "run_seconds": asdict(result.run_seconds) if ran else None,
        "bars_per_second": result.run_rate if ran else None,
        "run_ratio": compared.run_ratio if compared else None,
        "whole_ratio": compared.whole_ratio if compared else None,
        "run_reached": compared.run_reached if compared else None,
        "whole_reached": compared.whole_reached if compared else None,
    }


def _cells(result: Result) -> list[str]:
    label, version = result.contestant.label, result.contestant.version
    if not result.rounds:
        return [label, "not installed", "", "", "", ""]
    return [
        label,
        version or "",
        f"{result.tally.bars:,}",
        _seconds(result.loading_seconds.median),
        _spread(result.run_seconds),
        f"{result.run_rate:,.0f}",
    ]


def _ratios(one: Comparison) -> list[str]:
    goal = one.peer.contestant.goal
    aim = "" if goal is None else f">= {goal:g}x"
    if not one.peer.rounds:
        return ["", "", aim, ""]
    reached = _REACHED[one.run_reached, one.whole_reached]
    return [f"{one.run_ratio:.3g}x", f"{one.whole_ratio:.3g}x", aim, reached]


def _notes(comparisons: Sequence[Comparison]) -> str:
    contestants = (*OURS, *(one.peer.contestant for one in comparisons))
    return "\n".join(
        (
            "All strategies count bars, sum closes and keep each symbol's last close. Each saw as "
            f"many bars as there are,\nand the same sums, to {TOLERANCE:g} of them. Loading starts "
            "from a polars frame in memory. Ours / peer compares rates:\nthe run with our run in "
            "memory, loading and run with our replay from the store.",
            *(f"- {one.label}: {one.note}" for one in contestants),
        )
    )


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return _seconds(spread.median)
    return f"{_seconds(spread.median)} ({_seconds(spread.low)} - {_seconds(spread.high)})"


def _seconds(value: float) -> str:
    return "0" if value < 1e-4 else f"{value:.3g}"


def _machine() -> str:
    return f"Python {platform.python_version()}; {os.cpu_count()} CPUs"
