"""``python -m benchmarks``: one table of all figures beside their floors and goals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import (
    commands,
    deriving,
    filling,
    history,
    importing,
    loading,
    long,
    reads,
    streaming,
)
from benchmarks.figures import Figure
from benchmarks.lab import Lab
from benchmarks.table import as_dict, print_table

Benchmark = Callable[[Lab], Figure]

ON_DEMAND = {"large", "long"}
"""Groups that run only if they are asked for: they take minutes, and up to 10 GB of disk."""


def benchmarks(lab: Lab) -> dict[str, Sequence[Benchmark]]:
    """Return all benchmarks by the name of their group."""
    sizes = (lab.few, lab.many)
    counting = streaming.Counting
    return {
        "reads": [
            reads.latest_again,
            reads.latest_first,
            reads.last_20,
            reads.last_20_closes,
            reads.last_20_derived,
            reads.latest_derived,
            reads.in_progress,
            reads.add_late,
            reads.window_20,
            *(partial(reads.cross_section, symbols=size) for size in sizes),
        ],
        "gaps": [reads.gaps_of_a_session, reads.gaps_of_a_year],
        "derive": [
            partial(measure, peer=peer)
            for measure in (deriving.a_session, deriving.a_week)
            for peer in deriving.PEERS
        ],
        "fill": [partial(filling.fill_a_batch, kind=kind) for kind in ("sqlite", "delta")],
        "stream": [
            *(partial(streaming.into_on_bar, symbols=size) for size in sizes),
            *(
                partial(streaming.with_derived, symbols=size, strategy=strategy)
                for size in sizes
                for strategy in (counting, streaming.CountingAll, None)
            ),
            *(partial(streaming.upkeep_share, missing=share) for share in (0, 0.0003, 0.002)),
            partial(streaming.time_per_bar, strategy=counting),
            *(
                partial(streaming.no_callback, symbols=size, floor=floor)
                for size in sizes
                for floor in streaming.FLOORS
            ),
            partial(streaming.time_per_bar, strategy=None),
            *(
                partial(streaming.from_store, symbols=size, strategy=strategy)
                for size in sizes
                for strategy in (counting, None)
            ),
        ],
        "load": [
            *(partial(loading.load_a_session, symbols=size) for size in sizes),
            loading.load_five_days_from_sqlite,
        ],
        "history": [
            history.load_from_delta,
            history.load_from_sqlite,
            *(
                partial(measure, symbols=size)
                for size in sizes
                for measure in (
                    history.roll,
                    history.roll_with_a_split,
                    history.roll_to_new_memory,
                    history.follow,
                )
            ),
        ],
        "versions": [loading.data_versions],
        "import": [importing.import_csv],
        "large": [
            partial(measure, sorted_by=order)
            for measure in (importing.import_large_csv, importing.import_memory)
            for order in ("time", "symbol")
        ],
        "long": [
            long.resident_at_most,
            long.resident_at_the_end,
            long.late_sessions,
            long.time_per_bar,
            long.time_per_bar_of_many,
        ],
        "commands": [
            *(partial(commands.help_text, code=code) for code in ("pass", "import typer")),
            commands.replay_to_first_bar,
            commands.replay_process,
        ],
        "memory": [history.allocated, history.resident, commands.replay_memory],
    }


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="GROUP", action="append", help="one group; repeatable")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; times mean nothing")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="sc-benchmarks-") as folder:
        lab = Lab(Path(folder), asked.quick)
        groups = benchmarks(lab)
        unknown = set(asked.only or ()) - set(groups)
        if unknown:
            parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
        figures = [
            _measured(benchmark, lab)
            for group in asked.only or [name for name in groups if name not in ON_DEMAND]
            for benchmark in groups[group]
        ]
    print_table(figures)
    if asked.json:
        asked.json.write_text(json.dumps([as_dict(figure) for figure in figures], indent=2))


def _measured(benchmark: Benchmark, lab: Lab) -> Figure:
    figure = benchmark(lab)
    print(figure.name, file=sys.stderr)
    return figure


if __name__ == "__main__":
    main()
