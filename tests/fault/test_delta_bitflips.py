"""Damaged files of a Delta store: what is read is what was written, or an error of ours.

Every file of a small store is damaged in turn: its Parquet files (under a log that was checkpointed
and went on), the log's commits, the checkpoint, and what else lies there.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest
from deltalake import DeltaTable

from stream_coord.errors import StoreCorruptError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.stores import open_store

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
EVER = 10**17
SYMBOLS = ["A", "BRK.B", "C", "DD"]
COLUMNS = ["symbol", "start", "open", "high", "low", "close", "volume"]
FLIPS = 50

Facts = tuple[object, ...]


def bars(day: int, symbols: list[str], minutes: int = 12) -> pl.DataFrame:
    noise = random.Random(day)  # noqa: S311 - a reproducible stream, no secret
    rows = [
        (symbol, day * DAY + (870 + minute) * 60_000_000, 50.25, 51.5, 49.0, noise.random(), 100.0)
        for symbol in symbols
        for minute in range(minutes)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def facts(root: Path) -> Facts:
    """Everything that a store tells of its bars."""
    store = open_store(f"delta:{root}", root)
    return (
        store.read(MINUTE, None, 0, EVER).rows(),
        store.read(MINUTE, ["C"], DAY, 3 * DAY).rows(),
        store.versions(MINUTE, date(1970, 1, 1), date(1970, 1, 31)).rows(),
        store.spans(MINUTE).rows(),
        store.days(MINUTE),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged") / "bars"
    store = open_store(f"delta:{root}", root, create=True)
    for day in range(3):
        store.write(MINUTE, bars(day, SYMBOLS))
    store.write(MINUTE, bars(1, ["A"], minutes=13))
    DeltaTable(root).create_checkpoint()
    store.write(MINUTE, bars(3, SYMBOLS))
    store.write(MINUTE, bars(3, ["A"], minutes=14))
    store.write(MINUTE, bars(4, ["C", "DD"]))
    return root


@pytest.fixture(scope="module")
def truth(root: Path) -> Facts:
    return facts(root)


KINDS = {
    "bars": "interval=*/*/*.parquet",
    "commits": "_delta_log/*.json",
    "checkpoint": "_delta_log/*.checkpoint.parquet",
    "last_checkpoint": "_delta_log/_last_checkpoint",
    "head": "_stream_coord_head",
}


def flip_a_bit(file: Path, chance: random.Random) -> bytes:
    """Damage a file; return what it was."""
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(flipped)
    return content


def assert_true_or_reported(root: Path, truth: Facts) -> bool:
    """Return whether the damage was reported; fail on any other bars or any other exception."""
    try:
        assert facts(root) == truth
    except StreamCoordError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_never_changes_what_is_read(root: Path, truth: Facts, kind: str) -> None:
    chance = random.Random(kind)  # noqa: S311 - a reproducible stream, no secret
    files = sorted(root.glob(KINDS[kind]))
    assert files
    reported = 0
    for _ in range(FLIPS):
        file = chance.choice(files)
        content = flip_a_bit(file, chance)
        try:
            reported += assert_true_or_reported(root, truth)
        finally:
            file.write_bytes(content)
    assert facts(root) == truth
    if kind in {"bars", "commits", "checkpoint"}:
        assert reported


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_or_gone_never_changes_what_is_read(
    root: Path, truth: Facts, kind: str
) -> None:
    for file in sorted(root.glob(KINDS[kind])):
        content = file.read_bytes()
        for length in (None, 0, 1, len(content) // 2, len(content) - 1):
            file.unlink()
            if length is not None:
                file.write_bytes(content[:length])
            try:
                assert_true_or_reported(root, truth)
            finally:
                file.write_bytes(content)
    assert facts(root) == truth


def test_a_flipped_bit_under_an_open_store_is_noticed(root: Path, truth: Facts) -> None:
    """The store has read all manifests before; they alone must not vouch for the bars."""
    chance = random.Random(1)  # noqa: S311 - a reproducible stream, no secret
    store = open_store(f"delta:{root}", root)
    expected = store.read(MINUTE, None, 0, EVER)
    live = [root / path for path in pl.DataFrame(DeltaTable(root).get_add_actions())["path"]]
    messages: list[tuple[str, str]] = []
    for _ in range(FLIPS):
        file = chance.choice(live)
        content = flip_a_bit(file, chance)
        try:
            assert store.read(MINUTE, None, 0, EVER).equals(expected)
        except StoreCorruptError as error:
            messages.append((file.parent.name.removeprefix("date="), str(error)))
        finally:
            file.write_bytes(content)
    assert len(messages) > FLIPS // 4
    assert all(day in message for day, message in messages)


def test_a_write_never_carries_damage_on(root: Path, truth: Facts, tmp_path: Path) -> None:
    """A write that merges or folds damaged files in reports it, or everything is still right."""
    chance = random.Random(2)  # noqa: S311 - a reproducible stream, no secret
    more = bars(3, ["A", "E"], minutes=15)
    stored = open_store(f"delta:{root}", root).read(MINUTE, None, 0, EVER)
    expected = pl.concat([stored, more]).unique(["symbol", "start"], keep="last")
    for number in range(FLIPS // 2):
        copy = shutil.copytree(root, tmp_path / str(number))
        file = chance.choice(sorted(copy.glob("interval=1m/date=1970-01-04/*")))
        flip_a_bit(file, chance)
        try:
            open_store(f"delta:{copy}", copy).write(MINUTE, more)
            got = open_store(f"delta:{copy}", copy).read(MINUTE, None, 0, EVER)
            assert got.equals(expected.sort("symbol", "start"))
        except StoreCorruptError:
            assert not list(copy.glob("interval=1m/date=1970-01-04/.*"))
    assert facts(root) == truth


def test_no_flipped_bit_aborts_the_process(tmp_path: Path) -> None:
    """The lowest bit of a length makes it negative, and polars' allocation fails: no exception."""
    root = tmp_path / "bars"
    open_store(f"delta:{root}", root, create=True).write(MINUTE, bars(0, ["A"], minutes=4))
    [file] = root.glob("interval=*/*/*")
    code = """
        import sys
        from pathlib import Path
        from stream_coord.errors import StreamCoordError
        from stream_coord.interval import Interval
        from stream_coord.stores import open_store

        store = open_store("delta:" + sys.argv[1], Path("/"))
        file = Path(sys.argv[2])
        content = file.read_bytes()
        length = int.from_bytes(content[-8:-4], "little")
        for position in range(len(content) - 8 - length):
            flipped = bytearray(content)
            flipped[position] ^= 1
            file.write_bytes(flipped)
            try:
                store.read(Interval.parse("1m"), None, 0, 10**17)
            except StreamCoordError:
                pass
        print("survived")
    """
    command = [sys.executable, "-c", dedent(code), str(root), str(file)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.stdout == "survived\n"
    assert child.returncode == 0
