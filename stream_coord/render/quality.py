"""Quality rows and gaps, as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_coord.clock import format_moment
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.render.text import percent, plural, printable

_MISSING, _FILLED = "missing", "filled"
_KINDS = {"session": "whole session", "before_first": "before first bar"}
_MANY_COLUMNS = 9
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
        "kind": gap.kind,
        "source": gap.source,
        "tries": gap.tries,
        "last_try": None if gap.last_try is None else format_moment(gap.last_try),
    }


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a plain table; the columns of `right` are set flush right."""
    # Many columns move closer together, under titles of several lines, to fit into 80 characters.
    many = len(columns) >= _MANY_COLUMNS
    table = Table(box=None, pad_edge=False, collapse_padding=many)
    for column in columns:
        title = column.replace(" ", "\n") if many else column
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(title, justify=justify, overflow="fold")
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
    # What is zero in all rows, as it is before anybody has asked a source, has no column.
    states = ("no_trade", "unresolved")
    explained = [name for name in states if any(getattr(row, name) for row in below)]
    titles = [state_words(name).capitalize() for name in explained]
    numbers = ("Expected", "Present", "Missing", *titles, "Quality %", "Coverage %")
    table = new_table("Symbol", "Session", *numbers, right=numbers)
    for row in below[:shown]:
        counts = [row.expected, row.present, row.missing, *(getattr(row, n) for n in explained)]
        table.add_row(
            row.symbol,
            row.session,
            *(f"{count:,}" for count in counts),
            percent(row.quality),
            percent(row.coverage),
        )
    return Group(heading(f"{summary}; the others, worst first:"), table, *_rest(len(below) - shown))


def gaps_table(gaps: Sequence[GapRow], zone: ZoneInfo, shown: int = _SHOWN) -> RenderableType:
    """Return the gaps, longest first and filled ones last, in the exchange's time."""
    if not gaps:
        return heading("No gaps.")
    of_kinds = any(gap.kind in _KINDS for gap in gaps)
    of_sources = any(gap.source is not None for gap in gaps)
    columns = ["Symbol", "Session", "From", "Until", "Minutes", "State"]
    columns += ["Kind"] * of_kinds + ["Source"] * of_sources
    table = new_table(*columns, right=("Minutes",))
    for gap in sorted(gaps, key=_gap_order)[:shown]:
        cells = [
            gap.symbol,
            gap.session,
            _time_of_day(gap.start, gap, zone),
            _time_of_day(gap.end, gap, zone),
            f"{gap.minutes:,}",
            state_words(gap.state),
        ]
        cells += [_KINDS.get(gap.kind, "")] * of_kinds
        cells += [source_name(gap.source or "")] * of_sources
        table.add_row(*map(printable, cells))
    return Group(heading(_gaps_title(gaps, zone)), table, *_rest(len(gaps) - shown))


def state_words(state: str) -> str:
    """Return a gap's state as people read it.

    >>> state_words("no_trade")
    'no trade'
    """
    return state.replace("_", " ")


def source_name(identity: str) -> str:
    """Return the name of a source within its identity.

    >>> source_name("backup: store delta:../other/bars")
    'backup'
    """
    return identity.partition(": ")[0]


def _gap_order(gap: GapRow) -> tuple[bool, int, int, str]:
    return (gap.state == _FILLED, -gap.minutes, gap.start, gap.symbol)


def _gaps_title(gaps: Sequence[GapRow], zone: ZoneInfo) -> str:
    minutes: Counter[str] = Counter()
    for gap in gaps:
        minutes[gap.state] += gap.minutes
    title = f"{plural(len(gaps), 'gap')} of {plural(minutes.total(), 'minute')}"
    if set(minutes) == {_MISSING}:
        return f"{title}, longest first ({zone.key}):"
    states = ", ".join(f"{minutes[state]:,} {state_words(state)}" for state in sorted(minutes))
    order = "longest first, filled ones last" if _FILLED in minutes else "longest first"
    return f"{title} ({states}), {order} ({zone.key}):"


def heading(text: str) -> Text:
    """Return the line above a table."""
    return Text(text, style="bold")


def _time_of_day(micros: int, gap: GapRow, zone: ZoneInfo) -> str:
    """Return the exchange's time, with its date where that is not the session's."""
    day, time = format_moment(micros, zone)[:16].split()
    return time if day == gap.session else f"{day} {time}"


def _rest(count: int) -> list[Text]:
    return [Text(f"... and {count:,} more; --json has them all.")] if count > 0 else []
