"""A whole system in one file: settings, a replay beside an event loop, tasks that wait for bars.

At the end the session store is ready for the day after the replay, with its history.

From a fresh checkout, on the sample bars:

    make demo && .venv/bin/python examples/complete_system.py
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from stream_coord.bars import Bar
from stream_coord.calendars import Session
from stream_coord.config import load_config
from stream_coord.coordinator import Replay, ReplayedSession
from stream_coord.opening import plan_replay
from stream_coord.session.aio import SessionMetrics
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy

WATCHED = ("AQRV", "ELQN", "SQND")
FIRST, LAST = date(2018, 11, 19), date(2018, 11, 23)  # the week of Thanksgiving: four sessions


class Turnover(Strategy):
    """What must see every bar of every symbol is a strategy: it runs where the bars are."""

    def __init__(self) -> None:
        self.turnover = 0.0

    def on_bar(self, bar: Bar) -> None:
        """Add up the money that changed hands."""
        self.turnover += bar.close * bar.volume

    def result(self) -> object:
        """Return what `Replay.result` will hold."""
        return {"turnover": round(self.turnover)}


@dataclass
class Watch:
    """What one task saw of one symbol."""

    symbol: str
    bars: int = 0
    breakouts: int = 0
    led: int = 0


@dataclass
class Week:
    """What came of it: the replay, and by symbol the last day's numbers and the averages after."""

    replay: Replay
    watches: list[Watch]
    metrics: dict[str, SessionMetrics]
    averages: dict[str, float]


async def watch(session: SessionData, symbol: str, minutes: int = 20) -> Watch:
    """Count a symbol's closes above its recent highs, and the minutes in which it led the others.

    In a day's first minutes the recent ones are those of the evening before.

    At full speed the replay stands still until this task asks for its next bar. Whatever it reads
    is what was known at the end of `bar`, however long it takes over it.
    """
    seen = Watch(symbol)
    async for bar in session.aio.subscribe(symbol, "1m"):
        seen.bars += 1
        recent = await session.aio.get_last_n_bars(symbol, minutes + 1)
        if len(recent) > minutes and bar.close > recent.high[:-1].max():
            seen.breakouts += 1
        newest = await session.aio.get_latest_bars_multi(WATCHED)
        rises = {name: other.close / other.open for name, other in newest.items() if other}
        if rises[symbol] == max(rises.values()):
            seen.led += 1
    return seen  # the subscription ends with the run


def print_session(done: ReplayedSession) -> None:
    """Say how good a session's data was, as soon as it is over."""
    rows = list(done.quality.rows())
    worst = min(rows, key=lambda row: row.present / row.expected)
    print(
        f"{done.session.date}: {done.bars:,} bars of {sum(row.expected for row in rows):,} "
        f"expected; worst is {worst.symbol} with {worst.quality:.2f} %"
    )


async def go_on(session: SessionData, tomorrow: Session) -> dict[str, float]:
    """Roll to the session after the replay; return the averages with which a feed would begin.

    The last day is now the newest one of history, and the oldest has left.
    """
    await session.aio.roll_session(tomorrow)
    # Anew, as it is stored by now: somebody may have filled gaps of it meanwhile.
    await session.aio.load_historical_bars()
    averages = {}
    for symbol in WATCHED:
        bars = await session.aio.get_all_bars_including_historical(symbol)
        averages[symbol] = float(bars.close[-200:].mean())
    return averages


async def main(settings: Path) -> Week:
    """Replay a week with a strategy while other tasks follow single symbols."""
    plan = plan_replay(load_config(settings), FIRST, LAST)
    coordinator = plan.coordinator(Turnover())
    session = coordinator.data

    async with asyncio.TaskGroup() as tasks:  # should one task fail, the replay stops as well
        watches = [tasks.create_task(watch(session, symbol)) for symbol in WATCHED]
        replay = await coordinator.run_async(print_session)

    # The session store still holds the last session as it stood at its close.
    metrics = {symbol: await session.aio.get_session_metrics(symbol) for symbol in WATCHED}

    averages = await go_on(session, plan.calendar.next_session(LAST))
    return Week(replay, [task.result() for task in watches], metrics, averages)


if __name__ == "__main__":
    week = asyncio.run(main(Path(*sys.argv[1:] or ["demo/sc.toml"])))
    print("\nSymbol   Bars  Breakouts   Led   Last day: quality %     high      low    volume")
    for seen in week.watches:
        day = week.metrics[seen.symbol]
        print(
            f"{seen.symbol:6} {seen.bars:6,} {seen.breakouts:10,} {seen.led:5,}"
            f" {day.bar_quality:20.2f} {day.high:8.2f} {day.low:8.2f} {day.volume:9,.0f}"
        )
    means = ", ".join(f"{symbol} {mean:.2f}" for symbol, mean in week.averages.items())
    print(f"\nBefore the next session, the average of the last 200 closes: {means}")
    replay = week.replay
    print(f"{replay.bars:,} bars, {replay.bars_per_second:,.0f} a second: {replay.result}")
    print(f"Digest {replay.digest}")
