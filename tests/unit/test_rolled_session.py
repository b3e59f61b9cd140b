"""What a session store, a replay and its record do at the edge between two sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import polars as pl
import pytest

from stream_coord.bars import FILLED, Bar, frame_schema
from stream_coord.calendars import Session, open_calendar
from stream_coord.clock import FixedClock
from stream_coord.compute.splits import Split, Splits
from stream_coord.config import load_config
from stream_coord.errors import LedgerError, SessionStoreError, StrategyError
from stream_coord.history import History
from stream_coord.interval import MINUTE, Interval
from stream_coord.loading import load_session
from stream_coord.opening import cursor_key, plan_replay, timeout_of
from stream_coord.runs import record_replay
from stream_coord.session.data import SessionData
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import Ledger, open_ledger
from stream_coord.strategy import Strategy

ONE_MINUTE, TWO_MINUTES = Interval(MINUTE), Interval(2 * MINUTE)
NYSE = open_calendar("NYSE")
SESSIONS = NYSE.sessions(date(2018, 11, 19), date(2018, 11, 26))
MONDAY, TUESDAY, WEDNESDAY, FRIDAY = SESSIONS[:4]


def close_of(session: Session, minute: int) -> float:
    return float(session.date.day * 1000 + minute)


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """All minutes of A on each day, whose closes tell day and minute."""
    store = open_store("delta:data/bars", tmp_path, create=True)
    rows = [
        ("A", start, *(close_of(session, minute),) * 4, 1.0)
        for session in SESSIONS
        for minute, start in enumerate(session.grid(ONE_MINUTE).tolist())
    ]
    store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return store


def flat(value: float) -> tuple[float, ...]:
    return (value,) * 4 + (1.0,)


def fed(days: Sequence[Session] = (MONDAY,), trailing: int = 2) -> SessionData:
    """Return a feed's session store after a bar in the first minute of each day."""
    data = SessionData(["A", "B"], days[0], ONE_MINUTE, [TWO_MINUTES], trailing)
    for day in days:
        if day != data.session:
            data.roll_session(day)
        data.add_bar("A", day.open, flat(close_of(day, 0)))
        data.advance_to(day.open + MINUTE)
    return data


class TestViews:
    def test_bars_that_are_kept_over_a_roll_say_so_and_show_nothing(self) -> None:
        data = fed((MONDAY, TUESDAY))
        kept, of_two = data.all_bars("A"), data.all_bars("A", "2m")
        assert kept.close.tolist() == [19000.0, 20000.0]
        data.roll_session(WEDNESDAY)
        for bars in (kept, of_two):
            for ask in ("close", "volume", "flags", "n"):
                with pytest.raises(SessionStoreError, match="the session has rolled"):
                    getattr(bars, ask)
        for read in (lambda: kept[0], lambda: list(kept)):
            with pytest.raises(SessionStoreError, match="copy what is to be kept"):
                read()
        assert data.all_bars("A").close.tolist() == [19000.0, 20000.0]

    def test_without_history_they_stay_as_they_were(self) -> None:
        data = fed(trailing=0)
        kept = data.all_bars("A")
        data.roll_session(TUESDAY)
        data.add_bar("A", TUESDAY.open, flat(7.0))
        assert kept.close.tolist() == [19000.0]
        assert data.count("A") == 0


