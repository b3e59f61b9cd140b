"""The immutable Parquet files of a Delta store, each holding bars of one interval and UTC date.

Their columns are REQUIRED in Parquet's terms, which is more than tidiness: with optional columns
one flipped bit in a page header can make polars ask for so much memory that the process is
aborted, and nothing could report it (6 of the 31,112 bits of a small file did so; with required
columns none of 100,416 bits of two files).
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from stream_coord.bars import FIELDS, empty_frame
from stream_coord.errors import StoreCorruptError, StoreError
from stream_coord.files import new_file, sync_path
from stream_coord.stores.base import content_checksum
from stream_coord.stores.delta.manifest import (
    MANIFEST_KEY,
    Manifest,
    group_table,
    group_tables,
    manifest_text,
    parse_manifest,
)
from stream_coord.stores.groups import cut, value_columns
from stream_coord.stores.library_errors import library_errors_as

if TYPE_CHECKING:
    import polars as pl

RESTORE_HINT = "Restore the file from a backup, or import its bars into a new store."

# Small enough that one symbol out of 5,000 costs 1 % of its file, large enough to compress well.
_ROW_GROUP_ROWS = 16_384
# A file is rewritten as a whole when one of its bars is revised.
_FILE_ROWS = 262_144
SMALL_FILE_ROWS = _FILE_ROWS // 2
_CACHED_GROUPS = 500_000
_BUCKET_READERS = 8
_PATH = re.compile(
    r"interval=([1-9][0-9]*[smhd])/date=([0-9]{4}-[0-9]{2}-[0-9]{2})/[0-9a-f]{32}\.parquet"
)


@dataclass(frozen=True, slots=True)
class BarFile:
    """One file.

    Attributes:
        path: Relative to the table: ``interval=1m/date=2018-11-23/<32 hex digits>.parquet``.
        size_bytes: The file's size.
        interval: The interval's name.
        day: The UTC date.
    """

    path: str
    size_bytes: int
    interval: str
    day: date

    @classmethod
    def of_path(cls, path: str, size_bytes: int) -> BarFile:
        """Return the file of a path that the table's log names.

        Raises:
            StoreCorruptError: no bar file has such a path.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise StoreCorruptError(f"the table's log names {path!r}, which is no bar file")
        return cls(path, size_bytes, match[1], date.fromisoformat(match[2]))


