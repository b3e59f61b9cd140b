"""Which sessions are the trailing ones, and which minutes they have: answers written by hand.

The bars are made up; the times are UTC, as they follow from the exchanges' own holiday notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import frame_schema
from stream_coord.calendars import Calendar, open_calendar
from stream_coord.history import History
from stream_coord.interval import Interval
from stream_coord.loading import Loader
from stream_coord.planning import Universe
from stream_coord.session.data import SessionData
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

MINUTE = 60_000_000
ONE_MINUTE, ONE_HOUR, ONE_DAY = map(Interval.parse, ("1m", "60m", "1d"))
SYMBOLS = ("FULL", "LATE", "NEVER")
"""The second has bars of the newest two sessions of history alone, the third has none."""

Span = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """A session, the five before it, and what these have.

    `history` holds the segments of each session by its date, `minutes` and `hours` how many 1m
    and 60m bars each has.
    """

    today: str
    history: Mapping[str, tuple[Span, ...]]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    today_minutes: int = 390
    calendar: str = "NYSE"
    overrides: Mapping[str, object] = field(default_factory=dict)


def winter(day: str, close: str = "21:00") -> dict[str, tuple[Span, ...]]:
    """A New York day of winter time, 09:30 to 16:00 (or another close)."""
    return {day: ((f"{day} 14:30", f"{day} {close}"),)}


def summer(day: str) -> dict[str, tuple[Span, ...]]:
    """A New York day of summer time."""
    return {day: ((f"{day} 13:30", f"{day} 20:00"),)}


def hong_kong(day: str, *, half: bool = False) -> dict[str, tuple[Span, ...]]:
    """09:30 to 12:00 and 13:00 to 16:00 in Hong Kong, which is 8 hours ahead all year."""
    morning, afternoon = (f"{day} 01:30", f"{day} 04:00"), (f"{day} 05:00", f"{day} 08:00")
    return {day: (morning,) if half else (morning, afternoon)}


CASES = {
    "the Monday after Thanksgiving": Case(
        "2024-12-02",
        # 2024-11-28 is Thanksgiving; the day after it closes at 13:00.
        winter("2024-11-22")
        | winter("2024-11-25")
        | winter("2024-11-26")
        | winter("2024-11-27")
        | winter("2024-11-29", "18:00"),
        (390, 390, 390, 390, 210),
        (7, 7, 7, 7, 4),
    ),
    "the early close itself": Case(
        "2024-11-29",
        winter("2024-11-21")
        | winter("2024-11-22")
        | winter("2024-11-25")
        | winter("2024-11-26")
        | winter("2024-11-27"),
        (390,) * 5,
        (7,) * 5,
        today_minutes=210,
    ),
    "five sessions after the early close": Case(
        "2024-12-06",
        winter("2024-11-29", "18:00")
        | winter("2024-12-02")
        | winter("2024-12-03")
        | winter("2024-12-04")
        | winter("2024-12-05"),
        (210, 390, 390, 390, 390),
        (4, 7, 7, 7, 7),
    ),
    "clocks go forward on Sunday 2024-03-10": Case(
        "2024-03-13",
        winter("2024-03-06")
        | winter("2024-03-07")
        | winter("2024-03-08")
        | summer("2024-03-11")
        | summer("2024-03-12"),
        (390,) * 5,
        (7,) * 5,
    ),
    "clocks go back on Sunday 2024-11-03": Case(
        "2024-11-06",
        summer("2024-10-30")
        | summer("2024-10-31")
        | summer("2024-11-01")
        | winter("2024-11-04")
        | winter("2024-11-05"),
        (390,) * 5,
        (7,) * 5,
    ),
    "the first session of a year": Case(
        "2025-01-02",
        # Christmas Eve closes at 13:00, Christmas and New Year are holidays.
        winter("2024-12-24", "18:00")
        | winter("2024-12-26")
        | winter("2024-12-27")
        | winter("2024-12-30")
        | winter("2024-12-31"),
        (210, 390, 390, 390, 390),
        (4, 7, 7, 7, 7),
    ),
    "a day of mourning: closed on 2025-01-09": Case(
        "2025-01-10",
        winter("2025-01-02")
        | winter("2025-01-03")
        | winter("2025-01-06")
        | winter("2025-01-07")
        | winter("2025-01-08"),
        (390,) * 5,
        (7,) * 5,
    ),
    "Hong Kong: lunch breaks, and two half-days without one": Case(
        "2025-01-02",
        hong_kong("2024-12-23")
        | hong_kong("2024-12-24", half=True)
        | hong_kong("2024-12-27")
        | hong_kong("2024-12-30")
        | hong_kong("2024-12-31", half=True),
        (330, 150, 330, 330, 150),
        (6, 3, 6, 6, 3),  # a morning is 60 + 60 + 30 minutes
        today_minutes=330,
        calendar="HKEX",
        # The library's calendar has no half-days; the exchange has them on these two each year.
        overrides={
            "12-24": {"close": "12:00", "break": False},
            "12-31": {"close": "12:00", "break": False},
        },
    ),
    "Chicago: sessions open the evening before, over the end of summer time": Case(
        "2013-11-05",
        {
            "2013-10-29": (
                ("2013-10-28 22:00", "2013-10-29 20:15"),
                ("2013-10-29 20:30", "2013-10-29 21:00"),
            ),
            "2013-10-30": (
                ("2013-10-29 22:00", "2013-10-30 20:15"),
                ("2013-10-30 20:30", "2013-10-30 21:00"),
            ),
            "2013-10-31": (
                ("2013-10-30 22:00", "2013-10-31 20:15"),
                ("2013-10-31 20:30", "2013-10-31 21:00"),
            ),
            "2013-11-01": (
                ("2013-10-31 22:00", "2013-11-01 20:15"),
                ("2013-11-01 20:30", "2013-11-01 21:00"),
            ),
            "2013-11-04": (  # opens on Sunday, the first evening of winter time
                ("2013-11-03 23:00", "2013-11-04 21:15"),
                ("2013-11-04 21:30", "2013-11-04 22:00"),
            ),
        },
        (1365,) * 5,
        (24,) * 5,
        today_minutes=1365,
        calendar="CME_Equity",
    ),
}


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def starts_of(spans: tuple[Span, ...]) -> list[int]:
    return [start for first, stop in spans for start in range(micros(first), micros(stop), MINUTE)]


def bars_of(case: Case) -> Iterator[tuple[object, ...]]:
    """Yield a bar of each minute of history, of minutes right beside it, and of today."""
    for number, spans in enumerate(case.history.values()):
        for start in starts_of(spans):
            for symbol in SYMBOLS[:1] if number < 3 else SYMBOLS[:2]:
                price = float(100 + start // MINUTE % 10_000)
                yield symbol, start, price, price + 1, price - 1, price, 1.0
        for beside in (micros(spans[0][0]) - MINUTE, micros(spans[-1][1])):
            yield "FULL", beside, 7.0, 7.0, 7.0, 7.0, 7_000.0
    noon = micros(f"{case.today} 15:00" if case.calendar != "HKEX" else f"{case.today} 02:00")
    yield "FULL", noon, 7.0, 7.0, 7.0, 7.0, 7_000.0


@pytest.fixture(scope="module", params=[*CASES.values()], ids=[*CASES])
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="module")
def calendar(case: Case) -> Calendar:
    return open_calendar(case.calendar, overrides=case.overrides)


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    store = open_store("sqlite:///bars.db", tmp_path_factory.mktemp("bars"), create=True)
    frame = pl.DataFrame(list(bars_of(case)), schema=frame_schema(), orient="row")
    store.write(ONE_MINUTE, frame.sort("symbol", "start"))
    return store


def test_history_is_of_the_sessions_that_a_person_counts(
    case: Case, calendar: Calendar, store: BarStore
) -> None:
    today = calendar.session(date.fromisoformat(case.today))
    history = History(store, calendar, ONE_MINUTE, 5)
    sessions = history.sessions(today)
    assert [session.date.isoformat() for session in sessions] == list(case.history)
    base = history.load(SYMBOLS, today).base
    starts = [starts_of(spans) for spans in case.history.values()]
    assert [len(some) for some in starts] == list(case.minutes)  # the table agrees with itself
    assert base.starts[: base.today].tolist() == [*chain.from_iterable(starts)]
    assert base.present[:, : base.today].sum(axis=1).tolist() == [
        sum(case.minutes),
        sum(case.minutes[3:]),
        0,
    ]
    assert len(base.starts) - base.today == case.today_minutes
    assert not base.present[:, base.today :].any()


def test_a_session_begins_with_its_history(case: Case, calendar: Calendar, store: BarStore) -> None:
    today = calendar.session(date.fromisoformat(case.today))
    data = SessionData(SYMBOLS, today, derived=(ONE_HOUR, ONE_DAY), trailing=5)
    data.load_historical_bars(History(store, calendar, ONE_MINUTE, 5))
    assert [session.date.isoformat() for session in data.sessions] == [*case.history, case.today]
    assert data.count("FULL") == sum(case.minutes)
    assert data.count("NEVER") == len(data.all_bars("NEVER")) == 0
    spans = list(case.history.values())
    for symbol, first in (("FULL", spans[0]), ("LATE", spans[3])):
        bars = data.all_bars(symbol)
        assert bars[0].start == micros(first[0][0])
        assert bars[-1].end == micros(spans[-1][-1][1])
    # Each bar has volume 1, so a day's volume is its minutes; what was beside them had 7,000.
    days = data.all_bars("FULL", "1d")
    assert [bar.start for bar in days] == [micros(f"{day} 00:00") for day in case.history]
    assert [bar.end for bar in days] == [micros(day[-1][1]) for day in spans]
    assert days.volume.tolist() == days.n.tolist() == list(map(float, case.minutes))
    assert data.all_bars("LATE", "1d").volume.tolist() == list(map(float, case.minutes[3:]))
    hours = data.all_bars("FULL", "60m")
    counts = [sum(first <= start < last for start in hours.start) for first, last in reach(case)]
    assert counts == list(case.hours)
    assert hours.volume.sum() == sum(case.minutes)
    # The last n reach back over nights, weekends and holidays as if they were not there.
    newest_two = [start for some in spans[3:] for start in starts_of(some)]
    assert data.last_n("FULL", len(newest_two)).start.tolist() == newest_two
    assert data.window("LATE", len(newest_two) + 1)[1:].tolist() == [
        100 + start // MINUTE % 10_000 for start in newest_two
    ]


def reach(case: Case) -> Iterator[tuple[int, int]]:
    """Yield the first open and the last close of each session of history."""
    for spans in case.history.values():
        yield micros(spans[0][0]), micros(spans[-1][1])


def test_today_follows_on_the_last_minute_of_history(
    case: Case, calendar: Calendar, store: BarStore
) -> None:
    today = calendar.session(date.fromisoformat(case.today))
    data = SessionData(SYMBOLS, today, trailing=5)
    data.load_historical_bars(History(store, calendar, ONE_MINUTE, 5))
    last = data.latest("FULL")
    assert last is not None
    data.add_bar("FULL", today.open, (5.0,) * 5)
    assert data.latest("FULL") == last  # it is not over yet
    data.advance_to(today.open + MINUTE)
    ends = data.last_n("FULL", 2).end.tolist()
    final = list(case.history.values())[-1][-1][1]
    assert ends == [micros(final), today.open + MINUTE]
    assert data.window("FULL", 2).tolist() == [last.close, 5.0]
    metrics = data.metrics("FULL")
    assert (metrics.bars, metrics.volume, metrics.expected) == (1, 5.0, 1)


@pytest.mark.parametrize("intervals", [None, (ONE_DAY,)])
def test_what_the_store_lacks_is_named(
    intervals: tuple[Interval, ...] | None, tmp_path: Path
) -> None:
    """Five sessions before 2025-01-02, of which 2024-12-26 was never imported."""
    case, calendar = CASES["the first session of a year"], open_calendar("NYSE")
    gone = starts_of(case.history["2024-12-26"])
    rows = [row for row in bars_of(case) if row[1] not in gone]
    store = open_store("sqlite:///bars.db", tmp_path, create=True)
    frame = pl.DataFrame(rows, schema=frame_schema(), orient="row")
    store.write(ONE_MINUTE, frame.sort("symbol", "start"))
    history = History(store, calendar, ONE_MINUTE, 5, intervals)
    first, second = calendar.sessions(date(2025, 1, 2), date(2025, 1, 3))

    loader = Loader(store, ONE_MINUTE, Universe(SYMBOLS), history)
    short = loader.load(first).shortfall
    assert short is not None
    assert (short.session, short.asked, short.missing) == (first.date, 5, (date(2024, 12, 26),))
    assert short.symbols == {"LATE": 2, "NEVER": 0}  # the others have four
    short = loader.load(second).shortfall
    assert short is not None
    assert (short.session, short.asked, short.missing) == (second.date, 5, (date(2024, 12, 26),))
    assert short.symbols == {"LATE": 2, "NEVER": 0}  # of 12-27, 12-30, 12-31 and 01-02

    three = History(store, calendar, ONE_MINUTE, 3, intervals)  # 12-27, 12-30 and 12-31
    assert Loader(store, ONE_MINUTE, Universe(SYMBOLS[:1]), three).load(first).shortfall is None
    short = Loader(store, ONE_MINUTE, Universe(SYMBOLS[:2]), three).load(first).shortfall
    assert short is not None
    assert (short.missing, short.symbols) == ((), {"LATE": 2})


def test_an_event_loop_loads_rolls_and_reads(tmp_path: Path) -> None:
    """From Friday's early close to the Monday after it, by the awaitable names."""
    case, calendar = CASES["five sessions after the early close"], open_calendar("NYSE")
    store = open_store("sqlite:///bars.db", tmp_path, create=True)
    frame = pl.DataFrame(list(bars_of(case)), schema=frame_schema(), orient="row")
    store.write(ONE_MINUTE, frame.sort("symbol", "start"))
    thursday, friday = calendar.sessions(date(2024, 12, 5), date(2024, 12, 6))
    data = SessionData(SYMBOLS, thursday, trailing=2)
    data.use_history(History(store, calendar, ONE_MINUTE, 2))

    async def use() -> None:
        await data.aio.load_historical_bars()
        bars = await data.aio.get_all_bars_including_historical("FULL")
        assert (len(bars), bars[0].start) == (780, micros("2024-12-03 14:30"))
        await data.aio.add_bar("FULL", micros("2024-12-05 20:59"), (5.0,) * 5)
        await data.aio.roll_session(friday)
        bars = await data.aio.get_all_bars_including_historical("FULL")
        assert (len(bars), bars[0].start) == (391, micros("2024-12-04 14:30"))
        assert bars[-1].end == micros("2024-12-05 21:00")
        days = await data.aio.get_all_bars_including_historical("FULL", "1d")
        assert days.n.tolist() == [390, 1]
        assert (await data.aio.get_session_metrics("FULL")).bars == 0

    asyncio.run(use())
