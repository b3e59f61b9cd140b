"""What an SQL store holds, as its small tables tell: read whole, and checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.errors import StoreCorruptError
from stream_coord.interval import DAY
from stream_coord.stores.sql.tables import DATES, SERIES

if TYPE_CHECKING:
    import polars as pl

RESTORE_HINT = "Restore the database from a backup, or import its bars into a new store."


@dataclass(frozen=True)
class Catalogue:
    """The series and the dates of a store.

    Attributes:
        series: The rows of the table ``series``, by id.
        dates: The rows of the table ``dates``, by day.
    """

    series: pl.DataFrame
    dates: pl.DataFrame

    def check(self, store: str) -> None:
        """Check the seals and the totals.

        Raises:
            StoreCorruptError: a row is missing or not what was written.
        """
        import polars as pl

        for name, frame, sealed in (
            ("series", self.series, seal_series),
            ("dates", self.dates, seal_dates),
        ):
            wrong = frame.filter(pl.Series(frame["seal"] != sealed(frame)["seal"]))
            if len(wrong):
                raise StoreCorruptError(
                    f"the store {store} is damaged: in its table {name} the row {wrong.row(0)} is "
                    "not what was written",
                    RESTORE_HINT,
                )
        days = self.series.group_by("interval").agg(pl.col("days").sum())
        symbols = self.dates.group_by("interval").agg(pl.col("symbols").sum())
        totals = days.join(symbols, on="interval", how="full", coalesce=True)
        for interval, of_series, of_dates in totals.rows():
            if of_series != of_dates:
                raise StoreCorruptError(
                    f"the store {store} is damaged: of {interval} its table series has "
                    f"{of_series or 0} days, its table dates {of_dates or 0}",
                    RESTORE_HINT,
                )

    def of(self, interval: str, symbols: Sequence[str] | None) -> pl.DataFrame:
        """Return the series of an interval and some symbols (None: all), sorted by symbol."""
        import polars as pl

        found = self.series.filter(pl.col("interval") == interval)
        if symbols is not None:
            found = found.filter(pl.col("symbol").is_in(list(symbols)))
        return found.sort("symbol")

    def days(self, interval: str, start: int, end: int) -> list[int]:
        """Return the days with bars of an interval that ``[start, end)`` touches, ascending."""
        import polars as pl

        day = pl.col("day")
        touched = day.is_between(start // DAY, (end - 1) // DAY) & (start < end)
        return self.dates.filter(pl.col("interval") == interval, touched)["day"].to_list()

    def check_groups(
        self, interval: str, days: list[int], groups: pl.DataFrame, store: str
    ) -> None:
        """Check that some days of an interval have as many groups as the table ``dates`` says.

        Args:
            interval: The interval.
            days: The days.
            groups: All their groups, with the column ``date``.
            store: The store's address.

        Raises:
            StoreCorruptError: one has not.
        """
        import polars as pl

        day = pl.col("day").cast(pl.Int32).cast(pl.Date).alias("date")
        dates = self.dates.filter(pl.col("interval") == interval, pl.col("day").is_in(days))
        found = groups.group_by("date").len("found")
        both = dates.select(day, "symbols").join(found, on="date", how="left")
        wrong = both.filter(pl.col("symbols") != pl.col("found").fill_null(0)).sort("date")
        if len(wrong):
            raise StoreCorruptError(
                f"the store {store} is damaged: of {wrong['date'][0]} it has other symbols than "
                "were written",
                RESTORE_HINT,
            )


def seal_series(series: pl.DataFrame) -> pl.DataFrame:
    """Return rows of the table ``series`` with their seals."""
    return _sealed(series, [name for name in SERIES.columns if name != "seal"])


def seal_dates(dates: pl.DataFrame) -> pl.DataFrame:
    """Return rows of the table ``dates`` with their seals."""
    return _sealed(dates, [name for name in DATES.columns if name != "seal"])


def _sealed(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return a frame with the column ``seal``: XXH3-64 of the other values, a space between."""
    import polars as pl
    from xxhash import xxh3_64_hexdigest

    texts = frame.select(pl.concat_str(names, separator=" ").alias("text"))["text"]
    seals = [xxh3_64_hexdigest(text.encode()) for text in texts]
    return frame.with_columns(pl.Series("seal", seals, pl.String))
