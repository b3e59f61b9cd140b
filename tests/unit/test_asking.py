"""Asking sources: who is asked for what, and what becomes of answers of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread

import numpy as np
import polars as pl
import pytest

from stream_coord.clock import FixedClock, SystemTimer
from stream_coord.errors import ConfigError, SourceError
from stream_coord.interval import Interval
from stream_coord.sources.protocol import BarRange, NamedSource
from stream_coord.stores.ledger import Disagreement
from stream_coord.upkeep.asking import Answers, Enquirer

MINUTE = 60_000_000
OPEN = 1_541_169_000_000_000  # 2018-11-02 14:30 UTC
ONE = Interval.parse("1m")
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)
Cell = tuple[str, int]


def at(minute: int) -> int:
    return OPEN + minute * MINUTE


def frame(bars: dict[Cell, float]) -> pl.DataFrame:
    rows = [(symbol, at(minute), *[price] * 4, 100.0) for (symbol, minute), price in bars.items()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


class Fake:
    """A source that covers some minutes (None: all), answers with a frame, and keeps count."""

    def __init__(
        self, answer: pl.DataFrame | BaseException | None = None, covers: set[int] | None = None
    ) -> None:
        self.answer = frame({}) if answer is None else answer
        self.covers = covers
        self.asked: list[list[BarRange]] = []
        self.closed = 0

    def coverage(self, _: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        if self.covers is None:
            return ranges
        return [
            BarRange(part.symbol, at(minute), at(minute + 1))
            for part in ranges
            for minute in sorted(self.covers)
            if part.start <= at(minute) < part.end
        ]

    def bars(self, _: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        self.asked.append(list(ranges))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed += 1


class Silent(Fake):
    """A source that cannot say what it covers."""

    def coverage(self, _: Interval, __: Sequence[BarRange]) -> Sequence[BarRange]:
        raise SourceError("no route to host")


def enquirer(*sources: Fake, compare: bool = True, mask: Callable[[str], str] = str) -> Enquirer:
    named = [
        NamedSource(f"s{n}", f"s{n}: fake", source, compare) for n, source in enumerate(sources)
    ]
    return Enquirer(named, ONE, FixedClock(7), SystemTimer(), mask)


def ask(who: Enquirer, cells: Sequence[Cell], empty: Sequence[int] | None = None) -> Answers:
    symbols = sorted({symbol for symbol, _ in cells})
    rows = np.array([symbols.index(symbol) for symbol, _ in cells], np.int64)
    starts = np.array([at(minute) for _, minute in cells], np.int64)
    bits = None if empty is None else np.array(empty, np.uint64)
    return who.ask(symbols, rows, starts, bits)


def test_a_bar_is_found_with_its_values_and_source() -> None:
    source = Fake(frame({("A", 1): 5.0}))
    got = ask(enquirer(Fake(), source), [("A", 0), ("A", 1)])
    assert got.found.tolist() == [False, True]
    assert got.values[:, 1].tolist() == [5.0, 5.0, 5.0, 5.0, 100.0]
    assert np.isnan(got.values[:, 0]).all()
    assert got.source.tolist() == [-1, 1]
    assert got.empty.tolist() == [0b11, 0b01]
    assert got.asked.tolist() == [0b11, 0b11]
    assert got.covered.tolist() == [True, True]
    assert not got.failed.any()


def test_neighbours_are_asked_for_as_one_range_and_each_source_once() -> None:
    source = Fake()
    ask(enquirer(source), [("A", 0), ("A", 1), ("A", 3), ("B", 3), ("B", 4)])
    assert source.asked == [
        [
            BarRange("A", at(0), at(2)),
            BarRange("A", at(3), at(4)),
            BarRange("B", at(3), at(5)),
        ]
    ]


def test_only_what_a_source_covers_is_asked_of_it() -> None:
    source = Fake(covers={1, 2})
    who = enquirer(source)
    got = ask(who, [("A", 0), ("A", 1), ("A", 2), ("A", 3)])
    assert source.asked == [[BarRange("A", at(1), at(3))]]
    assert got.covered.tolist() == [False, True, True, False]
    assert got.empty.tolist() == [0, 1, 1, 0]
    [call] = who.take_calls()
    assert (call.ranges, call.minutes, call.bars, call.outcome) == (1, 2, 0, "answered")


def test_a_source_that_covers_nothing_is_asked_for_no_bar() -> None:
    source = Fake(covers=set())
    who = enquirer(source)
    got = ask(who, [("A", 0)])
    assert source.asked == []
    assert who.take_calls() == []
    assert not got.covered.any()
    assert not got.failed.any()
    assert got.asked.tolist() == [1]


def test_more_than_was_asked_is_ignored() -> None:
    answer = frame({("A", 0): 1.0, ("A", 1): 2.0, ("Z", 0): 3.0})

    class Boastful(Fake):
        def coverage(self, _: Interval, __: Sequence[BarRange]) -> Sequence[BarRange]:
            return [BarRange("A", at(-9), at(99)), BarRange("Z", at(0), at(9))]

    source = Boastful(answer)
    got = ask(enquirer(source), [("A", 0), ("A", 5)])
    assert got.found.tolist() == [True, False]
    assert source.asked == [[BarRange("A", at(0), at(1)), BarRange("A", at(5), at(6))]]


def test_who_has_confirmed_a_minute_empty_is_not_asked_again() -> None:
    first, second = Fake(), Fake(frame({("A", 0): 1.0}))
    got = ask(enquirer(first, second), [("A", 0), ("A", 1)], empty=[0b01, 0b11])
    assert first.asked == []
    assert second.asked == [[BarRange("A", at(0), at(1))]]
    assert got.found.tolist() == [True, False]
    assert got.empty.tolist() == [0b01, 0b11]
    assert got.covered.tolist() == [True, True]


@pytest.mark.parametrize(
    "error",
    [SourceError("timed out"), ValueError("timed out"), SystemExit("timed out"), TimeoutError()],
    ids=repr,
)
def test_a_source_that_fails_stops_nothing(error: BaseException) -> None:
    who = enquirer(Fake(error), Fake(frame({("A", 0): 1.0})))
    got = ask(who, [("A", 0), ("A", 1)])
    assert got.found.tolist() == [True, False]
    assert got.failed.tolist() == [True, True]
    assert got.empty.tolist() == [0b00, 0b10]
    failed, answered = who.take_calls()
    assert (failed.source, failed.at, failed.outcome) == ("s0: fake", 7, "failed")
    assert (failed.ranges, failed.minutes, failed.bars) == (1, 2, 0)
    assert failed.error is not None
    assert failed.error.endswith("timed out") or failed.error.startswith("TimeoutError")
    assert (answered.source, answered.bars, answered.error) == ("s1: fake", 1, None)
    assert who.take_calls() == []
    assert who.has_failed


def test_a_source_that_cannot_say_what_it_covers_has_failed() -> None:
    source = Silent()
    who = enquirer(source)
    got = ask(who, [("A", 0)])
    assert got.failed.tolist() == [True]
    assert got.covered.tolist() == [False]
    [call] = who.take_calls()
    assert (call.outcome, call.error, call.ranges) == ("failed", "no route to host", 0)


def test_ctrl_c_goes_on() -> None:
    who = enquirer(Fake(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ask(who, [("A", 0)])
    assert ask(enquirer(Fake()), [("A", 0)]).empty.tolist() == [1]
    with pytest.raises(KeyboardInterrupt):  # it is not locked for ever
        ask(who, [("A", 0)])


def test_secrets_are_taken_out_of_what_a_failing_source_says() -> None:
    who = enquirer(Fake(ValueError("key=s3cret\nrefused")), mask=lambda t: t.replace("s3cret", "*"))
    ask(who, [("A", 0)])
    assert who.take_calls()[0].error == "ValueError: key=* refused"


def test_the_first_source_in_order_wins_and_both_are_told() -> None:
    who = enquirer(
        Fake(frame({("A", 0): 1.0, ("A", 1): 1.0})),
        Fake(frame({("A", 0): 1.0, ("A", 1): 2.0})),
        Fake(frame({("A", 1): 3.0})),
    )
    got = ask(who, [("A", 0), ("A", 1)])
    assert got.values[0].tolist() == [1.0, 1.0]
    assert got.source.tolist() == [0, 0]
    won = (1.0, 1.0, 1.0, 1.0, 100.0)
    assert got.disagreements == [
        Disagreement("A", at(1), "s0: fake", "s1: fake", won, (2.0, 2.0, 2.0, 2.0, 100.0)),
        Disagreement("A", at(1), "s0: fake", "s2: fake", won, (3.0, 3.0, 3.0, 3.0, 100.0)),
    ]


def test_a_source_that_does_not_compare_is_asked_for_the_rest_only() -> None:
    second = Fake(frame({("A", 0): 9.0, ("A", 1): 2.0}))
    got = ask(enquirer(Fake(frame({("A", 0): 1.0})), second, compare=False), [("A", 0), ("A", 1)])
    assert second.asked == [[BarRange("A", at(1), at(2))]]
    assert got.values[0].tolist() == [1.0, 2.0]
    assert got.disagreements == []
    none_left = Fake(frame({}))
    ask(enquirer(Fake(frame({("A", 0): 1.0})), none_left, compare=False), [("A", 0)])
    assert none_left.asked == []


@pytest.mark.parametrize(
    ("column", "value"),
    [("high", 0.5), ("open", float("nan")), ("volume", -1.0), ("close", None), ("start", OPEN + 1)],
)
def test_what_is_no_bar_is_a_failure_for_its_minute(column: str, value: float | None) -> None:
    bars = frame({("A", 0): 1.0, ("A", 1): 2.0})
    first = pl.col("start") == OPEN
    bars = bars.with_columns(
        pl.when(first).then(pl.lit(value, SCHEMA[column])).otherwise(column).alias(column)
    )
    got = ask(enquirer(Fake(bars)), [("A", 0), ("A", 1), ("A", 2)])
    assert got.found.tolist() == [False, True, False]
    assert got.failed.tolist() == [True, False, False]
    assert got.empty.tolist() == [0, 0, 1]
    assert got.covered.tolist() == [True, True, True]


def test_a_minute_with_a_bar_and_something_else_has_the_bar() -> None:
    bars = pl.concat([frame({("A", 0): 1.0}), frame({("A", 0): float("nan")})])
    got = ask(enquirer(Fake(bars)), [("A", 0)])
    assert got.found.tolist() == [True]
    assert got.failed.tolist() == [False]


def test_a_minute_is_covered_where_its_start_is() -> None:
    class Odd(Fake):
        def coverage(self, _: Interval, __: Sequence[BarRange]) -> Sequence[BarRange]:
            return [
                BarRange("A", at(0) + 1, at(2) + 1),
                BarRange("A", at(1), at(2)),
                BarRange("A", at(5), at(4)),
            ]

    got = ask(enquirer(Odd()), [("A", minute) for minute in range(6)])
    assert got.covered.tolist() == [False, True, True, False, False, False]


def test_the_last_row_of_a_minute_counts() -> None:
    bars = pl.concat([frame({("A", 0): 1.0}), frame({("A", 0): 2.0})])
    assert ask(enquirer(Fake(bars)), [("A", 0)]).values[0].tolist() == [2.0]


def test_a_price_below_zero_is_a_bar_where_the_symbol_may_have_it() -> None:
    source = Fake(frame({("CL", 0): -37.63}))
    named = NamedSource("s", "s: fake", source, allow_nonpositive=frozenset({"CL"}))
    who = Enquirer([named], ONE, FixedClock(0), SystemTimer())
    assert ask(who, [("CL", 0)]).found.tolist() == [True]
    assert ask(enquirer(source), [("CL", 0)]).failed.tolist() == [True]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (frame({}).drop("close"), "no column close"),
        (frame({("A", 0): 1.0}).with_columns(pl.col("start").cast(pl.Datetime("ms"))), "start is"),
        (frame({("A", 0): 1.0}).with_columns(open=pl.lit("one")), "conversion"),
        ("bars", "a str"),
        (None, "a NoneType"),
    ],
)
def test_an_answer_that_is_no_frame_of_bars_is_a_failure(answer: object, words: str) -> None:
    source = Fake()
    vars(source)["answer"] = answer
    who = enquirer(source)
    assert ask(who, [("A", 0)]).failed.tolist() == [True]
    error = who.take_calls()[0].error
    assert error is not None
    assert words in error


def test_columns_may_come_in_any_order_and_as_whole_numbers() -> None:
    bars = frame({("A", 0): 2.0}).with_columns(volume=pl.lit(7), note=pl.lit("x"))
    got = ask(enquirer(Fake(bars.select(reversed(bars.columns)))), [("A", 0)])
    assert got.values[:, 0].tolist() == [2.0, 2.0, 2.0, 2.0, 7.0]


def test_no_minute_means_no_question() -> None:
    source = Fake()
    got = enquirer(source).ask([], np.empty(0, np.int64), np.empty(0, np.int64))
    assert source.asked == []
    assert (got.found.shape, got.values.shape) == ((0,), (5, 0))


def test_without_sources_nothing_is_covered() -> None:
    got = ask(enquirer(), [("A", 0)])
    assert not got.covered.any()
    assert not got.failed.any()
    assert got.asked.tolist() == [0]


def test_there_is_a_bit_for_every_source_and_no_source_without_one() -> None:
    sources = [Fake() for _ in range(64)]
    got = ask(enquirer(*sources), [("A", 0)])
    assert got.empty.tolist() == got.asked.tolist() == [2**64 - 1]
    with pytest.raises(ConfigError, match="65 sources"):
        enquirer(*sources, Fake())


def test_one_question_at_a_time_reaches_the_sources() -> None:
    inside = []

    class Jealous(Fake):
        def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
            inside.append(+1)
            assert sum(inside) == 1
            answer = super().bars(interval, ranges)
            inside.append(-1)
            return answer

    who = enquirer(Jealous())
    threads = [Thread(target=ask, args=(who, [("A", 0)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [call.outcome for call in who.take_calls()] == ["answered"] * 8


def test_closing_closes_every_source_even_after_one_that_fails_at_it() -> None:
    class Stuck(Fake):
        def close(self) -> None:
            raise OSError("stuck")

    last = Fake()
    enquirer(Stuck(), last).close()
    assert last.closed == 1


class Doubtful(Fake):
    """A source that could not read all that it has."""

    troubles = ("row 7 is torn", "row 9 is torn")


@pytest.mark.parametrize("covers", [set(), {0}])
def test_what_a_source_could_not_read_is_told_and_is_no_failure(covers: set[int]) -> None:
    asking = enquirer(Doubtful(frame({("A", 0): 1.0}), covers))
    starts = np.array([at(0), at(1)])
    answers = asking.ask(["A"], np.array([0, 0]), starts)
    assert answers.found.tolist() == [bool(covers), False]
    assert not answers.failed.any()
    (call,) = asking.take_calls()
    assert (call.outcome, call.error) == ("answered", "row 7 is torn (and 1 more)")


def test_what_is_refused_is_told() -> None:
    asking = enquirer(Fake(frame({("A", 0): -1.0, ("A", 1): 2.0})))
    answers = asking.ask(["A"], np.array([0, 0]), np.array([at(0), at(1)]))
    assert answers.failed.tolist() == [True, False]
    (call,) = asking.take_calls()
    assert call.outcome == "failed"
    assert call.error is not None
    assert "no bar" in call.error
    assert "the first of A at 2018-11-02 14:30:00Z" in call.error
