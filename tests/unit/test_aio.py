"""`session.aio`: the awaitable reads, and who waits for whom when an event loop waits for bars."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import date, timedelta
from typing import TypeVar

import polars as pl
import pytest

from stream_coord.bars import Bar, frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.coordinator import Coordinator
from stream_coord.errors import IntervalError, SessionStoreError, StrategyError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.pace import Pace
from stream_coord.planning import Universe
from stream_coord.session.data import Arrival, SessionData
from stream_coord.session.subscriptions import Subscription
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore
from stream_coord.strategy import Strategy

OPEN = parse_moment("2018-11-19T14:30:00Z")
MINUTES = 12
HOLE = 5
"""The minute that B lacks on every day."""
DAYS = {"A": range(3), "B": range(3), "FIRST": range(1)}
"""The days on which each symbol has bars."""
GUARD_SECONDS = 20

Result = TypeVar("Result")


def session(day: int) -> Session:
    opened = OPEN + day * DAY
    segment = Segment(opened, opened + MINUTES * MINUTE, "regular")
    return Session(date(2018, 11, 19) + timedelta(day), (segment,))


def start(day: int, minute: int) -> int:
    return OPEN + day * DAY + minute * MINUTE


def starts(symbol: str, days: range) -> list[int]:
    """Return the starts of all bars of a symbol within some days."""
    return [
        start(day, minute)
        for day in days
        for minute in range(MINUTES)
        if day in DAYS[symbol] and not (symbol == "B" and minute == HOLE)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    store = open_store("delta:bars", tmp_path_factory.mktemp("store"), create=True)
    rows = [
        (symbol, at, *(float(number),) * 5)
        for symbol in DAYS
        for number, at in enumerate(starts(symbol, range(3)), start=1)
    ]
    store.write(Interval(MINUTE), pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return store


def coordinator(
    store: BarStore, days: range, strategy: Strategy | None = None, speed: float | None = None
) -> Coordinator:
    spans = {symbol: (starts(symbol, range(3))[0], starts(symbol, range(3))[-1]) for symbol in DAYS}
    first, last = zip(*spans.values(), strict=True)
    sessions = [session(day) for day in days]
    universe = Universe(tuple(DAYS), first, last)
    return Coordinator(store, Interval(MINUTE), universe, sessions, strategy, pace=Pace(speed))


def run(main: Coroutine[object, object, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(main, GUARD_SECONDS))


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("sc-")]
    for thread in left:
        thread.join(GUARD_SECONDS)
        assert not thread.is_alive()


async def starts_of(subscription: Subscription) -> list[int]:
    return [bar.start async for bar in subscription]


async def replayed_beside(
    replay: Coordinator, *others: Coroutine[object, object, Result]
) -> list[Result]:
    """Run a replay beside other tasks and return what these return."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(other) for other in others]
        await replay.run_async()
    return [task.result() for task in waiting]


def test_who_joins_others_gets_derived_bars_from_the_next_minute_on(store: BarStore) -> None:
    async def main() -> list[int]:
        replay = coordinator(store, range(1))
        later: list[asyncio.Task[list[int]]] = []

        async def first() -> None:
            async for bar in replay.data.aio.subscribe("A"):
                if bar.start == start(0, 1):
                    later.append(
                        asyncio.create_task(starts_of(replay.data.aio.subscribe("A", "2m")))
                    )
                    await asyncio.sleep(0.05)

        await replayed_beside(replay, first())
        return await later[0]

    found = run(main())
    assert found
    assert found[0] in (start(0, 0), start(0, 2))


# -- the awaitable reads ---------------------------------------------------------------------------


def hand_made() -> SessionData:
    """Return a store at its fourth minute: A has bars of 0, 1 and 3, and one to come."""
    data = SessionData(["A", "B"], session(0))
    for minute, k in ((0, 10.0), (1, 11.0), (3, 13.0), (4, 14.0)):
        data.add_bar("A", start(0, minute), (k, k + 2, k - 1, k + 1, 100 * k))
    data.advance_to(start(0, 4))
    return data


