"""A replay's bars as objects, and the strategy's callbacks that they go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice, repeat

import numpy as np

from stream_coord.bars import Bar
from stream_coord.clock import format_moment
from stream_coord.errors import StrategyError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData
from stream_coord.session.series import check_derivable
from stream_coord.strategy import Strategy, describe


def bar_objects(
    block: Block, first: int, stop: int, wanted: bool = True
) -> tuple[Iterator[Bar], list[int]]:
    """Return the bars of slots first ... stop - 1 in order of delivery, and how many each has.

    Args:
        block: The bars.
        first: The first slot.
        stop: The slot after the last one.
        wanted: False: nobody wants them, and there are none.
    """
    if not wanted:
        return iter(()), [0] * (stop - first)
    present = block.present[:, first:stop].T
    counts: list[int] = present.sum(axis=1).tolist()
    slots, rows = np.nonzero(present)
    slots += first

    def of_each_bar(of_each_slot: list[int]) -> Iterator[int]:
        """Give all bars of a slot the same int, which costs less than one for each."""
        return chain.from_iterable(map(repeat, of_each_slot, counts))

    built_of = (
        ()
        if block.n is None or block.n_expected is None
        else (
            block.n[rows, slots].tolist(),
            of_each_bar(block.n_expected[first:stop].tolist()),
        )
    )
    bars = map(
        Bar,
        np.array(block.symbols, object)[rows].tolist(),
        repeat(block.label),
        of_each_bar(block.starts[first:stop].tolist()),
        of_each_bar(block.ends[first:stop].tolist()),
        *block.values[:, rows, slots].tolist(),
        block.flags[rows, slots].tolist(),
        *built_of,
    )
    return bars, counts


class Ending:
    """The derived bars that end within a stretch of time, as objects for the strategy.

    They are made for the whole stretch at once, and again for a single time where a bar has been
    added or revised meanwhile.

    Args:
        data: The session store, which has them.
        intervals: The intervals whose bars `on_bar` gets, ascending.
        after: What ended by then is left out; UTC microseconds.
        until: What ends later is left out.

    Attributes:
        times: When they end.
    """

    def __init__(
        self, data: SessionData, intervals: Sequence[Interval], after: int, until: int
    ) -> None:
        self._data = data
        self._intervals = intervals
        self._state = self._state_of_store()  # first: what is written meanwhile is noticed
        self.times: dict[int, list[Bar]] = {}
        self._make(after, until)

    def at(self, now: int) -> list[Bar]:
        """Return those that end at `now`, one of `times`: shorter intervals first."""
        if self._state != self._state_of_store():
            self._make(now - 1, now)
        return self.times[now]

    def _make(self, after: int, until: int) -> None:
        made: dict[int, list[Bar]] = {}
        for interval in self._intervals:
            for end, bars in ended(self._data, interval, after, until):
                made.setdefault(end, []).extend(bars)
        self.times |= made

    def _state_of_store(self) -> tuple[int, int]:
        series = self._data._series
        return id(series), series.base.writes.count


def ended(
    data: SessionData, interval: Interval, after: int, until: int
) -> list[tuple[int, list[Bar]]]:
    """Return the derived bars that end after `after` and by `until`, by their end and symbol.

    Args:
        data: The session store.
        interval: The bars' interval; it is activated.
        after: UTC microseconds.
        until: UTC microseconds; may lie ahead of the store's time.
    """
    block = data._series.activate(interval)
    first, stop = np.searchsorted(block.ends, (after, until), "right").tolist()
    if first == stop:
        return []

    def read() -> list[tuple[int, list[Bar]]]:
        objects, counts = bar_objects(block, first, stop)
        ends = block.ends[first:stop].tolist()
        return [
            (end, list(islice(objects, count))) for end, count in zip(ends, counts, strict=True)
        ]

    return block.writes.consistent(read)


class Callbacks:
    """A strategy's callbacks, and who is to blame when one raises.

    Args:
        strategy: The strategy.
        base: The base interval.

    Attributes:
        on_update: The strategy's own, or one that does nothing; so are `on_bar` and `on_step`.
        watch_bars: Whether `on_bar` is the strategy's own.
        intervals: Those of the derived bars that `on_bar` gets, ascending.
        watch_minutes: Whether any of the three is, so that minutes must be walked one by one.
    """

    def __init__(self, strategy: Strategy | None, base: Interval) -> None:
        self._strategy = strategy
        acting = Strategy() if strategy is None else strategy
        self.on_update, self.on_bar, self.on_step = (
            acting.on_update,
            acting.on_bar,
            acting.on_step,
        )
        self.watch_bars = _overrides(strategy, "on_bar")
        self.intervals = wanted_intervals(strategy, base) if self.watch_bars else ()
        self.watch_minutes = self.watch_bars or any(
            _overrides(strategy, hook) for hook in ("on_update", "on_step")
        )

    def one(self, hook: str, data: SessionData, *args: object) -> None:
        """Call one hook, if there is a strategy.

        Raises:
            StrategyError: it raised.
        """
        if self._strategy is not None:
            with self.blaming(hook, data, data.now):
                getattr(self._strategy, hook)(*args)

    @contextmanager
    def blaming(self, hook: str, data: SessionData, now: int) -> Iterator[None]:
        """Turn what a hook raises inside into an error that says so."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.blame(hook, data, now, None, error) from error

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


def wanted_intervals(strategy: Strategy | None, base: Interval) -> tuple[Interval, ...]:
    """Return the intervals of the derived bars that a strategy's `on_bar` is to get, ascending.

    Args:
        strategy: The strategy.
        base: The base interval, whose bars it gets anyway.

    Raises:
        StrategyError: what it says is no list of such intervals.
    """
    try:
        texts = getattr(strategy, "intervals", ())
        if isinstance(texts, str):
            raise TypeError(f"{texts!r} is one text")
        wanted = {text if isinstance(text, Interval) else Interval.parse(text) for text in texts}
        for interval in wanted - {base}:
            check_derivable(interval, base)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        said = error.message if isinstance(error, StreamCoordError) else describe(error)
        raise StrategyError(
            f"{type(strategy).__name__}.intervals: {said}",
            f'Write a tuple of whole multiples of {base}, such as ("{Interval(5 * base.micros)}",)'
            ' or ("1d",).',
        ) from error
    return tuple(sorted(wanted - {base}))
