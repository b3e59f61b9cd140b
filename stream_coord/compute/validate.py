"""Which rows are bars, which are rejects and why; and rows of one key made one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.bars import FIELDS, SYMBOL_PATTERN
from stream_coord.interval import SECOND, Interval

if TYPE_CHECKING:
    import polars as pl

END_OF_TIME = 4_102_444_800 * SECOND
"""2100-01-01 UTC: a bar starts before it, and not before 1970."""

OUT_OF_RANGE = "out-of-range: the time is not within 1970 to 2099"


@dataclass(frozen=True)
class Judged:
    """The rows of a raw frame, in its order: every one is in one of the two frames.

    Attributes:
        good: The raw frame's rows without ``row`` and ``reason``; nothing is null.
        rejects: The raw frame's rows without prices and volume; each has a ``reason``, ``symbol``
            and ``start`` may be null.
    """

    good: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class Collapsed:
    """Rows of which no two have the same key, and those of other values that gave way.

    Attributes:
        bars: Of the rows of each key the last; sorted by (symbol, start).
        superseded: Rows before the last with other values: ``symbol``, ``start``, their values as
            ``old_open`` ... ``old_volume``, and those of the last as ``open`` ... ``volume``.
    """

    bars: pl.DataFrame
    superseded: pl.DataFrame


def validate(
    raw: pl.DataFrame, interval: Interval, allow_nonpositive: Collection[str] = ()
) -> Judged:
    """Judge every row, and turn -0.0 into 0.0 in the good ones.

    The reason of a reject is the first that applies, of: what the reader found; ``unparsable`` (a
    null; names the field); ``out-of-range`` (not within 1970 to 2099); ``misaligned`` (the start
    is no multiple of the interval); ``bad-symbol``; ``not-finite`` (NaN or infinite; names the
    field); ``high-too-low`` (high < max(open, close, low)); ``low-too-high`` (low > min(open,
    close, high)); ``nonpositive-price``; ``negative-volume``. The word before the colon is stable.

    Args:
        raw: ``symbol`` (String), ``start`` (Int64, UTC microseconds), ``open, high, low, close,
            volume`` (Float64), ``row`` (Int64), ``reason`` (String). A null is a value that could
            not be read, except that ``reason`` is null where the reader has nothing to say. Other
            columns are carried along.
        interval: The bars' interval.
        allow_nonpositive: The symbols whose prices may be zero or negative.
    """
    import polars as pl

    rules = _rules(raw["symbol"], interval, allow_nonpositive)
    bad = raw.select(pl.any_horizontal(broken for broken, _ in rules)).to_series()
    reason = pl.coalesce(pl.when(broken).then(text) for broken, text in rules)
    rejects = raw.filter(bad).with_columns(reason=reason).drop(FIELDS)
    good = (raw.filter(~bad) if bad.any() else raw).drop("row", "reason")
    # Spelt out, because polars takes an added 0.0 for no change.
    zeros = (pl.when(pl.col(name) == 0).then(0.0).otherwise(name).alias(name) for name in FIELDS)
    return Judged(good.with_columns(zeros), rejects)


def _rules(
    symbols: pl.Series, interval: Interval, allow_nonpositive: Collection[str]
) -> list[tuple[pl.Expr, pl.Expr]]:
    """Return in order what breaks each rule, and the reason that it gives."""
    import polars as pl

    col, lit = pl.col, pl.lit
    named = {"symbol": "symbol", "time": "start", **{field: field for field in FIELDS}}
    low_most = pl.min_horizontal("open", "close", "high")
    high_least = pl.max_horizontal("open", "close", "low")
    nonpositive = (col("low") <= 0) & ~col("symbol").is_in(list(allow_nonpositive))
    return [
        (col("reason").is_not_null(), col("reason")),
        *((col(at).is_null(), lit(f"unparsable: {name}")) for name, at in named.items()),
        (~col("start").is_between(0, END_OF_TIME, closed="left"), lit(OUT_OF_RANGE)),
        (
            col("start") % interval.micros != 0,
            lit(f"misaligned: the start is no multiple of {interval}"),
        ),
        (col("symbol").is_in(_bad_symbols(symbols).implode()), lit("bad-symbol: not a symbol")),
        *((~col(field).is_finite(), lit(f"not-finite: {field}")) for field in FIELDS),
        (col("high") < high_least, lit("high-too-low: high < max(open, close, low)")),
        (col("low") > low_most, lit("low-too-high: low > min(open, close, high)")),
        # Here the low is the lowest of the four.
        (nonpositive, lit("nonpositive-price: low <= 0")),
        (col("volume") < 0, lit("negative-volume: volume < 0")),
    ]


def _bad_symbols(symbols: pl.Series) -> pl.Series:
    """Return those of the texts that are no symbols, as `Symbol.parse` tells them."""
    distinct = symbols.unique().drop_nulls()
    good = distinct.str.contains(SYMBOL_PATTERN) & ~distinct.str.contains("..", literal=True)
    return distinct.filter(~good)


def collapse(good: pl.DataFrame, interval: Interval) -> Collapsed:
    """Sort rows by key, and keep of the rows of one key the last.

    Args:
        good: Rows as `validate` lets them through, in file order. Other columns than those of a
            bar frame are carried along.
        interval: The bars' interval.
    """
    keyed = good.with_columns(_keys(good, interval).alias("key"))
    if not keyed["key"].is_sorted():
        keyed = keyed.sort("key", maintain_order=True)
    is_last = (keyed["key"] != keyed["key"].shift(-1)).fill_null(value=True)
    if is_last.all():  # the rule, and the rows may be many: no copy
        return Collapsed(keyed.drop("key"), _superseded(keyed.clear(), keyed.clear()))
    kept, gone = keyed.filter(is_last), keyed.filter(~is_last)
    return Collapsed(kept.drop("key"), _superseded(kept, gone))


def _superseded(kept: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """Return those of the rows that gave way whose values differ from what was kept."""
    import polars as pl

    old = gone.rename({field: f"old_{field}" for field in FIELDS})
    pairs = old.join(kept.select("key", *FIELDS), on="key", how="left", maintain_order="left")
    differ = pl.any_horizontal(pl.col(f"old_{field}") != pl.col(field) for field in FIELDS)
    return pairs.filter(differ).drop("key")


def _keys(good: pl.DataFrame, interval: Interval) -> pl.Series:
    """Return one number per row that sorts as (symbol, start) does: much faster to sort by."""
    import polars as pl

    ranks = good["symbol"].cast(pl.Enum(good["symbol"].unique().sort())).to_physical()
    return (
        ranks.cast(pl.Int64) * (END_OF_TIME // interval.micros) + good["start"] // interval.micros
    )
