"""A replay with its record in the ledger, and what a store's bars are worth without a replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stream_coord import __version__
from stream_coord.ahead import one_ahead
from stream_coord.calendars import Calendar, Session
from stream_coord.clock import Clock, format_moment
from stream_coord.config import Config
from stream_coord.coordinator import Coordinator, Replay, ReplayedSession
from stream_coord.errors import LedgerError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.loading import LoadedSession, load_session
from stream_coord.planning import Universe
from stream_coord.session.quality import SessionQuality, measure_session
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import Ledger, Outcome, SessionRecord


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
    number = ledger.begin_run(
        clock.now(),
        "replay",
        settings=config.dump(),
        config_digest=config.digest,
        calendar=calendar.name,
        calendar_version=calendar.version,
        store=config.mask(coordinator.store.url),
        program_version=__version__,
    )

    def note(replayed: ReplayedSession) -> None:
        ledger.record_session(number, session_record(replayed))
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
            derived_bars=0,
            updates=replay.updates,
            timings=replay.timings,
            error=error,
        )

    try:
        coordinator.run(note)
        finish("done")
    except BaseException as error:
        with suppress(LedgerError):  # what stopped the replay is the error to report
            if isinstance(error, KeyboardInterrupt):
                finish("interrupted", stopped_at(coordinator))
            else:
                finish("failed", config.mask(_in_a_line(error)))
        raise
    return RecordedRun(number, coordinator.replay)


def stopped_at(coordinator: Coordinator) -> str:
    """Return how far a replay came that was stopped, for people."""
    moment = coordinator.moment()
    if moment is None:
        return "stopped before its first session"
    return (
        f"stopped in session {moment.session.date} at {format_moment(moment.clock)}, "
        f"{moment.bars:,} bars delivered"
    )


def _in_a_line(error: BaseException) -> str:
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
        derived_bars=0,
        updates=replayed.updates,
        quality=tuple(replayed.quality.rows()),
        gaps=tuple(replayed.quality.gaps()),
    )


def measure_store(
    store: BarStore, interval: Interval, universe: Universe, sessions: Sequence[Session]
) -> Iterator[SessionQuality]:
    """Yield what the stored bars of each session are worth; reads and verifies every bar.

    Raises:
        StoreCorruptError: stored bytes are not what was written.
    """

    def load(session: Session) -> LoadedSession:
        return load_session(store, interval, universe.symbols_in(session), session)

    for loaded in one_ahead(load(session) for session in sessions):
        expected = universe.expected_in(loaded.session)
        yield measure_session(loaded.block, loaded.session, expected)
