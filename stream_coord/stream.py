"""One session's minutes, in the order that the design fixes, to whoever watches them.

Between two observers (a callback, a boundary) minutes are advanced in blocks: the arrays are
already in place, so a block costs its digest and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice, repeat

import numpy as np

from stream_coord.bars import Bar
from stream_coord.clock import format_moment
from stream_coord.compute.digest import SessionDigest, bar_records, symbol_keys
from stream_coord.errors import StrategyError
from stream_coord.session.block import Block
from stream_coord.session.boundaries import planned_changes
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy, describe

_CHUNK_BARS = 8192
"""Bars that are digested, or made into `Bar` objects, at a time: they stay in the cache."""


class SessionStream:
    """Streams one session through the session store.

    Args:
        data: The session store; its session has been started with `block`.
        block: The session's bars.
        strategy: Who is called; None: nobody.
        on_first_bar: Called once, when the first minute that has bars is visible.

    Attributes:
        bars: Base bars delivered so far.
        updates: Update events delivered so far.
    """

    def __init__(
        self,
        data: SessionData,
        block: Block,
        strategy: Strategy | None,
        on_first_bar: Callable[[], None],
    ) -> None:
        self._data = data
        self._block = block
        self._ends: list[int] = block.ends.tolist()
        self._keys = symbol_keys(block.symbols)
        self._names = np.array(block.symbols, object)
        self._digest = SessionDigest(data.session.date)
        self._chunk_slots = max(1, _CHUNK_BARS // max(1, len(block.symbols)))
        self._calls = Callbacks(strategy)
        self._on_first_bar: Callable[[], None] | None = on_first_bar
        self.bars = 0
        self.updates = 0

    def run(self) -> str:
        """Stream the whole session and return its digest.

        Raises:
            StrategyError: a callback raised.
        """
        data, calls = self._data, self._calls
        calls.one("on_session_start", data)
        slot = self._block.today
        for change in planned_changes(data.session):
            stop = bisect_right(self._ends, change.time)
            for first in range(slot, stop, self._chunk_slots):
                self._minutes(first, min(first + self._chunk_slots, stop))
            slot = stop
            data.show(slot, change.time)
            self._digest.add_boundary(change.time, change.left.value, change.entered.value)
            calls.one("on_state", data, change)
        calls.one("on_session_end", data)
        return self._digest.hexdigest()

    def _minutes(self, first: int, stop: int) -> None:
        block = self._block
        records = bar_records(
            block.starts[first:stop] + block.interval.micros,
            self._keys,
            block.interval.micros,
            block.values[:, :, first:stop],
            block.present[:, first:stop],
            block.flags[:, first:stop],
        )
        self._digest.add(records)
        self.bars += len(records)
        if self._on_first_bar is not None and len(records):
            self._data.show(first + 1, self._ends[first])
            self._on_first_bar()
            self._on_first_bar = None
        if self._calls.watch_minutes:
            self._deliver(first, stop)
        else:
            self._data.show(stop, self._ends[stop - 1])

    def _deliver(self, first: int, stop: int) -> None:
        """Walk the minutes one by one: show the minute, then updates, bars, step."""
        data, calls = self._data, self._calls
        on_update, on_bar, on_step = calls.on_update, calls.on_bar, calls.on_step
        bars, counts = self._bar_objects(first, stop)
        hook, bar, now = "", None, 0  # whom to name when a callback raises
        try:
            for slot, count in zip(range(first, stop), counts, strict=True):
                now = self._ends[slot]
                data.show(slot + 1, now)
                if data.has_updates:
                    hook = "on_update"
                    for bar in data.drain_updates():
                        self.updates += 1
                        on_update(bar)
                hook = "on_bar"
                for bar in islice(bars, count):
                    on_bar(bar)
                hook, bar = "on_step", None
                on_step(now)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # polars panics and sys.exit() are no Exceptions
            raise calls.blame(hook, data, now, bar, error) from error

    def _bar_objects(self, first: int, stop: int) -> tuple[Iterator[Bar], list[int]]:
        """Return the bars of some minutes in order of delivery, and how many each minute has."""
        if not self._calls.watch_bars:
            return iter(()), [0] * (stop - first)
        block = self._block
        present = block.present[:, first:stop].T
        slots, rows = np.nonzero(present)
        slots += first
        starts = block.starts[slots]
        columns = (
            self._names[rows],
            repeat(block.label),
            starts,
            starts + block.interval.micros,
            *block.values[:, rows, slots],
            block.flags[rows, slots],
        )
        lists = (data.tolist() if isinstance(data, np.ndarray) else data for data in columns)
        return map(Bar, *lists), present.sum(axis=1).tolist()


class Callbacks:
    """A strategy's callbacks, and who is to blame when one raises.

    Attributes:
        on_update: The strategy's own, or one that does nothing; so are `on_bar` and `on_step`.
        watch_bars: Whether `on_bar` is the strategy's own.
        watch_minutes: Whether any of the three is, so that minutes must be walked one by one.
    """

    def __init__(self, strategy: Strategy | None) -> None:
        self._strategy = strategy
        acting = Strategy() if strategy is None else strategy
        self.on_update, self.on_bar, self.on_step = (
            acting.on_update,
            acting.on_bar,
            acting.on_step,
        )
        self.watch_bars = _overrides(strategy, "on_bar")
        self.watch_minutes = self.watch_bars or any(
            _overrides(strategy, hook) for hook in ("on_update", "on_step")
        )

    def one(self, hook: str, data: SessionData, *args: object) -> None:
        """Call one hook, if there is a strategy.

        Raises:
            StrategyError: it raised.
        """
        if self._strategy is not None:
            try:
                getattr(self._strategy, hook)(*args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise self.blame(hook, data, data.now, None, error) from error

    def blame(
        self, hook: str, data: SessionData, now: int, bar: Bar | None, error: BaseException
    ) -> StrategyError:
        """Return the error that names session, minute and symbol."""
        symbol = f", symbol {bar.symbol}" if bar else ""
        return StrategyError(
            f"{type(self._strategy).__name__}.{hook} raised {describe(error)}",
            f"It happened in session {data.session.date}, at {format_moment(now)}{symbol}.",
        )


def _overrides(strategy: Strategy | None, hook: str) -> bool:
    acting = getattr(strategy, hook, None)  # of the class, or set on the instance
    function = getattr(acting, "__func__", acting)
    return strategy is not None and function is not getattr(Strategy, hook)
