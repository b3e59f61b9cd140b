"""The block of arrays behind the session store."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import msgspec
import numpy as np
import polars as pl
import pytest

from stream_coord.bars import Symbol, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import IntervalError, SessionStoreError
from stream_coord.interval import HOUR, MINUTE, Interval
from stream_coord.session.block import Block, Writes

ONE_MINUTE = Interval(MINUTE)
OPEN = parse_moment("2018-11-23T14:30:00Z")
YESTERDAY = Session(
    date(2018, 11, 21), (Segment(OPEN - 48 * HOUR, OPEN - 48 * HOUR + 2 * MINUTE, "regular"),)
)
TODAY = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN - MINUTE, OPEN, "pre"),
        Segment(OPEN, OPEN + 2 * MINUTE, "regular"),
        Segment(OPEN + 4 * MINUTE, OPEN + 5 * MINUTE, "regular"),
    ),
)


def frame(*rows: tuple[str, int, float]) -> pl.DataFrame:
    """Make bars whose values are x, x+3, x-1, x+2, 10x."""
    bars = [(symbol, start, x, x + 3, x - 1, x + 2, 10 * x) for symbol, start, x in rows]
    return pl.DataFrame(bars, schema=frame_schema(), orient="row")


def test_an_empty_block_has_a_slot_for_every_minute_of_its_sessions() -> None:
    block = Block.empty(("A", "B"), [YESTERDAY, TODAY], ONE_MINUTE)
    minutes = [-2880, -2879, -1, 0, 1, 4]
    assert block.starts.tolist() == [OPEN + minute * MINUTE for minute in minutes]
    assert block.ends.tolist() == [OPEN + (minute + 1) * MINUTE for minute in minutes]
    assert block.regular.tolist() == [True, True, False, True, True, True]
    assert block.today == 2
    assert block.values.shape == (5, 2, 6)
    assert np.isnan(block.values).all()
    assert not block.present.any()
    assert not block.flags.any()
    assert block.label == "1m"
    assert block.sessions == (YESTERDAY, TODAY)
    assert block.n is block.n_expected is None


def test_bars_go_into_their_slots_and_the_rest_stays_empty() -> None:
    block = Block.empty(("A", "B", "C"), [YESTERDAY, TODAY], ONE_MINUTE)
    bars = frame(("A", OPEN - MINUTE, 5.0), ("C", OPEN - 48 * HOUR, 7.0), ("C", OPEN, 8.0))
    assert block.fill(bars) == 0
    assert np.argwhere(block.present).tolist() == [[0, 2], [2, 0], [2, 3]]
    assert block.values[:, 0, 2].tolist() == [5, 8, 4, 7, 50]
    assert block.values[:, 2, 0].tolist() == [7, 10, 6, 9, 70]
    assert block.values[:, 2, 3].tolist() == [8, 11, 7, 10, 80]
    assert np.isnan(block.values[:, ~block.present]).all()


def test_bars_that_have_no_slot_are_counted_and_left_out() -> None:
    block = Block.empty(("A",), [YESTERDAY, TODAY], ONE_MINUTE)
    starts = [
        OPEN - 48 * HOUR - MINUTE,  # before all
        OPEN - 24 * HOUR,  # in the night
        OPEN + 1,  # within a minute
        OPEN + MINUTE,
        OPEN + 2 * MINUTE,  # in the break
        OPEN + 5 * MINUTE,  # after all
    ]
    assert block.fill(frame(*(("A", start, 5.0) for start in starts))) == 5
    assert np.argwhere(block.present).tolist() == [[0, 4]]


def test_no_bars_leave_the_block_as_it_was() -> None:
    block = Block.empty(("A",), [TODAY], ONE_MINUTE)
    assert block.fill(frame()) == 0
    assert block.fill(frame(("A", 0, 1.0))) == 1
    assert not block.present.any()


def test_a_symbol_that_the_block_lacks_is_an_error_that_guesses() -> None:
    block = Block.empty(("AAPL", "MSFT"), [TODAY], ONE_MINUTE)
    with pytest.raises(SessionStoreError, match="no symbol 'AAPLE' \\(did you mean 'AAPL'"):
        block.fill(frame(("AAPLE", OPEN, 1.0)))
    assert not block.present.any()


def test_symbols_come_out_as_plain_text() -> None:
    block = Block.empty([Symbol.parse("BRK.B")], [TODAY], ONE_MINUTE)
    assert msgspec.json.encode(block.symbols) == b'["BRK.B"]'


def test_the_readonly_block_is_the_same_memory_that_nobody_can_write() -> None:
    block = Block.empty(("A",), [TODAY], ONE_MINUTE)
    readonly = block.readonly()
    for name in ("starts", "ends", "regular", "values", "present", "flags"):
        array = getattr(readonly, name)
        assert np.shares_memory(array, getattr(block, name))
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    block.fill(frame(("A", OPEN, 5.0)))
    assert readonly.values[0, 0, 1] == 5


def test_a_copy_is_written_without_the_original_and_counts_for_itself() -> None:
    block = Block.empty(("A",), [TODAY], ONE_MINUTE)
    block.fill(frame(("A", OPEN, 5.0)))
    writes = Writes()
    copy = replace(block, n=np.ones((1, 4), np.int32)).copy(writes)
    for array in (copy.values, copy.present, copy.flags, copy.n):
        assert array is not None
        array[..., 1] = 7
    assert block.values[:, 0, 1].tolist() == [5, 8, 4, 7, 50]
    assert copy.writes is writes
    assert not np.shares_memory(copy.flags, block.flags)


@pytest.mark.parametrize("interval", ["1h", "2m"])
def test_an_interval_that_does_not_divide_the_hours_is_an_error(interval: str) -> None:
    """With 1h no bar would have a slot: the session opens at half past."""
    with pytest.raises(IntervalError, match=f"{interval} bars do not fit the session 2018-11-23"):
        Block.empty(("A",), [TODAY], Interval.parse(interval))


def test_intervals_that_divide_the_hours_make_their_own_slots() -> None:
    session = Session(TODAY.date, (Segment(OPEN, OPEN + 90 * MINUTE, "regular"),))
    assert len(Block.empty((), [session], Interval.parse("30m")).starts) == 3
    assert len(Block.empty((), [session], Interval.parse("15s")).starts) == 360


def test_a_read_is_repeated_until_no_write_overlaps_it() -> None:
    writes = Writes()
    answers = iter(["torn", "torn", "whole"])
    write = writes.under_way()
    write.__enter__()  # under way before the first read begins, over before the second ends

    def read() -> str:
        answer = next(answers)
        if writes.count == 1 and reads:
            write.__exit__(None, None, None)
        reads.append(answer)
        return answer

    reads: list[str] = []
    assert writes.consistent(read) == "whole"
    assert reads == ["torn", "torn", "whole"]


def test_a_read_that_a_whole_write_interrupts_is_repeated() -> None:
    writes = Writes()
    reads: list[int] = []

    def read() -> int:
        if not reads:
            with writes.under_way():
                pass
        reads.append(1)
        return len(reads)

    assert writes.consistent(read) == 2


def test_a_write_that_fails_does_not_stop_readers_for_ever() -> None:
    writes = Writes()
    with pytest.raises(ZeroDivisionError), writes.under_way():
        _ = 1 // 0
    assert writes.consistent(lambda: "read") == "read"
