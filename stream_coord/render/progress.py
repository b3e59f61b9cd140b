"""A progress bar that stays away from jobs that are over in a second."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_DELAY_SECONDS = 1.0
_COUNTABLE = 100_000


class _DoneColumn(ProgressColumn):
    """Shows how many of how many are done; a percentage if they are too many to be counted."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        if task.total is None:
            return Text("")
        if task.total < _COUNTABLE:
            return Text(f"{task.completed:,.0f}/{task.total:,.0f}", style="progress.download")
        return Text(f"{100 * task.completed // task.total:.0f}%", style="progress.percentage")


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """Show `done` of `total` as finished, and `text` beside it."""
        ...


@contextmanager
def delayed_progress(console: Console, doing: str) -> Iterator[Advance]:
    """Yield the function that moves the bar; the bar appears with the first move after a second."""
    begun = monotonic()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _DoneColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
        # Answers that go to a file or a pipe must not come out on the terminal.
        redirect_stdout=sys.stdout.isatty(),
    )
    task = bar.add_task(doing, total=None, text="")

    def advance(done: float, total: float, text: str = "") -> None:
        if not bar.live.is_started and monotonic() - begun >= _DELAY_SECONDS:
            bar.start()
        bar.update(task, completed=done, total=total, text=text)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