def test_reads_answer_as_the_store_does() -> None:
    async def main() -> None:
        aio = hand_made().aio
        latest = await aio.get_latest_bar("A")
        assert latest == Bar("A", "1m", start(0, 3), start(0, 4), 13, 15, 12, 14, 1300)
        assert await aio.get_latest_bar("B") is None
        assert await aio.get_latest_bars_multi() == {"A": latest, "B": None}
        assert await aio.get_latest_bars_multi(["B"]) == {"B": None}
        assert (await aio.get_last_n_bars("A", 2)).close.tolist() == [12, 14]
        assert (await aio.get_bars_since("A", start(0, 1))).open.tolist() == [11, 13]
        assert await aio.get_bar_count("A") == 3

    run(main())


def test_derived_bars_are_read_by_their_interval() -> None:
    async def main() -> None:
        aio = hand_made().aio
        bar = Bar("A", "2m", start(0, 2), start(0, 4), 13, 15, 12, 14, 1300, 0, 1, 2)
        assert await aio.get_latest_bar("A", "2m") == bar
        assert await aio.get_latest_bars_multi(["A", "B"], "2m") == {"A": bar, "B": None}
        assert (await aio.get_last_n_bars("A", 9, "2m")).n.tolist() == [2, 1]
        assert (await aio.get_bars_since("A", start(0, 1), "2m")).close.tolist() == [14]
        assert await aio.get_bars("A", None, start(0, 2), Interval(2 * MINUTE)) != [bar]
        assert await aio.get_bars("A", start(0, 2), None, "2m") == [bar]
        assert await aio.get_bar_count("A", "2m") == 2
        building = Bar("A", "3m", start(0, 3), start(0, 6), 13, 15, 12, 14, 1300, 0, 1, 3)
        assert await aio.get_bar_in_progress("A", "3m") == building
        assert await aio.get_bar_in_progress("B", "3m") is None
        with pytest.raises(SessionStoreError, match="no 30s bars"):
            await aio.get_last_n_bars("A", 1, "30s")

    run(main())


@pytest.mark.parametrize(
    ("first", "end", "minutes"),
    [
        (None, None, [0, 1, 3]),
        (1, None, [1, 3]),
        (None, 3, [0, 1]),
        (1, 2, [1]),
        (2, 3, []),
        (4, 99, []),
        (3, 1, []),
    ],
)
def test_bars_of_a_span(first: int | None, end: int | None, minutes: list[int]) -> None:
    since, until = (None if minute is None else start(0, minute) for minute in (first, end))
    bars = run(hand_made().aio.get_bars("A", since, until))
    assert [bar.start for bar in bars] == [start(0, minute) for minute in minutes]


def test_metrics_come_with_the_bar_quality() -> None:
    metrics = run(hand_made().aio.get_session_metrics("A"))
    assert (metrics.expected, metrics.present, metrics.bar_quality) == (4, 3, 75.0)
    assert (metrics.high, metrics.low, metrics.volume) == (15.0, 9.0, 3400.0)


def test_bars_of_a_feed() -> None:
    async def main() -> None:
        data = hand_made()
        await data.aio.start_new_session(session(1))
        assert await data.aio.get_bar_count("A") == 0
        said = await data.aio.add_bar("A", start(1, 0), (1.0, 1.0, 1.0, 1.0, 1.0))
        assert said is Arrival.ADDED
        rows = [("A", start(1, 0), *(1.0,) * 5), ("B", start(1, 1), *(2.0,) * 5)]
        frame = pl.DataFrame(rows, schema=frame_schema(), orient="row")
        counted = await data.aio.add_bars_batch(frame)
        assert counted == {Arrival.DUPLICATE: 1, Arrival.ADDED: 1}
        data.advance_to(start(1, 2))
        assert [await data.aio.get_bar_count(symbol) for symbol in "AB"] == [1, 1]

    run(main())


def test_an_unknown_symbol_is_an_error_everywhere() -> None:
    aio = SessionData(["SPY"], session(0)).aio
    calls = [
        aio.get_latest_bar("SPX"),
        aio.get_latest_bars_multi(["SPX"]),
        aio.get_last_n_bars("SPX", 1),
        aio.get_bars_since("SPX", 0),
        aio.get_bars("SPX"),
        aio.get_bar_count("SPX"),
        aio.get_session_metrics("SPX"),
        aio.add_bar("SPX", OPEN, (1.0,) * 5),
    ]
    for call in calls:
        with pytest.raises(SessionStoreError, match=r"no symbol 'SPX' \(did you mean 'SPY'\?\)"):
            run(call)


