"""The session loop over a real store."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from threading import Timer

import msgspec
import numpy as np
import polars as pl
import pytest

from stream_coord.bars import Bar, Symbol, frame_schema
from stream_coord.calendars import Calendar, Segment, Session, open_calendar
from stream_coord.calendars.schedule import MISSING, Schedule, day_number
from stream_coord.clock import FixedClock, parse_moment
from stream_coord.compute.digest import run_digest
from stream_coord.config import load_config
from stream_coord.coordinator import Coordinator, ReplayedSession
from stream_coord.errors import NoBarsError, StrategyError
from stream_coord.history import History
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.moment import Moment
from stream_coord.pace import Pace
from stream_coord.planning import Universe
from stream_coord.runs import record_replay
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import open_ledger
from stream_coord.strategy import Strategy
from stream_coord.upkeep import Upkeep

ONE_MINUTE = Interval(MINUTE)
OPEN = parse_moment("2018-11-19T14:30:00Z")


def session(day: int) -> Session:
    """Return a session of two minutes, a break of one, and one minute more."""
    opened = OPEN + day * DAY
    spans = ((0, 2), (3, 4))
    return Session(
        date(2018, 11, 19) + timedelta(day),
        tuple(Segment(opened + a * MINUTE, opened + b * MINUTE, "regular") for a, b in spans),
    )


def start(day: int, minute: int) -> int:
    return OPEN + day * DAY + minute * MINUTE


Keys = Mapping[str, list[tuple[int, int]]]
"""Bars by symbol: day and minute."""
KEYS: Keys = {"A": [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2)], "B": [(1, 0), (1, 3), (3, 0)]}


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    store = open_store("delta:bars", tmp_path, create=True)
    rows = [(symbol, start(*key), *(1.0,) * 5) for symbol in KEYS for key in KEYS[symbol]]
    store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return store


def coordinator(
    store: BarStore,
    days: range,
    strategy: Strategy | None = None,
    universe: Universe | None = None,
    pace: Pace | None = None,
) -> Coordinator:
    sessions = [session(day) for day in days]
    chosen = universe or Universe(("A", "B"))
    return Coordinator(store, ONE_MINUTE, chosen, sessions, strategy, pace=pace)


class Counting(Strategy):
    """Counts bars by symbol."""

    def __init__(self) -> None:
        self.bars: dict[str, int] = {}

    def on_bar(self, bar: Bar) -> None:
        self.bars[bar.symbol] = self.bars.get(bar.symbol, 0) + 1

    def result(self) -> object:
        return self.bars


def test_each_session_is_delivered_and_measured(store: BarStore) -> None:
    seen: list[ReplayedSession] = []
    replay = coordinator(store, range(3)).run(seen.append)
    assert replay.sessions == seen
    assert [done.session.date.day for done in seen] == [19, 20, 21]
    assert [done.bars for done in seen] == [3, 3, 0]
    assert [done.out_of_session for done in seen] == [0, 1, 0]
    rows = [
        [(row.symbol, row.present, row.missing) for row in done.quality.rows()] for done in seen
    ]
    assert rows == [
        [("A", 3, 0), ("B", 0, 3)],
        [("A", 1, 2), ("B", 2, 1)],
        [("A", 0, 3), ("B", 0, 3)],
    ]
    assert (replay.bars, replay.updates) == (6, 0)
    assert replay.digest == run_digest(done.digest for done in seen)
    assert len({done.data_version for done in seen}) == 3


def test_symbols_are_held_to_account_while_they_trade(store: BarStore) -> None:
    universe = Universe(("A", "B"), (start(0, 0), start(1, 0)), (start(1, 2), start(3, 0)))
    replay = coordinator(store, range(4), universe=universe).run()
    rows = [[row.symbol for row in done.quality.rows()] for done in replay.sessions]
    assert rows == [["A"], ["A", "B"], ["B"], ["B"]]


def test_the_digest_does_not_depend_on_who_listens(store: BarStore) -> None:
    digests = {
        coordinator(store, range(4), strategy).run().digest
        for strategy in (None, Strategy(), Counting())
    }
    assert len(digests) == 1


def test_a_strategy_gets_the_store_and_its_result_is_kept(store: BarStore) -> None:
    counting = Counting()
    running = coordinator(
        store, range(4), counting, Universe((Symbol.parse("A"), Symbol.parse("B")))
    )
    replay = running.run()
    assert counting.session is running.data
    assert replay.result == {"A": 4, "B": 3}


@dataclass
class Outcome:
    trades: int
    profit: float


@pytest.mark.parametrize(
    ("result", "kept"),
    [(None, None), (Outcome(2, 0.5), {"trades": 2, "profit": 0.5}), ([(1, "x")], [[1, "x"]])],
)
def test_a_result_is_kept_as_what_json_has(store: BarStore, result: object, kept: object) -> None:
    class Returning(Strategy):
        def result(self) -> object:
            return result

    found = coordinator(store, range(1), Returning()).run().result
    assert msgspec.json.decode(msgspec.json.encode(found)) == kept


def test_a_result_that_json_has_not_is_the_strategys_error(store: BarStore) -> None:
    class Odd(Strategy):
        def result(self) -> object:
            return {"strategy": self}

    with pytest.raises(StrategyError, match=r"Odd\.result raised TypeError"):
        coordinator(store, range(1), Odd()).run()


def test_what_was_done_before_an_error_is_kept(store: BarStore) -> None:
    class Failing(Strategy):
        def on_bar(self, bar: Bar) -> None:
            if bar.symbol == "B":
                raise ValueError

    running = coordinator(store, range(4), Failing())
    with pytest.raises(StrategyError, match=r"Failing\.on_bar raised ValueError") as caught:
        running.run()
    assert caught.value.hint == (
        "It happened in session 2018-11-20, at 2018-11-20 14:31:00Z, symbol B."
    )
    assert [done.bars for done in running.replay.sessions] == [3]


def test_no_bar_at_all_is_said_loudly_and_one_is_enough(store: BarStore) -> None:
    with pytest.raises(NoBarsError, match="in the sessions 2018-11-21 to 2018-11-21"):
        coordinator(store, range(2, 3)).run()
    with pytest.raises(NoBarsError):
        coordinator(store, range(4), universe=Universe(("NONE",))).run()
    assert coordinator(store, range(2, 4)).run().bars == 1


def test_sessions_roll_through_one_memory(store: BarStore) -> None:
    """At most two are there at a time: one that the sessions slide over, and the one after it."""
    memories: list[weakref.ref[object]] = []
    blocks: list[weakref.ref[object]] = []

    class Looking(Counting):
        def on_session_start(self) -> None:
            base = self.session._pristine.base
            blocks.append(weakref.ref(base.values))
            if not memories or memories[-1]() is not base._memory:
                memories.append(weakref.ref(base._memory))

        def on_session_end(self) -> None:
            gc.collect()
            assert sum(memory() is not None for memory in memories) <= 2
            assert sum(block() is not None for block in blocks) <= 2

    days = range(60)
    numbers = day_number(session(0).date) + np.arange(60)
    times = np.array([[MISSING, *_edges(session(day)), MISSING] for day in days])
    calendar = Calendar("TEST", "regular", Schedule("UTC", numbers, times), "by hand", "0")
    history = History(store, calendar, ONE_MINUTE, 2)
    sessions, universe = [session(day) for day in days], Universe(("A", "B"))
    Coordinator(store, ONE_MINUTE, universe, sessions, Looking(), history=history).run()
    assert len(blocks) == 60
    assert 2 < len(memories) < 12


def _edges(day: Session) -> list[int]:
    first, second = day.segments
    return [first.open, first.close, second.open, second.close]


def test_a_session_leaves_no_cycle_behind(store: BarStore) -> None:
    """What has streamed is freed at once, not when the collector happens to run."""
    blocks: list[weakref.ref[object]] = []

    class Looking(Counting):
        def on_session_start(self) -> None:
            blocks.append(weakref.ref(self.session._pristine.base.values))

        def on_session_end(self) -> None:
            assert sum(block() is not None for block in blocks) <= 2

    gc.collect()
    gc.disable()
    try:
        sessions, derived = [session(day) for day in range(8)], (Interval(2 * MINUTE),)
        upkeep = Upkeep(derived=derived)
        Coordinator(
            store, ONE_MINUTE, Universe(("A", "B")), sessions, Looking(), upkeep=upkeep
        ).run()
    finally:
        gc.enable()
    assert len(blocks) == 8


class Turning:
    """A timer that passes in sleeps alone, and calls somebody in each."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self._on_sleep = on_sleep

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._on_sleep()
        self.now += seconds

    def wake(self) -> None: ...


