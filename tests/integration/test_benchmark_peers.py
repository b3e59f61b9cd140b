"""The table of peers: everybody is held to the same bars; how fast anybody is, no test says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers import frames, ours
from benchmarks.peers.contestants import PEERS, Contestant
from benchmarks.peers.market import Market, Measured, Tally
from benchmarks.peers.results import Comparison, Result, checked, measure_all
from benchmarks.peers.table import as_dict, print_table
from benchmarks.sample import synthetic_bars

_ROOT = Path(__file__).parents[2]
_ABSENT = Contestant("Nobody", "as it comes", "no_such_library", "nobody:runs", "", goal=15)


def _plain_tally(market: Market) -> Tally:
    """Return what must be seen, bar by bar in the order of a replay, in exact arithmetic."""
    rows = [
        (bar["start"], bar["symbol"], round(bar["close"] * 100))
        for session in market.sessions
        for bar in synthetic_bars(market.symbol_count, session).iter_rows(named=True)
    ]
    last = {symbol: cents for _, symbol, cents in sorted(rows)}
    return Tally(len(rows), sum(row[2] for row in rows) / 100, sum(last.values()) / 100)


def _result(bars: int, *seconds: tuple[float, float], goal: float | None = None) -> Result:
    """Return a result of rounds with these seconds of loading and running."""
    tally = Tally(bars, 0.0, 0.0)
    rounds = [Measured(tally, loading, run) for loading, run in seconds]
    return Result(Contestant("Somebody", "fast", "polars", "", "", goal), rounds)


@pytest.mark.parametrize(
    "measure",
    [
        ours.in_memory,
        ours.from_store,
        frames.pandas_rows,
        frames.pandas_columns,
        frames.polars_columns,
    ],
)
def test_each_sees_every_bar_once(measure: Callable[[Market], Measured], tmp_path: Path) -> None:
    """Counts, sums and last closes are those of a plain sum in cents, holes and all."""
    market = Market(tmp_path, 5, 2)
    market.write()

    measurement = measure(market)

    expected = _plain_tally(market)
    assert expected.bars < 5 * 2 * 390
    assert measurement.tally.bars == expected.bars
    assert measurement.tally.closes == pytest.approx(expected.closes, rel=1e-12)
    assert measurement.tally.last_closes == pytest.approx(expected.last_closes, rel=1e-12)
    assert measurement.run_seconds > 0


def test_what_everybody_is_held_to_is_that_sum_too(tmp_path: Path) -> None:
    """A market of fewer sessions is held to its own bars."""
    for session_count in (1, 2):
        market = Market(tmp_path, 3, session_count)
        assert market.truth() == _plain_tally(market)


@pytest.mark.parametrize(
    "seen",
    [
        Tally(999_999, 1e8, 300.0),
        Tally(1_000_001, 1e8, 300.0),
        Tally(1_000_000, 1e8 + 0.01, 300.0),
        Tally(1_000_000, 1e8, 300.01),
        Tally(1_000_000, math.nan, 300.0),
    ],
)
def test_a_bar_or_a_cent_more_or_less_stops_the_benchmark(seen: Tally) -> None:
    """The message says who saw what, and what there is."""
    measurement = Measured(seen, 0.0, 1.0)

    with pytest.raises(SystemExit, match=f"Nobody, as it comes saw .*{seen.bars}.*there is "):
        checked(_ABSENT, measurement, Tally(1_000_000, 1e8, 300.0))


def test_the_last_digits_of_a_sum_may_differ() -> None:
    """Additions in another order give other last digits."""
    measurement = Measured(Tally(10, sum([0.1] * 10), 0.1), 0.0, 1.0)

    assert sum([0.1] * 10) != 1.0
    assert checked(_ABSENT, measurement, Tally(10, 1.0, 0.1)) is measurement


def test_ratios_are_of_rates_of_medians() -> None:
    """Runs are held against our run in memory, loading and run against our replay of a store."""
    in_memory = _result(1000, (9.0, 0.4), (9.0, 0.5), (9.0, 7.0))  # 2,000 bars/s
    from_store = _result(1000, (0.0, 0.5))  # 2,000 bars/s
    peer = _result(100, (3.0, 1.0), (1.0, 2.0), (2.0, 0.5), goal=20)  # 100 bars/s; with loading 33

    comparison = Comparison(peer, in_memory, from_store)

    assert comparison.run_ratio == pytest.approx(20)
    assert comparison.whole_ratio == pytest.approx(60)
    assert (comparison.run_reached, comparison.whole_reached) == (True, True)


def test_a_goal_may_be_reached_by_one_ratio_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The table says by which; the limit itself is good enough."""
    mine = _result(1000, (0.0, 1.0))
    verdicts = {
        (0.0, 1.0): "both",
        (0.0, 0.9): "no",
        (0.1, 0.9): "loading + run only",
    }
    comparisons = [Comparison(_result(50, one, goal=20), mine, mine) for one in verdicts]
    slow_store = _result(1000, (0.0, 1.5))
    comparisons.append(Comparison(_result(50, (0.0, 1.0), goal=20), mine, slow_store))
    comparisons.append(Comparison(_result(50, (0.0, 1.0)), mine, mine))

    print_table([mine, mine], comparisons, Market(Path(), 3, 1), round_count=1)

    rows = [line for line in capsys.readouterr().out.splitlines() if "│ Somebody" in line]
    told = [row.strip("│").split("│")[-1].strip() for row in rows[2:]]
    assert told == [*verdicts.values(), "run only", ""]


