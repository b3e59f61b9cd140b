"""Filling a store's gaps from the sources, batch by batch: the job behind ``sc fill-gaps``.

A batch is some sessions: what they lack is asked for at once, stored in one commit, and then known
to the ledger. The ledger hears of it as pending before the store commits, and it is sealed after.
Who was killed in between left the ledger pending, and the next run sees from the store whether the
commit came through. A kill between two batches leaves whole batches done.

Others may write the store meanwhile, or fill it. Nothing they stored is overwritten: where a minute
that was missing is there when the batch is to be stored, or the ledger knows more of it than when
it was looked at, nothing is stored, and the batch is looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from stream_coord.calendars import Session
from stream_coord.clock import Clock
from stream_coord.compute.gaps import FILLED, MISSING, NO_TRADE, STATES, UNRESOLVED, Bools
from stream_coord.compute.quality import GapRow
from stream_coord.errors import StoreConflictError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.stores.base import BarStore, WriteOutcome
from stream_coord.stores.ledger import Disagreement, GapChange, Ledger
from stream_coord.stores.merge import KEY
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.batches import Batch, Look

BATCH_MINUTES = 2_000_000
"""Grid minutes of all symbols in a batch, about; a session is not cut."""

_LOOKS = 12
"""How often a batch is looked at while others keep storing what it lacks."""

Progress = Callable[[int, int, str], None]
"""Takes the sessions done, all sessions, and the one at hand."""


class Accountable(Protocol):
    """Which symbols are held to account (see `stream_coord.planning.Universe`)."""

    def symbols_in(self, session: Session) -> tuple[str, ...]:
        """Return the symbols of a session, sorted by code point."""
        ...

    def expected_in(self, session: Session) -> Bools:
        """Return which of `symbols_in` are expected; bool, shape (S,)."""
        ...


class FillPlan(Protocol):
    """Which bars there should be, and where (see `stream_coord.opening.Plan`)."""

    @property
    def store(self) -> BarStore:
        """Where the bars are."""
        ...

    @property
    def interval(self) -> Interval:
        """The base interval."""
        ...

    @property
    def sessions(self) -> Sequence[Session]:
        """The sessions, ascending."""
        ...

    @property
    def universe(self) -> Accountable:
        """The symbols."""
        ...


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """How gaps are filled.

    Attributes:
        attempts: How often a minute is asked for in vain before it is unresolved; at least 1.
        grace_micros: How long after its end a bar may be absent without being missing.
        dry_run: Ask the sources, but change neither store nor ledger.
        reopen: Forget what is remembered of minutes without a bar, and ask for all of them again.
    """

    attempts: int = 1
    grace_micros: int = 0
    dry_run: bool = False
    reopen: bool = False


@dataclass
class FillSummary:
    """What became of a store's gaps.

    ``minutes_missing = filled + no_trade + unresolved + still_missing``.

    Attributes:
        gaps: All gaps as they are now, those that are filled too, by session, symbol and start.
        minutes_missing: Minutes that had no bar when they were looked at, explained or not.
        filled: How many of them have one now.
        no_trade: How many of them have none, as all sources that cover them say, now or before.
        unresolved: How many of them are given up.
        still_missing: How many of them are still to be asked for.
        skipped: How many of them nobody was asked for: they are explained or given up, and there
            is no new source.
        by_source: Filled minutes by the identity of the source.
        failures: What failing sources said, each once, beginning with the source's identity.
        differences: What sources have of the minutes asked for besides the bar that won.
    """

    gaps: list[GapRow] = field(default_factory=list)
    minutes_missing: int = 0
    filled: int = 0
    no_trade: int = 0
    unresolved: int = 0
    still_missing: int = 0
    skipped: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    differences: list[Disagreement] = field(default_factory=list)

    @property
    def disagreements(self) -> int:
        """Minutes for which a source has other values than the one that won."""
        return len({(each.symbol, each.start) for each in self.differences})


def fill_gaps(
    plan: FillPlan,
    ledger: Ledger | None,
    enquirer: Enquirer,
    clock: Clock,
    run_id: int | None,
    options: FillOptions = FillOptions(),
    on_progress: Progress | None = None,
) -> FillSummary:
    """Find what a store lacks, ask the sources for it, and store what they have.

    First it completes what a killed run left pending. Ctrl-C, and whatever else stops it, leaves
    whole batches done.

    Args:
        plan: Which bars there should be.
        ledger: What is known of gaps; None: nothing, which only a dry run may do with.
        enquirer: Asks the sources.
        clock: Only minutes that ended by now, less the grace period, can be missing.
        run_id: A running run of the ledger; None in a dry run.
        options: How.
        on_progress: Called with the sessions done, all of them, and the date of the one at hand.

    Raises:
        IntervalError: a session is no whole number of bars.
        StoreCorruptError: stored bytes are not what was written.
        StoreConflictError: others kept storing what was to be filled.
        StoreError: the store cannot be read or written.
        LedgerError: the ledger cannot be read or written.
    """
    record = None
    if not options.dry_run:
        if ledger is None or run_id is None:
            raise ValueError("only a dry run needs no ledger and no run")
        settle_pending(plan.store, ledger)
        record = _Record(ledger, run_id)
    filling = _Filling(plan, ledger, enquirer, clock, options, record)
    done = 0
    for sessions in _batches(plan):
        if on_progress is not None:
            on_progress(done, len(plan.sessions), sessions[0].date.isoformat())
        filling.fill(sessions)
        done += len(sessions)
    return filling.summary


def settle_pending(store: BarStore, ledger: Ledger, run_id: int | None = None) -> None:
    """Seal what runs left pending where the store has committed it, and drop it where not.

    Args:
        store: The store that they filled.
        ledger: The ledger.
        run_id: Only what this run left; None: what any run left.
    """
    for number, change in ledger.pending_gaps():
        if run_id not in {None, number}:
            continue
        if _is_committed(store, change):
            ledger.seal_gaps(number, change)
        else:
            ledger.drop_pending(number)


class _OvertakenError(Exception):
    """Somebody else has stored, or found out, what was about to be."""


@dataclass(frozen=True)
class _Record:
    """A run's pages in the ledger."""

    ledger: Ledger
    run_id: int


