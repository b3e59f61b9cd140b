"""Sessions from the store into blocks, the next one in the background."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stream_coord.ahead import one_ahead
from stream_coord.bars import frame_schema
from stream_coord.calendars import Segment, Session
from stream_coord.clock import from_micros, parse_moment
from stream_coord.errors import StoreCorruptError
from stream_coord.interval import MINUTE, Interval
from stream_coord.loading import data_version, load_session
from stream_coord.stores import open_store

ONE_MINUTE = Interval(MINUTE)
PATIENCE_SECONDS = 30
"""How long a test waits for a thread before it fails; nothing takes that long."""


class Thing:
    """Something that was loaded."""

    def __init__(self, number: int) -> None:
        self.number = number


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sc-ahead")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for thread in background_threads():
        thread.join(PATIENCE_SECONDS)
    assert background_threads() == []


class TestOneAhead:
    def test_all_come_in_their_order(self) -> None:
        assert list(one_ahead(n * 10 for n in [3, 1, 2])) == [30, 10, 20]
        assert list(one_ahead(str(n) for n in (7,))) == ["7"]
        assert list(one_ahead(str(n) for n in range(0))) == []

    def test_the_next_is_loaded_meanwhile_and_not_the_one_after(self) -> None:
        loaded = [threading.Event() for _ in range(5)]
        alive: set[weakref.ref[Thing]] = set()

        def load(number: int) -> Thing:
            thing = Thing(number)
            alive.add(weakref.ref(thing, alive.discard))
            loaded[number].set()
            return thing

        things = one_ahead(load(n) for n in range(5))
        for number in range(5):
            thing = next(things)
            assert thing.number == number
            if number < 4:
                assert loaded[number + 1].wait(PATIENCE_SECONDS)
            gc.collect()
            assert [event.is_set() for event in loaded].count(True) == min(number + 2, 5)
            assert len(alive) == min(2, 5 - number)
            del thing

    def test_it_is_loaded_by_another_thread(self) -> None:
        loaders = list(one_ahead(threading.current_thread() for _ in range(2)))
        assert threading.main_thread() not in loaders

    @pytest.mark.parametrize("error", [ValueError("bad bytes"), KeyboardInterrupt()])
    def test_what_is_raised_is_raised_in_its_turn(self, error: BaseException) -> None:
        def load(number: int) -> int:
            if number == 1:
                raise error
            return number

        things = one_ahead(load(n) for n in range(3))
        assert next(things) == 0
        with pytest.raises(type(error)) as caught:
            next(things)
        assert caught.value is error
        assert list(things) == []

    def test_who_stops_early_leaves_nothing_behind(self) -> None:
        seen: list[int] = []

        def load(number: int) -> int:
            seen.append(number)
            return number

        for _ in one_ahead(load(n) for n in range(9)):
            break
        for thread in background_threads():
            thread.join(PATIENCE_SECONDS)
        assert seen == [0, 1]


OPEN = parse_moment("2018-11-23T23:58:00Z")
OVER_MIDNIGHT = Session(
    date(2018, 11, 24),
    (
        Segment(OPEN, OPEN + 3 * MINUTE, "regular"),
        Segment(OPEN + 5 * MINUTE, OPEN + 6 * MINUTE, "regular"),
    ),
)


def frame(*rows: tuple[str, int, float]) -> pl.DataFrame:
    bars = [(symbol, OPEN + n * MINUTE, *(price,) * 5) for symbol, n, price in rows]
    return pl.DataFrame(bars, schema=frame_schema(), orient="row").sort("symbol", "start")


class TestLoadSession:
    def test_it_reads_what_the_session_covers(self, tmp_path: Path) -> None:
        store = open_store("delta:bars", tmp_path, create=True)
        bars = [("A", -1, 1.0), ("A", 0, 2.0), ("A", 2, 3.0), ("A", 3, 4.0), ("A", 6, 5.0)]
        store.write(ONE_MINUTE, frame(*bars, ("B", 5, 6.0), ("C", 0, 7.0)))
        loaded = load_session(store, ONE_MINUTE, ("A", "B", "NONE"), OVER_MIDNIGHT)
        assert loaded.session is OVER_MIDNIGHT
        assert loaded.out_of_session == 1  # the one in the break
        assert loaded.block.present.tolist() == [
            [True, False, True, False],
            [False, False, False, True],
            [False] * 4,
        ]
        assert loaded.block.values[0, 0, [0, 2]].tolist() == [2.0, 3.0]

    def test_the_data_version_is_of_the_bars_that_were_read(self, tmp_path: Path) -> None:
        store = open_store("delta:bars", tmp_path, create=True)

        def version(*symbols: str) -> str:
            loaded = load_session(store, ONE_MINUTE, symbols, OVER_MIDNIGHT)
            first = from_micros(loaded.session.start).date()
            last = from_micros(loaded.session.end).date()
            versions = store.versions(ONE_MINUTE, first, last, symbols)
            assert loaded.data_version == data_version(versions)
            return loaded.data_version

        store.write(ONE_MINUTE, frame(("A", 0, 1.0), ("A", 2, 2.0), ("B", 0, 3.0)))
        first, other = version("A"), version("A", "B")
        assert len(first) == 32
        assert first != other
        store.write(ONE_MINUTE, frame(("B", 1, 4.0), ("A", 5000, 5.0)))
        assert version("A") == first  # of another symbol, and of another day
        assert version("A", "B") != other
        store.write(ONE_MINUTE, frame(("A", 2, 6.0)))  # after midnight: also of the session
        assert version("A") != first

    def test_an_error_of_the_store_comes_through(self, tmp_path: Path) -> None:
        store = open_store("delta:bars", tmp_path, create=True)
        store.write(ONE_MINUTE, frame(("A", 0, 1.0)))
        (path,) = (tmp_path / "bars").rglob("*.parquet")
        path.write_bytes(path.read_bytes()[:-20])
        things = one_ahead(load_session(store, ONE_MINUTE, ("A",), OVER_MIDNIGHT) for _ in range(1))
        with pytest.raises(StoreCorruptError):
            next(things)
