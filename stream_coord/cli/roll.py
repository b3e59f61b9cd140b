"""``sc roll``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stream_coord.cli.guard import EXIT_INTERRUPTED
from stream_coord.cli.shell import (
    ConfigOption,
    JsonOption,
    NowOption,
    QuietOption,
    SetOption,
    Shell,
    optional_date,
)
from stream_coord.errors import StreamCoordError
from stream_coord.render.console import error_console

if TYPE_CHECKING:
    from stream_coord.rolling import Rolling

_WITHOUT = "the oldest stored session is taken for the current one"


def roll(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DATE", help="Roll on until this is the current session."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Ask the sources, but change neither store nor ledger."),
    ] = False,
    clear_error: Annotated[
        bool,
        typer.Option("--clear-error", help="What put the session in error is mended: go on."),
    ] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """End the current session: fill what it lacks, seal it, and move on to the next.

    At first the current session is the oldest stored one. Before it is over nothing is done, so
    that it can be called as often as one likes. Damage of the stored bars puts the session in
    error, and nothing more is sealed until --clear-error. Exits 1 where a source failed, too; all
    else is done nevertheless, and `sc fill-gaps` asks for the failed part again.

    Example: sc roll --to 2018-11-23
    """
    from stream_coord.filling import Place
    from stream_coord.render.roll import interrupted_text, roll_json, roll_text
    from stream_coord.rolling import NEEDS_A_PERSON, RollInterruptedError, RollOptions
    from stream_coord.rolling import roll as roll_on

    options = RollOptions(to=optional_date(to), dry_run=dry_run, clear_error=clear_error)
    with Shell.open(config, sets, json, quiet, now) as shell:
        place = Place(shell.config, shell.calendar(), shell.store())
        try:
            with (
                shell.job_ledger(_WITHOUT, dry_run=dry_run) as ledger,
                shell.out.strangers(),
                shell.out.progress("Rolling") as advance,
            ):
                done = roll_on(
                    place,
                    ledger,
                    shell.clock,
                    options,
                    advance,
                    shell.note_waiting,
                )
        except RollInterruptedError as stop:
            text = interrupted_text(stop.sealed, str(stop.current))
            error_console().print(text, style="yellow", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        _tell(shell, done, clear_error=clear_error)
        shell.out.answer(lambda: roll_text(done, place.calendar), lambda: roll_json(done))
        shell.out.fail(done.fill.failures)
        if done.cause is not None:
            message = f"session {done.current.date} is in error: {done.cause}"
            raise StreamCoordError(message, NEEDS_A_PERSON)
        if done.fill.failures:
            raise typer.Exit(1)


def _tell(shell: Shell, done: Rolling, *, clear_error: bool) -> None:
    """Say what a user should know besides the answer."""
    if done.cleared is not None:
        verb = "would be" if done.dry_run else "is"
        shell.out.note(f"the error of session {done.first.date} {verb} cleared: {done.cleared}")
    elif clear_error:
        shell.out.note(f"session {done.first.date} is in no error; there is nothing to clear.")
    for note in done.notes:
        shell.out.note(note)
