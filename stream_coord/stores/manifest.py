"""What a bar file says of its groups: a group is the bars of one symbol in one file.

A *group table* is a polars frame with one row per group, sorted by symbol: ``symbol`` (String),
``offset`` (Int64, the group's first row in the file), ``rows``, ``first``, ``last`` (Int64; starts
of the first and last bar in UTC microseconds) and ``checksum`` (String, `content_checksum`).

The manifest is that table as text, kept in the footer of the file itself, so that the rows and
their checksums are one file and commit together. It carries a checksum of its own.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import msgspec

from stream_coord.bars import FIELDS
from stream_coord.stores.base import content_checksum

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

MANIFEST_KEY = "stream-coord.manifest"
VALUE_COLUMNS = ("start", *FIELDS)
_FORMAT = 1


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    interval: str
    date: date
    symbol: list[str]
    rows: list[int]
    first: list[int]
    last: list[int]
    checksum: list[str]


def group_table(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the group table of a bar frame of one date."""
    import polars as pl

    start = pl.col("start")
    sizes = bars.group_by("symbol", maintain_order=True).agg(
        rows=pl.len().cast(pl.Int64), first=start.first(), last=start.last()
    )
    groups = with_offsets(sizes)
    columns = value_columns(bars)
    spans = groups.select("offset", "rows").iter_rows()
    checksums = [content_checksum(cut(columns, offset, rows)) for offset, rows in spans]
    return groups.with_columns(pl.Series("checksum", checksums, pl.String))


def with_offsets(groups: pl.DataFrame) -> pl.DataFrame:
    """Add the column ``offset`` for groups that lie one after the other from row 0 on."""
    import polars as pl

    rows = pl.col("rows")
    return groups.with_columns((rows.cum_sum() - rows).alias("offset"))


def value_columns(bars: pl.DataFrame) -> list[NDArray[np.generic]]:
    """Return start, open, high, low, close and volume as contiguous arrays."""
    import numpy as np

    return [np.ascontiguousarray(bars[name].to_numpy()) for name in VALUE_COLUMNS]


def cut(columns: list[NDArray[np.generic]], offset: int, rows: int) -> list[NDArray[np.generic]]:
    """Return views of `rows` rows of the columns from row `offset` on."""
    return [column[offset : offset + rows] for column in columns]


def manifest_text(interval: str, day: date, groups: pl.DataFrame) -> str:
    """Return the manifest of a group table: a JSON document behind its own XXH3-64."""
    from xxhash import xxh3_64_hexdigest

    columns = groups.select("symbol", "rows", "first", "last", "checksum").to_dict(as_series=False)
    document = msgspec.json.encode(_Manifest(_FORMAT, interval, day, **columns))
    return f"{xxh3_64_hexdigest(document)} {document.decode()}"


def parse_manifest(text: str, interval: str, day: date) -> pl.DataFrame:
    """Return the group table of a manifest.

    Raises:
        ValueError: `text` is damaged, of another format, or speaks of another interval or date.
    """
    import polars as pl
    from xxhash import xxh3_64_hexdigest

    guard, _, document = text.partition(" ")
    if guard != xxh3_64_hexdigest(document.encode()):
        raise ValueError("its manifest is damaged")
    manifest = msgspec.json.decode(document, type=_Manifest)
    if (manifest.format, manifest.interval, manifest.date) != (_FORMAT, interval, day):
        raise ValueError(
            f"its manifest (format {manifest.format}) is of {manifest.interval} bars of "
            f"{manifest.date}, not of {interval} bars of {day}"
        )
    schema = _schema()
    return with_offsets(pl.DataFrame({n: getattr(manifest, n) for n in schema}, schema=schema))


def empty_groups() -> pl.DataFrame:
    """Return a group table with no rows."""
    import polars as pl

    return with_offsets(pl.DataFrame(schema=_schema()))


def _schema() -> dict[str, pl.DataType]:
    import polars as pl

    numbers = dict.fromkeys(("rows", "first", "last"), pl.Int64())
    return {"symbol": pl.String(), **numbers, "checksum": pl.String()}
