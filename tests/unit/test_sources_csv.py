"""CSV files of every kind that people have, and every kind of wreck."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import FIELDS, Symbol
from stream_coord.clock import parse_moment
from stream_coord.errors import InputFileError, UsageError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources import archives
from stream_coord.sources.archives import file_errors
from stream_coord.sources.base import RawBars, find_files
from stream_coord.sources.csv import CsvFormat

ONE_MINUTE = Interval(MINUTE)
SPY = Symbol.parse("SPY")
NEW_YORK = CsvFormat(label="open", tz="America/New_York")
HALF_PAST_NINE = parse_moment("2018-11-23T14:30:00Z")
HEADER = "symbol,time,open,high,low,close,volume\n"
LINE = "SPY,2018-11-23 09:30,10,12,9,11,100\n"
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a file and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def read(path: Path, fmt: CsvFormat = NEW_YORK) -> RawBars:
    """Return the raw bars of a file with one part."""
    (raw,) = [part.read() for part in fmt.parts(path, ONE_MINUTE)]
    return raw


def reasons(raw: RawBars) -> list[str | None]:
    """Return the codes of the rows' reasons."""
    return [reason and reason.partition(":")[0] for reason in raw.frame["reason"]]


def test_the_canonical_file(write: Write) -> None:
    raw = read(write("a.csv", HEADER + LINE))
    assert dict(raw.frame.schema) == {
        "symbol": pl.String,
        "start": pl.Int64,
        **dict.fromkeys(FIELDS, pl.Float64),
        "row": pl.Int64,
        "reason": pl.String,
    }
    assert raw.frame.rows() == [("SPY", HALF_PAST_NINE, 10, 12, 9, 11, 100, 2, None)]


def test_columns_of_other_names_in_other_order(write: Write) -> None:
    """One symbol for all, date and time apart, other delimiter, and a column nobody asked for."""
    fmt = CsvFormat(
        label="open",
        tz="America/New_York",
        symbol=SPY,
        delimiter=";",
        time_format="%d.%m.%Y %H%M",
        columns={"date": "Day", "time": "Clock", "open": "O", "volume": "Vol."},
    )
    text = "Vol.;close;low;high;O;Note;Clock;Day\n100;11;9;12;10;é;0930;23.11.2018\n"
    assert read(write("a.txt", text), fmt).frame.rows() == [
        ("SPY", HALF_PAST_NINE, 10, 12, 9, 11, 100, 2, None)
    ]


def test_without_header_columns_are_numbered(write: Write) -> None:
    fmt = CsvFormat(label="open", tz="America/New_York", header=False)
    expected = ("SPY", HALF_PAST_NINE, 10, 12, 9, 11, 100, 1, None)
    assert read(write("a.csv", LINE), fmt).frame.rows() == [expected]
    fmt = CsvFormat(
        label="open", tz="America/New_York", header=False, symbol=SPY, columns={"volume": "8"}
    )
    line = "2018-11-23 09:30,10,12,9,11,x,y,100\n"
    assert read(write("b.csv", line), fmt).frame.rows() == [expected]


def test_a_closing_label_is_the_end_of_the_bar(write: Write) -> None:
    """Also across a clock change: 02:00 after the second 01:59 is not ambiguous."""
    fmt = CsvFormat(label="close", tz="America/New_York")
    text = HEADER + LINE + LINE.replace("11-23 09:30", "11-04 02:00")
    assert read(write("a.csv", text), fmt).frame["start"].to_list() == [
        HALF_PAST_NINE - MINUTE,
        parse_moment("2018-11-04T06:59:00Z"),
    ]


def test_epoch_times_need_no_zone(write: Write) -> None:
    fmt = CsvFormat(label="open", time_format="epoch-ms")
    path = write("a.csv", HEADER + LINE.replace("2018-11-23 09:30", "1542983400000"))
    assert read(path, fmt).frame["start"].to_list() == [HALF_PAST_NINE]


@pytest.mark.parametrize(
    "text",
    [
        HEADER + LINE.rstrip("\n"),
        (HEADER + LINE).replace("\n", "\r\n"),
        (HEADER + LINE).replace("\n", "\r"),
        "\ufeff" + HEADER + LINE,
        HEADER + LINE + "\n\n \n",
        HEADER.replace(",", " , ") + LINE.replace(",", " ,\t"),
        HEADER.replace("open", '"open"') + LINE.replace("SPY", '"SPY"').replace("10,", '"10",'),
        '"' + HEADER.replace(",", '", "').replace("\n", '"\n') + LINE.replace(",", ", "),
    ],
)
def test_spellings_of_the_same_file(write: Write, text: str) -> None:
    raw = read(write("a.csv", text))
    assert raw.frame.rows() == [("SPY", HALF_PAST_NINE, 10, 12, 9, 11, 100, 2, None)]


