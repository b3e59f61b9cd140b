"""One session's minutes, in the order that the design fixes, to whoever watches them.

Between two observers (a callback, a subscriber, a boundary) minutes are advanced in blocks: the
arrays are already in place, so a block costs its digest and nothing else. A paced replay advances
what is due, and then waits.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import Bar
from stream_coord.compute.digest import (
    RANK_BASE,
    RANK_DERIVED,
    RECORD,
    Records,
    SessionDigest,
    bar_records,
    symbol_keys,
    update_records,
)
from stream_coord.delivery import Callbacks, Ending, bar_objects, ended
from stream_coord.interval import MINUTE, Interval
from stream_coord.pace import Pace
from stream_coord.session.block import Block, Bools
from stream_coord.session.boundaries import state_changes
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy
from stream_coord.upkeep.keeper import Keeper

_CHUNK_BARS = 8192
"""Bars that are digested, or made into `Bar` objects, at a time: they stay in the cache."""


_NO_RECORDS = np.empty(0, RECORD)


class SessionStream:
    """Streams one session through the session store.

    Args:
        data: The session store; its session has been started with the session's bars.
        strategy: Who is called; None: nobody.
        on_first_bar: Called once, when the first minute that has bars is visible.
        pace: When minutes are due; None: at once.
        keeper: Who looks after missing minutes; None: nobody.
        timeout_micros: How long no bar of any symbol may come before the session is timed out.

    Attributes:
        changes: The changes of the session's state, in order of time.
        passed: How many of them have been told.
        bars: Base bars delivered so far.
        derived_bars: Derived bars delivered so far.
        updates: Update events of upkeep delivered so far, whoever listens: those in the digest.
    """

    def __init__(
        self,
        data: SessionData,
        strategy: Strategy | None,
        on_first_bar: Callable[[], None],
        pace: Pace | None = None,
        keeper: Keeper | None = None,
        timeout_micros: int = 5 * MINUTE,
    ) -> None:
        block = data._pristine.base
        # Of the bars that are streamed: what upkeep fills does not end a silence.
        heard = block.ends[block.today :][block.present[:, block.today :].any(axis=0)]
        self.changes = state_changes(data.session, heard, timeout_micros)
        keys = symbol_keys(block.symbols)
        self._data = data
        self._pace = pace or Pace()
        self._keeper = keeper
        self._block = block
        self._derived = [
            Delivery(data._pristine.derived[interval], keys) for interval in data.derived
        ]
        self._starts: list[int] = block.starts.tolist()
        self._ends: list[int] = block.ends.tolist()
        self._keys = keys
        self._digest = SessionDigest(data.session.date)
        self._chunk_slots = max(1, _CHUNK_BARS // max(1, len(block.symbols)))
        self._calls = Callbacks(strategy, block.interval)
        self._on_first_bar: Callable[[], None] | None = on_first_bar
        self.passed = 0
        self.bars = 0
        self.derived_bars = 0
        self.updates = 0

    def run(self) -> str:
        """Stream the whole session and return its digest.

        Raises:
            StrategyError: a callback raised.
        """
        with self._data._driven():
            return self._run()

    def _run(self) -> str:
        data, calls = self._data, self._calls
        calls.one("on_session_start", data)
        slot = self._block.today
        self._pace.begin(data.session.start)
        for change in self.changes:
            slot = self._advance(slot, change.time)
            self._pace.wait_until(change.time)
            data._show(slot, change.time)
            self.passed += 1
            self._digest.add_boundary(change.time, change.left.value, change.entered.value)
            calls.one("on_state", data, change)
        calls.one("on_session_end", data)
        return self._digest.hexdigest()

    @property
    def _watched(self) -> bool:
        """Whether minutes must be walked one by one; subscribers come and go."""
        return self._calls.watch_minutes or self._data.subscriptions.active

    def _advance(self, slot: int, until: int) -> int:
        """Stream minutes and checks up to a time, and return the first slot that ends later."""
        stop = bisect_right(self._ends, until)
        while slot < stop:
            self._checks_before(slot, self._ends[slot])
            first, slot = slot, self._due(slot, stop)
            self._chunk(first, slot)
        self._checks_before(slot, until + 1)
        return slot

    def _checks_before(self, slot: int, time: int) -> None:
        """Let upkeep do what is due before a time, up to which no minute ends."""
        while (check := self._next_check(time - 1)) is not None:
            self._pace.wait_until(check)
            self._data._show(slot, check)
            self._look_after(check)
            if self._watched:
                self._data.subscriptions.publish(check, self._tell_updates(check))
            else:
                self._drop_updates()

    def _next_check(self, until: int) -> int | None:
        check = self._keeper.next_check if self._keeper else None
        return check if check is not None and check <= until else None

    def _due(self, slot: int, stop: int) -> int:
        """Wait for the minute of `slot`; return where those to advance together with it end."""
        due = self._pace.wait_until(self._ends[slot])
        if self._pace.factor is not None and self._watched:
            return slot + 1  # so that the lag of each is known
        return bisect_right(self._ends, due, slot + 1, min(slot + self._chunk_slots, stop))

    def _chunk(self, first: int, stop: int) -> None:
        """Stream some minutes, and what upkeep does between and at them."""
        chunk = self._chunk_of(first, stop)
        slot = first
        while slot < stop:
            check = self._next_check(self._ends[stop - 1])
            if check is None:
                self._minutes(chunk, slot, stop)
                return
            end = bisect_left(self._ends, check, slot, stop)
            if slot < end:
                self._minutes(chunk, slot, end)
            if self._ends[end] == check:
                self._minutes(chunk, end, end + 1, check)
                end += 1
            else:
                self._checks_before(end, self._ends[end])
            slot = end

    def _chunk_of(self, first: int, stop: int) -> Chunk:
        calls, subscriptions = self._calls, self._data.subscriptions
        subscribed = subscriptions.active
        records = _records(self._block, self._keys, first, stop, RANK_BASE)
        chunk = Chunk(first, records, self._block.present[:, first:stop], subscribed)
        if subscribed or calls.watch_minutes:
            chunk.bars = bar_objects(self._block, first, stop, subscribed or calls.watch_bars)
            after, until = self._starts[first], self._ends[stop - 1]
            chunk.ending = Ending(self._data, calls.intervals, after, until)
        return chunk

    def _minutes(self, chunk: Chunk, first: int, stop: int, check: int | None = None) -> None:
        """Stream some minutes; if `check` is given, the one minute at whose end upkeep is due."""
        base = chunk.records_of(first, stop)
        self.bars += len(base)
        if self._on_first_bar is not None and len(base):
            self._data._show(first + 1, self._ends[first])
            self._on_first_bar()
            self._on_first_bar = None
        if check is not None:
            self._digest.add(base)
            self._data._show(stop, check)
            self._look_after(check)
            base = base[:0]
        derived = [one.until(self._ends[stop - 1]) for one in self._derived]
        self.derived_bars += sum(map(len, derived))
        self._digest.add_bars(base, derived)
        if chunk.ending is not None:
            self._deliver(chunk, chunk.ending, first, stop)
        else:
            self._data._show(stop, self._ends[stop - 1])
            self._drop_updates()

    # -- upkeep --------------------------------------------------------------------------------

    def _look_after(self, check: int) -> None:
        """Let upkeep do what is due, while time stands still; what it changed are update events."""
        if self._keeper is None:
            return
        with self._pace.standing_still():
            changed = self._keeper.check(check, self._data)
        for kept in changed:
            for block, rows, slots in kept.cells:
                self.updates += len(rows)
                self._digest.add(
                    update_records(
                        check,
                        block.ends[slots],
                        self._keys[rows],
                        block.interval.micros,
                        block.values[:, rows, slots],
                        block.flags[rows, slots],
                    )
                )

    def _drop_updates(self) -> None:
        if self._data.has_updates:
            self._data.drain_updates()

    # -- delivery ------------------------------------------------------------------------------

    def _deliver(self, chunk: Chunk, ending: Ending, first: int, stop: int) -> None:
        """Walk the minutes one by one: show the minute, then updates, bars, step, subscribers."""
        data, subscriptions, subscribed = self._data, self._data.subscriptions, chunk.subscribed
        objects, counts = chunk.bars
        for slot in range(first, stop):
            now = self._ends[slot]
            data._show(slot + 1, now)
            # As they are now: what the strategy adds from here on is an update, later.
            derived = ending.at(now) if now in ending.times else ()
            bars: Iterable[Bar] = islice(objects, counts[slot - chunk.first])
            if subscribed:
                bars = list(bars)
                of_readers = self._ended(subscriptions.intervals, now)
            updates = self._tell_updates(now) if data.has_updates else ()
            self._tell(chain(bars, derived) if derived else bars, now)
            if subscribed:
                subscriptions.publish(now, [*updates, *bars, *of_readers])

    def _ended(self, intervals: Iterable[Interval], now: int) -> list[Bar]:
        """Return the derived bars of some intervals that end now."""
        found = (ended(self._data, interval, now - 1, now) for interval in intervals)
        return [bar for ends in found for _, bars in ends for bar in bars]

    def _tell(self, bars: Iterable[Bar], now: int) -> None:
        """Call the strategy for the bars of a minute, and for its end."""
        calls = self._calls
        on_bar, hook, bar = calls.on_bar, "on_bar", None  # whom to name when a callback raises
        try:
            for bar in bars:
                on_bar(bar)
            hook, bar = "on_step", None
            calls.on_step(now)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # polars panics and sys.exit() are no Exceptions
            raise calls.blame(hook, self._data, now, bar, error) from error

    def _tell_updates(self, now: int) -> list[Bar]:
        """Call the strategy for each update, and return them."""
        calls, updates = self._calls, self._data.drain_updates()
        bar = None
        try:
            for bar in updates:
                calls.on_update(bar)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise calls.blame("on_update", self._data, now, bar, error) from error
        return updates


class Chunk:
    """Some minutes that are advanced together, with what is made for all of them at once.

    Args:
        first: The first slot.
        records: The records of its base bars.
        present: Whether there is a bar; bool, shape (S, T).
        subscribed: Whether somebody waits for the bars.

    Attributes:
        bars: The base bars as objects, and how many each minute has.
        ending: The derived bars as objects; None: nobody watches these minutes.
    """

    def __init__(self, first: int, records: Records, present: Bools, subscribed: bool) -> None:
        self.first = first
        self.subscribed = subscribed
        self.bars: tuple[Iterator[Bar], list[int]] = (iter(()), [])
        self.ending: Ending | None = None
        self._records = records
        self._present = present
        self._edges: list[int] = []

    def records_of(self, first: int, stop: int) -> Records:
        """Return the records of slots first ... stop - 1."""
        if stop - first == self._present.shape[1]:
            return self._records
        if not self._edges:
            counts = np.count_nonzero(self._present, axis=0)
            self._edges = [0, *np.cumsum(counts).tolist()]
        return self._records[self._edges[first - self.first] : self._edges[stop - self.first]]


class Delivery:
    """How far the bars of a derived block are delivered.

    Args:
        block: The bars.
        keys: The `symbol_keys` of its rows.
    """

    def __init__(self, block: Block, keys: NDArray[np.uint64]) -> None:
        self._block = block
        self._keys = keys
        self._ends: list[int] = block.ends.tolist()
        self._next = block.today

    def until(self, time: int) -> Records:
        """Return the records of the bars that end by a time and are not delivered yet."""
        first, self._next = self._next, bisect_right(self._ends, time, self._next)
        if first == self._next:
            return _NO_RECORDS
        return _records(self._block, self._keys, first, self._next, RANK_DERIVED)


def _records(block: Block, keys: NDArray[np.uint64], first: int, stop: int, rank: int) -> Records:
    """Return the records of the bars in some slots of a block."""
    return bar_records(
        block.ends[first:stop],
        keys,
        block.interval.micros,
        block.values[:, :, first:stop],
        block.present[:, first:stop],
        block.flags[:, first:stop],
        rank,
    )
