"""The ledger's pages on the life of sessions: states, cursors, and what is sealed.

A cursor is the session that a configuration is at, across processes. A session that is over is
sealed, once, and its cursor moves on to the next in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from stream_coord.compute.quality import QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger.base import (
    LedgerBase,
    check_session,
    execute_many,
    insert_row,
    running,
    values_of,
)
from stream_coord.stores.ledger.schema import MINUTES, tables

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A session passed from one state to another.

    Attributes:
        session: Its date, ``YYYY-MM-DD``.
        time: When, UTC microseconds.
        left: The name of the state that ended, for example ``PRE_MARKET``.
        entered: The name of the state that began, for example ``ACTIVE``.
        cause: What went wrong, where the state is one of error; holds no secret.
    """

    session: str
    time: int
    left: str
    entered: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class StateRow(StateRecord):
    """A change of state as the ledger remembers it.

    Attributes:
        run_id: The run that saw it.
    """

    run_id: int = 0


@dataclass(frozen=True)
class Cursor:
    """The current session of a configuration.

    Attributes:
        key: What tells configurations apart.
        session: The session's date, ``YYYY-MM-DD``.
        moved: When this was written, UTC microseconds.
        run_id: The run that wrote it.
        error: Why the session cannot be sealed; None if nothing is wrong.
    """

    key: str
    session: str
    moved: int
    run_id: int
    error: str | None = None


@dataclass(frozen=True)
class SealedSession:
    """One session that is over.

    Attributes:
        session: Its date, ``YYYY-MM-DD``.
        open: UTC microseconds.
        close: UTC microseconds.
        bars: Base bars that the store holds of it.
        data_version: Hash of the checksums of all symbols: of this session's bars, and no others.
    """

    session: str
    open: int
    close: int
    bars: int
    data_version: str


@dataclass(frozen=True)
class SealRecord(SealedSession):
    """One session that is over, symbol by symbol.

    Attributes:
        quality: Rows of this session, each symbol once at most.
        checksums: By symbol, the checksum of its bars of this session, as a store has one of a
            date's. A symbol of `quality` that is not here has none, the same as ``""``.
    """

    quality: Sequence[QualityRow]
    checksums: Mapping[str, str]


@dataclass(frozen=True)
class SealRow(SealedSession):
    """A sealed session as the ledger remembers it.

    Attributes:
        id: What its quality and checksums are asked for with.
        key: Which cursor stood at it.
        run_id: The run that sealed it.
        at: When, UTC microseconds.
    """

    id: int
    key: str
    run_id: int
    at: int


_STATE = tuple(field.name for field in fields(StateRecord))
_SEALED = tuple(field.name for field in fields(SealedSession))
_SEAL = tuple(field.name for field in fields(SealRow))


