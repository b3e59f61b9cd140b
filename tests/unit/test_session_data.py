"""The session store: what it promises beyond the answers that the model checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from stream_coord.bars import FILLED, SYNTHETIC, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import SessionStoreError, SymbolError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import Arrival, SessionData

OPEN = parse_moment("2018-11-23T14:30:00Z")
TODAY = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 5 * MINUTE, "regular"),))
TOMORROW = Session(
    date(2018, 11, 26), (Segment(OPEN + 4320 * MINUTE, OPEN + 4325 * MINUTE, "regular"),)
)
SYMBOLS = ("AAPL", "MSFT")


def flat(price: float, volume: float = 1.0) -> tuple[float, ...]:
    return (price, price, price, price, volume)


def frame(*rows: tuple[str, int, float]) -> pl.DataFrame:
    bars = [(symbol, start, *flat(price)) for symbol, start, price in rows]
    return pl.DataFrame(bars, schema=frame_schema(), orient="row")


def minute(n: int) -> int:
    """Return the start of a session's minute, counted from 0."""
    return OPEN + n * MINUTE


@pytest.fixture
def data() -> SessionData:
    """Return a store with AAPL in minutes 0, 1, 2 and MSFT in 0 and 2, at the end of minute 2."""
    data = SessionData(SYMBOLS, TODAY)
    data.advance_to(minute(3))
    for n in range(3):
        data.add_bar("AAPL", minute(n), flat(10.0 + n))
        if n != 1:
            data.add_bar("MSFT", minute(n), flat(20.0 + n))
    data.drain_updates()
    return data


@pytest.fixture
def replay() -> SessionData:
    """Return a replaying store with AAPL in minutes 0, 1, 3, 4, at the end of minute 2."""
    data = SessionData(SYMBOLS, TODAY)
    block = Block.empty(SYMBOLS, [TODAY], Interval(MINUTE))
    block.fill(frame(*(("AAPL", minute(n), 10.0 + n) for n in (0, 1, 3, 4))))
    data.start_session(TODAY, block)
    data.advance_to(minute(3))
    return data


