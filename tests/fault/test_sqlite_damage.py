"""A damaged SQLite store: what is read is what was written, or an error of ours."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream_coord.errors import StoreCorruptError, StoreError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.stores import open_store

MINUTE = Interval.parse("1m")
DAY = 86_400_000_000
EVER = 10**17
SYMBOLS = ["A", "BRK.B", "C", "DD"]
COLUMNS = ["symbol", "start", "open", "high", "low", "close", "volume"]
FLIPS = 400

Facts = tuple[object, ...]


def bars(day: int, symbols: list[str], minutes: int = 12) -> pl.DataFrame:
    noise = random.Random(day)  # noqa: S311 - a reproducible stream, no secret
    rows = [
        (symbol, day * DAY + (870 + minute) * 60_000_000, 50.25, 51.5, 49.0, noise.random(), 100.0)
        for symbol in symbols
        for minute in range(minutes)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def facts(file: Path) -> Facts:
    """Everything that a store tells of its bars."""
    store = open_store(f"sqlite:///{file}", file.parent)
    return (
        store.read(MINUTE, None, 0, EVER).rows(),
        store.read(MINUTE, ["C"], DAY, 3 * DAY).rows(),
        store.spans(MINUTE).rows(),
        store.days(MINUTE),
        store.intervals(),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("damaged") / "bars.db"
    store = open_store(f"sqlite:///{file}", file.parent, create=True)
    for day in range(3):
        store.write(MINUTE, bars(day, SYMBOLS))
    store.write(MINUTE, bars(1, ["A"], minutes=13))
    assert sorted(path.name for path in file.parent.iterdir()) == ["bars.db"]
    return file


@pytest.fixture(scope="module")
def truth(file: Path) -> Facts:
    return facts(file)


def test_a_flipped_bit_never_changes_what_is_read(file: Path, truth: Facts) -> None:
    chance = random.Random(7)  # noqa: S311 - a reproducible stream, no secret
    content = file.read_bytes()
    reported = 0
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        try:
            assert facts(file) == truth
        except StreamCoordError:
            reported += 1
        finally:
            for path in file.parent.iterdir():
                path.unlink()
            file.write_bytes(content)
    assert facts(file) == truth
    assert reported > FLIPS // 10


def test_a_file_cut_short_never_changes_what_is_read(file: Path, truth: Facts) -> None:
    content = file.read_bytes()
    for length in range(0, len(content), 1021):
        file.write_bytes(content[:length])
        try:
            with pytest.raises(StoreError):
                facts(file)
        finally:
            file.write_bytes(content)
    assert facts(file) == truth


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE bars SET close = close + 0.01 WHERE rowid_of",
        "UPDATE bars SET start = start + 1 WHERE rowid_of",
        "UPDATE bars SET volume = 'many' WHERE rowid_of",
        "DELETE FROM bars WHERE rowid_of",
        "UPDATE bar_days SET rows = rows + 1 WHERE day = 1 AND series = 1",
        "UPDATE bar_days SET checksum = 'x' || checksum WHERE day = 1 AND series = 1",
        "DELETE FROM bar_days WHERE day = 1 AND series = 1",
        "UPDATE series SET symbol = 'AA' WHERE id = 1",
        "UPDATE series SET symbol = CAST(x'b2' AS TEXT) WHERE id = 1",
        "UPDATE series SET seal = NULL WHERE id = 1",
        "UPDATE dates SET seal = CAST(x'b2' AS TEXT) WHERE day = 1",
        "UPDATE bars SET close = NULL WHERE rowid_of",
        "UPDATE bar_days SET checksum = CAST(x'b2' AS TEXT) WHERE day = 1 AND series = 1",
        "UPDATE series SET id = 99 WHERE id = 1",
        "DELETE FROM series WHERE id = 1",
        "UPDATE series SET last = last + 60000000 WHERE id = 1",
        "DELETE FROM dates WHERE day = 1",
        "UPDATE dates SET day = 7 WHERE day = 1",
    ],
)
def test_a_row_changed_or_lost_behind_the_stores_back_is_noticed(
    file: Path, tmp_path: Path, damage: str
) -> None:
    """Each statement harms one row of one table; the others give it away."""
    copy = tmp_path / "bars.db"
    copy.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")  # a flipped bit respects no NOT NULL
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
    with closing(sqlite3.connect(copy)) as connection, connection:
        where = f"day = 1 AND series = 1 AND start = {DAY + 875 * 60_000_000}"
        changed = connection.execute(damage.replace("rowid_of", where)).rowcount
    assert changed == 1
    store = open_store(f"sqlite:///{copy}", tmp_path)
    with pytest.raises(StoreCorruptError) as caught:
        store.read(MINUTE, None, 0, EVER)
    if "bars" in damage or "bar_days" in damage:
        assert "A on 1970-01-02" in str(caught.value)
    with pytest.raises(StoreCorruptError):
        store.write(MINUTE, bars(1, SYMBOLS, minutes=14))


def test_versions_do_not_hide_a_lost_group(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bars.db"
    copy.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM bar_days WHERE day = 1 AND series = 1")
    store = open_store(f"sqlite:///{copy}", tmp_path)
    with pytest.raises(StoreCorruptError, match="1970-01-02"):
        store.versions(MINUTE, date(1970, 1, 1), date(1970, 1, 3))


def test_a_replay_names_the_symbol_and_the_day_of_a_flipped_bit(
    sc: Callable[..., Any], tmp_path: Path
) -> None:
    sc("init", "here")
    (tmp_path / "bars.csv").write_text(
        "symbol,time,open,high,low,close,volume\n"
        + "".join(
            f"{symbol},2018-11-02T{14 + m // 60}:{m % 60:02},10.5,11.25,9.75,10.125,{1000 + m}\n"
            for symbol in ("AAA", "BBB")
            for m in range(100)
        )
    )
    options = ("--config", "here/sc.toml", "--set", "store.url=sqlite:///bars.db")
    done = sc("import", "bars.csv", "--tz", "UTC", "--label", "open", *options)
    assert done.code == 0, done.err
    file = tmp_path / "here" / "bars.db"
    assert sc("replay", "--session", "2018-11-02", *options).code == 0
    content = bytearray(file.read_bytes())
    place = content.rindex(bytes.fromhex("4024400000000000"))  # a close of 10.125
    content[place + 4] ^= 1
    file.write_bytes(content)
    damaged = sc("replay", "--session", "2018-11-02", *options)
    assert damaged.code == 1
    assert "2018-11-02" in damaged.err
    assert "AAA" in damaged.err or "BBB" in damaged.err
