"""Upkeep of a feed with real sources: another store, a folder of CSV files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from datetime import date
from pathlib import Path
from typing import ParamSpec, TypeVar

import polars as pl
import pytest

from stream_coord.bars import FILLED, SYNTHETIC, Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer, from_micros, parse_moment
from stream_coord.compute.quality import GapRow
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import SourceError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.session.data import SessionData
from stream_coord.session.series import Series, Trailing
from stream_coord.sources.files import TableFilesSource
from stream_coord.sources.protocol import BarRange, BarSource, NamedSource
from stream_coord.sources.store import StoreSource
from stream_coord.stores import open_store
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.asking import Answers, Enquirer
from stream_coord.upkeep.feeding import FeedKeeper

ONE_MINUTE = Interval(MINUTE)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

OPEN = parse_moment("2018-11-19T14:30:00Z")
LENGTH = 12
SYMBOLS = ("A", "B")
SESSION = Session(date(2018, 11, 19), (Segment(OPEN, OPEN + LENGTH * MINUTE, "regular"),))
NO_TRADE = {("A", 4)}
"""The source has no bar of these minutes, and has later ones."""


def at(minute: int) -> int:
    return OPEN + minute * MINUTE


def frame() -> pl.DataFrame:
    rows = [
        (symbol, at(minute), *(float(minute + 1),) * 4, 100.0)
        for symbol in SYMBOLS
        for minute in range(LENGTH)
        if (symbol, minute) not in NO_TRADE
    ]
    return pl.DataFrame(rows, schema=frame_schema(), orient="row")


@pytest.fixture(params=["store", "csv"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BarSource]:
    """A source that has nearly all of the session."""
    source: BarSource
    if request.param == "store":
        open_store("sqlite:///whole.db", tmp_path, create=True).write(ONE_MINUTE, frame())
        source = StoreSource(
            SourceSettings(name="whole", kind="store", url="sqlite:///whole.db"), tmp_path
        )
    else:
        lines = [
            f"{symbol},{from_micros(start):%Y-%m-%d %H:%M:%S},{','.join(map(str, values))}"
            for symbol, start, *values in frame().rows()
        ]
        header = "symbol,time,open,high,low,close,volume"
        (tmp_path / "bars.csv").write_text("\n".join([header, *lines]))
        options: dict[str, object] = {"label": "open", "tz": "UTC"}
        source = TableFilesSource(
            SourceSettings(name="whole", kind="csv", path="bars.csv", options=options), tmp_path
        )
    yield source
    source.close()


class Counting:
    """Another source whose first calls fail, and that does something while it is asked."""

    def __init__(
        self, source: BarSource, fails: int = 0, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        self.source, self.fails, self.meanwhile = source, fails, meanwhile
        self.asked: list[list[tuple[str, int]]] = []

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return self.source.coverage(interval, ranges)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.asked.append([(part.symbol, (part.start - OPEN) // MINUTE) for part in ranges])
        self.meanwhile()
        if len(self.asked) <= self.fails:
            raise SourceError("the line is dead")
        return self.source.bars(interval, ranges)

    def close(self) -> None:
        self.source.close()


class Feed:
    """A session store, who looks after it, and a feed that brings what the test says."""

    def __init__(
        self,
        source: BarSource | None,
        *,
        until: int = LENGTH,
        step: int = 1,
        run: Callable[[Callable[[], Answers]], Future[Answers]] | None = None,
        expected: set[str] | None = None,
        synthesize: bool = False,
        remembered: Sequence[GapRow] = (),
    ) -> None:
        named = [NamedSource("whole", "whole: test", source)] if source else []
        enquirer = Enquirer(named, ONE_MINUTE, FixedClock(OPEN), SystemTimer())
        upkeep = Upkeep(
            enquirer,
            check_micros=step * MINUTE,
            attempts=3,
            synthesize=synthesize,
            remembered=lambda _, __: remembered,
        )
        self.data = SessionData(SYMBOLS, SESSION, ONE_MINUTE, [Interval(5 * MINUTE)])
        running = {} if run is None else {"run": run}
        self.keeper = FeedKeeper(upkeep, self.data, at(until), expected, **running)

    def bring(self, symbol: str, minute: int, price: float = 50.0) -> None:
        self.data.add_bar(symbol, at(minute), (price,) * 4 + (1.0,))

    def look(self, minute: int) -> list[tuple[str, str, int]]:
        """Check what is due at a minute, and return the updates of it."""
        self.data.advance_to(min(at(minute), SESSION.end))
        check = self.keeper.next_check
        if check is not None and check <= at(minute):
            self.keeper.check(at(minute))
        updates = self.data.drain_updates()
        return [(bar.symbol, bar.interval, (bar.start - OPEN) // MINUTE) for bar in updates]

    def bar(self, symbol: str, minute: int) -> Bar:
        (found,) = [bar for bar in self.data.all_bars(symbol) if bar.start == at(minute)]
        return found

    @property
    def gaps(self) -> list[tuple[str, int, int, str, int]]:
        return [
            (gap.symbol, (gap.start - OPEN) // MINUTE, gap.minutes, gap.state, gap.tries)
            for gap in self.keeper.gaps()
        ]


def test_a_minute_that_never_came_is_filled_at_its_check(whole: BarSource) -> None:
    feed = Feed(whole, step=3)
    feed.bring("A", 1)
    assert feed.look(1) == feed.look(2) == []
    assert feed.gaps == []
    assert feed.look(3) == [
        ("A", "1m", 0),
        ("A", "1m", 2),
        ("B", "1m", 0),
        ("B", "1m", 1),
        ("B", "1m", 2),
    ]
    assert [bar.flags for bar in feed.data.all_bars("A")] == [FILLED, 0, FILLED]
    assert feed.bar("A", 1).close == 50.0
    assert feed.gaps == [
        ("A", 0, 1, "filled", 0),
        ("A", 2, 1, "filled", 0),
        ("B", 0, 3, "filled", 0),
    ]
    assert {gap.source for gap in feed.keeper.gaps()} == {"whole: test"}
    metrics = feed.data.metrics("A")
    assert (metrics.expected, metrics.present, metrics.filled) == (3, 3, 2)


def test_derived_bars_that_were_seen_are_built_anew(whole: BarSource) -> None:
    feed = Feed(whole, step=6)
    for minute in (0, 1, 2, 3):
        feed.bring("B", minute)
    assert ("B", "5m", 0) in feed.look(6)
    derived = feed.data.latest_bar("B", "5m")
    assert derived is not None
    assert (derived.n, derived.close) == (5, 5.0)


def test_what_comes_in_time_is_not_asked_for(whole: BarSource) -> None:
    source = Counting(whole)
    feed = Feed(source, step=2)
    for minute in (0, 1):
        feed.bring("B", minute)
    feed.look(1)
    feed.bring("A", 1)
    feed.bring("A", 0)
    feed.look(2)
    assert source.asked == []
    assert feed.gaps == []


def test_the_feed_has_the_last_word(whole: BarSource) -> None:
    feed = Feed(whole, expected={"A"})
    feed.look(1)
    assert feed.gaps == [("A", 0, 1, "filled", 0)]
    feed.bring("A", 0, 77.0)
    assert feed.gaps == []
    feed.look(2)
    assert feed.bar("A", 0).close == 77.0
    assert feed.gaps == [("A", 1, 1, "filled", 0)]


def test_a_bar_that_comes_while_its_source_is_asked_stays(whole: BarSource) -> None:
    source = Counting(whole, meanwhile=lambda: feed.bring("A", 0, 77.0))
    feed = Feed(source)
    feed.look(1)
    assert source.asked == [[("A", 0), ("B", 0)]]
    assert (feed.bar("A", 0).close, feed.bar("A", 0).flags) == (77.0, 0)
    assert feed.gaps == [("B", 0, 1, "filled", 0)]


def test_a_source_that_fails_is_asked_again_and_then_patiently(whole: BarSource) -> None:
    source = Counting(whole, fails=5)
    feed = Feed(source, expected={"A"})
    asked = []
    for minute in range(1, LENGTH + 1):
        feed.look(minute)
        asked.append(len(source.asked))
        if minute == 3:
            assert feed.gaps == [
                ("A", 0, 1, "unresolved", 3),
                ("A", 1, 1, "missing", 2),
                ("A", 2, 1, "missing", 1),
            ]
            assert feed.data.metrics("A").unresolved == 1
    # Three failures in a row, then two checks later, then four, and once more at the end.
    assert asked == [1, 2, 3, 4, 4, 4, 5, 5, 5, 5, 5, 6]
    assert feed.gaps[0] == ("A", 0, 3, "unresolved", 3)
    assert feed.keeper.gaps()[0].last_try == at(7)
    assert feed.gaps[-1] == ("A", 7, 5, "filled", 0)


def test_what_every_source_lacks_is_no_trade_and_not_asked_for_again(whole: BarSource) -> None:
    source = Counting(whole)
    feed = Feed(source, expected={"A"})
    feed.look(LENGTH)
    assert feed.gaps == [
        ("A", 0, 4, "filled", 0),
        ("A", 4, 1, "no_trade", 0),
        ("A", 5, 7, "filled", 0),
    ]
    metrics = feed.data.metrics("A")
    assert (metrics.present, metrics.no_trade, metrics.missing) == (11, 1, 0)
    assert feed.keeper.next_check is None
    assert len(source.asked) == 1


def test_a_source_that_lags_behind_is_asked_again(tmp_path: Path) -> None:
    store = open_store("sqlite:///live.db", tmp_path, create=True)
    settings = SourceSettings(name="live", kind="store", url="sqlite:///live.db")
    feed = Feed(StoreSource(settings, tmp_path), expected={"B"})
    feed.look(2)
    assert feed.gaps == [("B", 0, 2, "missing", 0)]
    store.write(ONE_MINUTE, frame())
    feed.look(3)
    assert feed.gaps == [("B", 0, 3, "filled", 0)]


def test_what_the_ledger_knows_to_be_empty_is_not_asked_for(whole: BarSource) -> None:
    def row(first: int, last: int, state: str, *empty: str) -> GapRow:
        return GapRow(
            "A",
            "2018-11-19",
            at(first),
            at(last),
            last - first,
            state,
            asked=empty,
            empty=empty,
        )

    source = Counting(whole)
    remembered = [
        row(0, 2, "no_trade", "whole: test"),
        row(2, 3, "unresolved"),
        row(3, 4, "filled"),
        row(4, 12, "no_trade", "another"),
    ]
    feed = Feed(source, expected={"A"}, remembered=remembered)
    feed.look(1)
    assert feed.gaps == [("A", 0, 1, "no_trade", 0)]
    assert feed.data.metrics("A").no_trade == 1
    feed.look(6)
    assert source.asked == [[("A", 2)]]
    assert feed.gaps == [
        ("A", 0, 2, "no_trade", 0),
        ("A", 2, 2, "filled", 0),
        ("A", 4, 1, "no_trade", 0),
        ("A", 5, 1, "filled", 0),
    ]


def test_what_nobody_can_be_asked_for_stays_as_it_is_remembered() -> None:
    """Save that a bar that was filled once is gone."""
    remembered = [
        GapRow("A", "2018-11-19", at(0), at(2), 2, "unresolved", tries=3),
        GapRow("A", "2018-11-19", at(2), at(4), 2, "filled", source="whole: test"),
    ]
    feed = Feed(None, remembered=remembered, expected={"A"})
    feed.look(4)
    assert feed.gaps == [("A", 0, 2, "unresolved", 3), ("A", 2, 2, "missing", 0)]
    assert feed.keeper.next_check == at(5)


def test_the_last_check_comes_when_it_was_agreed(whole: BarSource) -> None:
    feed = Feed(whole, until=LENGTH + 2, expected={"B"})
    for minute in range(1, LENGTH + 2):
        feed.look(minute)
    assert feed.keeper.next_check is None  # all is there
    late = Feed(Counting(whole, fails=1), until=LENGTH + 2, expected={"B"})
    late.look(LENGTH)
    assert late.gaps == [("B", 0, 12, "missing", 1)]
    assert late.keeper.next_check == at(LENGTH + 1)
    late.look(LENGTH + 1)
    assert late.gaps == [("B", 0, 12, "filled", 1)]


def test_holes_are_synthesized_until_a_bar_comes() -> None:
    feed = Feed(None, synthesize=True)
    feed.bring("A", 1, 20.0)
    feed.look(1)
    feed.look(3)
    assert feed.gaps == [
        ("A", 0, 1, "missing", 0),
        ("A", 2, 1, "missing", 0),
        ("B", 0, 3, "missing", 0),
    ]
    assert [bar.start for bar in feed.data.all_bars("A")] == [at(1), at(2)]
    assert (feed.bar("A", 2).close, feed.bar("A", 2).flags) == (20.0, SYNTHETIC)
    feed.bring("A", 2, 21.0)
    feed.look(4)
    assert (feed.bar("A", 2).close, feed.bar("A", 2).flags) == (21.0, 0)
    assert feed.bar("A", 3).close == 21.0


def test_an_answer_that_takes_its_time_is_taken_at_a_later_check(whole: BarSource) -> None:
    begun: list[tuple[Callable[[], Answers], Future[Answers]]] = []

    def begin(work: Callable[[], Answers]) -> Future[Answers]:
        begun.append((work, Future()))
        return begun[-1][1]

    feed = Feed(whole, run=begin, expected={"A"})
    assert feed.look(1) == feed.look(3) == []
    assert len(begun) == 1
    assert feed.gaps == [("A", 0, 3, "missing", 0)]
    work, future = begun[0]
    future.set_result(work())
    assert feed.keeper.next_check == at(3)
    assert feed.look(3) == [("A", "1m", 0)]
    assert feed.gaps == [("A", 0, 1, "filled", 0), ("A", 1, 2, "missing", 0)]
    feed.look(4)
    begun[1][1].set_exception(CancelledError())
    feed.look(5)
    assert feed.gaps == [("A", 0, 1, "filled", 0), ("A", 1, 4, "missing", 0)]


class Empty:
    """A history of one session without bars."""

    def __init__(self, minutes: int = LENGTH) -> None:
        self.minutes = minutes

    def load(
        self, symbols: Sequence[str], session: Session, derived: Iterable[Interval] = ()
    ) -> Series:
        opened = OPEN - 3 * DAY
        segment = Segment(opened, opened + self.minutes * MINUTE, "regular")
        sessions = [Session(date(2018, 11, 16), (segment,)), session]
        return Series.empty(symbols, sessions, ONE_MINUTE, derived, Trailing(1))

    def following(
        self, series: Series, session: Session, symbols: tuple[str, ...] | None = None
    ) -> Series:
        return series.following(session, symbols)


def test_history_may_be_loaded_between_two_checks(whole: BarSource) -> None:
    """It moves the slots of today."""
    feed = Feed(whole, expected={"A"})
    feed.look(2)
    feed.data.load_historical_bars(Empty())
    assert feed.look(5) == [("A", "1m", 2), ("A", "1m", 3)]
    assert feed.gaps == [("A", 0, 4, "filled", 0), ("A", 4, 1, "no_trade", 0)]
    assert feed.data.metrics("A").no_trade == 1
    assert [bar.start for bar in feed.data.all_bars("A")] == [at(minute) for minute in range(4)]


def test_history_may_be_loaded_in_the_middle_of_a_check(
    whole: BarSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(whole, expected={"A"}, synthesize=True)
    lengths = iter(range(LENGTH, 99))

    def late(write: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """Write, when somebody else has just loaded history, more of it each time."""

        def load_and_write(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            feed.data.load_historical_bars(Empty(next(lengths)))
            return write(*args, **kwargs)

        return load_and_write

    for name in ("keep", "note_states"):
        monkeypatch.setattr(feed.data, name, late(getattr(feed.data, name)))
    feed.look(5)
    assert next(lengths) == LENGTH + 3
    assert feed.gaps == [("A", 0, 4, "filled", 0), ("A", 4, 1, "no_trade", 0)]
    assert feed.data.metrics("A").no_trade == 1
    bars = [(bar.start, bar.close, bar.flags) for bar in feed.data.all_bars("A")]
    assert bars == [
        *((at(minute), minute + 1.0, FILLED) for minute in range(4)),
        (at(4), 4.0, SYNTHETIC),
    ]


def test_once_somebody_has_rolled_nothing_is_written(whole: BarSource) -> None:
    opened = OPEN + DAY
    segment = Segment(opened, opened + 3 * MINUTE, "regular")
    following = Session(date(2018, 11, 20), (segment,))

    def roll() -> None:
        feed.data.roll_session(following)

    feed = Feed(Counting(whole, meanwhile=roll), synthesize=True)
    feed.bring("A", 0)
    assert feed.look(5) == []
    assert feed.data.session == following
    assert [(bar.symbol, bar.start) for bar in feed.data.all_bars("A")] == [("A", at(0))]
    assert feed.data.count("B") == 0
    # What is known of the session can still be asked for.
    assert feed.gaps == [("A", 1, 4, "missing", 0), ("B", 0, 5, "missing", 0)]


def test_what_could_not_be_filled_is_asked_for_again(
    whole: BarSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    feed = Feed(whole, expected={"A"})
    with monkeypatch.context() as patch:
        patch.setattr(feed.data, "keep", refuse)
        with pytest.raises(MemoryError):
            feed.look(2)
    feed.look(2)
    assert [bar.start for bar in feed.data.all_bars("A")] == [at(0), at(1)]
    assert feed.gaps == [("A", 0, 2, "filled", 0)]


@pytest.mark.parametrize("minute", [3, LENGTH])
def test_a_check_in_which_something_is_raised_is_still_due(
    minute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(None, synthesize=True, expected={"A"})
    feed.bring("A", 0)
    for early in range(1, minute):
        feed.look(early)

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(feed.data, "note_states", refuse)
        patch.setattr(feed.data, "keep", refuse)
        with pytest.raises(MemoryError):
            feed.look(minute)
    assert feed.keeper.next_check == at(minute)
    feed.look(minute)
    assert [bar.start for bar in feed.data.all_bars("A")] == [at(n) for n in range(minute)]
    assert feed.keeper.next_check == (at(minute + 1) if minute < LENGTH else None)
