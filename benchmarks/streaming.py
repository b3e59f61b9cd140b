"""Replays: sessions through the session store into nobody, or into a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from xxhash import xxh3_128

from benchmarks.figures import Figure, Goal, Run, compare, duration, rate
from benchmarks.lab import Lab
from benchmarks.sample import BASE, synthetic_bars
from stream_coord.bars import Bar
from stream_coord.clock import SystemClock, SystemTimer
from stream_coord.compute.digest import RECORD
from stream_coord.config.settings import SourceSettings
from stream_coord.coordinator import Coordinator
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.session.data import SessionData
from stream_coord.session.series import Series
from stream_coord.sources.protocol import NamedSource
from stream_coord.sources.store import StoreSource
from stream_coord.stores import open_store
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.keeper import Keeper

_CHUNK_BARS = 8192


class Counting(Strategy):
    """Counts bars and sums their closes."""

    def __init__(self) -> None:
        self.bars = 0
        self.closes = 0.0

    def on_bar(self, bar: Bar) -> None:
        """Count a bar."""
        self.bars += 1
        self.closes += bar.close


class Replay:
    """A replay of sessions that are in memory already.

    Args:
        lab: The lab.
        symbols: How many symbols.
        strategy: Whose object to call; None: nobody's.
        upkeep: How to look after the bars, and what to derive of them; None: not at all.
    """

    def __init__(
        self,
        lab: Lab,
        symbols: int,
        strategy: type[Counting] | None,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._blocks = [(day, lab.block(symbols, day)) for day in lab.sessions_of(symbols)]
        self._strategy = None if strategy is None else strategy()
        self._upkeep = upkeep
        self.bars = sum(int(block.present.sum()) for _, block in self._blocks)

    def __call__(self) -> None:
        """Stream all sessions."""
        first_session, first_block = self._blocks[0]
        upkeep = self._upkeep
        derived = upkeep.derived if upkeep else ()
        data = SessionData(first_block.symbols, first_session, BASE, derived)
        everybody = np.ones(len(first_block.symbols), np.bool_)
        for session, block in self._blocks:
            series = Series(block, derived)
            data.start_session(session, series)
            keeper = Keeper(upkeep, session, block, everybody) if upkeep else None
            SessionStream(data, self._strategy, lambda: None, keeper=keeper).run()


class CountingAll(Counting):
    """Counts derived bars as well."""

    intervals = ("5m", "15m")


def into_on_bar(lab: Lab, symbols: int) -> Figure:
    replay = Replay(lab, symbols, Counting)
    value, floor = compare(rate(replay, replay.bars), _bare_loop(lab), lab.repeats)
    name = f"replay into on_bar, in memory, {symbols:,} symbols"
    return Figure(name, value, "M bars/s", "bare loop over Bar objects", floor, Goal(2))


def with_derived(lab: Lab, symbols: int, strategy: type[Counting] | None) -> Figure:
    """Measure a replay with upkeep and 5m and 15m bars; building them is part of it."""
    upkeep = Upkeep(derived=tuple(map(Interval.parse, CountingAll.intervals)))
    kept, bare = Replay(lab, symbols, strategy, upkeep), Replay(lab, symbols, strategy)
    value, floor = compare(rate(kept, kept.bars), rate(bare, bare.bars), lab.repeats)
    into = {None: "no callback", Counting: "1m into on_bar", CountingAll: "all into on_bar"}
    name = f"replay, upkeep, 5m + 15m, {into[strategy]}, in memory, {symbols:,} symbols"
    goal = Goal(20 if strategy is None else 2)
    return Figure(name, value, "M bars/s", "without upkeep and derived bars", floor, goal)


def upkeep_share(lab: Lab, missing: float) -> Figure:
    """Measure a replay from a store that lacks some minutes, which another store has.

    Args:
        lab: The lab.
        missing: The share of minutes that it lacks; of the real bars that the tests use it is
            0.0003.
    """
    sessions = lab.sessions_of(lab.few)
    bars = [synthetic_bars(lab.few, session, whole=True) for session in sessions]
    whole = pl.concat(bars).sort("symbol", "start")
    lost = np.random.default_rng(1).random(len(whole)) < missing
    urls = {name: f"delta:{name}-{missing}" for name in ("whole", "holed")}
    for url, kept in ((urls["whole"], whole), (urls["holed"], whole.filter(~lost))):
        open_store(url, lab.folder, create=True).write(BASE, kept)
    universe = Universe(tuple(whole["symbol"].unique(maintain_order=True)))

    def replay(upkeep: Upkeep | None) -> None:
        store = open_store(urls["holed"], lab.folder)
        Coordinator(store, BASE, universe, sessions, Counting(), upkeep=upkeep).run()

    def kept_up() -> None:
        settings = SourceSettings(name="whole", kind="store", url=urls["whole"])
        source = NamedSource("whole", "whole", StoreSource(settings, lab.folder))
        replay(Upkeep(Enquirer([source], BASE, SystemClock(), SystemTimer())))

    count = len(whole)
    value, floor = compare(
        duration(kept_up, "ns", count), duration(lambda: replay(None), "ns", count), lab.repeats
    )
    name = f"time per bar, upkeep that fills {missing:.2%}, from the store"
    return Figure(name, value, "ns", "the same without upkeep", floor, Goal(1.1, "ratio"))


def no_callback(lab: Lab, symbols: int, floor: str) -> Figure:
    replay = Replay(lab, symbols, None)
    least = rate(FLOORS[floor](replay.bars), replay.bars)
    value, spread = compare(rate(replay, replay.bars), least, lab.repeats)
    name = f"replay with no callback, in memory, {symbols:,} symbols"
    return Figure(name, value, "M bars/s", floor, spread, Goal(20))


def time_per_bar(lab: Lab, strategy: type[Counting] | None) -> Figure:
    many, few = (Replay(lab, symbols, strategy) for symbols in (lab.many, lab.few))
    value, floor = compare(
        duration(many, "ns", many.bars), duration(few, "ns", few.bars), lab.repeats
    )
    name = f"time per bar, {_into(strategy)}, {lab.many:,} symbols"
    return Figure(name, value, "ns", f"{lab.few:,} symbols", floor, Goal(1.2, "ratio"))


def from_store(lab: Lab, symbols: int, strategy: type[Counting] | None) -> Figure:
    sample, sessions = lab.sample(symbols), lab.sessions_of(symbols)
    universe = Universe(sample.symbols)
    replay = Replay(lab, symbols, strategy)

    def replay_stored() -> None:
        acting = None if strategy is None else strategy()
        Coordinator(sample.open(), BASE, universe, sessions, acting).run()

    value, floor = compare(rate(replay_stored, replay.bars), rate(replay, replay.bars), lab.repeats)
    name = f"replay {_into(strategy)}, from the store, {symbols:,} symbols"
    return Figure(name, value, "M bars/s", "the same, in memory", floor)


def _into(strategy: type[Counting] | None) -> str:
    return "with no callback" if strategy is None else "into on_bar"


def _bare_loop(lab: Lab) -> Run:
    """Return a run of the least that calling `on_bar` for some Bar objects can cost."""
    bars = _bar_objects(lab)
    on_bar = Counting().on_bar

    def loop() -> None:
        for bar in bars:
            on_bar(bar)

    return rate(loop, len(bars))


def _bar_objects(lab: Lab) -> Sequence[Bar]:
    block = lab.block(lab.few, lab.sessions[0])
    data = SessionData(block.symbols, lab.sessions[0])
    data.start_session(lab.sessions[0], block)
    data.advance_to(lab.sessions[0].end)
    return [bar for symbol in data.symbols for bar in data.last_n(symbol, len(block.starts))]


def _hash(bars: int) -> Callable[[], object]:
    """Return work that hashes so many records, a few of them again and again, from the cache."""
    chunk = np.zeros(_CHUNK_BARS, RECORD).tobytes()
    rest = chunk[: bars % _CHUNK_BARS * RECORD.itemsize]

    def work() -> int:
        digest = xxh3_128(rest)
        for _ in range(bars // _CHUNK_BARS):
            digest.update(chunk)
        return digest.intdigest()

    return work


def _copy(bars: int) -> Callable[[], object]:
    """Return work that copies so many records."""
    records, target = np.zeros(bars, RECORD), np.zeros(bars, RECORD)
    return lambda: np.copyto(target, records)


FLOORS = {"XXH3-128 of as many records": _hash, "copy of as many records": _copy}
