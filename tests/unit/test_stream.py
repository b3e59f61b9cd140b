"""One session's minutes, in order, to a strategy; and what is said when user code raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stream_coord import stream
from stream_coord.bars import Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.errors import StrategyError
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.boundaries import SessionState, StateChange
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy
from stream_coord.stream import SessionStream

OPEN = parse_moment("2018-11-23T14:30:00Z")
BREAK = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN, OPEN + 2 * MINUTE, "regular"),
        Segment(OPEN + 5 * MINUTE, OPEN + 6 * MINUTE, "regular"),
    ),
)
EXTENDED = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN - MINUTE, OPEN, "pre"),
        Segment(OPEN, OPEN + 2 * MINUTE, "regular"),
        Segment(OPEN + 2 * MINUTE, OPEN + 3 * MINUTE, "post"),
    ),
)
BEFORE = OPEN - 2880 * MINUTE
YESTERDAY = Session(date(2018, 11, 21), (Segment(BEFORE, BEFORE + 2 * MINUTE, "regular"),))
SYMBOLS = ("A.B", "AB", "a")
Bars = Mapping[tuple[str, int], float]
"""Prices by symbol and minute, counted from `OPEN`."""
BARS: Bars = {
    ("a", 0): 1.0,
    ("A.B", 0): 2.0,
    ("AB", 0): 3.0,
    ("AB", 1): 4.0,
    ("a", 5): 5.0,
    ("A.B", 5): 6.0,
}


def flat(price: float) -> tuple[float, ...]:
    return (price, price, price, price, price)


def prepared(
    session: Session,
    bars: Bars,
    strategy: Strategy | None,
    history: tuple[Session, ...] = (),
    on_first_bar: Callable[[], None] = lambda: None,
) -> SessionStream:
    """Return the stream of a session, ready to run."""
    rows = [(symbol, OPEN + n * MINUTE, *flat(price)) for (symbol, n), price in bars.items()]
    block = Block.empty(SYMBOLS, [*history, session], Interval(MINUTE))
    block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row").sort("symbol", "start"))
    data = SessionData(SYMBOLS, session)
    data.start_session(session, block)
    if strategy is not None:
        strategy.session = data
    return SessionStream(data, strategy, on_first_bar)


class Log(Strategy):
    """Notes every call with the minute it comes in."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def note(self, hook: str, *what: object) -> None:
        self.calls.append(((self.session.now - OPEN) // MINUTE, hook, *what))

    def on_session_start(self) -> None:
        self.note("start")

    def on_update(self, bar: Bar) -> None:
        self.note("update", bar.symbol, bar.close)

    def on_bar(self, bar: Bar) -> None:
        self.note("bar", bar.symbol, bar.close)

    def on_step(self, now: int) -> None:
        assert now == self.session.now
        self.note("step")

    def on_state(self, change: StateChange) -> None:
        assert change.time == self.session.now
        self.note("state", change.left.name, change.entered.name)

    def on_session_end(self) -> None:
        self.note("end")


class TestOrder:
    def test_a_session_with_a_break(self) -> None:
        log = Log()
        prepared(BREAK, BARS, log).run()
        assert log.calls == [
            (0, "start"),
            (0, "state", "NOT_STARTED", "ACTIVE"),
            (1, "bar", "A.B", 2.0),
            (1, "bar", "AB", 3.0),
            (1, "bar", "a", 1.0),
            (1, "step"),
            (2, "bar", "AB", 4.0),
            (2, "step"),
            (6, "bar", "A.B", 6.0),
            (6, "bar", "a", 5.0),
            (6, "step"),
            (6, "state", "ACTIVE", "ENDED"),
            (6, "end"),
        ]

    def test_a_session_with_extended_hours_and_history(self) -> None:
        log = Log()
        bars = {("a", -2880): 9.0, ("a", -1): 1.0, ("AB", 2): 2.0}
        prepared(EXTENDED, bars, log, history=(YESTERDAY,)).run()
        assert log.calls == [
            (-1, "start"),
            (-1, "state", "NOT_STARTED", "PRE_MARKET"),
            (0, "bar", "a", 1.0),
            (0, "step"),
            (0, "state", "PRE_MARKET", "ACTIVE"),
            (1, "step"),
            (2, "step"),
            (2, "state", "ACTIVE", "POST_MARKET"),
            (3, "bar", "AB", 2.0),
            (3, "step"),
            (3, "state", "POST_MARKET", "ENDED"),
            (3, "end"),
        ]

    def test_a_bar_that_comes_late_is_an_update_of_the_next_minute(self) -> None:
        class Late(Log):
            def on_step(self, now: int) -> None:
                super().on_step(now)
                if now == OPEN + MINUTE:
                    self.session.add_bar("AB", OPEN, flat(3.5))
                if now == OPEN + 2 * MINUTE:
                    self.session.add_bar("a", OPEN + MINUTE, flat(1.5))
                    self.session.add_bar("A.B", OPEN, flat(2.5))

        late = Late()
        running = prepared(BREAK, BARS, late)
        assert running.run() == prepared(BREAK, BARS, None).run()
        assert (running.bars, running.updates) == (6, 0)  # updates count what upkeep did
        minutes = [call for call in late.calls if call[1] in {"update", "bar", "step"}]
        assert minutes[4:7] == [(2, "update", "AB", 3.5), (2, "bar", "AB", 4.0), (2, "step")]
        assert minutes[7:10] == [
            (6, "update", "a", 1.5),
            (6, "update", "A.B", 2.5),
            (6, "bar", "A.B", 6.0),
        ]

    @pytest.mark.parametrize("chunk_bars", [1, 2, 7, 10**6])
    def test_how_many_minutes_are_prepared_at_a_time_does_not_show(
        self, chunk_bars: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs = []
        for bars_at_a_time in (8192, chunk_bars):
            monkeypatch.setattr(stream, "_CHUNK_BARS", bars_at_a_time)
            logs.append(Log())
            prepared(BREAK, BARS, logs[-1]).run()
        assert logs[0].calls == logs[1].calls


class TestWhatIsVisible:
    def test_all_bars_of_a_minute_are_there_before_the_first_call(self) -> None:
        class Looking(Strategy):
            def __init__(self) -> None:
                self.seen: list[list[float]] = []

            def on_bar(self, bar: Bar) -> None:
                self.seen.append(self.session.cross_section().tolist())
                assert self.session.latest(bar.symbol) == bar

        looking = Looking()
        prepared(BREAK, {key: BARS[key] for key in BARS if key[1] == 0}, looking).run()
        assert looking.seen == [[2.0, 3.0, 1.0]] * 3

    def test_nothing_is_there_at_the_start_and_everything_at_the_end(self) -> None:
        class Counting(Strategy):
            def __init__(self) -> None:
                self.counts: list[list[int]] = []

            def on_session_start(self) -> None:
                self.counts.append([self.session.count(symbol) for symbol in SYMBOLS])

            on_session_end = on_session_start

        counting = Counting()
        prepared(BREAK, BARS, counting).run()
        assert counting.counts == [[0, 0, 0], [2, 2, 2]]

    def test_without_a_strategy_the_store_moves_on_as_well(self) -> None:
        block = Block.empty(SYMBOLS, [EXTENDED], Interval(MINUTE))
        data = SessionData(SYMBOLS, EXTENDED)
        data.start_session(EXTENDED, block)
        SessionStream(data, None, lambda: None).run()
        assert data.now == EXTENDED.end
        assert len(data.window("a", 100)) == 4

    def test_a_bar_has_the_values_and_flags_of_its_cell(self) -> None:
        block = Block.empty(SYMBOLS, [BREAK], Interval(MINUTE))
        block.values[:, 1, 2] = [2.0, 4.0, 1.0, 3.0, 50.0]
        block.present[1, 2] = True
        block.flags[1, 2] = 3
        got: list[Bar] = []

        class Getting(Strategy):
            def on_bar(self, bar: Bar) -> None:
                got.append(bar)

        data = SessionData(SYMBOLS, BREAK)
        data.start_session(BREAK, block)
        SessionStream(data, Getting(), lambda: None).run()
        start = OPEN + 5 * MINUTE
        assert got == [Bar("AB", "1m", start, start + MINUTE, 2.0, 4.0, 1.0, 3.0, 50.0, 3, 1, 1)]
        assert {type(got[0].start), type(got[0].flags)} == {int}
        assert type(got[0].symbol) is str


class TestWhoIsCalled:
    @pytest.mark.parametrize("hook", ["on_bar", "on_step", "on_update"])
    def test_one_callback_alone(self, hook: str) -> None:
        calls: list[object] = []
        one = type("One", (Strategy,), {hook: lambda _self, what: calls.append(what)})()
        running = prepared(BREAK, BARS, one)
        running.run()
        assert len(calls) == {"on_bar": 6, "on_step": 3, "on_update": 0}[hook]
        assert running.bars == 6

    def test_a_callback_set_on_the_instance(self) -> None:
        bars: list[Bar] = []

        class Own(Strategy):
            def __init__(self, take: Callable[[Bar], None]) -> None:
                self.on_bar = take  # type: ignore[assignment,method-assign]  # as users do

        prepared(BREAK, BARS, Own(bars.append)).run()
        assert len(bars) == 6

    def test_a_strategy_that_counts_as_false(self) -> None:
        class Empty(Log):
            def __len__(self) -> int:
                return 0

        empty = Empty()
        prepared(BREAK, BARS, empty).run()
        assert len(empty.calls) == 13

    @pytest.mark.parametrize("strategy", [None, Log()])
    def test_the_first_bar_is_told_of_once(
        self, strategy: Strategy | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "_CHUNK_BARS", 1)
        told: list[int] = []
        prepared(BREAK, BARS, strategy, on_first_bar=lambda: told.append(1)).run()
        assert told == [1]

    def test_a_session_without_bars_has_no_first_one(self) -> None:
        running = prepared(BREAK, {}, None, on_first_bar=lambda: pytest.fail("there is no bar"))
        running.run()
        assert running.bars == 0


class Failing(Log):
    """Raises in one hook, at its `turn`-th call."""

    def __init__(self, hook: str, error: BaseException, turn: int = 1) -> None:
        super().__init__()
        self.hook, self.error, self.turn = hook, error, turn

    def note(self, hook: str, *what: object) -> None:
        super().note(hook, *what)
        if hook == "step" and self.session.now == OPEN + MINUTE:
            self.session.add_bar("AB", OPEN, flat(9.0))
        if f"on_{hook}" == self.hook:
            self.turn -= 1
            if not self.turn:
                raise self.error


class TestFailing:
    @pytest.mark.parametrize(
        ("hook", "turn", "where"),
        [
            ("on_session_start", 1, "at 2018-11-23 14:30:00Z."),
            ("on_bar", 2, "at 2018-11-23 14:31:00Z, symbol AB."),
            ("on_bar", 6, "at 2018-11-23 14:36:00Z, symbol a."),
            ("on_update", 1, "at 2018-11-23 14:32:00Z, symbol AB."),
            ("on_step", 3, "at 2018-11-23 14:36:00Z."),
            ("on_state", 2, "at 2018-11-23 14:36:00Z."),
            ("on_session_end", 1, "at 2018-11-23 14:36:00Z."),
        ],
    )
    def test_the_error_names_hook_session_minute_symbol_and_line(
        self, hook: str, turn: int, where: str
    ) -> None:
        noted = {"on_session_start": "on_start", "on_session_end": "on_end"}.get(hook, hook)
        cause = ValueError("no such price")
        with pytest.raises(StrategyError) as caught:
            prepared(BREAK, BARS, Failing(noted, cause, turn)).run()
        message = f"Failing.{hook} raised ValueError: no such price ({Path(__file__)}, line "
        assert caught.value.message.startswith(message)
        assert caught.value.hint == f"It happened in session 2018-11-23, {where}"
        assert caught.value.__cause__ is cause

    @pytest.mark.parametrize("hook", ["on_start", "on_bar", "on_state"])
    def test_an_interrupt_passes_as_it_is(self, hook: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            prepared(BREAK, BARS, Failing(hook, KeyboardInterrupt())).run()

    @pytest.mark.parametrize("hook", ["on_start", "on_bar", "on_state"])
    @pytest.mark.parametrize("error", [SystemExit(0), StopIteration(), BaseException("panic")])
    def test_whatever_else_is_raised_is_the_strategys_error(
        self, hook: str, error: BaseException
    ) -> None:
        """A strategy that leaves the program does not make its run a success."""
        with pytest.raises(StrategyError, match=type(error).__name__) as caught:
            prepared(BREAK, BARS, Failing(hook, error)).run()
        assert caught.value.__cause__ is error

    def test_a_wrong_call_on_the_store_is_the_strategys_error(self) -> None:
        class Wrong(Strategy):
            def on_bar(self, bar: Bar) -> None:
                self.session.last_n(bar.symbol + "Z", 3)

        with pytest.raises(StrategyError, match=r"Wrong.on_bar raised .* no symbol 'A.BZ'"):
            prepared(BREAK, BARS, Wrong()).run()


def test_a_replayed_session_changes_state_where_its_segments_say() -> None:
    changes: list[StateChange] = []

    class Watching(Strategy):
        def on_state(self, change: StateChange) -> None:
            changes.append(change)

    prepared(EXTENDED, {}, Watching()).run()
    assert [(change.time, change.entered) for change in changes] == [
        (OPEN - MINUTE, SessionState.PRE_MARKET),
        (OPEN, SessionState.ACTIVE),
        (OPEN + 2 * MINUTE, SessionState.POST_MARKET),
        (OPEN + 3 * MINUTE, SessionState.ENDED),
    ]
