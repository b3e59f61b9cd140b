"""The ledger's pages on runs: what a run delivered, session by session, and how good it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.stores.ledger.base import (
    LedgerBase,
    Outcome,
    check_session,
    execute_many,
    insert_row,
    running,
    values_of,
)
from stream_coord.stores.ledger.schema import tables
from stream_coord.stores.ledger.sessions import StateRecord, add_states

if TYPE_CHECKING:
    import sqlalchemy as sa


class RunSetup(TypedDict):
    """What a run's result depends on.

    Attributes:
        settings: The effective settings as TOML; holds no secret.
        config_digest: Hash of the settings that the digest depends on.
        calendar: The calendar's name.
        calendar_version: The version of the library that it comes from.
        store: The store's address without secrets.
        program_version: Of stream-coord.
    """

    settings: str
    config_digest: str
    calendar: str
    calendar_version: str
    store: str
    program_version: str


class RunResult(TypedDict):
    """What came of a run.

    Attributes:
        digest: The run's digest, where it has one.
        sessions: Sessions delivered.
        bars: Base bars delivered; `derived_bars` and `updates` likewise.
        timings: Seconds by name.
        error: What stopped it, if something did; holds no secret.
    """

    digest: str | None
    sessions: int
    bars: int
    derived_bars: int
    updates: int
    timings: Mapping[str, float]
    error: NotRequired[str | None]


@dataclass(frozen=True)
class RunRow:
    """One run of a command; its counts and timings are zero and empty until it has ended.

    Attributes:
        id: What `Ledger.begin_run` returned.
        started: UTC microseconds.
        finished: UTC microseconds; None while it runs, and for ever if it was killed.
        status: ``running``, ``done``, ``failed`` or ``interrupted``.
        digest: The run's digest; None where it has none.
        timings: Seconds by name.
        error: What stopped it, if something did.
    """

    id: int
    started: int
    finished: int | None
    status: str
    command: str
    settings: str
    config_digest: str
    calendar: str
    calendar_version: str
    store: str
    program_version: str
    digest: str | None
    sessions: int
    bars: int
    derived_bars: int
    updates: int
    timings: Mapping[str, float]
    error: str | None


@dataclass(frozen=True)
class SessionRow:
    """One session of a run.

    Attributes:
        session: Its date, ``YYYY-MM-DD``.
        open: UTC microseconds.
        close: UTC microseconds.
        digest: The session's digest.
        data_version: What the stored bars were, as one hash.
        bars: Base bars delivered; `derived_bars` and `updates` likewise.
    """

    session: str
    open: int
    close: int
    digest: str
    data_version: str
    bars: int
    derived_bars: int
    updates: int


@dataclass(frozen=True)
class SessionRecord(SessionRow):
    """One session of a run with its quality by symbol, and the gaps behind that.

    Attributes:
        quality: Each symbol once at most.
        gaps: Each symbol and start once at most.
        states: How it passed from state to state, in order of time.
    """

    quality: Sequence[QualityRow]
    gaps: Sequence[GapRow]
    states: Sequence[StateRecord] = ()


_SESSION = tuple(field.name for field in fields(SessionRow))
_QUALITY = tuple(field.name for field in fields(QualityRow))
_GAP = tuple(field.name for field in fields(GapRow) if field.name not in {"asked", "empty"})


class RunLedger(LedgerBase):
    """What was run, on which data, and what came of it."""

    def begin_run(self, now: int, command: str, **setup: Unpack[RunSetup]) -> int:
        """Record that a run begins, and return its id.

        Args:
            now: UTC microseconds.
            command: What was run, for example ``replay``.
            setup: What the run's result depends on.
        """
        nothing_yet = dict.fromkeys(("sessions", "bars", "derived_bars", "updates"), 0)
        values = {"started": now, "command": command, **setup, **nothing_yet, "timings": {}}
        return self._begin(tables().runs, values)

    def record_session(self, run_id: int, record: SessionRecord) -> None:
        """Record a session of a running run, once.

        Args:
            run_id: The run.
            record: The session; all its rows are of this session.
        """
        t = tables()
        session = {name: getattr(record, name) for name in _SESSION}
        check_session(record.session, [*record.quality, *record.gaps, *record.states])
        with self._writing() as connection:
            running(connection, t.runs, run_id)
            id_ = insert_row(connection, t.run_sessions, {**session, "run_id": run_id})
            for table, rows in ((t.run_quality, record.quality), (t.run_gaps, record.gaps)):
                names = [column.name for column in table.c if column.name != "session_id"]
                execute_many(connection, table.insert(), values_of(rows, names, session_id=id_))
            add_states(connection, run_id, record.states)

    def finish_run(
        self, run_id: int, now: int, status: Outcome, **result: Unpack[RunResult]
    ) -> None:
        """Record how a running run ended, at `now` in UTC microseconds."""
        values = {"finished": now, "status": status, **result, "timings": dict(result["timings"])}
        self._finish(tables().runs, run_id, values)

    def runs(self, limit: int | None = None) -> list[RunRow]:
        """Return the runs, newest first, at most `limit` of them."""
        runs = tables().runs
        with self._reading() as connection:
            rows = connection.execute(runs.select().order_by(runs.c.id.desc()).limit(limit))
            return [RunRow(**row) for row in rows.mappings()]

    def run_sessions(self, run_id: int) -> list[SessionRow]:
        """Return a run's sessions by date; none where the ledger has no such run."""
        return [SessionRow(**row) for row in self._of_run(run_id, tables().run_sessions, _SESSION)]

    def run_quality(self, run_id: int) -> list[QualityRow]:
        """Return a run's quality by session and symbol."""
        return [QualityRow(**row) for row in self._of_run(run_id, tables().run_quality, _QUALITY)]

    def run_gaps(self, run_id: int) -> list[GapRow]:
        """Return a run's gaps by session, symbol and start.

        They are without ``asked`` and ``empty``, which are kept with what is known of the store's
        gaps alone.
        """
        return [GapRow(**row) for row in self._of_run(run_id, tables().run_gaps, _GAP)]

    def _of_run(
        self, run_id: int, table: sa.Table, names: Sequence[str]
    ) -> Sequence[sa.RowMapping]:
        import sqlalchemy as sa

        sessions = tables().run_sessions
        source = sessions if table is sessions else table.join(sessions)
        statement = (
            sa.select(*(sessions.c[n] if n == "session" else table.c[n] for n in names))
            .select_from(source)
            .where(sessions.c.run_id == run_id)
            .order_by(sessions.c.session, *table.primary_key)
        )
        with self._reading() as connection:
            return connection.execute(statement).mappings().all()