def test_a_replay_without_event_loop_does_not_load_one() -> None:
    code = "import sys, stream_coord.coordinator; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=GUARD_SECONDS)


# -- what cannot be subscribed to ------------------------------------------------------------------


def test_a_subscription_must_name_what_there_is() -> None:
    aio = SessionData(["SPY"], session(0)).aio
    with pytest.raises(SessionStoreError, match=r"no symbol 'SPX' \(did you mean 'SPY'\?\)"):
        aio.subscribe("SPX", "1m")
    with pytest.raises(SessionStoreError, match="no 90s bars: they cannot be built of its 1m"):
        aio.subscribe("SPY", "90s")
    with pytest.raises(IntervalError, match="'minutely' is not an interval"):
        aio.subscribe("SPY", "minutely")
    with pytest.raises(SessionStoreError, match="queue_bars is 0"):
        aio.subscribe("SPY", "1m", queue_bars=0)
    assert aio.subscribe("SPY", "60s").interval == aio.subscribe("SPY").interval


# -- in step ---------------------------------------------------------------------------------------


async def careful(data: SessionData, symbol: str, turns: int) -> list[int]:
    """Take bars slowly, and look whether the store runs ahead meanwhile."""
    seen = []
    async for bar in data.aio.subscribe(symbol, "1m"):
        for _ in range(turns + 1):
            assert data.now == bar.end
            assert data.latest(symbol) == bar
            for other in data.latest_many().values():
                assert other is None or other.end <= bar.end
            await asyncio.sleep(0)
        seen.append(bar.start)
    return seen


def test_a_slow_reader_holds_the_replay_back(store: BarStore) -> None:
    replay = coordinator(store, range(3))
    readers = [careful(replay.data, symbol, turns) for symbol, turns in (("A", 7), ("B", 0))]
    seen = run(replayed_beside(replay, *readers))
    assert seen == [starts("A", range(3)), starts("B", range(3))]


def test_readers_do_not_change_the_digest(store: BarStore) -> None:
    replay = coordinator(store, range(3))
    run(replayed_beside(replay, starts_of(replay.data.aio.subscribe("A"))))
    assert replay.replay.digest == coordinator(store, range(3)).run().digest


def test_a_subscription_outlives_sessions_without_its_symbol(store: BarStore) -> None:
    replay = coordinator(store, range(3))
    assert "FIRST" in replay.data.symbols
    (seen,) = run(replayed_beside(replay, starts_of(replay.data.aio.subscribe("FIRST"))))
    assert seen == starts("FIRST", range(1))
    assert replay.replay.bars == 36 + 33 + 12


def test_a_symbol_that_trades_later_can_be_waited_for(store: BarStore) -> None:
    """Once the run has begun nobody learns that way which symbols are still to come."""
    refused: list[str] = []

    class Peeking(Strategy):
        def on_session_start(self) -> None:
            try:
                self.session.aio.subscribe("B")
            except SessionStoreError as error:
                refused.append(error.message)

    universe = Universe(("A", "B"), (start(0, 0), start(1, 0)), (start(2, 0), start(2, 0)))
    sessions = [session(0), session(1)]
    replay = Coordinator(store, Interval(MINUTE), universe, sessions, Peeking())
    assert replay.data.symbols == ("A",)
    (seen,) = run(replayed_beside(replay, starts_of(replay.data.aio.subscribe("B"))))
    assert seen == [at for at in starts("B", range(2)) if at >= start(1, 0)]
    assert refused == ["the session has no symbol 'B'"]


def test_what_nobody_iterates_holds_nobody_up(store: BarStore) -> None:
    async def main() -> int:
        replay = coordinator(store, range(1))
        unused = replay.data.aio.subscribe("A")
        begun = aiter(unused)
        await replay.run_async()
        assert [bar async for bar in begun] == []  # too late: the run is over
        return len(replay.replay.sessions)

    assert run(main()) == 1


def test_tasks_have_a_turn_before_the_replay_begins(store: BarStore) -> None:
    replay = coordinator(store, range(1))

    async def read() -> list[int]:
        assert not [t for t in threading.enumerate() if t.name.startswith("sc-replay")]
        return await starts_of(replay.data.aio.subscribe("A"))

    async def main() -> list[int]:
        _, seen = await asyncio.gather(replay.run_async(), read())
        return seen

    assert run(main()) == starts("A", range(1))


