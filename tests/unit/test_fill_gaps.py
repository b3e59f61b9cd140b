"""Filling a store's gaps: what is asked, stored and remembered, over many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from stream_coord.calendars import Segment, Session
from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.errors import (
    IntervalError,
    LedgerError,
    SourceError,
    StoreConflictError,
    StoreError,
)
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore, WriteOutcome
from stream_coord.stores.ledger import GapRow, Ledger, open_ledger
from stream_coord.upkeep import fill
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.fill import FillOptions, FillSummary, fill_gaps

MINUTE = 60_000_000
MIDNIGHT = 1_541_116_800_000_000  # 2018-11-02 00:00 UTC
DAY = 1_440 * MINUTE
ONE = Interval.parse("1m")
LENGTH = 10
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)
Cell = tuple[str, int, int]
"""Symbol, number of the session, minute of the session."""
SESSIONS = tuple(
    Session(
        date(2018, 11, 2 + n),
        (
            Segment(MIDNIGHT + n * DAY, MIDNIGHT + n * DAY + 6 * MINUTE, "regular"),
            Segment(MIDNIGHT + n * DAY + 60 * MINUTE, MIDNIGHT + n * DAY + 64 * MINUTE, "regular"),
        ),
    )
    for n in range(3)
)
END = SESSIONS[-1].close
DEFAULTS = FillOptions()
SETUP = dict.fromkeys(
    ("settings", "config_digest", "calendar", "calendar_version", "store", "program_version"), ""
)


def start_of(session: int, minute: int) -> int:
    """Minutes 0 to 5 are before the break, 6 to 9 after it."""
    return MIDNIGHT + session * DAY + (minute if minute < 6 else minute + 54) * MINUTE


def frame(cells: Sequence[Cell], price: float = 1.0) -> pl.DataFrame:
    rows = [(symbol, start_of(n, minute), *[price] * 4, 5.0) for symbol, n, minute in cells]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("symbol", "start")


def every(*symbols: str, sessions: Sequence[int] = (0, 1, 2)) -> list[Cell]:
    return [(symbol, n, m) for symbol in symbols for n in sessions for m in range(LENGTH)]


class Source:
    """Bars of some cells; covers all; counts the minutes that it was asked for."""

    def __init__(self, cells: Sequence[Cell] = (), price: float = 1.0) -> None:
        self.frame = frame(cells, price)
        self.error: BaseException | None = None
        self.until = END
        self.minutes: list[int] = []
        self.before_answer: Callable[[], object] = lambda: None

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        cut = (replace(part, end=min(part.end, self.until)) for part in ranges)
        return [part for part in cut if part.start < part.end]

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.minutes.append(sum(part.end - part.start for part in ranges) // MINUTE)
        self.before_answer()
        if self.error is not None:
            raise self.error
        return self.frame

    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    store: BarStore
    universe: Universe
    sessions: tuple[Session, ...] = SESSIONS
    interval: Interval = ONE


@dataclass
class World:
    """A store with a ledger, in which runs fill gaps."""

    store: BarStore
    ledger: Ledger
    symbols: tuple[str, ...] = ("A",)
    now: int = END
    times: Iterator[int] = field(default_factory=lambda: count(1))
    last_run: int = 0

    def fill(
        self,
        *sources: Source,
        names: str = "abc",
        sessions: Sequence[int] = (0, 1, 2),
        how: FillOptions = DEFAULTS,
    ) -> FillSummary:
        named = [NamedSource(n, n, each) for n, each in zip(names, sources, strict=False)]
        enquirer = Enquirer(named, ONE, FixedClock(self.now), SystemTimer())
        plan = Plan(self.store, Universe(self.symbols), tuple(SESSIONS[n] for n in sessions))
        self.last_run = self.ledger.begin_run(next(self.times), "fill-gaps", **SETUP)
        clock = FixedClock(self.now)
        return fill_gaps(plan, self.ledger, enquirer, clock, self.last_run, how)

    def states(self) -> list[GapRow]:
        return list(self.ledger.gap_states("1m", "2018-01-01", "2019-01-01"))

    def told(self) -> list[tuple[str, str, int, str]]:
        """Return session, symbol, minutes and state of all that the ledger knows."""
        return [(g.session[-2:], g.symbol, g.minutes, g.state) for g in self.states()]

    def stored(self) -> set[tuple[str, int, float]]:
        return set(self.store.read(ONE, None, 0, 2**60)["symbol", "start", "close"].iter_rows())


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    url = getattr(request, "param", "sqlite:///bars.db")
    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        store = open_store(url, tmp_path, create=True)
        yield World(store, ledger)
        store.close()


in_every_store = pytest.mark.parametrize(
    "world", ["sqlite:///bars.db", "delta:bars"], indirect=True
)


@in_every_store
def test_gaps_are_filled_and_remembered(world: World) -> None:
    holes = [("A", 0, 0), ("A", 0, 5), ("A", 0, 6), ("A", 2, 9)]
    world.store.write(ONE, frame([cell for cell in every("A") if cell not in holes]))
    source = Source(holes, price=7.0)
    got = world.fill(source)
    assert (got.minutes_missing, got.filled, got.still_missing) == (4, 4, 0)
    assert got.by_source == {"a": 4}
    assert world.stored() == {
        (symbol, start_of(n, m), 7.0 if (symbol, n, m) in holes else 1.0)
        for symbol, n, m in every("A")
    }
    # a gap goes on across the break
    assert got.gaps == [
        GapRow(
            "A", f"2018-11-{day}", start_of(n, m), end, minutes, "filled", source="a", last_try=END
        )
        for day, n, m, end, minutes in (
            ("02", 0, 0, start_of(0, 1), 1),
            ("02", 0, 5, start_of(0, 7), 2),
            ("04", 2, 9, SESSIONS[2].close, 1),
        )
    ]
    assert [replace_run(gap) for gap in world.states()] == got.gaps
    assert source.minutes == [4]
    [call] = world.ledger.source_calls()
    assert (call.source, call.ranges, call.minutes, call.bars) == ("a", 4, 4, 4)
    assert world.ledger.pending_gaps() == []


def replace_run(gap: GapRow) -> GapRow:
    names = GapRow.__dataclass_fields__
    return GapRow(**{name: getattr(gap, name) for name in names})


def test_a_confirmed_minute_is_asked_for_once(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    source = Source()
    first = world.fill(source)
    assert (first.minutes_missing, first.no_trade, first.skipped) == (3, 3, 0)
    before = world.states()
    again = world.fill(source)
    assert source.minutes == [3]
    assert (again.minutes_missing, again.no_trade, again.skipped) == (3, 3, 3)
    assert world.states() == before  # not even the run is another
    assert again.gaps == first.gaps


def test_a_new_source_reopens_what_was_confirmed_and_is_the_only_one_asked(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    old, new = Source(), Source([("A", 0, 1)])
    world.fill(old)
    got = world.fill(old, new)
    assert (old.minutes, new.minutes) == ([3], [3])
    assert (got.filled, got.no_trade) == (1, 2)
    assert world.told() == [
        ("02", "A", 1, "no_trade"),
        ("02", "A", 1, "filled"),
        ("02", "A", 1, "no_trade"),
    ]
    assert [(gap.asked, gap.empty) for gap in world.states()] == [
        (("a", "b"), ("a", "b")),
        ((), ()),
        (("a", "b"), ("a", "b")),
    ]
    world.fill(old, new)
    world.fill(new, names="b")  # one that is gone changes nothing
    assert (old.minutes, new.minutes) == ([3], [3])


def test_reopen_asks_everybody_again(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    source = Source()
    world.fill(source)
    source.frame = frame([("A", 0, 2)])
    got = world.fill(source, how=FillOptions(reopen=True))
    assert source.minutes == [3, 3]
    assert (got.filled, got.no_trade, got.skipped) == (1, 2, 0)


def test_tries_are_carried_on_over_runs_until_a_minute_is_given_up(world: World) -> None:
    world.store.write(ONE, frame(every("A")[2:]))
    broken, fine = Source(), Source()
    broken.error = SourceError("out of order")
    for tries in (1, 2):
        got = world.fill(fine, broken, how=FillOptions(attempts=3))
        assert (got.still_missing, got.failures) == (2, ["b: out of order"])
        assert [(g.state, g.tries, g.empty) for g in world.states()] == [("missing", tries, ("a",))]
    got = world.fill(fine, broken, how=FillOptions(attempts=3))
    assert (got.unresolved, got.still_missing) == (2, 0)
    assert [(g.state, g.tries) for g in world.states()] == [("unresolved", 3)]
    assert fine.minutes == [2]  # it had confirmed them
    got = world.fill(fine, broken, how=FillOptions(attempts=3))
    assert broken.minutes == [2, 2, 2]
    assert (got.unresolved, got.skipped, got.failures) == (2, 2, [])


def test_a_new_source_reopens_what_was_given_up_with_all_attempts(world: World) -> None:
    world.store.write(ONE, frame(every("A")[2:]))
    broken = Source()
    broken.error = SourceError("out of order")
    world.fill(broken)
    assert world.told() == [("02", "A", 2, "unresolved")]
    got = world.fill(broken, broken, how=FillOptions(attempts=2))
    assert got.still_missing == 2
    assert [(g.state, g.tries) for g in world.states()] == [("missing", 1)]


def test_what_nobody_covers_stays_missing_without_a_try(world: World) -> None:
    world.store.write(ONE, frame(every("A")[:-2]))
    source = Source()
    source.until = start_of(2, 9)
    got = world.fill(source)
    assert (got.no_trade, got.still_missing) == (1, 1)
    assert [(g.state, g.tries, g.last_try) for g in world.states()] == [
        ("no_trade", 0, END),
        ("missing", 0, None),
    ]
    source.until = END
    assert world.fill(source).no_trade == 2
    assert source.minutes == [1, 1]


def test_without_a_source_gaps_are_noted_as_missing(world: World) -> None:
    world.store.write(ONE, frame(every("A", sessions=[1])))
    got = world.fill()
    assert (got.minutes_missing, got.still_missing, got.filled) == (20, 20, 0)
    assert [(g.kind, g.minutes) for g in got.gaps] == [("before_first", 10), ("session", 10)]
    assert world.told() == [("02", "A", 10, "missing"), ("04", "A", 10, "missing")]


def test_a_fill_before_the_first_bar_moves_the_first_bar(world: World) -> None:
    world.store.write(ONE, frame(every("A", sessions=[1, 2])))
    got = world.fill(Source([("A", 0, 4)]))
    assert [(g.kind, g.minutes, g.state) for g in got.gaps] == [
        ("before_first", 4, "no_trade"),
        ("minutes", 1, "filled"),
        ("minutes", 5, "no_trade"),
    ]
    before = world.states()
    world.fill(Source())
    assert world.states() == before


def test_what_the_store_does_not_bear_out_is_forgotten(world: World) -> None:
    world.store.write(ONE, frame(every("A")[4:]))
    broken = Source()
    broken.error = SourceError("out of order")
    world.fill(broken, how=FillOptions(attempts=9))
    world.store.write(ONE, frame(every("A")[:2]))  # imported since
    broken.error = None
    broken.frame = frame([("A", 0, 2)])
    assert world.fill(broken).minutes_missing == 2
    assert world.told() == [("02", "A", 1, "filled"), ("02", "A", 1, "no_trade")]


def test_a_filled_minute_whose_bar_is_gone_is_missing_again(tmp_path: Path) -> None:
    kept = every("A")[2:]
    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        world = World(open_store("delta:one", tmp_path, create=True), ledger)
        world.store.write(ONE, frame(kept))
        world.fill(Source(every("A")))
        world.store = open_store("delta:two", tmp_path, create=True)
        world.store.write(ONE, frame(kept))
        broken = Source()
        broken.error = SourceError("out of order")
        world.fill(broken, how=FillOptions(attempts=2))
        assert [(g.state, g.tries, g.source) for g in world.states()] == [("missing", 1, None)]
        assert world.fill(Source(every("A"))).filled == 2
        assert world.told() == [("02", "A", 2, "filled")]


def test_a_dry_run_asks_and_tells_but_changes_nothing(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    source = Source([("A", 0, 0)])
    before = world.stored()
    got = world.fill(source, how=FillOptions(dry_run=True))
    assert source.minutes == [3]
    assert (got.filled, got.no_trade, got.by_source) == (1, 2, {"a": 1})
    assert [gap.state for gap in got.gaps] == ["filled", "no_trade"]
    assert world.stored() == before
    assert world.states() == []
    assert world.ledger.source_calls() == []
    assert world.ledger.pending_gaps() == []


def test_only_minutes_that_are_due_are_asked_for(world: World) -> None:
    world.store.write(ONE, frame([("A", 0, 0)]))
    world.now = start_of(1, 3) + MINUTE // 2
    source = Source(every("A"))
    got = world.fill(source, how=FillOptions(grace_micros=MINUTE))
    assert got.minutes_missing == 9 + 2
    assert len(world.stored()) == 1 + 9 + 2
    world.now = END
    world.fill(source)
    assert len(world.stored()) == 30


def test_an_earlier_now_forgets_nothing(world: World) -> None:
    world.store.write(ONE, frame([("A", 0, 0)]))
    world.fill(Source(every("A", sessions=[0])))
    before = world.states()
    world.now = start_of(0, 4)
    world.fill(Source())
    assert world.states() == before


def test_symbols_and_sessions_that_are_not_asked_for_keep_their_states(world: World) -> None:
    world.symbols = ("A", "B")
    world.store.write(ONE, frame([("A", 1, 0), ("B", 1, 0)]))
    world.fill(Source())
    before = world.states()
    world.symbols = ("B",)
    world.fill(Source([("B", 1, 1)]), how=FillOptions(reopen=True), sessions=[1])
    others = [gap for gap in before if (gap.symbol, gap.session) != ("B", "2018-11-03")]
    assert [g for g in world.states() if (g.symbol, g.session) != ("B", "2018-11-03")] == others
    assert ("03", "B", 1, "filled") in world.told()


def test_sources_that_disagree_are_kept_both(world: World) -> None:
    world.store.write(ONE, frame(every("A")[2:]))
    got = world.fill(Source(every("A"), 3.0), Source(every("A")[:1], 4.0))
    assert got.disagreements == 1
    [told] = world.ledger.disagreements("1m")
    assert (told.start, told.source, told.other) == (start_of(0, 0), "a", "b")
    assert (told.values[0], told.other_values[0]) == (3.0, 4.0)
    assert ("A", start_of(0, 0), 3.0) in world.stored()


@in_every_store
def test_what_another_stored_meanwhile_is_not_overwritten(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    source = Source(every("A"), 7.0)
    theirs = iter([frame([("A", 0, 1)], 9.0), frame([("A", 0, 2)], 7.0)])

    def quicker() -> None:
        world.store.write(ONE, next(theirs, frame([])))

    source.before_answer = quicker
    got = world.fill(source)
    assert source.minutes == [3, 2, 1]
    assert (got.minutes_missing, got.filled) == (1, 1)
    prices = {start: price for _, start, price in world.stored()}
    assert [prices[start_of(0, m)] for m in range(3)] == [7.0, 9.0, 7.0]
    assert world.told() == [("02", "A", 1, "filled")]
    assert world.ledger.pending_gaps() == []


def test_what_another_run_found_out_meanwhile_is_not_forgotten(world: World) -> None:
    world.store.write(ONE, frame(every("A")[3:]))
    slow, quick = Source(), Source([("A", 0, 0)])

    def overtake() -> None:
        slow.before_answer = lambda: None
        world.fill(quick, names="b")

    slow.before_answer = overtake
    got = world.fill(slow)
    assert (got.minutes_missing, got.no_trade) == (2, 2)
    assert [(gap.minutes, gap.state, gap.source) for gap in world.states()] == [
        (1, "filled", "b"),
        (2, "no_trade", None),
    ]
    assert [gap.empty for gap in world.states()] == [(), ("a", "b")]


def test_who_is_always_slower_gives_up_without_harm(world: World) -> None:
    world.symbols = tuple(f"S{n:02}" for n in range(20))
    world.store.write(ONE, frame([("S00", 0, 0)]))
    source = Source(every(*world.symbols))
    left = iter(world.symbols)
    source.before_answer = lambda: world.store.write(ONE, frame([(next(left), 2, 5)], 9.0))
    with pytest.raises(StoreConflictError, match="12 times"):
        world.fill(source)
    assert world.ledger.pending_gaps() == []
    assert len(world.stored()) == 1 + 12


@pytest.mark.parametrize("many", [True, False])
def test_sessions_are_asked_for_in_batches(
    world: World, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "BATCH_MINUTES", 15 if many else 20)
    world.store.write(ONE, frame([("A", 0, 0)]))
    source = Source(every("A"))
    got = world.fill(source)
    assert source.minutes == ([9, 10, 10] if many else [19, 10])
    assert (got.filled, got.by_source) == (29, {"a": 29})
    assert [gap.session[-2:] for gap in got.gaps] == ["02", "03", "04"]


def test_whole_batches_are_done_when_something_stops_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "BATCH_MINUTES", 1)
    world.store.write(ONE, frame([("A", 0, 0)]))
    source = Source(every("A"))

    def stop_at_second() -> None:
        if len(source.minutes) == 2:
            raise KeyboardInterrupt

    source.before_answer = stop_at_second
    with pytest.raises(KeyboardInterrupt):
        world.fill(source)
    assert len(world.stored()) == 10
    assert world.told() == [("02", "A", 9, "filled")]
    source.before_answer = lambda: None
    assert world.fill(source).filled == 20
    assert len(world.stored()) == 30


class Stopping:
    """A store whose write is stopped by an exception before or after its commit."""

    def __init__(self, store: BarStore, error: BaseException, *, after: bool) -> None:
        self.store, self.error, self.after = store, error, after

    def write(
        self,
        interval: Interval,
        bars: pl.DataFrame,
        *,
        before_commit: Callable[[WriteOutcome], None],
    ) -> WriteOutcome:
        def stop(outcome: WriteOutcome) -> None:
            before_commit(outcome)
            if not self.after:
                raise self.error

        self.store.write(interval, bars, before_commit=stop)
        raise self.error

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


@in_every_store
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("disk full")], ids=repr)
def test_store_and_ledger_agree_when_a_write_is_stopped(
    world: World, error: BaseException, after: bool
) -> None:
    world.store.write(ONE, frame(every("A")[2:]))
    good = world.store
    world.store = Stopping(good, error, after=after)  # type: ignore[assignment]
    with pytest.raises(type(error)):
        world.fill(Source(every("A")))
    world.store = good
    assert world.ledger.pending_gaps() == []
    assert world.told() == ([("02", "A", 2, "filled")] if after else [])
    assert len(world.stored()) == (30 if after else 28)
    assert world.fill(Source(every("A"))).filled == (0 if after else 2)
    assert world.told() == [("02", "A", 2, "filled")]


@in_every_store
@pytest.mark.parametrize("after", [False, True])
def test_the_next_run_settles_what_a_killed_one_left(
    world: World, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.write(ONE, frame(every("A")[2:]))
    good = world.store
    world.store = Stopping(good, KeyboardInterrupt(), after=after)  # type: ignore[assignment]
    with monkeypatch.context() as killed:  # who is killed settles nothing
        killed.setattr(fill, "settle_pending", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            world.fill(Source(every("A")))
    world.store = good
    [(run, change)] = world.ledger.pending_gaps()
    assert run == world.last_run
    assert [gap.minutes for gap in change.gaps] == [2]
    source = Source(every("A"))
    assert world.fill(source).filled == (0 if after else 2)
    assert source.minutes == ([] if after else [2])
    assert world.told() == [("02", "A", 2, "filled")]
    assert world.ledger.pending_gaps() == []
    written_by = {gap.run_id for gap in world.ledger.gap_states("1m", "2018-11-02", "2018-11-02")}
    assert written_by == {run if after else world.last_run}


def test_bars_outside_of_regular_hours_are_no_fill(world: World) -> None:
    world.store.write(ONE, frame(every("A")))
    lunch = frame([("A", 0, 5)]).with_columns(start=pl.lit(start_of(0, 5) + MINUTE))
    world.store.write(ONE, lunch)
    got = world.fill(Source())
    assert (got.minutes_missing, got.gaps) == (0, [])


def test_symbols_are_held_to_account_from_their_first_bar_to_their_last(world: World) -> None:
    ours = [("A", 0, 0), ("A", 1, 9), ("B", 2, 0)]
    world.store.write(ONE, frame(ours))
    first = start_of(0, 0), start_of(2, 0)
    last = start_of(1, 9), start_of(2, 0)
    enquirer = Enquirer([], ONE, FixedClock(0), SystemTimer())
    dry = FillOptions(dry_run=True)
    plan = Plan(world.store, Universe(("A", "B"), first, last))
    got = fill_gaps(plan, None, enquirer, FixedClock(END), None, dry)
    assert [(gap.symbol, gap.session[-2:], gap.minutes) for gap in got.gaps] == [
        ("A", "02", 9),
        ("A", "03", 9),
        ("B", "04", 9),
    ]
    nobody = Plan(world.store, Universe(("A",), first[:1], first[:1]), SESSIONS[2:])
    assert fill_gaps(nobody, None, enquirer, FixedClock(END), None, dry) == FillSummary()


def test_a_session_that_the_bars_do_not_fit_is_an_error(world: World) -> None:
    odd = Session(date(2018, 11, 2), (Segment(MIDNIGHT + 1, MIDNIGHT + 1 + MINUTE, "regular"),))
    enquirer = Enquirer([], ONE, FixedClock(0), SystemTimer())
    plan = Plan(world.store, Universe(("A",)), (odd,))
    with pytest.raises(IntervalError, match="do not fit"):
        fill_gaps(plan, None, enquirer, FixedClock(END), None, FillOptions(dry_run=True))


def test_nothing_to_do_writes_nothing(world: World) -> None:
    world.store.write(ONE, frame(every("A")))
    source = Source(every("A"))
    assert world.fill(source) == FillSummary()
    assert source.minutes == []
    assert world.states() == []


def test_a_run_that_writes_needs_a_ledger(world: World) -> None:
    enquirer = Enquirer([], ONE, FixedClock(0), SystemTimer())
    plan = Plan(world.store, Universe(("A",)))
    with pytest.raises(ValueError, match="dry run"):
        fill_gaps(plan, None, enquirer, FixedClock(END), None)
    dry = fill_gaps(plan, None, enquirer, FixedClock(END), None, FillOptions(dry_run=True))
    assert dry.still_missing == 30


def test_progress_tells_of_sessions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "BATCH_MINUTES", 20)
    told: list[tuple[int, int, str]] = []
    enquirer = Enquirer([], ONE, FixedClock(0), SystemTimer())
    plan = Plan(world.store, Universe(("A",)))
    run = world.ledger.begin_run(0, "fill-gaps", **SETUP)

    def tell(done: int, total: int, label: str) -> None:
        told.append((done, total, label))

    fill_gaps(plan, world.ledger, enquirer, FixedClock(END), run, on_progress=tell)
    assert told == [(0, 3, "2018-11-02"), (2, 3, "2018-11-04")]


def test_a_run_that_has_ended_cannot_fill(world: World) -> None:
    enquirer = Enquirer([], ONE, FixedClock(0), SystemTimer())
    plan = Plan(world.store, Universe(("A",)))
    with pytest.raises(LedgerError):
        fill_gaps(plan, world.ledger, enquirer, FixedClock(END), 99)
