"""Quality rows and gaps, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_coord.clock import format_moment
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.render.text import percent, plural

_SHOWN = 20
"""Rows of a table before the rest is summed up in a line."""


def quality_json(row: QualityRow) -> dict[str, object]:
    """Return a row with the keys that scripts rely on; percentages are not rounded."""
    return {
        "symbol": row.symbol,
        "session": row.session,
        "expected": row.expected,
        "present": row.present,
        "missing": row.missing,
        "no_trade": row.no_trade,
        "unresolved": row.unresolved,
        "filled": row.filled,
        "quality": row.quality,
        "coverage": row.coverage,
    }


def gap_json(gap: GapRow) -> dict[str, object]:
    """Return a gap; times are UTC."""
    return {
        "symbol": gap.symbol,
        "session": gap.session,
        "start": format_moment(gap.start),
        "end": format_moment(gap.end),
        "minutes": gap.minutes,
        "state": gap.state,
    }


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a plain table; the columns of `right` are set flush right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def quality_table(rows: Sequence[QualityRow], shown: int = _SHOWN) -> RenderableType:
    """Return the incomplete symbol-sessions, worst first, and how many are whole."""
    if not rows:
        return Text("No symbol-session is expected.")
    below = sorted(
        (row for row in rows if row.quality is not None and row.present < row.expected),
        key=lambda row: (row.quality or 0.0, row.session, row.symbol),
    )
    whole = sum(row.expected > 0 and row.present == row.expected for row in rows)
    summary = f"{whole:,} of {plural(len(rows), 'symbol-session')} complete"
    if not below:
        return heading(f"{summary}.")
    numbers = ("Expected", "Present", "Missing", "Quality %", "Coverage %")
    table = new_table("Symbol", "Session", *numbers, right=numbers)
    for row in below[:shown]:
        table.add_row(
            row.symbol,
            row.session,
            f"{row.expected:,}",
            f"{row.present:,}",
            f"{row.missing:,}",
            percent(row.quality),
            percent(row.coverage),
        )
    return Group(heading(f"{summary}; the others, worst first:"), table, *_rest(len(below) - shown))


def gaps_table(gaps: Sequence[GapRow], zone: ZoneInfo, shown: int = _SHOWN) -> RenderableType:
    """Return the gaps, longest first, in the exchange's time."""
    if not gaps:
        return heading("No gaps.")
    minutes = sum(gap.minutes for gap in gaps)
    title = (
        f"{plural(len(gaps), 'gap')} of {plural(minutes, 'minute')}, longest first ({zone.key}):"
    )
    columns = ("Symbol", "Session", "From", "Until", "Minutes", "State")
    table = new_table(*columns, right=("Minutes",))
    for gap in sorted(gaps, key=lambda gap: (-gap.minutes, gap.start, gap.symbol))[:shown]:
        table.add_row(
            gap.symbol,
            gap.session,
            _time_of_day(gap.start, gap, zone),
            _time_of_day(gap.end, gap, zone),
            f"{gap.minutes:,}",
            gap.state,
        )
    return Group(heading(title), table, *_rest(len(gaps) - shown))


def heading(text: str) -> Text:
    """Return the line above a table."""
    return Text(text, style="bold")


def _time_of_day(micros: int, gap: GapRow, zone: ZoneInfo) -> str:
    """Return the exchange's time, with its date where that is not the session's."""
    day, time = format_moment(micros, zone)[:16].split()
    return time if day == gap.session else f"{day} {time}"


def _rest(count: int) -> list[Text]:
    return [Text(f"... and {count:,} more; --json has them all.")] if count > 0 else []
