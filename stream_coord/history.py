"""Trailing history: the sessions before the current one, in the current one's terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.calendars import Calendar, Session
from stream_coord.compute.splits import Split, Splits
from stream_coord.interval import Interval
from stream_coord.session.block import Block, Bools
from stream_coord.session.series import Series, Trailing
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    import polars as pl

_READ_BARS = 4_000_000
"""Grid minutes of all symbols read at a time, about; they are in memory twice for a while."""


@dataclass(frozen=True)
class Shortfall:
    """History that was asked for and is not in the store.

    Attributes:
        session: The date of the session whose history it is.
        asked: How many sessions were asked for.
        missing: The dates of those of which the store has no bar of any symbol.
        symbols: How many sessions each symbol has that has fewer than the others.
    """

    session: date
    asked: int
    missing: tuple[date, ...]
    symbols: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Where the sessions before the current one come from, and how many there are.

    Attributes:
        store: Where the bars are, as they were traded.
        calendar: Says which sessions come before one.
        interval: The base interval.
        trailing: How many sessions.
        intervals: The intervals of which there is history; None: the base bars, and so all.
        splits: Brings history into the terms of the current session: those of its date and before.
        auto_load: Whether a replay loads it when it begins; it rolls on from session to session
            in any case.
    """

    store: BarStore
    calendar: Calendar
    interval: Interval
    trailing: int
    intervals: tuple[Interval, ...] | None = None
    splits: Splits = field(default_factory=Splits)
    auto_load: bool = True

    @cached_property
    def kept(self) -> Trailing:
        """How much history is kept as sessions roll."""
        return Trailing(self.trailing, self.intervals)

    def sessions(self, session: Session) -> tuple[Session, ...]:
        """Return the sessions before one, oldest first; fewer only where the calendar begins."""
        return self.calendar.sessions_before(session.date, self.trailing)

    def known_splits(
        self, symbols: Sequence[str], sessions: Sequence[Session]
    ) -> tuple[Split, ...]:
        """Return the splits by which the history of some sessions is rescaled, oldest first.

        Args:
            symbols: Of which symbols.
            sessions: The sessions, ascending; at least one.
        """
        oldest = (*self.sessions(sessions[0]), sessions[0])[0]
        known = self.splits.known(symbols, oldest.date, sessions[-1].date)
        return tuple(split for _, split in known)

    def load(
        self, symbols: Sequence[str], session: Session, derived: Iterable[Interval] = ()
    ) -> Series:
        """Read and verify the history of a session.

        Args:
            symbols: Of which symbols, sorted by code point.
            session: The session; no bar of its own is read.
            derived: The intervals to derive, besides those of which there is history.

        Returns:
            The bars of the sessions before it in its terms, and its own slots without bars.

        Raises:
            SessionStoreError: bars of a derived interval cannot be built of base bars.
            StoreCorruptError: stored bytes are not what was written.
        """
        series = self._room(symbols, session)
        intervals = sorted({*derived, *(self.intervals or ())} - {self.interval})
        if series.base.today:
            for _, bars in self._read(symbols, series.base.sessions[:-1]):
                series.base.fill(bars)
            self._rescale(series)
            for interval in intervals:
                series.activate(interval)
            return series
        for interval in intervals:
            series.activate(interval)
        if series.derived and self.trailing:
            kept = [at for at in series.derived if self.kept.of(at, self.interval)]
            for sessions, bars in self._read(symbols, self.sessions(session)):
                block = Block.empty(symbols, sessions, self.interval)
                block.fill(bars)
                series.put_history(Series(block, kept))
            self._rescale(series)
        return series

    def ready(
        self,
        symbols: tuple[str, ...],
        session: Session,
        derived: Iterable[Interval],
        before: Series | None,
    ) -> tuple[Series, bool]:
        """Return the series in which a replay's session begins; none of its own bars are read.

        Args:
            symbols: Its symbols, sorted by code point.
            session: The session.
            derived: The intervals to derive.
            before: The series of the session that was replayed before it; None: there was none.

        Returns:
            The series, and whether it follows `before`, as it does where that holds its history.
        """
        if before is not None and self._holds_history(before, session):
            return self.following(before, session, symbols), True
        if self.auto_load:
            return self.load(symbols, session, derived), False
        series = self._room(symbols, session)
        for interval in sorted({*derived, *(self.intervals or ())} - {self.interval}):
            series.activate(interval)
        return series, False

    def _holds_history(self, series: Series, session: Session) -> bool:
        """Return whether what follows a series has all the history of a session."""
        held, wanted = series.sessions, self.sessions(session)
        return held[max(len(held) - self.trailing, 0) :] == wanted

    def following(
        self, series: Series, session: Session, symbols: tuple[str, ...] | None = None
    ) -> Series:
        """Return what follows a series, with the splits in between; see `Series.following`."""
        names, last = series.base.symbols if symbols is None else symbols, series.base.sessions[-1]
        known = self.splits.known(names, last.date, session.date)
        return series.following(session, names, [(row, split.ratio) for row, split in known])

    def _room(self, symbols: Sequence[str], session: Session) -> Series:
        sessions = (*self.sessions(session), session)
        return Series.empty(symbols, sessions, self.interval, (), self.kept)

    def _read(
        self, symbols: Sequence[str], sessions: Sequence[Session]
    ) -> Iterator[tuple[Sequence[Session], pl.DataFrame]]:
        """Yield the stored bars of some sessions at a time."""
        bars = max((part.end - part.start for part in sessions), default=0) // self.interval.micros
        at_a_time = max(1, _READ_BARS // max(bars * len(symbols), 1))
        for first in range(0, len(sessions), at_a_time):
            some = sessions[first : first + at_a_time]
            yield some, self.store.read(self.interval, symbols, some[0].start, some[-1].end)

    def _rescale(self, series: Series) -> None:
        """Bring history into the terms of the newest session, split by split, oldest first."""
        sessions = series.sessions
        for row, split in self.splits.known(
            series.base.symbols, sessions[0].date, sessions[-1].date
        ):
            series.rescale(row, split.ratio, split.day)


def with_bars(block: Block, *, of_today: bool = False) -> Bools:
    """Return which symbols have a bar of each session of a block, or of today's alone.

    Returns:
        bool, shape (sessions, S).
    """
    first = block.today if of_today else 0
    firsts = [slot - first for slot in block.slots.firsts if slot >= first]
    return np.logical_or.reduceat(block.present[:, first:], firsts, axis=1).T


def shortfall_of(
    session: Session, symbols: Sequence[str], days: Sequence[date], has: Bools
) -> Shortfall | None:
    """Return what history lacks; None: nothing.

    Args:
        session: The session whose history it is.
        symbols: Its symbols; shape (S,).
        days: The dates of the sessions before it; shape (N,).
        has: Which symbols have a bar of each; shape (N, S).
    """
    anybody = np.logical_or.reduce(has, axis=1)
    missing = tuple(days[at] for at in np.flatnonzero(~anybody).tolist())
    counts = np.count_nonzero(has, axis=0)
    fewer = np.flatnonzero(counts < np.count_nonzero(anybody)).tolist()
    short = {symbols[row]: int(counts[row]) for row in fewer}
    return Shortfall(session.date, len(days), missing, short) if missing or short else None
