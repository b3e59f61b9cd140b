"""`sc replay --speed` and `--live` as a user runs them, on a terminal and without one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND

DAY = ("--session", "2018-11-02")
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
"""What hides a terminal's cursor, and what shows it again."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sample bars of two sessions in its store."""
    folder = tmp_path_factory.mktemp("demo")
    files = [f"sample/bars/2018-11-{day}.csv" for day in ("02", "05")]
    stated = ("--tz", "America/New_York", "--label", "open", "--quiet")
    for arguments in (("init", "--demo", "--quiet"), ("import", *files, *stated)):
        subprocess.run([COMMAND, *arguments], cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture
def here(sc: Callable[..., Any], demo: Path) -> Callable[..., Any]:
    """Run `sc` on the sample bars, whatever the test's own folder."""
    return lambda *arguments: sc(*arguments, "--config", demo / "sc.toml")


class Screen:
    """The far end of a terminal that `sc` takes for its stderr."""

    def __init__(self, running: subprocess.Popen[str], descriptor: int) -> None:
        self.running = running
        self.text = ""
        self._descriptor = descriptor

    def read_until(self, words: str) -> None:
        while words not in self.text:
            assert self._read(), f"the terminal never showed {words!r}: {self.text}"

    def read_all(self) -> str:
        while self._read():
            pass
        return self.text

    def _read(self) -> bool:
        try:
            read = os.read(self._descriptor, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.text += read.decode()
        return bool(read)


@contextmanager
def on_terminal(
    demo: Path, *arguments: str, size: tuple[int, int] = (24, 80), **environ: str
) -> Iterator[Screen]:
    """Run ``sc replay`` with a terminal of so many lines and columns as its stderr."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, size)
    unset = ("COLUMNS", "LINES", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    try:
        with subprocess.Popen(
            [COMMAND, "replay", *arguments],
            cwd=demo,
            env=kept | {"TERM": "xterm-256color"} | environ,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        ) as running:
            os.close(theirs)
            yield Screen(running, ours)
    finally:
        os.close(ours)


def test_a_paced_run_and_a_full_speed_run_give_one_digest(here: Callable[..., Any]) -> None:
    days = ("--from", "2018-11-02", "--to", "2018-11-05", "--json")
    fast = here("replay", *days).document
    slow = here("replay", *days, "--speed", "200000").document
    assert slow["digest"] == fast["digest"]
    assert slow["bars"] == fast["bars"]
    assert (fast["speed"], fast["lag"], fast["timings"]["waiting"]) == ("max", 0, 0)
    assert slow["speed"] == 200000
    # Two sessions of 6.5 hours, each of which may end as late as the latest minute of all.
    assert 0 < slow["timings"]["waiting"] <= 2 * (6.5 * 3600 / 200000 + slow["lag"]) + 0.001
    assert slow["lag"] > 0


def test_a_slow_strategy_falls_behind_and_says_how_far(
    here: Callable[..., Any], demo: Path
) -> None:
    (demo / "slow.py").write_text(
        "from time import sleep\n"
        "from stream_coord.strategy import Strategy\n"
        "class Slow(Strategy):\n"
        "    def on_step(self, now): sleep(0.002)\n"
    )
    call = ("replay", *DAY, "--strategy", "slow.py:Slow", "--speed", "1e7")
    assert here(*call, "--json").document["lag"] > 0.5
    assert re.search(r"At 1e\+07x: waited \d.*, no minute later than ", here(*call).out)


def test_the_answer_of_a_full_speed_run_has_no_pace(here: Callable[..., Any]) -> None:
    assert "no minute later" not in here("replay", *DAY).out


@pytest.mark.parametrize("speed", ["-60", "fast"])
def test_what_is_no_speed_is_wrong_usage(here: Callable[..., Any], speed: str) -> None:
    answer = here("replay", *DAY, f"--speed={speed}")
    assert answer.code == 2
    assert f"{speed!r} is not a speed" in answer.err
    assert "a finite number above 0" in answer.err


def test_live_and_quiet_do_not_go_together(here: Callable[..., Any]) -> None:
    answer = here("replay", *DAY, "--live", "--quiet")
    assert answer.code == 2
    assert "--live does not go with --quiet" in answer.err


def test_without_a_terminal_a_note_says_that_there_is_no_live_view(
    here: Callable[..., Any],
) -> None:
    answer = here("replay", *DAY, "--live", "--json")
    assert answer.code == 0
    assert answer.document["sessions"] == 1
    told = [line for line in answer.err.splitlines() if "history" not in line]
    assert len(told) == 1
    assert answer.err.startswith("Note: no live view")


def test_the_view_is_drawn_on_stderr_and_vanishes(demo: Path) -> None:
    live = ("--live", "--speed", "20000", "--json")
    with on_terminal(demo, *DAY, *live, "--symbols", "AQRV,ELQN,CVTK") as screen:
        shown = screen.read_all()
        document = screen.running.communicate(timeout=60)[0]
    assert screen.running.returncode == 0
    assert document.startswith("{")
    assert document.endswith("}\n")
    for words in ("3 symbols at 20000x", "NYSE", "(1 of 1)", "ACTIVE", "bars/s", "Lag", "AQRV"):
        assert words in shown
    clocks = re.findall(r"2018-11-02 1[3-9]:\d\d:\d\dZ|2018-11-02 20:00:00Z", shown)
    assert len(set(clocks)) > 1
    assert shown.count(HIDE) == 1
    assert shown.index(HIDE) < shown.index("Clock")
    last_frame = shown[shown.rindex("Clock") :]
    assert SHOW in last_frame
    lines_below = last_frame[: last_frame.index(SHOW)].count("\n")
    assert last_frame.count("\x1b[2K") >= lines_below, "the last frame is not wiped away"


def test_a_dumb_terminal_gets_the_note(demo: Path) -> None:
    with on_terminal(demo, *DAY, "--live", "--json", TERM="dumb") as screen:
        shown = screen.read_all()
    assert shown.startswith("Note: no live view")
    assert "\x1b[" not in shown


def test_no_color_means_none(demo: Path) -> None:
    call = (*DAY, "--live", "--speed", "50000", "--json")
    colours = re.compile(r"\x1b\[(3|4|9|10)\d(;\d+)*m")
    with on_terminal(demo, *call, NO_COLOR="1") as screen:
        assert "Clock" in screen.read_all()
    assert not colours.search(screen.text)


def test_an_interrupt_ends_the_wait_at_once_and_gives_the_cursor_back(demo: Path) -> None:
    """The first minute would take a hundred of ours."""
    with on_terminal(demo, *DAY, "--live", "--speed", "0.01") as screen:
        screen.read_until("ACTIVE")
        screen.running.send_signal(signal.SIGINT)
        shown = screen.read_all()
        assert screen.running.wait(timeout=60) == 130
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.rstrip().endswith("Interrupted.\x1b[0m")
    report = subprocess.run(
        [COMMAND, "report", "--json"], cwd=demo, capture_output=True, text=True, check=True
    )
    assert '"interrupted"' in report.stdout


def test_an_error_gives_the_cursor_back_too(demo: Path) -> None:
    (demo / "broken.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Broken(Strategy):\n"
        "    def on_step(self, now):\n"
        "        print('about [bold]to[/B] fail')\n"
        "        raise ValueError('no luck')\n"
    )
    call = (*DAY, "--live", "--strategy", "broken.py:Broken", "--json")
    with on_terminal(demo, *call) as screen:
        shown = screen.read_all()
        assert screen.running.wait(timeout=60) == 1
    assert "Traceback" not in shown
    assert "about [bold]to[/B] fail" in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert "Broken.on_step raised ValueError: no luck" in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize("watching", [("--live",), ()], ids=["live", "progress"])
def test_what_a_strategy_prints_goes_where_stdout_goes(
    demo: Path, watching: tuple[str, ...]
) -> None:
    (demo / "chatty.py").write_text(
        "from time import sleep\n"
        "from stream_coord.strategy import Strategy\n"
        "class Chatty(Strategy):\n"
        "    def on_session_start(self): print('to the pipe')\n"
        "    nap = 1.1\n"  # from then on there is a progress bar
        "    def on_session_end(self): self.nap = sleep(self.nap) or 0\n"
    )
    days = ("--from", "2018-11-02", "--to", "2018-11-05")
    with on_terminal(demo, *days, *watching, "--strategy", "chatty.py:Chatty") as screen:
        shown = screen.read_all()
        assert screen.running.stdout is not None
        assert screen.running.stdout.read().startswith("to the pipe\n" * 2)
    assert HIDE in shown
    assert "to the pipe" not in shown
