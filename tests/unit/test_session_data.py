"""The session store: what it promises beyond the answers that the model checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from stream_coord.bars import FILLED, SYNTHETIC, TRUNCATED, Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.gaps import NO_TRADE, UNRESOLVED
from stream_coord.errors import IntervalError, SessionStoreError, SymbolError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import Arrival, SessionData
from stream_coord.session.series import Kept
from stream_coord.session.views import bar_at

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
            lambda data: data.latest_bar("AAPLE", "2m"),
            lambda data: data.last_n("AAPLE", 1, "2m"),
            lambda data: data.window("AAPLE", 1, interval="2m"),
            lambda data: data.in_progress("AAPLE", "2m"),
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
            lambda data: data.window("AAPL", 2, "closed", "2m"),
            lambda data: data.cross_section("closed", interval="2m"),
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
            lambda data: data.last_n("AAPL", -1, "2m"),
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

    def test_what_was_added_in_a_replay_is_read_and_not_told_of(self, replay: SessionData) -> None:
        before = replay.last_n("AAPL", 2)
        replay.add_bar("AAPL", minute(2), flat(12.0))
        replay.add_bar("AAPL", minute(0), flat(9.0))
        replay.advance_to(minute(5))
        assert replay.last_n("AAPL", 5).close.tolist() == [9, 11, 12, 13, 14]
        assert replay.metrics("AAPL").present == 5
        told = replay._pristine.base
        assert told.present[0].tolist() == [True, True, False, True, True]
        assert told.values[3, 0, 0] == before.close[0] == 10.0

    def test_a_duplicate_makes_no_copy_of_a_replays_bars(self, replay: SessionData) -> None:
        assert replay.add_bar("AAPL", minute(0), flat(10.0)) is Arrival.DUPLICATE
        assert np.shares_memory(replay.window("AAPL", 3), replay._pristine.base.values)
        replay.add_bar("AAPL", minute(0), flat(11.0))
        assert not np.shares_memory(replay.window("AAPL", 3), replay._pristine.base.values)

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


class TestDerivedBars:
    """Two-minute bars of five minutes: 0-1, 2-3, and 4 alone."""

    def test_one_is_visible_at_its_end_and_not_a_microsecond_before(
        self, replay: SessionData
    ) -> None:
        replay.advance_to(minute(4) - 1)
        assert replay.last_n("AAPL", 9, "2m").close.tolist() == [11.0]
        replay.advance_to(minute(4))
        bar = replay.latest_bar("AAPL", "2m")
        assert bar == Bar("AAPL", "2m", minute(2), minute(4), 13, 13, 13, 13, 1, 0, 1, 2)

    def test_the_last_one_is_cut_by_the_close(self, replay: SessionData) -> None:
        replay.advance_to(minute(5) - 1)
        assert replay.count("AAPL", "2m") == 2
        replay.advance_to(minute(5))
        bars = replay.since("AAPL", 0, "2m")
        assert bars.end.tolist() == [minute(2), minute(4), minute(5)]
        assert (bars.n.tolist(), bars.n_expected.tolist()) == ([2, 1, 1], [2, 2, 1])
        assert bars.flags.tolist() == [0, 0, TRUNCATED]
        assert repr(bars) == "<3 2m bars of AAPL>"

    def test_a_day_is_visible_at_the_close_by_the_date_of_its_session(
        self, replay: SessionData
    ) -> None:
        replay.advance_to(minute(5) - 1)
        assert replay.latest_bar("AAPL", "1d") is None
        replay.advance_to(minute(5))
        day = parse_moment("2018-11-23T00:00:00Z")
        expected = Bar("AAPL", "1d", day, minute(5), 10, 14, 10, 14, 4, 0, 4, 5)
        assert replay.latest_many(interval="1d") == {"AAPL": expected, "MSFT": None}

    def test_the_one_in_progress_is_built_of_the_bars_seen_so_far(
        self, replay: SessionData
    ) -> None:
        assert replay.in_progress("AAPL", "2m") is None  # minute 2 has no bar
        replay.add_bar("AAPL", minute(2), flat(12.0))
        expected = Bar("AAPL", "2m", minute(2), minute(4), 12, 12, 12, 12, 1, 0, 1, 2)
        assert replay.in_progress("AAPL", "2m") == expected
        replay.advance_to(minute(4) - 1)
        assert replay.in_progress("AAPL", "2m") == expected
        replay.advance_to(minute(4))
        assert replay.in_progress("AAPL", "2m") is None
        day = replay.in_progress("AAPL", "1d")
        assert day is not None
        assert (day.open, day.close, day.end, day.n, day.n_expected) == (10, 13, minute(5), 4, 5)
        replay.advance_to(minute(5))
        assert replay.in_progress("AAPL", "1d") is None
        assert replay.in_progress("AAPL", "1m") is None

    def test_in_the_lunch_break_the_day_goes_on_and_nothing_shorter(self) -> None:
        halves = (Segment(OPEN, minute(3), "regular"), Segment(minute(9), minute(12), "regular"))
        data = SessionData(SYMBOLS, Session(TODAY.date, halves))
        data.add_bar("AAPL", minute(2), flat(12.0))
        data.advance_to(minute(5))
        assert data.in_progress("AAPL", "5m") is None
        day = data.in_progress("AAPL", "1d")
        assert day is not None
        assert (day.end, day.n, day.n_expected) == (minute(12), 1, 6)
        last = data.latest_bar("AAPL", "5m")
        assert last is not None
        assert (last.end, last.flags) == (minute(3), TRUNCATED)

    def test_the_base_interval_may_be_asked_for_by_name(self, data: SessionData) -> None:
        for name in ("1m", "60s", Interval(MINUTE)):
            assert data.latest_bar("AAPL", name) == data.latest("AAPL")
            assert list(data.last_n("MSFT", 2, name)) == list(data.last_n("MSFT", 2))
            assert data.cross_section(interval=name).tolist() == [12.0, 22.0]
        assert data._pristine.derived == {}

    def test_an_interval_is_known_by_all_its_names(self, replay: SessionData) -> None:
        closes = [replay.last_n("AAPL", 1, name).close[0] for name in ("120s", "2m")]
        assert closes == [11.0, 11.0]
        assert list(replay._pristine.derived) == [Interval(2 * MINUTE)]

    @pytest.mark.parametrize("interval", ["90s", "30s", Interval(0), Interval(2 * 1440 * MINUTE)])
    def test_an_interval_that_cannot_be_built_is_an_error(
        self, data: SessionData, interval: Interval | str
    ) -> None:
        with pytest.raises(
            SessionStoreError, match="they cannot be built of its 1m bars"
        ) as caught:
            data.count("AAPL", interval)
        assert caught.value.hint == "Ask for 1m, a whole multiple of it such as 2m, or 1d."
        with pytest.raises(SessionStoreError, match="cannot be built"):
            SessionData(SYMBOLS, TODAY, derived=[Interval(90_000_000)])

    def test_a_text_that_is_no_interval_is_an_error(self, data: SessionData) -> None:
        with pytest.raises(IntervalError, match="'hourly' is not an interval"):
            data.last_n("AAPL", 1, "hourly")

    def test_what_was_asked_for_once_stays_over_sessions(self, replay: SessionData) -> None:
        replay.activate("2m")
        replay.start_session(TOMORROW, Block.empty(SYMBOLS, [TODAY, TOMORROW], Interval(MINUTE)))
        assert list(replay._pristine.derived) == [Interval(2 * MINUTE)]

    def test_derived_bars_of_history_are_there_from_the_start(self) -> None:
        block = Block.empty(SYMBOLS, [TODAY, TOMORROW], Interval(MINUTE))
        block.fill(frame(("AAPL", minute(1), 11.0), ("AAPL", TOMORROW.open, 14.0)))
        data = SessionData(SYMBOLS, TODAY, derived=[Interval(2 * MINUTE)])
        data.start_session(TOMORROW, block)
        assert data.last_n("AAPL", 9, "2m").close.tolist() == [11.0]
        assert data.last_n("AAPL", 9, "1d").close.tolist() == [11.0]

    def test_nobody_writes_through_them(self, replay: SessionData) -> None:
        bars = replay.last_n("AAPL", 1, "2m")
        for array in (bars.start, bars.end, bars.close, bars.flags, bars.n, bars.n_expected):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            replay.last_n("AAPL", 1).n[0] = 2

    def test_without_a_hole_they_are_views(self, replay: SessionData) -> None:
        replay.advance_to(minute(5))
        window = replay.window("AAPL", 3, interval="2m")
        assert np.shares_memory(replay.last_n("AAPL", 3, "2m").close, window)

    def test_a_late_bar_rebuilds_its_bucket_and_the_update_follows_its_own(
        self, data: SessionData
    ) -> None:
        data.activate("2m")
        data.add_bar("MSFT", minute(1), flat(21.0))
        data.add_bar("MSFT", minute(2), flat(30.0))  # of a bucket that is not over
        updates = [(bar.interval, bar.start, bar.close, bar.n) for bar in data.drain_updates()]
        assert updates == [
            ("1m", minute(1), 21.0, 1),
            ("2m", minute(0), 21.0, 2),
            ("1m", minute(2), 30.0, 1),
        ]
        assert data.window("MSFT", 9, interval="2m").tolist() == [21.0]

    def test_a_derived_hole_that_was_filled_is_no_hole_any_more(self) -> None:
        empty = SessionData(SYMBOLS, TODAY)
        empty.advance_to(minute(4))
        assert len(empty.last_n("AAPL", 2, "2m")) == 0
        empty.add_bar("AAPL", minute(0), flat(1.0))
        empty.add_bar("AAPL", minute(2), flat(2.0))
        closes = empty.last_n("AAPL", 2, "2m").close
        assert closes.tolist() == [1.0, 2.0]
        assert np.shares_memory(closes, empty.window("AAPL", 2, interval="2m"))

    def test_the_bars_of_a_batch_come_before_what_is_rebuilt_of_them(
        self, data: SessionData
    ) -> None:
        data.activate("2m")
        data.add_bars_batch(frame(("AAPL", minute(0), 1.0), ("AAPL", minute(1), 2.0)))
        updates = [(bar.interval, bar.close) for bar in data.drain_updates()]
        assert updates == [("1m", 1.0), ("1m", 2.0), ("2m", 2.0)]

    def test_the_bar_of_the_minute_that_ends_rebuilds_without_an_update(
        self, data: SessionData
    ) -> None:
        data.activate("2m")
        data.advance_to(minute(4))
        assert data.add_bar("AAPL", minute(3), flat(13.0)) is Arrival.ADDED
        assert not data.has_updates
        assert data.window("AAPL", 1, interval="2m").tolist() == [13.0]


class TestUpkeep:
    """AAPL lacks minute 2, MSFT has nothing; two-minute bars are configured."""

    @pytest.fixture
    def replay(self) -> SessionData:
        """Return the replay at the end of minute 3."""
        data = SessionData(SYMBOLS, TODAY, derived=[Interval(2 * MINUTE)])
        block = Block.empty(SYMBOLS, [TODAY], Interval(MINUTE))
        block.fill(frame(*(("AAPL", minute(n), 10.0 + n) for n in (0, 1, 3, 4))))
        data.start_session(TODAY, block)
        data.advance_to(minute(4))
        return data

    @staticmethod
    def keep(data: SessionData, *cells: tuple[int, int, float], flags: int = FILLED) -> Kept:
        rows, slots, prices = zip(*cells, strict=True)
        values = np.array([flat(price) for price in prices]).T
        bits = np.full(len(cells), flags, np.uint8)
        return data.keep(np.array(rows), np.array(slots), values, bits)

    def test_fills_are_visible_and_told_of_by_symbol_time_and_interval(
        self, replay: SessionData
    ) -> None:
        replay.activate("1d")
        kept = self.keep(replay, (1, 1, 21.0), (0, 2, 12.0), (1, 0, 20.0))
        told = [(block.label, rows.tolist(), slots.tolist()) for block, rows, slots in kept.cells]
        # AAPL's bar of minutes 2 and 3 ends now and comes as a new one.
        assert told == [("1m", [0, 1, 1], [2, 0, 1]), ("2m", [1], [0])]
        updates = [(bar.symbol, bar.interval, bar.close) for bar in replay.drain_updates()]
        assert updates == [
            ("AAPL", "1m", 12.0),
            ("MSFT", "1m", 20.0),
            ("MSFT", "1m", 21.0),
            ("MSFT", "2m", 21.0),
        ]
        assert replay.last_n("AAPL", 2, "2m").n.tolist() == [2, 2]
        assert replay.last_n("AAPL", 4).flags.tolist() == [0, 0, FILLED, 0]
        latest = replay.latest("MSFT")
        assert latest is not None
        assert latest.close == 21.0

    def test_a_minute_to_come_is_refused(self, replay: SessionData) -> None:
        with pytest.raises(SessionStoreError, match="this one is still to come"):
            self.keep(replay, (1, 3, 1.0), (1, 4, 1.0))
        assert replay.count("MSFT") == 0
        assert not replay.has_updates

    def test_a_strategys_bars_change_nothing_of_what_is_told(self, replay: SessionData) -> None:
        replay.add_bar("AAPL", minute(2), flat(99.0))
        replay.add_bar("MSFT", minute(1), flat(98.0))
        replay.drain_updates()
        kept = self.keep(replay, (1, 0, 20.0))
        block, rows, slots = kept.cells[1]
        assert bar_at(block, int(rows[0]), int(slots[0])).close == 20.0
        assert [bar.close for bar in replay.drain_updates()] == [20.0, 98.0]
        assert replay.last_n("MSFT", 2).close.tolist() == [20.0, 98.0]
        told = replay._pristine.base
        assert told.present.sum(axis=1).tolist() == [4, 1]
        assert told.values[3, 0].tolist()[3:] == [13.0, 14.0]

    def test_a_synthetic_bar_never_takes_the_place_of_a_real_one(self, replay: SessionData) -> None:
        replay.add_bar("MSFT", minute(1), flat(21.0))
        replay.drain_updates()
        kept = self.keep(replay, (1, 1, 5.0), (0, 0, 5.0), flags=SYNTHETIC)
        assert replay.last_n("MSFT", 1).close.tolist() == [21.0]
        assert replay.last_n("AAPL", 9).close[0] == 10.0
        assert not replay.has_updates
        assert [rows.tolist() for _, rows, _ in kept.cells] == [[1], [1]]
        assert replay._pristine.base.flags[1, 1] == SYNTHETIC

    def test_an_interval_that_is_asked_for_later_is_derived_of_both(
        self, replay: SessionData
    ) -> None:
        replay.add_bar("MSFT", minute(1), flat(21.0))
        assert replay.count("MSFT", "3m") == 1
        (_, told) = replay._pristine.derived.values()
        assert (told.label, told.present.tolist()) == ("3m", [[True, True], [False, False]])

    def test_nothing_found_is_nothing_told(self, replay: SessionData) -> None:
        nothing = np.array([], np.int64)
        kept = replay.keep(nothing, nothing, np.empty((5, 0)), nothing.astype(np.uint8))
        assert kept.cells == []

    def test_what_is_known_of_a_minute_counts_until_a_bar_comes(self, replay: SessionData) -> None:
        states = np.array([NO_TRADE, UNRESOLVED, NO_TRADE], np.uint8)
        replay.note_states(np.array([1, 1, 1]), np.array([0, 1, 4]), states)
        metrics = replay.metrics("MSFT")
        found = metrics.missing, metrics.no_trade, metrics.unresolved, metrics.filled
        assert (metrics.expected, found) == (4, (2, 1, 1, 0))
        assert (metrics.quality, metrics.coverage) == (0.0, 25.0)
        self.keep(replay, (1, 0, 20.0))
        metrics = replay.metrics("MSFT")
        found = metrics.missing, metrics.no_trade, metrics.unresolved, metrics.filled
        assert (metrics.present, found) == (1, (2, 0, 1, 1))
        replay.advance_to(minute(5))
        assert (replay.metrics("MSFT").no_trade, replay.metrics("MSFT").coverage) == (1, 40.0)

    def test_minutes_in_grace_are_not_due_until_the_session_is_over(
        self, replay: SessionData
    ) -> None:
        replay.grace_micros = 90_000_000
        assert (replay.metrics("AAPL").expected, replay.metrics("AAPL").present) == (2, 2)
        assert replay.metrics("AAPL").bars == 3
        replay.advance_to(minute(5))
        assert (replay.metrics("AAPL").expected, replay.metrics("AAPL").present) == (5, 4)

    def test_what_is_known_shows_at_the_check_that_looks_after_the_minute(
        self, replay: SessionData
    ) -> None:
        replay.check_micros = 3 * MINUTE
        states = np.full(5, NO_TRADE, np.uint8)
        replay.note_states(np.full(5, 1), np.arange(5), states)
        seen = [(replay.metrics("MSFT").no_trade, replay.metrics("MSFT").missing)]
        replay.advance_to(minute(5))
        seen.append((replay.metrics("MSFT").no_trade, replay.metrics("MSFT").missing))
        assert seen == [(3, 1), (5, 0)]
