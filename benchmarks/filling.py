"""Gaps of a store, filled from another store on this machine."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.figures import Figure, Goal, compare, duration
from benchmarks.lab import Lab
from benchmarks.sample import BASE, symbol_names
from stream_coord.bars import FIELDS
from stream_coord.calendars import Session
from stream_coord.clock import SystemClock, SystemTimer
from stream_coord.config.settings import SourceSettings
from stream_coord.interval import Interval
from stream_coord.planning import Universe
from stream_coord.sources.protocol import NamedSource
from stream_coord.sources.store import StoreSource
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.stores.ledger import Ledger, open_ledger
from stream_coord.stores.merge import KEY
from stream_coord.upkeep.asking import Enquirer
from stream_coord.upkeep.fill import fill_gaps

_GAP_MINUTES = 5
_SETUP = dict.fromkeys(
    ("settings", "config_digest", "calendar", "calendar_version", "store", "program_version"), ""
)


class _Plan(NamedTuple):
    store: BarStore
    universe: Universe
    sessions: tuple[Session, ...]
    interval: Interval = BASE


def fill_a_batch(lab: Lab, kind: str) -> Figure:
    """Fill a gap of each symbol in a session; the ledger is written as well.

    The floor reads the missing bars from the one store and writes them to the other.

    Args:
        lab: Where.
        kind: Of both stores: ``delta`` or ``sqlite``.
    """
    session = lab.sessions[0]
    symbols = tuple(symbol_names(lab.few))
    whole = _whole_bars(symbols, session)
    gone = _one_gap_each(whole, len(symbols))
    holed = whole.filter(~gone)
    with TemporaryDirectory(dir=lab.folder) as name, ExitStack() as opened:
        folder = Path(name)

        def store(called: str, bars: pl.DataFrame) -> BarStore:
            url = {"delta": f"delta:{called}", "sqlite": f"sqlite:///{called}.db"}[kind]
            made = opened.enter_context(closing(open_store(url, folder, create=True)))
            made.write(BASE, bars)
            return made

        source = store("source", whole)
        url = {"delta": "delta:source", "sqlite": "sqlite:///source.db"}[kind]
        plans = [
            _Plan(store(f"holed-{n}", holed), Universe(symbols), (session,))
            for n in range(lab.repeats)
        ]
        ledger = opened.enter_context(open_ledger("sqlite:///ledger.db", folder, create=True))
        others = [store(f"other-{n}", holed) for n in range(lab.repeats)]
        value, floor = compare(
            duration(lambda: _fill(plans.pop(), url, folder, ledger), "ms", lab.few),
            duration(lambda: _copy(source, others.pop(), whole.filter(gone)), "ms", lab.few),
            lab.repeats,
        )
    title = f"gap filling, {lab.few:,} gaps in a batch, {kind}"
    return Figure(title, value, "ms", "store read and write", floor, Goal(1))


def _fill(plan: _Plan, url: str, folder: Path, ledger: Ledger) -> None:
    settings = SourceSettings(name="other", kind="store", url=url)
    named = NamedSource("other", f"other: store {url}", StoreSource(settings, folder))
    clock = SystemClock()
    enquirer = Enquirer([named], BASE, clock, SystemTimer())
    run = ledger.begin_run(clock.now(), "fill-gaps", **_SETUP)
    summary = fill_gaps(plan, ledger, enquirer, clock, run)
    enquirer.close()
    gaps = len(plan.universe.symbols)
    if summary.filled != gaps * _GAP_MINUTES or len(summary.gaps) != gaps:
        raise RuntimeError(f"{summary.filled} minutes of {len(summary.gaps)} gaps were filled")


def _copy(source: BarStore, target: BarStore, wanted: pl.DataFrame) -> None:
    start, end = wanted["start"].to_numpy().min(), wanted["start"].to_numpy().max()
    bars = source.read(BASE, wanted["symbol"].unique().to_list(), int(start), int(end) + 1)
    target.write(BASE, bars.join(wanted.select(KEY), on=KEY, how="semi").sort(KEY))


def _whole_bars(symbols: tuple[str, ...], session: Session) -> pl.DataFrame:
    """Return a bar for every minute."""
    starts = session.grid(BASE)
    prices = np.round(np.random.default_rng(7).uniform(10, 500, len(symbols) * len(starts)), 2)
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols).gather(np.arange(len(prices)) // len(starts)),
            "start": np.tile(starts, len(symbols)),
            **dict.fromkeys(FIELDS, prices),
        }
    )


def _one_gap_each(bars: pl.DataFrame, symbols: int) -> pl.Series:
    """Return which bars are gone: a few neighbours of each symbol."""
    minutes = len(bars) // symbols
    random = np.random.default_rng(8)
    first = random.integers(0, minutes - _GAP_MINUTES, symbols) + np.arange(symbols) * minutes
    gone = np.zeros(len(bars), np.bool_)
    gone[(first[:, None] + np.arange(_GAP_MINUTES)).ravel()] = True
    return pl.Series(gone)
