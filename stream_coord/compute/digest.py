"""The digest of what a replay delivered: a hash over records of one fixed layout.

A session's digest is XXH3-128 over a header and then its records, in the order of delivery (by
time, then by rank; the base bars of a minute by symbol, in code-point order):

- header: the ASCII text ``stream-coord digest 1``, a zero byte, the session date as ASCII
  ``YYYY-MM-DD``, a zero byte;
- record, 72 bytes, little-endian, no padding: ``time`` int64 (the minute's end, UTC
  microseconds), ``rank`` uint32 (1 base bar, 2 update, 3 derived bar, 5 boundary; 4, the
  strategy's callbacks, leave no record), ``flags`` uint32 (the bits SYNTHETIC and TRUNCATED of
  `stream_coord.bars`), ``symbol`` uint64 (XXH3-64 of its UTF-8 text), ``interval`` int64
  (microseconds), ``open, high, low, close, volume`` float64.

A boundary's record has symbol 0 and interval 0, the state left in ``open`` and the state entered
in ``high`` (their numbers in `stream_coord.session.boundaries`), zeros elsewhere. The run's digest
is XXH3-128 over the header text and zero byte, then the 16 bytes of each session's digest in order.
XXH3 is taken with seed 0; a digest's bytes are its hex digits, the most significant first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128

from stream_coord.bars import FIELDS, SYNTHETIC, TRUNCATED

RANK_BASE, RANK_UPDATE, RANK_DERIVED, RANK_BOUNDARY = 1, 2, 3, 5

RECORD = np.dtype(
    [("time", "<i8"), ("rank", "<u4"), ("flags", "<u4"), ("symbol", "<u8"), ("interval", "<i8")]
    + [(field, "<f8") for field in FIELDS]
)
DIGESTED_FLAGS = SYNTHETIC | TRUNCATED
_HEADER = b"stream-coord digest 1\0"


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

    def add(self, records: NDArray[np.void]) -> None:
        """Take records of dtype `RECORD`; any shape, C order."""
        self._hash.update(np.ascontiguousarray(records).data)

    def add_boundary(self, time: int, left: int, entered: int) -> None:
        """Take one boundary event at `time` (UTC microseconds)."""
        record = np.zeros(1, RECORD)
        record["time"], record["rank"] = time, RANK_BOUNDARY
        record["open"], record["high"] = left, entered
        self.add(record)

    def hexdigest(self) -> str:
        """Return the digest as 32 hex digits."""
        return self._hash.hexdigest()


def bar_records(
    ends: NDArray[np.int64],
    keys: NDArray[np.uint64],
    interval_micros: int,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    flags: NDArray[np.uint8],
) -> NDArray[np.void]:
    """Return the records of base bars, minute by minute and within a minute by row.

    Args:
        ends: Each slot's end, UTC microseconds; shape (T,).
        keys: Each row's `symbol_keys`; shape (S,), rows sorted by symbol.
        interval_micros: The bars' interval.
        values: open, high, low, close, volume; shape (5, S, T).
        present: Whether there is a bar; shape (S, T).
        flags: The bars' flags; shape (S, T).

    Returns:
        dtype `RECORD`, shape (number of present bars,).
    """
    records = np.empty((len(ends), len(keys)), RECORD)
    records["time"] = ends[:, None]
    records["rank"] = RANK_BASE
    records["flags"] = flags.T & DIGESTED_FLAGS
    records["symbol"] = keys
    records["interval"] = interval_micros
    for field, plane in zip(FIELDS, values, strict=True):
        records[field] = plane.T
    if present.all():
        return records.reshape(-1)
    # Half the price of a boolean mask on whole records.
    return records.reshape(-1).take(np.flatnonzero(present.T))


def run_digest(session_digests: Iterable[str]) -> str:
    """Return the digest of a run from its sessions' digests, in order."""
    whole = xxh3_128(_HEADER)
    for digest in session_digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()