class SessionLedger(LedgerBase):
    """What became of sessions in the course of time, and which one is the current one.

    Every writing call needs a run that is running, and raises `LedgerError` if it is not.
    """

    def record_states(self, run_id: int, states: Sequence[StateRecord]) -> None:
        """Record changes of state that a running run has seen, in their order."""
        with self._writing() as connection:
            running(connection, tables().runs, run_id)
            add_states(connection, run_id, states)

    def states(
        self, run_id: int | None = None, first: str | None = None, last: str | None = None
    ) -> list[StateRow]:
        """Return changes of state, by run, as they were recorded.

        Args:
            run_id: Of this run; None for all.
            first: The date of the first session wanted; None for no bound.
            last: The date of the last one; None for no bound.
        """
        import sqlalchemy as sa

        c = tables().session_states.c
        wanted = (
            None if run_id is None else c.run_id == run_id,
            None if first is None else c.session >= first,
            None if last is None else c.session <= last,
        )
        statement = (
            sa.select(*(c[name] for name in (*_STATE, "run_id")))
            .where(*(condition for condition in wanted if condition is not None))
            .order_by(c.run_id, c.id)
        )
        with self._reading() as connection:
            return [StateRow(*row) for row in connection.execute(statement)]

    def cursor(self, key: str) -> Cursor | None:
        """Return a configuration's cursor, None where it has none yet."""
        with self._reading() as connection:
            return _cursor(connection, key)

    def seal_session(
        self,
        run_id: int,
        key: str,
        seal: SealRecord,
        next_session: str,
        now: int,
        states: Sequence[StateRecord] = (),
    ) -> None:
        """Seal a session and move its cursor on to the next, in one transaction.

        Where there is no cursor yet, it is made. A seal of the same key and session is replaced.

        Args:
            run_id: A running run.
            key: Whose cursor it is.
            seal: The session; the cursor is at it.
            next_session: The date of the session to be at from now on.
            now: UTC microseconds.
            states: Changes of state to be recorded with it.

        Raises:
            LedgerError: the cursor is at another session, perhaps because another process was
                quicker; it is in error; or a row of `seal` is of another session or symbol.
        """
        rows = _seal_rows(seal)
        t = tables()
        own = (t.seals.c.key == key, t.seals.c.session == seal.session)
        values = {name: getattr(seal, name) for name in _SEALED}
        values |= {"key": key, "run_id": run_id, "at": now}
        with self._writing() as connection:
            running(connection, t.runs, run_id)
            known = _cursor(connection, key)
            _check_place(known, seal.session)
            _check_sound(known)
            connection.execute(t.seals.delete().where(*own))  # and its rows with it
            id_ = insert_row(connection, t.seals, values)
            for row in rows:
                row["seal_id"] = id_
            execute_many(connection, t.seal_rows.insert(), rows)
            add_states(connection, run_id, states)
            _put_cursor(connection, Cursor(key, next_session, now, run_id))

    def flag_error(self, run_id: int, key: str, state: StateRecord, now: int) -> None:
        """Record that a session is in error, and its cause with the cursor.

        The cursor is at that session; where there is none yet, it is made there.

        Args:
            run_id: A running run.
            key: Whose cursor it is.
            state: The change to the state of error; it has a cause.
            now: UTC microseconds.

        Raises:
            LedgerError: the cursor is at another session.
        """
        if not state.cause:
            raise LedgerError(f"the error of session {state.session} has no cause")
        with self._writing() as connection:
            running(connection, tables().runs, run_id)
            _check_place(_cursor(connection, key), state.session)
            add_states(connection, run_id, [state])
            _put_cursor(connection, Cursor(key, state.session, now, run_id, state.cause))

    def clear_error(self, run_id: int, key: str, state: StateRecord, now: int) -> None:
        """Record that a session is in error no more, and take the cause off the cursor.

        Args:
            run_id: A running run.
            key: Whose cursor it is.
            state: The change from the state of error.
            now: UTC microseconds.

        Raises:
            LedgerError: there is no such cursor, it is at another session, or there is no error
                to clear.
        """
        with self._writing() as connection:
            running(connection, tables().runs, run_id)
            known = _cursor(connection, key)
            if known is None or known.error is None:
                raise LedgerError(f"there is no error of session {state.session} to clear")
            _check_place(known, state.session)
            add_states(connection, run_id, [state])
            _put_cursor(connection, Cursor(key, state.session, now, run_id))

    def seals(self, key: str | None = None) -> list[SealRow]:
        """Return the sealed sessions, by key and date; of one key, or None for all."""
        import sqlalchemy as sa

        c = tables().seals.c
        statement = sa.select(*(c[name] for name in _SEAL)).order_by(c.key, c.session)
        if key is not None:
            statement = statement.where(c.key == key)
        with self._reading() as connection:
            return [SealRow(*row) for row in connection.execute(statement)]

    def seal_quality(self, seal_id: int) -> list[QualityRow]:
        """Return the quality of a sealed session by symbol; none where there is no such seal."""
        import sqlalchemy as sa

        t = tables()
        rows = t.seal_rows.c
        statement = (
            sa.select(rows.symbol, t.seals.c.session, *(rows[name] for name in MINUTES))
            .join_from(t.seal_rows, t.seals)
            .where(rows.seal_id == seal_id)
            .order_by(rows.symbol)
        )
        with self._reading() as connection:
            return [QualityRow(*row) for row in connection.execute(statement)]

    def seal_checksums(self, seal_id: int) -> dict[str, str]:
        """Return the checksums of a sealed session by symbol; ``""`` where it has no bars."""
        import sqlalchemy as sa

        rows = tables().seal_rows.c
        statement = sa.select(rows.symbol, rows.checksum).where(rows.seal_id == seal_id)
        with self._reading() as connection:
            return dict(connection.execute(statement.order_by(rows.symbol)).all())


def add_states(connection: sa.Connection, run_id: int, states: Sequence[StateRecord]) -> None:
    """Add a run's changes of state in a transaction that is under way."""
    rows = values_of(states, _STATE, run_id=run_id)
    execute_many(connection, tables().session_states.insert(), rows)


def _seal_rows(seal: SealRecord) -> list[dict[str, object]]:
    """Return the rows of a seal, without its id."""
    check_session(seal.session, seal.quality)
    unknown = sorted(seal.checksums.keys() - {row.symbol for row in seal.quality})
    if unknown:
        raise LedgerError(f"session {seal.session} has a checksum of {unknown[0]}, but no quality")
    rows = values_of(seal.quality, ("symbol", *MINUTES))
    return [{**row, "checksum": seal.checksums.get(str(row["symbol"]), "")} for row in rows]


def _check_place(cursor: Cursor | None, session: str) -> None:
    """Refuse what is about `session` unless the cursor is at it, or is not there yet."""
    if cursor is not None and cursor.session != session:
        raise LedgerError(
            f"session {session} is not the current one: the ledger is at {cursor.session} by now",
            "Another process may have moved on; run it again to go on from there.",
        )


def _check_sound(cursor: Cursor | None) -> None:
    if cursor is not None and cursor.error is not None:
        raise LedgerError(
            f"session {cursor.session} is in error: {cursor.error}",
            "Mend the cause, then clear the error.",
        )


def _cursor(connection: sa.Connection, key: str) -> Cursor | None:
    cursors = tables().cursors
    statement = cursors.select().where(cursors.c.key == key)
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else Cursor(**row)


def _put_cursor(connection: sa.Connection, cursor: Cursor) -> None:
    cursors = tables().cursors
    connection.execute(cursors.delete().where(cursors.c.key == cursor.key))
    connection.execute(cursors.insert(), asdict(cursor))
