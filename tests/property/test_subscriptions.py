"""Subscriptions between a real thread and a real event loop, held against plain lists."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import date
from threading import Thread
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.bars import Bar
from stream_coord.calendars import Segment, Session
from stream_coord.interval import MINUTE, Interval
from stream_coord.session.data import SessionData
from stream_coord.session.subscriptions import Subscription

SYMBOLS = ("A", "B", "C")
LENGTHS = (1, 1, 2, 3)
"""Lengths of bars in minutes."""
GUARD_SECONDS = 60

Result = TypeVar("Result")


def run(main: Coroutine[object, object, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(main, GUARD_SECONDS))


def bar(symbol: str, minute: int, number: float = 0.0, minutes: int = 1) -> Bar:
    start = minute * MINUTE
    end = start + minutes * MINUTE
    return Bar(symbol, f"{minutes}m", start, end, number, number, number, number, 1.0)


def ending(minutes: Sequence[Sequence[str]], end: int, length: int) -> list[Bar]:
    """Return the bars of some length that end after the first `end` minutes."""
    if end % length:
        return []
    there = sorted({symbol for symbols in minutes[end - length : end] for symbol in symbols})
    return [bar(symbol, end - length, minutes=length) for symbol in there]


def store() -> SessionData:
    hours = Segment(0, 100 * MINUTE, "regular")
    return SessionData(SYMBOLS, Session(date(1970, 1, 1), (hours,)))


# -- in step ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """How one task reads.

    Attributes:
        symbol: What it reads.
        minutes: Of which interval.
        turns: How often it lets other tasks run at each bar.
        bars: After how many bars it leaves; None: never.
        leaving: How it leaves.
    """

    symbol: str
    minutes: int
    turns: int
    bars: int | None
    leaving: str


READERS = st.builds(
    Reader,
    symbol=st.sampled_from(SYMBOLS),
    minutes=st.sampled_from(LENGTHS),
    turns=st.integers(0, 3),
    bars=st.none() | st.integers(1, 6),
    leaving=st.sampled_from(["break", "raise", "cancel"]),
)
MINUTES = st.lists(st.lists(st.sampled_from(SYMBOLS), unique=True).map(sorted), max_size=12)


async def read(data: SessionData, reader: Reader, seen: list[Bar]) -> None:
    async for newest in data.aio.subscribe(reader.symbol, f"{reader.minutes}m"):
        assert data.now == newest.end, "the replay ran ahead"
        seen.append(newest)
        for _ in range(reader.turns):
            await asyncio.sleep(0)
            assert data.now == newest.end, "the replay ran ahead"
        if len(seen) == reader.bars:
            match reader.leaving:
                case "break":
                    break
                case "raise":
                    raise LookupError
                case "cancel":
                    raise asyncio.CancelledError


async def play_beside(
    minutes: Sequence[Sequence[str]], readers: Sequence[Reader]
) -> list[list[Bar]]:
    data = store()
    seen: list[list[Bar]] = [[] for _ in readers]

    def play() -> None:
        for end in range(1, len(minutes) + 1):
            data.advance_to(end * MINUTE)
            published = [bar for length in LENGTHS[1:] for bar in ending(minutes, end, length)]
            wanted = {str(interval) for interval in data.subscriptions.intervals}
            assert wanted <= {f"{reader.minutes}m" for reader in readers} - {"1m"}
            data.subscriptions.publish(data.now, published)
        data.subscriptions.close()

    reading = [
        asyncio.create_task(read(data, reader, bars))
        for reader, bars in zip(readers, seen, strict=True)
    ]
    await asyncio.sleep(0)  # all of them wait for their first bar now
    lengths = {reader.minutes for reader in readers} - {1}
    assert data.subscriptions.intervals == tuple(Interval(n * MINUTE) for n in sorted(lengths))
    assert {*data._pristine.derived} == {*data.subscriptions.intervals}
    playing = Thread(target=play, daemon=True)
    playing.start()
    ends = await asyncio.gather(*reading, return_exceptions=True)
    for reader, end in zip(readers, ends, strict=True):
        assert not isinstance(end, AssertionError), (reader, end)
    await asyncio.to_thread(playing.join, GUARD_SECONDS)
    assert not playing.is_alive(), "the replay hangs"
    assert not data.subscriptions.active
    return seen


@given(minutes=MINUTES, readers=st.lists(READERS, max_size=4))
@settings(max_examples=150)
def test_in_step_every_bar_comes_once_and_at_its_end(
    minutes: list[list[str]], readers: list[Reader]
) -> None:
    for reader, seen in zip(readers, run(play_beside(minutes, readers)), strict=True):
        published = [
            one
            for end in range(1, len(minutes) + 1)
            for one in ending(minutes, end, reader.minutes)
            if one.symbol == reader.symbol
        ]
        assert seen == published[: reader.bars]


@given(minutes=MINUTES, order=st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=4))
@settings(max_examples=60)
def test_one_task_may_read_in_any_turn(minutes: list[list[str]], order: list[str]) -> None:
    """Each iteration gets all bars from its own first question on, whatever is asked between."""

    async def main() -> list[list[Bar]]:
        data = store()
        bars = [aiter(data.aio.subscribe(symbol, "1m", queue_bars=1)) for symbol in order]
        begun_at: list[int] = []

        def play() -> None:
            for minute, symbols in enumerate(minutes):
                data.advance_to((minute + 1) * MINUTE)
                data.subscriptions.publish(data.now, [bar(symbol, minute) for symbol in symbols])
            data.subscriptions.close()

        playing = Thread(target=play, daemon=True)
        asyncio.get_running_loop().call_soon(playing.start)
        seen: list[list[Bar]] = [[] for _ in order]
        ended: set[int] = set()
        while len(ended) < len(order):
            for number, iteration in enumerate(bars):
                if len(begun_at) == number:
                    begun_at.append(data.now)
                try:
                    seen[number].append(await anext(iteration))
                except StopAsyncIteration:
                    ended.add(number)
        await asyncio.to_thread(playing.join, GUARD_SECONDS)
        assert not playing.is_alive(), "the replay hangs"
        for number, symbol in enumerate(order):
            published = [bar(symbol, m) for m, there in enumerate(minutes) if symbol in there]
            assert seen[number] == [one for one in published if one.start >= begun_at[number]]
        return seen

    run(main())


# -- paced -----------------------------------------------------------------------------------------


@given(
    queue_bars=st.integers(1, 5),
    actions=st.lists(
        st.integers(0, 7).map(lambda n: ("publish", n))
        | st.integers(1, 7).map(lambda n: ("take", n))
    ),
)
@settings(max_examples=100)
def test_paced_the_oldest_is_dropped_and_counted(
    queue_bars: int, actions: list[tuple[str, int]]
) -> None:
    """A deque of limited length does the same."""

    async def main() -> None:
        data = store()
        data.subscriptions.paced = True
        subscription = data.aio.subscribe("A", "1m", queue_bars)
        bars = aiter(subscription)
        model: deque[Bar] = deque(maxlen=queue_bars)
        published = 0

        async def publish(count: int) -> None:
            nonlocal published
            fresh = [bar("A", 0, published + n) for n in range(count)]
            published += count
            model.extend(fresh)
            await asyncio.to_thread(data.subscriptions.publish, MINUTE, [*fresh, bar("B", 0)])

        first = asyncio.create_task(anext(bars))
        await asyncio.sleep(0)
        await publish(1)
        assert await first == model.popleft()
        taken = 1
        for action, count in actions:
            if action == "publish":
                await publish(count)
            else:
                for _ in range(min(count, len(model))):
                    assert await anext(bars) == model.popleft()
                    taken += 1
            assert subscription.dropped == published - taken - len(model)
        data.subscriptions.close()
        assert [one async for one in bars] == list(model)

    run(main())


@given(
    minutes=st.integers(0, 60),
    queue_bars=st.integers(1, 8),
    turns=st.lists(st.integers(0, 3), min_size=2, max_size=2),
)
@settings(max_examples=60)
def test_paced_what_is_delivered_and_dropped_is_what_was_published(
    minutes: int, queue_bars: int, turns: list[int]
) -> None:
    async def drain(subscription: Subscription, pauses: int) -> list[Bar]:
        seen = []
        async for newest in subscription:
            seen.append(newest)
            for _ in range(pauses):
                await asyncio.sleep(0)
        return seen

    async def main() -> None:
        data = store()
        data.subscriptions.paced = True
        published = [bar("A", minute) for minute in range(minutes)]

        def play() -> None:
            for one in published:
                data.subscriptions.publish(one.end, [one])
            data.subscriptions.close()

        subscriptions = [data.aio.subscribe("A", "1m", queue_bars) for _ in turns]
        draining = [
            asyncio.create_task(drain(subscription, pauses))
            for subscription, pauses in zip(subscriptions, turns, strict=True)
        ]
        await asyncio.sleep(0)
        playing = Thread(target=play, daemon=True)
        playing.start()
        for subscription, task in zip(subscriptions, draining, strict=True):
            seen = await task
            assert len(seen) + subscription.dropped == len(published)
            assert [one for one in published if one in seen] == seen
            assert seen[-1:] == published[-1:]
            assert len(seen) >= min(queue_bars, len(published))
        playing.join(GUARD_SECONDS)
        assert not playing.is_alive()

    run(main())
