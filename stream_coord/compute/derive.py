"""Derived bars: coarser bars, built of base bars.

Buckets are anchored at each segment's open and cut at its close, so none spans a break, a close or
a night; a ``1d`` bucket is the regular session of a date. Of its real base bars a bucket takes the
first open, the highest high, the lowest low, the last close, and the sum of volumes, added one
after the other from the left: in floating point the order decides the last bit, and a bucket that
is built alone must equal the same one of a whole history. Synthetic bars count only where a bucket
has no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_coord.bars import FIELDS, FILLED, SYNTHETIC, TRUNCATED
from stream_coord.errors import IntervalError
from stream_coord.interval import DAY, Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_NARROW, _MANY = 40, 32
"""Buckets of at most 40 bars are quicker reduced across: all their first bars, then all their
second; if there are 32 times as many buckets as steps, so that the steps are worth it."""
_BARS = 250_000
"""Base bars read at a time: what is made on the way stays small and near the processor."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one or more sessions, in order of time.

    Attributes:
        opens: UTC microseconds; int64, shape (G,).
        closes: UTC microseconds, exclusive; int64, shape (G,).
        regular: Whether it is of the regular hours; a date's regular segments are neighbours;
            bool, shape (G,).
        days: UTC microseconds of midnight of the session's date; int64, shape (G,).
    """

    opens: Ints
    closes: Ints
    regular: Bools
    days: Ints


@dataclass(frozen=True, slots=True)
class Buckets:
    """Which base slots make which derived bar.

    Attributes:
        first: The first base slot of each bucket; int64, shape (K,).
        stop: The slot after its last one; int64, shape (K,).
        starts: The derived bar's start, UTC microseconds; int64, shape (K,).
        ends: Its end, UTC microseconds, when it becomes visible; int64, shape (K,).
        regular: Whether it is of the regular hours; bool, shape (K,).
        truncated: Whether a close cuts it; bool, shape (K,).
        of_slot: The bucket of each base slot, -1 where it has none; int64, shape (C,).
    """

    first: Ints
    stop: Ints
    starts: Ints
    ends: Ints
    regular: Bools
    truncated: Bools
    of_slot: Ints

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_expected(self) -> Ints:
        """Base bars of a complete bucket; int64, shape (K,)."""
        return self.stop - self.first


@dataclass(frozen=True, slots=True)
class Derived:
    """Derived bars of S symbols and K buckets.

    Attributes:
        values: open, high, low, close, volume; float64, shape (5, S, K), NaN in holes.
        present: Whether there is a bar; bool, shape (S, K).
        flags: The bits of `stream_coord.bars`, 0 in holes; uint8, shape (S, K).
        n: Real base bars that it is built of; int32, shape (S, K).
    """

    values: Floats
    present: Bools
    flags: NDArray[np.uint8]
    n: NDArray[np.int32]


def buckets_of(segments: Segments, base_micros: int, interval_micros: int) -> Buckets:
    """Return the buckets of an interval over the base slots of all segments, in order of time.

    Args:
        segments: The segments; their base grids, one after the other, are the slots.
        base_micros: The base interval, microseconds.
        interval_micros: A whole multiple of it, at least 2; one day stands for the regular session.

    Raises:
        IntervalError: it is no such multiple.
    """
    if interval_micros <= base_micros or interval_micros % base_micros:
        raise IntervalError(
            f"{Interval(interval_micros)} bars cannot be built of {Interval(base_micros)} bars",
            "A derived interval is a whole multiple of the base interval, at least 2 times it.",
        )
    counts = -((segments.opens - segments.closes) // base_micros)
    stops = np.cumsum(counts)
    if interval_micros == DAY:
        return _daily(segments, stops - counts, stops)
    per_bucket = interval_micros // base_micros
    buckets = -(-counts // per_bucket)
    part = np.repeat(np.arange(len(counts)), buckets)
    number = np.arange(len(part)) - np.repeat(np.cumsum(buckets) - buckets, buckets)
    first = (stops - counts)[part] + number * per_bucket
    stop = np.minimum(first + per_bucket, stops[part])
    starts = segments.opens[part] + number * interval_micros
    ends = np.minimum(starts + interval_micros, segments.closes[part])
    return Buckets(
        first,
        stop,
        starts,
        ends,
        segments.regular[part],
        ends - starts < interval_micros,
        np.repeat(np.arange(len(first)), stop - first),
    )


def _daily(segments: Segments, firsts: Ints, stops: Ints) -> Buckets:
    regular = np.flatnonzero(segments.regular)
    begins = np.diff(segments.days[regular], prepend=-1) != 0
    opening, closing = regular[begins], regular[np.roll(begins, -1)]
    first, stop = firsts[opening], stops[closing]
    of_slot = np.full(stops[-1] if len(stops) else 0, -1, np.int64)
    for bucket, (begin, end) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
        of_slot[begin:end] = bucket
    days = len(opening)
    return Buckets(
        first,
        stop,
        segments.days[opening],
        segments.closes[closing],
        np.ones(days, np.bool_),
        np.zeros(days, np.bool_),
        of_slot,
    )


def derive(
    values: Floats,
    present: Bools,
    flags: NDArray[np.uint8],
    buckets: Buckets,
    first: int = 0,
    stop: int | None = None,
) -> Derived:
    """Build the derived bars of the buckets ``[first:stop)``, of all symbols at once.

    Args:
        values: The base bars' open, high, low, close, volume; shape (5, S, C), NaN in holes.
        present: Whether there is a base bar; shape (S, C).
        flags: The base bars' bits of `stream_coord.bars`; shape (S, C).
        buckets: The buckets over the C base slots.
        first: The first bucket to build.
        stop: The bucket after the last one; None for all that follow.

    Returns:
        The bars of these buckets, bit for bit the same whether built together or one by one.
    """
    chosen = slice(first, stop)
    firsts, stops = buckets.first[chosen], buckets.stop[chosen]
    shape = (present.shape[0], len(firsts))
    bars = Derived(
        np.empty((len(FIELDS), *shape)),
        np.empty(shape, np.bool_),
        np.empty(shape, np.uint8),
        np.empty(shape, np.int32),
    )
    for begin, end in _even_runs(firsts, stops):
        slots, out = slice(int(firsts[begin]), int(stops[end - 1])), slice(begin, end)
        step = max(1, _BARS // (slots.stop - slots.start))
        for row in range(0, shape[0], step):
            rows = slice(row, row + step)
            _build(
                values[:, rows, slots],
                present[rows, slots],
                flags[rows, slots],
                Derived(
                    bars.values[:, rows, out],
                    bars.present[rows, out],
                    bars.flags[rows, out],
                    bars.n[rows, out],
                ),
            )
    if buckets.truncated[chosen].any():
        bars.flags[bars.present & buckets.truncated[chosen]] |= TRUNCATED
    return bars


def derive_one(
    values: Floats, present: Bools, flags: NDArray[np.uint8], truncated: bool
) -> tuple[list[float], int, int] | None:
    """Build one derived bar: what `derive` gives for one bucket of one symbol, but quicker.

    Args:
        values: The bucket's base bars; shape (5, T).
        present: Whether there is a base bar; shape (T,).
        flags: The bits of `stream_coord.bars`; shape (T,).
        truncated: Whether a close cuts the bucket.

    Returns:
        Open, high, low, close, volume; the flags; how many real base bars it has. None where the
        bucket has no base bar at all.
    """
    bits = flags.tolist()
    held = [at for at, there in enumerate(present.tolist()) if there]
    if not held:
        return None
    used = [at for at in held if not bits[at] & SYNTHETIC] if any(bits) else held
    count, flag = len(used), TRUNCATED if truncated else 0
    if not used:
        used, flag = held, flag | SYNTHETIC
    if any(bits[at] & FILLED for at in used):
        flag |= FILLED
    opens, highs, lows, closes, volumes = values.tolist()
    volume = volumes[used[0]]
    for at in used[1:]:
        volume += volumes[at]
    high, low = max(highs[at] for at in used) + 0.0, min(lows[at] for at in used) + 0.0
    return [opens[used[0]], high, low, closes[used[-1]], volume + 0.0], flag, count


def _even_runs(firsts: Ints, stops: Ints) -> Iterator[tuple[int, int]]:
    """Yield the runs [begin, end) of buckets of equal width without a slot between them."""
    if not len(firsts):
        return
    uneven = (firsts[1:] != stops[:-1]) | (np.diff(stops - firsts) != 0)
    edges = [0, *(np.flatnonzero(uneven) + 1).tolist(), len(firsts)]
    yield from pairwise(edges)


def _build(values: Floats, present: Bools, flags: NDArray[np.uint8], out: Derived) -> None:
    """Write the bars of even buckets, which these slots fill without a rest, to `out`."""
    by_bucket = (*out.present.shape, -1)
    values, used = values.reshape(len(FIELDS), *by_bucket), present.reshape(by_bucket)
    out.flags[:] = 0
    if flags.any():
        flags = flags.reshape(by_bucket)
        real = used & ((flags & SYNTHETIC) == 0)
        only_synthetic = used.any(axis=2) & ~real.any(axis=2)
        used = real | (used & only_synthetic[..., None])
        values = np.where(used, values, np.nan)
        out.flags[(used & ((flags & FILLED) != 0)).any(axis=2)] = FILLED
        out.flags[only_synthetic] |= SYNTHETIC
    _reduce(np.add, used, out.n)
    np.greater(out.n, 0, out=out.present)
    _reduce(np.fmax, values[1], out.values[1])
    _reduce(np.fmin, values[2], out.values[2])
    out.values[1:3] += 0.0  # -0.0 equals 0.0, and which of the two is the higher one is chance
    _take_first(values[0], used, out.values[0])
    _take_first(values[3][..., ::-1], used[..., ::-1], out.values[3])
    volumes = values[4] if used.all() else np.where(used, values[4], 0.0)
    _reduce(np.add, volumes, out.values[4])
    out.values[4] += 0.0  # a hole adds 0.0, which makes 0.0 of -0.0 as well
    out.values[4, ~out.present] = np.nan
    out.n[(out.flags & SYNTHETIC) != 0] = 0


def _take_first(values: Floats, used: Bools, out: Floats) -> None:
    """Take the first value of each bucket that is used; what is taken of none is NaN."""
    out[...] = values[..., 0]
    late = np.nonzero(~used[..., 0])
    out[late] = values[(*late, used[late].argmax(axis=-1))]


def _reduce(ufunc: np.ufunc, bars: Floats | Bools, out: Floats | NDArray[np.int32]) -> None:
    """Reduce the last axis from left to right, bar by bar."""
    width = bars.shape[-1]
    if width <= _NARROW and out.size > _MANY * width:
        out[...] = bars[..., 0]
        for position in range(1, width):
            ufunc(out, bars[..., position], out=out)
    elif ufunc is np.add:
        # Not add.reduce: it sums in pairs.
        out[...] = np.add.accumulate(bars, axis=-1, dtype=out.dtype)[..., -1]
    else:
        ufunc.reduce(bars, axis=-1, out=out)
