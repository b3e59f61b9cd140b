"""Merging new bars into stored ones, and counting what became of every row: frames in and out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, FIELDS, frame_schema
from stream_coord.clock import to_micros
from stream_coord.errors import StoreError
from stream_coord.stores.base import WriteOutcome

if TYPE_CHECKING:
    import polars as pl

KEY = ("symbol", "start")
FATES = ("stored", "duplicates", "revised")
_FIRST = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST = to_micros(datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Merge:
    """New bars merged into stored ones.

    Attributes:
        bars: The bar frame of both; where they share a key, the new values.
        outcome: What became of every new row.
    """

    bars: pl.DataFrame
    outcome: WriteOutcome

    @property
    def changed_symbols(self) -> list[str]:
        """The symbols that gained or changed a bar."""
        changed = self.outcome.counts.filter(_changes() > 0)
        return changed["symbol"].unique(maintain_order=True).to_list()


def merge_bars(stored: pl.DataFrame, new: pl.DataFrame) -> Merge:
    """Merge the bar frame `new` into the bar frame `stored`.

    Both come from `normal_frame`. A row of `new` is *stored* when its key is not in `stored`, a
    *duplicate* when all five values are equal, and *revised* otherwise.
    """
    import polars as pl

    if stored.is_empty():  # the rule in a large import
        return _all_stored(new)
    old = {name: f"old_{name}" for name in FIELDS}
    joined = new.join(stored.rename(old), on=KEY, how="left", maintain_order="left")
    known = pl.col("old_open").is_not_null()
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(old[name])) for name in FIELDS)
    fates = joined.select(*KEY, stored=~known, duplicates=known & same, revised=known & ~same)
    counts = _fate_counts(fates)
    revisions = joined.filter(fates["revised"]).select(*KEY, *old.values(), *FIELDS)
    return Merge(_union(stored, new), WriteOutcome(counts, revisions, fates))


def _all_stored(new: pl.DataFrame) -> Merge:
    import polars as pl

    known = {name: pl.lit(name == "stored") for name in FATES}
    fates = new.select(*KEY, **known)
    # Bars are sorted: to find where symbol or date changes is much faster than to group.
    dated = new.select("symbol", start_date().alias("date"))
    changes = (pl.col(name).ne_missing(pl.col(name).shift()) for name in dated.columns)
    begins = dated.select(pl.any_horizontal(changes)).to_series().arg_true().cast(pl.Int64)
    rows = begins.extend_constant(len(new), 1).diff().drop_nulls()
    counts = dated[begins].with_columns(
        stored=rows, duplicates=pl.lit(0, pl.Int64), revised=pl.lit(0, pl.Int64)
    )
    return Merge(new, WriteOutcome(counts, empty_outcome().revisions, fates))


def _fate_counts(fates: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return (
        fates.group_by("symbol", start_date().alias("date"), maintain_order=True)
        .agg(pl.col(FATES).sum().cast(pl.Int64))
        .sort("symbol", "date")
    )


def join_outcomes(outcomes: list[WriteOutcome]) -> WriteOutcome:
    """Return the outcome of a write from those of its parts, which share no (symbol, date)."""
    import polars as pl

    empty = empty_outcome()
    counts = pl.concat([empty.counts, *(outcome.counts for outcome in outcomes)])
    revisions = pl.concat([empty.revisions, *(outcome.revisions for outcome in outcomes)])
    fates = pl.concat([empty.fates, *(outcome.fates for outcome in outcomes)])
    return WriteOutcome(counts.sort("symbol", "date"), revisions.sort(KEY), fates)


def empty_outcome() -> WriteOutcome:
    """Return the outcome of a write without rows."""
    import polars as pl

    key = {"symbol": pl.String(), "start": pl.Int64()}
    numbers = dict.fromkeys(FATES, pl.Int64())
    counts = pl.DataFrame(schema={"symbol": pl.String(), "date": pl.Date(), **numbers})
    values = dict.fromkeys((*(f"old_{name}" for name in FIELDS), *FIELDS), pl.Float64())
    revisions = pl.DataFrame(schema={**key, **values})
    return WriteOutcome(
        counts, revisions, pl.DataFrame(schema={**key, **dict.fromkeys(FATES, pl.Boolean())})
    )


def normal_frame(bars: pl.DataFrame) -> pl.DataFrame:
    """Check that `bars` is a bar frame and return it with every -0.0 as 0.0.

    The two zeros are equal, so they must not differ in the checksum either.

    Raises:
        StoreError: wrong columns, a null, a start that is no date, or keys that do not ascend
            strictly.
    """
    import polars as pl

    if dict(bars.schema) != frame_schema():
        raise StoreError(f"not a bar frame: its columns are {dict(bars.schema)}")
    if any(bars.null_count().row(0)):
        raise StoreError("not a bar frame: it holds nulls")
    symbol, start = pl.col("symbol"), pl.col("start")
    if not bars.select(start.is_between(_FIRST, _LAST).all()).item():
        raise StoreError("not a bar frame: a start lies outside of the years 1 to 9999")
    ascends = (symbol > symbol.shift()) | ((symbol == symbol.shift()) & (start > start.shift()))
    if not bars.select(ascends.all()).item():
        raise StoreError("not a bar frame: its keys (symbol, start) do not ascend strictly")
    # polars drops an added 0.0 as a no-op, so the zero is spelled out
    return bars.with_columns(
        pl.when(pl.col(name) == 0).then(0.0).otherwise(pl.col(name)).alias(name) for name in FIELDS
    )


def split_days(bars: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """Return a bar frame's UTC dates, ascending, with the bar frame of each."""
    dated = bars.with_columns(start_date().alias("date"))
    days = dated.partition_by("date", maintain_order=True, include_key=False, as_dict=True)
    return {day: days[(day,)] for (day,) in sorted(days)}


def start_date() -> pl.Expr:
    """Return the expression for the UTC date of a bar's start."""
    import polars as pl

    return pl.col("start").cast(pl.Datetime("us")).dt.date()


def _union(stored: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    if stored.is_empty():
        return new
    return pl.concat([stored.join(new, on=KEY, how="anti"), new]).select(COLUMNS).sort(KEY)


def _changes() -> pl.Expr:
    import polars as pl

    return pl.col("stored") + pl.col("revised")
