"""Asking the sources for bars: one question to each of them, and what their answers amount to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS
from stream_coord.clock import Clock, Timer, format_moment
from stream_coord.compute.gaps import MAX_NAMES
from stream_coord.compute.validate import END_OF_TIME, validate
from stream_coord.errors import ConfigError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.sources.guard import checked_bars
from stream_coord.sources.protocol import BarRange, BarSource, NamedSource
from stream_coord.stores.ledger import Disagreement, SourceCall
from stream_coord.stores.ledger.schema import storable

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the sources said about N minutes; every array has one element for each.

    Attributes:
        found: Whether some source has a bar; bool.
        values: open, high, low, close, volume of the first source that has one; float64, (5, N),
            NaN where none has.
        source: Whose values these are, a position in `Enquirer.names`; int16, -1 where nobody's.
        empty: Bit i: source i covers the minute and has no bar, as it said now or before; uint64.
        asked: Bit i: source i has had its say, now or before; uint64.
        covered: Whether some source can tell, as it said now or before; bool.
        failed: Whether a source that covers the minute failed, or delivered something that is no
            bar, or whether one could not say what it covers; bool.
        disagreements: Minutes for which a source has other values than one before it.
    """

    found: Bools
    values: NDArray[np.float64]
    source: NDArray[np.int16]
    empty: Bits
    asked: Bits
    covered: Bools
    failed: Bools
    disagreements: list[Disagreement]

    def take(self, which: Ints) -> Answers:
        """Return the answers for some of the minutes, with the same disagreements."""
        columns = {
            each.name: getattr(self, each.name)[..., which]
            for each in fields(self)
            if each.name != "disagreements"
        }
        return replace(self, **columns)