class TestRolls:
    def test_a_session_begun_with_bars_keeps_them_when_it_rolls(self, store: BarStore) -> None:
        data = SessionData(["A"], MONDAY, ONE_MINUTE, trailing=1)
        data.start_session(MONDAY, load_session(store, ONE_MINUTE, ("A",), MONDAY).series)
        data.advance_to(MONDAY.end)
        data.roll_session(TUESDAY)
        assert data.all_bars("A").close.tolist() == [close_of(MONDAY, n) for n in range(390)]

    def test_two_at_once_are_one_after_the_other(self) -> None:
        for _ in range(20):
            data, barrier, refused = fed(), Barrier(2), list[Exception]()

            def roll(data: SessionData, barrier: Barrier, refused: list[Exception]) -> None:
                barrier.wait()
                try:
                    data.roll_session(TUESDAY)
                    data.add_bar("A", TUESDAY.open, flat(1.0))
                except SessionStoreError as error:
                    refused.append(error)

            threads = [Thread(target=roll, args=(data, barrier, refused)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(refused) == 1
            data.advance_to(TUESDAY.open + MINUTE)
            assert data.all_bars("A").close.tolist() == [19000.0, 1.0]

    def test_a_negative_number_of_sessions_is_refused(self) -> None:
        with pytest.raises(SessionStoreError, match="trailing is -1"):
            SessionData(["A"], MONDAY, trailing=-1)


class TestUpkeepOfAnotherBlock:
    def test_slots_are_carried_over_when_history_came_meanwhile(self, store: BarStore) -> None:
        data = fed((TUESDAY,))
        data.advance_to(TUESDAY.open + 3 * MINUTE)
        before = data._pristine.base
        data.load_historical_bars(History(store, NYSE, ONE_MINUTE, 1))
        cell = np.array([0]), np.array([2])
        bits = np.array([FILLED], np.uint8)
        data.keep(*cell, np.array(flat(5.0))[:, None], bits, of=before)
        assert data.last_n("A", 2).close.tolist() == [20000.0, 5.0]
        assert data.last_n("A", 2).start.tolist() == [TUESDAY.open, TUESDAY.open + 2 * MINUTE]

    def test_nothing_is_kept_once_the_session_is_over(self) -> None:
        data = fed((MONDAY,))
        before = data._pristine.base
        data.roll_session(TUESDAY)
        data.advance_to(TUESDAY.open + 3 * MINUTE)
        cell = np.array([0]), np.array([2])
        bits = np.array([FILLED], np.uint8)
        assert not data.keep(*cell, np.array(flat(5.0))[:, None], bits, of=before).cells
        data.note_states(*cell, bits, of=before)
        assert data.count("A") == 1


class Loading(Strategy):
    """Loads history by itself, and wants bars of an interval of its own."""

    intervals = ("10m",)

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def on_session_start(self) -> None:
        before = self.session.count("A")
        self.session.load_historical_bars()
        self.found.append((before, self.session.count("A")))

    def on_bar(self, bar: Bar) -> None: ...


class Failing(Strategy):
    """Raises at a moment."""

    def __init__(self, hook: str, time: int) -> None:
        self.hook = hook
        self.time = time

    def on_session_start(self) -> None:
        self.fail("on_session_start")

    def on_bar(self, bar: Bar) -> None:
        if bar.end == self.time:
            self.fail("on_bar")

    def fail(self, hook: str) -> None:
        if hook == self.hook:
            raise ValueError("no more")


class Meddling(Strategy):
    """Tries to move the replay on by itself, in each hook."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.seen: list[int] = []

    def on_session_start(self) -> None:
        self.meddle("start")

    def on_step(self, now: int) -> None:
        self.meddle("step")
        assert self.session.now == now
        self.seen.append(self.session.count("A"))

    def on_session_end(self) -> None:
        self.meddle("end")

    def meddle(self, hook: str) -> None:
        session = self.session
        with pytest.raises(SessionStoreError, match="a replay moves on by itself"):
            session.advance_to(session.now + 60 * MINUTE)
        with pytest.raises(SessionStoreError, match="a replay moves on by itself"):
            session.start_session(session.session)
        with pytest.raises(SessionStoreError, match="a replay moves on by itself"):
            session.roll_session(NYSE.next_session(session.session.date))
        self.refused.add(hook)


def settings(folder: Path, *more: str) -> Path:
    path = folder / "sc.toml"
    path.write_text("\n".join(['symbols = ["A"]', *more]))
    return path


def test_a_strategy_loads_history_whatever_intervals_it_wants(
    store: BarStore, tmp_path: Path
) -> None:
    config = load_config(
        settings(tmp_path, "[history]\nauto_load = false\ntrailing_days = 2"),
    )
    strategy = Loading()
    plan_replay(config, WEDNESDAY.date, FRIDAY.date).coordinator(strategy).run()
    assert strategy.found == [(0, 780), (780, 780)]


def test_a_strategy_cannot_move_the_replay_on(store: BarStore, tmp_path: Path) -> None:
    config = load_config(settings(tmp_path, "[history]\nenabled = false"))
    strategy = Meddling()
    coordinator = plan_replay(config, MONDAY.date, MONDAY.date).coordinator(strategy)
    coordinator.run()
    assert strategy.refused == {"start", "step", "end"}
    assert strategy.seen == list(range(1, 391))
    coordinator.data.roll_session(TUESDAY)  # now that it is over


def test_a_source_of_history_is_remembered(store: BarStore) -> None:
    splits = Splits([Split("A", WEDNESDAY.date, 2.0)])
    data = fed((TUESDAY,))
    with pytest.raises(SessionStoreError, match="nowhere to load history from"):
        data.load_historical_bars()
    data.load_historical_bars(History(store, NYSE, ONE_MINUTE, 2, splits=splits))
    data.roll_session(WEDNESDAY)
    closes = data.all_bars("A").close
    assert closes[[0, 389, 390]].tolist() == [9500.0, 9694.5, 10000.0]  # half of what they were


def test_a_session_of_long_bars_is_not_silent_between_two_of_them(tmp_path: Path) -> None:
    hourly = load_config(
        settings(tmp_path, 'base_interval = "1h"', "[session]\ntimeout_seconds = 300")
    )
    assert timeout_of(hourly) == 60 * MINUTE
    assert timeout_of(load_config(settings(tmp_path))) == 5 * MINUTE


@pytest.mark.parametrize(
    ("hook", "minute", "states"),
    [
        ("on_session_start", 0, ["NOT_STARTED>ERROR"]),
        ("on_bar", 1, ["NOT_STARTED>ACTIVE", "ACTIVE>ERROR"]),
        ("on_bar", 390, ["NOT_STARTED>ACTIVE", "ACTIVE>ERROR"]),
    ],
)
def test_a_session_that_fails_has_the_states_that_were_told_and_then_error(
    store: BarStore, tmp_path: Path, hook: str, minute: int, states: list[str]
) -> None:
    config = load_config(settings(tmp_path))
    strategy = Failing(hook, MONDAY.open + minute * MINUTE)
    plan = plan_replay(config, MONDAY.date, MONDAY.date)
    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        with pytest.raises(StrategyError, match="no more"):
            record_replay(plan.coordinator(strategy), ledger, FixedClock(0), config, plan.calendar)
        rows = ledger.states()
    assert [f"{row.left}>{row.entered}" for row in rows] == states
    assert rows[-1].cause is not None
    assert "no more" in rows[-1].cause


def test_a_run_is_over_even_if_its_states_cannot_be_noted(
    store: BarStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LedgerError("the ledger is busy")

    monkeypatch.setattr(Ledger, "record_states", fail)
    config = load_config(settings(tmp_path))
    plan = plan_replay(config, MONDAY.date, MONDAY.date)
    strategy = Failing("on_session_start", 0)
    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        with pytest.raises(StrategyError, match="no more"):
            record_replay(plan.coordinator(strategy), ledger, FixedClock(0), config, plan.calendar)
        assert ledger.runs()[0].status == "failed"


def test_configurations_that_share_a_ledger_have_cursors_of_their_own(tmp_path: Path) -> None:
    keys = set()
    for name in ("us", "eu"):
        folder = tmp_path / name
        folder.mkdir()
        shared = f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"'
        keys.add(cursor_key(load_config(settings(folder, shared))))
    assert len(keys) == 2
    moved = tmp_path / "moved"
    own = cursor_key(load_config(settings(tmp_path)))
    moved.mkdir()
    assert cursor_key(load_config(settings(moved))) == own


def test_a_session_that_is_longer_than_the_one_before_has_room() -> None:
    data = SessionData(["A"], FRIDAY, ONE_MINUTE, trailing=1)  # of 210 minutes
    data.add_bar("A", FRIDAY.open, flat(1.0))
    data.advance_to(FRIDAY.end)
    data.roll_session(SESSIONS[4])
    data.add_bar("A", SESSIONS[4].close - MINUTE, flat(2.0))
    data.advance_to(SESSIONS[4].end)
    assert data.all_bars("A").close.tolist() == [1.0, 2.0]
