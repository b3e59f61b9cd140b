"""What `sc replay` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_coord.calendars import Calendar
from stream_coord.pace import FULL_SPEED
from stream_coord.render.quality import (
    gap_json,
    gaps_table,
    new_table,
    quality_json,
    quality_table,
    state_words,
)
from stream_coord.render.sessions import history_json, silence_lines, states_json
from stream_coord.render.text import percent, plural, printable, seconds
from stream_coord.runs import RecordedRun
from stream_coord.stores.ledger import SourceCall

_SESSIONS_SHOWN = 30
_UNUSUAL = ("no_trade", "unresolved", "filled")


def replay_json(run: RecordedRun, calls: Sequence[SourceCall] = ()) -> dict[str, object]:
    """Return the document of a replay, with the keys that scripts rely on.

    Args:
        run: The replay.
        calls: The questions that it put to sources.
    """
    replay = run.replay
    gaps = [gap for session in replay.sessions for gap in session.quality.gaps()]
    return {
        "run": run.number,
        "sessions": len(replay.sessions),
        "bars": replay.bars,
        "derived_bars": replay.derived_bars,
        "updates": replay.updates,
        "out_of_session": sum(session.out_of_session for session in replay.sessions),
        "digest": replay.digest,
        "from_snapshot": False,
        "quality": [
            quality_json(row) for session in replay.sessions for row in session.quality.rows()
        ],
        "gaps": [gap_json(gap) for gap in gaps],
        "by_source": _minutes_by_source(run),
        "disagreements": sum(len(session.disagreements) for session in replay.sessions),
        "synthesized": sum(session.synthesized for session in replay.sessions),
        "failures": _failures(calls),
        "history": history_json(replay),
        "states": states_json(replay),
        "speed": FULL_SPEED if replay.speed is None else replay.speed,
        "lag": replay.lag_seconds,
        "timings": replay.timings,
        "bars_per_second": replay.bars_per_second,
        "session_digests": {
            session.session.date.isoformat(): session.digest for session in replay.sessions
        },
        "result": replay.result,
    }


def replay_text(
    run: RecordedRun, calendar: Calendar, calls: Sequence[SourceCall] = ()
) -> RenderableType:
    """Return a replay for people.

    Args:
        run: The replay.
        calendar: Its calendar.
        calls: The questions that it put to sources.
    """
    replay = run.replay
    rows = [row for session in replay.sessions for row in session.quality.rows()]
    gaps = [gap for session in replay.sessions for gap in session.quality.gaps()]
    timings = replay.timings
    symbols = len({row.symbol for row in rows})
    parts: list[RenderableType] = [
        Text(
            f"Replayed {plural(len(replay.sessions), 'session')} of {plural(symbols, 'symbol')} "
            f"on {calendar.name}, {calendar.hours} hours: {_delivered(run)}.",
            style="bold",
        ),
        Text(),
        _sessions_table(run),
        Text(),
        quality_table(rows),
        Text(),
        gaps_table(gaps, calendar.zone),
        Text(),
        *_upkeep_lines(run, calls),
    ]
    if silences := silence_lines(replay, calendar.zone):
        parts += [*map(Text, silences), Text()]
    if replay.result is not None:
        parts += [Text(printable(f"Result {replay.result}")), Text()]
    parts.append(Text(f"Digest {replay.digest} (run {run.number})"))
    if replay.speed is not None:
        parts.append(Text(_pace_line(replay.speed, timings["waiting"], replay.lag_seconds)))
    parts.append(
        Text(
            f"First bar after {seconds(timings['first_bar'])}, streamed in "
            f"{seconds(timings['stream'])} ({replay.bars_per_second:,.0f} bars/s), "
            f"{seconds(timings['total'])} in all.",
            style="dim",
        )
    )
    return Group(*parts)


def _delivered(run: RecordedRun) -> str:
    replay = run.replay
    parts = [plural(replay.bars, "bar")]
    if replay.derived_bars:
        parts.append(plural(replay.derived_bars, "derived bar"))
    if replay.updates:
        parts.append(plural(replay.updates, "update"))
    return ", ".join(parts)


def _upkeep_lines(run: RecordedRun, calls: Sequence[SourceCall]) -> list[RenderableType]:
    filled = [
        f"{plural(minutes, 'minute')} filled from {identity}."
        for identity, minutes in _minutes_by_source(run).items()
    ]
    sessions = run.replay.sessions
    if flat := sum(session.synthesized for session in sessions):
        filled.append(f"{plural(flat, 'minute')} filled with flat bars; they are no better data.")
    if differ := sum(len(session.disagreements) for session in sessions):
        filled.append(f"Sources have different bars {plural(differ, 'time')}: the first one wins.")
    lines: list[RenderableType] = [Text(printable(line)) for line in filled]
    lines += [Text(printable(f"Failed: {line}"), style="red") for line in _failures(calls)]
    return [*lines, Text()] if lines else []


def _minutes_by_source(run: RecordedRun) -> dict[str, int]:
    """Return how many minutes each source has filled in this run, by its identity."""
    minutes: Counter[str] = Counter()
    for session in run.replay.sessions:
        minutes.update(session.filled)
    return dict(sorted(minutes.items()))


def _failures(calls: Sequence[SourceCall]) -> list[str]:
    """Return a line for each source that failed, with what it said last."""
    errors: dict[str, list[str]] = {}
    for call in calls:
        if call.error is not None:
            errors.setdefault(call.source, []).append(call.error)
    return [
        f"{identity} failed {plural(len(said), 'time')}, the last time: {said[-1]}"
        for identity, said in errors.items()
    ]


def _pace_line(speed: float, waited: float, lag: float) -> str:
    return f"At {speed:g}x: waited {seconds(waited)}, no minute later than {seconds(lag)}."


def _sessions_table(run: RecordedRun) -> Table:
    sessions = run.replay.sessions
    every = [row for session in sessions for row in session.quality.rows()]
    # What is zero throughout, as it is where no source is asked, has no column.
    states = [name for name in _UNUSUAL if any(getattr(row, name) for row in every)]
    titles = [state_words(name).capitalize() for name in states]
    numbers = ("Bars", "Expected", "Missing", *titles, "Quality %")
    table = new_table("Session", *numbers, "Digest", right=numbers)
    for session in sessions[-_SESSIONS_SHOWN:]:
        rows = list(session.quality.rows())
        expected = sum(row.expected for row in rows)
        present = sum(row.present for row in rows)
        table.add_row(
            session.session.date.isoformat(),
            f"{session.bars:,}",
            f"{expected:,}",
            *(f"{sum(getattr(row, name) for row in rows):,}" for name in ("missing", *states)),
            percent(100 * present / expected if expected else None),
            session.digest[:12],
        )
    if len(sessions) > _SESSIONS_SHOWN:
        table.caption = f"The last {_SESSIONS_SHOWN} of {len(sessions)} sessions."
    return table
