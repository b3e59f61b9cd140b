"""`sc fill-gaps` on the sample bars: with their truth file, and after a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream_coord.calendars import open_calendar
from stream_coord.interval import Interval
from stream_coord.stores import open_store

ONE_MINUTE = Interval.parse("1m")


@pytest.fixture
def demo(sc: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """Make and import the sample bars; return their truth."""
    assert sc("init", "--demo", "--quiet").code == 0
    truth: dict[str, Any] = json.loads((tmp_path / "sample/truth.json").read_text())
    stated = ("--tz", truth["time_zone"], "--label", truth["label"], "--quiet")
    for folder in ("bars", "corrections"):
        assert sc("import", f"sample/{folder}", *stated).code == 0
    return truth


def test_every_planted_gap_is_found_and_nothing_else(
    sc: Callable[..., Any], demo: dict[str, Any]
) -> None:
    names = ("symbol", "session", "start", "minutes")
    planted = {
        tuple(gap[name] for name in names): gap["kind"]
        for gap in demo["gaps"]
        if gap["kind"] != "not-listed"  # before its first bar a symbol owes none, unless asked for
    }
    document = sc("fill-gaps", "--dry-run", "--json").document
    for gaps in (document["gaps"], sc("report", "--json").document["gaps"]):
        found = {tuple(gap[name] for name in names): gap["kind"] for gap in gaps}
        assert len(found) == len(gaps)
        assert set(found) == set(planted)
        whole = {key for key, kind in planted.items() if kind == "session"}
        assert {key for key, kind in found.items() if kind == "session"} == whole
    assert document["minutes_missing"] == sum(key[3] for key in planted)


def test_a_thousand_minutes_that_are_lost_are_brought_back(
    sc: Callable[..., Any], demo: dict[str, Any], tmp_path: Path
) -> None:
    store = open_store("delta:data/bars", tmp_path)
    days = store.days(ONE_MINUTE)
    span = (ONE_MINUTE, days[0], days[-1])
    sessions = open_calendar("NYSE", "regular", {}, cache_dir=tmp_path / ".sc").sessions(
        days[0], days[-1]
    )
    every = store.read(ONE_MINUTE, demo["symbols"], 0, sessions[-1].end + 10**12)
    regular = pl.concat(
        every.filter(pl.col("start").is_between(each.open, each.close, closed="left"))
        for each in sessions
    )
    lost = regular.sample(1_000, seed=7)
    holed = open_store("delta:holed", tmp_path, create=True)
    holed.write(ONE_MINUTE, every.join(lost, on=["symbol", "start"], how="anti"))
    assert holed.versions(*span)["rows"].sum() == store.versions(*span)["rows"].sum() - 1_000

    others = ("--set", "store.url=delta:holed", "--set", "ledger.url=sqlite:///holed.db", "--json")
    source = 'sources=[{name="all",kind="store",url="delta:data/bars"}]'
    document = sc("fill-gaps", *others, "--set", source).document
    assert document["filled"] == 1_000
    assert sum(gap["minutes"] for gap in document["gaps"] if gap["state"] == "filled") == 1_000
    assert holed.versions(*span).equals(store.versions(*span))
    replay = ("replay", "--from", str(sessions[0].date), "--to", str(sessions[-1].date))
    assert sc(*replay, *others).document["digest"] == sc(*replay, "--json").document["digest"]
