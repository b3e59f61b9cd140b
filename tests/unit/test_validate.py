"""The rules for bars, each with the smallest row that breaks it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl
import pytest

from stream_coord.bars import COLUMNS, FIELDS, Symbol
from stream_coord.clock import parse_moment
from stream_coord.compute.validate import collapse, validate
from stream_coord.errors import SymbolError
from stream_coord.interval import MINUTE, Interval

ONE_MINUTE = Interval(MINUTE)
START = parse_moment("2018-11-23T14:30:00Z")
GOOD: dict[str, object] = {
    "symbol": "SPY",
    "start": START,
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 100.0,
    "row": 1,
    "reason": None,
}
SCHEMA = {
    "symbol": pl.String,
    "start": pl.Int64,
    **dict.fromkeys(FIELDS, pl.Float64),
    "row": pl.Int64,
    "reason": pl.String,
}


def raw(*changes: Mapping[str, object]) -> pl.DataFrame:
    """Return a raw frame of good rows with changes."""
    rows = [GOOD | {"row": n} | dict(change) for n, change in enumerate(changes, 1)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def code(change: Mapping[str, object], **options: tuple[str, ...]) -> str | None:
    """Return the whole reason for which one row is rejected, None if it is not."""
    judged = validate(raw(change), ONE_MINUTE, **options)
    assert len(judged.good) + len(judged.rejects) == 1
    return judged.rejects["reason"][0] if len(judged.rejects) else None


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"open": 9.0, "high": 9.0, "low": 9.0, "close": 9.0, "volume": 0.0},
        {"open": 12.0, "close": 9.0},
        {"start": 0},
        {"start": parse_moment("2099-12-31T23:59:00Z")},
        {"volume": 1e300},
        {"low": 5e-324},
        {"symbol": "BRK.B"},
        {"symbol": "^GSPC"},
    ],
)
def test_good_rows_pass(change: dict[str, object]) -> None:
    assert code(change) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(({name: None}, f"unparsable: {name}") for name in ("symbol", *FIELDS)),
        ({"start": None}, "unparsable: time"),
        *(
            ({name: value}, f"not-finite: {name}")
            for name in FIELDS
            for value in (math.nan, math.inf, -math.inf)
        ),
        ({"high": 10.99}, "high-too-low: high < max(open, close, low)"),
        ({"high": 9.99, "close": 9.5}, "high-too-low: high < max(open, close, low)"),
        ({"high": 8.0, "open": 8.0, "close": 8.0}, "high-too-low: high < max(open, close, low)"),
        ({"low": 10.01}, "low-too-high: low > min(open, close, high)"),
        ({"low": 10.5, "open": 11.5}, None),
        ({"low": 11.2, "open": 11.5}, "low-too-high: low > min(open, close, high)"),
        ({"low": 0.0}, "nonpositive-price: low <= 0"),
        ({"low": -0.0}, "nonpositive-price: low <= 0"),
        (dict.fromkeys(FIELDS[:4], -1.0), "nonpositive-price: low <= 0"),
        ({"volume": -0.01}, "negative-volume: volume < 0"),
        ({"start": START + 1}, "misaligned: the start is no multiple of 1m"),
        ({"start": START + 30_000_000}, "misaligned: the start is no multiple of 1m"),
        ({"start": -MINUTE}, "out-of-range: the time is not within 1970 to 2099"),
        (
            {"start": parse_moment("2100-01-01T00:00:00Z")},
            "out-of-range: the time is not within 1970 to 2099",
        ),
        ({"start": 2**62}, "out-of-range: the time is not within 1970 to 2099"),
        ({"reason": "bad-line: not UTF-8"}, "bad-line: not UTF-8"),
    ],
)
def test_each_rule_has_its_reason(change: dict[str, object], reason: str | None) -> None:
    assert code(change) == reason


def test_misalignment_depends_on_the_interval() -> None:
    frame = raw({"start": START + MINUTE})
    assert len(validate(frame, Interval.parse("1m")).good) == 1
    rejects = validate(frame, Interval.parse("5m")).rejects
    assert rejects["reason"].to_list() == ["misaligned: the start is no multiple of 5m"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "SPY ",
        "../../etc/x",
        "A..B",
        "*",
        "BRK[/B]",
        "x'; DROP TABLE bars;--",
        "a" * 65,
        "SPY\n",
        "ÄÖ",
        "-SPY",
        "\u0661",
        "A B",
        "A",
        "^VIX",
        "a" * 64,
        "ES.201312",
        "BTC/USD",
    ],
)
def test_symbols_are_those_that_symbol_parse_lets_through(text: str) -> None:
    try:
        Symbol.parse(text)
    except SymbolError:
        assert code({"symbol": text}) == "bad-symbol: not a symbol"
    else:
        assert code({"symbol": text}) is None


def test_the_first_reason_in_the_documented_order_wins() -> None:
    """A row that breaks everything is mended rule by rule, and names the next one each time."""
    row: dict[str, object] = {"reason": "bad-line: x", "symbol": None, "start": None}
    row |= {"open": math.nan, "high": 1.0, "low": 2.0, "close": 1.0, "volume": -1.0}
    mends: list[dict[str, object]] = [
        {"reason": None},
        {"symbol": "a b"},
        {"start": -1},
        {"start": 1},
        {"start": 0},
        {"symbol": "SPY"},
        {"open": -1.0},
        {"high": 2.0},
        {"low": -1.0},
        {"low": 0.5, "open": 1.0},
        {"volume": 1.0},
    ]
    seen = [code(row)]
    for mend in mends:
        row |= mend
        seen.append(code(row))
    assert [reason and reason.partition(":")[0] for reason in seen] == [
        "bad-line",
        "unparsable",
        "unparsable",
        "out-of-range",
        "misaligned",
        "bad-symbol",
        "not-finite",
        "high-too-low",
        "low-too-high",
        "nonpositive-price",
        "negative-volume",
        None,
    ]


def test_prices_below_zero_are_for_those_symbols_only_that_may_have_them() -> None:
    prices = {"open": -37.0, "high": 1.0, "low": -40.0, "close": 0.0}
    assert code({"symbol": "CL", **prices}, allow_nonpositive=("CL", "NG")) is None
    assert code({"symbol": "SPY", **prices}, allow_nonpositive=("CL", "NG")) is not None


def test_every_row_is_either_good_or_rejected_in_file_order() -> None:
    changes: list[dict[str, object]] = [{}, {"open": None}, {"symbol": "A"}, {"volume": -1.0}]
    judged = validate(raw(*changes), ONE_MINUTE)
    assert judged.good.columns == list(COLUMNS)
    assert judged.good["symbol"].to_list() == ["SPY", "A"]
    assert set(judged.rejects.columns) == {"row", "symbol", "start", "reason"}
    assert judged.rejects["row"].to_list() == [2, 4]
    assert judged.rejects["start"].to_list() == [START, START]


def test_other_columns_are_carried_along() -> None:
    changes: list[dict[str, object]] = [{}, {"open": None}, {"volume": 7.0}]
    judged = validate(raw(*changes).with_columns(file=pl.Series([4, 5, 6])), ONE_MINUTE)
    assert judged.rejects["file"].to_list() == [5]
    collapsed = collapse(judged.good, ONE_MINUTE)
    assert collapsed.bars["file"].to_list() == [6]
    assert collapsed.superseded["file"].to_list() == [4]


def test_negative_zeros_become_zeros() -> None:
    change = {"volume": -0.0, "close": -0.0, "low": -0.0, "symbol": "CL"}
    good = validate(raw(change), ONE_MINUTE, allow_nonpositive=("CL",)).good
    assert [math.copysign(1, good[name][0]) for name in ("low", "close", "volume")] == [1, 1, 1]


def test_nothing_in_nothing_out() -> None:
    judged = validate(raw(), ONE_MINUTE)
    assert (len(judged.good), len(judged.rejects)) == (0, 0)
    collapsed = collapse(judged.good, ONE_MINUTE)
    assert (len(collapsed.bars), len(collapsed.superseded)) == (0, 0)


def test_of_the_rows_of_one_key_the_last_one_stays() -> None:
    """Rows A B A C C of one key: C stays, three are superseded, one is a mere duplicate."""
    values = [1.0, 2.0, 1.0, 3.0, 3.0]
    frame = raw(*({"volume": v} for v in values), {"symbol": "A", "volume": 9.0})
    collapsed = collapse(frame.select(COLUMNS), ONE_MINUTE)
    assert collapsed.bars.select("symbol", "volume").rows() == [("A", 9.0), ("SPY", 3.0)]
    old_to_new = collapsed.superseded.select("symbol", "start", "old_volume", "volume").rows()
    assert old_to_new == [("SPY", START, old, 3.0) for old in (1.0, 2.0, 1.0)]


def test_bars_come_out_sorted_by_code_point_and_start() -> None:
    keys = [("b", 5), ("B", 7), ("a", 5), ("b", 4), ("^X", 1), ("Ab", 0), ("A", 3), ("A.", 2)]
    frame = raw(*({"symbol": symbol, "start": at * MINUTE} for symbol, at in keys))
    bars = collapse(frame.select(COLUMNS), ONE_MINUTE).bars
    assert bars.select("symbol", "start").rows() == sorted((s, at * MINUTE) for s, at in keys)
    assert bars.columns == list(COLUMNS)


def test_keys_far_apart_do_not_collide() -> None:
    """First and last second of the range, for neighbouring symbols."""
    last = parse_moment("2099-12-31T23:59:59Z")
    frame = raw(*({"symbol": s, "start": at} for s in "BA" for at in (last, 0)))
    bars = collapse(frame.select(COLUMNS), Interval.parse("1s")).bars
    assert bars.select("symbol", "start").rows() == [("A", 0), ("A", last), ("B", 0), ("B", last)]
