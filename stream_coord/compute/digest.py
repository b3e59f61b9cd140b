"""The digest of what a replay delivered: a hash over records of one fixed layout.

A session's digest is XXH3-128 over a header and then its records, in the order of delivery (by
time, then by rank; the bars of one time and rank by interval, shorter first, then by symbol in
code-point order; updates see below):

- header: the ASCII text ``stream-coord digest 1``, a zero byte, the session date as ASCII
  ``YYYY-MM-DD``, a zero byte;
- record, 72 bytes, little-endian, no padding: ``time`` int64 (when it was delivered: of a bar its
  end; UTC microseconds), ``rank`` uint32 (1 base bar, 2 update, 3 derived bar, 5 boundary; 4, the
  strategy's callbacks, leave no record), ``flags`` uint32 (the bits SYNTHETIC and TRUNCATED of
  `stream_coord.bars`; of an update, in the bits from the eighth on, also the whole seconds from the
  bar's end to ``time``), ``symbol`` uint64 (XXH3-64 of its UTF-8 text), ``interval`` int64
  (microseconds), ``open, high, low, close, volume`` float64.

The updates of one time are those of upkeep, its fills before its synthetic bars; of each of the
two first the base bars by symbol and start, then the rebuilt derived bars by interval, symbol and
start. Derived bars are those of the configured intervals.

A boundary's record has symbol 0 and interval 0, the state left in ``open`` and the state entered
in ``high`` (their numbers in `stream_coord.session.boundaries`), zeros elsewhere. The run's digest
is XXH3-128 over the header text and zero byte, then the 16 bytes of each session's digest in order.
XXH3 is taken with seed 0; a digest's bytes are its hex digits, the most significant first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128

from stream_coord.bars import FIELDS, SYNTHETIC, TRUNCATED

RANK_BASE, RANK_UPDATE, RANK_DERIVED, RANK_BOUNDARY = 1, 2, 3, 5

RECORD = np.dtype(
    [("time", "<i8"), ("rank", "<u4"), ("flags", "<u4"), ("symbol", "<u8"), ("interval", "<i8")]
    + [(field, "<f8") for field in FIELDS]
)
_BYTES = RECORD.itemsize

Records = NDArray[np.void]
"""An array of dtype `RECORD`."""

DIGESTED_FLAGS = SYNTHETIC | TRUNCATED
_HEADER = b"stream-coord digest 1\0"
_LATENESS_SHIFT = 8
_SECOND_MICROS = 1_000_000


def symbol_keys(symbols: Sequence[str]) -> NDArray[np.uint64]:
    """Return the keys that stand for symbols in records; uint64, shape (S,)."""
    return np.array([xxh3_64_intdigest(symbol.encode()) for symbol in symbols], np.uint64)


class SessionDigest:
    """The digest of one session, fed with records in the order of delivery.

    Args:
        session_date: The session's date.
    """

    def __init__(self, session_date: date) -> None:
        self._hash = xxh3_128(_HEADER + session_date.isoformat().encode() + b"\0")

    def add(self, records: Records) -> None:
        """Take records of dtype `RECORD`; any shape, C order."""
        self._hash.update(np.ascontiguousarray(records).data)

    def add_bars(self, base: Records, derived: Sequence[Records]) -> None:
        """Take the new bars of some minutes, each kind of them in order of time.

        Args:
            base: The base bars; shape (n,).
            derived: The derived bars by interval, shorter first; shape (n,) each.
        """
        pieces = [piece for number, part in enumerate(derived) for piece in _pieces(part, number)]
        pieces.sort()  # by time, then by interval
        stops = np.searchsorted(base["time"], [time for time, *_ in pieces], "right").tolist()
        of_base, update, first = _bytes_of(base), self._hash.update, 0
        of_derived = [_bytes_of(part) for part in derived]
        for (_, number, begin, end), stop in zip(pieces, stops, strict=True):
            update(of_base[first * _BYTES : stop * _BYTES])
            update(of_derived[number][begin * _BYTES : end * _BYTES])
            first = stop
        update(of_base[first * _BYTES :])

    def add_boundary(self, time: int, left: int, entered: int) -> None:
        """Take one boundary event at `time` (UTC microseconds)."""
        record = np.zeros(1, RECORD)
        record["time"], record["rank"] = time, RANK_BOUNDARY
        record["open"], record["high"] = left, entered
        self.add(record)

    def hexdigest(self) -> str:
        """Return the digest as 32 hex digits."""
        return self._hash.hexdigest()


def _pieces(records: Records, number: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield of each time its time, `number`, and where its records begin and end."""
    times = records["time"]
    edges = [0, *(np.flatnonzero(times[1:] != times[:-1]) + 1).tolist(), len(times)]
    for begin, end in pairwise(edges):
        if begin < end:
            yield int(times[begin]), number, begin, end


def _bytes_of(records: Records) -> memoryview:
    # An empty memoryview of more than bytes cannot be cast.
    return np.ascontiguousarray(records).data.cast("B") if len(records) else memoryview(b"")


def bar_records(
    ends: NDArray[np.int64],
    keys: NDArray[np.uint64],
    interval_micros: int,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    flags: NDArray[np.uint8],
    rank: int = RANK_BASE,
) -> Records:
    """Return the records of new bars, minute by minute and within a minute by row.

    Args:
        ends: Each slot's end, UTC microseconds; shape (T,).
        keys: Each row's `symbol_keys`; shape (S,), rows sorted by symbol.
        interval_micros: The bars' interval.
        values: open, high, low, close, volume; shape (5, S, T).
        present: Whether there is a bar; shape (S, T).
        flags: The bars' flags; shape (S, T).
        rank: `RANK_BASE` or `RANK_DERIVED`.

    Returns:
        dtype `RECORD`, shape (number of present bars,).
    """
    records = np.empty((len(ends), len(keys)), RECORD)
    records["time"] = ends[:, None]
    records["rank"] = rank
    records["flags"] = flags.T & DIGESTED_FLAGS
    records["symbol"] = keys
    records["interval"] = interval_micros
    for field, plane in zip(FIELDS, values, strict=True):
        records[field] = plane.T
    if present.all():
        return records.reshape(-1)
    # Half the price of a boolean mask on whole records.
    return records.reshape(-1).take(np.flatnonzero(present.T))


def update_records(
    time: int,
    ends: NDArray[np.int64],
    keys: NDArray[np.uint64],
    interval_micros: int,
    values: NDArray[np.float64],
    flags: NDArray[np.uint8],
) -> Records:
    """Return the records of updates, in the order given.

    Args:
        time: When they were delivered, UTC microseconds.
        ends: Each bar's end; shape (n,), as all that follow.
        keys: The `symbol_keys` of each bar's symbol.
        interval_micros: The bars' interval.
        values: open, high, low, close, volume; shape (5, n).
        flags: The bars' flags.
    """
    records = np.empty(len(ends), RECORD)
    records["time"], records["rank"] = time, RANK_UPDATE
    late_seconds = (time - ends) // _SECOND_MICROS
    records["flags"] = (flags & DIGESTED_FLAGS) | (late_seconds << _LATENESS_SHIFT)
    records["symbol"], records["interval"] = keys, interval_micros
    for field, column in zip(FIELDS, values, strict=True):
        records[field] = column
    return records


def run_digest(session_digests: Iterable[str]) -> str:
    """Return the digest of a run from its sessions' digests, in order."""
    whole = xxh3_128(_HEADER)
    for digest in session_digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()
