"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_coord import __version__
from stream_coord.cli.guard import guarded


def build_app() -> typer.Typer:
    """Return the `sc` application."""
    from stream_coord.cli.fill_gaps import fill_gaps
    from stream_coord.cli.import_bars import import_bars
    from stream_coord.cli.init import init
    from stream_coord.cli.replay import replay
    from stream_coord.cli.report import report
    from stream_coord.cli.roll import roll
    from stream_coord.cli.store import store_app

    app = typer.Typer(
        name="sc",
        help="Coordinate market-data sessions for backtests on stored minute bars.",
        no_args_is_help=True,
        # Plain help is up at once; drawing it in boxes takes longer than all the rest.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    app.command("init")(guarded(init))
    app.command("import")(guarded(import_bars))
    app.command("fill-gaps")(guarded(fill_gaps))
    app.command("replay")(guarded(replay))
    app.command("roll")(guarded(roll))
    app.command("report")(guarded(report))
    app.add_typer(store_app(), name="store")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stream-coord {__version__}")
        raise typer.Exit


def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass
