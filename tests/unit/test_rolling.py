"""Ending sessions: which are over, what is filled, measured and sealed, and what stops it."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from xxhash import xxh3_128_hexdigest

from stream_coord import rolling
from stream_coord.bars import frame_schema
from stream_coord.calendars import Calendar
from stream_coord.calendars.schedule import MISSING, Schedule, day_number
from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.compute.quality import QualityRow
from stream_coord.config import load_config
from stream_coord.errors import (
    CalendarError,
    LedgerError,
    NoBarsError,
    SourceError,
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreMissingError,
)
from stream_coord.filling import FILLING, Place
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.opening import cursor_key
from stream_coord.render.roll import roll_text
from stream_coord.rolling import Rolling, RollInterruptedError, RollOptions, roll
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores import open_store
from stream_coord.stores.ledger import Ledger, SealRecord, StateRecord, open_ledger
from stream_coord.upkeep.asking import Enquirer

if TYPE_CHECKING:
    from stream_coord.stores.base import BarStore

ONE = Interval(MINUTE)
MONDAY = date(2018, 11, 19)
NUMBERS = (0, 1, 2, 4, 7, 8)
"""Days that have a session, counted from a Monday; Thursday is a holiday."""
MINUTES = 20
"""Each session opens ten minutes before its UTC date begins."""


def day(n: int) -> date:
    return MONDAY + timedelta(n)


def opens(n: int) -> int:
    return day_number(day(n)) * DAY - 10 * MINUTE


def closes(n: int) -> int:
    return opens(n) + MINUTES * MINUTE


def bars(symbol: str, n: int, minutes: Sequence[int], price: float = 10.0) -> pl.DataFrame:
    """Return flat bars of some minutes of a day's session."""
    rows = [(symbol, opens(n) + minute * MINUTE, *[price] * 5) for minute in minutes]
    return pl.DataFrame(rows, schema=frame_schema(), orient="row")


def without(*gone: int) -> list[int]:
    return [minute for minute in range(MINUTES) if minute not in gone]


WHOLE = without()
SETUP = dict.fromkeys(
    ("settings", "config_digest", "calendar", "calendar_version", "store", "program_version"), ""
)


@dataclass
class Source:
    """Answers with some bars; raises what it is told to when it is asked for a session."""

    frame: pl.DataFrame
    raises: Callable[[int], BaseException | None] = lambda _: None
    asked: int = 0

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        return ranges

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.asked += 1
        error = self.raises(ranges[0].start)
        if error is not None:
            raise error
        return self.frame

    def close(self) -> None: ...


@dataclass
class World:
    """A store, a ledger, and a calendar of short sessions."""

    folder: Path
    place: Place
    ledger: Ledger
    source: Source | None = None

    @property
    def store(self) -> BarStore:
        return self.place.store

    @property
    def key(self) -> str:
        return cursor_key(self.place.config)

    def roll(self, now: int, to: int | None = None, **options: bool) -> Rolling:
        """Roll at a time, to a day counted from Monday."""
        target = None if to is None else day(to)
        return roll(self.place, self.ledger, FixedClock(now), RollOptions(to=target, **options))

    def current(self) -> date | None:
        cursor = self.ledger.cursor(self.key)
        return None if cursor is None else date.fromisoformat(cursor.session)

    def everything(self) -> list[str]:
        """Return all that store and ledger hold."""
        dumps = []
        for name in ("bars.db", "ledger.db"):
            with closing(sqlite3.connect(self.folder / name)) as database:
                dumps += list(database.iterdump())
        return dumps

    def shift(self, price: float, of: int = 0) -> None:
        """Change a stored price behind the store's back: the open of a bar of B, past midnight."""
        change = (
            "UPDATE bars SET open = open + ? "
            "WHERE series = (SELECT id FROM series WHERE symbol = 'B') AND start = ?"
        )
        with closing(sqlite3.connect(self.folder / "bars.db")) as database, database:
            assert database.execute(change, (price, opens(of) + 12 * MINUTE)).rowcount == 1


