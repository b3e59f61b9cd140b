"""Several writers of one Delta store: they end as some serial order, and every row is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from threading import Barrier

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_coord.errors import StoreConflictError
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import WriteOutcome
from stream_coord.stores.delta import DeltaStore

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
EVER = 10**17
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)

Prices = dict[tuple[str, int], float]


def frame(prices: Prices) -> pl.DataFrame:
    rows = [(*key, *[price] * 4, 100.0) for key, price in sorted(prices.items())]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def prices_in(root: Path) -> Prices:
    bars = open_store(f"delta:{root}", root).read(MINUTE, None, 0, EVER)
    return {
        (symbol, start): close for symbol, start, close in bars["symbol", "start", "close"].rows()
    }


def orphans(root: Path) -> set[str]:
    """Files on disk that no commit ever named."""
    logs = [path.read_text() for path in root.glob("_delta_log/*.json")]
    actions = [json.loads(line) for log in logs for line in log.splitlines()]
    named = {action["add"]["path"] for action in actions if "add" in action}
    on_disk = {str(p.relative_to(root)) for p in root.glob("interval=*/**/*") if p.is_file()}
    return on_disk - named


def store_at(root: Path, sleep: Callable[[float], None] = lambda _: None) -> DeltaStore:
    return DeltaStore(str(root), create=True, sleep=sleep)


def test_the_loser_of_a_race_counts_anew(tmp_path: Path) -> None:
    pauses: list[float] = []
    ours, theirs = store_at(tmp_path, pauses.append), store_at(tmp_path)
    told: list[WriteOutcome] = []

    def race(outcome: WriteOutcome) -> None:
        told.append(outcome)
        if len(told) == 1:
            theirs.write(MINUTE, frame({("A", 0): 2.0, ("B", 0): 3.0}))

    bars = {("A", 0): 1.0, ("B", 0): 3.0, ("C", DAY): 4.0}
    outcome = ours.write(MINUTE, frame(bars), before_commit=race)
    assert [(each.stored, each.duplicates, each.revised) for each in told] == [(3, 0, 0), (1, 1, 1)]
    assert outcome is told[-1]
    assert outcome.revisions["old_close", "close"].rows() == [(2.0, 1.0)]
    assert prices_in(tmp_path) == bars
    assert len(pauses) == 1
    assert orphans(tmp_path) == set()


def test_the_loser_may_find_nothing_left_to_do(tmp_path: Path) -> None:
    ours, theirs = store_at(tmp_path), store_at(tmp_path)
    told: list[WriteOutcome] = []
    bars = frame({("A", 0): 1.0, ("B", DAY): 2.0})

    def race(outcome: WriteOutcome) -> None:
        told.append(outcome)
        theirs.write(MINUTE, bars)

    outcome = ours.write(MINUTE, bars, before_commit=race)
    assert (outcome.stored, outcome.duplicates) == (0, 2)
    assert [each.duplicates for each in told] == [0, 2]
    assert orphans(tmp_path) == set()


def test_a_writer_that_always_loses_gives_up_and_leaves_nothing(tmp_path: Path) -> None:
    pauses: list[float] = []
    ours, theirs = store_at(tmp_path, pauses.append), store_at(tmp_path)
    before: Prices = {}

    def race(outcome: WriteOutcome) -> None:
        before["X", len(before)] = 1.0
        theirs.write(MINUTE, frame(before))

    with pytest.raises(StoreConflictError, match="committed first"):
        ours.write(MINUTE, frame({("A", 0): 1.0}), before_commit=race)
    assert prices_in(tmp_path) == before
    assert orphans(tmp_path) == set()
    assert len(pauses) == len(before)
    assert all(0 < pause <= 1 for pause in pauses)
    assert pauses[-1] > pauses[0]


keys = st.tuples(st.sampled_from("AB"), st.sampled_from([0, 60_000_000, DAY]))
prices = st.dictionaries(keys, st.sampled_from([1.0, 2.0]), max_size=6)


@settings(max_examples=25, deadline=None)
@given(writes=st.lists(st.tuples(prices, prices), min_size=1, max_size=3))
def test_interleaved_writes_end_as_a_serial_order(writes: list[tuple[Prices, Prices]]) -> None:
    """The second write of each pair commits while the first is about to.

    A first write with nothing to commit comes before the second, any other one after it.
    """
    with tempfile.TemporaryDirectory() as directory:
        check_interleaved(Path(directory), writes)


def check_interleaved(root: Path, writes: list[tuple[Prices, Prices]]) -> None:
    ours, theirs = store_at(root), store_at(root)
    model: Prices = {}
    for mine, other in writes:
        seconds: list[WriteOutcome] = []

        def race(
            _: WriteOutcome, other: Prices = other, found: list[WriteOutcome] = seconds
        ) -> None:
            if not found:
                found.append(theirs.write(MINUTE, frame(other)))

        first = ours.write(MINUTE, frame(mine), before_commit=race)
        serial = [(mine, first), (other, seconds[0])]
        if not mine.items() <= model.items():
            serial.reverse()
        for prices, outcome in serial:
            assert (outcome.stored, outcome.duplicates, outcome.revised) == fates(prices, model)
            model.update(prices)
        assert prices_in(root) == model
    assert orphans(root) == set()


def fates(prices: Prices, model: Prices) -> tuple[int, int, int]:
    known = prices.keys() & model.keys()
    same = sum(prices[key] == model[key] for key in known)
    return len(prices) - len(known), same, len(known) - same


def test_threads_may_share_a_store(tmp_path: Path) -> None:
    store = DeltaStore(str(tmp_path), create=True)

    def work(number: int) -> int:
        done = 0
        for minute in range(4):
            prices = {(f"S{number}", minute): 1.0, ("SAME", minute): 1.0}
            done += store.write(MINUTE, frame(prices)).stored
            assert set(prices) <= set(keys_of(store.read(MINUTE, None, 0, EVER)))
        return done

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 4 * 3 + 4
    assert len(prices_in(tmp_path)) == 16
    assert orphans(tmp_path) == set()


def keys_of(bars: pl.DataFrame) -> list[tuple[str, int]]:
    return bars["symbol", "start"].rows()


PRELUDE = dedent(
    """
    import json, os, signal, sys
    from pathlib import Path
    import polars as pl
    from stream_coord.interval import Interval
    from stream_coord.stores import open_store

    MINUTE = Interval.parse("1m")
    names = ["symbol", "start", "open", "high", "low", "close", "volume"]

    def frame(prices):
        rows = [(*key, *[price] * 4, 100.0) for key, price in sorted(prices.items())]
        return pl.DataFrame(rows, schema=names, orient="row")

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    """
)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def python() -> Iterator[Start]:
    """Start code with arguments in a process of its own; the test takes all of them with it."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + dedent(code), *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_stores_made_at_once_are_one_store(tmp_path: Path) -> None:
    for attempt in range(10):
        root = tmp_path / str(attempt)
        gate = Barrier(4)

        def make(number: int, root: Path = root, gate: Barrier = gate) -> None:
            gate.wait()
            store_at(root).write(MINUTE, frame({(f"S{number}", 0): 1.0}))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make, range(4)))
        assert len(prices_in(root)) == 4


