"""When simulated minutes are due by the wall clock, and what a watcher is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from threading import Timer

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.bars import FILLED, SYNTHETIC, Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import UsageError
from stream_coord.interval import MINUTE, Interval
from stream_coord.moment import Running
from stream_coord.pace import Pace, parse_speed
from stream_coord.session.block import Block
from stream_coord.session.boundaries import SessionState, StateChange, planned_changes
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream

OPEN = parse_moment("2018-11-23T01:00:00Z")
LUNCH = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN, OPEN + 3 * MINUTE, "regular"),
        Segment(OPEN + 63 * MINUTE, OPEN + 65 * MINUTE, "regular"),
    ),
)
EXTENDED = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN - 2 * MINUTE, OPEN, "pre"),
        Segment(OPEN, OPEN + 2 * MINUTE, "regular"),
        Segment(OPEN + 2 * MINUTE, OPEN + 3 * MINUTE, "post"),
    ),
)
ENDS = [1, 2, 3, 64, 65]
"""Ends of the minutes of `LUNCH`, counted from `OPEN`."""
SYMBOLS = ("A", "B")
PRESENT = {("A", 0), ("A", 1), ("A", 2), ("A", 63), ("A", 64), ("B", 0), ("B", 63)}


class FakeTimer:
    """Time passes only in sleeps, which last as long as asked and `over` more."""

    def __init__(self, over: Callable[[], float] = lambda: 0.0) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self._over = over

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds + self._over()

    def wake(self) -> None:
        pass


def block_of(session: Session, present: set[tuple[str, int]]) -> Block:
    rows = [
        (symbol, OPEN + n * MINUTE, *(float(n + 1),) * 5)
        for symbol in SYMBOLS
        for n in range(-10, 100)
        if (symbol, n) in present
    ]
    block = Block.empty(SYMBOLS, [session], Interval(MINUTE))
    block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return block


def replayed(
    session: Session, pace: Pace | None = None, strategy: Strategy | None = None
) -> tuple[str, SessionStream]:
    """Stream a session and return its digest, and the stream."""
    block = block_of(session, PRESENT)
    data = SessionData(SYMBOLS, session)
    data.start_session(session, block)
    if strategy is not None:
        strategy.session = data
    running = SessionStream(data, strategy, lambda: None, pace)
    return running.run(), running


class Wristwatch(Strategy):
    """Notes at which wall second each minute is shown, and takes its time over some."""

    def __init__(self, timer: FakeTimer, slow: dict[int, float] | None = None) -> None:
        self.timer, self.slow = timer, slow or {}
        self.shown: dict[int, float] = {}

    def on_step(self, now: int) -> None:
        minute = (now - OPEN) // MINUTE
        self.shown[minute] = self.timer.now - 1000
        self.timer.now += self.slow.get(minute, 0.0)


@pytest.mark.parametrize("factor", [60.0, 1.0, 0.5, 240.0])
def test_each_minute_comes_at_its_end_and_a_break_is_waited_for(factor: float) -> None:
    timer = FakeTimer()
    watch = Wristwatch(timer)
    replayed(LUNCH, Pace(factor, timer), watch)
    assert watch.shown == pytest.approx({minute: minute * 60 / factor for minute in ENDS})


def test_the_time_waited_is_the_sessions_length() -> None:
    timer = FakeTimer()
    pace = Pace(60, timer)
    for _ in range(2):
        replayed(LUNCH, pace)
        timer.now += 500  # between two sessions: no reason to hurry or to wait
    assert pace.waited_seconds == pytest.approx(2 * 65)
    assert pace.largest_lag_seconds == pytest.approx(0)


def test_boundaries_are_waited_for_like_minutes() -> None:
    timer = FakeTimer()
    seen: list[tuple[SessionState, float]] = []

    class Watching(Strategy):
        def on_state(self, change: StateChange) -> None:
            seen.append((change.entered, timer.now - 1000))

    replayed(EXTENDED, Pace(60, timer), Watching())
    assert [state.name for state, _ in seen] == ["PRE_MARKET", "ACTIVE", "POST_MARKET", "ENDED"]
    assert [wall for _, wall in seen] == pytest.approx([0, 2, 4, 5])


def test_a_late_minute_is_not_waited_for_and_its_lag_is_kept() -> None:
    timer = FakeTimer()
    pace, watch = Pace(60, timer), Wristwatch(timer, slow={1: 4.5, 65: 9.0})
    replayed(LUNCH, pace, watch)
    assert watch.shown == pytest.approx({1: 1, 2: 5.5, 3: 5.5, 64: 64, 65: 65})
    # The boundary at the close is 9 seconds late, after the last minute's callback.
    assert pace.largest_lag_seconds == pytest.approx(9.0)
    assert pace.waited_seconds == pytest.approx(65 - 4.5)


def test_the_lag_of_each_minute_is_known_while_it_is_delivered() -> None:
    timer = FakeTimer()
    pace = Pace(60, timer)
    lags: dict[int, float] = {}

    class Slow(Strategy):
        def on_step(self, now: int) -> None:
            lags[(now - OPEN) // MINUTE] = pace.lag_seconds
            timer.now += 3

    replayed(LUNCH, pace, Slow())
    assert lags == pytest.approx({1: 0, 2: 2, 3: 4, 64: 0, 65: 2})


def test_a_huge_factor_does_not_wake_for_every_minute() -> None:
    timer = FakeTimer()
    pace = Pace(60_000, timer)  # a minute is a millisecond
    block = Block.empty(SYMBOLS, [LONG], Interval(MINUTE))
    data = SessionData(SYMBOLS, LONG)
    data.start_session(LONG, block)
    SessionStream(data, None, lambda: None, pace).run()
    assert min(timer.naps) >= 0.02
    assert len(timer.naps) <= 1000 // 20 + 1
    assert data.now == LONG.end
    assert pace.largest_lag_seconds <= 0.02


LONG = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 1000 * MINUTE, "regular"),))


@pytest.mark.parametrize("factor", [5e-324, 1e-9, 1e308])
def test_absurd_factors_neither_overflow_nor_sleep_beyond_what_a_system_can(
    factor: float,
) -> None:
    class EnoughError(Exception):
        pass

    def over() -> float:
        if len(timer.naps) > 3:
            raise EnoughError
        return 0.0

    timer = FakeTimer(over)
    if factor > 1:
        _, running = replayed(LUNCH, Pace(factor, timer), Wristwatch(timer, slow={1: 1.0}))
        assert running.bars == len(PRESENT)
    else:
        with pytest.raises(EnoughError):
            replayed(LUNCH, Pace(factor, timer))
    assert all(nap <= 3600 for nap in timer.naps)


@settings(max_examples=60)
@given(
    st.floats(min_value=1e-3, max_value=1e9),
    st.lists(st.floats(0, 500), min_size=1, max_size=30),
    st.sampled_from([LUNCH, EXTENDED]),
    st.sampled_from([None, "steps", "bars"]),
)
def test_the_pace_does_not_show_in_the_digest_or_in_what_is_delivered(
    factor: float, jumps: list[float], session: Session, watching: str | None
) -> None:
    """However the wall clock jumps, and however many minutes are due at once."""
    turn = iter(jumps)
    timer = FakeTimer(lambda: next(turn, 600.0))

    class Noting(Strategy):
        def __init__(self) -> None:
            self.calls: list[object] = []
            setattr(self, "on_step" if watching == "steps" else "on_bar", self.calls.append)

    fast, slow = (Noting(), Noting()) if watching else (None, None)
    expected, at_once = replayed(session, None, fast)
    digest, paced = replayed(session, Pace(factor, timer), slow)
    assert digest == expected
    assert paced.bars == at_once.bars
    if fast and slow:
        assert slow.calls == fast.calls
        assert fast.calls


class Listening:
    """In the place of a session store's subscriptions."""

    intervals: tuple[Interval, ...] = ()

    def __init__(self, log: list[object]) -> None:
        self.active, self.paced, self._log = True, False, log

    def publish(self, now: int, bars: list[Bar]) -> None:
        names = [(bar.symbol, (bar.start - OPEN) // MINUTE) for bar in bars]
        self._log.append(("published", (now - OPEN) // MINUTE, names))


class TestSubscribers:
    """Whoever subscribes gets every minute after the strategy, at any pace."""

    @pytest.mark.parametrize("factor", [None, 60.0])
    def test_minutes_with_updates_first(
        self, factor: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log: list[object] = []

        class Adding(Strategy):
            def on_step(self, now: int) -> None:
                log.append(("step", (now - OPEN) // MINUTE))
                if now == OPEN + 2 * MINUTE:
                    self.session.add_bar("B", OPEN + MINUTE, (7.0,) * 5)

        block = block_of(LUNCH, PRESENT)
        adding = Adding()
        data = adding.session = SessionData(SYMBOLS, LUNCH)
        data.start_session(LUNCH, block)
        monkeypatch.setattr(data, "subscriptions", Listening(log))
        SessionStream(data, adding, lambda: None, Pace(factor, FakeTimer())).run()
        assert log[::2] == [("step", minute) for minute in ENDS]
        assert log[1::2] == [
            ("published", 1, [("A", 0), ("B", 0)]),
            ("published", 2, [("A", 1)]),
            ("published", 3, [("B", 1), ("A", 2)]),
            ("published", 64, [("A", 63), ("B", 63)]),
            ("published", 65, [("A", 64)]),
        ]

    def test_what_they_raise_is_not_blamed_on_the_strategy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(Listening):
            def publish(self, now: int, bars: list[Bar]) -> None:
                raise ValueError(f"nobody's strategy, {now}, {len(bars)}")

        block = block_of(LUNCH, PRESENT)
        data = SessionData(SYMBOLS, LUNCH)
        data.start_session(LUNCH, block)
        monkeypatch.setattr(data, "subscriptions", Broken([]))
        with pytest.raises(ValueError, match="nobody's strategy"):
            SessionStream(data, None, lambda: None).run()


def test_a_replay_that_waits_can_be_stopped_from_another_thread() -> None:
    """At the system's own pace: the first minute would take a year."""
    pace = Pace(60 / (365 * 86_400))
    pace.begin(OPEN)
    stopping = Timer(0.05, pace.stop)
    stopping.start()
    assert pace.wait_until(OPEN + MINUTE) == OPEN + MINUTE
    stopping.join()
    assert pace.wait_until(OPEN + 2 * MINUTE) == OPEN + 2 * MINUTE


class TestSpeed:
    @pytest.mark.parametrize(("text", "factor"), [("60", 60.0), ("0.25", 0.25), ("1e3", 1000.0)])
    def test_a_factor(self, text: str, factor: float) -> None:
        assert parse_speed(text) == factor

    def test_max_is_no_factor(self) -> None:
        assert parse_speed("max") is None

    @pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "1e400", "", "fast", "60x"])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not a speed") as caught:
            parse_speed(text)
        assert repr(text) in caught.value.message
        assert "a finite number above 0" in (caught.value.hint or "")


class TestClock:
    def test_it_moves_between_minutes_and_stops_at_the_one_that_is_due(self) -> None:
        timer = FakeTimer()
        pace = Pace(60, timer)
        seen: list[int] = []

        def look(_: object = None) -> float:
            seen.append(pace.clock(OPEN) - OPEN)
            return 0.0

        pace.begin(OPEN)
        timer.now += 0.25
        pace._goal = OPEN + MINUTE  # what the replay waits for
        look()
        timer.now += 10
        look()
        assert seen == [15_000_000, MINUTE]

    def test_at_full_speed_it_is_the_newest_minute(self) -> None:
        assert Pace().clock(OPEN) == OPEN


class TestMoment:
    @staticmethod
    def running(session: Session = LUNCH) -> Running:
        block, expected = block_of(session, PRESENT), np.array([True, True])
        changes = planned_changes(session)
        return Running(session, 2, block, expected, 100, changes=changes)

    def test_it_counts_what_is_over_and_nothing_to_come(self) -> None:
        now = OPEN + 2 * MINUTE
        moment = self.running().at(now, now + 5, 0.5)
        assert (moment.number, moment.clock, moment.lag_seconds) == (2, now + 5, 0.5)
        assert (moment.bars, moment.due) == (103, 2)
        assert (moment.symbols, moment.present.tolist()) == (SYMBOLS, [2, 1])

    def test_before_the_first_minute_nothing_is_due(self) -> None:
        moment = self.running().at(OPEN, OPEN, 0)
        assert (moment.bars, moment.due, moment.present.tolist()) == (100, 0, [0, 0])

    def test_the_time_of_another_session_does_no_harm(self) -> None:
        assert self.running().at(OPEN - 10**12, OPEN, 0).due == 0
        assert self.running().at(OPEN + 10**12, OPEN, 0).due == 5

    def test_only_expected_symbols_and_real_regular_bars_count(self) -> None:
        block = block_of(EXTENDED, {("A", 0), ("B", -1), ("B", 0), ("B", 1), ("A", 2)})
        block.flags[1, 3] = SYNTHETIC
        expected = np.array([False, True])
        moment = Running(EXTENDED, 1, block, expected, 0).at(EXTENDED.end, EXTENDED.end, 0)
        assert (moment.symbols, moment.present.tolist(), moment.due) == (("B",), [1], 2)

    def test_what_upkeep_brought_was_not_delivered_as_a_bar(self) -> None:
        block = block_of(LUNCH, PRESENT)
        plain = Running(LUNCH, 1, block, np.array([True, True]), 0)
        before = plain.at(LUNCH.end, LUNCH.end, 0)
        first, second = np.flatnonzero(block.present[0])[:2]
        block.flags[0, first], block.flags[0, second] = SYNTHETIC, FILLED
        after = plain.at(LUNCH.end, LUNCH.end, 0)
        assert after.bars == before.bars - 2
        assert (after.present - before.present).tolist() == [-1, 0]

    def test_the_grace_period_ends_with_the_session(self) -> None:
        patient = Running(LUNCH, 1, block_of(LUNCH, PRESENT), np.array([True, True]), 0, MINUTE)
        now = OPEN + 2 * MINUTE
        assert (patient.at(now, now, 0).due, patient.at(now, now, 0).bars) == (1, 3)
        assert patient.at(LUNCH.end, LUNCH.end, 0).due == 5

    @pytest.mark.parametrize(
        ("minute", "state"),
        [
            (-3, SessionState.NOT_STARTED),
            (-2, SessionState.PRE_MARKET),
            (0, SessionState.ACTIVE),
            (2, SessionState.POST_MARKET),
            (3, SessionState.ENDED),
        ],
    )
    def test_the_state_is_that_of_the_simulated_time(
        self, minute: int, state: SessionState
    ) -> None:
        now = OPEN + minute * MINUTE
        assert self.running(EXTENDED).at(now, now, 0).state == state

    @pytest.mark.parametrize(("minute", "resting"), [(1, False), (3, False), (30, True)])
    def test_a_break_is_no_state_but_is_told(self, minute: int, resting: bool) -> None:
        moment = self.running().at(OPEN + 3 * MINUTE, OPEN + minute * MINUTE, 0)
        assert moment.state == SessionState.ACTIVE
        assert moment.resting == resting
