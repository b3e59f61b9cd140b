"""``python -m benchmarks.peers.one``: measure one contestant once, in a process of its own."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.market import Market, Measured


def main() -> None:
    """Take ``module:function folder symbols sessions``, and print what came out as JSON."""
    place, folder, symbol_count, session_count = sys.argv[1:]
    module, _, name = place.partition(":")
    measure: Callable[[Market], Measured] = getattr(
        importlib.import_module(f"benchmarks.peers.{module}"), name
    )
    market = Market(Path(folder), int(symbol_count), int(session_count))
    print(json.dumps(asdict(measure(market))))


if __name__ == "__main__":
    main()
