"""What the settings name, opened: calendar, store, strategy, ledger, and the plan of a replay.

::

    config = load_config(Path("sc.toml"))
    plan = plan_replay(config, date(2018, 11, 19), date(2018, 11, 23))
    replay = plan.coordinator(strategy_of(config)).run()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stream_coord.calendars import Calendar, Session, open_calendar
from stream_coord.config import Config
from stream_coord.interval import SECOND, Interval
from stream_coord.planning import Universe, choose_sessions, choose_universe, next_to_replay
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    from stream_coord.coordinator import Coordinator
    from stream_coord.pace import Pace
    from stream_coord.stores.ledger import Ledger
    from stream_coord.strategy import Strategy
    from stream_coord.upkeep import Upkeep
    from stream_coord.upkeep.asking import Enquirer


@dataclass(frozen=True)
class Plan:
    """Which bars a replay or a report is about.

    Attributes:
        calendar: The calendar.
        store: Where the bars are.
        config: The settings.
        sessions: The sessions, ascending; at least one.
        universe: The symbols; its `notes` are for the user.
    """

    calendar: Calendar
    store: BarStore
    config: Config
    sessions: tuple[Session, ...]
    universe: Universe

    @property
    def interval(self) -> Interval:
        """The base interval."""
        return self.config.base_interval

    def coordinator(
        self, strategy: Strategy | None = None, pace: Pace | None = None
    ) -> Coordinator:
        """Return who replays this.

        Args:
            strategy: Whom to call; None: nobody.
            pace: When minutes are due; None: at once.

        Raises:
            ConfigError: a source cannot be what the settings say.
        """
        from stream_coord.coordinator import Coordinator

        return Coordinator(
            self.store,
            self.interval,
            self.universe,
            self.sessions,
            strategy,
            pace,
            upkeep_of(self.config),
        )


def plan_replay(
    config: Config, first: date | None = None, last: date | None = None, *, next_one: bool = False
) -> Plan:
    """Open calendar and store, and choose sessions and symbols.

    Args:
        config: The settings.
        first: The first session; None: the oldest stored.
        last: The last session; None: the newest stored.
        next_one: Take the session after the current one instead.

    Raises:
        UsageError: the range is empty; as `CalendarError` where it has no session.
        StoreError: there is no store, or it cannot be opened.
        NoBarsError: the store has no bars of these sessions, nor does the user list symbols.
    """
    calendar, store, interval = calendar_of(config), store_of(config), config.base_interval
    if next_one:
        first = last = next_to_replay(calendar, store, interval).date
    sessions = choose_sessions(calendar, store, interval, first, last)
    universe = choose_universe(store, interval, sessions, config.symbols)
    return Plan(calendar, store, config, sessions, universe)


def calendar_of(config: Config) -> Calendar:
    """Open the configured calendar.

    Raises:
        CalendarError: there is none of this name, or it has no such hours.
    """
    chosen = config.settings.calendar
    return open_calendar(chosen.name, chosen.hours, chosen.overrides, cache_dir=config.cache_dir)


def store_of(config: Config, *, create: bool = False) -> BarStore:
    """Open the configured bar store.

    Args:
        config: The settings.
        create: Make the store if there is none.

    Raises:
        ConfigError: its address is none.
        StoreError: there is no store, or it cannot be opened.
    """
    return open_store(config.settings.store.url, config.root, create=create)


def upkeep_of(config: Config) -> Upkeep:
    """Return how the settings want a replay to look after its data; no source is opened yet.

    Raises:
        ConfigError: a source cannot be what the settings say.
    """
    from stream_coord.upkeep import Upkeep

    chosen = config.settings.upkeep
    if not chosen.enabled:
        return Upkeep()
    derived = chosen.derived_intervals if chosen.auto_compute_derived else ()
    return Upkeep(
        enquirer=enquirer_of(config) if config.settings.sources else None,
        derived=tuple(sorted({Interval.parse(text) for text in derived})),
        check_micros=chosen.check_interval_seconds * SECOND,
        attempts=attempts_of(config),
        grace_micros=chosen.grace_seconds * SECOND,
        synthesize=chosen.synthesize == "flat",
    )


def enquirer_of(config: Config) -> Enquirer:
    """Return who asks the configured sources, of which none is opened yet.

    Raises:
        ConfigError: a source cannot be what the settings say.
    """
    from stream_coord.clock import SystemClock, SystemTimer
    from stream_coord.sources.opening import sources_of
    from stream_coord.upkeep.asking import Enquirer

    sources = sources_of(config)
    return Enquirer(sources, config.base_interval, SystemClock(), SystemTimer(), config.mask)


def attempts_of(config: Config) -> int:
    """Return how often a missing minute is asked for before it is unresolved."""
    chosen = config.settings.upkeep
    return max(1, chosen.max_retries) if chosen.retry_missing_bars else 1


def strategy_of(config: Config) -> Strategy | None:
    """Load the strategy of the settings; None where there is none.

    Raises:
        UsageError: there is no such class.
        StrategyError: its code raised.
    """
    from stream_coord.strategy import load_strategy

    chosen = config.settings.strategy
    return load_strategy(chosen.class_, chosen.params, config.root) if chosen.class_ else None


@contextmanager
def ledger_of(config: Config, *, create: bool = False) -> Iterator[Ledger]:
    """Open the configured ledger, and close it.

    Args:
        config: The settings.
        create: Make the ledger if there is none.

    Raises:
        LedgerError: there is no ledger, or it cannot be opened.
    """
    from stream_coord.stores.ledger import open_ledger

    ledger = open_ledger(config.settings.ledger.url, config.root, create=create)
    try:
        yield ledger
    finally:
        ledger.close()
