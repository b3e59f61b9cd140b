"""The sample bars through the installed command, held against their truth file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def demo(sc: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """Make and import the sample bars; return the truth, with what each import said."""
    assert sc("init", "--demo").code == 0
    truth: dict[str, Any] = json.loads((tmp_path / "sample/truth.json").read_text())
    stated = ("--tz", truth["time_zone"], "--label", truth["label"], "--json")
    truth["said"] = {
        name: sc("import", f"sample/{name}", *stated).document for name in ("bars", "corrections")
    }
    return truth


def test_imports_account_for_every_planted_row(demo: dict[str, Any]) -> None:
    for name, planted in demo["imports"].items():
        said = demo["said"][name]
        assert {key: said[key] for key in planted} == planted


def test_the_report_finds_every_planted_gap_and_nothing_else(
    sc: Callable[..., Any], demo: dict[str, Any]
) -> None:
    report = sc("report", "--json").document
    found = {
        (gap["symbol"], gap["session"], gap["start"], gap["minutes"]) for gap in report["gaps"]
    }
    planted = {
        (gap["symbol"], gap["session"], gap["start"], gap["minutes"])
        for gap in demo["gaps"]
        if gap["kind"] != "not-listed"  # before its first bar a symbol owes none, unless asked for
    }
    assert found == planted
    assert sum(report["rejects"].values()) == len(demo["rejects"])
    assert report["revisions"]["revised"] == len(demo["revisions"])
    rows = {(row["symbol"], row["session"]): row for row in report["rows"]}
    unlisted = {(g["symbol"], g["session"]) for g in demo["gaps"] if g["kind"] == "not-listed"}
    for truth in demo["symbol_sessions"]:
        key = truth["symbol"], truth["session"]
        if key in unlisted:
            assert key not in rows
            continue
        row = rows[key]
        assert (row["expected"], row["present"]) == (truth["expected"], truth["present"])


def test_a_listed_symbol_owes_its_minutes_before_its_first_bar_too(
    sc: Callable[..., Any], demo: dict[str, Any]
) -> None:
    unlisted = [gap for gap in demo["gaps"] if gap["kind"] == "not-listed"]
    symbol, session = unlisted[0]["symbol"], unlisted[0]["session"]
    span = ("--from", session, "--to", session, "--symbols", symbol)
    (row,) = sc("report", *span, "--json").document["rows"]
    assert (row["expected"], row["present"], row["quality"]) == (390, 0, 0)


def test_a_threshold_fails_the_run_and_names_what_missed_it(
    sc: Callable[..., Any], demo: dict[str, Any]
) -> None:
    assert sc("report", "--fail-under", "0").code == 0
    answer = sc("report", "--fail-under", "99.99", "--quiet")
    assert answer.code == 1
    assert not answer.out
    hole = next(gap for gap in demo["gaps"] if gap["kind"] != "not-listed")
    assert f"{hole['symbol']} {hole['session']}" in answer.err
