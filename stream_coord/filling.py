"""Filling a store's gaps from the configured sources, with a record of it in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from stream_coord.clock import Clock
from stream_coord.compute.gaps import FILLED, STATES
from stream_coord.errors import LedgerError
from stream_coord.interval import SECOND
from stream_coord.opening import Plan, attempts_of, enquirer_of
from stream_coord.runs import in_a_line, run_setup
from stream_coord.stores.ledger import Ledger, Outcome
from stream_coord.upkeep.fill import FillOptions, FillSummary, Progress, fill_gaps

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer


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
            return _Job(plan, ledger, clock, enquirer, on_wait).run(options, on_progress)
        summary = fill_gaps(plan, ledger, enquirer, clock, None, options, on_progress)
        return StoreFilling(None, summary)
    finally:
        enquirer.close()


@dataclass
class _Job:
    """A filling that the ledger knows of; see `fill_store`."""

    plan: Plan
    ledger: Ledger
    clock: Clock
    enquirer: Enquirer
    on_wait: Callable[[], None]
    begun: float = field(default_factory=perf_counter)
    number: int = 0
    sessions: int = 0

    def run(self, options: FillOptions, on_progress: Progress) -> StoreFilling:
        """Do it, from its first row in the ledger to its last."""

        def moved(done: int, total: int, date: str) -> None:
            self.sessions = done
            on_progress(done, total, date)

        with self.ledger.alone("fill-gaps", self.on_wait):
            return self._alone(options, moved)

    def _alone(self, options: FillOptions, moved: Progress) -> StoreFilling:
        self._begin()
        try:
            summary = fill_gaps(
                self.plan, self.ledger, self.enquirer, self.clock, self.number, options, moved
            )
            self.sessions = len(self.plan.sessions)
            self._finish("done", summary.filled)
        except KeyboardInterrupt as error:
            raise FillInterruptedError(self._stop("interrupted")) from error
        except BaseException as error:
            self._stop("failed", self.plan.config.mask(in_a_line(error)))
            raise
        return StoreFilling(self.number, summary)

    def _stop(self, status: Outcome, reason: str | None = None) -> int:
        """Record that the job has not come to its end; return how many minutes it has filled."""
        filled = 0
        with suppress(LedgerError):  # what stopped the job is the error to report
            filled = self._filled()
            self._finish(status, filled, reason or f"stopped after filling {filled} minutes")
        return filled

    def _begin(self) -> None:
        plan = self.plan
        setup = run_setup(plan.config, plan.calendar, plan.store)
        self.number = self.ledger.begin_run(self.clock.now(), "fill-gaps", **setup)

    def _finish(self, status: Outcome, filled: int, error: str | None = None) -> None:
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
            timings={"total": perf_counter() - self.begun},
            error=error,
        )

    def _filled(self) -> int:
        """Return how many minutes the ledger knows that this job has filled."""
        first, last = (self.plan.sessions[at].date.isoformat() for at in (0, -1))
        return sum(
            gap.minutes
            for gap in self.ledger.gap_states(str(self.plan.interval), first, last)
            if gap.run_id == self.number and gap.state == STATES[FILLED]
        )
