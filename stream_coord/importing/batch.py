"""A batch of files: their rows wait until they are stored together, in one commit or in several."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count, product
from typing import TYPE_CHECKING

from stream_coord.compute.validate import collapse, validate
from stream_coord.errors import StreamCoordError
from stream_coord.importing.results import ImportTarget
from stream_coord.interval import DAY
from stream_coord.sources.base import RawBars
from stream_coord.spool import BUCKETS, Spool
from stream_coord.stores.base import WriteOutcome
from stream_coord.stores.ledger import FileRecord
from stream_coord.stores.merge import FATES, KEY, start_date

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

MEMORY_ROWS = 300_000
"""A batch of more rows waits on disk, and is stored in commits of about so many."""
MEMORY_REJECTS = 250_000
_REJECT = ("row", "symbol", "start", "reason", "raw")


@dataclass(frozen=True)
class Piece:
    """Some rows of a part, judged one by one.

    Attributes:
        good: The columns of a bar frame, in file order.
        rejects: ``row, symbol, start, reason, raw``.
    """

    good: pl.DataFrame
    rejects: pl.DataFrame

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return len(self.good) + len(self.rejects)


def judge_rows(raw: RawBars, target: ImportTarget) -> Piece:
    """Tell the bars of a piece from its rejects."""
    import polars as pl

    judged = validate(raw.frame, target.interval, target.allow_nonpositive)
    texts = raw.raw(judged.rejects["row"].to_list())
    rejects = judged.rejects.with_columns(pl.Series("raw", texts, pl.String))
    return Piece(judged.good, rejects.select(_REJECT))


class Batch:
    """Files that are stored together.

    If they have no more than `MEMORY_ROWS` rows, they are one commit. If they have more, every
    commit takes all bars of some dates, so that each date is written once, whatever the order of
    the rows; the first one takes all files, and the others those that have rows in it.

    Attributes:
        paths: The files' names.
        rows: How many rows they have in all.
    """

    def __init__(self) -> None:
        import polars as pl

        day, row = pl.col("start") // DAY, pl.col("row")
        finer = (day // BUCKETS, pl.struct(KEY).hash() % BUCKETS)
        self.paths: list[str] = []
        self.rows = 0
        self._failed: list[int] = []
        self._good = Spool(MEMORY_ROWS, (day, *finer))
        self._rejects = Spool(MEMORY_REJECTS, (row // MEMORY_REJECTS, row))

    def add(self, piece: Piece) -> None:
        """Take a piece of the last file of `paths`."""
        import polars as pl

        file = pl.lit(len(self.paths) - 1, pl.UInt32).alias("file")
        self._good.add(piece.good.with_columns(file))
        self._rejects.add(piece.rejects.with_columns(file))
        self.rows += piece.rows

    def drop_last(self, rows: int) -> None:
        """Forget the last file, of which so many rows have been added."""
        self._failed.append(len(self.paths) - 1)
        self.rows -= rows

    def commits(self, target: ImportTarget) -> Generator[Commit]:
        """Yield what to store in one commit each; all rows of a key are in the same one."""
        import polars as pl

        kept = ~pl.col("file").is_in(self._failed)
        every = [n for n in range(len(self.paths)) if n not in self._failed]
        if not every:
            return
        goods, rejects = self._good.drain(), self._rejects.drain()
        good, bad = next(goods), next(rejects)
        for number in count():
            good, bad = good.filter(kept), bad.filter(kept)
            names = [path if number == 0 else f"{path}//{number + 1}" for path in self.paths]
            present = {*good["file"].unique(), *bad["file"].unique()}
            files = every if number == 0 else sorted(present)
            commit = _judge_bars(pl.Series(names), files, good, bad, target)
            good, bad = good.clear(), bad.clear()  # the commit has its own, and memory is short
            yield commit
            del commit
            more_good, more_bad = next(goods, None), next(rejects, None)
            if more_good is None and more_bad is None:
                return
            good = good if more_good is None else more_good
            bad = bad if more_bad is None else more_bad
            del more_good, more_bad


@dataclass(frozen=True)
class Commit:
    """What is stored at once.

    Attributes:
        paths: What the ledger is to call the files; ``file`` in the frames is a position in it.
        files: The positions of those that it is told of.
        bars: A bar frame, and ``file``.
        owners: Which ``file`` has the bars of a ``symbol`` and UTC ``date``, where it is only one:
            the store's counts are enough for these.
        shared: All other bars' ``symbol``, ``start`` and ``file``.
        superseded: As in `Collapsed`, and ``file``.
        rejects: As the ledger wants them.
        tallies: Of each count in a `FileRecord` that is known before the store has seen the bars,
            one number per file (int64).
    """

    paths: pl.Series
    files: list[int]
    bars: pl.DataFrame
    owners: pl.DataFrame
    shared: pl.DataFrame
    superseded: pl.DataFrame
    rejects: pl.DataFrame
    tallies: dict[str, NDArray[np.int64]]

    def records(self, outcome: WriteOutcome, format_name: str) -> list[FileRecord]:
        """Return what became of every file's rows."""
        counts = outcome.counts.join(self.owners, on=("symbol", "date"))
        fates = self.shared.join(outcome.fates, on=KEY)
        tallies = dict(self.tallies)
        for frame, fate in product((counts, fates), FATES):
            tallies[fate] = tallies.get(fate, 0) + _per_file(frame, len(self.paths), fate)
        missing = tallies["rows"] - sum(tallies[fate] for fate in (*FATES, "rejected"))
        if missing.any():
            raise StreamCoordError(
                f"internal error: {missing[missing != 0][0]} rows of "
                f"{self.paths.filter(missing != 0)[0]} are not accounted for",
                "Nothing of it was imported. Please report this.",
            )
        return [
            FileRecord(path, format_name, **{name: int(t[n]) for name, t in tallies.items()})
            for n, path in zip(self.files, self.paths.gather(self.files), strict=True)
        ]

    def revisions(self, outcome: WriteOutcome) -> pl.DataFrame:
        """Return the superseded and the revised rows, as the ledger wants them."""
        import polars as pl

        revised = outcome.revisions.join(self.bars.select(*KEY, "file"), on=KEY)
        both = pl.concat(
            [
                self.superseded.with_columns(kind=pl.lit("superseded")),
                revised.with_columns(kind=pl.lit("revised")),
            ],
            how="diagonal",
        )
        return both.with_columns(path=self.paths.gather(both["file"])).drop("file")


