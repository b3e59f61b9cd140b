"""What whole-store jobs say and do: info, verification, copies, and the addresses of stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from stream_coord import copying, storing
from stream_coord.copying import CopyChoice, copy_store
from stream_coord.errors import ConfigError, StoreCorruptError, StoreError, UsageError
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.base import BarStore, VersionedBars, WriteOutcome
from stream_coord.storing import (
    Damage,
    IntervalInfo,
    StoreAddress,
    SymbolDay,
    store_info,
    verify_store,
)

URLS = {"delta": "delta:{name}", "sqlite": "sqlite:///{name}"}
MINUTE, FIVE = Interval.parse("1m"), Interval.parse("5m")
DAY = 86_400_000_000
FRIDAY, SATURDAY, SUNDAY = date(2018, 11, 2), date(2018, 11, 3), date(2018, 11, 4)
MIDNIGHT = int(datetime(2018, 11, 2, tzinfo=UTC).timestamp()) * 1_000_000
EVER = 10**17
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)


def bars(symbols: str, day: date = FRIDAY, rows: int = 3, price: float = 1.5) -> pl.DataFrame:
    midnight = MIDNIGHT + (day - FRIDAY).days * DAY
    keys = [(symbol, midnight + row * 60_000_000) for symbol in symbols for row in range(rows)]
    return pl.DataFrame([(*k, *[price] * 4, 9.0) for k in keys], schema=SCHEMA, orient="row")


def contents(store: BarStore, interval: Interval = MINUTE) -> dict[tuple[str, int], float]:
    found = store.read(interval, None, 0, EVER)["symbol", "start", "close"]
    return {(symbol, start): close for symbol, start, close in found.rows()}


Make = Callable[..., BarStore]


@pytest.fixture(params=URLS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return a function that makes a store of one kind holding some bars."""

    def made(name: str, *frames: pl.DataFrame, interval: Interval = MINUTE) -> BarStore:
        store = open_store(URLS[request.param].format(name=name), tmp_path, create=True)
        for frame in frames:
            store.write(interval, frame)
        return store

    return made


