"""The two streams of a command: what it answers on stdout, what it says about it on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from stream_coord.errors import StreamCoordError
from stream_coord.render.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from stream_coord.render.progress import Advance


_PIPE_WIDTH = 160


def error_console() -> Console:
    """Return the console on stderr; it takes no text for markup."""
    return _console(stderr=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # A file or a pipe has no width to fit into.
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    # Outside strings (symbols, paths, raw rows) are printed as they are: no markup, no emoji.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


class Output:
    """Where a command prints.

    Args:
        json: The answer is one JSON document; nothing else goes to stdout.
        quiet: Nothing but errors and a JSON answer is printed.
    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def answer(self, text: Callable[[], RenderableType], document: Callable[[], object]) -> None:
        """Print the answer, as text or as a JSON document; only what is printed is made.

        Raises:
            StreamCoordError: it cannot be written.
        """
        try:
            if self.json:
                self._document(document())
            elif not self.quiet:
                _console().print(text())
                sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StreamCoordError(f"cannot write the answer: {error.strerror}") from error

    @contextmanager
    def strangers(self) -> Iterator[None]:
        """Send what other code prints to stderr where stdout is for one JSON document."""
        with redirect_stdout(sys.stderr) if self.json else nullcontext():
            yield

    def note(self, text: str) -> None:
        """Say something about the answer, on stderr."""
        if not self.quiet:
            message = printable(f"Note: {text}")
            error_console().print(message, style="yellow", soft_wrap=True)

    def fail(self, lines: Sequence[str], shown: int = 20) -> None:
        """Say on stderr why the job failed though it ran; never silenced."""
        console = error_console()
        for line in lines[:shown]:
            console.print(printable(f"Failed: {line}"), style="bold red", soft_wrap=True)
        if len(lines) > shown:
            console.print(f"... and {len(lines) - shown:,} more.", style="red")

    def _document(self, document: object) -> None:
        import msgspec

        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        sys.stdout.buffer.flush()

    @contextmanager
    def progress(self, doing: str) -> Iterator[Advance]:
        """Show a progress bar on a terminal, once a job takes more than a second."""
        console = error_console()
        if self.quiet or not console.is_terminal:
            yield _no_progress
            return
        from stream_coord.render.progress import delayed_progress

        with delayed_progress(console, doing) as advance:
            yield advance


def has_live_view(console: Console) -> bool:
    """Return whether a console is a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def _no_progress(done: float, total: float, text: str = "") -> None:
    """Show nothing."""
