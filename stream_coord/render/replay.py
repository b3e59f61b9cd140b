"""What `sc replay` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_coord.calendars import Calendar
from stream_coord.pace import FULL_SPEED
from stream_coord.render.quality import gap_json, gaps_table, new_table, quality_json, quality_table
from stream_coord.render.text import percent, plural, printable, seconds
from stream_coord.runs import RecordedRun

_SESSIONS_SHOWN = 30


def replay_json(run: RecordedRun) -> dict[str, object]:
    """Return the document of a replay, with the keys that scripts rely on."""
    replay = run.replay
    return {
        "run": run.number,
        "sessions": len(replay.sessions),
        "bars": replay.bars,
        "derived_bars": 0,
        "updates": replay.updates,
        "out_of_session": sum(session.out_of_session for session in replay.sessions),
        "digest": replay.digest,
        "from_snapshot": False,
        "quality": [
            quality_json(row) for session in replay.sessions for row in session.quality.rows()
        ],
        "gaps": [gap_json(gap) for session in replay.sessions for gap in session.quality.gaps()],
        "speed": FULL_SPEED if replay.speed is None else replay.speed,
        "lag": replay.lag_seconds,
        "timings": replay.timings,
        "bars_per_second": replay.bars_per_second,
        "session_digests": {
            session.session.date.isoformat(): session.digest for session in replay.sessions
        },
        "result": replay.result,
    }


def replay_text(run: RecordedRun, calendar: Calendar) -> RenderableType:
    """Return a replay for people."""
    replay = run.replay
    rows = [row for session in replay.sessions for row in session.quality.rows()]
    gaps = [gap for session in replay.sessions for gap in session.quality.gaps()]
    timings = replay.timings
    symbols = len({row.symbol for row in rows})
    parts: list[RenderableType] = [
        Text(
            f"Replayed {plural(len(replay.sessions), 'session')} of {plural(symbols, 'symbol')} "
            f"on {calendar.name}, {calendar.hours} hours: {plural(replay.bars, 'bar')}.",
            style="bold",
        ),
        Text(),
        _sessions_table(run),
        Text(),
        quality_table(rows),
        Text(),
        gaps_table(gaps, calendar.zone),
        Text(),
    ]
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


def _pace_line(speed: float, waited: float, lag: float) -> str:
    return f"At {speed:g}x: waited {seconds(waited)}, no minute later than {seconds(lag)}."


def _sessions_table(run: RecordedRun) -> Table:
    numbers = ("Bars", "Expected", "Missing", "Quality %")
    table = new_table("Session", *numbers, "Digest", right=numbers)
    sessions = run.replay.sessions
    for session in sessions[-_SESSIONS_SHOWN:]:
        rows = list(session.quality.rows())
        expected = sum(row.expected for row in rows)
        present = sum(row.present for row in rows)
        table.add_row(
            session.session.date.isoformat(),
            f"{session.bars:,}",
            f"{expected:,}",
            f"{expected - present:,}",
            percent(100 * present / expected if expected else None),
            session.digest[:12],
        )
    if len(sessions) > _SESSIONS_SHOWN:
        table.caption = f"The last {_SESSIONS_SHOWN} of {len(sessions)} sessions."
    return table