def test_a_late_reader_begins_with_the_next_minute(store: BarStore) -> None:
    async def main() -> list[int]:
        replay = coordinator(store, range(1))
        running = asyncio.create_task(replay.run_async())
        late: asyncio.Task[list[int]] | None = None
        async for bar in replay.data.aio.subscribe("A"):
            if bar.start == start(0, 2):  # the replay stands still until this body is over
                late = asyncio.create_task(starts_of(replay.data.aio.subscribe("A")))
                await asyncio.sleep(0)
        await running
        assert late is not None
        return await late

    assert run(main()) == starts("A", range(1))[3:]


def test_leaving_the_loop_lets_the_replay_go_on(store: BarStore) -> None:
    async def main() -> tuple[list[int], int]:
        replay = coordinator(store, range(3))
        kept = replay.data.aio.subscribe("A")
        running = asyncio.create_task(replay.run_async())
        seen = []
        async for bar in kept:
            seen.append(bar.start)
            if len(seen) == 4:
                break
        await running
        return seen, replay.replay.bars

    assert run(main()) == (starts("A", range(1))[:4], 36 + 33 + 12)


def test_a_reader_that_fails_lets_the_replay_go_on(store: BarStore) -> None:
    async def fail(data: SessionData) -> None:
        bars = aiter(data.aio.subscribe("A"))  # by hand: the traceback will hold on to it
        await anext(bars)
        raise LookupError("not today")

    async def main() -> BaseException | None:
        replay = coordinator(store, range(2))
        failing = asyncio.create_task(fail(replay.data))
        await replay.run_async()
        assert len(replay.replay.sessions) == 2
        return failing.exception()

    assert str(run(main())) == "not today"


@pytest.mark.parametrize("working", [True, False], ids=["at work", "waiting"])
def test_a_cancelled_reader_lets_the_replay_go_on(store: BarStore, working: bool) -> None:
    async def main() -> int:
        replay = coordinator(store, range(2))
        busy = asyncio.Event()

        async def read() -> None:
            async for _ in replay.data.aio.subscribe("A" if working else "FIRST"):
                if working:
                    busy.set()
                    await asyncio.Event().wait()

        reader = asyncio.create_task(read())
        running = asyncio.create_task(replay.run_async())
        if working:
            await busy.wait()
        else:
            await asyncio.sleep(0)
        reader.cancel()
        await running
        assert reader.cancelled()
        return len(replay.replay.sessions)

    assert run(main()) == 2


def test_a_closed_event_loop_lets_the_replay_go_on(store: BarStore) -> None:
    replay = coordinator(store, range(2))
    kept = []

    async def take_one() -> Bar:
        bars = aiter(replay.data.aio.subscribe("A"))
        kept.append(bars)
        return await anext(bars)

    loop = asyncio.new_event_loop()
    reader = loop.create_task(take_one())
    loop.call_soon(loop.stop)
    loop.run_forever()  # it waits for its first bar now
    thread = threading.Thread(target=replay.run, name="sc-test", daemon=True)
    thread.start()
    assert loop.run_until_complete(reader).start == start(0, 0)
    loop.close()
    thread.join(GUARD_SECONDS)
    assert not thread.is_alive()
    assert len(replay.replay.sessions) == 2


def test_an_event_loop_closed_over_a_waiting_reader_lets_the_replay_go_on(store: BarStore) -> None:
    replay = coordinator(store, range(2))
    loop = asyncio.new_event_loop()
    reader = loop.create_task(starts_of(replay.data.aio.subscribe("A")))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    thread = threading.Thread(target=replay.run, name="sc-test", daemon=True)
    thread.start()
    thread.join(GUARD_SECONDS)
    assert not thread.is_alive()
    assert len(replay.replay.sessions) == 2
    reader.get_coro().close()


