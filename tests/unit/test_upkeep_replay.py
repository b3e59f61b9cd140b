"""Upkeep in replays over real stores: who is asked, when fills arrive, what stays untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import sleep

import msgspec
import polars as pl
import pytest

from stream_coord.ahead import Errands
from stream_coord.bars import FILLED, SYNTHETIC, Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer, parse_moment
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.config.settings import SourceSettings
from stream_coord.coordinator import Coordinator, Replay
from stream_coord.errors import SourceError, StrategyError
from stream_coord.interval import DAY, MINUTE, SECOND, Interval
from stream_coord.pace import Pace
from stream_coord.planning import Universe
from stream_coord.sources.protocol import BarRange, BarSource, NamedSource
from stream_coord.sources.store import StoreSource
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.strategy import Strategy
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Enquirer

ONE_MINUTE, FIVE_MINUTES = Interval(MINUTE), Interval(5 * MINUTE)
OPEN = parse_moment("2018-11-19T14:30:00Z")
SYMBOLS = ("A", "B")
LENGTH = 12
HOLES = {("A", 0, 0), ("A", 0, 3), ("B", 0, 4), ("B", 0, 11), ("A", 1, 6), ("A", 2, 5)}
"""Symbol, day and minute."""


def session(day: int) -> Session:
    opened = OPEN + day * DAY
    return Session(
        date(2018, 11, 19) + timedelta(day), (Segment(opened, opened + LENGTH * MINUTE, "regular"),)
    )


SESSIONS = [session(day) for day in range(3)]


def frame(keys: Iterable[tuple[str, int, int]]) -> pl.DataFrame:
    rows = [
        (symbol, OPEN + day * DAY + minute * MINUTE, *(float(10 * day + minute + 1),) * 4, 100.0)
        for symbol, day, minute in sorted(keys)
    ]
    return pl.DataFrame(rows, schema=frame_schema(), orient="row")


ALL = {(symbol, day, minute) for symbol in SYMBOLS for day in range(3) for minute in range(LENGTH)}


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """A store with holes."""
    store = open_store("delta:bars", tmp_path, create=True)
    store.write(ONE_MINUTE, frame(ALL - HOLES))
    return store


@pytest.fixture
def whole(tmp_path: Path) -> StoreSource:
    """A source that has all of it."""
    open_store("sqlite:///whole.db", tmp_path, create=True).write(ONE_MINUTE, frame(ALL))
    settings = SourceSettings(name="whole", kind="store", url="sqlite:///whole.db")
    return StoreSource(settings, tmp_path)


class Counting:
    """Another source, slowed down, whose first calls fail."""

    def __init__(self, source: BarSource, fails: int = 0, seconds: float = 0.0) -> None:
        self.source, self.fails, self.seconds = source, fails, seconds
        self.asked: list[list[BarRange]] = []

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return self.source.coverage(interval, ranges)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        sleep(self.seconds)
        self.asked.append(list(ranges))
        if len(self.asked) <= self.fails:
            raise SourceError("the line is dead")
        return self.source.bars(interval, ranges)

    def close(self) -> None:
        self.source.close()


class Noting(Strategy):
    """Notes what it is told, with the minute of the session."""

    intervals = ("5m",)

    def __init__(self) -> None:
        self.told: list[tuple[str, int, str, str, int]] = []

    def note(self, hook: str, bar: Bar) -> None:
        now = (self.session.now - self.session.session.open) // MINUTE
        start = (bar.start - self.session.session.open) // MINUTE
        self.told.append((hook, now, bar.interval, bar.symbol, start))

    def on_update(self, bar: Bar) -> None:
        assert bar.interval != "1m" or bar.flags & (FILLED | SYNTHETIC)
        self.note("update", bar)

    def on_bar(self, bar: Bar) -> None:
        if bar.interval != "1m":
            self.note("bar", bar)


def replay(
    store: BarStore,
    source: BarSource | None,
    strategy: Strategy | None = None,
    pace: Pace | None = None,
    sessions: Sequence[Session] = SESSIONS,
    remembered: Callable[[Session, Sequence[str]], Sequence[GapRow]] = lambda _, __: (),
    step: int = MINUTE,
) -> Replay:
    named = [NamedSource("whole", "whole: test", source)] if source else []
    enquirer = Enquirer(named, ONE_MINUTE, FixedClock(OPEN), SystemTimer())
    upkeep = Upkeep(enquirer, (FIVE_MINUTES,), step, attempts=3, remembered=remembered)
    universe = Universe(SYMBOLS)
    return Coordinator(store, ONE_MINUTE, universe, sessions, strategy, pace, upkeep).run()


class Adding(Strategy):
    """Adds a bar of its own where one is missing, before upkeep fills it."""

    def on_step(self, now: int) -> None:
        if now == OPEN + 4 * MINUTE:
            for minute in (0, 3):
                self.session.add_bar("A", OPEN + minute * MINUTE, (7.0, 7.0, 7.0, 7.0, 7.0))


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_fills_arrive_at_their_checks_and_derived_bars_are_rebuilt(
    store: BarStore, whole: StoreSource, tmp_path: Path
) -> None:
    before = content(tmp_path / "bars")
    noting = Noting()
    done = replay(store, whole, noting, sessions=SESSIONS[:1], step=4 * MINUTE)
    assert noting.told == [
        ("update", 4, "1m", "A", 0),
        ("update", 4, "1m", "A", 3),
        ("bar", 5, "5m", "A", 0),
        ("bar", 5, "5m", "B", 0),
        ("update", 8, "1m", "B", 4),
        ("update", 8, "5m", "B", 0),
        ("bar", 10, "5m", "A", 5),
        ("bar", 10, "5m", "B", 5),
        ("update", 12, "1m", "B", 11),
        ("bar", 12, "5m", "A", 10),
        ("bar", 12, "5m", "B", 10),
    ]
    assert done.updates == 5
    assert content(tmp_path / "bars") == before
    assert [(row.symbol, row.present, row.filled, row.missing) for row in rows(done)] == [
        ("A", 12, 2, 0),
        ("B", 12, 2, 0),
    ]
    (gap, *_) = done.sessions[0].quality.gaps()
    assert (gap.state, gap.source, gap.last_try) == ("filled", "whole: test", OPEN + 4 * MINUTE)
    assert done.sessions[0].filled == {"whole: test": 4}


def rows(done: Replay) -> list[QualityRow]:
    return [row for session in done.sessions for row in session.quality.rows()]


def test_a_filled_session_ends_with_the_bars_of_a_whole_one(
    store: BarStore, whole: StoreSource, tmp_path: Path
) -> None:
    class Last(Strategy):
        def __init__(self) -> None:
            self.bars: list[Bar] = []

        def on_session_end(self) -> None:
            for symbol in SYMBOLS:
                for interval in ("1m", "5m", "1d"):
                    bars = self.session.last_n(symbol, 99, interval)
                    self.bars += [msgspec.structs.replace(bar, flags=0) for bar in bars]

    filled, full = Last(), Last()
    replay(store, whole, filled)
    replay(open_store("sqlite:///whole.db", tmp_path), None, full)
    assert len(full.bars) == 3 * 2 * (12 + 3 + 1)
    assert filled.bars == full.bars


@pytest.mark.parametrize("fails", [0, 1, 2, 5])
def test_the_digest_depends_on_neither_pace_nor_delay_nor_listeners(
    store: BarStore, whole: StoreSource, fails: int
) -> None:
    digests, calls = set(), set()
    for pace, seconds, strategy in (
        (None, 0.0, None),
        (None, 0.02, None),
        (None, 0.0, Noting()),
        (Pace(100_000.0), 0.0, None),
        (Pace(100_000.0), 0.02, Noting()),
    ):
        source = Counting(whole, fails, seconds)
        digests.add(replay(store, source, strategy, pace).digest)
        calls.add(len(source.asked))
    assert len(digests) == len(calls) == 1


def test_a_source_is_asked_once_a_session_for_all_its_gaps(
    store: BarStore, whole: StoreSource
) -> None:
    source = Counting(whole)
    replay(store, source)
    asked = [[(part.symbol, (part.start - OPEN) // MINUTE) for part in one] for one in source.asked]
    day = DAY // MINUTE
    assert asked == [
        [("A", 0), ("A", 3), ("B", 4), ("B", 11)],
        [("A", day + 6)],
        [("A", 2 * day + 5)],
    ]


def test_a_source_that_fails_is_asked_again_at_later_checks(
    store: BarStore, whole: StoreSource
) -> None:
    noting = Noting()
    source = Counting(whole, fails=3)
    done = replay(store, source, noting, sessions=SESSIONS[:1])
    # Asked ahead, then at the checks of minutes 1, 2 and 3.
    assert len(source.asked) == 4
    updates = [(now, symbol, start) for hook, now, _, symbol, start in noting.told if hook != "bar"]
    assert updates == [(3, "A", 0), (4, "A", 3), (5, "B", 4), (12, "B", 11)]
    assert done.updates == len(updates)


def test_a_source_that_never_answers_stops_nothing(store: BarStore, whole: StoreSource) -> None:
    source = Counting(whole, fails=1000)
    done = replay(store, source)
    assert done.bars == len(ALL - HOLES)
    assert done.updates == 0
    found = [
        [(gap.symbol, gap.state, gap.tries) for gap in one.quality.gaps()] for one in done.sessions
    ]
    # A try counts for what is due: A's minute 3 has no part in the first three.
    assert found == [
        [("A", "unresolved", 3), ("A", "unresolved", 3), ("B", "missing", 2), ("B", "missing", 1)],
        [("A", "unresolved", 3)],
        [("A", "unresolved", 3)],
    ]
    # Ahead of the first session; at its checks 1, 2, 3 and 4, then, as the source is patiently
    # given more time, at 7 and at the end; three times in each of the others.
    assert len(source.asked) == 1 + 6 + 3 + 3


def test_what_the_ledger_knows_to_be_empty_is_not_asked_for(
    store: BarStore, whole: StoreSource
) -> None:
    def remembered(of: Session, _: Sequence[str]) -> list[GapRow]:
        return [
            GapRow(
                "A",
                of.date.isoformat(),
                of.open,
                of.close,
                LENGTH,
                "no_trade",
                asked=("whole: test",),
                empty=("whole: test",),
            )
        ]

    source = Counting(whole)
    done = replay(store, source, remembered=remembered)
    assert {part.symbol for one in source.asked for part in one} == {"B"}
    assert sum(row.no_trade for row in rows(done)) == 4
    assert done.updates == 2


def test_time_stands_still_while_a_source_is_asked(store: BarStore, whole: StoreSource) -> None:
    source = Counting(whole, fails=1, seconds=0.3)
    pace = Pace(6000.0)  # a session in 0.12 seconds
    replay(store, source, pace=pace, sessions=SESSIONS[:1])
    assert source.asked
    assert pace.largest_lag_seconds < 0.3


def test_a_run_that_ends_waits_for_no_source_that_hangs(
    store: BarStore, whole: StoreSource
) -> None:
    asked, came_back = Event(), Event()

    class Hanging(Counting):
        def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
            if self.asked:  # the second session's gaps, ahead of its checks
                asked.set()
                came_back.wait(30)
                came_back.set()
            return super().bars(interval, ranges)

    class Stopping(Strategy):
        def on_session_end(self) -> None:
            assert asked.wait(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(store, Hanging(whole), Stopping())
    assert not came_back.is_set()
    came_back.set()


def test_a_run_can_be_stopped_before_its_first_question(
    store: BarStore, whole: StoreSource
) -> None:
    enquirer = Enquirer([NamedSource("w", "w", whole)], ONE_MINUTE, FixedClock(OPEN), SystemTimer())
    universe = Universe(SYMBOLS)
    run = Coordinator(store, ONE_MINUTE, universe, SESSIONS, upkeep=Upkeep(enquirer))
    run.stop()
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not run.replay.sessions


def test_abandoned_errands_are_not_done() -> None:
    errands, hanging, done = Errands(), Event(), list[int]()
    first = errands.start(lambda: hanging.wait(30))
    second = errands.start(lambda: done.append(2))
    errands.abandon()
    third = errands.start(lambda: done.append(3))
    for future in (first, second, third):
        with pytest.raises(CancelledError):
            future.result(30)
    hanging.set()
    assert errands._thread is not None
    errands._thread.join(30)
    assert done in ([], [2])


def test_a_question_at_a_check_can_be_left(store: BarStore, whole: StoreSource) -> None:
    asked, came_back = Event(), Event()

    class Hanging(Counting):
        def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
            if len(self.asked) == 1:  # the first one failed, ahead of the checks
                asked.set()
                came_back.wait(30)
                came_back.set()
            return super().bars(interval, ranges)

    enquirer = Enquirer(
        [NamedSource("w", "w", Hanging(whole, fails=1))],
        ONE_MINUTE,
        FixedClock(OPEN),
        SystemTimer(),
    )
    run = Coordinator(store, ONE_MINUTE, Universe(SYMBOLS), SESSIONS, upkeep=Upkeep(enquirer))

    def stop() -> None:
        assert asked.wait(30)
        run.stop()

    stopper = Thread(target=stop)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not came_back.is_set()
    came_back.set()
    stopper.join()


def test_derived_bars_are_delivered_as_the_store_has_them(
    store: BarStore, whole: StoreSource
) -> None:
    class Looking(Strategy):
        intervals = ("5m", "2m")

        def __init__(self) -> None:
            self.seen = 0

        def on_bar(self, bar: Bar) -> None:
            assert bar == self.session.latest_bar(bar.symbol, bar.interval)
            if bar.interval != "1m":
                self.seen += 1
                base = self.session.since(bar.symbol, bar.start)
                assert (bar.high, bar.volume) == (base.high.max(), base.volume.sum())

    looking = Looking()
    done = replay(store, whole, looking)
    # Every minute is there once it is filled: 3 bars of 5m and 6 of 2m a day and symbol.
    assert looking.seen == 3 * 2 * (3 + 6)
    assert done.derived_bars == 3 * 2 * 3


def test_what_is_known_of_minutes_stays_known_when_a_strategy_adds_bars(
    store: BarStore, whole: StoreSource
) -> None:
    class Measuring(Adding):
        def on_session_end(self) -> None:
            self.measured = self.session.metrics("B")

    def remembered(of: Session, _: Sequence[str]) -> list[GapRow]:
        day = of.date.isoformat()
        return [
            GapRow("B", day, of.open, of.close, LENGTH, "no_trade", empty=("whole: test",)),
            GapRow("A", day, of.open, of.open + 2 * MINUTE, 2, "filled", source="earlier"),
        ]

    measuring = Measuring()
    done = replay(store, whole, measuring, sessions=SESSIONS[:1], remembered=remembered)
    assert (measuring.measured.no_trade, measuring.measured.missing) == (2, 0)
    # A's minute 0 was filled once and its bar is gone again; minute 1 has its bar.
    found = [(row.symbol, row.present, row.filled, row.no_trade) for row in rows(done)]
    assert found == [("A", 12, 3, 0), ("B", 10, 0, 2)]
    sources = {(gap.state, gap.source) for gap in done.sessions[0].quality.gaps()}
    assert sources == {("filled", "whole: test"), ("filled", "earlier"), ("no_trade", None)}


def test_a_runs_attempts_are_its_own_and_its_sources_are_closed(
    store: BarStore, whole: StoreSource
) -> None:
    closed = []

    class Closing(Counting):
        def close(self) -> None:
            closed.append(len(self.asked))

    def remembered(of: Session, _: Sequence[str]) -> list[GapRow]:
        day = of.date.isoformat()
        return [GapRow("A", day, of.open, of.close, LENGTH, "missing", tries=2)]

    source = Closing(whole, fails=2)
    done = replay(store, source, sessions=SESSIONS[:1], remembered=remembered)
    assert {gap.state for gap in done.sessions[0].quality.gaps()} == {"filled"}
    assert closed == [3]


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ("5m", r"Odd\.intervals: TypeError: '5m' is one text"),
        (5, r"Odd\.intervals: TypeError"),
        (("5",), r"Odd\.intervals: '5' is not an interval"),
        (("90s",), r"Odd\.intervals: the session has no 90s bars"),
        ((None,), r"Odd\.intervals: TypeError"),
    ],
)
def test_intervals_that_cannot_be_are_the_strategys_error(
    store: BarStore, intervals: object, said: str
) -> None:
    class Odd(Strategy):
        def on_bar(self, bar: Bar) -> None: ...

    odd = Odd()
    odd.intervals = intervals  # type: ignore[assignment]
    with pytest.raises(StrategyError, match=said):
        replay(store, None, odd)


def test_a_base_bar_comes_once_even_if_it_is_asked_for(store: BarStore) -> None:
    class Twice(Strategy):
        intervals = ("1m", "60m")

        def __init__(self) -> None:
            self.bars: list[str] = []

        def on_bar(self, bar: Bar) -> None:
            self.bars.append(bar.interval)

    twice = Twice()
    done = replay(store, None, twice)
    assert twice.bars.count("1m") == done.bars
    assert twice.bars.count("1h") == 3 * 2


def test_what_a_strategy_adds_changes_neither_digest_nor_quality(
    store: BarStore, whole: StoreSource
) -> None:
    for source in (None, whole):
        plain = replay(store, source, sessions=SESSIONS[:1], step=10 * MINUTE)
        added = replay(store, source, Adding(), sessions=SESSIONS[:1], step=10 * MINUTE)
        assert added.digest == plain.digest
        assert rows(added) == rows(plain)
        assert added.updates == plain.updates


def test_flat_bars_fill_the_holes_and_are_no_better_data(store: BarStore) -> None:
    seen: dict[tuple[str, int], Bar] = {}

    class Seeing(Strategy):
        def on_update(self, bar: Bar) -> None:
            seen[bar.symbol, (bar.start - OPEN) // MINUTE] = bar

    upkeep = Upkeep(synthesize=True)
    run = Coordinator(
        store, ONE_MINUTE, Universe(SYMBOLS), SESSIONS[:1], Seeing(), None, upkeep
    ).run()
    assert sorted(seen) == [("A", 3), ("B", 4), ("B", 11)]  # nothing is known before A's first bar
    bar = seen["A", 3]
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (3.0, 3.0, 3.0, 3.0, 0.0)
    assert bar.flags == SYNTHETIC
    assert [(row.present, row.missing) for row in rows(run)] == [(10, 2), (10, 2)]


def test_seconds_are_what_a_check_interval_is_in() -> None:
    assert Upkeep().check_micros == 60 * SECOND