@pytest.fixture(scope="module")
def calendar() -> Calendar:
    times = [[MISSING, opens(n), MISSING, MISSING, closes(n), MISSING] for n in NUMBERS]
    days = np.array([day_number(day(n)) for n in NUMBERS])
    return Calendar("TEST", "regular", Schedule("UTC", days, np.array(times)), "1", "")


@pytest.fixture
def world(tmp_path: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a store with A and B of Monday to Wednesday; B lacks two minutes of Monday."""
    (tmp_path / "sc.toml").write_text("[upkeep]\nmax_retries = 3\n")
    store = open_store("sqlite:///bars.db", tmp_path, create=True)
    for n in (0, 1, 2):
        store.write(ONE, bars("A", n, WHOLE))
        store.write(ONE, bars("B", n, without(3, 15) if n == 0 else WHOLE))
    place = Place(load_config(tmp_path / "sc.toml"), calendar, store)
    with closing(store), open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger:
        made = World(tmp_path, place, ledger)

        def enquirer(_: object) -> Enquirer:
            sources = [] if made.source is None else [NamedSource("s", "s: test", made.source)]
            return Enquirer(sources, ONE, FixedClock(0), SystemTimer())

        monkeypatch.setattr(rolling, "enquirer_of", enquirer)
        yield made


def listing(world: World, *symbols: str) -> None:
    """List symbols in the settings."""
    text = ", ".join(f'"{symbol}"' for symbol in symbols)
    (world.folder / "sc.toml").write_text(f"symbols = [{text}]\n")
    world.place = replace(world.place, config=load_config(world.folder / "sc.toml"))


# -- which sessions are over ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "status", "current"),
    [
        (opens(0) - 1, "up-to-date", 0),
        (opens(0), "not-over", 0),
        (closes(0) - 1, "not-over", 0),
        (closes(0), "rolled", 1),
        (closes(2), "rolled", 1),
    ],
)
def test_a_session_is_over_at_its_end(world: World, now: int, status: str, current: int) -> None:
    done = world.roll(now)
    assert (done.status, done.first.date, done.current.date) == (status, day(0), day(current))
    assert world.current() == (day(1) if current else None)


def test_rolling_again_changes_nothing(world: World) -> None:
    assert world.roll(closes(0)).status == "rolled"
    before = world.everything()
    again = world.roll(closes(0))
    assert (again.status, again.stopped, again.run) == ("up-to-date", "not-begun", None)
    assert (again.sealed, again.sessions) == ([], [])
    assert world.roll(closes(0), to=0).status == "up-to-date"
    assert world.roll(closes(0), to=1).status == "up-to-date"
    assert world.roll(opens(1)).status == "not-over"
    assert world.everything() == before


@pytest.mark.parametrize(
    ("now", "to", "current", "stopped"),
    [
        (closes(2), 2, 2, None),
        (closes(2), 4, 4, None),
        (closes(1), 4, 2, "not-begun"),
        (opens(2), 4, 2, "not-over"),
        (closes(8), 1, 1, None),
    ],
)
def test_it_catches_up_as_far_as_sessions_are_over(
    world: World, now: int, to: int, current: int, stopped: str | None
) -> None:
    done = world.roll(now, to)
    ended = [day(n) for n in NUMBERS if n < current]
    assert (done.status, done.stopped, done.sessions) == ("rolled", stopped, ended)
    assert done.current.date == world.current() == day(current)
    seals = world.ledger.seals(world.key)
    assert [seal.session for seal in seals] == list(map(str, ended))
    assert {(seal.at, seal.run_id) for seal in seals} == {(now, done.run)}


def test_a_date_without_a_session_names_the_nearest(world: World) -> None:
    with pytest.raises(CalendarError, match="no session on 2018-11-22") as error:
        world.roll(closes(8), to=3)
    assert error.value.hint == "The nearest sessions: 2018-11-21, 2018-11-23."


@settings(max_examples=15)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(
                [time for n in NUMBERS for time in (opens(n) - 1, opens(n), closes(n))]
            ),
            st.sampled_from([None, *NUMBERS]),
        ),
        max_size=8,
    )
)
def test_any_calls_roll_as_a_plain_model_does(
    calls: list[tuple[int, int | None]],
    calendar: Calendar,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "sc.toml").write_text('symbols = ["A"]\n')
    config, at, sealed = load_config(folder / "sc.toml"), 0, list[int]()
    with (
        closing(open_store("sqlite:///bars.db", folder, create=True)) as store,
        open_ledger("sqlite:///ledger.db", folder, create=True) as ledger,
    ):
        store.write(ONE, bars("A", 0, WHOLE))
        place = Place(config, calendar, store)
        for now, to in calls:
            target = at + 1 if to is None else NUMBERS.index(to)
            status = "up-to-date"
            while at < target and status != "not-over":
                if closes(NUMBERS[at]) <= now:
                    sealed.append(at)
                    at, status = at + 1, "rolled"
                elif status == "up-to-date" and opens(NUMBERS[at]) <= now:
                    status = "not-over"
                else:
                    break
            if at == len(NUMBERS) - 1:  # the calendar ends here
                break
            done = roll(
                place, ledger, FixedClock(now), RollOptions(to=to if to is None else day(to))
            )
            assert (done.status, done.current.date) == (status, day(NUMBERS[at]))
            seals = [seal.session for seal in ledger.seals()]
            assert seals == [str(day(NUMBERS[n])) for n in sealed]


# -- what is sealed ------------------------------------------------------------------------------


def test_the_seal_says_what_is_stored_and_what_it_is_worth(world: World) -> None:
    done = world.roll(closes(0))
    rows = [
        QualityRow("A", "2018-11-19", 20, 20),
        QualityRow("B", "2018-11-19", 20, 18, missing=2),
    ]
    assert done.sealed == rows
    (seal,) = world.ledger.seals(world.key)
    assert world.ledger.seal_quality(seal.id) == rows
    assert (seal.open, seal.close, seal.bars) == (opens(0), closes(0), 38)
    checksums = {"A": flat_checksum(WHOLE), "B": flat_checksum(without(3, 15))}
    assert world.ledger.seal_checksums(seal.id) == checksums
    text = "A {A}\nB {B}\n".format(**checksums)
    assert seal.data_version == xxh3_128_hexdigest(text.encode())


def flat_checksum(minutes: Sequence[int], price: float = 10.0) -> str:
    """Return the checksum of flat bars of Monday: the starts, then five columns of values."""
    starts = struct.pack(f"<{len(minutes)}q", *(opens(0) + at * MINUTE for at in minutes))
    return xxh3_128_hexdigest(starts + struct.pack("<d", price) * 5 * len(minutes))


def seal_of_monday(world: World, now: int) -> tuple[str, dict[str, str]]:
    """Roll with a ledger that knows nothing, and return what it has of Monday."""
    with open_ledger(f"sqlite:///ledger-{now}.db", world.folder, create=True) as ledger:
        roll(world.place, ledger, FixedClock(now))
        (seal,) = ledger.seals()
        assert seal.session == str(day(0))
        return seal.data_version, ledger.seal_checksums(seal.id)


def test_the_seal_is_of_the_session_and_not_of_the_dates_that_it_lies_in(world: World) -> None:
    """Sunday's and Monday's date hold Monday's session, and bars before and after it."""
    at_once = seal_of_monday(world, closes(0))
    world.store.write(ONE, bars("A", 0, [-700, -1, MINUTES, 700]))
    world.store.write(ONE, bars("A", 1, [0], 11.0))
    assert seal_of_monday(world, closes(1)) == at_once
    world.store.write(ONE, bars("A", 0, [0], 11.0))
    version, checksums = seal_of_monday(world, closes(2))
    assert version != at_once[0]
    assert [checksums[symbol] == at_once[1][symbol] for symbol in "AB"] == [False, True]


def test_the_last_pass_fills_what_the_sources_have(world: World) -> None:
    world.source = Source(bars("B", 0, [3], 11.0))
    done = world.roll(closes(0))
    assert done.sealed[1] == QualityRow("B", "2018-11-19", 20, 19, no_trade=1, filled=1)
    stored = world.store.read(ONE, ["B"], opens(0), closes(0))
    assert dict(stored["start", "close"].rows())[opens(0) + 3 * MINUTE] == 11.0
    fill = done.fill
    assert (fill.minutes_missing, fill.filled, fill.no_trade) == (2, 1, 1)
    assert fill.by_source == {"s: test": 1}
    (run,) = world.ledger.runs()
    assert (run.command, run.status, run.sessions, run.bars) == ("roll", "done", 1, 1)
    states = [(gap.state, gap.minutes) for gap in world.ledger.gap_states("1m", "2018", "2019")]
    assert states == [("filled", 1), ("no_trade", 1)]


def test_with_extended_hours_it_is_over_after_them_and_they_are_not_expected(world: World) -> None:
    edge = 5 * MINUTE
    times = [
        [opens(n) - edge, opens(n), MISSING, MISSING, closes(n), closes(n) + edge] for n in NUMBERS
    ]
    days = np.array([day_number(day(n)) for n in NUMBERS])
    extended = Calendar("TEST", "extended", Schedule("UTC", days, np.array(times)), "1", "")
    world.place = replace(world.place, calendar=extended)
    world.store.write(ONE, bars("A", 0, [-6, -5, 24, 25]))
    assert world.roll(opens(0) - edge - 1).status == "up-to-date"
    assert world.roll(opens(0) - edge).status == "not-over"
    assert world.roll(closes(0) + edge - 1).status == "not-over"
    done = world.roll(closes(0) + edge)
    assert [(row.expected, row.present) for row in done.sealed] == [(20, 20), (20, 18)]
    (seal,) = world.ledger.seals()
    assert (seal.open, seal.close, seal.bars) == (opens(0), closes(0), 40)


def test_no_grace_is_left_at_the_end(world: World) -> None:
    world.place = replace(
        world.place,
        config=load_config(world.folder / "sc.toml", sets=["upkeep.grace_seconds=3600"]),
    )
    world.source = Source(bars("B", 0, [3, 15]))
    assert world.roll(closes(0)).fill.filled == 2


def test_a_source_that_fails_stops_nothing(world: World) -> None:
    world.source = Source(bars("B", 0, []), lambda _: SourceError("it is down"))
    world.store.write(ONE, bars("C", 1, without(0)))
    done = world.roll(closes(1), to=2)
    assert (done.status, done.cause, done.sessions) == ("rolled", None, [day(0), day(1)])
    assert [row.missing for row in done.sealed] == [0, 2, 0, 0, 1]
    assert done.fill.failures == ["s: test: it is down"]
    assert (done.fill.still_missing, world.source.asked) == (3, 2)


def test_a_dry_run_changes_nothing(world: World) -> None:
    world.source = Source(bars("B", 0, [3, 15]))
    before = world.everything()
    done = world.roll(closes(1), to=4, dry_run=True)
    assert (done.status, done.stopped, done.run) == ("rolled", "not-begun", None)
    assert (done.current.date, done.sessions) == (day(2), [day(0), day(1)])
    assert done.fill.filled == 2
    assert [row.missing for row in done.sealed] == [0, 2, 0, 0]
    assert world.everything() == before
    unknown = roll(world.place, None, FixedClock(closes(0)), RollOptions(dry_run=True))
    assert unknown.sessions == [day(0)]
    with pytest.raises(ValueError, match="dry run"):
        roll(world.place, None, FixedClock(closes(0)))


# -- symbols -------------------------------------------------------------------------------------


def test_listed_symbols_are_sealed_whether_they_have_bars_or_not(world: World) -> None:
    listing(world, "A", "NONE")
    done = world.roll(closes(0))
    assert done.sealed[1] == QualityRow("NONE", "2018-11-19", 20, 0, missing=20)
    assert done.notes == ("The store has no bars at all of NONE.",)
    (seal,) = world.ledger.seals()
    assert world.ledger.seal_checksums(seal.id)["NONE"] == ""
    assert seal.bars == 20


def test_unlisted_symbols_are_sealed_from_their_first_bar_to_their_last(world: World) -> None:
    world.store.write(ONE, bars("C", 1, [5]))
    done = world.roll(closes(2), to=4)
    assert [row.symbol for row in done.sealed] == ["A", "B", "A", "B", "C", "A", "B"]


def test_where_the_bars_end_it_stops_and_changes_nothing(world: World) -> None:
    done = world.roll(closes(8), to=7)
    assert (done.status, done.stopped, done.current.date) == ("rolled", "no-bars", day(4))
    before = world.everything()
    for to in (None, 7, 8):
        for options in ({}, {"dry_run": True}):
            done = world.roll(closes(8), to, **options)
            assert (done.status, done.stopped, done.run) == ("up-to-date", "no-bars", None)
            assert (done.current.date, done.sessions) == (day(4), [])
    assert world.everything() == before
    # Once A has bars of a later session, it lacks those before.
    world.store.write(ONE, bars("A", 7, WHOLE))
    done = world.roll(closes(8), to=8)
    assert [(row.symbol, row.present) for row in done.sealed] == [("A", 0), ("A", 20)]


@pytest.mark.parametrize("to", [None, 8])
def test_a_session_that_nobody_has_bars_of_is_sealed_without_rows_if_there_are_later_ones(
    world: World, to: int | None
) -> None:
    world.roll(closes(8), to=4)
    world.store.write(ONE, bars("NEW", 7, WHOLE))
    source = world.source = Source(bars("A", 4, WHOLE))
    done = world.roll(closes(8), to)
    assert (done.status, done.stopped) == ("rolled", None)
    assert done.sessions == [day(n) for n in ((4, 7) if to else (4,))]
    assert [row.symbol for row in done.sealed] == (["NEW"] if to else [])
    assert source.asked == 0
    seal = world.ledger.seals()[3]
    assert (seal.session, seal.bars) == ("2018-11-23", 0)
    assert world.ledger.seal_checksums(seal.id) == {}


def test_an_error_is_cleared_where_there_are_no_bars(world: World) -> None:
    world.roll(closes(8), to=4)
    run = world.ledger.begin_run(0, "roll", **SETUP)
    flagged = StateRecord(str(day(4)), 0, "ENDED", "ERROR", "a bad day")
    world.ledger.flag_error(run, world.key, flagged, 0)
    done = world.roll(closes(8), clear_error=True)
    assert (done.status, done.cleared, done.run) == ("up-to-date", "a bad day", run + 1)
    cursor = world.ledger.cursor(world.key)
    assert cursor is not None
    assert (cursor.session, cursor.error) == (str(day(4)), None)
    assert world.ledger.runs()[0].status == "done"


def test_an_empty_store_has_no_current_session(tmp_path: Path, calendar: Calendar) -> None:
    (tmp_path / "sc.toml").write_text("")
    with (
        closing(open_store("sqlite:///bars.db", tmp_path, create=True)) as store,
        open_ledger("sqlite:///ledger.db", tmp_path, create=True) as ledger,
        pytest.raises(NoBarsError, match="no 1m bars of any session"),
    ):
        roll(Place(load_config(tmp_path / "sc.toml"), calendar, store), ledger, FixedClock(0))


# -- what stops it -------------------------------------------------------------------------------


def test_damage_puts_the_session_in_error_until_a_person_clears_it(world: World) -> None:
    world.shift(1.0)
    done = world.roll(closes(1), to=2)
    assert (done.status, done.sessions, done.current.date) == ("error", [], day(0))
    cause = done.cause
    assert cause is not None
    for word in ("2018-11-19", "B"):
        assert word in cause
    cursor = world.ledger.cursor(world.key)
    assert cursor is not None
    assert (cursor.session, cursor.error) == (str(day(0)), cause)
    assert world.ledger.seals() == []
    (run,) = world.ledger.runs()
    assert (run.status, run.sessions, run.error) == ("failed", 0, f"StoreCorruptError: {cause}")

    before = world.everything()
    for dry_run in (False, True):
        refused = world.roll(closes(1), dry_run=dry_run)
        assert (refused.status, refused.cause, refused.run) == ("error", cause, None)
    assert world.everything() == before
    # Cleared without being mended it is back.
    assert world.roll(closes(1), clear_error=True).status == "error"

    world.shift(-1.0)
    assert world.roll(closes(1), clear_error=True, dry_run=True).status == "rolled"
    assert world.roll(closes(1)).status == "error"
    done = world.roll(closes(1), to=2, clear_error=True)
    assert (done.status, done.cleared, done.sessions) == ("rolled", cause, [day(0), day(1)])
    flagged = StateRecord(str(day(0)), closes(1), "ENDED", "ERROR", cause)
    cleared = StateRecord(str(day(0)), closes(1), "ERROR", "ENDED")
    told = [
        StateRecord(row.session, row.time, row.left, row.entered, row.cause)
        for row in world.ledger.states()
    ]
    assert told == [flagged, cleared, flagged, cleared]
    assert world.roll(closes(1), clear_error=True).cleared is None


def test_an_error_after_some_sessions_leaves_them_sealed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(world.store).read_versioned

    def broken(
        store: BarStore, interval: Interval, symbols: Sequence[str], start: int, end: int
    ) -> object:
        if start == opens(1):
            raise StoreCorruptError("a bad day")
        return read(store, interval, symbols, start, end)

    monkeypatch.setattr(type(world.store), "read_versioned", broken)
    done = world.roll(closes(2), to=4)
    assert (done.status, done.cause, done.current.date) == ("error", "a bad day", day(1))
    assert (done.sessions, [row.session for row in done.sealed]) == ([day(0)], ["2018-11-19"] * 2)
    assert [seal.session for seal in world.ledger.seals()] == ["2018-11-19"]
    (state,) = world.ledger.states()
    assert state.session == "2018-11-20"


def test_no_secret_is_in_the_cause_of_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hush-hush")
    (world.folder / "sc.toml").write_text(
        '[store]\nurl = "postgresql+psycopg://me:${STORE_PASSWORD}@host/bars"\n'
    )
    world.place = replace(world.place, config=load_config(world.folder / "sc.toml"))

    def broken(*_: object) -> None:
        raise StoreCorruptError("me:hush-hush has bad bars")

    monkeypatch.setattr(rolling, "fill_gaps", broken)
    cause = world.roll(closes(0)).cause
    assert cause is not None
    assert cause.endswith(" has bad bars")
    assert "hush" not in "".join(world.everything())


@pytest.mark.parametrize("kind", [StoreError, StoreConflictError, StoreMissingError])
@pytest.mark.parametrize("begun", [False, True])
def test_a_store_that_fails_is_no_state_of_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[StoreError], begun: bool
) -> None:
    if begun:
        world.roll(closes(0))
    cursor = world.ledger.cursor(world.key)
    read = type(world.store).read_versioned

    def lost(
        store: BarStore, interval: Interval, symbols: Sequence[str], start: int, end: int
    ) -> object:
        if end == closes(begun):
            raise kind("it has lost its connection", "Look at the server.")
        return read(store, interval, symbols, start, end)

    with monkeypatch.context() as patch:
        patch.setattr(type(world.store), "read_versioned", lost)
        with pytest.raises(kind, match="it has lost its connection\nLook at the server"):
            world.roll(closes(2))
    assert world.ledger.cursor(world.key) == cursor
    assert world.ledger.states() == []
    run = world.ledger.runs()[0]
    assert (run.status, run.error) == ("failed", f"{kind.__name__}: it has lost its connection")
    assert world.roll(closes(2)).sessions == [day(begun)]