class TestWrongCalls:
    @pytest.mark.parametrize(
        "call",
        [
            lambda data: data.latest("AAPLE"),
            lambda data: data.latest_many(["AAPL", "AAPLE"]),
            lambda data: data.last_n("AAPLE", 1),
            lambda data: data.since("AAPLE", 0),
            lambda data: data.window("AAPLE", 1),
            lambda data: data.count("AAPLE"),
            lambda data: data.metrics("AAPLE"),
            lambda data: data.add_bar("AAPLE", OPEN, flat(1)),
            lambda data: data.add_bars_batch(frame(("AAPL", OPEN, 1.0), ("AAPLE", OPEN, 1.0))),
        ],
    )
    def test_an_unknown_symbol_is_an_error_that_guesses(
        self, data: SessionData, call: Callable[[SessionData], object]
    ) -> None:
        expected = r"the session has no symbol 'AAPLE' \(did you mean 'AAPL'\?\)"
        with pytest.raises(SessionStoreError, match=expected):
            call(data)
        assert data.latest("AAPL") is not None
        assert not data.has_updates

    @pytest.mark.parametrize(
        "call",
        [
            lambda data: data.window("AAPL", 2, "closed"),
            lambda data: data.cross_section("closed"),
        ],
    )
    def test_an_unknown_field_is_an_error_that_guesses_and_lists(
        self, data: SessionData, call: Callable[[SessionData], object]
    ) -> None:
        with pytest.raises(SessionStoreError, match=r"'closed' \(did you mean 'close'") as caught:
            call(data)
        assert caught.value.hint == "Fields are open, high, low, close, volume."

    @pytest.mark.parametrize(
        "call",
        [
            lambda data: data.last_n("AAPL", -1),
            lambda data: data.window("AAPL", -1),
            lambda data: data.cross_section(back=-1),
        ],
    )
    def test_a_negative_number_is_an_error(
        self, data: SessionData, call: Callable[[SessionData], object]
    ) -> None:
        with pytest.raises(SessionStoreError, match=r"is -1; it cannot be negative"):
            call(data)

    def test_a_text_that_is_no_symbol_is_refused_at_the_door(self) -> None:
        with pytest.raises(SymbolError, match=r"'\.\./etc' is not a symbol"):
            SessionData(["AAPL", "../etc"], TODAY)

    @pytest.mark.parametrize("values", [(1.0, 1.0, 1.0, 1.0), (), (*flat(1), 1.0)])
    def test_a_bar_of_another_number_of_values_is_refused(
        self, data: SessionData, values: tuple[float, ...]
    ) -> None:
        with pytest.raises(SessionStoreError, match="a bar has 5 values: open, high, low"):
            data.add_bar("AAPL", minute(3), values)

    @pytest.mark.parametrize(
        "values",
        [
            (10.0, 9.0, 9.0, 9.0, 1.0),  # high below the open
            (9.0, 9.0, 9.0, 10.0, 1.0),  # high below the close
            (10.0, 11.0, 10.5, 11.0, 1.0),  # low above the open
            (11.0, 11.0, 10.5, 10.0, 1.0),  # low above the close
            (10.0, 10.0, 10.0, 10.0, -1.0),
            (float("nan"), 10.0, 10.0, 10.0, 1.0),
            (10.0, float("inf"), 10.0, 10.0, 1.0),
            (10.0, 10.0, 10.0, 10.0, float("nan")),
        ],
    )
    def test_values_that_no_bar_has_are_refused_by_name(
        self, data: SessionData, values: tuple[float, ...]
    ) -> None:
        with pytest.raises(SessionStoreError, match=r"no bar has these values: AAPL \{'open': "):
            data.add_bar("AAPL", minute(3), values)

    def test_the_bad_bar_of_a_batch_is_the_one_that_is_named(self, data: SessionData) -> None:
        bars = frame(("AAPL", minute(3), 1.0), ("MSFT", minute(3), 2.0))
        bars = bars.with_columns(volume=pl.Series([1.0, -1.0]))
        with pytest.raises(SessionStoreError, match=r"MSFT \{'open': 2.0, .* 'volume': -1.0\}"):
            data.add_bars_batch(bars)

    def test_a_block_of_something_else_is_refused_and_changes_nothing(
        self, data: SessionData
    ) -> None:
        others = [
            Block.empty(SYMBOLS, [TOMORROW], Interval(MINUTE // 2)),
            Block.empty(SYMBOLS, [TODAY], Interval(MINUTE)),
            Block.empty(SYMBOLS, [TOMORROW, TODAY], Interval(MINUTE)),
        ]
        for block in others:
            with pytest.raises(SessionStoreError, match="the block is of another"):
                data.start_session(TOMORROW, block)
        assert (data.session, data.count("AAPL")) == (TODAY, 3)

    def test_the_symbols_of_a_session_are_those_of_its_block(self, data: SessionData) -> None:
        block = Block.empty(("AAPL", "NEW"), [TOMORROW], Interval(MINUTE))
        block.values[:, 1, 0], block.present[1, 0] = 7.0, True
        data.start_session(TOMORROW, block)
        data.advance_to(TOMORROW.open + MINUTE)
        assert data.symbols == ("AAPL", "NEW")
        assert data.cross_section().tolist()[1] == data.last_n("NEW", 1).close[0] == 7.0
        with pytest.raises(SessionStoreError, match="no symbol 'MSFT'"):
            data.count("MSFT")

    def test_printing_bars_shows_nothing_of_what_is_to_come(self, data: SessionData) -> None:
        assert repr(data.last_n("AAPL", 2)) == "<2 1m bars of AAPL>"


class TestTime:
    def test_a_bar_is_visible_at_its_end_and_not_a_microsecond_before(self) -> None:
        data = SessionData(SYMBOLS, TODAY)
        data.add_bar("AAPL", OPEN, flat(10.0))
        data.advance_to(minute(1) - 1)
        assert (data.latest("AAPL"), data.count("AAPL")) == (None, 0)
        assert len(data.window("AAPL", 9)) == len(data.last_n("AAPL", 9)) == 0
        assert np.isnan(data.cross_section()).all()
        data.advance_to(minute(1))
        bar = data.latest("AAPL")
        assert bar is not None
        assert (bar.start, bar.end, bar.close) == (OPEN, OPEN + MINUTE, 10.0)
        assert data.window("AAPL", 9).tolist() == [10.0]

    def test_a_new_session_begins_with_nothing_of_the_old_one(self, data: SessionData) -> None:
        data.add_bar("MSFT", minute(1), flat(5.0))
        data.start_session(TOMORROW)
        assert (data.session, data.now) == (TOMORROW, TOMORROW.open)
        assert data.latest_many() == {"AAPL": None, "MSFT": None}
        assert data.drain_updates() == []
        assert data.metrics("AAPL").quality is None

    def test_history_is_visible_from_the_start(self) -> None:
        block = Block.empty(SYMBOLS, [TODAY, TOMORROW], Interval(MINUTE))
        block.fill(frame(("AAPL", minute(1), 11.0), ("AAPL", minute(4), 14.0)))
        data = SessionData(SYMBOLS, TODAY)
        data.start_session(TOMORROW, block)
        assert data.last_n("AAPL", 9).close.tolist() == [11.0, 14.0]
        assert data.window("AAPL", 2).tolist()[1] == 14.0
        assert (data.count("AAPL"), data.metrics("AAPL").bars) == (2, 0)

    def test_bars_outside_regular_hours_are_not_expected(self) -> None:
        session = Session(
            TODAY.date,
            (Segment(OPEN - 2 * MINUTE, OPEN, "pre"), Segment(OPEN, OPEN + MINUTE, "regular")),
        )
        data = SessionData(SYMBOLS, session)
        data.add_bar("AAPL", OPEN - MINUTE, flat(10.0, 5.0))
        data.advance_to(OPEN)
        before_the_open = data.metrics("AAPL")
        assert (before_the_open.bars, before_the_open.volume) == (1, 5.0)
        assert (before_the_open.expected, before_the_open.quality) == (0, None)
        data.advance_to(OPEN + MINUTE)
        assert (data.metrics("AAPL").expected, data.metrics("AAPL").quality) == (1, 0.0)


class TestViews:
    def test_nobody_writes_through_what_is_handed_out(self, data: SessionData) -> None:
        bars = data.last_n("AAPL", 2)
        arrays: list[NDArray[np.generic]] = [
            bars.start,
            bars.open,
            bars.close,
            bars.volume,
            bars.flags,
            data.window("AAPL", 2, "high"),
            data.cross_section("low"),
        ]
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1

    def test_bars_without_a_hole_are_a_view_and_with_one_a_copy(self, data: SessionData) -> None:
        window = data.window("AAPL", 3)
        assert np.shares_memory(data.last_n("AAPL", 3).close, window)
        assert np.shares_memory(data.since("AAPL", minute(1)).close, window)
        with_hole = data.last_n("MSFT", 2)
        assert with_hole.close.tolist() == [20.0, 22.0]
        assert not np.shares_memory(with_hole.close, data.window("MSFT", 3))
        assert np.shares_memory(data.last_n("MSFT", 1).close, data.window("MSFT", 3))

    def test_a_hole_that_was_filled_is_no_hole_any_more(self, data: SessionData) -> None:
        assert data.last_n("MSFT", 3).close.tolist() == [20.0, 22.0]
        data.add_bar("MSFT", minute(1), flat(21.0))
        assert data.last_n("MSFT", 3).close.tolist() == [20.0, 21.0, 22.0]
        assert np.shares_memory(data.last_n("MSFT", 3).close, data.window("MSFT", 3))

    def test_the_latest_bar_is_made_once_a_minute(self, data: SessionData) -> None:
        before = data.latest("AAPL")
        assert data.latest("AAPL") is before
        data.add_bar("AAPL", minute(2), flat(13.0))
        after = data.latest("AAPL")
        assert after is not None
        assert after.close == 13.0

    def test_bars_are_indexed_from_both_ends_and_not_beyond(self, data: SessionData) -> None:
        bars = data.last_n("MSFT", 5)
        assert [bars[0].close, bars[1].close, bars[-1].close, bars[-2].close] == [20, 22, 22, 20]
        for position in (2, -3):
            with pytest.raises(IndexError, match=f"bar {position} of 2"):
                bars[position]

    def test_symbols_come_out_as_plain_text(self, data: SessionData) -> None:
        bar = data.latest("AAPL")
        assert bar is not None
        texts = [*data.symbols, *data.latest_many(), bar.symbol, data.last_n("AAPL", 1)[0].symbol]
        assert {type(text) for text in texts} == {str}
        assert b'"AAPL"' in msgspec.json.encode({bar.symbol: bar, "metrics": data.metrics("AAPL")})


class TestArrivals:
    def test_a_bar_of_the_minute_that_just_ended_is_no_update(self, data: SessionData) -> None:
        data.advance_to(minute(4))
        assert data.add_bar("AAPL", minute(3), flat(13.0)) is Arrival.ADDED
        assert not data.has_updates
        assert data.add_bar("AAPL", minute(3), flat(14.0)) is Arrival.REVISED
        assert [bar.close for bar in data.drain_updates()] == [14.0]

    def test_in_a_replay_it_is_one_because_that_minute_was_delivered(
        self, replay: SessionData
    ) -> None:
        assert replay.add_bar("MSFT", minute(2), flat(22.0), FILLED) is Arrival.LATE
        (bar,) = replay.drain_updates()
        assert (bar.symbol, bar.start, bar.flags) == ("MSFT", minute(2), FILLED)

    def test_a_replay_refuses_the_minutes_that_it_brings_itself(self, replay: SessionData) -> None:
        with pytest.raises(SessionStoreError, match="a replay brings the bars"):
            replay.add_bar("MSFT", minute(3), flat(22.0))
        late = frame(("AAPL", minute(2), 1.0), ("AAPL", minute(3), 1.0))
        with pytest.raises(SessionStoreError, match="a replay brings the bars"):
            replay.add_bars_batch(late)
        assert (replay.count("AAPL"), replay.count("MSFT")) == (2, 0)
        assert not replay.has_updates

    def test_what_was_added_in_a_replay_is_in_the_block_that_is_measured(
        self, replay: SessionData
    ) -> None:
        replay.add_bar("AAPL", minute(2), flat(12.0))
        replay.advance_to(minute(5))
        assert replay.last_n("AAPL", 5).close.tolist() == [10, 11, 12, 13, 14]

    def test_a_real_bar_takes_the_place_of_a_synthetic_one_of_the_same_values(
        self, data: SessionData
    ) -> None:
        assert data.add_bar("MSFT", minute(1), flat(20.0, 0.0), SYNTHETIC) is Arrival.LATE
        assert (data.metrics("MSFT").bars, data.metrics("MSFT").present) == (3, 2)
        assert data.add_bar("MSFT", minute(1), flat(20.0, 0.0)) is Arrival.REVISED
        assert data.metrics("MSFT").present == 3
        assert [bar.flags for bar in data.drain_updates()] == [SYNTHETIC, 0]

    def test_a_duplicate_of_a_filled_bar_leaves_it_filled(self, data: SessionData) -> None:
        data.add_bar("MSFT", minute(1), flat(21.0), FILLED)
        assert data.add_bar("MSFT", minute(1), flat(21.0)) is Arrival.DUPLICATE
        assert data.last_n("MSFT", 2).flags.tolist() == [FILLED, 0]

    def test_every_arrival_of_a_minute_is_an_update_of_its_own(self, data: SessionData) -> None:
        data.add_bar("MSFT", minute(1), flat(1.0))
        data.add_bar("AAPL", minute(0), flat(2.0))
        data.add_bar("MSFT", minute(1), flat(3.0))
        updates = [(bar.symbol, bar.close) for bar in data.drain_updates()]
        assert updates == [("MSFT", 1.0), ("AAPL", 2.0), ("MSFT", 3.0)]

    def test_a_bar_of_no_minute_of_the_session_is_not_kept(self, data: SessionData) -> None:
        for start in (OPEN - MINUTE, OPEN + 5 * MINUTE, OPEN + 1, 0, TOMORROW.open):
            assert data.add_bar("AAPL", start, flat(1.0)) is Arrival.OUT_OF_SESSION
        assert data.add_bars_batch(frame(("AAPL", 0, 1.0))) == {Arrival.OUT_OF_SESSION: 1}
        assert data.count("AAPL") == 3

    def test_an_empty_batch_is_nothing(self, data: SessionData) -> None:
        assert data.add_bars_batch(frame()) == {}
