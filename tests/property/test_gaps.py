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
from stream_coord.compute.gaps import gap_runs
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
