"""The progress bar, and where prints go while it is on the terminal."""

from __future__ import annotations

import sys
from io import StringIO

import pytest
from rich.console import Console

from stream_coord.render import progress
from stream_coord.render.progress import delayed_progress


class Stdout(StringIO):
    """In the place of stdout: a terminal or a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_prints_go_where_stdout_goes(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same terminal they scroll by above the bar; a file or a pipe gets them itself."""
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    stdout, stderr = Stdout(terminal), Stdout(terminal=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    console = Console(file=stderr, force_terminal=True, width=80)
    with delayed_progress(console, "Working") as advance:
        advance(1, 2)
        sys.stdout.write("said meanwhile\n")
    assert sys.stdout is stdout
    assert ("said meanwhile" in stderr.getvalue()) == terminal
    assert ("said meanwhile" in stdout.getvalue()) != terminal
    assert "1/2" in stderr.getvalue()


def test_a_short_job_shows_nothing() -> None:
    stderr = StringIO()
    with delayed_progress(Console(file=stderr, force_terminal=True), "Working") as advance:
        advance(1, 1)
    assert not stderr.getvalue()
