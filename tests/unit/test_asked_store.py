"""Another bar store as a source, in each kind of store; ranges, and the guard around sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.bars import empty_frame
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, SourceError, StoreCorruptError, StoreMissingError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources.guard import GuardedSource
from stream_coord.sources.protocol import BarRange
from stream_coord.sources.ranges import clip, inside, joined
from stream_coord.sources.store import StoreSource, store_bars
from stream_coord.stores import open_store

ONE = Interval(MINUTE)
DAY_0 = 17_858 * DAY  # 2018-11-23


def frame(*bars: tuple[str, int]) -> pl.DataFrame:
    """Return bars of symbols and starts; the open price tells them apart."""
    starts = [start for _, start in bars]
    prices = {
        name: [10.0 + start // MINUTE % 1_000 + shift for start in starts]
        for name, shift in (("open", 0.0), ("high", 1.0), ("low", -1.0), ("close", 0.5))
    }
    named = {"symbol": [symbol for symbol, _ in bars], "start": starts}
    return pl.DataFrame(named | prices | {"volume": [1.0] * len(bars)}).sort("symbol", "start")


@pytest.fixture(params=["delta", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return {"delta": "delta:other/bars", "sqlite": "sqlite:///other/bars.db"}[request.param]


@pytest.fixture
def fill(url: str, tmp_path: Path) -> Callable[..., StoreSource]:
    def filled(*bars: tuple[str, int]) -> StoreSource:
        store = open_store(url, tmp_path, create=True)
        store.write(ONE, frame(*bars))
        store.close()
        return StoreSource(SourceSettings(name="s", kind="store", url=url), tmp_path)

    return filled


def test_a_date_with_bars_is_covered_whole_and_a_symbols_last_up_to_its_last_bar(
    fill: Callable[..., StoreSource],
) -> None:
    asked = fill(
        ("AIG", DAY_0 + 5 * MINUTE),
        ("AIG", DAY_0 + 3 * DAY),
        ("IBM", DAY_0 + 3 * DAY + 9 * MINUTE),
        ("Z", 47_000 * DAY),  # junk of 2098 says nothing of others
    )
    every = [BarRange(name, DAY_0 - DAY, DAY_0 + 9 * DAY) for name in ("AIG", "IBM", "X")]
    assert asked.coverage(ONE, every) == [
        BarRange("AIG", DAY_0, DAY_0 + DAY),
        BarRange("AIG", DAY_0 + 3 * DAY, DAY_0 + 3 * DAY + MINUTE),
        BarRange("IBM", DAY_0 + 3 * DAY, DAY_0 + 3 * DAY + 10 * MINUTE),
    ]
    narrow = BarRange("AIG", DAY_0 + 7 * MINUTE, DAY_0 + 8 * MINUTE)
    assert asked.coverage(ONE, [narrow]) == [narrow]
    assert asked.coverage(Interval(5 * MINUTE), [narrow]) == []
    assert asked.coverage(ONE, []) == []
    asked.close()


def test_bars_of_ranges_are_returned_and_an_answer_may_be_empty(
    fill: Callable[..., StoreSource],
) -> None:
    bars = [("AIG", DAY_0 + n * MINUTE) for n in range(0, 2_000, 2)]
    bars += [("IBM", DAY_0 + n * MINUTE) for n in range(1, 2_000, 2)]
    asked = fill(*bars)
    ranges = [
        BarRange("AIG", DAY_0 + 10 * MINUTE, DAY_0 + 13 * MINUTE),
        BarRange("AIG", DAY_0 + 1_500 * MINUTE, DAY_0 + 1_501 * MINUTE),
        BarRange("IBM", DAY_0 + 10 * MINUTE, DAY_0 + 11 * MINUTE),
    ]
    wanted = [("AIG", DAY_0 + n * MINUTE) for n in (10, 12, 1_500)]
    answer = asked.bars(ONE, ranges).sort("symbol", "start")
    assert answer.equals(frame(*wanted))
    nothing = asked.bars(ONE, ranges[2:])
    assert (len(nothing), nothing.schema) == (0, empty_frame().schema)
    asked.close()
    assert asked.bars(ONE, ranges[1:2]).equals(frame(wanted[2]))  # it opens again
    asked.close()


def test_bars_that_are_written_meanwhile_are_covered_once_the_store_is_opened_anew(
    fill: Callable[..., StoreSource], url: str, tmp_path: Path
) -> None:
    asked = fill(("AIG", DAY_0))
    later = BarRange("AIG", DAY_0 + MINUTE, DAY_0 + 2 * MINUTE)
    tomorrow = BarRange("AIG", DAY_0 + DAY, DAY_0 + 2 * DAY)
    assert asked.coverage(ONE, [later]) == []
    store = open_store(url, tmp_path)
    store.write(ONE, frame(("AIG", DAY_0 + MINUTE), ("AIG", DAY_0 + DAY)))
    store.close()
    assert asked.coverage(ONE, [later, tomorrow]) == []  # not yet, lest half of it be seen
    asked.close()
    assert asked.coverage(ONE, [later, tomorrow]) == [
        later,
        BarRange("AIG", DAY_0 + DAY, DAY_0 + DAY + MINUTE),
    ]
    assert asked.bars(ONE, [later]).equals(frame(("AIG", DAY_0 + MINUTE)))
    asked.close()


def test_scattered_minutes_take_few_reads_and_none_of_them_is_large(tmp_path: Path) -> None:
    symbols = [f"S{n:02d}" for n in range(20)]
    days = [DAY_0 + n * DAY for n in range(40)]
    store = open_store("delta:bars", tmp_path, create=True)
    store.write(ONE, frame(*((symbol, day) for symbol in symbols for day in days)))
    reads: list[int] = []

    class Counting:
        def read(
            self, interval: Interval, names: Sequence[str], start: int, end: int
        ) -> pl.DataFrame:
            reads.append(len(names) * (end - start) // DAY)
            return store.read(interval, names, start, end)

    chosen = np.random.default_rng(1).permutation(800)[:100]
    keys = sorted((symbols[n % 20], days[n // 20]) for n in chosen.tolist())
    ranges = [BarRange(symbol, day, day + MINUTE) for symbol, day in keys]
    answer = store_bars(Counting(), ONE, ranges)  # type: ignore[arg-type]
    assert answer.sort("symbol", "start").equals(frame(*keys))
    assert len(reads) <= 20
    assert max(reads) <= 200
    assert sum(reads) < 800


def test_no_store_and_a_damaged_store_are_failures(tmp_path: Path) -> None:
    asked = StoreSource(SourceSettings(name="s", kind="store", url="delta:bars"), tmp_path)
    minute = BarRange("AIG", DAY_0, DAY_0 + MINUTE)
    with pytest.raises(StoreMissingError):
        asked.coverage(ONE, [minute])
    store = open_store("delta:bars", tmp_path, create=True)
    store.write(ONE, frame(("AIG", DAY_0)))
    (file,) = (path for path in (tmp_path / "bars").rglob("*.parquet"))
    price = np.float64(frame(("AIG", DAY_0))["open"][0])
    assert price.tobytes() in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(price.tobytes(), (price + 0.5).tobytes()))
    with pytest.raises(StoreCorruptError, match="AIG"):
        asked.bars(ONE, [minute])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "url: is missing"),
        ({"path": "x"}, "url: is missing; a source of kind 'store' has one in place of path"),
        ({"url": "bars"}, "'bars' is not the address of a store"),
        ({"url": "dleta:bars"}, "did you mean 'delta'"),
        ({"url": "delta:"}, "names no directory"),
        ({"url": "delta:~nobodyx/f"}, "begins with the home folder of a user who is not known"),
        ({"url": "postgresql://me:hush@h"}, "does not name a database"),
        ({"url": "delta:x", "options": {"tz": "UTC"}}, "options.tz: this kind .* no options"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_opened(
    settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    table: dict[str, object] = {"name": "s", "kind": "store"}
    with pytest.raises(ConfigError, match=said) as refused:
        StoreSource(msgspec.convert(table | settings, SourceSettings), tmp_path)
    assert "hush" not in str(refused.value)


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=6)


@given(SPANS, st.dictionaries(st.sampled_from("ABC"), SPANS))
def test_clipping_and_filtering_agree_with_sets_of_minutes(
    asked: list[tuple[int, int]], extents: dict[str, list[tuple[int, int]]]
) -> None:
    held = {name: joined((a, a + n) for a, n in spans) for name, spans in extents.items()}
    ranges = [BarRange(s, a, b) for s in "AB" for a, b in joined((a, a + n) for a, n in asked)]
    parts = clip(ranges, held)
    wanted = {
        (each.symbol, at)
        for each in ranges
        for at in range(each.start, each.end)
        if any(a <= at < a + n for a, n in extents.get(each.symbol, []))
    }
    assert sorted((p.symbol, at) for p in parts for at in range(p.start, p.end)) == sorted(wanted)
    assert parts == sorted(parts)
    everything = frame(*((s, at) for s in "ABC" for at in range(40)))
    kept = inside(everything, parts)
    assert set(kept.select("symbol", "start").iter_rows()) == wanted
    assert len(kept) == len(wanted)


class Odd:
    """A source that does what it is told to."""

    def __init__(self, covered: object = (), answer: object = None) -> None:
        self.covered, self.answer = covered, answer

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        del interval, ranges
        if isinstance(self.covered, BaseException):
            raise self.covered
        return self.covered  # type: ignore[return-value]

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        del interval, ranges
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    def close(self) -> None:
        raise RuntimeError("cannot close")


def guarded(source: Odd) -> GuardedSource:
    return GuardedSource(source, lambda text: text.replace("hush", "***"))


def test_the_guard_sorts_and_cuts_coverage_and_casts_bars() -> None:
    asked = [BarRange("A", 10, 20), BarRange("B", 0, 5)]
    covered = [
        BarRange("B", 3, 9),
        BarRange("A", 0, 12),
        BarRange("A", 12, 14),
        BarRange("C", 0, 1),
    ]
    assert guarded(Odd(covered)).coverage(ONE, asked) == [
        BarRange("A", 10, 14),
        BarRange("B", 3, 5),
    ]
    answer = frame(("A", DAY_0)).with_columns(pl.col("volume").cast(pl.Int32), extra=1)
    assert guarded(Odd(answer=answer.reverse())).bars(ONE, asked).equals(frame(("A", DAY_0)))


NOW = frame(("A", DAY_0), ("A", DAY_0 + MINUTE))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (NOW.with_columns(pl.col("start") // 1_000), "a start in its answer is 1542931200000: "),
        (NOW.with_columns(pl.col("start") // 1_000_000), "not within 1971 to 2099"),
        (NOW.with_columns(pl.col("start") * 1_000), "not within 1971 to 2099"),
        (NOW.with_columns(start=None), "column start is Null|2 of the 2 rows .* have no start"),
        (NOW.with_columns(start=pl.lit(None, pl.Int64)), "2 of the 2 rows .* have no start"),
        (
            NOW.with_columns(symbol=pl.Series(["A", None])),
            "1 of the 2 rows of its answer have no symbol",
        ),
        (
            NOW.with_columns(symbol=pl.lit("a")),
            "no symbol that was asked for, such as 'A', but 'a'",
        ),
        (NOW.with_columns(symbol=pl.lit("A ")), "but 'A '"),
    ],
)
def test_the_guard_refuses_an_answer_to_another_question(answer: pl.DataFrame, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        guarded(Odd(answer=answer)).bars(ONE, [BarRange("A", DAY_0, DAY_0 + DAY)])


def test_the_guard_lets_an_empty_answer_and_foreign_rows_pass() -> None:
    asked = [BarRange("A", DAY_0, DAY_0 + DAY)]
    assert guarded(Odd(answer=empty_frame())).bars(ONE, asked).is_empty()
    mixed = pl.concat([NOW, NOW.with_columns(symbol=pl.lit("B"))])
    assert len(guarded(Odd(answer=mixed)).bars(ONE, asked)) == 4


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Odd(answer=[1]), "answered with a list"),
        (Odd(answer=empty_frame().drop("open", "low")), "no column open, low"),
        (Odd(answer=frame(("A", 1)).with_columns(open=pl.lit("x"))), "conversion|cast"),
        (Odd(answer=ValueError("at https://x?key=hush")), r"^ValueError: at .*\*\*\*"),
        (Odd(answer=SystemExit(3)), "SystemExit: 3"),
        (Odd(answer=SourceError("HTTP 503", "Wait.")), "^HTTP 503. Wait.$"),
        (Odd(answer=StoreCorruptError("see", "Correct [store] url.")), "the source's url"),
    ],
)
def test_the_guard_makes_source_errors_of_all_else(source: Odd, said: str) -> None:
    with pytest.raises(SourceError, match=said) as failed:
        guarded(source).bars(ONE, [])
    assert "hush" not in str(failed.value)
    assert failed.value.__suppress_context__


def test_the_guard_lets_ctrl_c_pass_and_closes_quietly() -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded(Odd(covered=KeyboardInterrupt())).coverage(ONE, [])
    with pytest.raises(SourceError, match="TypeError"):
        guarded(Odd(covered=3)).coverage(ONE, [])
    guarded(Odd()).close()
