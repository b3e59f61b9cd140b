"""Groups, the bars of one symbol and UTC date: where they lie in a frame, and their checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_coord.bars import FIELDS
from stream_coord.stores.base import content_checksum

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

VALUE_COLUMNS = ("start", *FIELDS)


def with_offsets(groups: pl.DataFrame) -> pl.DataFrame:
    """Add the column ``offset`` for groups that lie one after the other from row 0 on."""
    import polars as pl

    rows = pl.col("rows")
    return groups.with_columns((rows.cum_sum() - rows).alias("offset"))


def with_checksums(groups: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Add the column ``checksum`` (`content_checksum`) for groups that fill `bars` from row 0 on.

    Args:
        groups: Has the columns ``offset`` and ``rows``.
        bars: Their bars, with the columns `VALUE_COLUMNS`.
    """
    import polars as pl

    columns = value_columns(bars)
    spans = groups.select("offset", "rows").iter_rows()
    checksums = [content_checksum(cut(columns, offset, rows)) for offset, rows in spans]
    return groups.with_columns(pl.Series("checksum", checksums, pl.String))


def value_columns(bars: pl.DataFrame) -> list[NDArray[np.generic]]:
    """Return start, open, high, low, close and volume as contiguous arrays."""
    import numpy as np

    return [np.ascontiguousarray(bars[name].to_numpy()) for name in VALUE_COLUMNS]


def cut(columns: list[NDArray[np.generic]], offset: int, rows: int) -> list[NDArray[np.generic]]:
    """Return views of `rows` rows of the columns from row `offset` on."""
    return [column[offset : offset + rows] for column in columns]
