"""The ledger's pages on gaps: what is known of every range without a bar, and who was asked.

A change of the bar store and of the ledger is no one transaction. So what a run is about to know
is pending before the store commits, and sealed after; between the two, whoever comes next sees
from the store which of them it is.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeVar

from stream_coord.bars import FIELDS
from stream_coord.compute.quality import GapRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger.base import LedgerBase, execute_many, running
from stream_coord.stores.ledger.schema import tables

if TYPE_CHECKING:
    import sqlalchemy as sa

_T = TypeVar("_T")

_SLICE = 20_000  # values that are in a statement, or rows that are dicts, at a time

Values = tuple[float, float, float, float, float]
"""Open, high, low, close and volume."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One minute of which two sources have different bars.

    Attributes:
        symbol: The symbol.
        start: UTC microseconds.
        source: The source that won, as its identity.
        other: The source that lost, likewise.
        values: What `source` has; finite.
        other_values: What `other` has; finite.
    """

    symbol: str
    start: int
    source: str
    other: str
    values: Values
    other_values: Values


@dataclass(frozen=True, slots=True)
class GapChange:
    """What is known anew of the gaps of some symbols in some sessions.

    Attributes:
        interval: The bars' interval.
        scope: The pairs of symbol and session of which all is replaced.
        gaps: All that is known of them now.
        disagreements: What came to light meanwhile; added to those that are known.
    """

    interval: str
    scope: tuple[tuple[str, str], ...]
    gaps: tuple[GapRow, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceCall:
    """One question to a source.

    Attributes:
        source: Its identity.
        at: UTC microseconds of the wall clock, when it was asked.
        seconds: How long it took.
        ranges: Ranges asked for.
        minutes: Minutes in them.
        bars: Bars it answered with.
        outcome: ``answered``, with no bars too, or ``failed``.
        error: Why it failed, or what it could not read though it answered; holds no secret.
    """

    source: str
    at: int
    seconds: float
    ranges: int
    minutes: int
    bars: int
    outcome: Literal["answered", "failed"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class GapState(GapRow):
    """A gap as the ledger remembers it.

    Attributes:
        run_id: The run that wrote it last.
    """

    run_id: int = 0


@dataclass(frozen=True, slots=True)
class DisagreementRow(Disagreement):
    """A disagreement as the ledger remembers it.

    Attributes:
        interval: The bars' interval.
        run_id: The run that saw it.
    """

    interval: str
    run_id: int


@dataclass(frozen=True, slots=True)
class SourceCallRow(SourceCall):
    """A call as the ledger remembers it.

    Attributes:
        run_id: The run that made it.
    """

    run_id: int = 0


_GAP = tuple(field.name for field in fields(GapRow))
_STATE = (*_GAP, "run_id")
_CALL = tuple(field.name for field in fields(SourceCall))
_OTHERS = tuple(f"other_{field}" for field in FIELDS)
_SAME = ("interval", "run_id")
_MINUTE = ("symbol", "start", "source", "other")


class GapLedger(LedgerBase):
    """What is known of the gaps in the store, and which sources were asked for them.

    The identities of sources are made storable (see `storable`): give them as they come back.
    """

    def gap_states(
        self,
        interval: str,
        first_session: str,
        last_session: str,
        symbols: Sequence[str] | None = None,
    ) -> list[GapState]:
        """Return what is known of the gaps from one session to another, both included.

        Args:
            interval: The bars' interval.
            first_session: Its date, ``YYYY-MM-DD``.
            last_session: Its date.
            symbols: Of these only; None for all.

        Returns:
            By session, symbol and start.
        """
        import sqlalchemy as sa

        columns = tables().gap_states.c
        statement = (
            sa.select(*(columns[name] for name in _STATE))
            .where(columns.interval == interval)
            .where(columns.session >= first_session, columns.session <= last_session)
            .order_by(columns.session, columns.symbol, columns.start)
        )
        with self._reading() as connection:
            if symbols is None:
                return [GapState(*row) for row in connection.execute(statement)]
            found = [
                GapState(*row)
                for some in _slices(sorted(set(symbols)))
                for row in connection.execute(statement.where(columns.symbol.in_(some)))
            ]
        return sorted(found, key=attrgetter("session", "symbol", "start"))

    def pend_gaps(self, run_id: int, change: GapChange) -> None:
        """Record what a run will know once the store has committed; replaces its pending change.

        Raises:
            LedgerError: the run is not running, or a gap is outside the change's scope.
        """
        _check_scope(change)
        pending = tables().gap_pending
        with self._writing() as connection:
            running(connection, tables().runs, run_id)
            connection.execute(pending.delete().where(pending.c.run_id == run_id))
            connection.execute(pending.insert(), {"run_id": run_id, "change": _packed(change)})

    def seal_gaps(self, run_id: int, change: GapChange) -> None:
        """Record what is known now, in one transaction; twice is as good as once.

        The states of `change.scope` are replaced by `change.gaps`, its disagreements are added,
        and the run's pending change is forgotten.

        Args:
            run_id: The run that found it out; it may have ended.
            change: What it found out.

        Raises:
            LedgerError: there is no such run, or a gap is outside the change's scope.
        """
        _check_scope(change)
        t = tables()
        with self._writing() as connection:
            _check_run(connection, run_id)
            _replace_states(connection, run_id, change)
            _add_disagreements(connection, run_id, change)
            connection.execute(t.gap_pending.delete().where(t.gap_pending.c.run_id == run_id))

    def pending_gaps(self) -> list[tuple[int, GapChange]]:
        """Return the changes that were neither sealed nor dropped, by the id of their run."""
        pending = tables().gap_pending
        with self._reading() as connection:
            rows = connection.execute(pending.select().order_by(pending.c.run_id))
            return [(run_id, _unpacked(change)) for run_id, change in rows]

    def drop_pending(self, run_id: int) -> None:
        """Forget a run's pending change, if it has one: the store never committed it."""
        pending = tables().gap_pending
        with self._writing() as connection:
            connection.execute(pending.delete().where(pending.c.run_id == run_id))

    def disagreements(self, interval: str | None = None) -> list[DisagreementRow]:
        """Return the minutes that sources disagree on, by symbol, start and run.

        Args:
            interval: Of bars of this interval; None for all.
        """
        table = tables().disagreements
        c = table.c
        statement = table.select().order_by(c.symbol, c.start, c.run_id, *table.primary_key)
        if interval is not None:
            statement = statement.where(c.interval == interval)
        with self._reading() as connection:
            return [_disagreement(row) for row in connection.execute(statement).mappings()]

    def record_calls(self, run_id: int, calls: Sequence[SourceCall]) -> None:
        """Record the questions that a running run has put to sources.

        Raises:
            LedgerError: the run is not running.
        """
        t = tables()
        with self._writing() as connection:
            running(connection, t.runs, run_id)
            rows = [_values(call, _CALL, {"run_id": run_id}) for call in calls]
            execute_many(connection, t.source_calls.insert(), rows)

    def source_calls(self, run_id: int | None = None) -> list[SourceCallRow]:
        """Return the questions put to sources, as they were recorded.

        Args:
            run_id: By this run; None for all.
        """
        import sqlalchemy as sa

        columns = tables().source_calls.c
        names = (columns[name] for name in (*_CALL, "run_id"))
        statement = sa.select(*names).order_by(columns.id)
        if run_id is not None:
            statement = statement.where(columns.run_id == run_id)
        with self._reading() as connection:
            return [SourceCallRow(*row) for row in connection.execute(statement)]


