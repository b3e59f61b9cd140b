"""How a replay's sessions went from one to the next: what history lacked, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from zoneinfo import ZoneInfo

from stream_coord.clock import format_moment
from stream_coord.coordinator import Replay
from stream_coord.history import Shortfall
from stream_coord.render.text import plural
from stream_coord.session.boundaries import SessionState

_SHOWN = 5
"""Dates, symbols or silences that are named before the rest is counted."""


def history_json(replay: Replay) -> dict[str, object]:
    """Return what history was brought into other terms by, and what each session lacks of it."""
    return {
        "splits": [
            {"symbol": split.symbol, "date": split.day.isoformat(), "ratio": split.ratio}
            for split in replay.splits
        ],
        "short": [
            {
                "session": short.session.isoformat(),
                "asked": short.asked,
                "missing": [day.isoformat() for day in short.missing],
                "symbols": dict(short.symbols),
            }
            for short in _shortfalls(replay)
        ],
    }


def states_json(replay: Replay) -> list[dict[str, object]]:
    """Return all changes of state; times are UTC."""
    return [
        {
            "session": replayed.session.date.isoformat(),
            "time": format_moment(change.time),
            "from": change.left.name,
            "to": change.entered.name,
        }
        for replayed in replay.sessions
        for change in replayed.changes
    ]


def history_notes(replay: Replay) -> list[str]:
    """Return what a user should know of history that is shorter than asked for."""
    short = _shortfalls(replay)
    without = [each for each in short if each.missing]
    whom = "any of these symbols"
    notes = []
    if len(without) == 1:
        only = without[0]
        there = only.asked - len(only.missing)
        notes.append(
            f"history of {only.session} has {there} of {plural(only.asked, 'session')}: "
            f"no bars of {_dates(only.missing)} are stored of {whom}."
        )
    elif without:
        missing = sorted({day for each in without for day in each.missing})
        notes.append(
            f"history is short in {plural(len(without), 'session')}, {without[0].session} to "
            f"{without[-1].session}: no bars of {_dates(missing)} are stored of {whom}."
        )
    symbols = sorted({symbol for each in short for symbol in each.symbols})
    some = [each for each in short if each.symbols]
    if len(some) == 1 and len(symbols) <= _SHOWN:
        one = some[0]
        counts = ", ".join(f"{symbol} {count}" for symbol, count in sorted(one.symbols.items()))
        notes.append(f"history of {one.session} is shorter for some: of {one.asked}, {counts}.")
    elif symbols:
        first, last = some[0].session, some[-1].session
        where = f"{len(some):,} sessions, {first} to {last}" if first != last else f"{first}"
        named = ", ".join(symbols[:_SHOWN])
        more = f" and {len(symbols) - _SHOWN:,} more" if len(symbols) > _SHOWN else ""
        notes.append(
            f"{named}{more} {'has' if len(symbols) == 1 else 'have'} less history than others in "
            f"{where}; --json tells how much."
        )
    return notes


def silence_lines(replay: Replay, zone: ZoneInfo) -> list[str]:
    """Return when no bar of any symbol came for so long that the session was timed out."""
    silences = []
    for replayed in replay.sessions:
        ended = [change.time for change in replayed.changes if change.left is SessionState.TIMEOUT]
        for change in replayed.changes:
            if change.entered is SessionState.TIMEOUT:
                until = min(time for time in ended if time > change.time)
                begin, end = (format_moment(time, zone)[:16] for time in (change.time, until))
                shown = end if begin[:10] != end[:10] else end[11:]
                silences.append(
                    f"TIMEOUT from {begin} to {shown} ({zone.key}): no bar of any symbol."
                )
    more = len(silences) - _SHOWN
    rest = [f"... and {plural(more, 'more time-out')}; --json has all states."] if more > 0 else []
    return [*silences[:_SHOWN], *rest]


def _shortfalls(replay: Replay) -> list[Shortfall]:
    return [each.shortfall for each in replay.sessions if each.shortfall is not None]


def _dates(days: Sequence[date]) -> str:
    """Name a few dates one by one, and many by the first and the last."""
    if len(days) <= _SHOWN:
        return ", ".join(map(str, days))
    return f"{plural(len(days), 'session')} from {days[0]} to {days[-1]}"
