"""Rounds of measurements, each checked against what must have been seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from benchmarks.figures import Spread
from benchmarks.peers.contestants import Contestant
from benchmarks.peers.market import Market, Measured, Tally


@dataclass(frozen=True)
class Result:
    """What one contestant's rounds gave.

    Attributes:
        contestant: Who it was.
        rounds: Its runs, all of which saw the same; none if it is not installed.
    """

    contestant: Contestant
    rounds: Sequence[Measured]

    @property
    def tally(self) -> Tally:
        """What its strategy saw."""
        return self.rounds[0].tally

    @cached_property
    def loading_seconds(self) -> Spread:
        """Seconds of loading."""
        return Spread.of([one.loading_seconds for one in self.rounds])

    @cached_property
    def run_seconds(self) -> Spread:
        """Seconds of running, data loaded."""
        return Spread.of([one.run_seconds for one in self.rounds])

    @property
    def run_rate(self) -> float:
        """Bars a second, data loaded."""
        return self.tally.bars / self.run_seconds.median

    @property
    def whole_rate(self) -> float:
        """Bars a second, loading included."""
        whole = Spread.of([one.loading_seconds + one.run_seconds for one in self.rounds])
        return self.tally.bars / whole.median


@dataclass(frozen=True)
class Comparison:
    """A peer's result beside ours.

    Attributes:
        peer: The peer's.
        in_memory: Ours, data loaded.
        from_store: Ours, reading included.
    """

    peer: Result
    in_memory: Result
    from_store: Result

    @property
    def run_ratio(self) -> float:
        """How many times the peer's rate ours is, both with data loaded."""
        return self.in_memory.run_rate / self.peer.run_rate

    @property
    def whole_ratio(self) -> float:
        """The same with loading: the peer's from a frame in memory, ours from the store."""
        return self.from_store.whole_rate / self.peer.whole_rate

    @property
    def run_reached(self) -> bool | None:
        """Whether `run_ratio` reaches the goal; None without a goal."""
        goal = self.peer.contestant.goal
        return None if goal is None else self.run_ratio >= goal

    @property
    def whole_reached(self) -> bool | None:
        """Whether `whole_ratio` does."""
        goal = self.peer.contestant.goal
        return None if goal is None else self.whole_ratio >= goal


def measure_all(turns: Sequence[Contestant], market: Market, round_count: int) -> list[Result]:
    """Measure all that are installed, and return a result for each contestant.

    Args:
        turns: Who is measured after whom in a round; the same one may have several turns.
        market: The bars; its store is written.
        round_count: How many rounds.
    """
    rounds: dict[Contestant, list[Measured]] = {one: [] for one in turns}
    present = [one for one in turns if one.version is not None]
    truths: dict[int, Tally] = {}
    for number in range(1, round_count + 1):
        for one in present:
            seen = replace(market, session_count=one.sessions_of(market.session_count))
            if seen.session_count not in truths:
                truths[seen.session_count] = seen.truth()
            print(f"round {number} of {round_count}: {one.label}", file=sys.stderr)
            rounds[one].append(checked(one, _measure(one, seen), truths[seen.session_count]))
    return [Result(one, measurements) for one, measurements in rounds.items()]


def checked(contestant: Contestant, measurement: Measured, truth: Tally) -> Measured:
    """Return the measurement if its strategy saw all bars; otherwise its times say nothing.

    Raises:
        SystemExit: it saw something else.
    """
    if not measurement.tally.agrees_with(truth):
        raise SystemExit(f"{contestant.label} saw {measurement.tally}, but there is {truth}")
    return measurement


def _measure(contestant: Contestant, market: Market) -> Measured:
    command = [sys.executable, "-m", "benchmarks.peers.one", contestant.measure]
    arguments = [str(market.folder), str(market.symbol_count), str(market.session_count)]
    done = subprocess.run(command + arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contestant.label} failed:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Measured(**answer | {"tally": Tally(**answer["tally"])})
