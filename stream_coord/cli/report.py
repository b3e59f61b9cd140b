"""``sc report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

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
    chosen_symbols,
    optional_date,
)
from stream_coord.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_coord.compute.quality import QualityRow

_METRICS = ("coverage", "quality")


def report(
    first: FromOption = None,
    last: ToOption = None,
    symbols: SymbolsOption = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under", metavar="PCT", help="Exit 1 if a symbol-session is below this percent."
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="What --fail-under tests.")
    ] = "coverage",
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """Report how complete the stored bars are, and what was run.

    Reads and verifies every bar of the sessions; without dates, of all stored ones.

    Example: sc report --fail-under 99.5
    """
    from stream_coord.planning import choose_sessions, choose_universe
    from stream_coord.render.report import Report, report_json, report_text
    from stream_coord.runs import measure_store

    _check_threshold(fail_under, metric)
    shell = Shell.open(config, sets, json, quiet, now)
    calendar, store, interval = shell.calendar(), shell.store(), shell.config.base_interval
    dates = optional_date(first), optional_date(last)
    sessions = choose_sessions(calendar, store, interval, *dates)
    universe = choose_universe(store, interval, sessions, chosen_symbols(symbols, shell.config))
    for note in universe.notes:
        shell.out.note(note)
    found = Report(calendar, sessions, universe.symbols)
    with shell.out.progress("Reading") as advance:
        for quality in measure_store(store, interval, universe, sessions):
            found.add(quality)
            advance(found.sessions_read, len(sessions), str(quality.session.date))
    with shell.ledger() as ledger:
        found.add_history(ledger)
    shell.out.show(report_text(found))
    shell.out.document(report_json(found))
    if fail_under is not None:
        _test(found.rows, fail_under, metric, shell)


def _check_threshold(fail_under: float | None, metric: str) -> None:
    if metric not in _METRICS:
        raise UsageError(f"--metric {metric!r} is unknown", f"Allowed: {', '.join(_METRICS)}.")
    if fail_under is not None and not 0 <= fail_under <= 100:
        raise UsageError(f"--fail-under {fail_under} is no percentage", "Give 0 to 100.")


def _test(rows: Sequence[QualityRow], fail_under: float, metric: str, shell: Shell) -> None:
    from stream_coord.render.report import missed_threshold

    missed = missed_threshold(rows, fail_under, metric)
    if missed:
        shell.out.fail(missed)
        raise typer.Exit(1)
