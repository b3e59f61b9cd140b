"""Who is measured, how each is set up, and what it sees."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Contestant:
    """A library in one setting.

    Attributes:
        name: Its name.
        setting: In a few words, how it is set up.
        module: The module that must be importable; its distribution has the same name.
        measure: Where the function is that measures it: the module of this package, and its name.
        note: What its times include.
        goal: How many times its rate ours is to be; None: no goal.
        share: It sees the first so-manieth of the sessions, where all would take too long.
    """

    name: str
    setting: str
    module: str
    measure: str
    note: str
    goal: float | None = None
    share: int = 1

    @property
    def label(self) -> str:
        """Name and setting."""
        return f"{self.name}, {self.setting}"

    @property
    def version(self) -> str | None:
        """The installed version; None where it is not installed."""
        return version(self.module) if importlib.util.find_spec(self.module) else None

    def sessions_of(self, session_count: int) -> int:
        """Return how many of so many sessions it sees."""
        return max(1, session_count // self.share)


IN_MEMORY = Contestant(
    "stream-coord",
    "in memory",
    "stream_coord",
    "ours:in_memory",
    "loading makes blocks of the frame; the run is SessionStream into on_bar: Bar objects, digest "
    "and session store included.",
)
FROM_STORE = Contestant(
    "stream-coord",
    "from the Delta store",
    "stream_coord",
    "ours:from_store",
    "the run is all of Coordinator.run: reading and verifying Parquet files, quality, and the "
    "stream into on_bar. There is nothing to load before it.",
)
OURS = (IN_MEMORY, FROM_STORE)

PEERS = (
    Contestant(
        "NautilusTrader",
        "bar_execution=False",
        "nautilus_trader",
        "nautilus:without_execution",
        "loading makes Bar objects (BarDataWrangler) and sorts them (add_data); the run is "
        "BacktestEngine.run. Logging, risk checks and analysis are off.",
        goal=15,
    ),
    Contestant(
        "NautilusTrader",
        "bar_execution=True",
        "nautilus_trader",
        "nautilus:with_execution",
        "the same, and bars pass the matching engine as well.",
        goal=15,
    ),
    Contestant(
        "backtrader",
        "preload, runonce, no stdstats",
        "backtrader",
        "backtrader:preloaded",
        "loading makes PandasDirectData feeds and is that part of Cerebro.run which preloads "
        "them; the run is the rest of it. It sees a fifth of the sessions, being the slowest.",
        goal=80,
        share=5,
    ),
    Contestant(
        "pandas",
        "itertuples",
        "pandas",
        "frames:pandas_rows",
        "no engine: a loop over rows in the order of time.",
    ),
    Contestant(
        "pandas",
        "whole columns",
        "pandas",
        "frames:pandas_columns",
        "no engine: len, sum, and groupby for the last closes.",
    ),
    Contestant(
        "polars",
        "whole columns",
        "polars",
        "frames:polars_columns",
        "no engine: one group_by. A floor that no loop over bars reaches.",
    ),
)