@pytest.fixture
def source(make: Make) -> BarStore:
    """Return a store with 3 + 2 symbol-days of 1m and one of 5m."""
    store = make("source", bars("ABC"), bars("AB", SUNDAY, rows=2))
    store.write(FIVE, bars("A", SATURDAY, rows=1))
    return store


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let reads of some symbol-days fail; return how many symbols each read asked for."""

    def spoil(store: BarStore, *places: tuple[date, str]) -> list[int]:
        asked: list[int] = []
        read = store.read_versioned

        def reading(
            interval: Interval, symbols: Sequence[str] | None, start: int, end: int
        ) -> VersionedBars:
            assert symbols is not None
            asked.append(len(symbols))
            for day, symbol in places:
                midnight = MIDNIGHT + (day - FRIDAY).days * DAY
                if symbol in symbols and start <= midnight < end and interval == MINUTE:
                    raise StoreCorruptError(f"{symbol} on {day} is bad")
            return read(interval, symbols, start, end)

        monkeypatch.setattr(store, "read_versioned", reading)
        return asked

    return spoil


def test_info_counts_what_is_stored(source: BarStore) -> None:
    info = store_info(source)
    assert info.url == source.url
    assert info.kind in URLS
    assert info.intervals == (
        IntervalInfo(MINUTE, 3, 2, FRIDAY, SUNDAY, 13),
        IntervalInfo(FIVE, 1, 1, SATURDAY, SATURDAY, 1),
    )


def test_an_empty_store_holds_nothing_and_is_sound(make: Make) -> None:
    store = make("empty")
    assert store_info(store).intervals == ()
    assert verify_store(store) == storing.Verification(0, 0, ())
    assert copy_store(store, make("other"), CopyChoice()) == copying.Copied()


def test_verification_reads_every_bar(source: BarStore) -> None:
    assert verify_store(source) == storing.Verification(6, 14, ())


def test_verification_lists_all_damage_and_goes_on(
    make: Make, damage: Callable[..., list[int]]
) -> None:
    alphabet = "ABCDEFGHIJKLMNOP"
    store = make("store", bars(alphabet), bars(alphabet, SUNDAY, rows=1))
    asked = damage(store, (FRIDAY, "C"), (FRIDAY, "P"), (SUNDAY, "A"))
    found = verify_store(store)
    assert found.damaged == (
        Damage(SymbolDay(MINUTE, FRIDAY, "C"), "C on 2018-11-02 is bad"),
        Damage(SymbolDay(MINUTE, FRIDAY, "P"), "P on 2018-11-02 is bad"),
        Damage(SymbolDay(MINUTE, SUNDAY, "A"), "A on 2018-11-04 is bad"),
    )
    assert (found.symbol_days, found.rows) == (14 + 15, 14 * 3 + 15)
    assert len(asked) == (1 + 2 + 4 + 4 + 4) + (1 + 2 + 2 + 2 + 2)


def test_a_date_whose_versions_are_lost_is_one_damage(
    source: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = source.versions

    def failing(
        interval: Interval, first: date, last: date, symbols: Sequence[str] | None = None
    ) -> pl.DataFrame:
        if first == FRIDAY:
            raise StoreCorruptError("the footer is gone")
        return versions(interval, first, last, symbols)

    monkeypatch.setattr(source, "versions", failing)
    lost = Damage(SymbolDay(MINUTE, FRIDAY, None), "the footer is gone")
    assert verify_store(source) == storing.Verification(3, 5, (lost,))


def test_a_large_date_is_read_and_written_by_slices(
    make: Make, damage: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (storing, copying):
        monkeypatch.setattr(module, "SLICE_ROWS", 12)
    source, target = make("source", bars("ABCDEFGHIJ", rows=4)), make("target")
    expected = contents(source)
    asked, written = damage(source), watch_writes(target, monkeypatch)
    assert verify_store(source).rows == 40
    assert asked == [3, 3, 3, 1]
    copy_store(source, target, CopyChoice())
    assert written == [12, 12, 12, 4]
    assert contents(target) == expected


def test_small_dates_share_a_write(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SLICE_ROWS", 12)
    source = make("source", bars("AB"), bars("AB", SATURDAY), bars("AB", SUNDAY))
    target = make("target")
    written = watch_writes(target, monkeypatch)
    copy_store(source, target, CopyChoice())
    assert written == [12, 6]
    assert contents(target) == contents(source)


def watch_writes(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    write = store.write

    def writing(interval: Interval, frame: pl.DataFrame) -> WriteOutcome:
        sizes.append(frame.height)
        return write(interval, frame)

    monkeypatch.setattr(store, "write", writing)
    return sizes


def counts(done: copying.Copied) -> tuple[int, ...]:
    return (
        *(done.symbol_days, done.copied, done.skipped),
        *(done.rows, done.stored, done.duplicates, done.revised),
    )


def test_a_copy_is_equal_and_a_second_one_copies_nothing(source: BarStore, make: Make) -> None:
    target = make("target")
    assert counts(copy_store(source, target, CopyChoice())) == (6, 6, 0, 14, 14, 0, 0)
    for interval in (MINUTE, FIVE):
        versions = [store.versions(interval, FRIDAY, SUNDAY) for store in (source, target)]
        assert versions[0].equals(versions[1])
        assert contents(target, interval) == contents(source, interval)
    assert counts(copy_store(source, target, CopyChoice())) == (6, 0, 6, 0, 0, 0, 0)


def test_a_copy_is_a_merge_that_says_what_it_changed(source: BarStore, make: Make) -> None:
    """A is equal, B has another price in a bar, C a bar of its own, D is not in the source."""
    mine = [bars("A"), bars("B", rows=1, price=9.0), bars("C", rows=4), bars("D")]
    target = make("target", *mine)
    expected = contents(target) | contents(source)
    done = copy_store(source, target, CopyChoice())
    assert counts(done) == (6, 4, 2, 11, 2 + 4 + 1, 3, 1)
    assert done.differing == [SymbolDay(MINUTE, FRIDAY, "C")]
    assert contents(target) == expected
    again = copy_store(source, target, CopyChoice())
    assert counts(again) == (6, 0, 6, 3, 0, 3, 0)
    assert again.differing == done.differing


def test_a_choice_of_symbols_and_dates(source: BarStore, make: Make) -> None:
    target = make("target")
    done = copy_store(source, target, CopyChoice(["B"], SATURDAY, SUNDAY))
    assert counts(done) == (1, 1, 0, 2, 2, 0, 0)
    sunday = MIDNIGHT + 2 * DAY
    assert set(contents(target)) == {("B", sunday), ("B", sunday + 60_000_000)}


def test_a_symbol_that_the_source_has_not_is_refused(source: BarStore, make: Make) -> None:
    target = make("target")
    with pytest.raises(UsageError, match="holds no bars of NONE, b"):
        copy_store(source, target, CopyChoice(["A", "NONE", "b"]))
    assert contents(target) == {}


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(UsageError, match="2018-11-04 to 2018-11-02 is empty"):
        CopyChoice(None, SUNDAY, FRIDAY)


def test_a_dry_run_writes_nothing(source: BarStore, make: Make) -> None:
    target = make("target", bars("A"))
    assert counts(copy_store(source, target, CopyChoice(), dry_run=True))[:4] == (6, 5, 1, 0)
    assert len(contents(target)) == 3
    assert counts(copy_store(source, None, CopyChoice(), dry_run=True))[:4] == (6, 6, 0, 0)


def test_damaged_bars_are_left_out_and_named(
    source: BarStore, make: Make, damage: Callable[..., list[int]]
) -> None:
    expected = contents(source)
    damage(source, (FRIDAY, "B"))
    target = make("target")
    done = copy_store(source, target, CopyChoice())
    assert [damaged.where for damaged in done.damaged] == [SymbolDay(MINUTE, FRIDAY, "B")]
    assert done.symbol_days == done.copied + done.skipped + len(done.damaged)
    left_out = {key for key in expected if key[0] == "B" and key[1] < MIDNIGHT + DAY}
    assert contents(target) == {k: v for k, v in expected.items() if k not in left_out}


def test_a_source_that_is_written_meanwhile_is_copied_in_one_state(
    source: BarStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, read = make("target"), source.read_versioned

    def reading(
        interval: Interval, symbols: Sequence[str] | None, start: int, end: int
    ) -> VersionedBars:
        monkeypatch.undo()
        source.write(MINUTE, pl.concat([bars("A", rows=9, price=7.0), bars("Z")]))
        found = read(interval, symbols, start, end)
        source.write(MINUTE, bars("A", rows=1, price=8.0))
        return found

    monkeypatch.setattr(source, "read_versioned", reading)
    assert copy_store(source, target, CopyChoice()).differing == []
    copy_store(source, target, CopyChoice())
    assert contents(target) == contents(source)


def test_a_store_is_not_copied_onto_itself(source: BarStore, make: Make, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for name in ("source", "../" + tmp_path.name + "/source", "link"):
        with pytest.raises(UsageError, match="onto itself"):
            copy_store(source, make(name), CopyChoice())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data/bars", r"did you mean 'delta:data/bars'\?"),
        ("old.db", r"did you mean 'sqlite:///old.db'\?"),
        ("/data/old.sqlite", r"did you mean 'sqlite:////data/old.sqlite'\?"),
        ("", "is not the address of a store"),
        ("delta:${NOPE}", "not set in the environment: NOPE"),
    ],
)
def test_what_is_no_address_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StoreAddress.parse(text, {})


def test_an_address_is_filled_in_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = StoreAddress.parse("delta:${PLACE}/bars", {"PLACE": "here"})
    assert address.open_if_there() is None
    assert address.open(create=True).url == f"delta:{tmp_path}/here/bars"
    assert address.open_if_there() is not None


def test_secrets_of_an_address_stay_out_of_errors() -> None:
    address = StoreAddress.parse("postgresql+psycopg://sc:${PW}@db/bars", {"PW": "hush%21"})
    assert "hush" not in repr(address)
    with pytest.raises(StoreError) as caught, address.masked():
        raise StoreError("no login with hush! at postgresql://sc:hush%21@db", "not hush%21")
    assert "hush" not in str(caught.value)
    assert "no login with ***" in str(caught.value)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'dleta:'.*did you mean 'delta'"):
        StoreAddress.parse("dleta:x", {}).open()
