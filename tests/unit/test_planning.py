"""Which sessions and which symbols a run is about, by what a store holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from stream_coord.bars import frame_schema, parse_symbols
from stream_coord.calendars import Calendar, Session
from stream_coord.calendars.schedule import MISSING, Schedule, day_number
from stream_coord.errors import CalendarError, NoBarsError, StreamCoordError, UsageError
from stream_coord.interval import DAY, HOUR, MINUTE, Interval
from stream_coord.planning import (
    Universe,
    choose_sessions,
    choose_universe,
    current_session,
    next_to_replay,
    stored_sessions,
)
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

ONE_MINUTE = Interval(MINUTE)
MONDAY = date(2018, 11, 19)
Spans = Mapping[str, tuple[int, int]]
"""Start of each symbol's first and last bar."""
StoreOf = Callable[[Spans], BarStore]


def day(n: int) -> date:
    """Return a date, counted from a Monday."""
    return MONDAY + timedelta(n)


def at(n: int, hour: int) -> int:
    """Return UTC microseconds of an hour of a day, counted from Monday."""
    return day_number(day(n)) * DAY + hour * HOUR


FIRST_WEEK: Spans = {"A": (at(1, 14), at(2, 20)), "B": (at(2, 15), at(4, 20))}
NIGHT_ONLY: Spans = {"A": (at(1, 2), at(1, 3))}


@pytest.fixture(scope="module")
def calendar() -> Calendar:
    """Return a calendar that trades 14:00 to 21:00 UTC, two weeks long, Thursday a holiday."""
    numbers = (0, 1, 2, 4, 7, 8, 9, 10, 11)
    times = [[MISSING, at(n, 14), MISSING, MISSING, at(n, 21), MISSING] for n in numbers]
    days = [day_number(day(n)) for n in numbers]
    return Calendar("TEST", "regular", Schedule("UTC", np.array(days), np.array(times)), "1", "")


@pytest.fixture(scope="module")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> StoreOf:
    """Return a function that makes a store with the first and last bars of symbols."""

    def make(spans: Spans) -> BarStore:
        store = open_store("delta:bars", tmp_path_factory.mktemp("store"), create=True)
        keys = [(symbol, start) for symbol in sorted(spans) for start in sorted(set(spans[symbol]))]
        rows = [(*key, *(1.0,) * 5) for key in keys]
        if rows:
            store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))
        return store

    return make


@pytest.fixture(scope="module")
def first_week(store_of: StoreOf) -> BarStore:
    return store_of(FIRST_WEEK)


def days_of(sessions: Iterable[Session]) -> list[int]:
    """Return the sessions' days, counted from Monday."""
    return [(session.date - MONDAY).days for session in sessions]


