"""A session's quality with what is remembered of its gaps, counted by hand."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.bars import SYNTHETIC
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import FILLED, STATES, GapCells
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.quality import (
    SessionQuality,
    measure_session,
    names_in,
    recall,
    tell_apart,
)

OPEN = parse_moment("2018-11-23T09:00:00+08:00")
LUNCH = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN - 4 * MINUTE, OPEN, "pre"),
        Segment(OPEN, OPEN + 3 * MINUTE, "regular"),
        Segment(OPEN + 60 * MINUTE, OPEN + 62 * MINUTE, "regular"),
    ),
)
MINUTES = (0, 1, 2, 60, 61)
"""The regular grid, in minutes since the open."""
SYMBOLS = ("A", "B")


def block_without(missing: dict[str, list[int]]) -> Block:
    """Return a block that is complete but for minutes, counted from the open."""
    block = Block.empty(SYMBOLS, [LUNCH], Interval(MINUTE))
    block.present[:] = True
    for symbol, minutes in missing.items():
        slots = [block.starts.tolist().index(OPEN + n * MINUTE) for n in minutes]
        block.present[SYMBOLS.index(symbol), slots] = False
    return block


def gap(symbol: str, first: int, end: int, state: str) -> GapRow:
    """Return a gap between two minutes of the session, counted from the open."""
    span = OPEN + first * MINUTE, OPEN + end * MINUTE
    minutes = sum(first <= minute < end for minute in MINUTES)
    return GapRow(symbol, "2018-11-23", *span, minutes, state)


def measured(missing: dict[str, list[int]], *states: GapRow) -> SessionQuality:
    return measure_session(block_without(missing), LUNCH, np.array([True, True]), states)


def test_remembered_states_explain_the_minutes_without_a_bar() -> None:
    quality = measured(
        {"A": [1, 2, 60, 61]},
        replace(gap("A", 1, 2, "no_trade"), asked=("x", "y"), empty=("x", "y"), last_try=7),
        replace(gap("A", 60, 61, "unresolved"), tries=3, last_try=9, asked=("y",)),
        replace(gap("B", 0, 2, "filled"), source="y", last_try=8, asked=("y",)),
    )
    assert list(quality.rows()) == [
        QualityRow("A", "2018-11-23", 5, 1, missing=2, no_trade=1, unresolved=1),
        QualityRow("B", "2018-11-23", 5, 5, filled=2),
    ]
    assert list(quality.gaps()) == [
        replace(gap("A", 1, 2, "no_trade"), asked=("x", "y"), empty=("x", "y"), last_try=7),
        gap("A", 2, 3, "missing"),
        replace(gap("A", 60, 61, "unresolved"), tries=3, last_try=9, asked=("y",)),
        gap("A", 61, 62, "missing"),
        replace(gap("B", 0, 2, "filled"), source="y", last_try=8, asked=("y",)),
    ]


def test_every_source_that_is_spoken_of_is_named() -> None:
    """One filled, one was asked, one is said to have none: three different ones."""
    known = replace(gap("A", 0, 1, "filled"), source="x", asked=("y",), empty=("z",))
    assert list(measured({}, known).gaps()) == [known]


def test_known_sources_come_first() -> None:
    states = [replace(gap("A", 0, 1, "no_trade"), asked=("new", "a"), empty=("other",))]
    assert names_in(states, ("b", "a")) == ("b", "a", "new", "other")


def test_a_minute_that_was_imported_since_is_no_gap_any_more() -> None:
    quality = measured({}, gap("A", 1, 3, "no_trade"), gap("B", 0, 62, "unresolved"))
    assert [row.present for row in quality.rows()] == [5, 5]
    assert list(quality.gaps()) == []


def test_a_filled_bar_that_is_gone_again_is_missing() -> None:
    quality = measured({"A": [1]}, replace(gap("A", 0, 3, "filled"), source="x"))
    assert next(quality.rows()) == QualityRow("A", "2018-11-23", 5, 4, missing=1, filled=2)
    assert list(quality.gaps()) == [
        replace(gap("A", 0, 1, "filled"), source="x"),
        gap("A", 1, 2, "missing"),
        replace(gap("A", 2, 3, "filled"), source="x"),
    ]


def test_what_is_remembered_of_other_symbols_is_passed_over() -> None:
    quality = measured({"A": [1]}, gap("Z", 0, 3, "no_trade"))
    assert list(quality.gaps()) == [gap("A", 1, 2, "missing")]


def test_a_symbol_that_is_not_held_to_account_has_no_gap() -> None:
    states = [gap("A", 0, 1, "filled"), gap("A", 1, 2, "no_trade")]
    quality = measure_session(block_without({"A": [1]}), LUNCH, np.array([False, True]), states)
    assert [row.symbol for row in quality.rows()] == ["B"]
    assert list(quality.gaps()) == []


def test_a_synthetic_bar_is_none() -> None:
    block = block_without({})
    block.flags[0, :] = SYNTHETIC
    states = [gap("A", 0, 1, "filled"), gap("A", 1, 2, "no_trade")]
    quality = measure_session(block, LUNCH, np.array([True, True]), states)
    assert next(quality.rows()) == QualityRow("A", "2018-11-23", 5, 0, missing=4, no_trade=1)


def test_a_whole_session_is_told_apart_from_minutes() -> None:
    """Of one symbol; lunch does not count, and pre-market neither."""
    quality = measured({"A": list(MINUTES), "B": [0, 1, 2, 60]}, gap("A", 0, 62, "no_trade"))
    assert list(quality.gaps()) == [
        replace(gap("A", 0, 62, "no_trade"), kind="session"),
        gap("B", 0, 61, "missing"),
    ]


def test_a_gap_before_the_first_stored_bar_says_so() -> None:
    gaps = [
        gap("A", 0, 1, "missing"),
        gap("A", 0, 2, "missing"),
        replace(gap("A", 60, 61, "missing"), kind="session"),
        replace(gap("B", 0, 62, "missing"), kind="session"),
        replace(gap("C", 0, 62, "missing"), kind="session"),
    ]
    firsts = {"A": OPEN + MINUTE, "B": OPEN + 62 * MINUTE}
    assert [row.kind for row in tell_apart(gaps, firsts)] == [
        "before_first",
        "minutes",
        "session",
        "before_first",
        "session",
    ]
    first, *_ = tell_apart(gaps, firsts)
    assert replace(first, kind="minutes") == gaps[0]


def test_absent_and_filled_minutes_are_recalled_apart() -> None:
    present = np.array([[1, 0, 1, 0, 1]], np.bool_)
    starts = OPEN + MINUTE * np.array(MINUTES)
    states = [
        replace(gap("A", 0, 2, "filled"), source="y"),
        replace(gap("A", 60, 61, "no_trade"), empty=("x",)),
    ]
    absent, filled = recall(present, np.array([True]), ("A",), starts, states, ("x", "y"))
    assert (absent.slots.tolist(), filled.slots.tolist()) == ([1, 3], [0])
    assert [STATES[state] for state in absent.state] == ["missing", "no_trade"]
    assert (absent.source.tolist(), absent.empty.tolist()) == ([-1, -1], [0, 1])
    assert (filled.state.tolist(), filled.source.tolist()) == ([FILLED], [1])


def test_a_long_run_keeps_little_of_a_session() -> None:
    """A gap takes 12 bytes, unless something is known of it that is not known of all."""
    symbols = tuple(f"S{number:04}" for number in range(1000))
    session = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 390 * MINUTE, "regular"),))
    present = np.ones((1000, 390), np.bool_)
    present[:, ::10] = False
    cells = GapCells.of(present, np.ones(1000, np.bool_))
    quality = SessionQuality(
        session, symbols, np.ones(1000, np.bool_), present.sum(axis=1), cells, np.arange(390), 1
    )
    runs = quality._runs
    held = sum(
        sys.getsizeof(array) if array.base is None else array.base.nbytes
        for array in (getattr(runs, each.name) for each in fields(runs))
    )
    assert len(runs) == 39_000
    assert held < 39_000 * 13


@given(st.lists(st.sampled_from(["bar", "synthetic", "hole"]), min_size=5, max_size=5), st.data())
def test_every_expected_minute_is_counted_once(here: list[str], data: st.DataObject) -> None:
    """However what is remembered and what is there contradict each other."""
    block = block_without({})
    for minute, what in zip(MINUTES, here, strict=True):
        slot = block.starts.tolist().index(OPEN + minute * MINUTE)
        block.present[0, slot] = what != "hole"
        block.flags[0, slot] = SYNTHETIC if what == "synthetic" else 0
    remembered = [
        (minute, data.draw(st.sampled_from([None, *STATES]), label=str(minute)))
        for minute in MINUTES
    ]
    states = [gap("A", minute, minute + 1, state) for minute, state in remembered if state]

    quality = measure_session(block, LUNCH, np.array([True, True]), states)

    row = next(quality.rows())
    counted = dict.fromkeys(("present", *STATES), 0)
    for (_, state), what in zip(remembered, here, strict=True):
        if what == "bar":
            counted["present"] += 1
            counted["filled"] += state == "filled"
        else:
            counted["missing" if state in (None, "filled") else state] += 1
    assert row == QualityRow("A", "2018-11-23", 5, **counted)
    assert row.expected == row.present + row.missing + row.no_trade + row.unresolved
    spans = [(each.state, each.minutes) for each in quality.gaps()]
    for state in STATES:
        assert sum(minutes for each, minutes in spans if each == state) == counted[state]