def test_a_peer_that_is_not_installed_is_named_as_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has a row, its goal, and neither a ratio nor a verdict."""
    market, mine = Market(tmp_path, 3, 1), _result(1000, (0.0, 0.5))

    (absent,) = measure_all([_ABSENT], market, round_count=3)
    comparison = Comparison(absent, mine, mine)
    print_table([mine, mine], [comparison], market, round_count=3)

    (row,) = (line for line in capsys.readouterr().out.splitlines() if "│ Nobody" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["Nobody, as it comes", "not installed", *[""] * 6, ">= 15x", ""]
    document = as_dict(absent, comparison)
    assert document["version"] is None
    assert document["tally"] is document["run_ratio"] is document["run_reached"] is None


def test_the_goals_are_those_of_the_event_loops() -> None:
    """Both settings of NautilusTrader have its goal: the faster one decides."""
    goals = {(one.name, one.goal) for one in PEERS}

    assert goals == {("NautilusTrader", 15), ("backtrader", 80), ("pandas", None), ("polars", None)}


def test_one_command_prints_the_table(tmp_path: Path) -> None:
    """Ours, then whom `--only` names, each measured in a process of its own."""
    document = tmp_path / "peers.json"

    done = _run("--quick", "--only", "polars", "--json", str(document))

    assert done.returncode == 0, done.stderr
    labels = [line.split("│")[1].strip() for line in done.stdout.splitlines() if "│" in line]
    assert labels == [
        "stream-coord, in memory",
        "stream-coord, from the Delta store",
        "polars, whole columns",
    ]
    rows = json.loads(document.read_text())
    assert [f"{row['name']}, {row['setting']}" for row in rows] == labels
    expected = _plain_tally(Market(tmp_path, 4, 2))
    for row in rows:
        assert row["tally"]["bars"] == expected.bars
        assert row["tally"]["closes"] == pytest.approx(expected.closes, rel=1e-12)
        assert row["run_seconds"]["median"] > 0


def test_an_unknown_peer_is_a_usage_error_that_names_the_peers() -> None:
    """Nothing is measured for a peer that does not exist."""
    done = _run("--only", "nonsense")

    assert done.returncode == 2
    assert "nautilustrader" in done.stderr
    assert "Traceback" not in done.stderr


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