class TestSessions:
    @pytest.mark.parametrize(
        ("first", "last", "expected"),
        [
            (0, 11, [0, 1, 2, 4, 7, 8, 9, 10, 11]),
            (2, 7, [2, 4, 7]),
            (3, 4, [4]),
            (1, 1, [1]),
            (None, None, [1, 2, 4]),  # what is stored
            (2, None, [2, 4]),
            (None, 2, [1, 2]),
            (0, None, [0, 1, 2, 4]),
            (None, 8, [1, 2, 4, 7, 8]),
            (8, None, [8]),  # nothing of it is stored, but the user asked for it
            (None, 0, [0]),
        ],
    )
    def test_a_missing_end_is_the_first_or_last_stored_session(
        self,
        calendar: Calendar,
        first_week: BarStore,
        first: int | None,
        last: int | None,
        expected: list[int],
    ) -> None:
        dates = [None if n is None else day(n) for n in (first, last)]
        assert days_of(choose_sessions(calendar, first_week, ONE_MINUTE, *dates)) == expected

    def test_dates_that_are_both_given_need_no_bars(
        self, calendar: Calendar, store_of: StoreOf
    ) -> None:
        assert days_of(choose_sessions(calendar, store_of({}), ONE_MINUTE, day(1), day(2))) == [
            1,
            2,
        ]

    def test_a_range_the_wrong_way_round_is_an_error(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        with pytest.raises(UsageError, match="the range 2018-11-21 to 2018-11-20 is empty"):
            choose_sessions(calendar, first_week, ONE_MINUTE, day(2), day(1))

    def test_a_range_without_a_session_names_the_next(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        with pytest.raises(CalendarError, match="TEST has no session from 2018-11-24") as error:
            choose_sessions(calendar, first_week, ONE_MINUTE, day(5), day(6))
        assert error.value.hint == "The next one is on 2018-11-26."

    @pytest.mark.parametrize("spans", [{}, NIGHT_ONLY])
    def test_an_open_end_needs_bars(
        self, calendar: Calendar, store_of: StoreOf, spans: Spans
    ) -> None:
        store = store_of(spans)
        for dates in ((None, None), (day(1), None), (None, day(1))):
            with pytest.raises(NoBarsError, match="holds no 1m bars of any session"):
                choose_sessions(calendar, store, ONE_MINUTE, *dates)
        with pytest.raises(NoBarsError, match="holds no 1m bars of any session"):
            next_to_replay(calendar, store, ONE_MINUTE)

    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            ((at(1, 14), at(2, 20)), [1, 2]),
            ((at(1, 21), at(2, 13)), []),  # from a close to before the next open
            ((at(1, 21), at(2, 14)), [2]),
            ((at(1, 20), at(2, 13)), [1]),
            ((at(2, 22), at(7, 10)), [4]),  # a holiday and a weekend among them
        ],
    )
    def test_stored_sessions_are_those_that_trade_between_the_first_and_last_bar(
        self, calendar: Calendar, store_of: StoreOf, span: tuple[int, int], expected: list[int]
    ) -> None:
        store = store_of({"A": span})
        assert days_of(stored_sessions(calendar, store, ONE_MINUTE)) == expected

    @pytest.mark.parametrize(("oldest", "following"), [(1, 2), (2, 4), (4, 7)])
    def test_the_next_to_replay_is_the_one_after_the_oldest_stored(
        self, calendar: Calendar, store_of: StoreOf, oldest: int, following: int
    ) -> None:
        store = store_of({"A": (at(oldest, 14), at(9, 20)), "B": (at(8, 14), at(8, 15))})
        assert days_of([current_session(calendar, store, ONE_MINUTE, None)]) == [oldest]
        assert days_of([next_to_replay(calendar, store, ONE_MINUTE)]) == [following]

    @pytest.mark.parametrize(("cursor", "following"), [(0, 1), (2, 4), (8, 9)])
    def test_where_there_is_a_cursor_it_is_the_current_session_whatever_is_stored(
        self, calendar: Calendar, store_of: StoreOf, cursor: int, following: int
    ) -> None:
        at, store = str(day(cursor)), store_of({})
        assert days_of([current_session(calendar, store, ONE_MINUTE, at)]) == [cursor]
        assert days_of([next_to_replay(calendar, store, ONE_MINUTE, at)]) == [following]

    def test_a_cursor_at_a_date_that_is_no_session_any_more_is_an_error(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        with pytest.raises(
            CalendarError, match=r"current session is 2018-11-22.*TEST has no session on 2018-11-22"
        ) as error:
            current_session(calendar, first_week, ONE_MINUTE, str(day(3)))
        hint = str(error.value.hint)
        assert "[calendar]" in hint
        assert "The nearest sessions: 2018-11-21, 2018-11-23." in hint

    def test_dates_beyond_any_calendar_are_wrong_dates_like_others(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        for dates in ((date(1, 1, 1), date(9999, 12, 31)), (day(20), day(21)), (day(20), None)):
            with pytest.raises(StreamCoordError):
                choose_sessions(calendar, first_week, ONE_MINUTE, *dates)


class TestUniverse:
    def test_what_is_listed_is_expected_always(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        sessions = calendar.sessions(day(0), day(4))
        listed = parse_symbols(["b", "B", "A", "A.X", "B"])
        universe = choose_universe(first_week, ONE_MINUTE, sessions, listed)
        assert universe.symbols == ("A", "A.X", "B", "b")
        assert {type(symbol) for symbol in universe.symbols} == {str}
        for session in sessions:
            assert universe.expected_in(session).tolist() == [True] * 4

    def test_what_is_listed_and_not_stored_is_said(
        self, calendar: Calendar, store_of: StoreOf
    ) -> None:
        store = store_of({"MSFT": (at(0, 14), at(0, 15))})
        sessions = calendar.sessions(day(0), day(1))
        universe = choose_universe(store, ONE_MINUTE, sessions, ["MSFTT", "MSFT"])
        note = "The store has no bars at all of MSFTT (did you mean 'MSFT'?)."
        assert universe.notes == (note,)

    def test_what_is_stored_is_expected_from_its_first_bar_to_its_last(
        self, calendar: Calendar, first_week: BarStore
    ) -> None:
        sessions = calendar.sessions(day(0), day(4))
        universe = choose_universe(first_week, ONE_MINUTE, sessions, [])
        assert (universe.symbols, universe.notes) == (("A", "B"), ())
        held = [
            dict(
                zip(
                    universe.symbols_in(session),
                    universe.expected_in(session).tolist(),
                    strict=True,
                )
            )
            for session in sessions
        ]
        assert held == [{}, {"A": True}, {"A": True, "B": True}, {"A": False, "B": True}]

    def test_only_symbols_with_bars_around_these_sessions_belong(
        self, calendar: Calendar, store_of: StoreOf
    ) -> None:
        store = store_of(
            {
                "GONE": (at(0, 14), at(0, 20)),
                "HERE": (at(0, 14), at(4, 20)),
                "LAST": (at(1, 14), at(2, 14)),
                "LATER": (at(7, 14), at(8, 20)),
                "NEXT": (at(2, 21), at(4, 20)),  # begins just when the session ends
                "SAME": (at(2, 20), at(2, 20)),
            }
        )
        universe = choose_universe(store, ONE_MINUTE, calendar.sessions(day(2), day(2)), [])
        assert universe.symbols == ("HERE", "LAST", "SAME")
        (note,) = universe.notes
        assert note.startswith("Left out, because their stored bars end before 2018-11-21: GONE. ")

    def test_many_left_out_are_counted(self, calendar: Calendar, store_of: StoreOf) -> None:
        gone = {f"G{n}": (at(0, 14), at(0, 15)) for n in range(8)}
        store = store_of({"HERE": (at(2, 14), at(2, 15)), **gone})
        universe = choose_universe(store, ONE_MINUTE, calendar.sessions(day(2), day(2)), [])
        assert "G0, G1, G2, G3, G4 and 3 more. " in universe.notes[0]

    @pytest.mark.parametrize(
        ("spans", "hint"),
        [
            ({}, "It holds none at all: import some with `sc import`."),
            (FIRST_WEEK, "It holds bars of 2018-11-20 to 2018-11-23 (UTC dates)."),
        ],
    )
    def test_no_symbol_at_all_is_an_error_that_says_what_there_is(
        self, calendar: Calendar, store_of: StoreOf, spans: Spans, hint: str
    ) -> None:
        sessions = calendar.sessions(day(8), day(9))
        with pytest.raises(NoBarsError, match="no 1m bars of 2018-11-27 to 2018-11-28") as error:
            choose_universe(store_of(spans), ONE_MINUTE, sessions, [])
        assert error.value.hint == hint

    def test_a_bar_of_the_first_minute_counts_and_one_at_the_end_does_not(
        self, calendar: Calendar
    ) -> None:
        (session,) = calendar.sessions(day(0), day(0))
        firsts = (session.end, session.end - MINUTE, session.start - DAY, session.start - DAY)
        lasts = (session.end, session.end, session.start, session.start - MINUTE)
        universe = Universe(("A", "B", "C", "D"), firsts, lasts)
        assert universe.symbols_in(session) == ("B", "C", "D")
        assert universe.expected_in(session).tolist() == [True, True, False]

    def test_a_universe_without_extents_expects_all(self, calendar: Calendar) -> None:
        (session,) = calendar.sessions(day(0), day(0))
        assert Universe(("A", "B")).expected_in(session).tolist() == [True, True]
