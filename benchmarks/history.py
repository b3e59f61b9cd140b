"""History: loaded from a store, rolled from session to session, and the memory that it takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Sequence

import polars as pl

from benchmarks.figures import Figure, Goal, Run, Spread, compare, duration, measure
from benchmarks.lab import Lab
from benchmarks.loading import five_days_in_sqlite, read_with_adbc
from benchmarks.resident import store_megabytes
from benchmarks.rolling import TRAILING, Rolling
from benchmarks.sample import BASE, nyse_sessions, symbol_names
from stream_coord.bars import COLUMNS
from stream_coord.calendars import Session
from stream_coord.history import History
from stream_coord.interval import Interval
from stream_coord.session.data import SessionData
from stream_coord.session.series import Series, Trailing
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore

_FIVES, _FIFTEENS = Interval.parse("5m"), Interval.parse("15m")
_SESSIONS = 60
"""All of them have equally many minutes."""
_RESIDENT_SYMBOLS = 100
"""Fewer would go into what a process has free anyway."""
_WINDOW = f"{TRAILING} days + session"


def load_from_delta(lab: Lab) -> Figure:
    sample = lab.sample(lab.few)
    files = [file for session in sample.sessions[:TRAILING] for file in sample.files(session)]
    value, floor = compare(
        duration(_loads(lab, sample.open), "ms"),
        duration(lambda: pl.read_parquet(files, columns=list(COLUMNS), glob=False), "ms"),
        lab.repeats,
    )
    return Figure(_load(lab, "Delta"), value, "ms", "polars read_parquet", floor, Goal(3, "ratio"))


def load_from_sqlite(lab: Lab) -> Figure:
    url, file = five_days_in_sqlite(lab)
    value, floor = compare(
        duration(_loads(lab, lambda: open_store(url, lab.folder)), "ms"),
        duration(lambda: read_with_adbc(file), "ms"),
        lab.repeats,
    )
    return Figure(_load(lab, "SQLite"), value, "ms", "polars, by ADBC", floor)


def _load(lab: Lab, store: str) -> str:
    return f"history of {TRAILING} days, 1m + 5m, from {store}, verified, {lab.few:,} symbols"


def _loads(lab: Lab, open_one: Callable[[], BarStore]) -> Callable[[], Series]:
    """Return what loads the history of a session, each time from a store of its own."""
    stores = [open_one() for _ in range(lab.repeats)]
    symbols, session = symbol_names(lab.few), lab.sessions[TRAILING]

    def load() -> Series:
        history = History(stores.pop(), lab.calendar, BASE, TRAILING, (BASE, _FIVES))
        return history.load(symbols, session)

    return load


def roll(lab: Lab, symbols: int) -> Figure:
    rolling = _rolling(lab, symbols)
    bars = rolling.series.base.planes
    value, floor = compare(_rolls(rolling), duration(bars.copy, "ms"), lab.repeats)
    name = _roll("roll", symbols)
    return Figure(name, value, "ms", "copy of the 1m bars", floor, _goal(lab, symbols))


def roll_with_a_split(lab: Lab, symbols: int) -> Figure:
    rolling = _rolling(lab, symbols)
    value, floor = compare(_rolls(rolling, [(1, 2.0)]), _rolls(rolling), lab.repeats)
    name = _roll("roll, one symbol has a split", symbols)
    return Figure(name, value, "ms", "no split", floor, _goal(lab, symbols))


def roll_to_new_memory(lab: Lab, symbols: int) -> Figure:
    """Measure the roll for which there is no room any more, so that bars are copied.

    A hundred symbols have room for 43 rolls, 5,000 for more than 2,000. History is copied ahead of
    the roll (`follow`), and today's bars in it.
    """
    rolling = _rolling(lab, symbols)
    value, floor = compare(_rolls(rolling, full=True), _rolls(rolling), lab.repeats)
    name = _roll("roll, memory is full: copied", symbols)
    return Figure(name, value, "ms", "there is room", floor, _goal(lab, symbols))


def follow(lab: Lab, symbols: int) -> Figure:
    """Measure what is done for a roll ahead of it, in another thread."""
    series = _rolling(lab, symbols).series
    full, session = series.copy(), _sessions(lab)[TRAILING + 1]
    value, floor = compare(
        duration(lambda: series.following(session), "ms"),
        duration(lambda: full.following(session), "ms"),
        lab.repeats,
    )
    name = _roll("ahead of a roll: Series.following", symbols)
    return Figure(name, value, "ms", "memory is full: copied", floor)


def _roll(what: str, symbols: int) -> str:
    return f"{what}, {symbols:,} symbols"


def _goal(lab: Lab, symbols: int) -> Goal:
    return Goal(2 if symbols == lab.few else 100)


def _rolling(lab: Lab, symbols: int) -> Rolling:
    bars = lab.block(symbols, lab.sessions[0])
    return Rolling(bars, _sessions(lab), [_FIVES, _FIFTEENS])


def _sessions(lab: Lab) -> Sequence[Session]:
    return nyse_sessions(_SESSIONS, lab.cache_dir)


def _rolls(
    rolling: Rolling, rescaled: Iterable[tuple[int, float]] = (), *, full: bool = False
) -> Run:
    def run() -> float:
        if full:
            rolling.fill_memory()
        session, bars = rolling.ready(rescaled)
        return duration(lambda: rolling.data.roll_session(session, bars), "ms")()

    return run


def allocated(lab: Lab) -> Figure:
    """Measure the arrays of a session store, all of them, whether anything was written there."""
    names, window = symbol_names(lab.few), lab.sessions[: TRAILING + 1]

    def hold() -> float:
        tracemalloc.start()
        data = SessionData(names, window[-1], BASE)
        series = Series.empty(data.symbols, window, BASE, [_FIVES], Trailing(TRAILING))
        data.start_session(window[-1], series)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held / 1e6

    return _memory(lab.few, "allocated", measure(hold, lab.repeats))


def resident(lab: Lab) -> Figure:
    """Measure by how much a process grows that fills a session store and rolls some times."""
    megabytes = measure(lambda: store_megabytes(_RESIDENT_SYMBOLS), lab.repeats)
    return _memory(_RESIDENT_SYMBOLS, "resident", megabytes)


def _memory(symbols: int, how: str, megabytes: Spread) -> Figure:
    name = f"session store, {symbols:,} symbols, {_WINDOW}, 1m + 5m: {how}"
    return Figure(name, megabytes, "MB", goal=Goal(16))
