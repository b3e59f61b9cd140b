"""What a bar file says of its groups: a group is the bars of one symbol in one file.

A *group table* is a polars frame with one row per group, sorted by symbol: ``symbol`` (String),
``offset`` (Int64, the group's first row in the file), ``rows``, ``first``, ``last`` (Int64; starts
of the first and last bar in UTC microseconds) and ``checksum`` (String, `content_checksum`).

The manifest is that table as text, kept in the footer of the file itself, so that the rows and
their checksums are one file and commit together. It carries a checksum of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from stream_coord.stores.groups import with_checksums, with_offsets

if TYPE_CHECKING:
    import polars as pl

MANIFEST_KEY = "stream-coord.manifest"
_FORMAT = 1


class Manifest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A file's group table as lists, one item per group."""

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

    # Bars are sorted by symbol: to find the runs is much faster than to group.
    runs, start = bars["symbol"].rle().struct.unnest(), bars["start"]
    ends = runs["len"].cum_sum()
    sizes = pl.DataFrame(
        {
            "symbol": runs["value"],
            "rows": runs["len"].cast(pl.Int64),
            "first": start.gather(ends - runs["len"]),
            "last": start.gather(ends - 1),
        }
    )
    return with_checksums(with_offsets(sizes), bars)


def manifest_text(interval: str, day: date, groups: pl.DataFrame) -> str:
    """Return the manifest of a group table: a JSON document behind its own XXH3-64."""
    from xxhash import xxh3_64_hexdigest

    columns = groups.select("symbol", "rows", "first", "last", "checksum").to_dict(as_series=False)
    document = msgspec.json.encode(Manifest(_FORMAT, interval, day, **columns))
    return f"{xxh3_64_hexdigest(document)} {document.decode()}"


def parse_manifest(text: str, interval: str, day: date) -> Manifest:
    """Return a manifest from its text.

    Raises:
        ValueError: `text` is damaged, of another format, or speaks of another interval or date.
    """
    from xxhash import xxh3_64_hexdigest

    guard, _, document = text.partition(" ")
    if guard != xxh3_64_hexdigest(document.encode()):
        raise ValueError("its manifest is damaged")
    manifest = msgspec.json.decode(document, type=Manifest)
    if (manifest.format, manifest.interval, manifest.date) != (_FORMAT, interval, day):
        raise ValueError(
            f"its manifest (format {manifest.format}) is of {manifest.interval} bars of "
            f"{manifest.date}, not of {interval} bars of {day}"
        )
    return manifest


def group_tables(manifests: Mapping[str, Manifest]) -> pl.DataFrame:
    """Return the group tables of many files as one, with the columns ``date`` and ``path`` added.

    Args:
        manifests: Each file's manifest by the file's path.
    """
    import polars as pl

    numbers = dict.fromkeys(("rows", "first", "last"), pl.Int64())
    schema = {"symbol": pl.String(), **numbers, "checksum": pl.String()}
    # One frame of all lists: a frame a file costs more than reading the file's footer.
    groups = pl.DataFrame(
        {
            name: [*chain.from_iterable(getattr(m, name) for m in manifests.values())]
            for name in schema
        },
        schema=schema,
    )
    files = pl.DataFrame(
        {
            "date": [manifest.date for manifest in manifests.values()],
            "path": list(manifests),
            "groups": [len(manifest.symbol) for manifest in manifests.values()],
        },
        schema={"date": pl.Date(), "path": pl.String(), "groups": pl.Int64()},
    )
    placed = files.select(pl.col("date", "path").repeat_by("groups")).explode("date", "path")
    rows = pl.col("rows")
    offset = (rows.cum_sum() - rows).over("path").alias("offset")
    return pl.concat([groups, placed], how="horizontal").with_columns(offset)