def test_damage_that_shows_before_a_bar_is_read_is_an_error_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.roll(closes(0))

    def broken(*_: object) -> None:
        raise StoreCorruptError("a bad catalogue")

    with monkeypatch.context() as patch:
        patch.setattr(type(world.store), "spans", broken)
        done = world.roll(closes(1))
    assert (done.status, done.cause, done.run) == ("error", "a bad catalogue", 2)
    assert [(run.id, run.status) for run in world.ledger.runs()] == [(2, "failed"), (1, "done")]
    cursor = world.ledger.cursor(world.key)
    assert cursor is not None
    assert (cursor.session, cursor.error) == (str(day(1)), "a bad catalogue")
    assert world.roll(closes(1), clear_error=True).status == "rolled"


def test_a_ledger_that_fails_meanwhile_shows_what_is_wrong_with_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.shift(1.0)

    def full(*_: object) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(type(world.ledger), "flag_error", full)
    with pytest.raises(StoreCorruptError):
        world.roll(closes(0))
    assert [run.status for run in world.ledger.runs()] == ["failed"]


def test_an_interrupt_leaves_whole_sessions(world: World) -> None:
    world.store.write(ONE, bars("B", 1, [3], 9.0))
    listing(world, "A", "B", "C")
    stop = KeyboardInterrupt()
    world.source = Source(bars("B", 0, [3]), lambda at: stop if at >= opens(1) else None)
    with pytest.raises(RollInterruptedError) as error:
        world.roll(closes(2), to=4)
    assert (error.value.sealed, error.value.current) == (1, day(1))
    (run,) = world.ledger.runs()
    assert (run.status, run.sessions, run.bars) == ("interrupted", 1, 1)
    assert run.error == "stopped after sealing 1 session"
    world.source = None
    assert world.roll(closes(2), to=4).sessions == [day(1), day(2)]


