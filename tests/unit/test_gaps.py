"""Gaps and quality of sessions, counted by hand."""

from __future__ import annotations

import weakref
from datetime import date

import numpy as np
import pytest

from stream_coord.bars import SYNTHETIC
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import (
    FILLED,
    MISSING,
    NO_TRADE,
    UNRESOLVED,
    GapCells,
    gap_ranges,
    gap_rows,
    gap_runs,
)
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


def test_nothing_to_look_at_has_no_gap() -> None:
    for shape in ((0, 0), (0, 5), (3, 0)):
        assert len(gap_runs(np.zeros(shape, np.bool_), np.ones(shape, np.bool_)).rows) == 0


HOLES = np.array([[1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.bool_)


def test_cells_are_the_expected_minutes_without_a_bar() -> None:
    cells = GapCells.of(HOLES, np.array([True, True, False]), ("vendor",))
    assert (cells.rows.tolist(), cells.slots.tolist()) == ([0, 0, 0], [1, 2, 4])
    assert cells.state.tolist() == [MISSING] * 3
    assert cells.source.tolist() == [-1] * 3
    for attribute in (cells.tries, cells.last_try, cells.asked, cells.empty):
        assert attribute.tolist() == [0] * 3
    assert (len(cells), cells.names) == (3, ("vendor",))


def test_cells_of_minutes_that_are_due() -> None:
    due = np.array([[1, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 1]], np.bool_)
    cells = GapCells.of(HOLES, due)
    assert (cells.rows.tolist(), cells.slots.tolist()) == ([0, 2], [1, 4])


def test_a_run_of_cells_ends_where_anything_differs() -> None:
    """One row of nine minutes: whatever is known differs somewhere."""
    cells = GapCells.of(np.zeros((1, 9), np.bool_), np.array([True]), ("a", "b"))
    cells.state[1:] = NO_TRADE
    cells.tries[2:] = 3
    cells.last_try[3:] = 77
    cells.source[4:] = 1
    cells.asked[5:] = 2
    cells.empty[6:] = 1 << 63
    runs = cells.runs()
    assert (runs.first.tolist(), runs.stop.tolist()) == (
        [0, 1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6, 9],
    )
    assert (runs.state[-1], runs.tries[-1], runs.last_try[-1]) == (NO_TRADE, 3, 77)
    assert (runs.source[-1], runs.asked[-1], runs.empty[-1]) == (1, 2, 1 << 63)


def test_a_run_of_cells_is_of_one_symbol() -> None:
    """The second symbol's gap begins one slot after the one where the first one's ends."""
    present = np.array([[1, 0, 0, 1, 1], [1, 1, 1, 0, 0]], np.bool_)
    runs = GapCells.of(present, np.array([True, True])).runs()
    assert runs.rows.tolist() == [0, 1]
    assert (runs.first.tolist(), runs.stop.tolist()) == ([1, 3], [3, 5])


def test_no_cells_make_no_runs() -> None:
    cells = GapCells.of(np.ones((2, 5), np.bool_), np.array([True, True]))
    cells.apply_ranges(cells.runs())
    assert len(cells.runs()) == 0


def test_ranges_are_taken_over_where_there_are_cells() -> None:
    cells = GapCells.of(HOLES, np.array([True, True, True]), ("a", "b"))
    known = GapCells.of(HOLES, np.array([True, True, True]), ("a", "b"))
    known.state[:3] = UNRESOLVED
    known.tries[:3] = 5
    ranges = known.runs()
    ranges.first[0], ranges.stop[0] = 0, 4
    cells.apply_ranges(ranges)
    assert cells.state.tolist() == [UNRESOLVED] * 3 + [MISSING] * 5
    assert cells.tries.tolist() == [5] * 3 + [0] * 5


def test_two_sets_of_cells_become_one() -> None:
    ones, others = (
        GapCells.of(mask, np.array([True, True]), ("a",))
        for mask in (
            np.array([[1, 0, 1], [1, 1, 0]], np.bool_),
            np.array([[0, 1, 1], [1, 0, 1]], np.bool_),
        )
    )
    others.state[:] = FILLED
    both = ones.merged(others)
    assert both.rows.tolist() == [0, 0, 1, 1]
    assert both.slots.tolist() == [0, 1, 1, 2]
    assert both.state.tolist() == [FILLED, MISSING, FILLED, MISSING]
    assert both.names == ("a",)


GRID = NINE + MINUTE * np.array([4, 5, 6, 60, 61])
NAMES = ("a: store x", "b: csv y")


def test_runs_are_read_as_rows_and_rows_as_ranges() -> None:
    cells = GapCells.of(
        np.array([[1, 1, 0, 0, 1], [0] * 5], np.bool_), np.array([1, 1], np.bool_), NAMES
    )
    cells.state[:2], cells.source[:2], cells.last_try[:2], cells.asked[:2] = FILLED, 1, 99, 3
    cells.empty[:2] = 1
    cells.state[2:], cells.tries[2:] = UNRESOLVED, 4
    runs = cells.runs()
    rows = list(gap_rows(runs, ("A", "B"), "2018-11-23", GRID, MINUTE, NAMES))
    assert rows == [
        GapRow(
            "A",
            "2018-11-23",
            NINE + 6 * MINUTE,
            NINE + 61 * MINUTE,
            2,
            "filled",
            source="b: csv y",
            last_try=99,
            asked=NAMES,
            empty=("a: store x",),
        ),
        GapRow(
            "B",
            "2018-11-23",
            NINE + 4 * MINUTE,
            NINE + 62 * MINUTE,
            5,
            "unresolved",
            kind="session",
            tries=4,
        ),
    ]
    # Another order of the sources, one of them new; the symbol B is not asked about.
    ranges = gap_ranges(rows, {"A": 7}, GRID, ("c", NAMES[1], NAMES[0]))
    assert (ranges.rows.tolist(), ranges.first.tolist(), ranges.stop.tolist()) == ([7], [2], [4])
    assert (ranges.state[0], ranges.source[0], ranges.last_try[0]) == (FILLED, 1, 99)
    assert (ranges.asked[0], ranges.empty[0]) == (0b110, 0b100)


def test_a_source_that_is_no_more_is_forgotten() -> None:
    row = GapRow(
        "A",
        "2018-11-23",
        int(GRID[0]),
        int(GRID[1]),
        1,
        "filled",
        "minutes",
        "old",
        0,
        5,
        ("old",),
        ("old",),
    )
    ranges = gap_ranges([row], {"A": 0}, GRID, ("new",))
    assert (ranges.source[0], ranges.asked[0], ranges.empty[0]) == (-1, 0, 0)


def test_sixty_four_sources_have_a_bit_each() -> None:
    names = tuple(f"source {number}" for number in range(64))
    row = GapRow("A", "2018-11-23", int(GRID[0]), int(GRID[1]), 1, "no_trade", asked=names[63:])
    ranges = gap_ranges([row], {"A": 0}, GRID, names)
    assert ranges.asked.tolist() == [1 << 63]
    (same,) = gap_rows(ranges, ("A",), "2018-11-23", GRID, MINUTE, names)
    assert same == row


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
