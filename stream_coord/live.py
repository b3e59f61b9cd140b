"""A session store that a feed fills, set up from the settings and recorded in the ledger.

::

    with live_session(load_config(Path("sc.toml"))) as live:
        for symbol, start, values in feed:
            live.data.add_bar(symbol, start, values)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from stream_coord.calendars import Session
from stream_coord.clock import Clock, SystemClock, SystemTimer, Timer
from stream_coord.config import Config
from stream_coord.errors import LedgerError, UsageError
from stream_coord.interval import MINUTE, SECOND, Interval
from stream_coord.monitor import MonitorSettings, SessionMonitor
from stream_coord.opening import (
    calendar_of,
    history_of,
    ledger_of,
    store_of,
    timeout_of,
    upkeep_of,
)
from stream_coord.runs import in_a_line, run_setup, state_record
from stream_coord.session.boundaries import StateChange
from stream_coord.session.data import SessionData
from stream_coord.stores.ledger import Disagreement, GapChange, Ledger, Outcome, SourceCall
from stream_coord.upkeep import Upkeep


@dataclass(frozen=True)
class LiveSession:
    """A session store that a feed fills, and who looks after it.

    Attributes:
        data: The session store.
        monitor: Who looks after it; its thread runs inside the ``with``.
        run: The run's number in the ledger.
    """

    data: SessionData
    monitor: SessionMonitor
    run: int


@contextmanager
def live_session(
    config: Config,
    clock: Clock | None = None,
    timer: Timer | None = None,
    on_state: Callable[[StateChange], None] = lambda _: None,
) -> Iterator[LiveSession]:
    """Give a session store of the session that is under way, or else of the next one.

    It has its history from the configured store, its gaps are filled from the configured sources,
    it rolls as the settings say, and every change of its state, and every question to a source, is
    a row of the ledger.

    Args:
        config: The settings; they list the symbols.
        clock: The time; the wall clock by default.
        timer: Lets the monitor's thread sleep; the system's by default.
        on_state: Told of each change of state.

    Raises:
        UsageError: the settings list no symbols.
        StoreError: there is no store, or its bars cannot be read.
        LedgerError: the ledger cannot be opened or written.
    """
    if not config.symbols:
        raise UsageError(
            "the settings list no symbols, and a feed's cannot be guessed",
            'Write them into the settings, such as symbols = ["SPY"].',
        )
    clock = clock or SystemClock()
    with ExitStack() as opened:
        calendar, store = calendar_of(config), store_of(config)
        opened.callback(store.close)
        ledger = opened.enter_context(ledger_of(config, create=True))
        upkeep = upkeep_of(config)
        opened.callback(upkeep.close)
        history = history_of(config, calendar, store)
        session = calendar.session_from(clock.now())
        kept = history.kept if history else None
        data = SessionData(
            config.symbols,
            session,
            config.base_interval,
            upkeep.derived,
            kept.sessions if kept else 0,
            kept.intervals if kept else None,
        )
        data.use_history(history)
        if history is not None and history.auto_load:
            data.load_historical_bars()
        number = ledger.begin_run(clock.now(), "live", **run_setup(config, calendar, store))
        record = _Record(ledger, number, clock, upkeep, config.base_interval)
        settings = replace(monitor_settings(config, upkeep), on_asked=record.note_asked)
        monitor = SessionMonitor(
            data, calendar, clock, timer or SystemTimer(), settings, on_state, record.note
        )
        try:
            with monitor:
                yield LiveSession(data, monitor, number)
            record.finish("done")
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            with suppress(LedgerError):  # what stopped it is the error to report
                record.finish("interrupted" if stopped else "failed", config.mask(in_a_line(error)))
            raise


def monitor_settings(config: Config, upkeep: Upkeep | None = None) -> MonitorSettings:
    """Return how the settings want a session that a feed fills to be looked after.

    Args:
        config: The settings.
        upkeep: How its gaps are looked after; None: not at all.
    """
    chosen = config.settings.session
    return MonitorSettings(
        timeout_micros=timeout_of(config),
        check_micros=chosen.boundary_check_interval_seconds * SECOND,
        roll_delay_micros=chosen.post_market_roll_delay_minutes * MINUTE,
        auto_roll=chosen.auto_roll,
        upkeep=upkeep,
    )


@dataclass
class _Record:
    """The run of a live session in the ledger."""

    ledger: Ledger
    number: int
    clock: Clock
    upkeep: Upkeep
    interval: Interval
    sessions: set[Session] = field(default_factory=set)

    def note(self, session: Session, change: StateChange) -> None:
        """Record a change of state."""
        self.sessions.add(session)
        self.ledger.record_states(self.number, [state_record(session, change)])

    def note_asked(
        self, calls: Sequence[SourceCall], disagreements: Sequence[Disagreement]
    ) -> None:
        """Record who was asked for bars, and of which minutes sources have different ones."""
        if calls:
            self.ledger.record_calls(self.number, calls)
        if disagreements:
            change = GapChange(str(self.interval), (), disagreements=tuple(disagreements))
            self.ledger.seal_gaps(self.number, change)

    def finish(self, status: Outcome, error: str | None = None) -> None:
        """Record how the run ended."""
        if self.upkeep.enquirer is not None:  # asked since the last look
            self.note_asked(self.upkeep.enquirer.take_calls(), ())
        self.ledger.finish_run(
            self.number,
            self.clock.now(),
            status,
            digest=None,
            sessions=len(self.sessions),
            bars=0,
            derived_bars=0,
            updates=0,
            timings={},
            error=error,
        )