def test_an_interrupt_just_after_the_seal_counts_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_session = type(world.ledger).seal_session

    def struck(ledger: Ledger, run: int, key: str, seal: SealRecord, to: str, now: int) -> None:
        seal_session(ledger, run, key, seal, to, now)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(world.ledger), "seal_session", struck)
    with pytest.raises(RollInterruptedError) as error:
        world.roll(closes(2), to=4)
    assert (error.value.sealed, error.value.current) == (1, day(1))
    assert [(run.status, run.sessions) for run in world.ledger.runs()] == [("interrupted", 1)]


def test_who_has_waited_for_another_does_not_roll_twice(world: World) -> None:
    waiting, rolled = Event(), list[Rolling]()

    def second() -> None:
        with open_ledger("sqlite:///ledger.db", world.folder) as ledger:
            clock = FixedClock(closes(2))
            rolled.append(roll(world.place, ledger, clock, on_wait=waiting.set))

    thread = Thread(target=second)
    with world.ledger.alone(FILLING, lambda: None):
        thread.start()
        assert waiting.wait(60)
        run = world.ledger.begin_run(0, "roll", **SETUP)
        first = SealRecord(str(day(0)), opens(0), closes(0), 0, "", (), {})
        world.ledger.seal_session(run, world.key, first, str(day(1)), 0)
    thread.join()
    assert [(done.status, done.current.date) for done in rolled] == [("up-to-date", day(1))]
    assert world.current() == day(1)