class BarFiles:
    """Writes and reads the files under one root, and keeps their manifests.

    Args:
        root: An absolute directory, or the URL of a bucket's folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._cached_groups = 0
        self._lock = Lock()

    def write(
        self, interval: str, day: date, bars: pl.DataFrame
    ) -> list[tuple[BarFile, pl.DataFrame]]:
        """Write a bar frame of one date as new files; return them with their group tables.

        Raises:
            StoreError: a file cannot be written (none is left).
        """
        import polars as pl

        parts = cut_into_files(group_table(bars))
        written: list[tuple[BarFile, pl.DataFrame]] = []
        try:
            for part in parts:
                rows = bars.slice(part["offset"][0], part.select(pl.col("rows").sum()).item())
                written.append((self._write_file(interval, day, rows, part), part))
        except BaseException:
            for file, _ in written:
                self.discard(file)
            raise
        return written

    def discard(self, file: BarFile) -> None:
        """Delete a file that no commit names; one that stays is in nobody's way.

        In a bucket all of them stay, until a vacuum.
        """
        if is_local(self._root):
            with suppress(OSError):
                Path(self._root, file.path).unlink()

    def groups(self, files: Sequence[BarFile]) -> pl.DataFrame:
        """Return the files' group tables as one, with the columns ``date`` and ``path`` added.

        Raises:
            StoreCorruptError: a file is gone, or its footer is damaged.
        """
        paths = [file.path for file in files]
        if is_local(self._root):
            return group_tables(dict(zip(paths, map(self._manifest, files), strict=True)))
        with ThreadPoolExecutor(_BUCKET_READERS) as pool:  # a bucket answers late
            return group_tables(dict(zip(paths, pool.map(self._manifest, files), strict=True)))

    def read(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Return the bar frame of some rows of `groups`, every group of them verified.

        Raises:
            StoreCorruptError: bars differ from what was written, or cannot be read.
        """
        import polars as pl

        if groups.is_empty():
            return empty_frame()
        placed = _placed(groups)
        bars = pl.concat(self._read_runs(placed), rechunk=True)
        self._verify(bars, placed)
        return _in_order(bars, placed)

    def _write_file(
        self, interval: str, day: date, bars: pl.DataFrame, groups: pl.DataFrame
    ) -> BarFile:
        import polars as pl

        path = f"interval={interval}/date={day.isoformat()}/{token_hex(16)}.parquet"
        timed = bars.with_columns(pl.col("start").cast(pl.Datetime("us", "UTC")))
        metadata = {MANIFEST_KEY: manifest_text(interval, day, groups)}
        what = f"cannot write {self._root}/{path}"
        with library_errors_as(StoreError, what, "Nothing was stored; the old bars are intact."):
            content = BytesIO()
            _write_parquet(timed, metadata, content)
            if is_local(self._root):
                _write_local(Path(self._root, path), content.getbuffer())
            else:
                _write_parquet(timed, metadata, f"{self._root}/{path}")
            return BarFile(path, content.tell(), interval, day)

    def _manifest(self, file: BarFile) -> Manifest:
        with self._lock:
            if file.path in self._manifests:
                self._manifests.move_to_end(file.path)
                return self._manifests[file.path]
        manifest = self._read_manifest(file)
        with self._lock:
            if file.path not in self._manifests:
                self._manifests[file.path] = manifest
                self._cached_groups += len(manifest.symbol)
            while self._cached_groups > _CACHED_GROUPS and len(self._manifests) > 1:
                self._cached_groups -= len(self._manifests.popitem(last=False)[1].symbol)
        return manifest

    def _read_manifest(self, file: BarFile) -> Manifest:
        import polars as pl

        what = f"cannot read the bars of {file.day} ({file.interval}) in {self._root}/{file.path}"
        with library_errors_as(StoreCorruptError, what, RESTORE_HINT):
            text = pl.read_parquet_metadata(f"{self._root}/{file.path}").get(MANIFEST_KEY, "")
            return parse_manifest(text, file.interval, file.day)

    def _read_runs(self, placed: pl.DataFrame) -> list[pl.DataFrame]:
        """Read the runs of `placed`, all at once; one by one if that fails, to name the file."""
        import polars as pl

        offset, end = pl.col("offset"), pl.col("offset") + pl.col("rows")
        same = (pl.col("path").first(), pl.col("date").first())
        length = (end.max() - offset.min()).alias("length")
        runs = placed.group_by("run", maintain_order=True).agg(*same, offset.min(), length)
        plans = [self._scan(path, first, rows) for _, path, _, first, rows in runs.iter_rows()]
        # One file's runs must not be merged into one scan of the whole file.
        apart = pl.QueryOptFlags(comm_subplan_elim=False)
        try:
            with library_errors_as(StoreCorruptError, "", ""):
                frames = pl.collect_all(plans, optimizations=apart)
            if [frame.height for frame in frames] == runs["length"].to_list():
                return frames
        except StoreCorruptError:
            pass
        return [
            self._read_run(plan, path, day, rows)
            for plan, (_, path, day, _, rows) in zip(plans, runs.iter_rows(), strict=True)
        ]

    def _read_run(self, plan: pl.LazyFrame, path: str, day: date, rows: int) -> pl.DataFrame:
        what = f"cannot read the bars of {day} in {self._root}/{path}"
        with library_errors_as(StoreCorruptError, what, RESTORE_HINT):
            frame = plan.collect()
            if frame.height != rows:
                raise ValueError(f"it has {frame.height} rows where there should be {rows}")
            return frame

    def _scan(self, path: str, offset: int, rows: int) -> pl.LazyFrame:
        """Return the plan to read some rows; row groups outside of them are not touched.

        The symbols are not read: the manifest knows which rows are whose.
        """
        import polars as pl

        scan = pl.scan_parquet(f"{self._root}/{path}", glob=False).slice(offset, rows)
        start = pl.col("start").to_physical().cast(pl.Int64)
        return scan.select(start, *(pl.col(name).cast(pl.Float64) for name in FIELDS))

    def _verify(self, bars: pl.DataFrame, placed: pl.DataFrame) -> None:
        columns = value_columns(bars)
        for symbol, day, path, position, rows, checksum in placed.select(
            "symbol", "date", "path", "position", "rows", "checksum"
        ).iter_rows():
            if content_checksum(cut(columns, position, rows)) != checksum:
                raise StoreCorruptError(
                    f"the bars of {symbol} on {day} in {self._root}/{path} are not those that "
                    "were written",
                    RESTORE_HINT,
                )


