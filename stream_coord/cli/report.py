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
    optional_date,
    symbols_setting,
)
from stream_coord.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from stream_coord.compute.quality import QualityRow
    from stream_coord.opening import Plan
    from stream_coord.render.report import Report

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
        str,
        typer.Option(
            "--metric", metavar="NAME", help="coverage or quality: what --fail-under tests."
        ),
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
    from stream_coord.render.report import Report, report_json, report_text
    from stream_coord.runs import first_bars, measure_store

    _check_threshold(fail_under, metric)
    dates = optional_date(first), optional_date(last)
    with Shell.open(config, sets, json, quiet, now, symbols_setting(symbols)) as shell:
        plan = _plan(shell, *dates)
        found = Report(plan.calendar, plan.sessions, plan.universe.symbols)
        _read_history(found, shell)
        with shell.out.progress("Reading") as advance:
            what = (plan.store, plan.interval, plan.universe)
            for quality in measure_store(*what, plan.sessions, found.remembered):
                found.add(quality)
                advance(found.sessions_read, len(plan.sessions), str(quality.session.date))
        if found.gaps:
            found.tell_gaps_apart(first_bars(*what))
        shell.out.answer(lambda: report_text(found), lambda: report_json(found))
        if fail_under is not None:
            _test(found.rows, fail_under, metric, shell)


def _read_history(found: Report, shell: Shell) -> None:
    """Take what the ledger knows; a store without one can be reported on all the same."""
    try:
        with shell.ledger() as ledger:
            found.add_history(ledger, shell.config.base_interval)
    except LedgerError as error:
        message = shell.config.mask(error.message)
        shell.out.note(f"{message}: imports, runs and what is known of gaps are left out.")


def _plan(shell: Shell, first: date | None, last: date | None) -> Plan:
    """Choose the sessions; without a last one up to the newest that is stored, or sealed."""
    from stream_coord.opening import newest_sealed

    plan = shell.plan(first, last)
    if last is not None:
        return plan
    try:
        sealed = newest_sealed(shell.config)
    except LedgerError:  # told when its history is read
        return plan
    return shell.plan(first, sealed) if sealed and sealed > plan.sessions[-1].date else plan


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