# -- what people are told ------------------------------------------------------------------------


def told(done: Rolling, calendar: Calendar) -> list[str]:
    """Return the lines of the answer for people."""
    text = StringIO()
    Console(file=text, markup=False, width=160).print(roll_text(done, calendar))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_people_are_told_where_the_cursor_stays(world: World) -> None:
    calendar = world.place.calendar
    opening = "2018-11-18 23:50:00+00:00."
    assert told(world.roll(opens(0) - 1), calendar) == [
        f"Up to date: session 2018-11-19 has not begun, it begins {opening}"
    ]
    assert told(world.roll(closes(0), to=0), calendar) == [
        f"Up to date: the current session is 2018-11-19, it began {opening}"
    ]
    assert told(world.roll(opens(0)), calendar) == [
        "Session 2018-11-19 is not over: it ends 2018-11-19 00:10:00+00:00. Nothing was sealed."
    ]
    world.roll(closes(8), to=4)
    assert told(world.roll(closes(8)), calendar) == [
        "Up to date: session 2018-11-23 is over, but the store's bars end before it. Nothing was "
        "sealed: import more, then run `sc roll` again."
    ]


@pytest.mark.parametrize(
    ("now", "to", "last"),
    [
        (closes(0), 1, "2018-11-20; it begins 2018-11-19 23:50:00+00:00."),
        (closes(1), 1, "2018-11-20; it is over too: run `sc roll` again, or with --to DATE, to"),
        (opens(1), 2, "2018-11-20; it is not over, it ends 2018-11-20 00:10:00+00:00."),
        (closes(8), 7, "2018-11-23; the store's bars end before it: import more."),
    ],
)
def test_people_are_told_what_is_next(world: World, now: int, to: int, last: str) -> None:
    lines = told(world.roll(now, to), world.place.calendar)
    assert lines[0].startswith("Rolled from 2018-11-19 to 2018-11-2")
    assert lines[0].endswith(" of 2 symbols (run 1).")
    assert lines[-1].startswith(f"The current session is now {last}")


