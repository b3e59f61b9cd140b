"""Filling a store's gaps from the configured sources, with a record of it in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock
from stream_coord.compute.gaps import FILLED, STATES
from stream_coord.config import Config
from stream_coord.errors import LedgerError
from stream_coord.interval import SECOND
from stream_coord.opening import Plan, attempts_of, enquirer_of
from stream_coord.runs import in_a_line, run_setup
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import Ledger, Outcome
from stream_coord.upkeep.fill import FillOptions, FillSummary, Progress, fill_gaps

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer

FILLING = "fill-gaps"
"""The work that one process at a time does with a ledger: what is pending in it is its own."""


@dataclass(frozen=True)
class StoreFilling:
    """What came of filling a store.

    Attributes:
        run: The run's number in the ledger; None for a dry run, which has none.
        summary: What became of the gaps.
    """

    run: int | None
    summary: FillSummary


class FillInterruptedError(KeyboardInterrupt):
    """The job was interrupted; what it had filled by then stays.

    Attributes:
        filled: The minutes that it had filled.
    """

    def __init__(self, filled: int) -> None:
        super().__init__()
        self.filled = filled


def fill_store(
    plan: Plan,
    ledger: Ledger | None,
    clock: Clock,
    *,
    dry_run: bool = False,
    reopen: bool = False,
    on_progress: Progress = lambda _, __, ___: None,
    on_wait: Callable[[], None] = lambda: None,
) -> StoreFilling:
    """Find what a store lacks, ask the configured sources for it, and store what they have.

    The ledger gets a row when the job begins and when it ends, however it ends. A source that
    fails stops nothing; the summary tells of it.

    Args:
        plan: Which bars there should be.
        ledger: What is known of gaps; None: nothing, which only a dry run may do with.
        clock: Only minutes that have ended by now can be missing.
        dry_run: Ask the sources, but change neither store nor ledger.
        reopen: Ask also for minutes that were explained or given up.
        on_progress: Called with the sessions done, all of them, and the date of the one at hand.
        on_wait: Called once where another process fills gaps, with the same ledger: this one
            waits for its end. A dry run does not.

    Raises:
        ConfigError: a source cannot be what the settings say.
        FillInterruptedError: on an interrupt; of a dry run, which leaves nothing, it is a plain
            `KeyboardInterrupt`.
        StreamCoordError: whatever stops the job, after it is recorded.
    """
    options = FillOptions(
        attempts=attempts_of(plan.config),
        grace_micros=plan.config.settings.upkeep.grace_seconds * SECOND,
        dry_run=dry_run,
        reopen=reopen,
    )
    enquirer = enquirer_of(plan.config)
    try:
        if not dry_run and ledger is not None:
            place = Place(plan.config, plan.calendar, plan.store)
            record = JobRecord(FILLING, place, ledger, clock, enquirer)
            with ledger.alone(FILLING, on_wait):
                return _recorded(plan, record, options, on_progress)
        summary = fill_gaps(plan, ledger, enquirer, clock, None, options, on_progress)
        return StoreFilling(None, summary)
    finally:
        enquirer.close()


@dataclass(frozen=True)
class Place:
    """Where a job works: what the settings name, opened.

    Attributes:
        config: The settings.
        calendar: The calendar.
        store: Where the bars are.
    """

    config: Config
    calendar: Calendar
    store: BarStore


@dataclass
class JobRecord:
    """A job that asks sources, in the ledger from its first row to its last.

    Attributes:
        command: What was run, for example ``fill-gaps``.
        place: Where it works.
        ledger: Where it is recorded.
        clock: Says when.
        enquirer: Whose questions to sources are recorded.
        number: The run's number in the ledger, once it has begun.
        sessions: How many sessions are done.
    """

    command: str
    place: Place
    ledger: Ledger
    clock: Clock
    enquirer: Enquirer
    number: int = 0
    sessions: int = 0
    _begun: float = field(default_factory=perf_counter)

    def begin(self) -> None:
        """Record that it begins."""
        setup = run_setup(self.place.config, self.place.calendar, self.place.store)
        self.number = self.ledger.begin_run(self.clock.now(), self.command, **setup)

    def finish(self, status: Outcome, filled: int, error: str | None = None) -> None:
        """Record how it ended, after filling so many minutes."""
        calls = self.enquirer.take_calls()  # of a batch that was stopped
        if calls:
            self.ledger.record_calls(self.number, calls)
        self.ledger.finish_run(
            self.number,
            self.clock.now(),
            status,
            digest=None,
            sessions=self.sessions,
            bars=filled,
            derived_bars=0,
            updates=0,
            timings={"total": perf_counter() - self._begun},
            error=error,
        )

    def stop(self, status: Outcome, sessions: Sequence[Session], reason: str | None = None) -> int:
        """Record that it has not come to its end, if the ledger can be written.

        Args:
            status: How it ended.
            sessions: The sessions it was about; there may be none.
            reason: Why; None: how many minutes were filled.

        Returns:
            How many minutes it has filled, as far as the ledger knows.
        """
        filled = 0
        if not self.number:  # it has not even begun
            return filled
        with suppress(LedgerError):  # what stopped the job is the error to report
            filled = self._filled(sessions)
            self.finish(status, filled, reason or f"stopped after filling {filled} minutes")
        return filled

    def _filled(self, sessions: Sequence[Session]) -> int:
        if not sessions:
            return 0
        first, last = (sessions[at].date.isoformat() for at in (0, -1))
        interval = str(self.place.config.base_interval)
        return sum(
            gap.minutes
            for gap in self.ledger.gap_states(interval, first, last)
            if gap.run_id == self.number and gap.state == STATES[FILLED]
        )


def _recorded(
    plan: Plan, record: JobRecord, options: FillOptions, on_progress: Progress
) -> StoreFilling:
    """Do it, from its first row in the ledger to its last."""

    def moved(done: int, total: int, date: str) -> None:
        record.sessions = done
        on_progress(done, total, date)

    record.begin()
    try:
        summary = fill_gaps(
            plan, record.ledger, record.enquirer, record.clock, record.number, options, moved
        )
        record.sessions = len(plan.sessions)
        record.finish("done", summary.filled)
    except KeyboardInterrupt as error:
        raise FillInterruptedError(record.stop("interrupted", plan.sessions)) from error
    except BaseException as error:
        record.stop("failed", plan.sessions, plan.config.mask(in_a_line(error)))
        raise
    return StoreFilling(record.number, summary)