def test_one_task_can_read_two_symbols_in_turn(store: BarStore) -> None:
    async def in_turn(data: SessionData) -> list[list[int]]:
        readers = [aiter(data.aio.subscribe(symbol)) for symbol in "AB"]
        seen: list[list[int]] = [[], []]
        open_ones = [0, 1]
        while open_ones:
            for number in tuple(open_ones):
                try:
                    seen[number].append((await anext(readers[number])).start)
                except StopAsyncIteration:
                    open_ones.remove(number)
        return seen

    replay = coordinator(store, range(2))
    ((a, b),) = run(replayed_beside(replay, in_turn(replay.data)))
    assert a == starts("A", range(2))
    assert b == starts("B", range(2))[1:]  # it was asked for when the first minute was over


def test_two_tasks_cannot_share_an_iteration(store: BarStore) -> None:
    async def main() -> list[object]:
        bars = aiter(coordinator(store, range(1)).data.aio.subscribe("A"))
        both = [asyncio.create_task(anext(bars)) for _ in "ab"]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        await bars.aclose()
        return list(await asyncio.gather(*both, return_exceptions=True))

    first, second = run(main())
    assert isinstance(first, StopAsyncIteration)
    assert "two tasks wait for the next bar of A" in str(second)


def test_a_closed_iteration_brings_nothing_more(store: BarStore) -> None:
    async def main() -> tuple[int, list[Bar], int]:
        replay = coordinator(store, range(1), speed=1e9)
        bars = aiter(replay.data.aio.subscribe("A"))
        running = asyncio.create_task(replay.run_async())
        first = await anext(bars)
        await asyncio.wait([running])  # the rest is queued
        await bars.aclose()
        return first.start, [bar async for bar in bars], replay.replay.bars

    assert run(main()) == (start(0, 0), [], 12 + 11 + 12)


def test_time_outs_lose_no_bar(store: BarStore) -> None:
    async def impatient(bars: AsyncIterator[Bar]) -> tuple[list[int], int]:
        seen, timed_out = [], 0
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(bars), 0.0001)).start)
            except TimeoutError:
                timed_out += 1
            except StopAsyncIteration:
                return seen, timed_out

    async def main() -> tuple[list[int], int]:
        replay = coordinator(store, range(3))
        reader = asyncio.create_task(impatient(aiter(replay.data.aio.subscribe("A"))))
        await asyncio.sleep(0.001)  # long enough for a time-out before there is any bar
        await replay.run_async()
        return await reader

    seen, timed_out = run(main())
    assert seen == starts("A", range(3))
    assert timed_out


def test_updates_come_ahead_of_the_next_bar(store: BarStore) -> None:
    async def read(data: SessionData) -> list[tuple[int, int]]:
        seen = []
        async for bar in data.aio.subscribe("B"):
            if bar.start == start(0, HOLE + 2):
                await data.aio.add_bar("B", start(0, HOLE), (1.0,) * 5)
            seen.append((bar.start, data.now))
        return seen

    replay = coordinator(store, range(1))
    (seen,) = run(replayed_beside(replay, read(replay.data)))
    shown = [(at, at + MINUTE) for at in starts("B", range(1))]
    late = start(0, HOLE), start(0, HOLE + 4)
    shown.insert(shown.index((start(0, HOLE + 3), start(0, HOLE + 4))), late)
    assert seen == shown


def test_readers_in_two_event_loops(store: BarStore) -> None:
    replay = coordinator(store, range(2))
    ready = threading.Barrier(3)
    seen: dict[str, list[int]] = {}

    async def read(symbol: str) -> None:
        reader = asyncio.create_task(careful(replay.data, symbol, 3))
        await asyncio.sleep(0)
        ready.wait(GUARD_SECONDS)
        seen[symbol] = await reader

    threads = [threading.Thread(target=asyncio.run, args=(read(symbol),)) for symbol in "AB"]
    for thread in threads:
        thread.start()
    ready.wait(GUARD_SECONDS)
    replay.run()
    for thread in threads:
        thread.join(GUARD_SECONDS)
    assert seen == {symbol: starts(symbol, range(2)) for symbol in "AB"}


# -- errors and ends -------------------------------------------------------------------------------


def test_the_iteration_ends_when_the_replay_fails(store: BarStore) -> None:
    class Failing(Strategy):
        def on_step(self, now: int) -> None:
            if now == start(0, 3):
                raise ValueError("enough")

    async def main() -> list[int]:
        replay = coordinator(store, range(1), Failing())
        reader = asyncio.create_task(starts_of(replay.data.aio.subscribe("A")))
        with pytest.raises(StrategyError, match="enough"):
            await replay.run_async()
        return await reader

    assert run(main()) == [start(0, 0), start(0, 1)]