def test_waiting_is_no_streaming(store: BarStore) -> None:
    timer = Turning()
    fast = coordinator(store, range(3)).run()
    slow = coordinator(store, range(3), pace=Pace(0.5, timer)).run()
    assert slow.digest == fast.digest
    assert (slow.speed, fast.speed) == (0.5, None)
    # Sessions of four minutes with their break, at half speed; none of it on our own clock.
    assert slow.timings["waiting"] == pytest.approx(3 * 8 * 60)
    assert fast.timings["waiting"] == 0
    assert slow.timings["stream"] < 0  # as it must be where only the waits are made up
    assert slow.lag_seconds == pytest.approx(0)


def test_the_lag_is_that_of_the_latest_minute_of_all_sessions(store: BarStore) -> None:
    timer = Turning()

    class Slow(Strategy):
        def on_step(self, now: int) -> None:
            timer.now += {start(0, 1): 2.0, start(1, 1): 30.0, start(2, 1): 5.0}.get(now, 0.0)

    replay = coordinator(store, range(3), Slow(), pace=Pace(60, timer)).run()
    assert replay.lag_seconds == pytest.approx(29)


def test_a_moment_is_what_has_been_delivered_so_far(store: BarStore) -> None:
    seen: list[Moment | None] = []
    timer = Turning(lambda: seen.append(running.moment()))
    running = coordinator(store, range(2), pace=Pace(60, timer))
    assert running.moment() is None
    running.run()
    moments = [moment for moment in seen if moment is not None]
    assert len(moments) == len(seen) == 6
    assert [moment.number for moment in moments] == [1, 1, 1, 2, 2, 2]
    # Bars end in the minutes 1, 2, 4 of the first day (A) and 1, 2, 4 of the second (B, A, B).
    assert [moment.bars for moment in moments] == [0, 1, 2, 3, 4, 5]
    assert [moment.due for moment in moments] == [0, 1, 2, 0, 1, 2]
    assert [moment.present.tolist() for moment in moments[2::3]] == [[2, 0], [1, 1]]
    assert {moment.state.name for moment in moments} == {"ACTIVE"}
    last = running.moment()
    assert last is not None
    assert (last.bars, last.state.name, last.clock) == (6, "ENDED", start(1, 4))


