"""``python -m benchmarks.peers``: one table of other libraries beside this one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.contestants import OURS, PEERS
from benchmarks.peers.market import Market
from benchmarks.peers.results import Comparison, measure_all
from benchmarks.peers.table import as_dict, print_table


def main() -> None:
    """Measure who is asked for, and print it."""
    names = tuple(dict.fromkeys(one.name.lower() for one in PEERS))
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--only", metavar="PEER", action="append", choices=names, help="one peer; repeatable"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there as well")
    parser.add_argument("--quick", action="store_true", help="a tiny market; times mean nothing")
    asked = parser.parse_args()
    symbol_count, session_count, round_count = (4, 2, 1) if asked.quick else (100, 20, 3)
    peers = [one for one in PEERS if one.name.lower() in (asked.only or names)]
    with TemporaryDirectory(prefix="sc-peers-") as folder:
        market = Market(Path(folder), symbol_count, session_count)
        market.write()
        turns = [one for peer in peers for one in (*OURS, peer)]
        results = measure_all(turns, market, round_count)
    in_memory, from_store, *others = results
    comparisons = [Comparison(other, in_memory, from_store) for other in others]
    print_table([in_memory, from_store], comparisons, market, round_count)
    if asked.json:
        rows = [as_dict(in_memory), as_dict(from_store)]
        rows += [as_dict(one.peer, one) for one in comparisons]
        asked.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