@dataclass(frozen=True)
class _Filling:
    """A run that fills gaps; see `fill_gaps`. Without a record it is a dry run."""

    plan: FillPlan
    ledger: Ledger | None
    enquirer: Enquirer
    clock: Clock
    options: FillOptions
    record: _Record | None
    summary: FillSummary = field(default_factory=FillSummary)
    first_bars: dict[str, int] = field(default_factory=dict)
    """The start of each symbol's first stored bar; looked up when there is a gap."""

    def fill(self, sessions: Sequence[Session]) -> None:
        """Do one batch."""
        for _ in range(_LOOKS):
            with suppress(_OvertakenError):
                self._try(sessions)
                return
        raise StoreConflictError(
            f"others stored what was to be filled {_LOOKS} times",
            "Nothing of it was overwritten; run it again when they are done.",
        )

    def _try(self, sessions: Sequence[Session]) -> None:
        """Do one batch, if nobody else does meanwhile.

        Raises:
            _OvertakenError: somebody does; nothing was changed.
        """
        remembered = self._remembered(sessions)
        batch = self._look(sessions, remembered)
        batch.ask(self.enquirer, self.options.attempts, self.clock.now())
        self._note_calls()
        if (batch.absent or any(part.remembered for part in batch.parts)) and not self.first_bars:
            spans = self.plan.store.spans(self.plan.interval)
            self.first_bars.update(spans.select("symbol", "first").iter_rows())
        gaps = batch.gaps(self.first_bars)

        def check(stored: int) -> None:
            if stored < batch.found or self._remembered(sessions) != remembered:
                raise _OvertakenError

        if self.record is not None:
            self._keep(batch, batch.change(gaps), self.record, check)
        self._add(batch, gaps)

    def _look(
        self, sessions: Sequence[Session], remembered: Mapping[str, Sequence[GapRow]]
    ) -> Batch:
        plan, options = self.plan, self.options
        due = self.clock.now() - options.grace_micros
        look = Look(plan.store, plan.interval, due, self.enquirer, options.reopen)
        parts = []
        for session in sessions:
            symbols = _expected(plan.universe, session)
            known = remembered.get(session.date.isoformat(), ())
            parts.append(look.at(session, symbols, known))
        return Batch(parts, plan.interval)

    def _remembered(self, sessions: Sequence[Session]) -> Mapping[str, Sequence[GapRow]]:
        """Return what the ledger knows, by session."""
        first, last = (sessions[at].date.isoformat() for at in (0, -1))
        by_session: dict[str, list[GapRow]] = {}
        if self.ledger is not None:
            for gap in self.ledger.gap_states(str(self.plan.interval), first, last):
                by_session.setdefault(gap.session, []).append(gap)
        return by_session

    def _note_calls(self) -> None:
        calls = self.enquirer.take_calls()
        failures = [f"{call.source}: {call.error}" for call in calls if call.error is not None]
        self.summary.failures[:] = dict.fromkeys([*self.summary.failures, *failures])
        if calls and self.record is not None:
            self.record.ledger.record_calls(self.record.run_id, calls)

    def _keep(
        self, batch: Batch, change: GapChange, record: _Record, check: Callable[[int], None]
    ) -> None:
        """Store what was found, and let the ledger know; both, whatever stops it.

        Args:
            batch: What was found.
            change: What the ledger is to know.
            record: The run.
            check: Called just before, with how many bars are new to the store; may stop it.
        """
        ledger, run_id = record.ledger, record.run_id
        if not batch.found:
            if change.scope:
                check(0)
                ledger.seal_gaps(run_id, change)
            return

        def pend(outcome: WriteOutcome) -> None:
            check(outcome.stored)
            ledger.pend_gaps(run_id, change)

        try:
            self.plan.store.write(self.plan.interval, batch.bars, before_commit=pend)
            ledger.seal_gaps(run_id, change)
        except BaseException:
            with suppress(StreamCoordError):  # what stopped it is the error to report
                settle_pending(self.plan.store, ledger, run_id)
            raise

    def _add(self, batch: Batch, gaps: Sequence[GapRow]) -> None:
        """Add what became of a batch to the summary."""
        counts, summary = batch.counts(), self.summary
        self.first_bars.update(batch.first_bars(self.first_bars))
        summary.gaps += gaps
        summary.minutes_missing += batch.absent
        summary.filled += batch.found
        summary.no_trade += counts[STATES[NO_TRADE]]
        summary.unresolved += counts[STATES[UNRESOLVED]]
        summary.still_missing += counts[STATES[MISSING]]
        summary.skipped += batch.absent - batch.asked
        summary.by_source = dict(Counter(summary.by_source) + Counter(batch.by_source))
        summary.differences += batch.disagreements


