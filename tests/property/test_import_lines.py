"""Reading lines fast and reading them exactly are the same thing, and lose no line."""

from __future__ import annotations

import csv
import math
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_coord.sources.lines import Layout, read_lines, to_lines

LAYOUT = Layout(4, ",", {"symbol": 0, "open": 1, "volume": 3})
LAYOUTS = (
    LAYOUT,
    Layout(4, ",", {"open": 0, "volume": 0, "symbol": 1}),  # the last two are nobody's business
    Layout(4, ",", {"open": 1, "volume": 2, "symbol": 3}),
)
Fields = tuple[str, float | None, float | None]
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

number_texts = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=4).map(str),
    st.integers(-(10**25), 10**25).map(str),
    st.from_regex(NUMBER, fullmatch=True),
)
odd_texts = st.sampled_from(
    [
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "0x1f",
        "1_000",
        '"1,000"',
        " 1.5\t",
        "+ 1",
        "1.5.2",
        "--1",
        "1e",
        "\u0661",
        "x",
        '"',
        '""',
        '"a"b',
        "é",
        "\x00",
        "\x0b",
        "1 2",
        "Infinity",
    ]
)
tricky_texts = st.sampled_from(['"7"', "7\t", "7\0"])  # all but good to a lenient reader
good_texts = st.text("0123456789", min_size=1, max_size=6)  # symbols and numbers at once
good_lines = st.lists(good_texts, min_size=4, max_size=4)
odd_lines = st.lists(st.one_of(good_texts, number_texts, odd_texts), max_size=6)


@st.composite
def nearly_good_lines(draw: st.DrawFn) -> list[str]:
    """Return a good line with one field replaced, added or left out."""
    line, at = draw(good_lines), draw(st.integers(0, 3))
    line[at : at + draw(st.integers(0, 1))] = draw(
        st.lists(st.one_of(tricky_texts, odd_texts), max_size=1)
    )
    return line


bad_lines = st.one_of(
    st.one_of(nearly_good_lines(), odd_lines).map(lambda texts: ",".join(texts).encode()),
    st.binary(max_size=20),
)


@st.composite
def files(draw: st.DrawFn) -> list[bytes]:
    """Return good lines with a few others among them."""
    lines = [",".join(texts).encode() for texts in draw(st.lists(good_lines, max_size=8))]
    for line in draw(st.lists(bad_lines, max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return lines


def parse_number(text: str) -> float | None:
    """Return what Python makes of a plain decimal number or one of the words for no number."""
    text = text.strip(" \t")
    if NUMBER.fullmatch(text) or text.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        return float(text)
    return None


def parse_line(line: bytes, layout: Layout) -> Fields | None:
    """Return symbol, open and volume of a line by the plainest means; None for a bad line."""
    try:
        text = line.decode()
        (row,) = csv.reader([text], strict=True, skipinitialspace='"' in text)
    except (UnicodeDecodeError, csv.Error):
        return None
    if "\0" in text or len(row) != 4:
        return None
    symbol, opening, volume = (row[layout.positions[n]] for n in ("symbol", "open", "volume"))
    return symbol.strip(" \t"), parse_number(opening), parse_number(volume)


def expected_rows(data: bytes, layout: Layout) -> list[tuple[int, Fields | None]]:
    """Return the number of every line that is not blank, with its fields."""
    data = data.removeprefix("\ufeff".encode())
    all_lines = enumerate(re.split(rb"\r\n|\r|\n", data), 1)
    return [(n, parse_line(line, layout)) for n, line in all_lines if line.strip(b" \t\v\f")]


def same(left: float | None, right: float | None) -> bool:
    if left is None or right is None or math.isnan(left) or math.isnan(right):
        return repr(left) == repr(right)
    return left == right and math.copysign(1, left) == math.copysign(1, right)


@given(
    lines=files(),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    ended=st.booleans(),
    size=st.integers(0, 60),
    layout=st.sampled_from(LAYOUTS),
)
@example([b"1,1,2,3", b"1,1,2"], b"\n", True, 0, LAYOUTS[1])
@example([b"7,1 ,2,3"], b"\n", True, 0, LAYOUT)
@example([b'"7",1,2,3'], b"\n", True, 0, LAYOUT)
@example([b"7\0,1,2,3"], b"\n", True, 0, LAYOUT)
@example([b"\xef\xbb\xbf\xef\xbb\xbf1,1,2,3"], b"\n", True, 0, LAYOUT)
@example([b"1,1,2,3", b"1,1,2,3,4", b"1,1,2", b"1,1,2,3"], b"\n", True, 0, LAYOUTS[1])
@example([b"1,1,2,3", b"1,1,2", b"1,1,2,3,"], b"\n", False, 0, LAYOUTS[1])
@settings(max_examples=200, deadline=None)
def test_every_line_is_read_as_by_the_plainest_means(
    lines: list[bytes], newline: bytes, ended: bool, size: int, layout: Layout
) -> None:
    """Line by line, whatever the lines and the size from which they are read one by one."""
    data = newline.join(lines) + newline * ended
    expected = expected_rows(data, layout)
    if not expected:
        return
    frame = read_lines(to_lines(data, "x"), layout, exact_bytes=size)
    assert frame["row"].to_list() == [row for row, _ in expected]
    for (row, line), got in zip(expected, frame.iter_rows(named=True), strict=True):
        if line is None:
            assert got["reason"].startswith("bad-line: "), row
            continue
        assert got["reason"] is None, row
        assert got["symbol"] == line[0], row
        assert same(got["open"], line[1]), row
        assert same(got["volume"], line[2]), row


@given(st.lists(st.tuples(number_texts, number_texts), min_size=1, max_size=50))
@settings(max_examples=60, deadline=None)
def test_numbers_are_the_closest_doubles(pairs: list[tuple[str, str]]) -> None:
    """Both readers parse a decimal number as Python does: correctly rounded."""
    data = "".join(f"A,{left},,{right}\n" for left, right in pairs).encode()
    quoted = "".join(f'A,"{left}",,{right}\n' for left, right in pairs).encode()
    expected = [(float(left), float(right)) for left, right in pairs]
    assert read_lines(data, LAYOUT).select("open", "volume").rows() == expected
    assert read_lines(quoted, LAYOUT).select("open", "volume").rows() == expected
