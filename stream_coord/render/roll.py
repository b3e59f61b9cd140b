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
    return {
        "from": done.first.date,
        "to": done.current.date,
        "status": done.status,
        "stopped": done.stopped,
        "cause": done.cause,
        "begins": format_moment(done.current.start),
        "ends": format_moment(done.current.end),
        "sessions": done.sessions,
        "sealed": [quality_json(row) for row in done.sealed],
        **fill_json(StoreFilling(done.run, done.fill)),
        "dry_run": done.dry_run,  # one that had nothing to do has no run, either
    }


def roll_text(done: Rolling, calendar: Calendar) -> RenderableType:
    """Return a roll for people."""
    parts: list[RenderableType] = [heading(_headline(done, calendar.zone))]
    if done.sessions:
        parts += [Text(printable(line)) for line in _filled(done)]
        if done.dry_run:
            parts += [Text(), Text("As it is stored now:")]
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
    day = current.date
    begins, ends = (format_moment(at, zone) for at in (current.start, current.end))
    ahead = f"session {day} has not begun" if done.stopped else f"the current session is {day}"
    verb = "begins" if current.start > done.now else "began"
    if done.stopped == "no-bars":
        return (
            f"Up to date: session {day} is over, but the store's bars end before it. Nothing was "
            "sealed: import more, then run `sc roll` again."
        )
    standing = {
        "error": f"Nothing was sealed: session {day} is in error.",
        "not-over": f"Session {day} is not over: it ends {ends}. Nothing was sealed.",
        "up-to-date": f"Up to date: {ahead}, it {verb} {begins}.",
    }
    return standing[done.status]


def _sealed(done: Rolling) -> str:
    symbols = len({row.symbol for row in done.sealed})
    return f"{plural(len(done.sessions), 'session')} of {plural(symbols, 'symbol')}"


def _filled(done: Rolling) -> list[str]:
    """Return what the last pass over the gaps did, in a line or two."""
    fill = done.fill
    if not fill.minutes_missing:
        return ["No minute is missing."]
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
        begins = "the store's bars end before it: import more"
    elif current.end <= done.now:
        begins = "it is over too: run `sc roll` again, or with --to DATE, to catch up"
    return f"The current session {is_now} {current.date}; {begins}."
