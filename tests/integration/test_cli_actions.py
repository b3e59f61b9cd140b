"""``sc import --actions`` through the installed command, into a ledger read without our code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

HEADER = "date,symbol,ratio"
COUNTS = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with settings and nothing else."""
    (tmp_path / "sc.toml").write_text(
        '[store]\nurl = "delta:data/bars"\n[ledger]\nurl = "sqlite:///data/ledger.db"\n'
    )
    return tmp_path


def write(place: Path, *rows: str, name: str = "actions.csv") -> None:
    (place / name).write_text("\n".join([HEADER, *rows]) + "\n")


def rows_of(place: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(place / "data/ledger.db")) as connection:
        return connection.execute(query).fetchall()


def splits(place: Path) -> list[tuple[Any, ...]]:
    return rows_of(place, "SELECT symbol, day, ratio FROM splits ORDER BY symbol, day")


def counts(document: dict[str, Any]) -> list[int]:
    return [document[name] for name in COUNTS]


def test_a_split_and_a_reverse_split_are_in_the_ledger_and_no_store_is_made(
    sc: Callable[..., Any], place: Path
) -> None:
    write(place, "2014-06-09,AAPL,7:1", "2021-08-02,GE,1:8")
    answer = sc("import", "actions.csv", "--actions", "--json", "--now", "2024-01-02T00:00:00Z")
    assert answer.code == 0, answer.err
    assert not answer.err
    document = answer.document
    assert document["actions"] is True
    assert counts(document) == [2, 2, 0, 0, 0, 0, 0]
    assert document["rejects_by_reason"] == {}
    assert document["failed"] == []
    assert [file["path"] for file in document["files"]] == [str(place / "actions.csv")]
    assert document["splits"] == [
        {"symbol": "AAPL", "date": "2014-06-09", "ratio": 7, "fate": "stored", "old_ratio": None},
        {"symbol": "GE", "date": "2021-08-02", "ratio": 0.125, "fate": "stored", "old_ratio": None},
    ]
    assert splits(place) == [("AAPL", "2014-06-09", 7.0), ("GE", "2021-08-02", 0.125)]
    assert rows_of(place, "SELECT status, started FROM imports") == [
        ("done", 1_704_153_600_000_000)
    ]
    assert [path.name for path in (place / "data").iterdir() if path.name != "ledger.db"] == []


