"""What a write changes in the tables of an SQL store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.interval import DAY
from stream_coord.stores.sql.catalogue import Catalogue, seal_dates, seal_series
from stream_coord.stores.sql.database import BarTransaction
from stream_coord.stores.sql.tables import BAR_DAYS, BARS, DATES, SERIES

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Change:
    """New and revised bars, and what follows from them.

    Attributes:
        interval: The bars' interval.
        catalogue: The catalogue as it is.
        known: The stored groups among those that change: ``date``, ``symbol``, ...
        bars: The bars that are new or revised.
        groups: The groups that they are of, as they will be: ``date``, ``symbol``, ``rows``,
            ``checksum``.
    """

    interval: str
    catalogue: Catalogue
    known: pl.DataFrame
    bars: pl.DataFrame
    groups: pl.DataFrame

    def put(self, transaction: BarTransaction) -> None:
        """Write it."""
        import polars as pl

        series = self._series()
        ids = series.select("symbol", pl.col("id").alias("series"))
        by_day = self.bars.with_columns(day=pl.col("start") // DAY)
        transaction.put(BARS, by_day.join(ids, on="symbol").sort(BARS.key))
        groups = self._days(self.groups).join(ids, on="symbol")
        transaction.put(BAR_DAYS, groups.sort(BAR_DAYS.key))
        transaction.put(SERIES, series)
        transaction.put(DATES, self._dates())

    def _born(self) -> pl.DataFrame:
        """Return the groups that the store does not hold yet."""
        return self.groups.join(self.known, on=("date", "symbol"), how="anti")

    def _series(self) -> pl.DataFrame:
        """Return the rows of ``series`` that change, as they will be."""
        import polars as pl

        stored = self.known.join(self.groups, on=("date", "symbol"), how="semi")
        before = stored.group_by("symbol").agg(pl.col("rows").sum().alias("before"))
        after = self.groups.group_by("symbol").agg(pl.col("rows").sum().alias("after"))
        start = pl.col("start")
        gains = (
            self.bars.group_by("symbol")
            .agg(start.min().alias("from"), start.max().alias("to"))
            .join(after, on="symbol")
            .join(before, on="symbol", how="left")
            .join(self._born().group_by("symbol").len("born"), on="symbol", how="left")
            .join(self.catalogue.of(self.interval, None), on="symbol", how="left")
            .sort("symbol")
        )
        none, newest = pl.col("id").is_null(), self.catalogue.series["id"].max() or 0
        zero = pl.col("days", "rows", "born", "before").cast(pl.Int64).fill_null(0)
        rows = gains.with_columns(zero).with_columns(
            id=pl.when(none).then(none.cum_sum() + pl.lit(newest)).otherwise("id").cast(pl.Int64),
            interval=pl.lit(self.interval),
            days=pl.col("days") + pl.col("born"),
            rows=pl.col("rows") + pl.col("after") - pl.col("before"),
            first=pl.min_horizontal("first", "from"),
            last=pl.max_horizontal("last", "to"),
        )
        return seal_series(rows.select(*SERIES.columns))

    def _dates(self) -> pl.DataFrame:
        """Return the rows of ``dates`` that change, as they will be."""
        import polars as pl

        old = self.catalogue.dates.filter(pl.col("interval") == self.interval)
        born = self._days(self._born()).group_by("day").len("born")
        symbols = pl.col("symbols").fill_null(0) + pl.col("born").cast(pl.Int64)
        rows = born.join(old, on="day", how="left").with_columns(
            symbols.alias("symbols"), pl.lit(self.interval).alias("interval")
        )
        return seal_dates(rows.select(*DATES.columns).sort("day"))

    @staticmethod
    def _days(dated: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return dated.with_columns(pl.col("date").cast(pl.Int32).cast(pl.Int64).alias("day"))