def test_bad_lines_do_not_stop_the_others(write: Write) -> None:
    """Each row keeps its line number, its reason, and its text as it is in the file."""
    bad = [
        b"SPY,2018-11-23 09:30,10,12,9,11",
        b"SPY,2018-11-23 09:30,10,12,9,11,100,1",
        b'SPY,"2018-11-23 09:30,10,12,9,11,100',
        b'"SPY"x,2018-11-23 09:30,10,12,9,11,100',
        b"SPY\xff,2018-11-23 09:30,10,12,9,11,100",
        b"SPY,2018-11-23 09:30,10,12,9,11,1\x0000",
        b"SPY,2018-03-11 02:30,10,12,9,11,100",
        b"SPY,2018-11-04 01:30,10,12,9,11,100",
        b"SPY,yesterday,10,12,9,11,100",
    ]
    lines = [HEADER.encode().rstrip()]
    for line in bad:
        lines += [LINE.encode().rstrip(), b"", line]
    raw = read(write("a.csv", b"\r\n".join(lines)))
    frame = raw.frame
    assert frame["row"].to_list() == [n for n in range(2, 29) if n % 3 != 0]
    good = frame.filter(pl.col("row") % 3 == 2)
    assert good["reason"].null_count() == len(good) == 9
    assert good["start"].unique().to_list() == [HALF_PAST_NINE]
    assert reasons(raw)[1::2] == ["bad-line"] * 6 + [
        "nonexistent-time",
        "ambiguous-time",
        "unparsable",
    ]
    assert raw.raw([7, 16, 28]) == [
        bad[1].decode(),
        "SPY\\xff,2018-11-23 09:30,10,12,9,11,100",
        bad[8].decode(),
    ]


def test_a_torn_last_line_does_not_make_up_for_one_before(write: Write) -> None:
    """One field too many at the very end, and one too few in the middle: neither is a row."""
    text = (
        "symbol,time,open,high,low,close,volume,trades,vwap\n"
        "A,2018-11-23 10:00,5,9,1,5,100,7,5.1\n"
        "A,2018-11-23 10:01,5,9,1,5,7,5.1\n"
        "A,2018-11-23 10:02,5,9,1,5,100,7,5.1,"
    )
    assert reasons(read(write("a.csv", text))) == [None, "bad-line", "bad-line"]


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "0x10", "1_000", '"1,000"', "1.2.3", "1e", "--1", "$5", "1d", "\u0661", "1 2"],
)
def test_what_is_no_number_is_null(write: Write, text: str) -> None:
    """And nothing else of the row is lost."""
    path = write("a.csv", HEADER + LINE.replace(",10,", f",{text},"))
    expected = ("SPY", HALF_PAST_NINE, None, 12, 9, 11, 100, 2, None)
    assert read(path).frame.rows() == [expected]


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "1e400"])
def test_what_is_not_finite_stays_so(write: Write, text: str) -> None:
    frame = read(write("a.csv", HEADER + LINE.replace(",10,", f",{text},"))).frame
    assert not frame["open"].is_finite().any()
    assert frame["open"].null_count() == 0


