"""stream-coord: sessions into `on_bar`, from memory and from a Delta store."""

from __future__ import annotations

from benchmarks.peers.market import Market, Measured, Tally, measured
from benchmarks.sample import BASE
from stream_coord.bars import Bar
from stream_coord.calendars import Session
from stream_coord.coordinator import Coordinator
from stream_coord.planning import Universe
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream


class Tallying(Strategy):
    """Counts bars, sums their closes, keeps each symbol's last one."""

    def __init__(self) -> None:
        self.bars = 0
        self.closes = 0.0
        self.last: dict[str, float] = {}

    def on_bar(self, bar: Bar) -> None:
        """Take a bar into account."""
        close = bar.close
        self.bars += 1
        self.closes += close
        self.last[bar.symbol] = close

    def tally(self) -> Tally:
        """Return what it saw."""
        return Tally.of(self.bars, self.closes, self.last.values())


def in_memory(market: Market) -> Measured:
    symbols = list(market.sample.symbols)
    frames = list(market.by_session())

    def load() -> list[tuple[Session, Block]]:
        blocks = []
        for session, bars in frames:
            block = Block.empty(symbols, [session], BASE)
            block.fill(bars)
            blocks.append((session, block))
        return blocks

    def run(blocks: list[tuple[Session, Block]]) -> Tally:
        strategy = Tallying()
        data = SessionData(blocks[0][1].symbols, blocks[0][0])
        for session, block in blocks:
            data.start_session(session, block)
            SessionStream(data, strategy, lambda: None).run()
        return strategy.tally()

    return measured(load, run)


def from_store(market: Market) -> Measured:
    sample = market.sample

    def run(_: None) -> Tally:
        strategy = Tallying()
        Coordinator(sample.open(), BASE, Universe(sample.symbols), sample.sessions, strategy).run()
        return strategy.tally()

    return measured(lambda: None, run)