def test_people_are_told_what_the_last_pass_did(world: World) -> None:
    world.source = Source(bars("B", 0, [3], 11.0))
    lines = told(world.roll(closes(0), dry_run=True), world.place.calendar)
    assert lines == [
        "A dry run would roll from 2018-11-19 to 2018-11-20, 1 session of 2 symbols, and has "
        "changed nothing.",
        "It would fill 1 of 2 missing minutes: 1 from s.",
        "Left: 1 without a trade.",
        "",
        "As it is stored now:",
        "",
        "1 of 2 symbol-sessions complete; the others, worst first:",
        "Symbol  Session     Expected  Present  Missing  Quality %  Coverage %",
        "B       2018-11-19        20       18        2      90.00       90.00",
        "",
        "The current session would then be 2018-11-20; it begins 2018-11-19 23:50:00+00:00.",
    ]
    lines = told(world.roll(closes(0)), world.place.calendar)
    assert lines[1:3] == ["Filled 1 of 2 missing minutes: 1 from s.", "Left: 1 without a trade."]
    lines = told(world.roll(closes(1)), world.place.calendar)
    assert lines[1:4] == ["No minute is missing.", "", "2 of 2 symbol-sessions complete."]


def test_people_are_told_which_session_is_in_error(world: World) -> None:
    calendar = world.place.calendar
    world.roll(closes(0))
    world.shift(1.0, of=1)
    lines = told(world.roll(closes(1)), calendar)
    assert lines == ["Nothing was sealed: session 2018-11-20 is in error."]
    world.shift(-1.0, of=1)
    world.shift(1.0, of=2)
    done = world.roll(closes(2), to=4, clear_error=True)
    assert told(done, calendar)[-1] == ("The current session is now 2018-11-21, which is in error.")
