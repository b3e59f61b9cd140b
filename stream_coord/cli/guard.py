"""Errors of every kind become words and an exit code; no traceback reaches a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

import typer

from stream_coord.errors import StreamCoordError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_P = ParamSpec("_P")


def guarded(command: Callable[_P, None]) -> Callable[_P, None]:
    """Return `command` with its errors printed on stderr and turned into exit codes.

    With ``SC_DEBUG`` in the environment errors come with their traceback.
    """

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StreamCoordError as error:
            _stop(error, error.message, error.hint, error.exit_code)
        except KeyboardInterrupt as error:
            _stop(error, "Interrupted.", None, EXIT_INTERRUPTED, label="")
        except BrokenPipeError:
            # The reader of our output went away: nothing is left to say, and nobody to hear it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(EXIT_FAILED) from None
        except (SystemExit, typer.Exit):
            raise
        except BaseException as error:  # noqa: BLE001 - polars panics are no Exceptions
            if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C as a class was being made
                _stop(error, "Interrupted.", None, EXIT_INTERRUPTED, label="")
            message = f"unexpected {type(error).__name__}: {error}"
            hint = "This is a bug in stream-coord. SC_DEBUG=1 shows where it comes from."
            _stop(error, message, hint, EXIT_FAILED)

    return run


def _stop(
    error: BaseException, message: str, hint: str | None, code: int, label: str = "Error: "
) -> NoReturn:
    from stream_coord.render.console import error_console
    from stream_coord.render.text import printable

    if os.environ.get("SC_DEBUG"):
        raise error
    console = error_console()
    console.print(
        printable(f"{label}{message}"), style="bold red" if label else "yellow", soft_wrap=True
    )
    if hint:
        console.print(printable(hint), soft_wrap=True)
    raise SystemExit(code)
