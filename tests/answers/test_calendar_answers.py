"""Sessions against answers that none of our code computed.

- ``calendar_sessions.csv``: written by hand from the exchanges' published hours, in UTC.
- The session tables that the exchange_calendars project publishes for its own tests (folder
  ``answers`` of the real data). ``calendar_differences.csv`` lists every session in which
  pandas-market-calendars says something else, and why; both sides in exchange-local time.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from stream_coord.calendars import Session, open_calendar
from stream_coord.clock import from_micros, to_micros
from stream_coord.errors import CalendarError
from stream_coord.interval import MINUTE, Interval

HERE = Path(__file__).parent
TABLES = Path(os.environ.get("SC_REAL_DATA", HERE.parents[2] / "shared" / "data")) / "answers"

TABLE_OF = {
    "NYSE": "xnys",
    "HKEX": "xhkg",
    "JPX": "xtks",
    "LSE": "xlon",
    "CME_Equity": "cmes",
    "24/7": "24-7",
}

# Before these days only the dates are compared, because the two sides do not mean the same hours:
# the library has today's HKEX hours for all of the past, the table the 10:00 open until 2011-03-04;
# the library has CME's equity hours of 2005-09-12 to 2012-11-16 (15:30 to 15:15) and, before them,
# those of later years, the table 17:00 to 17:00 throughout.
HOURS_COMPARED_FROM = {"HKEX": date(2011, 3, 7), "CME_Equity": date(2012, 11, 19)}

LAST_CME_PAUSE = date(2021, 6, 25)
"""Equity futures paused from 15:15 to 15:30 Chicago time up to this trade date."""

Spans = tuple[tuple[int, int], ...]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schedules")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text).astimezone(UTC))


def spans_of(session: Session) -> Spans:
    return tuple((segment.open, segment.close) for segment in session.segments)


def local_text(spans: Spans | None, zone: ZoneInfo) -> str:
    """Write spans as in the list of differences, for example ``09:30-12:00 13:00-16:00``."""
    clock = [
        [f"{from_micros(edge).astimezone(zone):%H:%M}" for edge in span] for span in spans or ()
    ]
    return " ".join("-".join(span) for span in clock) or "closed"


# --- written by hand -----------------------------------------------------------------------------

HAND_MADE = rows_of(HERE / "calendar_sessions.csv")


@pytest.mark.parametrize(
    ("name", "hours"), sorted({(r["calendar"], r["hours"]) for r in HAND_MADE})
)
def test_sessions_are_those_written_by_hand(name: str, hours: str, cache_dir: Path) -> None:
    """DST weeks, early closes, odd opens, lunch breaks, evening opens: segment by segment."""
    calendar = open_calendar(name, hours, cache_dir=cache_dir)
    expected = defaultdict(list)
    for row in HAND_MADE:
        if (row["calendar"], row["hours"]) == (name, hours):
            expected[date.fromisoformat(row["session"])].append(row)
    for day, rows in expected.items():
        if rows[0]["kind"] == "none":
            assert calendar.sessions(day, day) == ()
            with pytest.raises(CalendarError, match="no session"):
                calendar.session(day)
            continue
        session = calendar.session(day)
        segments = [(row["kind"], micros(row["open"]), micros(row["close"])) for row in rows]
        assert [(s.kind, s.open, s.close) for s in session.segments] == segments, day
        minutes = dict.fromkeys(("pre", "regular", "post"), 0)
        for row in rows:
            minutes[row["kind"]] += int(row["minutes"])
        grid, mask = session.grid(Interval(MINUTE)), session.regular_mask(Interval(MINUTE))
        assert (len(grid), mask.sum()) == (sum(minutes.values()), minutes["regular"]), day


# --- the published tables ------------------------------------------------------------------------


def read_table(name: str, zone: ZoneInfo) -> dict[date, Spans]:
    path = TABLES / f"{TABLE_OF[name]}.csv"
    if not path.exists():
        pytest.skip(f"the published session tables are not at {TABLES} (set SC_REAL_DATA)")
    sessions = {}
    for row in rows_of(path):
        day = date.fromisoformat(row[""][:10])
        edges = [micros(row[k]) for k in ("open", "break_start", "break_end", "close") if row[k]]
        if name == "CME_Equity":
            edges = as_cme_equity(day, edges, zone)
        sessions[day] = tuple(zip(edges[::2], edges[1::2], strict=True))
    return sessions


def as_cme_equity(day: date, edges: list[int], zone: ZoneInfo) -> list[int]:
    """Turn a session of all CME products into one of equity products, by their published hours.

    The table lets a session run until the next one opens, 17:00 in Chicago. Equity products close
    at 16:00, and until `LAST_CME_PAUSE` they paused before it. Holiday closes mean the same.
    """
    opened, closed = edges
    if from_micros(closed).astimezone(zone).hour != 17:
        return edges
    close = closed - 60 * MINUTE
    if day > LAST_CME_PAUSE:
        return [opened, close]
    return [opened, close - 45 * MINUTE, close - 30 * MINUTE, close]


def differences(
    name: str, ours: Mapping[date, Spans], table: Mapping[date, Spans], zone: ZoneInfo
) -> dict[str, tuple[str, str]]:
    """Return each date on which the two sides differ, with both sides as text."""
    since = HOURS_COMPARED_FROM.get(name, date.min)
    return {
        str(day): (local_text(ours.get(day), zone), local_text(table.get(day), zone))
        for day in sorted(ours.keys() | table.keys())
        if ours.get(day) != table.get(day) and (day >= since or (day in ours) != (day in table))
    }


@pytest.mark.parametrize("name", TABLE_OF)
def test_sessions_are_those_of_the_published_table_but_for_the_listed_ones(
    name: str, cache_dir: Path
) -> None:
    calendar = open_calendar(name, cache_dir=cache_dir)
    table = read_table(name, calendar.zone)
    ours = {s.date: spans_of(s) for s in calendar.sessions(min(table), max(table))}
    assert len(table) > 360
    listed = [r for r in rows_of(HERE / "calendar_differences.csv") if r["calendar"] == name]
    expected = {row["session"]: (row["library"], row["table"]) for row in listed}
    assert differences(name, ours, table, calendar.zone) == expected
    assert all(row["reason"] for row in listed)