def test_people_read_symbols_dates_and_ratios(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,7", "2021-08-02,GE,0.125", "2014-06-09,BRK[/B],2")
    answer = sc("import", "actions.csv", "--actions")
    assert answer.code == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["AAPL", "2014-06-09", "7:1", "new"] in lines
    assert ["GE", "2021-08-02", "1:8", "new"] in lines
    assert ["rows", "3"] in lines
    assert "2014-06-09,BRK[/B],2" in answer.out
    write(place, "2014-06-09,AAPL,4", "2021-08-02,GE,0.125")
    lines = [line.split() for line in sc("import", "actions.csv", "--actions").out.splitlines()]
    first = lines.index(["AAPL", "2014-06-09", "4:1", "was", "7:1"])
    assert lines[first + 1] == ["GE", "2021-08-02", "1:8", "known"]  # what is new comes first


def test_a_long_table_is_cut(sc: Callable[..., Any], place: Path) -> None:
    write(place, *(f"2014-06-09,S{number:03},7" for number in range(50)))
    answer = sc("import", "actions.csv", "--actions")
    assert answer.code == 0, answer.err
    assert answer.out.count("2014-06-09") == 20
    assert "30 more" in answer.out
    assert len(splits(place)) == 50


BAD_ROWS = {
    "2014-06-31,A,7": "unparsable: date",
    "09.06.2014,A,7": "unparsable: date",
    "1814-06-09,A,7": "out-of-range: the date is not within 1970 to 2099",
    "2014-06-09,../../etc/x,7": "bad-symbol: not a symbol",
    "2014-06-09,x'; DROP TABLE splits;--,7": "bad-symbol: not a symbol",
    "2014-06-09,A,": "unparsable: ratio",
    "2014-06-09,A,7-for-1": "unparsable: ratio",
    "2014-06-09,A,nan": "not-finite: ratio",
    "2014-06-09,A,1e400": "not-finite: ratio",
    "2014-06-09,A,0": "nonpositive-ratio: ratio <= 0",
    "2014-06-09,A,-7": "nonpositive-ratio: ratio <= 0",
    "2014-06-09,A,1": "no-split: ratio is 1",
    "2014-06-09,A": "bad-line: not 3 fields",
    "2014-06-09,A,7,8": "bad-line: not 3 fields",
    '2014-06-09,"A,7': "bad-line: quotes that do not match",
}


def test_bad_rows_are_kept_with_reasons_and_stop_no_others(
    sc: Callable[..., Any], place: Path
) -> None:
    write(place, "2014-06-09,AAPL,7", *BAD_ROWS, "2021-08-02,GE,1:8")
    answer = sc("import", "actions.csv", "--actions", "--json")
    assert answer.code == 0, answer.err
    assert counts(answer.document) == [17, 2, 0, 0, 0, 15, 0]
    assert sum(answer.document["rejects_by_reason"].values()) == 15
    assert [row[:2] for row in splits(place)] == [("AAPL", "2014-06-09"), ("GE", "2021-08-02")]
    assert rows_of(place, "SELECT row, raw, reason FROM rejects ORDER BY row") == [
        (row, raw, reason) for row, (raw, reason) in enumerate(BAD_ROWS.items(), 3)
    ]


def test_nothing_but_bad_rows_fails(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,1")
    answer = sc("import", "actions.csv", "--actions", "--json")
    assert answer.code == 1
    assert counts(answer.document) == [1, 0, 0, 0, 0, 1, 0]
    assert "every row was rejected" in answer.err


def test_importing_twice_changes_nothing(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,5", "2014-06-09,AAPL,7", "2021-08-02,GE,1:8", "x")
    sc("import", "actions.csv", "--actions")
    before = rows_of(place, "SELECT * FROM splits")
    answer = sc("import", "actions.csv", "--actions", "--json")
    assert answer.code == 0, answer.err
    assert counts(answer.document) == [4, 0, 3, 1, 0, 1, 0]
    assert rows_of(place, "SELECT * FROM splits") == before
    assert rows_of(place, "SELECT * FROM split_revisions") == []


def test_a_revision_keeps_the_old_ratio(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,4", "2021-08-02,GE,1:8")
    sc("import", "actions.csv", "--actions")
    write(place, "2014-06-09,AAPL,7", name="right.csv")
    answer = sc("import", "right.csv", "--actions", "--json")
    assert answer.code == 0, answer.err
    assert counts(answer.document) == [1, 0, 0, 0, 1, 0, 0]
    (split,) = answer.document["splits"]
    assert (split["fate"], split["old_ratio"], split["ratio"]) == ("revised", 4, 7)
    assert splits(place) == [("AAPL", "2014-06-09", 7.0), ("GE", "2021-08-02", 0.125)]
    query = "SELECT path, symbol, day, old_ratio, ratio FROM split_revisions JOIN import_files "
    assert rows_of(place, query + "ON import_files.id = file_id") == [
        (str(place / "right.csv"), "AAPL", "2014-06-09", 4.0, 7.0)
    ]


def test_columns_of_other_names_are_stated(sc: Callable[..., Any], place: Path) -> None:
    (place / "vendor.tsv").write_text("Ticker\tEx Date\tFactor\nAAPL\t2014-06-09\t7\n")
    named = ("--column", "symbol=ticker", "--column", "date=Ex Date", "--column", "ratio=factor")
    answer = sc("import", "vendor.tsv", "--actions", "--delimiter", "\\t", *named)
    assert answer.code == 0, answer.err
    assert splits(place) == [("AAPL", "2014-06-09", 7.0)]


def test_a_folder_is_all_its_files_and_one_that_cannot_be_read_fails_alone(
    sc: Callable[..., Any], place: Path
) -> None:
    (place / "actions").mkdir()
    write(place, "2014-06-09,AAPL,7", name="actions/a.csv")
    (place / "actions/b.csv").write_bytes(bytes(range(256)) * 20)
    write(place, "2021-08-02,GE,1:8", name="actions/c.csv")
    answer = sc("import", "actions", "--actions", "--json")
    assert answer.code == 1
    assert "b.csv is not a CSV file" in answer.err
    assert [file["path"] for file in answer.document["failed"]] == [str(place / "actions/b.csv")]
    assert len(splits(place)) == 2
    assert rows_of(place, "SELECT status FROM imports") == [("failed",)]


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 2, "does not exist"),
        (bytes(range(256)) * 20, 1, "not a CSV file"),
        (b"symbol,time,open,high,low,close,volume\n", 1, "no column 'date'"),
    ],
    ids=["absent", "binary", "bars"],
)
def test_a_file_that_is_no_splits_is_named(
    sc: Callable[..., Any], place: Path, content: bytes | None, code: int, words: str
) -> None:
    if content is not None:
        (place / "bad.csv").write_bytes(content)
    answer = sc("import", "bad.csv", "--actions")
    assert answer.code == code
    assert "bad.csv" in answer.err
    assert words in answer.err


def test_a_folder_without_files_is_told_without_options_of_bars(
    sc: Callable[..., Any], place: Path
) -> None:
    answer = sc("import", ".", "--actions")
    assert answer.code == 2
    assert "holds no csv file" in answer.err
    assert "--format" not in answer.err


def test_a_report_counts_imports_of_bars(sc: Callable[..., Any], place: Path) -> None:
    bars = "symbol,time,open,high,low,close,volume\nAAPL,2014-06-09 13:30:00Z,1,1,1,1,1\n"
    (place / "bars.csv").write_text(bars)
    write(place, "2014-06-09,AAPL,7", "2014-06-09,AAPL,4", "x,GE,1")
    assert sc("import", "bars.csv", "--label", "open").code == 0
    assert sc("import", "actions.csv", "--actions").code == 0
    report = sc("report")
    line = "1 import of 1 row: 0 revised stored bars, 0 gave way within their import, 0 were"
    assert line in report.out
    assert [made["interval"] for made in sc("report", "--json").document["imports"]] == [
        "splits",
        "1m",
    ]


def test_options_of_bars_are_refused(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,7")
    valued = {
        "--format": "parquet",
        "--symbol": "AAPL",
        "--tz": "UTC",
        "--label": "open",
        "--time-format": "epoch-s",
        "--allow-nonpositive": "CL",
    }
    options = [word for option in valued.items() for word in option]
    answer = sc("import", "actions.csv", "--actions", "--no-header", *options)
    assert answer.code == 2
    for name in ("--no-header", *valued):
        assert name in answer.err.splitlines()[0]
    assert "cannot go with --actions" in answer.err
    assert "--delimiter" in answer.err
    assert not (place / "data").exists()


def test_a_column_of_bars_is_no_column_of_splits(sc: Callable[..., Any], place: Path) -> None:
    write(place, "2014-06-09,AAPL,7")
    answer = sc("import", "actions.csv", "--actions", "--column", "price=x")
    assert answer.code == 2
    assert "'price' is no field of a split" in answer.err
    assert "date, symbol, ratio" in answer.err