def _slices(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut values into as many as one statement takes."""
    return (values[at : at + _SLICE] for at in range(0, len(values), _SLICE))


def _values(row: object, names: Sequence[str], same: dict[str, object]) -> dict[str, object]:
    """Return a row as it goes into a table: what is its own, and what it shares with others."""
    return {name: getattr(row, name) for name in names} | same


def _check_run(connection: sa.Connection, run_id: int) -> None:
    runs = tables().runs
    if connection.execute(runs.select().where(runs.c.id == run_id)).first() is None:
        raise LedgerError(f"the ledger has no run {run_id}")


def _check_scope(change: GapChange) -> None:
    scope = set(change.scope)
    for gap in change.gaps:
        if (gap.symbol, gap.session) not in scope:
            raise LedgerError(
                f"a gap of {gap.symbol} in session {gap.session} is outside what is replaced"
            )


def _packed(change: GapChange) -> bytes:
    """Return a change as few bytes; those of 100,000 gaps would be 20 MB as they are."""
    import msgspec

    return zlib.compress(msgspec.msgpack.encode(change), 1)


def _unpacked(packed: bytes) -> GapChange:
    import msgspec

    try:
        return msgspec.msgpack.decode(zlib.decompress(packed), type=GapChange)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(error) from error


def _replace_states(connection: sa.Connection, run_id: int, change: GapChange) -> None:
    """Replace the states of the scope; a range that stays as it is keeps the run that wrote it."""
    states, written_by = tables().gap_states, dict[GapRow, int]()
    columns = [states.c[name] for name in _STATE]
    symbols: defaultdict[str, list[str]] = defaultdict(list)
    for symbol, session in change.scope:
        symbols[session].append(symbol)
    for session, of_session in symbols.items():
        for some in _slices(of_session):
            chosen = states.delete().where(
                states.c.interval == change.interval,
                states.c.session == session,
                states.c.symbol.in_(some),
            )
            for *known, number in connection.execute(chosen.returning(*columns)):
                written_by[GapRow(*known)] = number
    for gaps in _slices(change.gaps):
        rows = []
        for gap in gaps:
            number = written_by.get(_plain(gap), run_id)
            rows.append(_values(gap, _GAP, {"interval": change.interval, "run_id": number}))
        connection.execute(states.insert(), rows)


def _plain(gap: GapRow) -> GapRow:
    """Return the gap alone, without what a subclass knows besides."""
    return gap if type(gap) is GapRow else GapRow(*(getattr(gap, name) for name in _GAP))


def _add_disagreements(connection: sa.Connection, run_id: int, change: GapChange) -> None:
    """Add them; those of a change that is sealed again replace themselves."""
    import sqlalchemy as sa

    table = tables().disagreements
    key = [table.c[name] == sa.bindparam(f"the_{name}") for name in (*_SAME, *_MINUTE)]
    same = {"interval": change.interval, "run_id": run_id}
    for some in _slices(change.disagreements):
        rows = [
            _values(row, _MINUTE, same)
            | dict(zip(FIELDS, row.values, strict=True))
            | dict(zip(_OTHERS, row.other_values, strict=True))
            for row in some
        ]
        known = [{f"the_{name}": row[name] for name in (*_SAME, *_MINUTE)} for row in rows]
        connection.execute(table.delete().where(*key), known)
        connection.execute(table.insert(), rows)


def _disagreement(row: sa.RowMapping) -> DisagreementRow:
    return DisagreementRow(
        **{name: row[name] for name in (*_SAME, *_MINUTE)},
        values=tuple(row[name] for name in FIELDS),
        other_values=tuple(row[name] for name in _OTHERS),
    )