def _judge_bars(
    paths: pl.Series,
    files: list[int],
    good: pl.DataFrame,
    rejects: pl.DataFrame,
    target: ImportTarget,
) -> Commit:
    import polars as pl

    collapsed = collapse(good, target.interval)
    bars = collapsed.bars
    regular = target.calendar.in_regular(bars["start"].to_numpy())
    frames = {
        "duplicates": good,
        "superseded": collapsed.superseded,
        "rejected": rejects,
        "out_of_session": bars.filter(~pl.Series(regular)),
    }
    tallies = {name: _per_file(frame, len(paths)) for name, frame in frames.items()}
    tallies["rows"] = tallies["duplicates"] + tallies["rejected"]
    tallies["duplicates"] = tallies["duplicates"] - _per_file(bars, len(paths))
    dated = bars.select(*KEY, "file", start_date().alias("date"))
    days = dated.select("symbol", "date", "file").unique()
    owners = days.unique(("symbol", "date"), keep="none")
    return Commit(
        paths=paths,
        files=files,
        bars=bars,
        owners=owners,
        shared=dated.join(owners, on=("symbol", "date"), how="anti").select(*KEY, "file"),
        superseded=collapsed.superseded,
        rejects=rejects.with_columns(path=paths.gather(rejects["file"])).drop("file"),
        tallies=tallies,
    )


def _per_file(frame: pl.DataFrame, files: int, column: str | None = None) -> NDArray[np.int64]:
    """Return how many rows each file has, or what their `column` adds up to."""
    import numpy as np

    weights = None if column is None else frame[column].to_numpy()
    sums = np.bincount(frame["file"].to_numpy(), weights, files)
    return sums.astype(np.int64)
