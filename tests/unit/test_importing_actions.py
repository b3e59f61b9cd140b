"""Importing splits: every row is accounted for, whatever is in the files."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import NoReturn

import pytest

from stream_coord.clock import FixedClock
from stream_coord.compute.splits import Split
from stream_coord.errors import LedgerError, UsageError
from stream_coord.importing.actions import (
    ActionFormat,
    ActionSummary,
    import_actions,
    judge_split,
)
from stream_coord.stores.ledger import FileRecord, Ledger, open_ledger, splits

AAPL = Split("AAPL", date(2014, 6, 9), 7.0)
GE = Split("GE", date(2021, 8, 2), 0.125)
NOW = 1_700_000_000_000_000
COUNTS = ("rows", "stored", "duplicates", "superseded", "revised", "rejected", "out_of_session")


class Place:
    """A folder with a ledger and files."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.ledger: Ledger = open_ledger(url, root, create=True)

    def csv(self, name: str, *lines: str, header: str = "date,symbol,ratio") -> Path:
        path = self.root / name
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    def run(self, *paths: Path, delimiter: str = ",", **columns: str) -> ActionSummary:
        fmt = ActionFormat(delimiter=delimiter, columns=columns)
        return import_actions(paths, fmt, self.ledger, FixedClock(NOW))

    def revisions(self) -> list[tuple[str, str, float, float]]:
        """Return symbol, day, old ratio and ratio of every revision, in order."""
        with self.ledger._reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT symbol, day, old_ratio, ratio FROM split_revisions ORDER BY file_id, symbol"
            )
            return [(s, day, old, new) for s, day, old, new in rows]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return a fresh place, in both kinds of databases."""
    url = "sqlite:///ledger.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    place = Place(tmp_path, url)
    yield place
    place.ledger.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    """Return a fresh place, in SQLite."""
    place = Place(tmp_path, "sqlite:///ledger.db")
    yield place
    place.ledger.close()


def counts(record: FileRecord | ActionSummary) -> tuple[int, ...]:
    return tuple(getattr(record, name) for name in COUNTS)


def test_every_row_is_accounted_for(place: Place) -> None:
    """New, known, repeated, superseded, revised and rejected ones, all in one file."""
    place.run(place.csv("old.csv", "2014-06-09,AAPL,7", "2005-02-28,AAPL,3", "2000-06-21,AAPL,2"))
    path = place.csv(
        "new.csv",
        "2014-06-09,AAPL,7:1",  # known
        "2005-02-28,AAPL,2",  # revised
        "2021-08-02,GE,1:8",  # new, and again
        "2021-08-02,GE,0.125",
        "2022-07-18,GOOG,2",  # gives way to the next one
        "2022-07-18,GOOG,20",
        "2022-07-18,GOOG,x",
        "2022-07-18,GOOG",
    )
    summary = place.run(path)
    assert counts(summary) == (8, 2, 3, 1, 1, 2, 0)
    assert [counts(file) for file in summary.files] == [counts(summary)]
    assert [(c.split.symbol, str(c.split.day), c.fate, c.old_ratio) for c in summary.splits] == [
        ("AAPL", "2005-02-28", "revised", 3.0),
        ("AAPL", "2014-06-09", "duplicates", 7.0),
        ("GE", "2021-08-02", "stored", None),
        ("GOOG", "2022-07-18", "stored", None),
    ]
    assert place.ledger.splits() == [
        Split("AAPL", date(2000, 6, 21), 2.0),
        Split("AAPL", date(2005, 2, 28), 2.0),
        AAPL,
        GE,
        Split("GOOG", date(2022, 7, 18), 20.0),
    ]
    assert place.revisions() == [("AAPL", "2005-02-28", 3.0, 2.0)]
    assert [place.ledger.splits(names) for names in (["GE", "GE", "X"], ["X"], [])] == [
        [GE],
        [],
        [],
    ]


def test_the_ledger_keeps_rejects_and_what_an_import_was(place: Place) -> None:
    path = place.csv("a.csv", "2014-06-09,AAPL,7", "", "2014-06-09,AAPL,seven", "2014-06-09,A A,2")
    summary = place.run(path)
    rejects = place.ledger.rejects()
    assert rejects.select("path", "row", "symbol", "start", "reason", "raw").rows() == [
        (str(path), 4, "AAPL", None, "unparsable: ratio", "2014-06-09,AAPL,seven"),
        (str(path), 5, "A A", None, "bad-symbol: not a symbol", "2014-06-09,A A,2"),
    ]
    assert summary.rejects_by_reason == place.ledger.reject_counts()
    assert [(e.path, e.row, e.raw) for e in summary.examples] == [
        (str(path), 4, "2014-06-09,AAPL,seven"),
        (str(path), 5, "2014-06-09,A A,2"),
    ]
    (record,) = place.ledger.imports()
    assert (record.started, record.finished, record.status) == (NOW, NOW, "done")
    assert (record.files, record.pending, record.rows, record.rejected) == (1, 0, 3, 2)
    assert json.loads(record.settings) == {"format": "actions", "delimiter": ",", "columns": {}}
    assert place.ledger.revisions().is_empty()


def test_importing_again_changes_nothing(place: Place) -> None:
    """Even where files, and rows within one, say different things."""
    one = place.csv("1.csv", "2014-06-09,AAPL,4", "2014-06-09,AAPL,5")
    two = place.csv("2.csv", "2014-06-09,AAPL,7", "2021-08-02,GE,0.125")
    first = place.run(one, two)
    assert [counts(file) for file in first.files] == [
        (2, 0, 2, 2, 0, 0, 0),
        (2, 2, 0, 0, 0, 0, 0),
    ]
    again = place.run(one, two)
    assert [counts(file) for file in again.files] == [
        (2, 0, 2, 2, 0, 0, 0),
        (2, 0, 2, 0, 0, 0, 0),
    ]
    assert place.ledger.splits() == [AAPL, GE]
    assert place.revisions() == []


def test_a_revision_and_its_contrary_are_both_kept(here: Place) -> None:
    one, two = here.csv("1.csv", "2014-06-09,AAPL,7"), here.csv("2.csv", "2014-06-09,AAPL,8")
    for path in (one, two, one):
        here.run(path)
    assert here.ledger.splits() == [AAPL]
    assert here.revisions() == [("AAPL", "2014-06-09", 7, 8), ("AAPL", "2014-06-09", 8, 7)]


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("7", 7.0),
        ("7.0", 7.0),
        ("7:1", 7.0),
        ("7/1", 7.0),
        ("1:10", 0.1),
        ("0.1", 0.1),
        ("3 : 2", 1.5),
        ("1e1", 10.0),
        ("1:3", 1 / 3),
        ("+.5", 0.5),
        ("1000000:1", 1e6),
        ("1:1000000", 1e-6),
    ],
)
def test_a_ratio_is_new_shares_for_one_old(text: str, ratio: float) -> None:
    assert judge_split("2014-06-09", "AAPL", text) == Split("AAPL", date(2014, 6, 9), ratio)


@pytest.mark.parametrize(
    ("day", "symbol", "ratio", "reason"),
    [
        ("2014-06-31", "A", "7", "unparsable: date"),
        ("20140609", "A", "7", "unparsable: date"),
        ("2014-6-9", "A", "7", "unparsable: date"),
        ("2014-W24-1", "A", "7", "unparsable: date"),
        ("", "A", "7", "unparsable: date"),
        ("0214-06-09", "A", "7", "out-of-range: the date is not within 1970 to 2099"),
        ("2100-01-01", "A", "7", "out-of-range: the date is not within 1970 to 2099"),
        ("2014-06-09", "", "7", "bad-symbol: not a symbol"),
        ("2014-06-09", "../etc", "7", "bad-symbol: not a symbol"),
        ("2014-06-09", "A", "", "unparsable: ratio"),
        ("2014-06-09", "A", "7:", "unparsable: ratio"),
        ("2014-06-09", "A", ":1", "unparsable: ratio"),
        ("2014-06-09", "A", "7:1:1", "unparsable: ratio"),
        ("2014-06-09", "A", "7-for-1", "unparsable: ratio"),
        ("2014-06-09", "A", "1_0", "unparsable: ratio"),
        ("2014-06-09", "A", "\u0667", "unparsable: ratio"),
        ("2014-06-09", "A", "nan", "not-finite: ratio"),
        ("2014-06-09", "A", "inf", "not-finite: ratio"),
        ("2014-06-09", "A", "1:inf", "not-finite: ratio"),
        ("2014-06-09", "A", "1e400", "not-finite: ratio"),
        pytest.param("2014-06-09", "A", "9" * 5000, "not-finite: ratio", id="5000 digits"),
        ("2014-06-09", "A", "1e300:1e-300", "out-of-range: the ratio is not within 1e-6 to 1e6"),
        ("2014-06-09", "A", "1e-320", "out-of-range: the ratio is not within 1e-6 to 1e6"),
        ("2014-06-09", "A", "1000001", "out-of-range: the ratio is not within 1e-6 to 1e6"),
        ("2014-06-09", "A", "1:1000001", "out-of-range: the ratio is not within 1e-6 to 1e6"),
        ("2014-06-09", "A", "0", "nonpositive-ratio: ratio <= 0"),
        ("2014-06-09", "A", "7:0", "nonpositive-ratio: ratio <= 0"),
        ("2014-06-09", "A", "-7", "nonpositive-ratio: ratio <= 0"),
        ("2014-06-09", "A", "-7:-1", "nonpositive-ratio: ratio <= 0"),
        ("2014-06-09", "A", "1", "no-split: ratio is 1"),
        ("2014-06-09", "A", "10:10", "no-split: ratio is 1"),
    ],
)
def test_what_is_no_split_has_a_reason(day: str, symbol: str, ratio: str, reason: str) -> None:
    assert judge_split(day, symbol, ratio) == reason


BODY = "date,symbol,ratio\n2014-06-09,AAPL,7\n2021-08-02,GE,1:8\n"


@pytest.mark.parametrize(
    "data",
    [
        BODY.encode(),
        BODY.encode("utf-8-sig"),
        BODY.replace("\n", "\r\n").encode(),
        BODY.replace("\n", "\r").encode(),
        BODY.rstrip().encode(),
        b"\n\n" + BODY.encode() + b"\n  \n",
        b'Ratio,note, SYMBOL ,Date\n7,caf\xc3\xa9, AAPL,2014-06-09\n1:8,"a,b","GE",2021-08-02',
        gzip.compress(BODY.encode()),
    ],
    ids=["plain", "bom", "crlf", "cr", "no-end", "blank-lines", "other-columns", "gzip"],
)
def test_a_file_is_read_in_any_dress(here: Place, data: bytes) -> None:
    path = here.root / "a.csv"
    path.write_bytes(data)
    assert counts(here.run(path)) == (2, 2, 0, 0, 0, 0, 0)
    assert here.ledger.splits() == [AAPL, GE]


def test_columns_and_delimiter_are_stated(here: Place) -> None:
    path = here.csv("a.csv", "AAPL;09;2014-06-09;7", header="Ticker;Date;Ex Date;Factor")
    summary = here.run(path, delimiter=";", date="ex date", symbol="TICKER", ratio="Factor")
    assert counts(summary) == (1, 1, 0, 0, 0, 0, 0)
    assert here.ledger.splits() == [AAPL]
    (record,) = here.ledger.imports()
    assert json.loads(record.settings) == {
        "format": "actions",
        "delimiter": ";",
        "columns": {"date": "ex date", "symbol": "TICKER", "ratio": "Factor"},
    }


def test_folders_and_archives_hold_files(here: Place) -> None:
    folder = here.root / "actions"
    folder.mkdir()
    (folder / "a.csv").write_text("date,symbol,ratio\n2014-06-09,AAPL,7\n")
    (folder / "readme.md").write_text("no splits here")
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.writestr("one.csv", "date,symbol,ratio\n2021-08-02,GE,1:8\n")
        archive.writestr("two.csv", "date,symbol,ratio\n2021-08-02,GE,1:8\n")
    summary = here.run(folder)
    names = ["a.csv", "b.zip!one.csv", "b.zip!two.csv"]
    assert [file.path for file in summary.files] == [str(folder / name) for name in names]
    assert counts(summary) == (3, 2, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (bytes(range(256)) * 20, "not a CSV file"),
        (b"PAR1" + bytes(20), "a Parquet file"),
        (b"\xff\xfed\0a\0t\0e\0", "UTF-16"),
        (b"PK\x03\x04" + bytes(20), "cannot be unpacked"),
        (b"date,symbol,ration\n", "has no column 'ratio' (did you mean 'ration'?)"),
        (b"date;symbol;ratio\n", "--delimiter"),
        (b"date,Date,symbol,ratio\n", "the column 'date' more than once"),
        (b'date,"symbol,ratio\n', "quotes that do not match"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_read_fails_alone(here: Place, data: bytes, words: str) -> None:
    bad, good = here.root / "bad.csv", here.csv("good.csv", "2014-06-09,AAPL,7")
    bad.write_bytes(data)
    summary = here.run(bad, good)
    ((path, message),) = ((file.path, file.message) for file in summary.failed)
    assert path == str(bad)
    assert str(bad) in message
    assert words in message
    assert here.ledger.splits() == [AAPL]
    assert here.ledger.imports()[0].status == "failed"


def test_files_of_one_name_once_it_is_storable_are_told_apart(place: Place) -> None:
    """A byte that is no UTF-8, and the text that stands for it."""
    odd, plain = place.root / "n\udcff.csv", place.root / r"n\udcff.csv"
    for path, ratio in ((odd, "7"), (plain, "2")):
        path.write_text(f"date,symbol,ratio\n2014-06-09,AAPL,{ratio}\n2014-06-09,AAPL,x\n")
    summary = place.run(odd, plain)
    assert [file.path for file in summary.files] == [str(plain), f"{plain}//2"]
    assert [example.path for example in summary.examples] == [str(plain), f"{plain}//2"]
    assert place.ledger.rejects()["path"].to_list() == [str(plain), f"{plain}//2"]
    assert [split.ratio for split in place.ledger.splits()] == [2.0]
    assert place.run(odd, plain).duplicates == 2


def test_bytes_that_are_no_text_are_a_reject(here: Place) -> None:
    path = here.root / "a.csv"
    path.write_bytes(b"date,symbol,ratio\n2014-06-09,AAPL\xff,7\n2014-06-09,A\0,7\n")
    summary = here.run(path)
    assert summary.rejects_by_reason == {"bad-line: not UTF-8": 1, "bad-line: a NUL byte": 1}
    assert here.ledger.rejects()["raw"].to_list() == [
        "2014-06-09,AAPL\\xff,7",
        "2014-06-09,A\\x00,7",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ActionFormat(columns={"tme": "x"}), "'tme' is no field of a split"),
        (lambda: ActionFormat(columns={"dat": "x"}), "did you mean 'date'"),
        (lambda: ActionFormat(delimiter="7"), "cannot separate fields"),
        (lambda: ActionFormat().find([Path("absent.csv")]), "does not exist"),
    ],
)
def test_a_wrong_call_is_told(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize(
    "change",
    ["ratio = -7", "ratio = 0", "ratio = 9e999", "ratio = 'x'", "ratio = x'00'", "day = 9"],
)
def test_a_split_that_nobody_stored_is_damage(here: Place, change: str) -> None:
    path = here.csv("a.csv", "2014-06-09,AAPL,7")
    here.run(path)
    with here.ledger._writing() as connection:
        connection.exec_driver_sql(f"UPDATE splits SET {change}")  # noqa: S608 -- by hand
    with pytest.raises(LedgerError, match="damaged"):
        here.ledger.splits()
    with pytest.raises(LedgerError):
        here.run(path)


def test_an_import_that_is_stopped_has_changed_nothing(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    path = here.csv("a.csv", "2014-06-09,AAPL,7", "x")
    with monkeypatch.context() as patch:
        patch.setattr(splits, "_add_changes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            here.run(path)
    assert here.ledger.splits() == []
    assert here.ledger.imports() == []
    assert here.ledger.reject_counts() == {}
    assert counts(here.run(path)) == (2, 1, 0, 0, 0, 1, 0)