def _placed(groups: pl.DataFrame) -> pl.DataFrame:
    """Cut groups into runs that are worth one read each, and place them in the rows so read.

    Returns:
        `groups` by path and offset with the columns ``run`` (its number) and ``position`` (the
        group's first row in all runs' rows, one run after the other).
    """
    import polars as pl

    path, offset, rows = pl.col("path"), pl.col("offset"), pl.col("rows")
    gap = (offset - (offset + rows).shift()).fill_null(0)
    new_file = path != path.shift().fill_null("")
    cut_here = new_file | (gap > _ROW_GROUP_ROWS)
    skipped = pl.when(cut_here).then(0).otherwise(gap)
    return groups.sort("path", "offset").with_columns(
        run=cut_here.cum_sum(), position=(skipped + rows).cum_sum() - rows
    )


def _in_order(bars: pl.DataFrame, placed: pl.DataFrame) -> pl.DataFrame:
    """Return the groups' rows of `bars` as a bar frame."""
    import numpy as np
    import polars as pl

    position, rows = pl.col("position"), pl.col("rows")
    ordered = placed.sort("symbol", "date")
    # A fourth of what repeating the texts themselves takes.
    symbols = ordered["symbol"].gather(np.repeat(np.arange(len(ordered)), ordered["rows"]))
    in_place = ordered.select((position == rows.cum_sum() - rows).all()).item()
    if in_place and bars.height == len(symbols):  # one file a date, all of it asked for: the rule
        return bars.insert_column(0, symbols)
    order = pl.int_ranges(position, position + rows, dtype=pl.UInt32).alias("row")
    return bars[ordered.select(order).explode("row")["row"]].insert_column(0, symbols)


def cut_into_files(groups: pl.DataFrame) -> list[pl.DataFrame]:
    """Cut the group table of a date's bars into those of the files that are to hold them."""
    import polars as pl

    numbered = groups.with_columns(number=pl.col("offset") // _FILE_ROWS)
    return numbered.partition_by("number", maintain_order=True, include_key=False)


def is_local(root: str) -> bool:
    """Whether `root` is a directory here and not the URL of a bucket."""
    return "://" not in root


def _write_local(target: Path, content: memoryview) -> None:
    """Write a file that is whole or absent, and survives a power loss: beside, sync, rename."""
    new_directory = not target.parent.exists()
    with new_file(target) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        for directory in target.parents[: 3 if new_directory else 1]:
            sync_path(directory)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _write_parquet(bars: pl.DataFrame, metadata: dict[str, str], target: BinaryIO | str) -> None:
    from arro3.core import DataType, Field, Schema

    number = DataType.float64()
    moment = DataType.timestamp("us", tz="UTC")
    types = {"symbol": DataType.string_view(), "start": moment, **dict.fromkeys(FIELDS, number)}
    bars.write_parquet(
        target,
        compression="zstd",
        row_group_size=_ROW_GROUP_ROWS,
        metadata=metadata,
        arrow_schema=Schema([Field(name, kind, nullable=False) for name, kind in types.items()]),
    )