def test_three_processes_write_one_store(tmp_path: Path, python: Start) -> None:
    """They race for making it, too. Each writes bars of its own, equal ones and contested ones."""
    code = """
        number = int(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        store = open_store("delta:bars", Path(sys.argv[2]), create=True)
        counts = [0, 0, 0]
        for minute in range(5):
            prices = {(f"S{number}", minute): 1.0, ("SAME", minute): 1.0}
            prices["CONTESTED", minute] = float(number)
            outcome = store.write(MINUTE, frame(prices))
            fates = outcome.stored, outcome.duplicates, outcome.revised
            counts = [a + b for a, b in zip(counts, fates)]
        print(json.dumps(counts))
    """
    children = [python(code, str(number), str(tmp_path)) for number in range(1, 4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    counts = [json.loads(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    stored, duplicates, revised = (sum(column) for column in zip(*counts, strict=True))
    assert (stored, duplicates, revised) == (5 * 3 + 5 + 5, 5 * 2, 5 * 2)
    found = prices_in(tmp_path / "bars")
    assert {found[f"S{number}", minute] for number in (1, 2, 3) for minute in range(5)} == {1.0}
    assert {found["CONTESTED", minute] for minute in range(5)} <= {1.0, 2.0, 3.0}
    assert len(found) == 25
    assert orphans(tmp_path / "bars") == set()


KILLED = -signal.SIGKILL


@pytest.mark.parametrize(
    ("last_act", "stored"),
    [
        ("os.replace = Path.replace = die", False),
        ("before = die", False),
        ("from deltalake import DeltaTable; DeltaTable.create_write_transaction = die", False),
        ("from stream_coord.stores.delta.log import DeltaLog; DeltaLog._sync = die", True),
    ],
)
def test_a_killed_write_is_there_or_not_at_all(
    tmp_path: Path, python: Start, last_act: str, stored: bool
) -> None:
    old: Prices = {("A", 0): 1.0, ("B", DAY): 1.0}
    new: Prices = {("A", 0): 2.0, ("C", DAY): 2.0, ("D", 2 * DAY): 2.0}
    store_at(tmp_path).write(MINUTE, frame(old))
    code = """
        before = None
        exec(sys.argv[1])
        store = open_store("delta:" + sys.argv[2], Path("/"))
        new = {("A", 0): 2.0, ("C", 86_400_000_000): 2.0, ("D", 2 * 86_400_000_000): 2.0}
        store.write(MINUTE, frame(new), before_commit=before)
    """
    child = python(code, last_act, str(tmp_path))
    child.communicate()
    assert child.returncode == KILLED
    assert prices_in(tmp_path) == (old | new if stored else old)
    outcome = store_at(tmp_path).write(MINUTE, frame(new))
    assert outcome.duplicates == (3 if stored else 0)
    assert prices_in(tmp_path) == old | new


def test_a_kill_at_any_moment_loses_no_finished_write(tmp_path: Path, python: Start) -> None:
    code = """
        store = open_store("delta:" + sys.argv[1], Path("/"), create=True)
        for number in range(10_000):
            store.write(MINUTE, frame({(f"S{number % 7}", number): float(number)}))
            print(number, flush=True)
    """
    child = python(code, str(tmp_path))
    assert child.stdout is not None
    for line in child.stdout:
        if line == "12\n":
            break
    os.kill(child.pid, signal.SIGKILL)
    printed = 13 + len(child.communicate()[0].splitlines())
    found = sorted(int(price) for price in prices_in(tmp_path).values())
    assert found == list(range(len(found)))
    assert len(found) in (printed, printed + 1)
    assert store_at(tmp_path).write(MINUTE, frame({("NEXT", 0): 1.0})).stored == 1
