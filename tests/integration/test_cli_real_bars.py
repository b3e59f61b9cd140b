"""The installed command on real minute bars; the numbers were counted without our code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NEW_YORK_SYMBOLS = ("spy", "aig", "bac", "ibm")
MISSING = {
    ("IBM", "2013-10-04"): "2013-10-04 16:39:00Z",
    ("AIG", "2013-10-07"): "2013-10-07 17:47:00Z",
    ("IBM", "2013-10-11"): "2013-10-11 16:46:00Z",
}


def lines_of(folder: Path) -> int:
    """Count the lines of all zip members below a folder with the standard library alone."""
    from zipfile import ZipFile

    total = 0
    for path in folder.glob("*.zip"):
        with ZipFile(path) as archive:
            total += sum(len(archive.read(name).splitlines()) for name in archive.namelist())
    return total


@pytest.fixture
def six_sessions(sc: Callable[..., Any], real_bars: Path) -> dict[str, Any]:
    """Import SPY, AIG, BAC and IBM of 2013-10-04..11; return the import's document."""
    folders = [real_bars / "equity/usa/minute" / symbol for symbol in NEW_YORK_SYMBOLS]
    assert sc("init").code == 0
    answer = sc("import", *folders, "--format", "lean", "--json")
    assert answer.code == 0, answer.err
    document: dict[str, Any] = answer.document
    assert document["rows"] == sum(map(lines_of, folders))
    return document


def test_every_line_of_the_real_files_is_stored_and_again_a_duplicate(
    sc: Callable[..., Any], six_sessions: dict[str, Any], real_bars: Path
) -> None:
    assert six_sessions["stored"] == six_sessions["rows"]
    assert six_sessions["rejected"] == six_sessions["duplicates"] == six_sessions["revised"] == 0
    again = sc("import", real_bars / "equity/usa/minute/spy", "--format", "lean", "--json").document
    assert again["duplicates"] == again["rows"]
    assert again["stored"] == again["revised"] == again["rejected"] == 0


def test_six_regular_sessions_lack_just_the_three_minutes_that_the_files_lack(
    sc: Callable[..., Any], six_sessions: dict[str, Any]
) -> None:
    answer = sc("replay", "--from", "2013-10-04", "--to", "2013-10-11", "--json")
    assert answer.code == 0, answer.err
    replay = answer.document
    assert (replay["sessions"], replay["bars"]) == (6, 6 * 4 * 390 - 3)
    assert len(replay["quality"]) == 24
    for row in replay["quality"]:
        missing = (row["symbol"], row["session"]) in MISSING
        assert row["expected"] == 390
        assert row["missing"] == int(missing)
        assert row["quality"] == pytest.approx(100 * 389 / 390 if missing else 100)
    report = sc("report", "--json").document
    found = {(gap["symbol"], gap["session"]): gap["start"] for gap in report["gaps"]}
    assert found == MISSING
    assert [run["digest"] for run in report["runs"]] == [replay["digest"]]


def test_extended_hours_stream_more_and_expect_the_same(
    sc: Callable[..., Any], six_sessions: dict[str, Any]
) -> None:
    span = ("--from", "2013-10-04", "--to", "2013-10-11", "--json")
    replay = sc("replay", *span, "--set", "calendar.hours=extended").document
    assert replay["bars"] == six_sessions["rows"]
    assert {row["expected"] for row in replay["quality"]} == {390}


def test_digest_is_the_same_in_any_process_and_with_a_strategy(
    sc: Callable[..., Any], six_sessions: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Count(Strategy):\n"
        "    def __init__(self): self.n = 0; self.total = 0.0\n"
        "    def on_bar(self, bar): self.n += 1; self.total += bar.close\n"
        "    def result(self): return {'n': self.n, 'total': self.total}\n"
    )
    span = ("replay", "--from", "2013-10-04", "--to", "2013-10-11", "--json")
    plain = sc(*span, PYTHONHASHSEED="0", POLARS_MAX_THREADS="1").document
    other = sc(*span, PYTHONHASHSEED="1", POLARS_MAX_THREADS="4").document
    acted = sc(*span, "--strategy", "mine.py:Count").document
    assert plain["digest"] == other["digest"] == acted["digest"]
    assert acted["result"]["n"] == plain["bars"]


def test_an_early_close_expects_half_a_day(sc: Callable[..., Any], real_bars: Path) -> None:
    sc("init")
    sc("import", real_bars / "equity/usa/minute/goog", "--format", "lean")
    (row,) = sc("replay", "--session", "2015-12-24", "--json").document["quality"]
    assert (row["expected"], row["present"]) == (210, 210)
    (row,) = sc("replay", "--session", "2015-12-28", "--json").document["quality"]
    assert (row["expected"], row["missing"]) == (390, 8)


def test_a_market_that_never_closes(sc: Callable[..., Any], real_bars: Path) -> None:
    sc("init")
    always = ("--set", "calendar.name=24/7", "--json")
    sc("import", real_bars / "crypto", "--format", "lean", *always)
    (row,) = sc("replay", "--session", "2018-04-04", *always).document["quality"]
    assert (row["expected"], row["present"]) == (1440, 1007)
    report = sc("report", "--from", "2018-04-04", "--to", "2018-04-04", *always).document
    assert sorted(gap["minutes"] for gap in report["gaps"]) == [1, 432]


def test_sessions_that_open_the_evening_before(sc: Callable[..., Any], real_bars: Path) -> None:
    sc("init")
    futures = ("--set", "calendar.name=CME_Equity", "--json")
    files = sc("import", real_bars / "future", "--format", "lean", *futures).document["files"]
    assert sum(file["out_of_session"] for file in files if "201312" in file["path"]) == 75
    span = ("--from", "2013-10-07", "--to", "2013-10-11", "--symbols", "ES.201312")
    rows = sc("replay", *span, *futures).document["quality"]
    assert [row["expected"] for row in rows] == [1365] * 5
    assert [row["present"] for row in rows] == [1333, 1351, 1361, 1348, 1358]


def test_six_sessions_from_three_kinds_of_store_have_one_digest(
    sc: Callable[..., Any], six_sessions: dict[str, Any], real_bars: Path, postgres_url: str
) -> None:
    """Imported into two, copied from one to the third; one has its ledger in PostgreSQL."""
    span = ("replay", "--from", "2013-10-04", "--to", "2013-10-11", "--json")
    delta = sc(*span).document
    folders = [real_bars / "equity/usa/minute" / symbol for symbol in NEW_YORK_SYMBOLS]
    sqlite = {"SC_STORE__URL": "sqlite:///bars.db"}
    imported = sc("import", *folders, "--format", "lean", "--json", **sqlite).document
    assert {name: imported[name] for name in ("rows", "stored", "rejected")} == {
        name: six_sessions[name] for name in ("rows", "stored", "rejected")
    }
    copied = sc("store", "copy", "sqlite:///bars.db", "${THERE}", "--json", THERE=postgres_url)
    assert copied.code == 0, copied.err
    assert copied.document["stored"] == six_sessions["rows"]
    postgres = {"SC_STORE__URL": postgres_url, "SC_LEDGER__URL": postgres_url}
    for environ in (sqlite, postgres):
        replayed = sc(*span, **environ).document
        assert replayed["digest"] == delta["digest"]
        assert replayed["bars"] == delta["bars"] == 6 * 4 * 390 - 3
        assert replayed["quality"] == delta["quality"]
