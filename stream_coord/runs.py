"""A replay with its record in the ledger, and what a store's bars are worth without a replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stream_coord import __version__
from stream_coord.ahead import one_ahead
from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock, format_moment
from stream_coord.compute.quality import GapRow
from stream_coord.config import Config
from stream_coord.coordinator import Coordinator, Replay, ReplayedSession
from stream_coord.errors import LedgerError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.loading import LoadedSession, load_session
from stream_coord.planning import Universe
from stream_coord.session.boundaries import SessionState, StateChange
from stream_coord.session.quality import SessionQuality, measure_session
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import GapChange, Ledger, Outcome, SessionRecord, StateRecord
from stream_coord.stores.ledger.runs import RunSetup


@dataclass(frozen=True)
class RecordedRun:
    """A replay that the ledger knows.

    Attributes:
        number: The run's number in the ledger.
        replay: The replay.
    """

    number: int
    replay: Replay


def record_replay(
    coordinator: Coordinator,
    ledger: Ledger,
    clock: Clock,
    config: Config,
    calendar: Calendar,
    on_session: Callable[[ReplayedSession], None] = lambda _: None,
) -> RecordedRun:
    """Run a replay; the ledger gets a row when it begins, after each session, and when it ends.

    However the run ends, the ledger says so: done, failed (with the reason) or interrupted.

    Raises:
        StreamCoordError: whatever stops the replay, after it is recorded.
    """
    setup = run_setup(config, calendar, coordinator.store)
    number = ledger.begin_run(clock.now(), "replay", **setup)

    def remembered(session: Session, symbols: Sequence[str]) -> Sequence[GapRow]:
        day = session.date.isoformat()
        return ledger.gap_states(str(config.base_interval), day, day, symbols)

    coordinator.remember(remembered)

    def note(replayed: ReplayedSession) -> None:
        ledger.record_session(number, session_record(replayed))
        if coordinator.upkeep.enquirer is not None:
            ledger.record_calls(number, coordinator.upkeep.enquirer.take_calls())
        if replayed.disagreements:
            told = tuple(replayed.disagreements)
            interval = str(config.base_interval)
            ledger.seal_gaps(number, GapChange(interval, (), disagreements=told))
        on_session(replayed)

    def finish(status: Outcome, error: str | None = None) -> None:
        replay = coordinator.replay
        ledger.finish_run(
            number,
            clock.now(),
            status,
            digest=replay.digest if status == "done" else None,
            sessions=len(replay.sessions),
            bars=replay.bars,
            derived_bars=replay.derived_bars,
            updates=replay.updates,
            timings=replay.timings,
            error=error,
        )

    try:
        coordinator.run(note)
        finish("done")
    except BaseException as error:
        # What stopped the replay is the error to report.
        stopped = isinstance(error, KeyboardInterrupt)
        cause = stopped_at(coordinator) if stopped else config.mask(in_a_line(error))
        with suppress(LedgerError):
            note_states(coordinator, ledger, number, None if stopped else cause)
        with suppress(LedgerError):
            finish("interrupted" if stopped else "failed", cause)
        raise
    return RecordedRun(number, coordinator.replay)


def note_states(coordinator: Coordinator, ledger: Ledger, number: int, cause: str | None) -> None:
    """Let the ledger know the states of a session that was stopped.

    Args:
        coordinator: Who replayed it.
        ledger: The ledger.
        number: The run.
        cause: What went wrong, which is its last state; None: nothing, it was interrupted.
    """
    session, changes = coordinator.changes_so_far()
    if session is None:
        return
    if cause is not None:
        left = changes[-1].entered if changes else SessionState.NOT_STARTED
        failed = StateChange(coordinator.data.now, left, SessionState.ERROR, cause)
        changes = (*changes, failed)
    ledger.record_states(number, [state_record(session, change) for change in changes])


def state_record(session: Session, change: StateChange) -> StateRecord:
    """Return what the ledger keeps of a change of a session's state."""
    return StateRecord(
        session.date.isoformat(),
        change.time,
        change.left.name,
        change.entered.name,
        change.cause,
    )


def stopped_at(coordinator: Coordinator) -> str:
    """Return how far a replay came that was stopped, for people."""
    moment = coordinator.moment()
    if moment is None:
        return "stopped before its first session"
    return (
        f"stopped in session {moment.session.date} at {format_moment(moment.clock)}, "
        f"{moment.bars:,} bars delivered"
    )


def run_setup(config: Config, calendar: Calendar, store: BarStore) -> RunSetup:
    """Return what the ledger keeps of a run from its beginning: all that its result depends on."""
    return {
        "settings": config.dump(),
        "config_digest": config.digest,
        "calendar": calendar.name,
        "calendar_version": calendar.version,
        "store": config.mask(store.url),
        "program_version": __version__,
    }


def in_a_line(error: BaseException) -> str:
    """Return what stopped a run, without its hint."""
    text = error.message if isinstance(error, StreamCoordError) else f"{error}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def session_record(replayed: ReplayedSession) -> SessionRecord:
    """Return what the ledger keeps of a replayed session."""
    session = replayed.session
    return SessionRecord(
        session=session.date.isoformat(),
        open=session.open,
        close=session.close,
        digest=replayed.digest,
        data_version=replayed.data_version,
        bars=replayed.bars,
        derived_bars=replayed.derived_bars,
        updates=replayed.updates,
        quality=tuple(replayed.quality.rows()),
        gaps=tuple(replayed.quality.gaps()),
        states=[state_record(session, change) for change in replayed.changes],
    )


def measure_store(
    store: BarStore,
    interval: Interval,
    universe: Universe,
    sessions: Sequence[Session],
    remembered: Iterable[GapRow] = (),
) -> Iterator[SessionQuality]:
    """Yield what the stored bars of each session are worth; reads and verifies every bar.

    Args:
        store: Where the bars are.
        interval: Their interval.
        universe: The symbols.
        sessions: The sessions.
        remembered: What the ledger knows of gaps, of any session and symbol.

    Raises:
        StoreCorruptError: stored bytes are not what was written.
    """

    def load(session: Session) -> LoadedSession:
        return load_session(store, interval, universe.symbols_in(session), session)

    by_session: defaultdict[str, list[GapRow]] = defaultdict(list)
    for gap in remembered:
        by_session[gap.session].append(gap)
    for loaded in one_ahead(load(session) for session in sessions):
        expected = universe.expected_in(loaded.session)
        known = by_session[loaded.session.date.isoformat()]
        yield measure_session(loaded.block, loaded.session, expected, known)


def first_bars(store: BarStore, interval: Interval, universe: Universe) -> dict[str, int]:
    """Return the start of the first stored bar of each symbol that has one, UTC microseconds."""
    if universe.first is not None:
        return dict(zip(universe.symbols, universe.first, strict=True))
    return dict(store.spans(interval).select("symbol", "first").iter_rows())
