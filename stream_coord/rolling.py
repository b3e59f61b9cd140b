"""Ending sessions one after the other: the job behind ``sc roll``.

A session that is over gets a last pass over its gaps, is measured as it is stored, and is sealed;
the seal and the cursor's move to the next session are one transaction of the ledger. So whatever
stops it leaves every session sealed or current, and who runs it again goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock
from stream_coord.compute.quality import QualityRow
from stream_coord.config import Config
from stream_coord.errors import LedgerError, NoBarsError, StoreCorruptError
from stream_coord.filling import FILLING, JobRecord, Place
from stream_coord.opening import Plan, attempts_of, cursor_key, enquirer_of
from stream_coord.planning import Universe, choose_universe, current_session
from stream_coord.runs import in_a_line
from stream_coord.session.block import Block
from stream_coord.session.boundaries import SessionState
from stream_coord.session.quality import measure_session
from stream_coord.stores.base import content_checksum
from stream_coord.stores.ledger import Ledger, SealRecord, StateRecord
from stream_coord.upkeep.fill import FillOptions, FillSummary, Progress, fill_gaps

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer

Status = Literal["rolled", "up-to-date", "not-over", "error"]
Reason = Literal["not-over", "not-begun", "no-bars"]

_NAMED = 5
"""Symbols that a note names before it counts the rest."""

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
    A source that fails stops nothing; what it was asked for stays missing. Where no symbols are
    listed, a session that nobody has bars of is sealed without rows if the store has later bars,
    and if not, it stays current. Stored bytes that are not what was written put the session in
    error: nothing more is done until a person clears it. Whatever else the store fails with is no
    state of the session: the next call tries again.

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
        NoBarsError: there is no cursor and the store is empty.
        RollInterruptedError: on an interrupt; of a dry run, which leaves nothing, it is a plain
            `KeyboardInterrupt`.
        StoreError: the store cannot be read or written, or others kept storing what was to be
            filled.
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


def _notes_of(gone: Mapping[str, date]) -> tuple[str, ...]:
    """Say which symbols are not held to account in some sessions, and from which one on."""
    if not gone:
        return ()
    names = [f"{symbol} ({day})" for symbol, day in list(gone.items())[:_NAMED]]
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    return (
        "Left out from a session on, because their stored bars end before it: "
        f"{', '.join(names)}{more}. List symbols in the settings to hold them to account.",
    )


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
        """End these sessions, with a record of it if anything changes."""
        if self.rolling.dry_run or self.ledger is None:
            self._end_all(self._held(sessions), None)
            return
        record = JobRecord("roll", self.place, self.ledger, self.clock, self.enquirer)
        try:
            held = self._held(sessions)
            if held or self.rolling.cleared is not None:
                self._begin(record)
                self._end_all(held, record)
                record.finish("done", self.rolling.fill.filled)
        except KeyboardInterrupt as error:
            raise self._interrupted(sessions, record) from error
        except BaseException as error:
            flagged = isinstance(error, StoreCorruptError) and self._flag(error, record)
            record.stop("failed", sessions, self.config.mask(in_a_line(error)))
            if not flagged:
                raise

    def _begin(self, record: JobRecord) -> None:
        """Record that it begins, and clear the error that is to be cleared."""
        record.begin()
        self.rolling.run = record.number
        if self.rolling.cleared is not None:
            state = self._state(SessionState.ERROR, SessionState.ENDED)
            record.ledger.clear_error(record.number, self.key, state, self.clock.now())

    def _held(self, sessions: Sequence[Session]) -> Sequence[Session]:
        """Return the sessions up to the newest stored bar; all where symbols are listed."""
        if self.config.symbols or not sessions:
            return sessions
        spans = self.place.store.spans(self.config.base_interval)
        newest = max(spans["last"].to_list(), default=None)
        held = [each for each in sessions if newest is not None and each.start <= newest]
        if len(held) < len(sessions):
            self.rolling.stopped = "no-bars"
        return held

    def _end_all(self, sessions: Sequence[Session], record: JobRecord | None) -> None:
        """End sessions, oldest first."""
        if not sessions:
            return
        universe = self._universe(sessions)
        gone: dict[str, date] = {}
        for done, session in enumerate(sessions):
            self.on_progress(done, len(sessions), session.date.isoformat())
            names, expected = universe.symbols_in(session), universe.expected_in(session)
            symbols = tuple(names[row] for row in np.flatnonzero(expected).tolist())
            for row in np.flatnonzero(~expected).tolist():
                gone.setdefault(str(names[row]), session.date)
            self._end(session, symbols, record)
        self.rolling.notes += _notes_of(gone)

    def _universe(self, sessions: Sequence[Session]) -> Universe:
        """Return who is held to account: nobody in a hole between stored bars."""
        interval, listed = self.config.base_interval, self.config.symbols
        try:
            universe = choose_universe(self.place.store, interval, sessions, listed)
        except NoBarsError:
            universe = Universe((), (), ())
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
        block = Block.empty(symbols, [session], interval)
        block.fill(self.place.store.read(interval, symbols, session.start, session.end))
        known = self.ledger.gap_states(str(interval), day, day) if self.ledger else ()
        quality = measure_session(block, session, np.ones(len(symbols), np.bool_), known)
        checksums = _checksums(block)
        return SealRecord(
            session=day,
            open=session.open,
            close=session.close,
            bars=int(np.count_nonzero(block.present)),
            data_version=_data_version(checksums),
            quality=tuple(quality.rows()),
            checksums=checksums,
        )

    def _state(
        self, left: SessionState, entered: SessionState, cause: str | None = None
    ) -> StateRecord:
        day = self.rolling.current.date.isoformat()
        return StateRecord(day, self.clock.now(), left.name, entered.name, cause)

    def _flag(self, error: StoreCorruptError, record: JobRecord) -> bool:
        """Put the current session in error, and return whether the ledger has it."""
        cause = self.config.mask(error.message)
        state = self._state(SessionState.ENDED, SessionState.ERROR, cause)
        try:
            if not record.number:
                self._begin(record)
            record.ledger.flag_error(record.number, self.key, state, self.clock.now())
        except LedgerError:  # what is wrong with the store is the error to report
            return False
        self.rolling.cause, self.rolling.stopped = cause, None
        return True

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


def _checksums(block: Block) -> dict[str, str]:
    """Return the checksum of each symbol's bars in a block; a symbol without bars has none.

    A store's own checksums are of UTC dates, which may hold bars of the sessions before and after.
    """
    bars = ((symbol, row, block.present[row]) for row, symbol in enumerate(block.symbols))
    return {
        symbol: content_checksum([block.starts[there], *block.values[:, row].compress(there, 1)])
        for symbol, row, there in bars
        if there.any()
    }


def _data_version(checksums: Mapping[str, str]) -> str:
    """Return one hash of the bars of all symbols, 32 hex digits."""
    from xxhash import xxh3_128_hexdigest

    text = "".join(f"{symbol} {checksum}\n" for symbol, checksum in checksums.items())
    return xxh3_128_hexdigest(text.encode())
