"""Bad input through the installed command: clear words, the right exit code, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD_ROW = "SPY,2013-10-04 09:30,1,1,1,1,1"
HEADER = "symbol,time,open,high,low,close,volume"
STATED = ("--tz", "America/New_York", "--label", "open")


@pytest.fixture
def place(sc: Callable[..., Any], tmp_path: Path) -> Path:
    """Return a folder with settings and one stored bar."""
    sc("init")
    (tmp_path / "good.csv").write_text(f"{HEADER}\n{GOOD_ROW}\n")
    assert sc("import", "good.csv", *STATED).code == 0
    return tmp_path


def stored_bars(sc: Callable[..., Any]) -> int:
    replay = sc("replay", "--session", "2013-10-04", "--json")
    assert replay.code == 0, replay.err
    bars: int = replay.document["bars"]
    return bars


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"symbol,time,open,high,low,close,vol\nSPY,2013-10-04 09:30,1,1,1,1,1\n", "'vol'"),
        (bytes(range(256)) * 20, "not a CSV file"),
    ],
    ids=["missing", "empty", "wrong-columns", "binary"],
)
def test_a_file_that_is_no_bars_is_named_and_changes_nothing(
    sc: Callable[..., Any], place: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (place / "bad.csv").write_bytes(content)
    answer = sc("import", "bad.csv", *STATED)
    assert answer.code in {1, 2}
    assert "bad.csv" in answer.err
    assert words in answer.err
    assert stored_bars(sc) == 1


def test_bad_rows_are_rejected_with_reasons_and_the_others_stored(
    sc: Callable[..., Any], place: Path
) -> None:
    rows = [
        "SPY,2013-10-04 09:40,1,1,1,1,1",
        "SPY,2013-10-04 09:31,nan,1,1,1,1",
        "SPY,2013-10-04 09:32,1,inf,1,1,1",
        "SPY,2013-10-04 09:33,1,1e400,1,1,1",
        "SPY,2013-10-04 09:34,1,1,2,1,1",
        "SPY,2013-10-04 09:35:30,1,1,1,1,1",
        "SPY,2013-10-04 09:36,1,1,1,1,-1",
        "../../etc/x,2013-10-04 09:33,1,1,1,1,1",
        "*,2013-10-04 09:33,1,1,1,1,1",
        "BRK[/B],2013-10-04 09:33,1,1,1,1,1",
        "x'; DROP TABLE bars;--,2013-10-04 09:33,1,1,1,1,1",
        "SPY,2013-10-04",
        "SPY,2013-10-04 09:38,1,1,1,1,1",
    ]
    (place / "mixed.csv").write_text("\n".join([HEADER, *reversed(rows)]) + "\n")
    answer = sc("import", "mixed.csv", *STATED, "--json")
    assert answer.code == 0, answer.err
    document = answer.document
    assert (document["rows"], document["stored"], document["rejected"]) == (13, 2, 11)
    assert sum(document["rejects_by_reason"].values()) == 11
    assert stored_bars(sc) == 3
    shown = sc("import", "mixed.csv", *STATED)
    assert "x'; DROP TABLE bars;--,2013-10-04 09:33" in shown.out


@pytest.mark.parametrize("symbol", ["../../etc/x", "*", "BRK[/B]", "x'; DROP TABLE bars;--", ""])
def test_a_text_that_is_no_symbol_is_printed_as_it_is(
    sc: Callable[..., Any], place: Path, symbol: str
) -> None:
    answer = sc("replay", "--session", "2013-10-04", "--symbols", symbol)
    assert answer.code == 2
    assert repr(symbol) in answer.err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("x=" + "[" * 3000 + "]" * 3000, "nested"),
        ("x=" + "9" * 6000, "64 bits"),
        ('symbls = ["SPY"]', "did you mean 'symbols'"),
        ("symbols = 3", "list"),
        ('[calendar]\nhours = "all"', "regular"),
        ("[store\n", "sc.toml"),
    ],
    ids=["nesting", "digits", "unknown-key", "wrong-type", "impossible", "no-toml"],
)
def test_bad_settings_name_file_key_and_what_is_allowed(
    sc: Callable[..., Any], place: Path, settings: str, words: str
) -> None:
    (place / "sc.toml").write_text(settings)
    answer = sc("replay")
    assert answer.code == 2
    assert "sc.toml" in answer.err
    assert words in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("replay", "--session", "2013-10-05"), 2, "2013-10-07"),
        (("replay", "--session", "2013-10-08"), 1, "no 1m bars"),
        (("replay", "--session", "2013-10-04", "--symbols", "QQQ"), 1, "QQQ"),
        (("replay", "--session", "04.10.2013"), 2, "YYYY-MM-DD"),
        (("replay", "--from", "2013-10-08", "--to", "2013-10-07"), 2, "earlier date first"),
        (("replay", "--session", "2013-10-04", "--from", "2013-10-04"), 2, "one or the other"),
        (("replay", "--strategy", "nothing.py:Mine"), 2, "nothing.py"),
        (("replay", "--strategy", "nothing"), 2, "module:Class"),
        (("replay", "--now", "noon"), 2, "offset"),
        (("replay", "--set", "calendar.name=NYSSE"), 2, "'NYSE'"),
        (("report", "--fail-under", "101"), 2, "0 to 100"),
        (("report", "--metric", "beauty"), 2, "coverage"),
        (("import", "good.csv"), 2, "--label"),
        (("import", "good.csv", "--label", "open"), 2, "--tz"),
        (("import", "good.csv", *STATED, "--format", "cvs"), 2, "'csv'"),
        (("init",), 2, "exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call_says_what_is_right(
    sc: Callable[..., Any], place: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    answer = sc(*arguments)
    assert answer.code == code
    assert words in answer.err
    assert not answer.out


def test_without_settings_the_first_step_is_named(sc: Callable[..., Any]) -> None:
    answer = sc("replay")
    assert answer.code == 2
    assert "sc init" in answer.err
