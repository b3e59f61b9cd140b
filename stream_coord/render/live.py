"""`--live`: a replay as it runs, redrawn in place on the terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from stream_coord.calendars import Calendar
from stream_coord.clock import SystemTimer, Timer, format_moment
from stream_coord.moment import Moment
from stream_coord.render.console import has_live_view
from stream_coord.render.text import percent, plural, printable, seconds

_REFRESHES_PER_SECOND = 4
_RATE_SECONDS = 5.0
"""Bars per second are those of the last few seconds."""

Line = tuple[str, str]
"""A label and what it says."""


def live_header(
    calendar: Calendar, symbols: Sequence[str], strategy: str, speed: float | None
) -> list[Line]:
    """Return the lines of a view that do not change during the run."""
    pace = "full speed" if speed is None else f"{speed:g}x"
    return [
        ("Replay", f"{plural(len(symbols), 'symbol')} at {pace}"),
        ("Calendar", f"{calendar.name}, {calendar.hours} hours"),
        ("Strategy", strategy),
    ]


class LiveView:
    """Draws the moment at which it is asked to draw, as high and wide as the terminal is.

    Args:
        header: What does not change during the run.
        sessions: How many sessions the run has.
        zone: The exchange's time zone.
        look: Returns the replay's present moment; None before its first session.
        timer: Measures the bars per second.
    """

    def __init__(
        self,
        header: Sequence[Line],
        sessions: int,
        zone: ZoneInfo,
        look: Callable[[], Moment | None],
        timer: Timer | None = None,
    ) -> None:
        self._header = header
        self._sessions = sessions
        self._zone = zone
        self._look = look
        self._timer = timer or SystemTimer()
        self._marks: deque[tuple[float, int]] = deque([(self._timer.seconds(), 0)])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        moment = self._look()
        if moment is None:
            lines = [_labelled(*line) for line in (*self._header, ("Session", "loading"))]
        else:
            lines = [_labelled(*line) for line in (*self._header, *self._progress(moment))]
            # An empty line, two of headings, one for the rest, and one for the cursor.
            if (rows := console.size.height - len(lines) - 5) > 0:
                lines += _symbol_lines(moment, rows, options.max_width)
        # One text, cut by hand: tables would cost several times as much at every refresh.
        for line in lines:
            line.truncate(options.max_width, overflow="ellipsis")
        yield Text("\n", no_wrap=True).join(lines)

    def _progress(self, moment: Moment) -> list[Line]:
        utc, local = format_moment(moment.clock), format_moment(moment.clock, self._zone)
        rate = self._bars_per_second(moment.bars)
        return [
            ("Session", f"{moment.session.date} ({moment.number:,} of {self._sessions:,})"),
            ("Clock", utc),
            ("Local", f"{local} {self._zone.key}"),
            ("State", f"{moment.state.name}{' (break)' if moment.resting else ''}"),
            ("Bars", f"{moment.bars:,}, {rate:,.0f} bars/s"),
            ("Lag", seconds(moment.lag_seconds)),
        ]

    def _bars_per_second(self, bars: int) -> float:
        now, marks = self._timer.seconds(), self._marks
        marks.append((now, bars))
        while len(marks) > 2 and now - marks[1][0] >= _RATE_SECONDS:
            marks.popleft()
        passed = now - marks[0][0]
        return max(bars - marks[0][1], 0) / passed if passed > 0 else 0.0


@contextmanager
def live_view(console: Console, view: LiveView) -> Iterator[bool]:
    """Show the view until the body ends, however it ends; then it is wiped away.

    What the body prints meanwhile scrolls by above it. Yields whether there is a view: only a
    terminal that can move its cursor has one.
    """
    if not has_live_view(console):
        yield False
        return
    live = Live(
        view,
        console=console,
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
        # Answers that go to a file or a pipe must not come out on the terminal.
        redirect_stdout=sys.stdout.isatty(),
        vertical_overflow="crop",
    )
    try:
        live.start(refresh=True)
        yield True
    finally:
        live.stop()


def _labelled(label: str, said: str) -> Text:
    return Text.assemble((f"{label:<9}", "dim"), printable(said))


def _symbol_lines(moment: Moment, rows: int, width: int) -> Iterator[Text]:
    """Yield the quality of each symbol so far, worst first: so many of them, then a count."""
    yield Text()
    if not moment.symbols:
        yield Text("No symbol is expected to have bars.")
        return
    worst = np.argsort(moment.present, kind="stable")[:rows].tolist()
    names = [printable(moment.symbols[row]) for row in worst]
    numbers = [_numbers(moment.due, int(moment.present[row])) for row in worst]
    heading = f"{'Present':>9}{'Missing':>9}{'Quality %':>11}"
    room = min(max(map(len, ("Symbol", *names))), max(width - len(heading), 1))
    yield Text(f"Quality after {plural(moment.due, 'minute')}, worst first", "bold")
    yield Text(f"{'Symbol':<{room}}{heading}", "bold")
    for name, columns in zip(names, numbers, strict=True):
        cut = name if len(name) <= room else f"{name[: room - 1]}…"
        yield Text(f"{cut:<{room}}{columns}")
    if (more := len(moment.symbols) - rows) > 0:
        yield Text(f"and {more:,} more")


def _numbers(due: int, present: int) -> str:
    quality = percent(100 * present / due if due else None)
    return f"{present:>9,}{due - present:>9,}{quality:>11}"
