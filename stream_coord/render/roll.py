"""What `sc roll` prints."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.calendars import Calendar
from stream_coord.clock import format_moment
from stream_coord.filling import StoreFilling
from stream_coord.render.gaps import fill_json
from stream_coord.render.quality import heading, quality_json, quality_table, source_name
from stream_coord.render.text import plural, printable
from stream_coord.rolling import Rolling
from stream_coord.upkeep.fill import FillSummary


def roll_json(done: Rolling) -> dict[str, object]:
    """Return the document of a roll, with the keys that scripts rely on; times are UTC."""
    own: dict[str, object] = {
        "from": done.first.date,
        "to": done.current.date,
        "status": done.status,
        "stopped": done.stopped,
        "cause": done.cause,
        "begins": format_moment(done.current.start),
        "ends": format_moment(done.current.end),
        "run": done.run,
        "dry_run": done.dry_run,
        "sessions": done.sessions,
        "sealed": [quality_json(row) for row in done.sealed],
    }
    return own | fill_json(StoreFilling(done.run, done.fill)) | own


def roll_text(done: Rolling, calendar: Calendar) -> RenderableType:
    """Return a roll for people."""
    parts: list[RenderableType] = [heading(_headline(done, calendar.zone))]
    if done.sessions:
        parts += [Text(printable(line)) for line in _filled(done)]
        parts += [Text(), quality_table(done.sealed), Text()]
        parts.append(Text(_what_is_next(done, calendar.zone)))
    return Group(*parts)


def interrupted_text(sealed: int, current: str) -> str:
    """Return what to say of a roll that was interrupted."""
    if not sealed:
        return f"Interrupted before session {current} was sealed; run it again."
    return (
        f"Interrupted: {plural(sealed, 'session')} sealed, and the current session is now "
        f"{current}; run it again to go on."
    )


def _headline(done: Rolling, zone: ZoneInfo) -> str:
    current = done.current
    if done.sessions:
        what = f"from {done.first.date} to {current.date}, {_sealed(done)}"
        if done.dry_run:
            return f"A dry run would roll {what}, and has changed nothing."
        return f"Rolled {what} (run {done.run})."
    if done.cause is not None:
        return f"Nothing was sealed: session {current.date} is in error."
    if done.stopped == "not-over":
        ends = format_moment(current.end, zone)
        return f"Session {current.date} is not over: it ends {ends}. Nothing was sealed."
    begins = format_moment(current.start, zone)
    if done.stopped == "not-begun":
        return f"Up to date: session {current.date} has not begun, it begins {begins}."
    return f"Up to date: the current session is {current.date}, it begins {begins}."


def _sealed(done: Rolling) -> str:
    symbols = len({row.symbol for row in done.sealed})
    return f"{plural(len(done.sessions), 'session')} of {plural(symbols, 'symbol')}"


def _filled(done: Rolling) -> list[str]:
    """Return what the last pass over the gaps did, in a line or two."""
    fill = done.fill
    if not fill.minutes_missing:
        return ["No minute is missing in them."]
    verb = "It would fill" if done.dry_run else "Filled"
    what = f"{fill.filled:,} of {plural(fill.minutes_missing, 'missing minute')}"
    sources = [f"{minutes:,} from {source_name(name)}" for name, minutes in fill.by_source.items()]
    lines = [f"{verb} {what}{': ' if sources else ''}{', '.join(sources)}."]
    left = _left(fill)
    return [*lines, f"Left: {left}."] if left else lines


def _left(fill: FillSummary) -> str:
    counts = (
        (fill.no_trade, "without a trade"),
        (fill.unresolved, "given up"),
        (fill.still_missing, "still missing"),
    )
    return ", ".join(f"{minutes:,} {state}" for minutes, state in counts if minutes)


def _what_is_next(done: Rolling, zone: ZoneInfo) -> str:
    current = done.current
    is_now = "would then be" if done.dry_run else "is now"
    begins = f"it begins {format_moment(current.start, zone)}"
    if done.cause is not None:
        return f"The current session {is_now} {current.date}, which is in error."
    if done.stopped == "not-over":
        begins = f"it is not over, it ends {format_moment(current.end, zone)}"
    elif done.stopped == "no-bars":
        begins = "the store holds no bars of it yet"
    elif current.end <= done.now:
        begins = "it is over too: run `sc roll` again, or with --to DATE, to catch up"
    return f"The current session {is_now} {current.date}; {begins}."
