"""One session's minutes, in the order that the design fixes, to whoever watches them.

Between two observers (a callback, a subscriber, a boundary) minutes are advanced in blocks: the
arrays are already in place, so a block costs its digest and nothing else. A paced replay advances
what is due, and then waits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat

import numpy as np

from stream_coord.bars import Bar
from stream_coord.clock import format_moment
from stream_coord.compute.digest import SessionDigest, bar_records, symbol_keys
from stream_coord.errors import StrategyError
from stream_coord.pace import Pace
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
        pace: When minutes are due; None: at once.

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
        pace: Pace | None = None,
    ) -> None:
        self._data = data
        self._pace = pace or Pace()
        self._block = block
        self._starts: list[int] = block.starts.tolist()
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
        self._pace.begin(data.session.start)
        for change in planned_changes(data.session):
            stop = bisect_right(self._ends, change.time)
            while slot < stop:
                first, slot = slot, self._due(slot, stop)
                self._minutes(first, slot)
            self._pace.wait_until(change.time)
            data.show(slot, change.time)
            self._digest.add_boundary(change.time, change.left.value, change.entered.value)
            calls.one("on_state", data, change)
        calls.one("on_session_end", data)
        return self._digest.hexdigest()

    @property
    def _watched(self) -> bool:
        """Whether minutes must be walked one by one; subscribers come and go."""
        return self._calls.watch_minutes or self._data.subscriptions.active

    def _due(self, slot: int, stop: int) -> int:
        """Wait for the minute of `slot`; return where those to advance together with it end."""
        due = self._pace.wait_until(self._ends[slot])
        if self._pace.factor is not None and self._watched:
            return slot + 1  # so that the lag of each is known
        return bisect_right(self._ends, due, slot + 1, min(slot + self._chunk_slots, stop))

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
        if self._watched:
            self._deliver(first, stop)
        else:
            self._data.show(stop, self._ends[stop - 1])

    def _deliver(self, first: int, stop: int) -> None:
        """Walk the minutes one by one: show the minute, then updates, bars, step, subscribers."""
        data, calls, subscriptions = self._data, self._calls, self._data.subscriptions
        on_update, on_bar, on_step = calls.on_update, calls.on_bar, calls.on_step
        subscribed = subscriptions.active
        objects, counts = self._bar_objects(first, stop, subscribed or calls.watch_bars)
        hook, bar, now = "", None, 0  # whom to name when a callback raises
        updates: list[Bar] = []
        try:
            for slot, count in zip(range(first, stop), counts, strict=True):
                now = self._ends[slot]
                data.show(slot + 1, now)
                bars: Iterable[Bar] = islice(objects, count)
                if subscribed:
                    bars, updates = list(bars), []
                if data.has_updates:
                    hook, updates = "on_update", data.drain_updates()
                    for bar in updates:
                        self.updates += 1
                        on_update(bar)
                hook = "on_bar"
                for bar in bars:
                    on_bar(bar)
                hook, bar = "on_step", None
                on_step(now)
                if subscribed:
                    hook = ""
                    subscriptions.publish(now, [*updates, *bars])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # polars panics and sys.exit() are no Exceptions
            if not hook:
                raise
            raise calls.blame(hook, data, now, bar, error) from error

    def _bar_objects(self, first: int, stop: int, wanted: bool) -> tuple[Iterator[Bar], list[int]]:
        """Return the bars of some minutes in order of delivery, and how many each minute has."""
        if not wanted:
            return iter(()), [0] * (stop - first)
        block = self._block
        present = block.present[:, first:stop].T
        counts: list[int] = present.sum(axis=1).tolist()
        slots, rows = np.nonzero(present)
        slots += first

        def of_each_bar(times: list[int]) -> Iterator[int]:
            """Give all bars of a minute the same int, which costs less than one for each."""
            return chain.from_iterable(map(repeat, times[first:stop], counts))

        bars = map(
            Bar,
            self._names[rows].tolist(),
            repeat(block.label),
            of_each_bar(self._starts),
            of_each_bar(self._ends),
            *block.values[:, rows, slots].tolist(),
            block.flags[rows, slots].tolist(),
        )
        return bars, counts


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