def test_a_replay_that_waits_stops_when_told_so(store: BarStore) -> None:
    running = coordinator(store, range(2), pace=Pace(1e-9))  # a minute of two thousand years
    stopping = Timer(0.1, running.stop)
    stopping.start()
    with pytest.raises(KeyboardInterrupt):
        running.run()
    stopping.join()
    assert running.replay.bars == 0


@pytest.mark.parametrize(("pace", "paced"), [(None, False), (Pace(1e9, Turning()), True)])
def test_subscribers_are_told_the_pace_and_of_the_end(
    store: BarStore, pace: Pace | None, paced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    running = coordinator(store, range(1), Failing(), pace=pace)
    monkeypatch.setattr(running.data.subscriptions, "close", lambda: closed.append(True))
    with pytest.raises(StrategyError):
        running.run()
    assert running.data.subscriptions.paced == paced
    assert closed == [True]


def test_an_interrupt_while_the_end_is_recorded_is_recorded(
    store: BarStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sc.toml").touch()
    ledger = open_ledger("sqlite:///ledger.db", tmp_path, create=True)

    def interrupted_once(*args: object, **result: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "finish_run", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        record_replay(
            coordinator(store, range(1)),
            ledger,
            FixedClock(start(9, 0)),
            load_config(tmp_path / "sc.toml"),
            open_calendar("NYSE"),
        )
    (run,) = ledger.runs()
    assert (run.status, run.digest, run.sessions) == ("interrupted", None, 1)
    ledger.close()


class Failing(Strategy):
    """Raises at once."""

    def on_step(self, now: int) -> None:
        raise ValueError(now)
