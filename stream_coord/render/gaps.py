"""What `sc fill-gaps` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.bars import FIELDS
from stream_coord.clock import format_moment
from stream_coord.filling import StoreFilling
from stream_coord.opening import Plan
from stream_coord.render.quality import gap_json, gaps_table, heading, new_table, source_name
from stream_coord.render.text import plural, printable
from stream_coord.stores.ledger import Disagreement
from stream_coord.stores.ledger.gaps import Values
from stream_coord.upkeep.fill import FillSummary

_DIFFERENCES_SHOWN = 10


def fill_json(done: StoreFilling) -> dict[str, object]:
    """Return the document of a filling, with the keys that scripts rely on."""
    summary = done.summary
    return {
        "run": done.run,
        "dry_run": done.run is None,
        "minutes_missing": summary.minutes_missing,
        "filled": summary.filled,
        "no_trade": summary.no_trade,
        "unresolved": summary.unresolved,
        "still_missing": summary.still_missing,
        "skipped": summary.skipped,
        "by_source": summary.by_source,
        "disagreements": summary.disagreements,
        "differences": [difference_json(each) for each in summary.differences],
        "failures": summary.failures,
        "gaps": [gap_json(gap) for gap in summary.gaps],
    }


def fill_text(done: StoreFilling, plan: Plan) -> RenderableType:
    """Return a filling for people."""
    summary = done.summary
    parts: list[RenderableType] = [Text(_headline(done, plan), style="bold")]
    if summary.minutes_missing:
        parts += [Text(), _states_table(summary)]
    if summary.by_source:
        parts += [Text(), _sources_table(done)]
    if summary.differences:
        parts += [Text(), *_differences(done, plan)]
    if summary.minutes_missing:  # what earlier runs filled is of interest no longer
        parts += [Text(), gaps_table(summary.gaps, plan.calendar.zone)]
    return Group(*parts)


def interrupted_text(filled: int) -> str:
    """Return what to say of a filling that was interrupted."""
    if not filled:
        return "Interrupted before any minute was filled; run it again."
    stay = "is filled and stays" if filled == 1 else "are filled and stay"
    return f"Interrupted: {plural(filled, 'minute')} {stay}; run it again to go on."


def _headline(done: StoreFilling, plan: Plan) -> str:
    summary, sessions = done.summary, plan.sessions
    where = (
        f"{plural(len(sessions), 'session')} from {sessions[0].date} to {sessions[-1].date}, "
        f"{plural(len(plan.universe.symbols), 'symbol')}, {plan.calendar.name}"
    )
    if not summary.minutes_missing:
        return f"No minute is missing: {where}."
    what = f"{summary.filled:,} of {plural(summary.minutes_missing, 'missing minute')}"
    if done.run is None:
        return f"A dry run would fill {what}, and has changed nothing: {where}."
    return f"Filled {what} (run {done.run}): {where}."


def _states_table(summary: FillSummary) -> RenderableType:
    asked = summary.minutes_missing - summary.skipped
    rows = (
        ("filled", summary.filled, ""),
        ("no trade", summary.no_trade, "all sources that cover them have answered, none has a bar"),
        ("unresolved", summary.unresolved, "given up after the last failed try"),
        ("missing", summary.still_missing, _why_missing(summary)),
    )
    table = new_table("", "Minutes", "", right=("Minutes",))
    for state, minutes, meaning in rows:
        if minutes:
            table.add_row(state, f"{minutes:,}", Text(meaning, style="dim"))
    skipped = f"{asked:,} of them were asked for; --reopen asks for all" if summary.skipped else ""
    table.add_row("all", f"{summary.minutes_missing:,}", skipped, style="bold")
    return table


def _sources_table(done: StoreFilling) -> RenderableType:
    title = "Filled by source:" if done.run is not None else "Would be filled by source:"
    table = new_table("Source", "Minutes", right=("Minutes",))
    for identity, minutes in done.summary.by_source.items():
        table.add_row(printable(identity), f"{minutes:,}")
    return Group(heading(title), table)


def _why_missing(summary: FillSummary) -> str:
    if summary.failures:
        return "a source that may cover them has failed: they are asked for again"
    return "no source covers them"


def _differences(done: StoreFilling, plan: Plan) -> list[RenderableType]:
    summary = done.summary
    count = plural(summary.disagreements, "minute")
    kept = "the first in order wins" if done.run is None else "the ledger keeps both"
    title = heading(f"Sources have different bars of {count}: {kept}.")
    table = new_table("Symbol", "Start", "Source", "Open, high, low, close, volume")
    for each in summary.differences[:_DIFFERENCES_SHOWN]:
        start = format_moment(each.start, plan.calendar.zone)[:16]
        won, other = (printable(source_name(name)) for name in (each.source, each.other))
        table.add_row(each.symbol, start, won, _numbers(each.values))
        table.add_row("", "", other, _numbers(each.other_values))
    more = len(summary.differences) - _DIFFERENCES_SHOWN
    rest = [Text(f"... and {more:,} more; --json has them all.")] if more > 0 else []
    return [title, table, *rest]


def difference_json(each: Disagreement) -> dict[str, object]:
    """Return a disagreement; the time is UTC."""
    return {
        "symbol": each.symbol,
        "start": format_moment(each.start),
        "source": each.source,
        "values": dict(zip(FIELDS, each.values, strict=True)),
        "other": each.other,
        "other_values": dict(zip(FIELDS, each.other_values, strict=True)),
    }


def _numbers(values: Values) -> str:
    return "  ".join(f"{value:.10g}" for value in values)