class Enquirer:
    """Asks sources, in order; safe to share by threads, of which one at a time is served.

    A source that fails, whatever it raises, stops nothing: a `SourceCall` tells of it, and the
    answers say for which minutes it failed.

    Args:
        sources: Whom to ask; where several have a bar of the same minute, the first of them wins.
        interval: The length of the bars.
        clock: When a source was asked.
        timer: How long it took.
        mask: Takes secrets out of what a failing source says.

    Attributes:
        has_failed: Whether any source has failed so far.

    Raises:
        ConfigError: there are more than `MAX_NAMES`.
    """

    def __init__(
        self,
        sources: Sequence[NamedSource],
        interval: Interval,
        clock: Clock,
        timer: Timer,
        mask: Callable[[str], str] = str,
    ) -> None:
        if len(sources) > MAX_NAMES:  # which of them was asked is a bit each
            raise ConfigError(
                f"there are {len(sources)} sources", f"At most {MAX_NAMES} can be asked."
            )
        self.sources = tuple(sources)
        self.interval = interval
        self.has_failed = False
        self._clock = clock
        self._timer = timer
        self._mask = mask
        self._lock = Lock()
        self._calls: deque[SourceCall] = deque()

    @property
    def names(self) -> tuple[str, ...]:
        """The identities of the sources, in order, as the ledger keeps them."""
        return tuple(storable(source.identity) for source in self.sources)

    @property
    def every_bit(self) -> np.uint64:
        """The bits of all sources."""
        return np.uint64((1 << len(self.sources)) - 1)

    def take_calls(self) -> list[SourceCall]:
        """Return the calls that nobody has taken yet, in order."""
        calls = []
        while self._calls:  # without the lock, which a source that hangs may hold for ever
            calls.append(self._calls.popleft())
        return calls

    def close(self) -> None:
        """Let go of the sources' files and connections; one that fails at it stops nothing.

        While a source is being asked, by a thread that nobody waits for any more, they stay open.
        """
        if self._lock.acquire(blocking=False):
            try:
                for named in self.sources:
                    with _caught([]):
                        named.source.close()
            finally:
                self._lock.release()

    def ask(
        self,
        symbols: Sequence[str],
        rows: Ints,
        starts: Ints,
        empty: Bits | None = None,
        asked: Bits | None = None,
    ) -> Answers:
        """Ask for the bars of N minutes: at most one question to each source.

        A source whose bit is set in `empty` is not asked again. One that does not compare is not
        asked for what others before it delivered.

        Args:
            symbols: All symbols.
            rows: The position in `symbols` of each minute's; int64, shape (N,).
            starts: Each minute's start in UTC microseconds; int64, shape (N,). Ascending by row,
                then by start, none twice.
            empty: What sources said before, as in `Answers`; None: nothing.
            asked: Who was asked before, as in `Answers`; None: nobody.
        """
        none = np.zeros(len(starts), np.uint64)
        query = _Query(
            self.interval, symbols, rows, starts, none if empty is None else empty.copy()
        )
        with self._lock:
            if len(starts):
                for number, named in enumerate(self.sources):
                    self._ask_one(query, number, named)
        return Answers(
            found=query.found,
            values=query.values,
            source=query.source,
            empty=query.empty,
            asked=(none if asked is None else asked) | self.every_bit,
            covered=query.covered | query.found | (query.empty != 0),
            failed=query.failed,
            disagreements=query.disagreements(self.names),
        )

    def _ask_one(self, query: _Query, number: int, named: NamedSource) -> None:
        """Ask a source what it covers and, if that is anything, for its bars."""
        bit = np.uint64(1 << number)
        wanted = (query.empty & bit) == 0
        if not named.compare:
            wanted &= ~query.found
        if not wanted.any():
            return
        at, begun = self._clock.now(), self._timer.seconds()
        errors: list[BaseException] = []
        ranges: list[BarRange] = []
        bars, refused = 0, ""
        with _caught(errors):
            covered = named.source.coverage(self.interval, query.ranges(wanted))
            wanted &= query.inside(covered)
            query.covered |= wanted
            if ranges := query.ranges(wanted):  # else it covers nothing, and is asked for no bar
                delivery = query.judge(named, ranges, wanted)
                bars, refused = query.take(delivery, wanted, number)
        if errors:
            query.failed |= wanted
        self.has_failed |= bool(query.failed.any())
        failure = _in_a_line(errors[0]) if errors else refused
        trouble = failure or _troubles(named.source)
        if not (ranges or trouble):
            return
        call = SourceCall(
            source=self.names[number],
            at=at,
            seconds=self._timer.seconds() - begun,
            ranges=len(ranges),
            minutes=int(np.count_nonzero(wanted)) if ranges else 0,
            bars=bars,
            outcome="failed" if failure else "answered",
            error=self._mask(trouble) if trouble else None,
        )
        self._calls.append(call)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A source's bars of the minutes that it was asked for.

    Attributes:
        cells: Which minute each bar is of; int64, shape (K,). The last one of a minute counts.
        values: Shape (5, K).
        rejected: Minutes of which something came that is no bar; int64.
    """

    cells: Ints
    values: NDArray[np.float64]
    rejected: Ints


@dataclass(slots=True)
class _Query:
    """The minutes in question, and what is known of them so far; see `Answers`."""

    interval: Interval
    symbols: Sequence[str]
    rows: Ints
    starts: Ints
    empty: Bits
    found: Bools = field(init=False)
    covered: Bools = field(init=False)
    failed: Bools = field(init=False)
    values: NDArray[np.float64] = field(init=False)
    source: NDArray[np.int16] = field(init=False)
    _keys: Ints = field(init=False)
    _others: list[tuple[int, _Delivery]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.starts)
        self.found, self.covered, self.failed = np.zeros((3, count), np.bool_)
        self.values = np.full((len(FIELDS), count), np.nan)
        self.source = np.full(count, -1, np.int16)
        self._keys = self._key(self.rows, self.starts)

    def ranges(self, wanted: Bools) -> list[BarRange]:
        """Return some of the minutes as ranges, neighbours joined."""
        if not wanted.any():
            return []
        keys, starts = self._keys[wanted], self.starts[wanted]
        begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 2) != 1)
        lasts = np.append(begins[1:], len(keys)) - 1
        rows = self.rows[wanted][begins].tolist()
        ends = (starts[lasts] + self.interval.micros).tolist()
        return [
            BarRange(self.symbols[row], start, end)
            for row, start, end in zip(rows, starts[begins].tolist(), ends, strict=True)
        ]

    def inside(self, ranges: Sequence[BarRange]) -> Bools:
        """Return which of the minutes start in one of `ranges`, which may overlap."""
        row_of = {symbol: row for row, symbol in enumerate(self.symbols)}
        known = [
            (row_of[part.symbol], part.start, part.end) for part in ranges if part.symbol in row_of
        ]
        rows, starts, ends = np.array(known, np.int64).reshape(-1, 3).T
        firsts = np.searchsorted(self._keys, self._key(rows, starts))
        stops = np.searchsorted(self._keys, self._key(rows, ends))
        depth = np.zeros(len(self._keys) + 1, np.int64)
        np.add.at(depth, firsts, 1)
        np.add.at(depth, np.maximum(firsts, stops), -1)
        return depth[:-1].cumsum() > 0

    def judge(self, named: NamedSource, ranges: list[BarRange], wanted: Bools) -> _Delivery:
        """Get a source's bars and tell those that are from those that are not.

        Raises:
            SourceError: they are no bars at all.
        """
        import polars as pl

        raw = checked_bars(named.source.bars(self.interval, ranges), ranges)
        names = pl.Series(list(map(str, self.symbols)), dtype=pl.String)
        asked = pl.DataFrame(
            {
                "symbol": names.gather(self.rows[wanted]),
                "slot": self.starts[wanted],
                "cell": np.flatnonzero(wanted),
            }
        )
        # A bar that starts within a minute, but not at its start, is that minute's reject.
        slot = pl.col("start") // self.interval.micros * self.interval.micros
        ours = raw.with_columns(slot=slot).join(asked, on=["symbol", "slot"], maintain_order="left")
        nothing_said = {"row": pl.lit(0, pl.Int64), "reason": pl.lit(None, pl.String)}
        judged = validate(ours.with_columns(**nothing_said), self.interval, named.allow_nonpositive)
        good = judged.good
        return _Delivery(
            good["cell"].to_numpy(),
            good.select(FIELDS).to_numpy().T,
            judged.rejects["cell"].to_numpy(),
        )

    def take(self, delivery: _Delivery, wanted: Bools, number: int) -> tuple[int, str]:
        """Take over what source `number` delivered of the minutes that it was asked for.

        Returns:
            How many minutes it has a bar of, and what to say where some are no bars.
        """
        here = np.zeros_like(wanted)
        here[delivery.cells] = True
        bad = np.zeros_like(wanted)
        bad[delivery.rejected] = True
        refused = np.flatnonzero(bad & ~here)
        self.failed[refused] = True
        self.empty[wanted & ~here & ~bad] |= np.uint64(1 << number)
        values = np.full_like(self.values, np.nan)
        values[:, delivery.cells] = delivery.values
        new = here & ~self.found
        differ = np.flatnonzero(here & self.found & (values != self.values).any(axis=0))
        if len(differ):
            self._others.append((number, _Delivery(differ, values[:, differ], differ[:0])))
        self.values[:, new] = values[:, new]
        self.source[new] = number
        self.found |= new
        return int(np.count_nonzero(here)), self._say_refused(refused)

    def _say_refused(self, cells: Ints) -> str:
        if not len(cells):
            return ""
        first = cells[0]
        minute = format_moment(int(self.starts[first]))
        return (
            f"what it has of {len(cells)} minutes is no bar (see the rules of import), "
            f"the first of {self.symbols[self.rows[first]]} at {minute}"
        )

    def disagreements(self, names: Sequence[str]) -> list[Disagreement]:
        """Return where a source differs from the one that won."""
        return [
            Disagreement(
                symbol=self.symbols[self.rows[cell]],
                start=int(self.starts[cell]),
                source=names[self.source[cell]],
                other=names[number],
                values=tuple(self.values[:, cell].tolist()),
                other_values=tuple(other.tolist()),
            )
            for number, delivery in self._others
            for cell, other in zip(delivery.cells.tolist(), delivery.values.T, strict=True)
        ]

    def _key(self, rows: Ints, starts: Ints) -> Ints:
        """Return one number for each minute that ascends as (row, start) does, by 1 a minute."""
        length = self.interval.micros
        span = END_OF_TIME // length + 1
        keys: Ints = rows * span + np.clip(-(-starts // length), 0, span - 1)
        return keys


@contextmanager
def _caught(errors: list[BaseException]) -> Iterator[None]:
    """Catch whatever a source raises, and put it into `errors`; Ctrl-C goes on."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - polars panics and sys.exit() are no Exceptions
        errors.append(error)


def _troubles(source: BarSource) -> str:
    """Return what a source that answered could not read of what it has."""
    told: Sequence[str] = getattr(source, "troubles", ())
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return f"{told[0]}{more}" if told else ""


def _in_a_line(error: BaseException) -> str:
    text = error.message if isinstance(error, StreamCoordError) else f"{error}"
    name = "" if isinstance(error, StreamCoordError) else f"{type(error).__name__}: "
    return name + " ".join(text.split())
