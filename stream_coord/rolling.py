"""Ending sessions one after the other: the job behind ``sc roll``.

A session that is over gets a last pass over its gaps, is measured as it is stored, and is sealed;
the seal and the cursor's move to the next session are one transaction of the ledger. So whatever
stops it leaves every session sealed or current, and who runs it again goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock
from stream_coord.compute.quality import QualityRow
from stream_coord.config import Config
from stream_coord.errors import LedgerError, NoBarsError, StoreConflictError, StoreError
from stream_coord.filling import FILLING, JobRecord, Place
from stream_coord.loading import data_version
from stream_coord.opening import Plan, attempts_of, cursor_key, enquirer_of
from stream_coord.planning import Universe, choose_universe, current_session
from stream_coord.runs import in_a_line
from stream_coord.session.block import Block
from stream_coord.session.boundaries import SessionState
from stream_coord.session.quality import measure_session
from stream_coord.stores.ledger import Ledger, SealRecord, StateRecord
from stream_coord.upkeep.fill import FillOptions, FillSummary, Progress, fill_gaps

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer

Status = Literal["rolled", "up-to-date", "not-over", "error"]
Reason = Literal["not-over", "not-begun", "no-bars"]

NEEDS_A_PERSON = (
    "`sc store verify` names what is damaged. Put a sound copy of it back in its place, "
    "then run `sc roll --clear-error`."
)
"""What to do about a session in error."""


@dataclass
class Rolling:
    """How far sessions are rolled.

    Attributes:
        first: The session that was the current one at first.
        current: The one that is it now; of a dry run, that would be.
        now: When, UTC microseconds.
        dry_run: Whether nothing was changed.
        run: The run's number in the ledger; None where there was nothing to do, or of a dry run.
        sessions: The dates of the sessions that are sealed.
        sealed: What their stored bars are worth, by session and symbol; of a dry run, as they are.
        fills: What became of the gaps of each session, or would have.
        stopped: Why it is not at the session that was asked for; None if it is, or beyond.
        cause: Why the current session is in error; None if it is not.
        cleared: The cause of an error that was cleared.
        notes: What a user should know, a sentence each.
    """

    first: Session
    current: Session
    now: int
    dry_run: bool = False
    run: int | None = None
    sessions: list[date] = field(default_factory=list)
    sealed: list[QualityRow] = field(default_factory=list)
    fills: list[FillSummary] = field(default_factory=list)
    stopped: Reason | None = None
    cause: str | None = None
    cleared: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """What came of it, in a word."""
        if self.cause is not None:
            return "error"
        if self.sessions:
            return "rolled"
        return "not-over" if self.stopped == "not-over" else "up-to-date"

    @property
    def fill(self) -> FillSummary:
        """What became of the gaps of all sessions."""
        fills = self.fills
        return FillSummary(
            gaps=[gap for fill in fills for gap in fill.gaps],
            minutes_missing=sum(fill.minutes_missing for fill in fills),
            filled=sum(fill.filled for fill in fills),
            no_trade=sum(fill.no_trade for fill in fills),
            unresolved=sum(fill.unresolved for fill in fills),
            still_missing=sum(fill.still_missing for fill in fills),
            skipped=sum(fill.skipped for fill in fills),
            by_source=dict(sum((Counter(fill.by_source) for fill in fills), Counter())),
            failures=list(dict.fromkeys(chain.from_iterable(fill.failures for fill in fills))),
            differences=[each for fill in fills for each in fill.differences],
        )


class RollInterruptedError(KeyboardInterrupt):
    """The job was interrupted; what it had sealed by then stays.

    Attributes:
        sealed: How many sessions it had sealed.
        current: The date of the current session.
    """

    def __init__(self, sealed: int, current: date) -> None:
        super().__init__()
        self.sealed = sealed
        self.current = current


@dataclass(frozen=True, kw_only=True)
class RollOptions:
    """How far to roll, and how.

    Attributes:
        to: The session to be at, with all before it ended; None: the next one.
        dry_run: Ask the sources, but change neither store nor ledger.
        clear_error: Take off the error of the current session first, if it is in error.
    """

    to: date | None = None
    dry_run: bool = False
    clear_error: bool = False


def roll(
    place: Place,
    ledger: Ledger | None,
    clock: Clock,
    options: RollOptions = RollOptions(),
    on_progress: Progress = lambda _, __, ___: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Rolling:
    """End the current session if it is over, and make the next one the current one.

    The ledger gets a row when there is something to do, and again when that ends, however it ends.
    A source that fails stops nothing; what it was asked for stays missing. Stored bytes that are
    not what was written, and whatever else is wrong with the store, put the session in error:
    nothing more is done until a person clears it.

    Args:
        place: The settings, the calendar and the store.
        ledger: Where the cursor is; None: nowhere, which only a dry run may do with.
        clock: Only a session that has ended by now is over.
        options: How far, and how.
        on_progress: Called with the sessions done, all of them, and the date of the one at hand.
        on_wait: Called once where another process rolls or fills gaps with the same ledger: this
            one waits for its end, and does not do again what that one did. A dry run does not.

    Raises:
        CalendarError: there is no session on `options.to`, or none where the cursor is.
        ConfigError: a source cannot be what the settings say.
        NoBarsError: there is no cursor and the store is empty, or nobody lists symbols and the
            store has no bars of the current session.
        RollInterruptedError: on an interrupt; of a dry run, which leaves nothing, it is a plain
            `KeyboardInterrupt`.
        StoreConflictError: others kept storing what was to be filled.
        LedgerError: the ledger cannot be read or written.
    """
    if ledger is None and not options.dry_run:
        raise ValueError("only a dry run needs no ledger")
    asked_for = None if options.to is None else place.calendar.session(options.to)
    # Before waiting for others, so that this call and theirs are not two sessions.
    begin, _ = _cursor(place, ledger)
    target = asked_for or place.calendar.next_session(begin.date)
    alone = nullcontext() if options.dry_run or ledger is None else ledger.alone(FILLING, on_wait)
    with alone:
        current, error = _cursor(place, ledger)
        rolling = Rolling(current, current, clock.now(), options.dry_run)
        if error is not None and not options.clear_error:
            rolling.cause = error
            return rolling
        rolling.cleared = error
        over = _over(place.calendar, rolling, target)
        if over or error is not None:
            enquirer = enquirer_of(place.config)
            try:
                _Job(place, ledger, clock, enquirer, rolling, on_progress).run(over)
            finally:
                enquirer.close()
        return rolling


def _cursor(place: Place, ledger: Ledger | None) -> tuple[Session, str | None]:
    """Return the current session, and its error if it has one."""
    cursor = None if ledger is None else ledger.cursor(cursor_key(place.config))
    day = None if cursor is None else cursor.session
    current = current_session(place.calendar, place.store, place.config.base_interval, day)
    return current, None if cursor is None else cursor.error


def _over(calendar: Calendar, rolling: Rolling, target: Session) -> tuple[Session, ...]:
    """Return the sessions to end before `target` is the current one, as far as they are over."""
    ahead = calendar.sessions(rolling.current.date, target.date)[:-1]
    over = tuple(session for session in ahead if session.end <= rolling.now)
    if len(over) < len(ahead):
        rolling.stopped = "not-over" if ahead[len(over)].start <= rolling.now else "not-begun"
    return over


@dataclass
class _Job:
    """Sessions that are ended; see `roll`. What comes of it is in `rolling`."""

    place: Place
    ledger: Ledger | None
    clock: Clock
    enquirer: Enquirer
    rolling: Rolling
    on_progress: Progress

    @property
    def config(self) -> Config:
        """The settings."""
        return self.place.config

    @property
    def key(self) -> str:
        """Whose cursor it is."""
        return cursor_key(self.config)

    def run(self, sessions: Sequence[Session]) -> None:
        """End these sessions, with a record of it unless it is a dry run."""
        if self.rolling.dry_run or self.ledger is None:
            self._end_all(sessions, None)
            return
        record = JobRecord("roll", self.place, self.ledger, self.clock, self.enquirer)
        record.begin()
        self.rolling.run = record.number
        try:
            if self.rolling.cleared is not None:
                state = self._state(SessionState.ERROR, SessionState.ENDED)
                self.ledger.clear_error(record.number, self.key, state, self.clock.now())
            self._end_all(sessions, record)
            record.finish("done", self.rolling.fill.filled)
        except KeyboardInterrupt as error:
            raise self._interrupted(sessions, record) from error
        except StoreConflictError as error:  # nothing is wrong with the store
            self._failed(error, sessions, record)
            raise
        except StoreError as error:
            self._flag(error, record)
            self._failed(error, sessions, record)
        except BaseException as error:
            self._failed(error, sessions, record)
            raise

    def _end_all(self, sessions: Sequence[Session], record: JobRecord | None) -> None:
        """End sessions, oldest first, up to the first that nobody has bars of."""
        if not sessions:
            return
        universe = self._universe(sessions)
        held = tuple(takewhile(lambda each: universe.expected_in(each).any(), sessions))
        if len(held) < len(sessions):
            self.rolling.stopped = "no-bars"
        for done, session in enumerate(held):
            self.on_progress(done, len(held), session.date.isoformat())
            names, expected = universe.symbols_in(session), universe.expected_in(session)
            symbols = tuple(names[row] for row in np.flatnonzero(expected).tolist())
            self._end(session, symbols, record)

    def _universe(self, sessions: Sequence[Session]) -> Universe:
        """Return who is held to account; in the first session somebody is."""
        interval, listed = self.config.base_interval, self.config.symbols
        try:
            universe = choose_universe(self.place.store, interval, sessions, listed)
            if not universe.expected_in(sessions[0]).any():
                choose_universe(self.place.store, interval, sessions[:1], listed)
        except NoBarsError as error:
            advice = "Import some, or list symbols in the settings: they are expected at any time."
            error.hint = f"{error.hint} {advice}"
            raise
        self.rolling.notes = universe.notes
        return universe

    def _end(self, session: Session, symbols: tuple[str, ...], record: JobRecord | None) -> None:
        """Fill what a session lacks, measure it, seal it, and move on to the next."""
        place = self.place
        plan = Plan(place.calendar, place.store, place.config, (session,), Universe(symbols))
        options = FillOptions(attempts=attempts_of(place.config), dry_run=record is None)
        number = None if record is None else record.number
        fill = fill_gaps(plan, self.ledger, self.enquirer, self.clock, number, options)
        seal = self._seal(session, symbols)
        following = place.calendar.next_session(session.date)
        if record is not None:
            day, now = following.date.isoformat(), self.clock.now()
            record.ledger.seal_session(record.number, self.key, seal, day, now)
            record.sessions += 1
        self.rolling.sessions.append(session.date)
        self.rolling.sealed += seal.quality
        self.rolling.fills.append(fill)
        self.rolling.current = following

    def _seal(self, session: Session, symbols: tuple[str, ...]) -> SealRecord:
        """Return what is stored of a session, read and verified, and what it is worth."""
        interval, day = self.config.base_interval, session.date.isoformat()
        read = self.place.store.read_versioned(interval, symbols, session.start, session.end)
        block = Block.empty(symbols, [session], interval)
        block.fill(read.bars)
        known = self.ledger.gap_states(str(interval), day, day) if self.ledger else ()
        quality = measure_session(block, session, np.ones(len(symbols), np.bool_), known)
        by_symbol = read.versions.partition_by("symbol", as_dict=True)
        return SealRecord(
            session=day,
            open=session.open,
            close=session.close,
            bars=int(np.count_nonzero(block.present)),
            data_version=data_version(read.versions),
            quality=tuple(quality.rows()),
            checksums={str(symbol): data_version(rows) for (symbol,), rows in by_symbol.items()},
        )

    def _state(
        self, left: SessionState, entered: SessionState, cause: str | None = None
    ) -> StateRecord:
        day = self.rolling.current.date.isoformat()
        return StateRecord(day, self.clock.now(), left.name, entered.name, cause)

    def _flag(self, error: StoreError, record: JobRecord) -> None:
        """Put the current session in error, or raise `error` if the ledger cannot be written."""
        cause = self.config.mask(error.message)
        state = self._state(SessionState.ENDED, SessionState.ERROR, cause)
        try:
            record.ledger.flag_error(record.number, self.key, state, self.clock.now())
        except LedgerError:
            raise error from None
        self.rolling.cause, self.rolling.stopped = cause, None

    def _failed(self, error: BaseException, sessions: Sequence[Session], record: JobRecord) -> None:
        record.stop("failed", sessions, self.config.mask(in_a_line(error)))

    def _interrupted(self, sessions: Sequence[Session], record: JobRecord) -> RollInterruptedError:
        """Record an interrupt, and return what tells how far it came."""
        current = self.rolling.current.date
        with suppress(LedgerError):  # what stopped the job is the error to report
            # It may have come between the ledger's transaction and our own count.
            cursor = record.ledger.cursor(self.key)
            current = current if cursor is None else date.fromisoformat(cursor.session)
        record.sessions = sum(session.date < current for session in sessions)
        noun = "session" if record.sessions == 1 else "sessions"
        reason = f"stopped after sealing {record.sessions} {noun}"
        record.stop("interrupted", sessions, reason)
        return RollInterruptedError(record.sessions, current)
