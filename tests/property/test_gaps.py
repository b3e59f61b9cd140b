"""Gaps beside a search minute by minute."""

from __future__ import annotations

from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_coord.bars import FILLED, SYNTHETIC
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import ATTRIBUTES, GapCells, gap_ranges, gap_rows, gap_runs
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.quality import measure_session

OPEN = parse_moment("2018-11-23T14:30:00Z")
Mask = list[list[bool]]


def masks(rows: int, slots: int) -> st.SearchStrategy[Mask]:
    row = st.lists(st.booleans(), min_size=slots, max_size=slots)
    return st.lists(row, min_size=rows, max_size=rows)


def runs_by_hand(missing: Mask) -> list[tuple[int, int, int]]:
    """Return (row, first, stop) of each maximal run, one minute after the other."""
    runs: list[tuple[int, int, int]] = []
    for row, slots in enumerate(missing):
        for slot, gone in enumerate(slots):
            if gone and runs and runs[-1][0] == row and runs[-1][2] == slot:
                runs[-1] = (row, runs[-1][1], slot + 1)
            elif gone:
                runs.append((row, slot, slot + 1))
    return runs


def as_array(mask: Mask, rows: int, slots: int) -> NDArray[np.bool_]:
    return np.array(mask, np.bool_).reshape(rows, slots)


@given(st.data(), st.integers(0, 4), st.integers(0, 12))
def test_gaps_are_the_maximal_runs_of_expected_minutes_without_a_bar(
    data: st.DataObject, rows: int, slots: int
) -> None:
    present = data.draw(masks(rows, slots))
    expected = data.draw(masks(rows, slots))
    found = gap_runs(as_array(present, rows, slots), as_array(expected, rows, slots))
    missing = [
        [due and not here for here, due in zip(*pair, strict=True)]
        for pair in zip(present, expected, strict=True)
    ]
    runs = list(zip(found.rows.tolist(), found.first.tolist(), found.stop.tolist(), strict=True))
    assert runs == runs_by_hand(missing)


@given(st.data(), st.integers(1, 12))
def test_one_row_of_expectations_counts_for_all_symbols(data: st.DataObject, slots: int) -> None:
    present = as_array(data.draw(masks(3, slots)), 3, slots)
    expected = as_array(data.draw(masks(1, slots)), 1, slots)
    one, all_ = gap_runs(present, expected[0]), gap_runs(present, np.repeat(expected, 3, axis=0))
    assert [array.tolist() for array in (one.rows, one.first, one.stop)] == [
        array.tolist() for array in (all_.rows, all_.first, all_.stop)
    ]


NAMES = ("a", "b", "c")
Known = tuple[int, ...]  # one value of each of ATTRIBUTES
SLOTS = 8


KNOWN: list[Known] = [
    (0, 0, 0, -1, 0, 0),  # and one that differs in each attribute:
    (3, 0, 0, -1, 0, 0),
    (0, 4, 0, -1, 0, 0),
    (0, 0, 9, -1, 0, 0),
    (0, 0, 0, 2, 0, 0),
    (0, 0, 0, -1, 6, 0),
    (0, 0, 0, -1, 0, 5),
]


@st.composite
def cells(draw: st.DrawFn) -> tuple[GapCells, dict[tuple[int, int], Known]]:
    """Draw cells of two symbols, as arrays and as a table."""
    found = GapCells.of(as_array(draw(masks(2, SLOTS)), 2, SLOTS), np.ones(2, np.bool_), NAMES)
    keys = list(zip(found.rows.tolist(), found.slots.tolist(), strict=True))
    table = {key: draw(st.sampled_from(KNOWN)) for key in keys}
    for number, name in enumerate(ATTRIBUTES):
        getattr(found, name)[:] = [known[number] for known in table.values()]
    return found, table


def table_of(found: GapCells) -> dict[tuple[int, int], Known]:
    columns = zip(*(getattr(found, name).tolist() for name in ATTRIBUTES), strict=True)
    keys = zip(found.rows.tolist(), found.slots.tolist(), strict=True)
    return dict(zip(keys, columns, strict=True))


