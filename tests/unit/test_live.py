"""The view of a running replay, drawn on consoles of any size."""

from __future__ import annotations

import re
from datetime import date
from io import StringIO
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from stream_coord.calendars import Segment, Session, open_calendar
from stream_coord.clock import parse_moment
from stream_coord.interval import MINUTE
from stream_coord.moment import Moment
from stream_coord.render.live import LiveView, live_header, live_view
from stream_coord.session.boundaries import SessionState

OPEN = parse_moment("2018-11-23T14:30:00Z")
SESSION = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 210 * MINUTE, "regular"),))
ZONE = ZoneInfo("America/New_York")
SYMBOLS = ("AAA", "BRK[/B]", "CC", *(f"S{number:02}" for number in range(37)))
PRESENT = [118, 90, 119, *[120] * 37]


class Seconds:
    """A timer that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wake(self) -> None: ...


def moment(
    symbols: tuple[str, ...] = SYMBOLS,
    present: list[int] | None = None,
    due: int = 120,
    bars: int = 4760,
    resting: bool = False,
) -> Moment:
    return Moment(
        session=SESSION,
        number=2,
        clock=OPEN + 120 * MINUTE + 30_000_000,
        state=SessionState.ACTIVE,
        resting=resting,
        bars=bars,
        lag_seconds=1.25,
        symbols=symbols,
        due=due,
        present=np.array(PRESENT if present is None else present, np.int64),
    )


def console(width: int = 80, height: int = 24) -> Console:
    return Console(
        file=StringIO(),
        force_terminal=True,
        color_system=None,
        width=width,
        height=height,
        markup=False,
        emoji=False,
        highlight=False,
    )


def drawn(now: Moment | None, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of the view, without styles."""
    view = LiveView([("Replay", "40 symbols at 60x")], 3, ZONE, lambda: now, Seconds())
    with console(width, height) as target, target.capture() as capture:
        target.print(view)
    text = re.sub(r"\x1b\[[\d;]*m", "", capture.get())
    return [line.rstrip() for line in text.splitlines()]


def test_what_is_shown() -> None:
    lines = drawn(moment())
    assert [line.split(None, 1) for line in lines[:7]] == [
        ["Replay", "40 symbols at 60x"],
        ["Session", "2018-11-23 (2 of 3)"],
        ["Clock", "2018-11-23 16:30:30Z"],
        ["Local", "2018-11-23 11:30:30-05:00 America/New_York"],
        ["State", "ACTIVE"],
        ["Bars", "4,760, 0 bars/s"],
        ["Lag", "1.2 s"],
    ]
    assert lines[8] == "Quality after 120 minutes, worst first"
    assert lines[9].split() == ["Symbol", "Present", "Missing", "Quality", "%"]
    assert [line.split() for line in lines[10:14]] == [
        ["BRK[/B]", "90", "30", "75.00"],
        ["AAA", "118", "2", "98.33"],
        ["CC", "119", "1", "99.16"],
        ["S00", "120", "0", "100.00"],
    ]


@pytest.mark.parametrize("height", [*range(1, 30), 51, 52, 53, 200])
def test_it_fits_the_terminal_and_counts_the_symbols_that_do_not(height: int) -> None:
    lines = drawn(moment(), height=height)
    shown = sum(line.split()[0] in SYMBOLS for line in lines if line)
    more = [int(match[1]) for line in lines if (match := re.fullmatch(r"and (\d+) more", line))]
    if shown:
        assert len(lines) < height
        assert shown + sum(more) == len(SYMBOLS)
        assert not more or lines[-1].startswith("and ")
    else:
        assert height <= 12
        assert len(lines) == 7  # the terminal's end cuts them
    if height >= 52:
        assert shown == 40


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_or_wrapped(width: int) -> None:
    lines = drawn(moment(("X" * 64, "a" * 30), [3, 4]), width)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) == 12
    if width >= 40:
        assert lines[-2].split()[1:] == ["3", "117", "2.50"]


def test_before_the_first_session() -> None:
    assert [line.split() for line in drawn(None)] == [
        ["Replay", "40", "symbols", "at", "60x"],
        ["Session", "loading"],
    ]


def test_before_the_first_minute_there_is_no_quality() -> None:
    lines = drawn(moment(("A",), [0], due=0))
    assert lines[-1].split() == ["A", "0", "0", "n/a"]


def test_without_expected_symbols() -> None:
    assert drawn(moment((), []))[-1] == "No symbol is expected to have bars."


def test_a_break_is_told() -> None:
    assert "ACTIVE (break)" in "\n".join(drawn(moment(resting=True)))


def test_bars_per_second_are_those_of_the_last_seconds() -> None:
    timer, bars = Seconds(), 0
    view = LiveView([], 1, ZONE, lambda: moment(bars=bars), timer)
    rates = []
    for second in range(1, 21):
        timer.now, bars = float(second), bars + (100 if second <= 10 else 10)
        target = console()
        with target.capture() as capture:
            target.print(view)
        (rate,) = re.findall(r"([\d,]+) bars/s", capture.get())
        rates.append(int(rate))
    assert rates[:10] == [100] * 10
    assert rates[10] < 100
    assert rates[-4:] == [10] * 4


@pytest.mark.parametrize(
    ("speed", "pace"), [(None, "full speed"), (60.0, "60x"), (0.5, "0.5x"), (123456.0, "123456x")]
)
def test_the_header_says_what_runs(speed: float | None, pace: str) -> None:
    header = live_header(open_calendar("NYSE"), ("A", "B"), "my.py:Own", speed)
    assert header == [
        ("Replay", f"2 symbols at {pace}"),
        ("Calendar", "NYSE, regular hours"),
        ("Strategy", "my.py:Own"),
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    view = LiveView([("Strategy", "\x1b[31mred[/B]")], 1, ZONE, lambda: None)
    target = console()
    with target.capture() as capture:
        target.print(view)
    assert "\\x1b[31mred[/B]" in capture.get()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, None])
def test_the_cursor_comes_back_however_it_ends(error: type[BaseException] | None) -> None:
    target = console()
    assert isinstance(target.file, StringIO)
    view = LiveView([], 1, ZONE, moment)
    try:
        with live_view(target, view) as shown:
            assert shown
            assert "\x1b[?25l" in target.file.getvalue()
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert "BRK[/B]" in target.file.getvalue()
    tail = target.file.getvalue().rpartition("\x1b[?25h")[2]
    assert set(re.sub(r"\x1b\[1A|\x1b\[2K|\r", "", tail)) <= {"\n"}


def test_what_is_no_terminal_gets_nothing() -> None:
    target = Console(file=StringIO(), width=80)
    assert isinstance(target.file, StringIO)
    with live_view(target, LiveView([], 1, ZONE, moment)) as shown:
        assert not shown
    assert not target.file.getvalue()
