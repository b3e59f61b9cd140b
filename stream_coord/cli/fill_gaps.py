"""``sc fill-gaps``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_coord.cli.guard import EXIT_INTERRUPTED
from stream_coord.cli.shell import (
    ConfigOption,
    FromOption,
    JsonOption,
    NowOption,
    QuietOption,
    SetOption,
    Shell,
    SymbolsOption,
    ToOption,
    optional_date,
    symbols_setting,
)
from stream_coord.render.console import error_console

_NO_SOURCES = (
    "no source of bars is configured, so that nothing is filled. Write one into the settings:\n"
    '[[sources]]\nname = "backup"\nkind = "store"\nurl = "delta:../other/bars"'
)
_WITHOUT = "what is known of gaps is left out"


def fill_gaps(
    first: FromOption = None,
    last: ToOption = None,
    symbols: SymbolsOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Ask the sources, but change neither store nor ledger."),
    ] = False,
    reopen: Annotated[
        bool,
        typer.Option("--reopen", help="Ask again also for what was explained or given up."),
    ] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """Find what the stored sessions lack, and fill it from the sources in the settings.

    Without dates: of all stored sessions. A minute that every source has confirmed empty is not
    asked for again. Exits 1 where a source failed; all else is done nevertheless, and the failed
    part is asked for again the next time.

    Example: sc fill-gaps --from 2018-11-02 --to 2018-11-23 --dry-run
    """
    from stream_coord.filling import FillInterruptedError, fill_store
    from stream_coord.render.gaps import fill_json, fill_text, interrupted_text

    dates = optional_date(first), optional_date(last)
    with Shell.open(config, sets, json, quiet, now, symbols_setting(symbols)) as shell:
        plan = shell.plan(*dates)
        if not shell.config.settings.sources:
            shell.out.note(_NO_SOURCES)
        try:
            with (
                shell.job_ledger(_WITHOUT, dry_run=dry_run) as ledger,
                shell.out.strangers(),
                shell.out.progress("Filling") as advance,
            ):
                done = fill_store(
                    plan,
                    ledger,
                    shell.clock,
                    dry_run=dry_run,
                    reopen=reopen,
                    on_progress=advance,
                    on_wait=shell.note_waiting,
                )
        except FillInterruptedError as stop:
            text = interrupted_text(stop.filled)
            error_console().print(text, style="yellow", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        shell.out.answer(lambda: fill_text(done, plan), lambda: fill_json(done))
        if done.summary.failures:
            shell.out.fail(done.summary.failures)
            raise typer.Exit(1)
