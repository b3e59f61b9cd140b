"""A session that a feed fills, minute by minute, and what looks after it.

The feed is made up, and so is the time, of which a day passes in a second. At noon the feed falls
silent for six minutes. The session's states are printed, and are in the ledger.

With a real feed there is no made-up time, and `live_session` takes the clock on the wall:

    with live_session(load_config(Path("sc.toml")), on_state=print) as live:
        for symbol, start, values in feed:
            live.data.add_bar(symbol, start, values)

From a fresh checkout, on the sample bars:

    make demo && .venv/bin/python examples/live_feed.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Condition
from zoneinfo import ZoneInfo

import numpy as np

from stream_coord.calendars import Session
from stream_coord.clock import format_moment, parse_moment
from stream_coord.config import load_config
from stream_coord.interval import MINUTE, SECOND
from stream_coord.live import live_session
from stream_coord.opening import ledger_of
from stream_coord.session.boundaries import StateChange
from stream_coord.session.data import SessionData
from stream_coord.stores.ledger import StateRow

SYMBOLS = '["AQRV", "ELQN", "SQND"]'
START = parse_moment("2018-11-26T09:00:00-05:00")  # the Monday after the sample bars
SILENT = range(150, 156)  # minutes of the session: 12:00 to 12:06
NEW_YORK = ZoneInfo("America/New_York")

FeedBar = tuple[str, int, tuple[float, ...]]
"""Symbol, start (UTC microseconds), and open, high, low, close, volume."""


class MadeUpTime:
    """A clock that is moved by hand, and a timer: who sleeps on it wakes when it gets there."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._alarm = now  # when the sleeper is to wake
        self._asleep = self._over = False
        self._changed = Condition()

    def now(self) -> int:
        """Return the time, UTC microseconds."""
        return self._now

    def seconds(self) -> float:
        """Return seconds that never run backwards."""
        return self._now / SECOND

    def sleep(self, seconds: float) -> None:
        """Sleep until so many made-up seconds have passed."""
        with self._changed:
            self._alarm, self._asleep = self._now + round(seconds * SECOND), True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or not self._asleep)

    def wake(self) -> None:
        """Let nobody sleep any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def pass_to(self, moment: int) -> None:
        """Let time pass, and the sleeper do its work whenever it wakes."""
        with self._changed:
            self._changed.wait_for(lambda: self._asleep)
            while self._alarm <= moment:
                self._now, self._asleep = self._alarm, False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._asleep)
            self._now = moment


def made_up_feed(session: Session, closes: dict[str, float]) -> Iterator[tuple[int, FeedBar]]:
    """Yield when each bar comes, a second after its minute, and the bar: a walk at random.

    Args:
        session: The session.
        closes: The last closes, by symbol, which is where it goes on.
    """
    random = np.random.default_rng(7)
    for minute, start in enumerate(range(session.open, session.close, MINUTE)):
        for symbol, first in [] if minute in SILENT else list(closes.items()):
            last = round(first * (1 + random.normal(0, 0.0005)), 2)
            volume = float(random.integers(1, 50) * 100)
            values = (first, max(first, last), min(first, last), last, volume)
            closes[symbol] = last
            yield start + MINUTE + SECOND, (symbol, start, values)


def show_state(change: StateChange) -> None:
    """Print a change of state."""
    at = format_moment(change.time, NEW_YORK)
    print(f"{at}  {change.left.name:>11} -> {change.entered.name}")


def show_history(data: SessionData, symbol: str) -> None:
    """Print what is held of a symbol, and its average up to now."""
    bars, sessions = data.all_bars(symbol), len(data.sessions) - 1
    mean = data.last_n(symbol, 200).close.mean()
    print(
        f"{data.session.date} after {sessions} sessions: {len(bars):,} bars of {symbol} from "
        f"{format_moment(bars[0].start, NEW_YORK)} on; the last 200 closes: {mean:.2f}"
    )


def main(settings: Path) -> list[StateRow]:
    """Go through a session with the feed, and return what the ledger knows of it."""
    config = load_config(settings, sets=[f"symbols = {SYMBOLS}"])
    time = MadeUpTime(START)
    with live_session(config, time, time, show_state) as live:
        data, today = live.data, live.data.session
        show_history(data, "AQRV")
        closes = {symbol: bar.close for symbol, bar in data.latest_many().items() if bar}
        for moment, (symbol, start, values) in made_up_feed(today, closes):
            time.pass_to(moment)
            data.add_bar(symbol, start, values)
        day = data.metrics("AQRV")
        print(f"AQRV has {day.present} of {day.expected} bars: {day.quality:.2f} %")
        time.pass_to(today.close + 30 * MINUTE)  # when it rolls, by default
        show_history(data, "AQRV")
    with ledger_of(config) as ledger:
        return ledger.states(live.run)


if __name__ == "__main__":
    rows = main(Path(*sys.argv[1:] or ["demo/sc.toml"]))
    print(f"\nIn the ledger, run {rows[0].run_id}:")
    for row in rows:
        print(f"{row.session}  {format_moment(row.time)}  {row.left} -> {row.entered}")