def test_a_header_alone_is_no_row(write: Write) -> None:
    assert len(read(write("a.csv", HEADER)).frame) == 0
    assert len(read(write("b.csv", HEADER.rstrip())).frame) == 0


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("content", [b"", b"\n\r\n", b" \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(write: Write, content: bytes, *, header: bool) -> None:
    fmt = CsvFormat(label="open", tz="UTC", header=header)
    with pytest.raises(InputFileError, match=r"a\.csv is empty"):
        read(write("a.csv", content), fmt)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("symbol,time,Open,high,low,close,volume", "no column 'open' .did you mean 'Open'"),
        (
            "symbol,date,open,high,low,close,volume",
            r"no column 'time'.*\n.*symbol, date, open.*--column time=",
        ),
        ("symbol,time,open,high,low,close", "no column 'volume'"),
        ("symbol,time,open,open,high,low,close,volume", "'open' more than once"),
        ("symbol;time;open;high;low;close;volume", r"one column only if ',' .*\n.*--delimiter"),
        ("a,b,c", "no column 'symbol', 'time', 'open', 'high', 'low', 'close', 'volume'"),
    ],
)
def test_wrong_columns_are_named(write: Write, header: str, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        read(write("a.csv", f"{header}\n{LINE}"))


def test_a_symbol_is_stated_in_exactly_one_way(write: Write) -> None:
    with pytest.raises(InputFileError, match=r"no column 'symbol', and no symbol is stated"):
        read(write("a.csv", HEADER.replace("symbol", "x") + LINE))
    with pytest.raises(UsageError, match=r"one symbol is stated too"):
        read(write("b.csv", HEADER + LINE), CsvFormat(label="open", tz="UTC", symbol=SPY))
    with pytest.raises(UsageError, match=r"both one symbol and a symbol column"):
        CsvFormat(label="open", tz="UTC", symbol=SPY, columns={"symbol": "ticker"})


def test_impossible_statements_are_wrong_usage(write: Write) -> None:
    with pytest.raises(UsageError, match=r"'opne' is no field of a bar .did you mean 'open'"):
        CsvFormat(label="open", columns={"opne": "O"})
    with pytest.raises(UsageError, match="'middle' is no label"):
        CsvFormat(label="middle")  # type: ignore[arg-type]  # what a script could pass
    with pytest.raises(UsageError, match="is not a time zone"):
        CsvFormat(label="open", tz="New York")
    for delimiter in ("", ",,", "1", "a", ".", '"', "\n", "\0", "é", " "):
        with pytest.raises(UsageError, match="cannot separate fields"):
            CsvFormat(label="open", delimiter=delimiter)
    for number in ("0", "-1", "volume", "", "99999", "\u0661"):
        with pytest.raises(UsageError, match="no column number"):
            CsvFormat(label="open", header=False, columns={"volume": number})
    with pytest.raises(UsageError, match="column 2 is stated both"):
        read(
            write("a.csv", HEADER + LINE),
            CsvFormat(label="open", tz="UTC", columns={"open": "time"}),
        )
    with pytest.raises(UsageError, match="no time zone is stated"):
        read(write("a.csv", HEADER + LINE), CsvFormat(label="open"))
    with pytest.raises(InputFileError, match="has 7 columns; volume should be number 9"):
        read(write("a.csv", LINE), CsvFormat(label="open", header=False, columns={"volume": "9"}))


def test_without_header_a_number_is_for_one_field_alone(write: Write) -> None:
    """A stated number that is another field's default place, or columns of unknown meaning."""
    with pytest.raises(UsageError, match=r"column 6 is stated for volume, and is that of close"):
        CsvFormat(label="open", tz="UTC", header=False, columns={"volume": "6"})
    fmt = CsvFormat(label="open", tz="UTC", header=False, columns={"volume": "6", "close": "7"})
    assert read(write("a.csv", LINE), fmt).frame.select("close", "volume").rows() == [(100, 11)]
    longer = write("b.csv", LINE.rstrip() + ",7\n")
    with pytest.raises(InputFileError, match=r"has 8 columns, and only 7 are accounted for"):
        read(longer, fmt)
    every = {field: str(n) for n, field in enumerate(("symbol", "time", *FIELDS), 1)}
    stated = CsvFormat(label="open", tz="America/New_York", header=False, columns=every)
    assert read(longer, stated).frame.rows() == [
        ("SPY", HALF_PAST_NINE, 10, 12, 9, 11, 100, 1, None)
    ]


def test_one_column_may_be_several_prices(write: Write) -> None:
    columns = dict.fromkeys(("open", "high", "low", "close"), "price")
    path = write("a.csv", "symbol,time,price,volume\nSPY,2018-11-23 09:30,10,5\n")
    frame = read(path, CsvFormat(label="open", tz="America/New_York", columns=columns)).frame
    assert frame.select(FIELDS).rows() == [(10, 10, 10, 10, 5)]


def test_gzip_is_known_by_its_first_bytes(write: Write) -> None:
    packed = gzip.compress((HEADER + LINE).encode())
    for name in ("a.csv.gz", "a.csv"):
        assert len(read(write(name, packed)).frame) == 1


def zipped(**members: str | bytes) -> bytes:
    """Return a zip archive of members whose names end in .csv."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return buffer.getvalue()


def test_every_member_of_a_zip_is_a_part(write: Write) -> None:
    path = write("a.zip", zipped(b=HEADER + LINE, a=HEADER + LINE + LINE, empty=b""))
    parts = NEW_YORK.parts(path, ONE_MINUTE)
    first, second = next(parts), next(parts)
    assert (first.name, second.name) == (f"{path}!b.csv", f"{path}!a.csv")
    assert (len(second.read().frame), len(first.read().frame)) == (2, 1)
    with pytest.raises(InputFileError, match=r"a\.zip!empty\.csv is empty"):
        next(parts).read()
    (only,) = NEW_YORK.parts(write("b.zip", zipped(b=HEADER + LINE)), ONE_MINUTE)
    assert only.name == str(path.with_name("b.zip"))


def test_hidden_files_in_a_zip_are_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    names = ("d/__MACOSX/._b.csv", "d/.DS_Store", "__MACOSX/b.csv", ".b.csv", "d/.e/b.csv")
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("d")
        for name in names:
            archive.writestr(name, HEADER + LINE)
    (member,) = archives.members(path)
    assert (member.name, member.file_name, member.alone) == (str(path), "d/.e/b.csv", True)


def test_what_is_too_big_for_memory_is_not_read_as_a_whole(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line it can be read all the same."""
    path = write("a.zip", zipped(big=HEADER + LINE * 100, small=HEADER + LINE))
    monkeypatch.setattr(archives, "MOST_BYTES", len(HEADER + LINE))
    big, small = archives.members(path)
    with pytest.raises(InputFileError, match=r"a\.zip!big\.csv is more than \d+ bytes unpacked"):
        big.load()
    assert small.load().decode() == HEADER + LINE
    assert [len(part.read().frame) for part in NEW_YORK.parts(path, ONE_MINUTE)] == [100, 1]
    with (
        pytest.raises(InputFileError, match=r"a\.csv does not fit into memory"),
        file_errors("a.csv"),
    ):
        raise MemoryError


def damaged_zip() -> bytes:
    packed = bytearray(zipped(a=HEADER + LINE * 50))
    packed[60] ^= 0xFF
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "cannot be unpacked"),
        (b"\x1f\x8b" + b"x" * 50, "cannot be"),
        (zipped(a=HEADER + LINE)[:-30], "cannot be unpacked"),
        (damaged_zip(), "cannot be unpacked"),
        (zipped(), "not a CSV file"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 50, "compressed with zstd"),
        (b"PAR1" + b"x" * 50, "a Parquet file"),
        (HEADER.encode("utf-16"), "UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "not a CSV file"),
        (b"\0" * 1000, "not a CSV file"),
    ],
)
def test_wrecks_and_other_kinds_of_files_say_so(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        read(write("a.csv", content))


def test_junk_without_a_header_is_an_error_too(write: Write) -> None:
    fmt = CsvFormat(label="open", tz="UTC", header=False)
    with pytest.raises(InputFileError, match="no line of it is text"):
        read(write("a.csv", bytes(range(128, 256)) * 50), fmt)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.csv cannot be read: No such file"):
        read(tmp_path / "gone.csv")
    with pytest.raises(InputFileError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_folders_are_walked_in_order_and_files_taken_once(write: Write, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["b.csv", "A.CSV", "sub/c.csv.gz", "sub/d.zip", "e.tsv", "f.txt"]
    for name in [*names, "g.parquet", "h.csv.bak", ".hidden.csv"]:
        write(name, "")
    other = os.path.relpath(tmp_path / "b.csv")
    files = find_files([tmp_path, tmp_path / "b.csv", Path(other)], NEW_YORK)
    assert files == sorted(tmp_path / name for name in names)
    assert find_files([tmp_path / "h.csv.bak"], NEW_YORK) == [tmp_path / "h.csv.bak"]


def test_a_file_has_one_name_from_wherever_it_is_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absolute one without ``..``; and where a link makes ``..`` another folder, a true one."""
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    expected = [write("a.csv", "")]
    monkeypatch.chdir(tmp_path / "sub")
    assert find_files([Path("../a.csv")], NEW_YORK) == expected
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "./a.csv", "sub/../a.csv", str(tmp_path / "a.csv")):
        (found,) = find_files([Path(name)], NEW_YORK)
        assert str(found) == str(expected[0])
    beside = write("sub/a.csv", "")
    (tmp_path / "link").symlink_to(tmp_path / "sub" / "deep")
    assert find_files([Path("link/../a.csv")], NEW_YORK) == [beside]
    (tmp_path / "other").symlink_to(tmp_path / "sub")
    assert find_files([Path("other")], NEW_YORK) == [tmp_path / "other" / "a.csv"]


def test_paths_that_lead_nowhere_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv does not exist"):
        find_files([tmp_path / "nowhere.csv"], NEW_YORK)
    with pytest.raises(UsageError, match="does not exist"):
        find_files([Path("a\0b.csv")], NEW_YORK)
    with pytest.raises(UsageError, match="/dev/null is neither a file nor a folder"):
        find_files([Path("/dev/null")], NEW_YORK)
    with pytest.raises(InputFileError, match="cannot be read: File name too long"):
        find_files([tmp_path / ("a" * 300)], NEW_YORK)
    with pytest.raises(UsageError, match="holds no csv file"):
        find_files([tmp_path], NEW_YORK)
