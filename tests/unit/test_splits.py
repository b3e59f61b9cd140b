"""Splits: which are known when, and what they do to bars; by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from stream_coord.compute.splits import Split, Splits, rescale

JUNE_6, JUNE_8, JUNE_9, JUNE_10 = (date(2014, 6, day) for day in (6, 8, 9, 10))
AAPL = Split("AAPL", JUNE_9, 7.0)


def test_no_splits_are_nothing() -> None:
    splits = Splits()
    assert not splits
    assert list(splits) == []
    assert splits.known(["AAPL"], date.min, date.max) == []


@pytest.mark.parametrize(
    ("after", "upto", "found"),
    [
        (JUNE_6, JUNE_8, []),  # the weekend before: nobody knows yet
        (JUNE_6, JUNE_9, [(1, AAPL)]),
        (JUNE_8, JUNE_10, [(1, AAPL)]),
        (JUNE_9, JUNE_10, []),  # bars of the day itself are in its terms
        (JUNE_9, JUNE_9, []),
        (JUNE_10, JUNE_6, []),
    ],
)
def test_a_split_counts_from_its_own_day_on(
    after: date, upto: date, found: list[tuple[int, Split]]
) -> None:
    assert Splits([AAPL]).known(["A", "AAPL"], after, upto) == found


def test_the_oldest_come_first_then_the_symbols_as_they_are_asked_for() -> None:
    early, late = Split("AAPL", JUNE_8, 2.0), Split("A", JUNE_9, 0.5)
    splits = Splits([late, AAPL, Split("B", JUNE_9, 3.0), early])
    assert splits.known(["AAPL", "A"], JUNE_6, JUNE_9) == [(0, early), (0, AAPL), (1, late)]
    assert [(split.symbol, split.day) for split in splits] == [
        ("A", JUNE_9),
        ("AAPL", JUNE_8),
        ("AAPL", JUNE_9),
        ("B", JUNE_9),
    ]


def test_of_two_splits_of_one_day_the_last_one_counts() -> None:
    splits = Splits([AAPL, Split("AAPL", JUNE_9, 4.0)])
    assert [split.ratio for split in splits] == [4.0]
    assert len(splits) == 1
    assert [split.ratio for _, split in splits.known(["AAPL"], JUNE_6, JUNE_9)] == [4.0]


def block() -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Two symbols with three slots; open 700, high 770, low 630, close 707, volume 1000."""
    values = np.empty((5, 2, 3))
    values[:] = np.array([700.0, 770.0, 630.0, 707.0, 1000.0])[:, None, None]
    return values


def test_prices_are_divided_and_volume_multiplied() -> None:
    values = block()
    rescale(values, 1, 7.0, 0, 2)
    assert values[:, 1, 0].tolist() == [100.0, 110.0, 90.0, 101.0, 7000.0]
    assert values[:, 1, 1].tolist() == [100.0, 110.0, 90.0, 101.0, 7000.0]


def test_a_reverse_split_does_the_contrary() -> None:
    values = block()
    rescale(values, 0, 0.5, 0, 1)
    assert values[:, 0, 0].tolist() == [1400.0, 1540.0, 1260.0, 1414.0, 500.0]


def test_no_other_bar_is_touched() -> None:
    values = block()
    rescale(values, 1, 7.0, 1, 2)
    untouched = block()
    untouched[:, 1, 1] = values[:, 1, 1]
    assert np.array_equal(values, untouched)
    rescale(values, 1, 7.0, 2, 2)
    assert np.array_equal(values, untouched)


def test_holes_stay_holes_and_what_is_too_large_is_infinite() -> None:
    values = np.full((5, 1, 2), np.nan)
    values[:, 0, 1] = 1e308
    rescale(values, 0, 0.01, 0, 2)
    assert np.isnan(values[:, 0, 0]).all()
    assert values[:, 0, 1].tolist() == [np.inf] * 4 + [1e306]