def test_a_strategy_cannot_wait_for_bars_in_its_own_thread(store: BarStore) -> None:
    class Waiting(Strategy):
        def on_bar(self, bar: Bar) -> None:
            assert bar.symbol == "A"
            asyncio.run(starts_of(self.session.aio.subscribe("A")))

    with pytest.raises(StrategyError, match="in the very thread that replays them"):
        coordinator(store, range(1), Waiting()).run()


def test_a_replay_cannot_run_in_the_thread_of_its_readers(store: BarStore) -> None:
    async def main() -> list[int]:
        replay = coordinator(store, range(1))
        reader = asyncio.create_task(starts_of(replay.data.aio.subscribe("A")))
        await asyncio.sleep(0)
        with pytest.raises(SessionStoreError, match=r"run_async\(\)"):
            replay.run()
        return await reader

    assert run(main()) == []


def test_cancelling_stops_the_replay_and_ends_the_iterations(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        replay = coordinator(store, range(3))
        running = asyncio.create_task(replay.run_async())
        seen = []
        async for bar in replay.data.aio.subscribe("A"):
            seen.append(bar.start)
            if len(seen) == 4:
                running.cancel()
                await asyncio.wait([running])  # while the replay waits for this very body
        assert seen == starts("A", range(1))[:4]
        assert running.cancelled()
        assert not replay.replay.sessions
        assert replay.data.now == start(0, 4)
        assert not [t for t in threading.enumerate() if t.name.startswith("sc-replay")]

    gc.collect()  # what other tests have left
    caplog.clear()
    run(main())
    gc.collect()
    assert not caplog.records  # of asyncio, about errors that nobody looked at


def test_cancelling_twice_waits_for_the_thread_and_is_quiet(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    begun, over = threading.Event(), threading.Event()

    class Busy(Strategy):
        def on_session_start(self) -> None:
            begun.set()
            assert over.wait(GUARD_SECONDS)

    async def main() -> None:
        running = asyncio.create_task(coordinator(store, range(1), Busy()).run_async())
        while not begun.is_set():
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.sleep(0)
        running.cancel()
        over.set()
        await asyncio.wait([running])
        assert running.cancelled()
        assert not [t for t in threading.enumerate() if t.name.startswith("sc-replay")]

    run(main())
    gc.collect()
    assert not caplog.records


def test_cancelling_stops_a_paced_replay_while_it_waits(store: BarStore) -> None:
    async def main() -> list[int]:
        replay = coordinator(store, range(1), speed=1e-6)  # the first minute takes years
        reader = asyncio.create_task(starts_of(replay.data.aio.subscribe("A")))
        running = asyncio.create_task(replay.run_async())
        while replay.moment() is None:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        return await reader

    assert run(main()) == []


def test_a_paced_replay_goes_on_without_its_readers(store: BarStore) -> None:
    taken = threading.Event()

    class Waiting(Strategy):
        def on_step(self, now: int) -> None:
            assert now == start(0, 1) or taken.wait(GUARD_SECONDS)

    async def main() -> tuple[list[int], int]:
        replay = coordinator(store, range(2), Waiting(), speed=1e9)
        subscription = replay.data.aio.subscribe("A", queue_bars=3)
        running = asyncio.create_task(replay.run_async())
        seen = []
        async for bar in subscription:
            seen.append(bar.start)
            taken.set()
            await asyncio.wait([running])  # until it is over
        return seen, subscription.dropped

    seen, dropped = run(main())
    published = starts("A", range(2))
    assert seen == [published[0], *published[-3:]]
    assert dropped == len(published) - len(seen)


def test_a_failing_reader_stops_the_replay_of_its_group(store: BarStore) -> None:
    async def fail(data: SessionData) -> None:
        async for _ in data.aio.subscribe("A"):
            raise LookupError("not today")

    replay = coordinator(store, range(3), speed=120.0)  # has a while to go when the reader fails
    with pytest.raises(ExceptionGroup) as caught:
        run(replayed_beside(replay, fail(replay.data)))
    assert caught.group_contains(LookupError, match="not today")
    assert not replay.replay.sessions
