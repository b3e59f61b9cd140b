"""``sc init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_coord.cli.shell import JsonOption, QuietOption
from stream_coord.render.console import Output


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to begin.")] = Path(),
    demo: Annotated[bool, typer.Option("--demo", help="Make sample bars as well.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a commented sc.toml, an empty store and a ledger.

    With --demo: also CSV files with sample bars of 20 symbols over 15 sessions, with gaps,
    duplicates, revisions and bad rows planted in them, and a list of what was planted.

    Example: sc init --demo my-demo
    """
    from stream_coord.render.setup import setup_json, setup_text
    from stream_coord.setup import set_up

    out = Output(json, quiet)
    done = set_up(folder, demo=demo)
    out.answer(lambda: setup_text(done), lambda: setup_json(done))
