"""Gaps and quality of sessions, counted by hand."""

from __future__ import annotations

import weakref
from datetime import date

import numpy as np
import pytest

from stream_coord.bars import SYNTHETIC
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import gap_runs
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.quality import SessionQuality, measure_session

NINE = parse_moment("2018-11-23T09:00:00+08:00")
LUNCH = Session(
    date(2018, 11, 23),
    (
        Segment(NINE, NINE + 4 * MINUTE, "pre"),
        Segment(NINE + 4 * MINUTE, NINE + 7 * MINUTE, "regular"),
        Segment(NINE + 60 * MINUTE, NINE + 62 * MINUTE, "regular"),
        Segment(NINE + 62 * MINUTE, NINE + 65 * MINUTE, "post"),
    ),
)


def measured(
    missing: dict[str, list[int]], expected: tuple[bool, ...] = (True, True)
) -> SessionQuality:
    """Measure a session that is complete but for minutes, counted from `NINE`."""
    block = Block.empty(("A", "B"), [LUNCH], Interval(MINUTE))
    block.present[:] = True
    for symbol, minutes in missing.items():
        slots = [block.starts.tolist().index(NINE + n * MINUTE) for n in minutes]
        block.present[block.symbols.index(symbol), slots] = False
    return measure_session(block, LUNCH, np.array(expected))


def test_a_gap_is_as_long_as_nothing_comes_between() -> None:
    present = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], np.bool_)
    runs = gap_runs(present, np.array([True, True, True, True, True]))
    assert runs.rows.tolist() == [0, 0, 1]
    assert runs.first.tolist() == [1, 4, 0]
    assert runs.stop.tolist() == [3, 5, 5]


def test_a_minute_that_is_not_expected_ends_a_gap() -> None:
    runs = gap_runs(np.zeros((1, 4), np.bool_), np.array([True, False, True, True]))
    assert (runs.first.tolist(), runs.stop.tolist()) == ([0, 2], [1, 4])


def test_a_complete_session_has_no_gap() -> None:
    quality = measured({})
    assert list(quality.gaps()) == []
    assert list(quality.rows()) == [
        QualityRow("A", "2018-11-23", 5, 5),
        QualityRow("B", "2018-11-23", 5, 5),
    ]


def test_a_gap_over_lunch_is_one_gap_of_the_minutes_that_trade() -> None:
    quality = measured({"B": [6, 60]})
    (gap,) = quality.gaps()
    assert gap == GapRow("B", "2018-11-23", NINE + 6 * MINUTE, NINE + 61 * MINUTE, 2, "missing")
    assert [row.quality for row in quality.rows()] == [100.0, 60.0]


def test_other_hours_are_neither_expected_nor_a_gap() -> None:
    """A gap that touches the open begins there, however long nothing traded before."""
    quality = measured({"A": [0, 1, 2, 3, 4, 61, 62, 63, 64]})
    times = [(gap.start, gap.end) for gap in quality.gaps()]
    assert times == [
        (NINE + 4 * MINUTE, NINE + 5 * MINUTE),
        (NINE + 61 * MINUTE, NINE + 62 * MINUTE),
    ]
    assert [row.present for row in quality.rows()] == [3, 5]


def test_a_symbol_without_a_bar_is_worth_nothing_and_is_one_gap() -> None:
    quality = measured({"A": [4, 5, 6, 60, 61]})
    assert next(quality.rows()).quality == 0.0
    assert [gap.minutes for gap in quality.gaps()] == [5]


def test_a_symbol_that_is_not_held_to_account_is_left_out() -> None:
    quality = measured({"A": [5], "B": [5]}, expected=(False, True))
    assert [row.symbol for row in quality.rows()] == ["B"]
    assert [gap.symbol for gap in quality.gaps()] == ["B"]


def test_synthetic_bars_do_not_count() -> None:
    block = Block.empty(("A",), [LUNCH], Interval(MINUTE))
    block.present[:] = True
    block.flags[0, 5] = SYNTHETIC
    quality = measure_session(block, LUNCH, np.array([True]))
    (row,), (gap,) = quality.rows(), quality.gaps()
    assert (row.present, row.missing) == (4, 1)
    assert (gap.start, gap.minutes) == (NINE + 5 * MINUTE, 1)


def test_what_is_measured_stays_when_the_block_is_used_again() -> None:
    block = Block.empty(("A",), [LUNCH], Interval(MINUTE))
    quality = measure_session(block, LUNCH, np.array([True]))
    block.present[:] = True
    assert [row.missing for row in quality.rows()] == [5]


def test_what_is_measured_keeps_no_bars_in_memory() -> None:
    """A long replay keeps the quality of every session, and the bars of two."""
    block = Block.empty(("A",), [LUNCH], Interval(MINUTE))
    arrays = [weakref.ref(array) for array in (block.values, block.present, block.starts)]
    quality = measure_session(block, LUNCH, np.array([True]))
    del block
    assert [array() for array in arrays] == [None, None, None]
    assert len(list(quality.gaps())) == 1


@pytest.mark.parametrize(("present", "expected", "percent"), [(389, 390, 99.743589), (0, 3, 0.0)])
def test_quality_is_in_percent(present: int, expected: int, percent: float) -> None:
    assert QualityRow("A", "2018-11-23", expected, present).quality == pytest.approx(percent)


def test_where_nothing_is_expected_there_is_no_quality() -> None:
    row = QualityRow("A", "2018-11-23", 0, 0)
    assert (row.quality, row.coverage) == (None, None)
