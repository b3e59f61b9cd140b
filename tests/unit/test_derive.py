"""Derived bars of a few minutes, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_coord.bars import FILLED, SYNTHETIC, TRUNCATED
from stream_coord.clock import parse_moment
from stream_coord.compute.derive import Buckets, Derived, Segments, buckets_of, derive
from stream_coord.errors import IntervalError
from stream_coord.interval import DAY, HOUR, MINUTE

MIDNIGHT = parse_moment("2018-11-23T00:00:00Z")
OPEN = parse_moment("2018-11-23T14:30:00Z")
NAN = math.nan


def segments(*parts: tuple[int, int, bool], day: int = MIDNIGHT) -> Segments:
    """Return segments from (first minute after the open, minute of the close, regular)."""
    return Segments(
        np.array([OPEN + first * MINUTE for first, _, _ in parts], np.int64),
        np.array([OPEN + close * MINUTE for _, close, _ in parts], np.int64),
        np.array([regular for _, _, regular in parts], np.bool_),
        np.full(len(parts), day, np.int64),
    )


def one_symbol(
    bars: list[tuple[float, ...] | None], flags: list[int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.uint8]]:
    """Return the arrays of one symbol's bars; None is a hole."""
    holes = (NAN,) * 5
    values = np.array([[bar or holes for bar in bars]]).transpose(2, 0, 1)
    present = np.array([[bar is not None for bar in bars]])
    return values, present, np.array([flags or [0] * len(bars)], np.uint8)


