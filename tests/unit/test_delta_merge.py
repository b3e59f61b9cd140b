"""Merging new bars into stored ones, by hand-made answers."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from stream_coord.errors import StoreError
from stream_coord.stores.merge import empty_outcome, merge_bars, normal_frame, split_days

SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)
DAY = 86_400_000_000
MINUTE = 60_000_000


def frame(*rows: tuple[str, int, float]) -> pl.DataFrame:
    """A bar frame of flat bars: symbol, start, price."""
    bars = [(symbol, start, *[price] * 4, 100.0) for symbol, start, price in rows]
    return pl.DataFrame(bars, schema=SCHEMA, orient="row")


def test_new_bars_win_and_every_row_is_counted() -> None:
    stored = frame(("A", 0, 1.0), ("A", MINUTE, 2.0), ("B", 0, 3.0))
    new = frame(("A", MINUTE, 2.5), ("A", DAY, 4.0), ("B", 0, 3.0), ("C", 0, 5.0))
    merge = merge_bars(stored, new)
    assert merge.bars.rows() == [
        ("A", 0, 1.0, 1.0, 1.0, 1.0, 100.0),
        ("A", MINUTE, 2.5, 2.5, 2.5, 2.5, 100.0),
        ("A", DAY, 4.0, 4.0, 4.0, 4.0, 100.0),
        ("B", 0, 3.0, 3.0, 3.0, 3.0, 100.0),
        ("C", 0, 5.0, 5.0, 5.0, 5.0, 100.0),
    ]
    assert merge.outcome.counts.rows() == [
        ("A", date(1970, 1, 1), 0, 0, 1),
        ("A", date(1970, 1, 2), 1, 0, 0),
        ("B", date(1970, 1, 1), 0, 1, 0),
        ("C", date(1970, 1, 1), 1, 0, 0),
    ]
    assert merge.outcome.revisions.rows() == [
        ("A", MINUTE, 2.0, 2.0, 2.0, 2.0, 100.0, 2.5, 2.5, 2.5, 2.5, 100.0)
    ]
    assert sorted(merge.outcome.fates.rows()) == [
        ("A", MINUTE, False, False, True),
        ("A", DAY, True, False, False),
        ("B", 0, False, True, False),
        ("C", 0, True, False, False),
    ]
    assert merge.changed_symbols == ["A", "C"]


def test_one_differing_field_is_a_revision() -> None:
    stored = frame(("A", 0, 1.0))
    for name in ("open", "high", "low", "close", "volume"):
        outcome = merge_bars(stored, stored.with_columns(pl.lit(7.0).alias(name))).outcome
        assert (outcome.stored, outcome.duplicates, outcome.revised) == (0, 0, 1)
        assert outcome.revisions.row(0, named=True)[name] == 7.0


def test_outcome_frames_have_their_columns_even_when_empty() -> None:
    outcome = merge_bars(frame(), frame()).outcome
    for empty in (outcome, empty_outcome()):
        assert dict(empty.counts.schema) == {
            "symbol": pl.String,
            "date": pl.Date,
            "stored": pl.Int64,
            "duplicates": pl.Int64,
            "revised": pl.Int64,
        }
        assert empty.revisions.columns == [
            *("symbol", "start", "old_open", "old_high", "old_low", "old_close", "old_volume"),
            *("open", "high", "low", "close", "volume"),
        ]
        assert dict(empty.fates.schema) == {
            "symbol": pl.String,
            "start": pl.Int64,
            "stored": pl.Boolean,
            "duplicates": pl.Boolean,
            "revised": pl.Boolean,
        }
        assert (empty.stored, empty.duplicates, empty.revised) == (0, 0, 0)


def test_negative_zero_becomes_zero() -> None:
    zeros = normal_frame(frame(("A", 0, -0.0)))
    assert [str(zeros[name][0]) for name in ("open", "high", "low", "close")] == ["0.0"] * 4


@pytest.mark.parametrize("micros", [-DAY, -1, 0, DAY - 1, DAY])
def test_days_are_utc_dates_also_before_1970(micros: int) -> None:
    [(day, bars)] = split_days(frame(("A", micros, 1.0))).items()
    assert day == date.fromordinal(date(1970, 1, 1).toordinal() + micros // DAY)
    assert bars.columns == list(SCHEMA)


def test_days_come_in_order() -> None:
    bars = frame(("A", 2 * DAY, 1.0), ("B", 0, 1.0), ("C", DAY, 1.0))
    assert list(split_days(bars)) == [date(1970, 1, day) for day in (1, 2, 3)]


@pytest.mark.parametrize(
    ("bars", "complaint"),
    [
        (frame(("A", 0, 1.0)).drop("volume"), "columns"),
        (frame(("A", 0, 1.0)).cast({"start": pl.Int32}), "columns"),
        (frame(("A", 0, 1.0)).with_columns(close=pl.lit(None, pl.Float64)), "nulls"),
        (frame(("A", 0, 1.0), ("A", 0, 2.0)), "ascend"),
        (frame(("B", 0, 1.0), ("A", 0, 2.0)), "ascend"),
        (frame(("A", 1, 1.0), ("A", 0, 2.0)), "ascend"),
        (frame(("A", 2**62, 1.0)), "years 1 to 9999"),
    ],
)
def test_what_is_no_bar_frame_is_refused(bars: pl.DataFrame, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        normal_frame(bars)
