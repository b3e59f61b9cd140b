"""The bar store that is a few tables of an SQL database: a SQLite file, or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from itertools import product
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, empty_frame
from stream_coord.clock import day_number, day_of_number
from stream_coord.errors import StoreCorruptError
from stream_coord.interval import DAY, Interval
from stream_coord.stores.base import RETAIN_HOURS, Compaction, VersionedBars, WriteOutcome
from stream_coord.stores.groups import with_checksums, with_offsets
from stream_coord.stores.merge import KEY, merge_bars, normal_frame, start_date
from stream_coord.stores.sql.catalogue import RESTORE_HINT, Catalogue
from stream_coord.stores.sql.change import Change
from stream_coord.stores.sql.database import BarDatabase, BarTransaction
from stream_coord.stores.sql.schema import prepare
from stream_coord.stores.sql.tables import (
    READ_BAR_DAYS,
    READ_BARS,
    READ_DATES,
    READ_SERIES,
)

if TYPE_CHECKING:
    import polars as pl


class SqlStore:
    """A `BarStore` in an SQL database; safe to share by threads and processes.

    Writers take turns, readers wait for nobody; each read and each write is one transaction, so
    that it sees and leaves one state.

    Args:
        database: Where the tables are.
        create: Make them if there are none.

    Raises:
        StoreError: there is no store and `create` is false, it is of a newer version, or the
            tables are another program's.
    """

    def __init__(self, database: BarDatabase, *, create: bool = False) -> None:
        self._database = database
        self._checked: Catalogue | None = None
        prepare(database, create=create)

    @property
    def url(self) -> str:
        """The database's address, without secrets."""
        return self._database.url

    def read(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> pl.DataFrame:
        """Return the verified bars of ``[start, end)``; see `BarStore.read`.

        Whole UTC dates of the asked symbols are read and compared with their checksums, then cut.
        """
        return self.read_versioned(interval, symbols, start, end).bars

    def read_versioned(
        self, interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> VersionedBars:
        """Return the bars of `read` and their data versions, of one state."""
        import polars as pl

        with self._database.reading() as transaction:
            catalogue = self._catalogue(transaction)
            asked = catalogue.of(str(interval), symbols)
            days = catalogue.days(str(interval), start, end)
            groups, bars = self._read(transaction, asked, days)
        inside = pl.col("start").is_between(start, end, closed="left")
        return VersionedBars(bars.filter(inside), _versions(groups))

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None] | None = None,
    ) -> WriteOutcome:
        """Store a bar frame in one transaction; see `BarStore.write`.

        Raises:
            StoreCorruptError: stored bars that the write touches are damaged.
            StoreError: `bars` is no bar frame, or the database cannot be written.
        """
        import polars as pl

        bars = normal_frame(bars)
        days = (bars["start"] // DAY).unique().sort().to_list()
        with self._database.writing() as transaction:
            catalogue = self._catalogue(transaction)
            series = catalogue.of(str(interval), bars["symbol"].unique().to_list())
            groups, stored = self._read(transaction, series, days)
            merge = merge_bars(stored, bars)
            outcome = merge.outcome
            changed = outcome.counts.filter(pl.col("stored") + pl.col("revised") > 0)
            if len(changed):
                keys = outcome.fates.filter(~pl.col("duplicates")).select(KEY)
                fresh = bars.join(keys, on=KEY, how="semi", maintain_order="left")
                of_groups = _dated(merge.bars).join(
                    changed, on=("symbol", "date"), how="semi", maintain_order="left"
                )
                change = Change(str(interval), catalogue, groups, fresh, _groups(of_groups))
                change.put(transaction)
            if before_commit is not None:
                before_commit(outcome)
        return outcome

    def versions(
        self, interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return the data versions of the UTC dates first..last; see `BarStore.versions`."""
        with self._database.reading() as transaction:
            catalogue = self._catalogue(transaction)
            asked = catalogue.of(str(interval), symbols)
            start, end = day_number(first) * DAY, (day_number(last) + 1) * DAY
            days = catalogue.days(str(interval), start, end)
            groups = _read_groups(transaction, asked, days)
        if symbols is None:
            catalogue.check_groups(str(interval), days, groups, self.url)
        return _versions(groups)

    def days(self, interval: Interval) -> list[date]:
        """Return the UTC dates that hold bars, ascending."""
        with self._database.reading() as transaction:
            numbers = self._catalogue(transaction).days(str(interval), -(2**62), 2**62)
        return list(map(day_of_number, numbers))

    def spans(self, interval: Interval) -> pl.DataFrame:
        """Return each symbol's stored extent; see `BarStore.spans`."""
        with self._database.reading() as transaction:
            found = self._catalogue(transaction).of(str(interval), None)
        return found.select("symbol", "first", "last", "rows")

    def intervals(self) -> list[Interval]:
        """Return the intervals of which there are bars, ascending."""
        with self._database.reading() as transaction:
            found = self._catalogue(transaction).series["interval"].unique()
        return sorted(map(Interval.parse, found))

    def compact(
        self,
        *,
        retain_hours: int = RETAIN_HOURS,  # noqa: ARG002 -- readers hold no files here
        dry_run: bool = False,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> Compaction:
        """Give back the room that revised bars left; see `BarStore.compact`."""
        before = self._database.bytes
        if dry_run:
            return Compaction(None, None, before, None)
        if on_progress is not None:
            on_progress(0, 1, "vacuum")
        self._database.compact()
        return Compaction(None, None, before, self._database.bytes)

    def close(self) -> None:
        """Let go of connections; see `BarStore.close`."""
        self._database.close()

    def _catalogue(self, transaction: BarTransaction) -> Catalogue:
        """Read the catalogue, and check it unless it is the one that was checked last."""
        new = Catalogue(transaction.read(READ_SERIES), transaction.read(READ_DATES))
        old = self._checked
        if old is None or not (new.series.equals(old.series) and new.dates.equals(old.dates)):
            new.check(self.url)
            self._checked = new
        return new

    def _read(
        self, transaction: BarTransaction, series: pl.DataFrame, days: list[int]
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the groups of some series and days, and their bars, verified."""
        import polars as pl

        known = _read_groups(transaction, series, days)
        rows = self._read_bars(transaction, series, days)
        if rows.is_empty() and known.is_empty():
            return known, empty_frame()
        ranks = series.select(pl.col("id").alias("series"), "symbol")
        order = pl.col("symbol").cast(pl.Enum(series["symbol"]))
        named = rows.join(ranks, on="series", maintain_order="left")
        bars = named.select(order, *COLUMNS[1:]).sort(KEY)
        bars = bars.with_columns(pl.col("symbol").cast(pl.String))
        self._verify(known, _groups(_dated(bars)))
        return known, bars

    def _read_bars(
        self, transaction: BarTransaction, series: pl.DataFrame, days: list[int]
    ) -> pl.DataFrame:
        """Return the bars of some series and days; if that fails, say which cannot be read."""
        try:
            return transaction.read(READ_BARS, series["id"].to_list(), days)
        except StoreCorruptError as damage:
            for day, (id_, symbol) in product(days, series.select("id", "symbol").rows()):
                try:
                    transaction.read(READ_BARS, [id_], [day])
                except StoreCorruptError as error:
                    whose = f"{symbol} on {day_of_number(day)}"
                    raise StoreCorruptError(
                        f"stored bars of {whose} cannot be read: {error.message}", error.hint
                    ) from damage
            raise

    def _verify(self, known: pl.DataFrame, found: pl.DataFrame) -> None:
        """Compare the groups that should be there with those that are."""
        import polars as pl

        key = ("date", "symbol")
        both = known.join(found, on=key, how="full", coalesce=True, suffix="_found")
        same = pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(f"{name}_found")) for name in ("rows", "checksum")
        )
        wrong = both.filter(~same).sort(key)
        if len(wrong):
            day, symbol = wrong.select(key).row(0)
            raise StoreCorruptError(
                f"stored bars of {symbol} on {day} are not what was written "
                f"(in {len(wrong)} symbol-days of {self.url})",
                RESTORE_HINT,
            )


def _read_groups(
    transaction: BarTransaction, series: pl.DataFrame, days: list[int]
) -> pl.DataFrame:
    """Return the stored groups of some series and days: date, symbol, rows, checksum."""
    import polars as pl

    ids = series["id"].to_list()
    found = transaction.read(READ_BAR_DAYS, ids, days)
    ranks = series.select(pl.col("id").alias("series"), "symbol")
    return found.join(ranks, on="series").select(
        pl.col("day").cast(pl.Int32).cast(pl.Date).alias("date"), "symbol", "rows", "checksum"
    )


def _dated(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(start_date().alias("date"))


def _groups(dated: pl.DataFrame) -> pl.DataFrame:
    """Return the groups of a bar frame that has the column ``date``: date, symbol, rows, checksum.

    The frame is sorted by symbol and start.
    """
    import polars as pl

    sizes = dated.group_by("symbol", "date", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("rows")
    )
    groups = with_checksums(with_offsets(sizes), dated)
    return groups.select("date", "symbol", "rows", "checksum")


def _versions(groups: pl.DataFrame) -> pl.DataFrame:
    return groups.sort("date", "symbol")
