"""What the settings name, opened: calendar, store, strategy, ledger, and the plan of a replay.

::

    config = load_config(Path("sc.toml"))
    plan = plan_replay(config, date(2018, 11, 19), date(2018, 11, 23))
    replay = plan.coordinator(strategy_of(config)).run()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stream_coord.calendars import Calendar, Session, open_calendar
from stream_coord.compute.splits import Splits
from stream_coord.config import Config
from stream_coord.config.masking import shown_form
from stream_coord.errors import LedgerMissingError, NoBarsError
from stream_coord.interval import SECOND, Interval
from stream_coord.planning import Universe, choose_sessions, choose_universe, next_to_replay
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    from stream_coord.coordinator import Coordinator
    from stream_coord.history import History
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
        self,
        strategy: Strategy | None = None,
        pace: Pace | None = None,
        splits: Splits | None = None,
    ) -> Coordinator:
        """Return who replays this.

        Args:
            strategy: Whom to call; None: nobody.
            pace: When minutes are due; None: at once.
            splits: The splits that are known; None: those of the configured ledger.

        Raises:
            ConfigError: a source cannot be what the settings say.
            LedgerError: there is a ledger, and it cannot be read.
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
            history=history_of(self.config, self.calendar, self.store, splits),
        )


def plan_replay(
    config: Config,
    first: date | None = None,
    last: date | None = None,
    *,
    next_one: bool = False,
    ledger: Ledger | None = None,
) -> Plan:
    """Open calendar and store, and choose sessions and symbols.

    Args:
        config: The settings.
        first: The first session; None: the oldest stored.
        last: The last session; None: the newest stored.
        next_one: Take the session after the current one instead.
        ledger: Knows the current session, if any was rolled; None: the configured one, if there
            is one.

    Raises:
        UsageError: the range is empty; as `CalendarError` where it has no session.
        StoreError: there is no store, or it cannot be opened.
        NoBarsError: the store has no bars of these sessions, nor does the user list symbols.
    """
    calendar, store, interval = calendar_of(config), store_of(config), config.base_interval
    if next_one:
        cursor = _cursor(config, ledger)
        first = last = next_to_replay(calendar, store, interval, cursor).date
    sessions = choose_sessions(calendar, store, interval, first, last)
    try:
        universe = choose_universe(store, interval, sessions, config.symbols)
    except NoBarsError as error:
        if next_one:
            error.message = f"the session after the current one is {first}, and {error.message}"
            error.hint = f"{error.hint} --session DATE replays any session."
        raise
    return Plan(calendar, store, config, sessions, universe)


def _cursor(config: Config, ledger: Ledger | None) -> str | None:
    """Return the date of the current session as the ledger has it."""
    if ledger is not None:
        cursor = ledger.cursor(cursor_key(config))
        return None if cursor is None else cursor.session
    with existing_ledger(config) as found:
        return _cursor(config, found) if found else None


def newest_sealed(config: Config) -> date | None:
    """Return the newest session that `sc roll` has sealed, if the ledger knows any.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with existing_ledger(config) as ledger:
        sealed = [seal.session for seal in ledger.seals(cursor_key(config))] if ledger else []
    return date.fromisoformat(max(sealed)) if sealed else None


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


def cursor_key(config: Config) -> str:
    """Return the name under which the ledger keeps the current session of these settings.

    Calendar, base interval and store make it, as the settings write them; where the ledger is not
    in their folder, so that others may use it too, also that folder.
    """
    chosen = config.settings
    beside = chosen.ledger.url.startswith("sqlite:///") and not (
        chosen.ledger.url.startswith("sqlite:////")
    )
    own = "" if beside else f" in {config.root.resolve()}"
    store = shown_form(chosen.store.url)
    return f"{chosen.calendar.name} {config.base_interval} {store}{own}"


def history_of(
    config: Config, calendar: Calendar, store: BarStore, splits: Splits | None = None
) -> History | None:
    """Return where a session's history comes from; None where the settings want none.

    Args:
        config: The settings.
        calendar: Says which sessions are before a session.
        store: Where the bars are.
        splits: The splits that are known; None: those of the configured ledger, if there is one.
            They are left aside where the settings say so.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    from stream_coord.history import History

    chosen = config.settings.history
    if not (chosen.enabled and chosen.trailing_days):
        return None
    if chosen.adjust == "none":
        splits = Splits()
    elif splits is None:
        splits = known_splits(config)
    return History(
        store,
        calendar,
        config.base_interval,
        chosen.trailing_days,
        tuple(sorted({Interval.parse(text) for text in chosen.intervals})),
        splits,
        chosen.auto_load,
    )


def known_splits(config: Config) -> Splits:
    """Return the splits that the configured ledger knows; none where there is no ledger.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with existing_ledger(config) as ledger:
        return Splits(ledger.splits() if ledger else ())


@contextmanager
def existing_ledger(config: Config) -> Iterator[Ledger | None]:
    """Open the configured ledger if there is one, and close it.

    Raises:
        LedgerError: it cannot be opened.
    """
    with ExitStack() as stack:
        ledger = None
        with suppress(LedgerMissingError):
            ledger = stack.enter_context(ledger_of(config))
        yield ledger


def upkeep_of(config: Config) -> Upkeep:
    """Return how the settings want a replay to look after its data; no source is opened yet.

    Raises:
        ConfigError: a source cannot be what the settings say.
    """
    from stream_coord.upkeep import Upkeep

    chosen, timeout_micros = config.settings.upkeep, timeout_of(config)
    if not chosen.enabled:
        return Upkeep(timeout_micros=timeout_micros)
    derived = chosen.derived_intervals if chosen.auto_compute_derived else ()
    return Upkeep(
        enquirer=enquirer_of(config) if config.settings.sources else None,
        derived=tuple(sorted({Interval.parse(text) for text in derived})),
        check_micros=chosen.check_interval_seconds * SECOND,
        attempts=attempts_of(config),
        grace_micros=chosen.grace_seconds * SECOND,
        synthesize=chosen.synthesize == "flat",
        timeout_micros=timeout_micros,
    )


def timeout_of(config: Config) -> int:
    """Return how long a session may be silent, microseconds: a bar's length at least."""
    return max(config.settings.session.timeout_seconds * SECOND, config.base_interval.micros)


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
