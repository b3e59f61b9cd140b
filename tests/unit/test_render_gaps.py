"""What `sc fill-gaps`, `sc report` and `sc replay` print of gaps, drawn on a console."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console, RenderableType

from stream_coord.calendars import Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.coordinator import Replay, ReplayedSession
from stream_coord.filling import StoreFilling
from stream_coord.interval import MINUTE
from stream_coord.render.gaps import fill_json, fill_text, interrupted_text
from stream_coord.render.quality import gap_json, gaps_table, quality_table
from stream_coord.render.replay import replay_json, replay_text
from stream_coord.runs import RecordedRun
from stream_coord.stores.ledger import Disagreement, SourceCall
from stream_coord.upkeep.fill import FillSummary

if TYPE_CHECKING:
    from stream_coord.calendars import Calendar
    from stream_coord.opening import Plan
    from stream_coord.session.quality import SessionQuality

OPEN = parse_moment("2018-11-23T14:30:00Z")
SESSION = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 210 * MINUTE, "regular"),))
ZONE = ZoneInfo("America/New_York")
CALENDAR = cast("Calendar", SimpleNamespace(name="NYSE", hours="regular", zone=ZONE))
PLAN = cast(
    "Plan",
    SimpleNamespace(
        sessions=(SESSION,), universe=SimpleNamespace(symbols=("A", "B")), calendar=CALENDAR
    ),
)
ODD = "[b]bad[/x]\x1b[31m: store delta:[/b]"
"""The identity of a source that is markup for Rich, and colour for a terminal."""


def gap(first: int, minutes: int, state: str = "missing") -> GapRow:
    start = OPEN + first * MINUTE
    return GapRow("A", "2018-11-23", start, start + minutes * MINUTE, minutes, state)


PRICES = (10.0, 11.0, 9.0, 10.5, 100.0)
FILLED = replace(gap(0, 9, "filled"), source=ODD, last_try=OPEN + 300 * MINUTE)


def lines(drawing: RenderableType) -> list[str]:
    """Return each line with one space between its words."""
    file = StringIO()
    Console(file=file, width=160, markup=False, emoji=False, highlight=False).print(drawing)
    assert "\x1b" not in file.getvalue()
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


# -- gaps as such --------------------------------------------------------------------------------


def test_a_gap_as_json_has_its_state_kind_source_and_tries() -> None:
    assert gap_json(FILLED) == {
        "symbol": "A",
        "session": "2018-11-23",
        "start": "2018-11-23 14:30:00Z",
        "end": "2018-11-23 14:39:00Z",
        "minutes": 9,
        "state": "filled",
        "kind": "minutes",
        "source": ODD,
        "tries": 0,
        "last_try": "2018-11-23 19:30:00Z",
    }
    never = gap_json(replace(gap(0, 1), kind="session", tries=3))
    assert (never["kind"], never["source"], never["tries"], never["last_try"]) == (
        "session",
        None,
        3,
        None,
    )


def test_plain_gaps_are_listed_without_columns_that_would_be_empty() -> None:
    assert lines(gaps_table([gap(20, 1), gap(0, 2)], ZONE)) == [
        "2 gaps of 3 minutes, longest first (America/New_York):",
        "Symbol Session From Until Minutes State",
        "A 2018-11-23 09:30 09:32 2 missing",
        "A 2018-11-23 09:50 09:51 1 missing",
    ]
    assert lines(gaps_table([], ZONE)) == ["No gaps."]


def test_states_kinds_and_sources_are_said_in_words_and_filled_ones_come_last() -> None:
    whole = replace(gap(0, 210), kind="session")
    early = replace(gap(0, 5, "no_trade"), kind="before_first")
    assert lines(gaps_table([FILLED, early, whole], ZONE)) == [
        "3 gaps of 224 minutes (9 filled, 210 missing, 5 no trade), longest first, filled ones "
        "last (America/New_York):",
        "Symbol Session From Until Minutes State Kind Source",
        "A 2018-11-23 09:30 13:00 210 missing whole session",
        "A 2018-11-23 09:30 09:35 5 no trade before first bar",
        r"A 2018-11-23 09:30 09:39 9 filled [b]bad[/x]\x1b[31m",
    ]


def test_quality_shows_explained_minutes_where_there_are_any() -> None:
    row = QualityRow("A", "2018-11-23", 210, 200, missing=3, no_trade=7)
    assert lines(quality_table([row]))[1:] == [
        "Symbol Session Expected Present Missing No trade Quality % Coverage %",
        "A 2018-11-23 210 200 3 7 95.23 98.57",
    ]
    assert lines(quality_table([replace(row, missing=10, no_trade=0)]))[1:] == [
        "Symbol Session Expected Present Missing Quality % Coverage %",
        "A 2018-11-23 210 200 10 95.23 95.23",
    ]


# -- sc fill-gaps ---------------------------------------------------------------------------------


def test_a_filling_is_summed_up_for_people() -> None:
    summary = FillSummary(
        minutes_missing=20,
        filled=9,
        no_trade=6,
        still_missing=5,
        skipped=6,
        by_source={ODD: 9},
        differences=[
            Disagreement("A", OPEN + n * MINUTE, ODD, "two: csv", PRICES, (*PRICES[:4], 99.0))
            for n in (0, 1)
        ],
        gaps=[FILLED, gap(30, 5)],
    )
    said = lines(fill_text(StoreFilling(4, summary), PLAN))
    assert said[0] == (
        "Filled 9 of 20 missing minutes (run 4): 1 session from 2018-11-23 to 2018-11-23, "
        "2 symbols, NYSE."
    )
    assert [line.split()[0] for line in said[3:7]] == ["filled", "no", "missing", "all"]
    assert said[6] == "all 20 14 of them were asked for; --reopen asks for all"
    assert r"[b]bad[/x]\x1b[31m: store delta:[/b] 9" in said
    at = said.index("Sources have different bars of 2 minutes: the ledger keeps both.")
    assert said[at + 2 : at + 4] == [
        r"A 2018-11-23 09:30 [b]bad[/x]\x1b[31m 10 11 9 10.5 100",
        "two 10 11 9 10.5 99",
    ]
    assert "2 gaps of 14 minutes (9 filled, 5 missing), longest" in "\n".join(said)


@pytest.mark.parametrize(
    ("run", "missing", "words"),
    [
        (None, 3, "A dry run would fill 3 of 3 missing minutes, and has changed nothing: 1 se"),
        (None, 0, "No minute is missing: 1 se"),
        (1, 1, "Filled 1 of 1 missing minute (run 1): 1 se"),
    ],
)
def test_the_headline_says_what_was_done(run: int | None, missing: int, words: str) -> None:
    summary = FillSummary(minutes_missing=missing, filled=missing, gaps=[FILLED])
    said = lines(fill_text(StoreFilling(run, summary), PLAN))
    assert said[0].startswith(words)
    # Where nothing was missing, what earlier runs filled is not listed for ever.
    assert any("1 gap of 9 minutes" in line for line in said) is bool(missing)


def test_a_dry_run_has_no_run_and_says_so() -> None:
    dry = fill_json(StoreFilling(None, FillSummary(failures=["x: down"], gaps=[FILLED])))
    assert (dry["run"], dry["dry_run"], dry["failures"]) == (None, True, ["x: down"])
    assert dry["gaps"] == [gap_json(FILLED)]
    assert fill_json(StoreFilling(7, FillSummary()))["dry_run"] is False


def test_an_interrupt_says_what_stays() -> None:
    assert "1,234 minutes are filled and stay" in interrupted_text(1_234)
    assert "1 minute is filled and stays" in interrupted_text(1)
    assert "before any minute was filled" in interrupted_text(0)


# -- sc replay -----------------------------------------------------------------------------------


def replayed(row: QualityRow, *gaps: GapRow) -> RecordedRun:
    quality = SimpleNamespace(rows=lambda: iter([row]), gaps=lambda: iter(gaps))
    filled = {gap.source: gap.minutes for gap in gaps if gap.source is not None}
    session = ReplayedSession(
        SESSION, "d" * 32, "v" * 32, 200, 40, 9, 0, cast("SessionQuality", quality), filled
    )
    return RecordedRun(3, Replay(sessions=[session]))


def call(error: str | None) -> SourceCall:
    return SourceCall(ODD, OPEN, 0.1, 1, 9, 0, "answered" if error is None else "failed", error)


def test_a_replay_tells_who_filled_what_and_who_failed() -> None:
    row = QualityRow("A", "2018-11-23", 210, 209, missing=1, filled=9)
    run = replayed(row, FILLED, gap(100, 1))
    calls = [call("first"), call(None), call("[bold]last[/bold]")]
    document = replay_json(run, calls)
    assert (document["derived_bars"], document["updates"]) == (40, 9)
    assert document["by_source"] == {ODD: 9}
    assert document["failures"] == [f"{ODD} failed 2 times, the last time: [bold]last[/bold]"]
    said = lines(replay_text(run, CALENDAR, calls))
    assert said[0].endswith("regular hours: 200 bars, 40 derived bars, 9 updates.")
    name = r"[b]bad[/x]\x1b[31m: store delta:[/b]"
    assert f"9 minutes filled from {name}." in said
    assert f"Failed: {name} failed 2 times, the last time: [bold]last[/bold]" in said
    assert "Session Bars Expected Missing Filled Quality % Digest" in said
    assert "2018-11-23 200 210 1 9 99.52 dddddddddddd" in said


def test_minutes_without_a_trade_are_not_missing_ones_of_a_replay() -> None:
    run = replayed(QualityRow("A", "2018-11-23", 210, 200, missing=0, no_trade=10))
    said = lines(replay_text(run, CALENDAR))
    assert "Session Bars Expected Missing No trade Quality % Digest" in said
    assert "2018-11-23 200 210 0 10 95.23 dddddddddddd" in said
    assert replay_json(run)["failures"] == []
