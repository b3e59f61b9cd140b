"""Reads of the session store, and the search for gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure, Goal, compare, duration, measure, statement
from benchmarks.lab import Lab
from stream_coord.compute.gaps import gap_runs
from stream_coord.interval import Interval
from stream_coord.session.data import SessionData

_SLOT = 200


def latest_again(lab: Lab) -> Figure:
    data, symbol = _visible(lab, lab.few), _symbol(lab)
    bars = data.latest_many()
    value, floor = compare(
        statement("data.latest(symbol)", lab.seconds, data=data, symbol=symbol),
        statement("bars[symbol]", lab.seconds, bars=bars, symbol=symbol),
        lab.repeats,
    )
    name = "latest bar by symbol, read again"
    return Figure(name, value, "us", "dict look-up", floor, Goal(3, "ratio"))


def latest_first(lab: Lab) -> Figure:
    data = _visible(lab, lab.few)
    slots = range(_SLOT, _SLOT + 20)
    ends = lab.block(lab.few, lab.sessions[0]).ends.tolist()

    def read_all() -> None:
        data.start_session(data.session, lab.block(lab.few, data.session))
        for slot in slots:
            data._show(slot + 1, ends[slot])
            for symbol in data.symbols:
                data.latest(symbol)

    reads = len(slots) * len(data.symbols)
    value = measure(duration(read_all, "us", reads), lab.repeats)
    return Figure("latest bar by symbol, first read in a minute", value, "us")


def last_20(lab: Lab) -> Figure:
    return _read(lab, "last 20 bars", "data.last_n(symbol, 20)", Goal(0.3))


def last_20_derived(lab: Lab) -> Figure:
    return _read(lab, "last 20 bars of 5m", "data.last_n(symbol, 20, '5m')")


def latest_derived(lab: Lab) -> Figure:
    return _read(lab, "latest bar of 5m", "data.latest_bar(symbol, '5m')")


def in_progress(lab: Lab) -> Figure:
    return _read(lab, "bar of 60m in progress", "data.in_progress(symbol, '60m')")


def add_late(lab: Lab) -> Figure:
    """Revise one bar of the past, with nothing derived and with 5m and 15m."""
    revisions = [
        _revision(lab, [Interval.parse(name) for name in names]) for names in ((), ("5m", "15m"))
    ]
    (plain, rebuilt) = (duration(revise, "us", 100) for revise in revisions)
    value, floor = compare(rebuilt, plain, lab.repeats)
    return Figure("a revised bar, 5m and 15m rebuilt", value, "us", "nothing derived", floor)


def _revision(lab: Lab, derived: Sequence[Interval]) -> Callable[[], None]:
    data, symbol = _visible(lab, lab.few), _symbol(lab)
    for interval in derived:
        data.activate(interval)
    start = int(data.last_n(symbol, 20).start[0])
    bars = [(10.0, 10.0, 10.0, 10.0, float(volume)) for volume in (1, 2)] * 50

    def revise() -> None:
        for values in bars:
            data.add_bar(symbol, start, values)
        data.drain_updates()

    return revise


def last_20_closes(lab: Lab) -> Figure:
    return _read(lab, "last 20 bars, their closes", "data.last_n(symbol, 20).close")


def window_20(lab: Lab) -> Figure:
    return _read(lab, "window of 20 slots", "data.window(symbol, 20)")


def _read(lab: Lab, name: str, text: str, goal: Goal | None = None) -> Figure:
    data, symbol = _visible(lab, lab.few), _symbol(lab)
    closes = data.window(symbol, _SLOT)
    value, floor = compare(
        statement(text, lab.seconds, data=data, symbol=symbol),
        statement("closes[180:200]", lab.seconds, closes=closes),
        lab.repeats,
    )
    return Figure(name, value, "us", "numpy slice", floor, goal)


def cross_section(lab: Lab, symbols: int) -> Figure:
    data = _visible(lab, symbols)
    value, floor = compare(
        statement("data.cross_section('close').copy()", lab.seconds, data=data),
        statement("row.copy()", lab.seconds, row=np.zeros(symbols)),
        lab.repeats,
    )
    name = f"cross-section, copied, {symbols:,} symbols"
    return Figure(name, value, "us", "copy of one row", floor)


def gaps_of_a_session(lab: Lab) -> Figure:
    present = lab.block(lab.few, lab.sessions[0]).present[:1].copy()
    present[0, 100:110] = present[0, 300] = False
    return _gaps(lab, f"gaps in {present.size} bars", present, Goal(20))


def gaps_of_a_year(lab: Lab) -> Figure:
    rows = lab.block(lab.few, lab.sessions[0]).present
    present = np.tile(rows, len(lab.sessions))
    name = f"gaps, {lab.few:,} symbols, {len(lab.sessions)} sessions"
    return _gaps(lab, name, present, Goal(300_000))


def _gaps(lab: Lab, name: str, present: NDArray[np.bool_], goal: Goal | None = None) -> Figure:
    expected = np.ones(present.shape[1], np.bool_)
    names = {"present": present, "expected": expected}
    value, floor = compare(
        statement("gap_runs(present, expected)", lab.seconds, gap_runs=gap_runs, **names),
        statement("~present & expected", lab.seconds, **names),
        lab.repeats,
    )
    return Figure(name, value, "us", "numpy: ~present & expected", floor, goal)


def _visible(lab: Lab, symbols: int) -> SessionData:
    """Return a session store in the middle of a session."""
    block = lab.block(symbols, lab.sessions[0])
    data = SessionData(block.symbols, lab.sessions[0])
    data.start_session(lab.sessions[0], block)
    data._show(_SLOT, int(block.ends[_SLOT - 1]))
    return data


def _symbol(lab: Lab) -> str:
    """Return a symbol with no hole in the last 20 minutes."""
    block = lab.block(lab.few, lab.sessions[0])
    return block.symbols[int(block.present[:, _SLOT - 20 : _SLOT].all(axis=1).argmax())]
