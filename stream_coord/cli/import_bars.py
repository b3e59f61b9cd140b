"""``sc import``."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from stream_coord.cli.guard import EXIT_INTERRUPTED
from stream_coord.cli.shell import (
    ConfigOption,
    JsonOption,
    NowOption,
    QuietOption,
    SetOption,
    Shell,
)
from stream_coord.errors import UsageError, near_miss
from stream_coord.render.console import error_console

if TYPE_CHECKING:
    from stream_coord.bars import Symbol
    from stream_coord.importing import ImportSummary
    from stream_coord.sources.base import FileFormat

_FORMATS = ("csv", "parquet", "lean")


def import_bars(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders.")],
    actions: Annotated[
        bool, typer.Option("--actions", help="The files are of splits: date, symbol, ratio.")
    ] = False,
    fmt: Annotated[
        str, typer.Option("--format", "-f", metavar="NAME", help="csv, parquet or lean.")
    ] = "csv",
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="The symbol of all rows; else a column names it.")
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option("--tz", metavar="ZONE", help="Zone of times without offset: Europe/London."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="open|close", help="Whether a time is its bar's start or end."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=HEADER",
            help="Where symbol, time (or date and time), open, high, low, close, volume are; "
            "with --actions date, symbol, ratio.",
        ),
    ] = None,
    time_format: Annotated[
        str,
        typer.Option("--time-format", help="iso, epoch-s, epoch-ms, epoch-us, epoch-ns, strptime."),
    ] = "iso",
    delimiter: Annotated[str, typer.Option("--delimiter", help="Of CSV; \\t is a tab.")] = ",",
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Whether the first line names columns.")
    ] = True,
    allow_nonpositive: Annotated[
        str | None,
        typer.Option(
            "--allow-nonpositive", metavar="A,B,...", help="Symbols with prices at or below 0."
        ),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """Import files of bars; every row is accounted for.

    A row is stored, a duplicate, a revision of a stored bar, or rejected with a reason. Importing
    a file again changes nothing. Label, zone and columns are stated, never guessed; LEAN files
    say it all by their path.

    With --actions the files are of splits, and go into the ledger: CSV with the columns date
    (YYYY-MM-DD, the first day of the new shares), symbol and ratio (new shares for one old: 7,
    7:1 or 1:10).

    Example: sc import bars.csv --tz America/New_York --label open --column volume=Vol

    Example: sc import actions.csv --actions
    """
    mapping = _mapping(columns or [])
    if actions:
        misplaced = {
            "--format": fmt != "csv",
            "--symbol": symbol is not None,
            "--tz": tz is not None,
            "--label": label is not None,
            "--time-format": time_format != "iso",
            "--no-header": not header,
            "--allow-nonpositive": allow_nonpositive is not None,
        }
        _check_options([name for name, given in misplaced.items() if given])
        with Shell.open(config, sets, json, quiet, now) as shell:
            _import_actions(shell, paths, mapping, _separator(delimiter))
        return
    # Before polars is imported: its allocator would keep memory for each of many threads.
    os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1")
    from stream_coord.bars import Symbol, parse_symbols
    from stream_coord.importing import ImportInterruptedError, ImportTarget, import_files
    from stream_coord.render.imports import import_json, import_text, interrupted_text, progress

    one_symbol = None if symbol is None else Symbol.parse(symbol)
    how = _format(fmt, one_symbol, tz, label, mapping, time_format, _separator(delimiter), header)
    allowed = (
        parse_symbols(part.strip() for part in allow_nonpositive.split(","))
        if allow_nonpositive
        else ()
    )
    with Shell.open(config, sets, json, quiet, now) as shell:
        begun = monotonic()
        try:
            with shell.ledger(create=True) as ledger, shell.out.progress("Importing") as advance:
                target = ImportTarget(
                    store=shell.store(create=True),
                    ledger=ledger,
                    calendar=shell.calendar(),
                    interval=shell.config.base_interval,
                    clock=shell.clock,
                    allow_nonpositive=allowed,
                )
                summary = import_files(
                    paths,
                    how,
                    target,
                    on_progress=lambda at: advance(*progress(at, monotonic() - begun)),
                )
        except ImportInterruptedError as stop:
            error_console().print(interrupted_text(stop.kept), style="yellow", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        shell.out.answer(lambda: import_text(summary), lambda: import_json(summary))
        _end(shell, summary)


def _import_actions(
    shell: Shell, paths: list[Path], columns: dict[str, str], delimiter: str
) -> None:
    from stream_coord.importing.actions import ActionFormat, import_actions
    from stream_coord.render.imports import actions_json, actions_text

    how = ActionFormat(delimiter=delimiter, columns=columns)
    with shell.ledger(create=True) as ledger:
        summary = import_actions(paths, how, ledger, shell.clock)
    shell.out.answer(lambda: actions_text(summary), lambda: actions_json(summary))
    _end(shell, summary)


def _end(shell: Shell, summary: ImportSummary) -> None:
    """Say what failed, and leave with the exit code of that."""
    if summary.failed:
        shell.out.fail([file.message for file in summary.failed])
    if summary.rows and summary.rejected == summary.rows:
        shell.out.fail(["every row was rejected"])
    if summary.failed or summary.rejected == summary.rows > 0:
        raise typer.Exit(1)


def _check_options(misplaced: list[str]) -> None:
    """Refuse options of bars with ``--actions``."""
    if misplaced:
        raise UsageError(
            f"{', '.join(misplaced)} cannot go with --actions",
            "Splits are read from CSV files with a header and have a date, a symbol and a ratio: "
            "only --column and --delimiter say how.",
        )


def _separator(delimiter: str) -> str:
    return "\t" if delimiter == "\\t" else delimiter


def _mapping(columns: list[str]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for text in columns:
        name, equals, header = text.partition("=")
        if not (equals and name and header) or name in mapping:
            raise UsageError(
                f"--column {text!r} is not NAME=HEADER, or names {name!r} again",
                "For example --column close=Last.",
            )
        mapping[name] = header
    return mapping


def _format(
    fmt: str,
    symbol: Symbol | None,
    tz: str | None,
    label: str | None,
    columns: dict[str, str],
    time_format: str,
    delimiter: str,
    header: bool,
) -> FileFormat:
    from stream_coord.sources.csv import CsvFormat
    from stream_coord.sources.lean import LeanFormat
    from stream_coord.sources.parquet import ParquetFormat

    if fmt not in _FORMATS:
        raise UsageError(
            f"--format {fmt!r} is unknown{near_miss(fmt, _FORMATS)}",
            f"Allowed: {', '.join(_FORMATS)}.",
        )
    if fmt == "lean":
        return LeanFormat(tz=tz, symbol=symbol)
    if label not in {"open", "close"}:
        raise UsageError(
            "--label is missing" if label is None else f"--label {label!r} is unknown",
            "State --label open if a row's time is its bar's start, --label close if its end.",
        )
    checked = cast('Literal["open", "close"]', label)
    if fmt == "parquet":
        return ParquetFormat(
            label=checked, symbol=symbol, tz=tz, columns=columns, time_format=time_format
        )
    return CsvFormat(
        label=checked,
        symbol=symbol,
        tz=tz,
        columns=columns,
        time_format=time_format,
        delimiter=delimiter,
        header=header,
    )