def hours(buckets: Buckets) -> list[tuple[int, int, int, bool]]:
    """Return start and end in minutes since the open, base bars, and whether it is cut."""
    return [
        ((start - OPEN) // MINUTE, (end - OPEN) // MINUTE, count, cut)
        for start, end, count, cut in zip(
            buckets.starts.tolist(),
            buckets.ends.tolist(),
            buckets.n_expected.tolist(),
            buckets.truncated.tolist(),
            strict=True,
        )
    ]


def bars_of(derived: Derived) -> list[tuple[float, ...] | None]:
    """Return the bars of the first symbol."""
    return [
        tuple(derived.values[:, 0, k].tolist()) if derived.present[0, k] else None
        for k in range(derived.present.shape[1])
    ]


FIVE = segments((0, 5, True))
BARS: list[tuple[float, ...] | None] = [
    (10.0, 12.0, 9.0, 11.0, 100.0),
    (11.0, 15.0, 10.0, 14.0, 200.0),
    (14.0, 14.5, 8.0, 9.0, 300.0),
    (9.0, 9.5, 8.5, 9.25, 400.0),
    (9.25, 9.75, 9.0, 9.5, 500.0),
]


def test_a_derived_bar_is_first_highest_lowest_last_and_sum() -> None:
    derived = derive(*one_symbol(BARS), buckets_of(FIVE, MINUTE, 5 * MINUTE))
    assert bars_of(derived) == [(10.0, 15.0, 8.0, 9.5, 1500.0)]
    assert (derived.n.tolist(), derived.flags.tolist()) == ([[5]], [[0]])


def test_holes_are_passed_over() -> None:
    bars = [None, BARS[1], None, BARS[3], None]
    derived = derive(*one_symbol(bars), buckets_of(FIVE, MINUTE, 5 * MINUTE))
    assert bars_of(derived) == [(11.0, 15.0, 8.5, 9.25, 600.0)]
    assert derived.n.tolist() == [[2]]


def test_a_bucket_without_a_bar_gives_none() -> None:
    derived = derive(
        *one_symbol([BARS[0], BARS[1], None, None, BARS[4]]), buckets_of(FIVE, MINUTE, 2 * MINUTE)
    )
    assert bars_of(derived) == [
        (10.0, 15.0, 9.0, 14.0, 300.0),
        None,
        (9.25, 9.75, 9.0, 9.5, 500.0),
    ]
    assert np.isnan(derived.values[:, 0, 1]).all()
    assert derived.n.tolist() == [[2, 0, 1]]
    assert derived.flags.tolist() == [[0, 0, TRUNCATED]]


def test_an_hour_of_a_whole_session_makes_seven_bars_and_the_last_is_cut() -> None:
    buckets = buckets_of(segments((0, 390, True)), MINUTE, HOUR)
    assert hours(buckets) == [
        *((60 * k, 60 * k + 60, 60, False) for k in range(6)),
        (360, 390, 30, True),
    ]
    assert len(buckets) == 7


def test_an_hour_of_an_early_close_makes_four_bars() -> None:
    buckets = buckets_of(segments((0, 210, True)), MINUTE, HOUR)
    assert hours(buckets)[3:] == [(180, 210, 30, True)]
    assert len(buckets) == 4


def test_no_bucket_spans_lunch() -> None:
    """Hong Kong: 150 minutes, an hour of lunch, 180 minutes; slots go on without a pause."""
    buckets = buckets_of(segments((0, 150, True), (210, 390, True)), MINUTE, HOUR)
    assert hours(buckets) == [
        (0, 60, 60, False),
        (60, 120, 60, False),
        (120, 150, 30, True),
        (210, 270, 60, False),
        (270, 330, 60, False),
        (330, 390, 60, False),
    ]
    assert buckets.first.tolist() == [0, 60, 120, 150, 210, 270]
    assert buckets.of_slot[[0, 149, 150, 329]].tolist() == [0, 2, 3, 5]


def test_other_hours_have_buckets_of_their_own() -> None:
    buckets = buckets_of(segments((-7, 0, False), (0, 5, True), (5, 8, False)), MINUTE, 5 * MINUTE)
    assert hours(buckets) == [
        (-7, -2, 5, False),
        (-2, 0, 2, True),
        (0, 5, 5, False),
        (5, 8, 3, True),
    ]
    assert buckets.regular.tolist() == [False, False, True, False]


def test_a_day_is_the_regular_session_labelled_by_its_date() -> None:
    parts = segments((-3, 0, False), (0, 2, True), (10, 13, True), (13, 15, False))
    buckets = buckets_of(parts, MINUTE, DAY)
    assert (buckets.starts.tolist(), buckets.ends.tolist()) == ([MIDNIGHT], [OPEN + 13 * MINUTE])
    assert (buckets.first.tolist(), buckets.stop.tolist()) == ([3], [8])
    assert buckets.of_slot.tolist() == [-1] * 3 + [0] * 5 + [-1] * 2
    assert (buckets.regular.tolist(), buckets.truncated.tolist()) == ([True], [False])


def test_a_day_leaves_other_hours_out() -> None:
    parts = segments((-1, 0, False), (0, 3, True), (3, 4, False))
    derived = derive(*one_symbol(BARS), buckets_of(parts, MINUTE, DAY))
    assert bars_of(derived) == [(11.0, 15.0, 8.0, 9.25, 900.0)]


def test_days_follow_each_other() -> None:
    """The second session opens the evening before its date."""
    evening = MIDNIGHT + DAY + 23 * HOUR
    parts = Segments(
        np.array([OPEN, OPEN + 60 * MINUTE, evening]),
        np.array([OPEN + 2 * MINUTE, OPEN + 61 * MINUTE, evening + 2 * MINUTE]),
        np.array([True, True, True]),
        np.array([MIDNIGHT, MIDNIGHT, MIDNIGHT + 2 * DAY]),
    )
    buckets = buckets_of(parts, MINUTE, DAY)
    assert buckets.starts.tolist() == [MIDNIGHT, MIDNIGHT + 2 * DAY]
    assert buckets.ends.tolist() == [OPEN + 61 * MINUTE, evening + 2 * MINUTE]
    assert buckets.of_slot.tolist() == [0, 0, 0, 1, 1]


def test_synthetic_bars_do_not_distort_a_real_one() -> None:
    flat = (99.0, 99.0, 99.0, 99.0, 0.0)
    bars = [flat, BARS[1], flat, BARS[3], flat]
    flags = [SYNTHETIC, 0, SYNTHETIC, 0, SYNTHETIC]
    derived = derive(*one_symbol(bars, flags), buckets_of(FIVE, MINUTE, 5 * MINUTE))
    assert bars_of(derived) == [(11.0, 15.0, 8.5, 9.25, 600.0)]
    assert (derived.n.tolist(), derived.flags.tolist()) == ([[2]], [[0]])


def test_a_bar_of_synthetic_bars_alone_is_synthetic() -> None:
    flat = (99.0, 99.0, 99.0, 99.0, 0.0)
    derived = derive(
        *one_symbol([flat, None, flat, None, None], [SYNTHETIC, 0, SYNTHETIC, 0, 0]),
        buckets_of(FIVE, MINUTE, 5 * MINUTE),
    )
    assert bars_of(derived) == [flat]
    assert (derived.n.tolist(), derived.flags.tolist()) == ([[0]], [[SYNTHETIC]])


def test_a_bar_with_a_filled_one_in_it_is_filled() -> None:
    derived = derive(*one_symbol(BARS, [0, FILLED, 0, 0, 0]), buckets_of(FIVE, MINUTE, 2 * MINUTE))
    assert derived.flags.tolist() == [[FILLED, 0, TRUNCATED]]
    assert derived.n.tolist() == [[2, 2, 1]]


def test_what_a_hole_once_was_does_not_matter() -> None:
    derived = derive(
        *one_symbol([BARS[0], None], [0, FILLED | SYNTHETIC]),
        buckets_of(segments((0, 2, True)), MINUTE, 2 * MINUTE),
    )
    assert (bars_of(derived), derived.flags.tolist()) == ([BARS[0]], [[0]])


def test_more_bars_than_are_built_at_a_time() -> None:
    """Each symbol's bars are all its row's number, from 1 on."""
    symbols, days = 3, 250
    values = np.empty((5, symbols, days * 390))
    values[:] = np.arange(1.0, symbols + 1)[:, None]
    present = np.ones(values.shape[1:], np.bool_)
    opens = OPEN + DAY * np.arange(days)
    parts = Segments(opens, opens + 390 * MINUTE, np.ones(days, np.bool_), opens)
    derived = derive(
        values, present, np.zeros(present.shape, np.uint8), buckets_of(parts, MINUTE, DAY)
    )
    for row, number in enumerate([1.0, 2.0, 3.0]):
        assert (derived.values[:4, row] == number).all()
        assert (derived.values[4, row] == 390 * number).all()


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize("symbols", [1, 300])
@pytest.mark.parametrize("hole", [None, 5])
def test_volumes_are_added_from_left_to_right(width: int, symbols: int, hole: int | None) -> None:
    """Each 1 is lost beside 1e16; added in pairs, most would not be."""
    values = np.ones((5, symbols, width))
    values[4, :, 0] = 1e16
    present = np.ones((symbols, width), np.bool_)
    if hole is not None:
        values[:, :, hole], present[:, hole] = NAN, False
    buckets = buckets_of(segments((0, width, True)), MINUTE, width * MINUTE)
    derived = derive(values, present, np.zeros(present.shape, np.uint8), buckets)
    assert derived.values[4].tolist() == [[1e16]] * symbols


def test_a_zero_has_no_sign() -> None:
    """Which of two equal zeros is the higher one must not depend on the way it is computed."""
    zeros = [(0.0, 0.0, 0.0, 0.0, 1.0), (-0.0, -0.0, -0.0, -0.0, 1.0)]
    for bars in (zeros, zeros[::-1], [zeros[1]] * 2):
        derived = derive(
            *one_symbol([*bars]), buckets_of(segments((0, 2, True)), MINUTE, 2 * MINUTE)
        )
        assert np.signbit(derived.values[1:3]).tolist() == [[[False]], [[False]]]


def test_the_base_bars_stay_as_they_are() -> None:
    arrays = one_symbol([None, *BARS[1:]], [0, SYNTHETIC, 0, 0, FILLED])
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    derived = derive(*arrays, buckets_of(FIVE, MINUTE, 5 * MINUTE))
    derived.values[:] = 0.0
    for number, kept in enumerate(before):
        np.testing.assert_array_equal(arrays[number], kept)


def test_some_buckets_are_built_alone() -> None:
    arrays, buckets = one_symbol(BARS), buckets_of(FIVE, MINUTE, 2 * MINUTE)
    assert bars_of(derive(*arrays, buckets, 1, 2)) == [(14.0, 14.5, 8.0, 9.25, 700.0)]
    last = derive(*arrays, buckets, 2)
    assert bars_of(last) == [BARS[4]]
    assert last.flags.tolist() == [[TRUNCATED]]
    assert bars_of(derive(*arrays, buckets, 1, 1)) == []


@pytest.mark.parametrize("interval", [5 * MINUTE, DAY])
def test_where_nothing_trades_nothing_is_derived(interval: int) -> None:
    buckets = buckets_of(segments(), MINUTE, interval)
    assert (len(buckets), buckets.of_slot.tolist()) == (0, [])
    empty = np.empty((5, 3, 0)), np.empty((3, 0), np.bool_), np.empty((3, 0), np.uint8)
    assert derive(*empty, buckets).values.shape == (5, 3, 0)


def test_a_day_of_other_hours_alone_has_no_bar() -> None:
    buckets = buckets_of(segments((0, 3, False)), MINUTE, DAY)
    assert (len(buckets), buckets.of_slot.tolist()) == (0, [-1, -1, -1])


def test_a_universe_without_symbols_has_no_bars() -> None:
    empty = np.empty((5, 0, 5)), np.empty((0, 5), np.bool_), np.empty((0, 5), np.uint8)
    assert derive(*empty, buckets_of(FIVE, MINUTE, 5 * MINUTE)).values.shape == (5, 0, 1)


@pytest.mark.parametrize(("base", "interval"), [(MINUTE, MINUTE), (5, 12), (5, 1)])
def test_an_interval_is_a_whole_multiple_of_the_base(base: int, interval: int) -> None:
    unit = MINUTE if base < MINUTE else 1
    with pytest.raises(IntervalError, match="cannot be built"):
        buckets_of(FIVE, base * unit, interval * unit)