@given(cells())
def test_runs_of_cells_are_maximal_and_lose_nothing(
    drawn: tuple[GapCells, dict[tuple[int, int], Known]],
) -> None:
    found, table = drawn
    runs: list[tuple[int, int, int, Known]] = []
    for (row, slot), known in table.items():
        if runs and runs[-1][0] == row and runs[-1][2] == slot and runs[-1][3] == known:
            runs[-1] = (row, runs[-1][1], slot + 1, known)
        else:
            runs.append((row, slot, slot + 1, known))
    made = found.runs()
    names = ("rows", "first", "stop", *ATTRIBUTES)
    columns = [getattr(made, name).tolist() for name in names]
    assert list(zip(*columns, strict=True)) == [
        (row, first, stop, *known) for row, first, stop, known in runs
    ]


@given(cells(), cells())
def test_what_is_known_of_ranges_becomes_known_of_their_cells(
    drawn: tuple[GapCells, dict[tuple[int, int], Known]],
    other: tuple[GapCells, dict[tuple[int, int], Known]],
) -> None:
    """Where a cell is in no range, it stays as it is."""
    found, table = drawn
    remembered, known = other
    found.apply_ranges(remembered.runs())
    assert table_of(found) == {key: known.get(key, table[key]) for key in table}


@given(cells(), st.lists(st.integers(1, 3), min_size=SLOTS, max_size=SLOTS))
def test_rows_for_people_can_be_read_back(
    drawn: tuple[GapCells, dict[tuple[int, int], Known]], pauses: list[int]
) -> None:
    found, table = drawn
    starts = OPEN + MINUTE * np.cumsum(pauses)
    rows = list(gap_rows(found.runs(), ("A", "B"), "2018-11-23", starts, MINUTE, NAMES))
    assert sum(row.minutes for row in rows) == len(table)
    for name in ATTRIBUTES:
        getattr(found, name)[:] = 0
    found.apply_ranges(gap_ranges(rows, {"A": 0, "B": 1}, starts, NAMES))
    assert table_of(found) == table


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Short sessions with breaks, pre- and post-market, and pauses or none between them."""
    kinds: list[Kind] = ["regular"] * draw(st.integers(1, 3))
    kinds = ["pre", *kinds] if draw(st.booleans()) else kinds
    kinds = [*kinds, "post"] if draw(st.booleans()) else kinds
    segments, time = [], OPEN
    for kind in kinds:
        length, pause = draw(st.integers(1, 4)), draw(st.integers(0, 2))
        segments.append(Segment(time, time + length * MINUTE, kind))
        time += (length + pause) * MINUTE
    return Session(date(2018, 11, 23), tuple(segments))


@given(st.data(), sessions())
def test_a_session_is_worth_what_a_count_by_hand_says(
    data: st.DataObject, session: Session
) -> None:
    symbols = ("A", "B", "C")
    yesterday = Session(date(2018, 11, 21), (Segment(OPEN - 9 * MINUTE, OPEN, "regular"),))
    block = Block.empty(symbols, [yesterday, session], Interval(MINUTE))
    slots = len(block.starts)
    block.present[:] = as_array(data.draw(masks(3, slots)), 3, slots)
    flags = st.lists(st.sampled_from([0, SYNTHETIC, FILLED]), min_size=slots, max_size=slots)
    block.flags[:] = [data.draw(flags) for _ in symbols]
    held = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))

    rows, gaps = [], []
    for row, symbol in enumerate(symbols):
        regular = [
            start
            for part in session.segments
            if part.kind == "regular"
            for start in range(part.open, part.close, MINUTE)
        ]
        real = [
            block.present[row, block.starts.tolist().index(start)]
            and block.flags[row, block.starts.tolist().index(start)] != SYNTHETIC
            for start in regular
        ]
        if held[row]:
            rows.append((symbol, "2018-11-23", len(regular), sum(real), len(regular) - sum(real)))
            for _, first, stop in runs_by_hand([[not here for here in real]]):
                end = regular[stop - 1] + MINUTE
                gaps.append((symbol, "2018-11-23", regular[first], end, stop - first, "missing"))

    measured = measure_session(block, session, np.array(held))
    assert [
        (row.symbol, row.session, row.expected, row.present, row.missing) for row in measured.rows()
    ] == rows
    assert [
        (gap.symbol, gap.session, gap.start, gap.end, gap.minutes, gap.state)
        for gap in measured.gaps()
    ] == gaps