def _batches(plan: FillPlan) -> Iterator[list[Session]]:
    """Yield the sessions in batches of about `BATCH_MINUTES`."""
    batch: list[Session] = []
    minutes = 0
    for session in plan.sessions:
        grid = sum(part.close - part.open for part in session.regular) // plan.interval.micros
        more = grid * len(plan.universe.symbols_in(session))
        if batch and minutes + more > BATCH_MINUTES:
            yield batch
            batch, minutes = [], 0
        batch.append(session)
        minutes += more
    if batch:
        yield batch


def _expected(universe: Accountable, session: Session) -> tuple[str, ...]:
    pairs = zip(universe.symbols_in(session), universe.expected_in(session).tolist(), strict=True)
    return tuple(str(symbol) for symbol, expected in pairs if expected)


def _is_committed(store: BarStore, change: GapChange) -> bool:
    """Tell whether a store holds what a pending change says that it filled.

    The first and the last minute of each range are enough: all were to be stored in one commit.
    """
    import polars as pl

    interval = Interval.parse(change.interval)
    filled: dict[str, list[GapRow]] = {}
    for gap in change.gaps:
        if gap.state == STATES[FILLED]:
            filled.setdefault(gap.session, []).append(gap)
    for gaps in filled.values():
        start, end = min(gap.start for gap in gaps), max(gap.end for gap in gaps)
        bars = store.read(interval, sorted({gap.symbol for gap in gaps}), start, end)
        edges = [(gap.symbol, at) for gap in gaps for at in (gap.start, gap.end - interval.micros)]
        wanted = pl.DataFrame(edges, bars.select(KEY).schema, orient="row")
        if len(wanted.join(bars, on=KEY, how="anti")):
            return False
    return True
