"""Rows that wait until all of them are there: in memory, or on disk if they are many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import IO, TYPE_CHECKING

from stream_coord.errors import StreamCoordError

if TYPE_CHECKING:
    import polars as pl

BUCKETS = 250


class Spool:
    """Takes rows in frames of any size and gives them back in frames of bounded size.

    Up to `most_rows` are kept in memory. If there are more, all go to a temporary file, in
    buckets. Rows of the same keys stay together, and in the order in which they came.

    Args:
        most_rows: How many rows to hold in memory, about.
        keys: Whole numbers of a row that tell its bucket; the second and further ones are for
            buckets that are too large for memory themselves.
    """

    def __init__(self, most_rows: int, keys: Sequence[pl.Expr]) -> None:
        self._most_rows = most_rows
        self._keys = keys
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._file: IO[bytes] | None = None
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(BUCKETS)]
        self._rows = [0] * BUCKETS

    def add(self, rows: pl.DataFrame) -> None:
        """Take some rows.

        Raises:
            StreamCoordError: the disk does not take them.
        """
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        if self._file is not None or self._waiting_rows > self._most_rows:
            self._spill()

    def drain(self) -> Iterator[pl.DataFrame]:
        """Yield all rows; one frame at least if any was added, be it empty.

        Raises:
            StreamCoordError: the disk does not give them back.
        """
        import polars as pl

        if self._file is None:
            if self._waiting:
                yield pl.concat(self._waiting)
            self._waiting = []
            return
        with self._file as file:
            for buckets in self._bundles():
                chunks = (_load(file, place) for n in buckets for place in self._places[n])
                if sum(self._rows[n] for n in buckets) <= 2 * self._most_rows or not self._keys[1:]:
                    yield pl.concat(chunks)
                    continue
                finer = Spool(self._most_rows, self._keys[1:])
                for chunk in chunks:
                    finer.add(chunk)
                yield from finer.drain()

    def _bundles(self) -> Iterator[list[int]]:
        """Yield the numbers of the buckets, of as many at once as fit into memory."""
        bundle: list[int] = []
        for n, rows in enumerate(self._rows):
            if bundle and sum(self._rows[m] for m in bundle) + rows > self._most_rows:
                yield bundle
                bundle = []
            bundle += [n] if rows else []
        if bundle:
            yield bundle

    def _spill(self) -> None:
        bucket = (self._keys[0] % BUCKETS).alias("bucket")
        content = BytesIO()
        with _disk_errors():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - has no name, closed by drain
            begin = self._file.tell()
            for frame in self._waiting:
                parts = frame.with_columns(bucket).partition_by(
                    "bucket", maintain_order=True, include_key=False, as_dict=True
                )
                for (n,), part in parts.items():
                    at = content.tell()
                    part.rechunk().write_ipc_stream(content)
                    self._places[n].append((begin + at, content.tell() - at))
                    self._rows[n] += len(part)
            self._file.write(content.getbuffer())
            self._file.flush()
        self._waiting, self._waiting_rows = [], 0


def _load(file: IO[bytes], place: tuple[int, int]) -> pl.DataFrame:
    import polars as pl

    begin, size_bytes = place
    with _disk_errors():
        return pl.read_ipc_stream(os.pread(file.fileno(), size_bytes, begin))


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StreamCoordError(
            f"rows cannot be kept aside in {tempfile.gettempdir()}: {error.strerror or error}",
            "Large files need room there, about as much as the files take; the environment "
            "variable TMPDIR names another folder.",
        ) from error
