"""The reading calls of a session store: of the base bars, and of what is derived of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from stream_coord.bars import FIELDS, Bar
from stream_coord.errors import SessionStoreError, near_miss
from stream_coord.interval import Interval
from stream_coord.session.block import Floats
from stream_coord.session.views import Bars, SymbolMetrics
from stream_coord.session.visible import DerivedVisible, Readable, Visible


class SessionReads(ABC):
    """What can be read of the current session; `SessionData` says how, and of what.

    Attributes:
        grace_micros: For how long after its end a minute is not expected to have a bar yet; a
            session that is over has no such minutes.
        check_micros: The time between upkeep's checks, from the open on. What upkeep knows of a
            minute shows in the metrics from the minute's own check on; 0: at once.
    """

    latest: Callable[[str], Bar | None]
    """``latest(symbol)`` is the newest visible bar, or None. Asked again within the same minute it
    costs a dict look-up."""

    _visible: Visible

    def __init__(self, interval: Interval) -> None:
        self._interval = interval
        self.grace_micros = 0
        self.check_micros = 0

    @abstractmethod
    def activate(self, interval: Interval | str) -> None:
        """Derive the bars of an interval from now on."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The current session's symbols, sorted by code point."""
        return self._visible.block.symbols

    @property
    def interval(self) -> Interval:
        """The base interval."""
        return self._interval

    @property
    def now(self) -> int:
        """UTC microseconds: bars that end at or before this are visible."""
        return self._visible.now.micros

    def latest_bar(self, symbol: str, interval: Interval | str | None = None) -> Bar | None:
        """Return the newest visible bar of an interval, or None."""
        if interval is None:
            return self.latest(symbol)
        view, row = self._find(symbol, interval)
        return view.newest(row)

    def latest_many(
        self, symbols: Iterable[str] | None = None, interval: Interval | str | None = None
    ) -> dict[str, Bar | None]:
        """Return the newest visible bar of each symbol (None: of all symbols)."""
        wanted = self.symbols if symbols is None else symbols
        return {symbol: self.latest_bar(symbol, interval) for symbol in wanted}

    def last_n(self, symbol: str, n: int, interval: Interval | str | None = None) -> Bars:
        """Return the last `n` bars that exist, fewer where there are fewer; oldest first."""
        view: Readable
        if interval is None:  # not by _find(), here and in window(): they are called very often
            view = visible = self._visible
            row = visible.row_of.get(symbol)
            if row is None:
                raise self._unknown(symbol)
        else:
            view, row = self._find(symbol, interval)
        if n < 0:
            raise _negative("n", n)
        return view.last_n(row, n)

    def since(self, symbol: str, start: int, interval: Interval | str | None = None) -> Bars:
        """Return the visible bars whose start is at or after `start` (UTC microseconds)."""
        view, row = self._find(symbol, interval)
        return view.since(row, start)

    def all_bars(self, symbol: str, interval: Interval | str | None = None) -> Bars:
        """Return all visible bars, those of history first and then today's, oldest first."""
        view, row = self._find(symbol, interval)
        return view.last_n(row, len(view.block.starts))

    def window(
        self, symbol: str, n: int, field: str = "close", interval: Interval | str | None = None
    ) -> Floats:
        """Return the last `n` slots of one field, NaN in holes; a view, oldest first.

        Args:
            symbol: The symbol.
            n: Number of slots; fewer come back where fewer have passed.
            field: open, high, low, close or volume.
            interval: The bars' interval; None for the base interval.
        """
        view: Readable
        if interval is None:
            view = visible = self._visible
            row = visible.row_of.get(symbol)
            if row is None:
                raise self._unknown(symbol)
        else:
            view, row = self._find(symbol, interval)
        if n < 0:
            raise _negative("n", n)
        try:
            return view.window(row, n, field)
        except KeyError:
            raise _unknown_field(field) from None

    def cross_section(
        self, field: str = "close", back: int = 0, interval: Interval | str | None = None
    ) -> Floats:
        """Return one slot of all symbols, in the order of `symbols`; NaN where no bar is.

        Args:
            field: open, high, low, close or volume.
            back: How many slots (minutes, of the base interval) before the newest visible one.
            interval: The bars' interval; None for the base interval.

        Returns:
            float64, shape (S,), a view; all NaN where so many slots have not passed yet.
        """
        if back < 0:
            raise _negative("back", back)
        try:
            view = self._visible if interval is None else self._look(interval)[1]
            return view.cross_section(field, back)
        except KeyError:
            raise _unknown_field(field) from None

    def count(self, symbol: str, interval: Interval | str | None = None) -> int:
        """Return how many bars of the symbol are visible, those of history too.

        `metrics` counts those of today.
        """
        view, row = self._find(symbol, interval)
        return view.count(row)

    def in_progress(self, symbol: str, interval: Interval | str) -> Bar | None:
        """Return the derived bar that is not over yet, built of the base bars seen so far.

        Its `end` is the one that it will have, and `n` is below `n_expected`. None between two
        bars, before the first base bar of one, and for the base interval.
        """
        visible, view = self._look(interval)
        row = self._row(visible, symbol)
        return view.in_progress(visible, row) if isinstance(view, DerivedVisible) else None

    def metrics(self, symbol: str) -> SymbolMetrics:
        """Return the current session's numbers of one symbol, up to now."""
        visible = self._visible
        row = self._row(visible, symbol)
        return visible.metrics(row, self.grace_micros, self.check_micros)

    # -- looking up ----------------------------------------------------------------------------

    def _find(self, symbol: str, interval: Interval | str | None) -> tuple[Readable, int]:
        visible, view = self._look(interval)
        return view, self._row(visible, symbol)

    def _look(self, interval: Interval | str | None) -> tuple[Visible, Readable]:
        """Return what may be seen, and what of it is of an interval, which is activated."""
        visible = self._visible
        if interval is None:
            return visible, visible
        view = visible.derived.get(interval)
        if view is not None:
            return visible, view
        wanted = parsed(interval)
        if wanted == self._interval:
            return visible, visible
        if wanted not in visible.derived:
            self.activate(wanted)
        return self._look(wanted)

    def _row(self, visible: Visible, symbol: str) -> int:
        row = visible.row_of.get(symbol)
        if row is None:
            raise self._unknown(symbol)
        return row

    def _unknown(self, symbol: str) -> SessionStoreError:
        return SessionStoreError(
            f"the session has no symbol {symbol!r}{near_miss(symbol, self.symbols)}"
        )


def parsed(interval: Interval | str) -> Interval:
    """Return an interval that may be given by name.

    Raises:
        IntervalError: a text that is no interval.
    """
    return Interval.parse(interval) if isinstance(interval, str) else interval


def _negative(name: str, value: int) -> SessionStoreError:
    return SessionStoreError(f"{name} is {value}; it cannot be negative")


def _unknown_field(field: str) -> SessionStoreError:
    return SessionStoreError(
        f"no field {field!r}{near_miss(field, FIELDS)}", f"Fields are {', '.join(FIELDS)}."
    )
