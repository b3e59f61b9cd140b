"""NautilusTrader: its low-level `BacktestEngine`, which its guide advises for data in memory.

Set up to run fast, by what its documentation says of each option: logging bypassed
(`LoggingConfig.bypass_logging`), no risk checks (`RiskEngineConfig.bypass`), no analysis after the
run (`BacktestEngineConfig.run_analysis`), bars made before the run by `BarDataWrangler` and added
once, sorted (`BacktestEngine.add_data` recommends `sort` and `validate`). `bar_execution` of
`add_venue`, on by default, sends each bar through the matching engine as well.
"""
# mypy: disable-error-code="import-not-found", disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, RiskEngineConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

from benchmarks.peers.frames import pandas_bars
from benchmarks.peers.market import Market, Measured, Tally, measured

_VENUE = Venue("XNAS")


class Tallying(Strategy):
    """Counts bars, sums their closes, keeps each symbol's last one."""

    def __init__(self, bar_types: Sequence[BarType]) -> None:
        super().__init__()
        self.bar_types = bar_types
        self.bars = 0
        self.closes = 0.0
        self.last: dict[BarType, float] = {}

    def on_start(self) -> None:
        """Ask for all bars."""
        for bar_type in self.bar_types:
            self.subscribe_bars(bar_type)

    def on_bar(self, bar: Bar) -> None:
        """Take a bar into account."""
        close = bar.close.as_double()
        self.bars += 1
        self.closes += close
        self.last[bar.bar_type] = close


def without_execution(market: Market) -> Measured:
    return _measure(market, bar_execution=False)


def with_execution(market: Market) -> Measured:
    return _measure(market, bar_execution=True)


def _measure(market: Market, *, bar_execution: bool) -> Measured:
    return measured(partial(_engine, market.frame(), bar_execution=bar_execution), _run)


def _engine(bars: pl.DataFrame, *, bar_execution: bool) -> tuple[BacktestEngine, Tallying]:
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(bypass=True),
            run_analysis=False,
        )
    )
    engine.add_venue(
        _VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.CASH,
        base_currency=USD,
        starting_balances=[Money(1_000_000, USD)],
        bar_execution=bar_execution,
    )
    data: list[Bar] = []
    bar_types: list[BarType] = []
    for symbol, frame in pandas_bars(bars):
        instrument = TestInstrumentProvider.equity(symbol=symbol, venue=_VENUE.value)
        engine.add_instrument(instrument)
        bar_types.append(BarType.from_str(f"{instrument.id}-1-MINUTE-LAST-EXTERNAL"))
        data += BarDataWrangler(bar_types[-1], instrument).process(frame)
    engine.add_data(data)
    strategy = Tallying(bar_types)
    engine.add_strategy(strategy)
    return engine, strategy


def _run(ready: tuple[BacktestEngine, Tallying]) -> Tally:
    engine, strategy = ready
    engine.run()
    return Tally.of(strategy.bars, strategy.closes, strategy.last.values())
