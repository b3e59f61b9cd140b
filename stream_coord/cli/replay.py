"""``sc replay``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    strategy_setting,
    symbols_setting,
)
from stream_coord.errors import UsageError

if TYPE_CHECKING:
    from stream_coord.coordinator import Coordinator, ReplayedSession
    from stream_coord.opening import Plan


def replay(
    context: typer.Context,
    first: FromOption = None,
    last: ToOption = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="DATE", help="Replay this one session.")
    ] = None,
    symbols: SymbolsOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", metavar="SPEC", help="module:Class or path.py:Class, called each minute."
        ),
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            "--speed", metavar="max|N", help="Simulated seconds per second, or as fast as it goes."
        ),
    ] = "max",
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--no-live",
            help="Watch it run, on a terminal; by default at any speed but max.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """Replay sessions, and say how good their data was.

    Without a date: the session after the current one, which is the oldest stored one until
    `sc roll` moves on. With only --from or --to: up to the newest, or from the oldest stored
    session. At --speed 60 a session of 6.5 hours takes 6.5 minutes: breaks are waited for, nights
    are not.

    Example: sc replay --from 2018-11-02 --to 2018-11-23 --speed 60 --live
    """
    from stream_coord.compute.splits import Splits
    from stream_coord.pace import Pace, parse_speed
    from stream_coord.render.console import error_console, has_live_view
    from stream_coord.render.replay import replay_json, replay_text
    from stream_coord.render.sessions import history_notes
    from stream_coord.runs import record_replay

    if session is not None and (first is not None or last is not None):
        raise UsageError("--session does not go with --from or --to", "Give one or the other.")
    if live and quiet:
        raise UsageError("--live does not go with --quiet", "Give one or the other.")
    if session is not None:
        first = last = session
    pace = Pace(parse_speed(speed))
    dates = optional_date(first), optional_date(last)
    options = [*symbols_setting(symbols), *strategy_setting(strategy, sets)]
    with Shell.open(config, sets, json, quiet, now, options) as shell:
        with shell.out.strangers():
            acting = shell.strategy()
        plan = shell.plan(*dates, next_one=dates == (None, None))
        if live is None:
            live = pace.factor is not None and not quiet and has_live_view(error_console())
        with shell.ledger(create=True) as ledger:
            coordinator = plan.coordinator(acting, pace, Splits(ledger.splits()))
            coordinator.begun = context.obj
            with (
                _told_how_far(shell, coordinator),
                shell.out.strangers(),  # first, so that a display sees where prints go
                _display(shell, plan, coordinator, live) as moved,
            ):
                run = record_replay(
                    coordinator, ledger, shell.clock, shell.config, plan.calendar, moved
                )
            calls = ledger.source_calls(run.number)
        for note in history_notes(run.replay):
            shell.out.note(note)
        shell.out.answer(
            lambda: replay_text(run, plan.calendar, calls), lambda: replay_json(run, calls)
        )


@contextmanager
def _told_how_far(shell: Shell, coordinator: Coordinator) -> Iterator[None]:
    """Say how far a replay came that is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        from stream_coord.runs import stopped_at

        shell.out.note(stopped_at(coordinator) + ".")
        raise


@contextmanager
def _display(
    shell: Shell, plan: Plan, coordinator: Coordinator, live: bool
) -> Iterator[Callable[[ReplayedSession], None]]:
    """Show how far the replay is, live if asked for; yield what is to be called each session."""
    if live:
        from stream_coord.render.console import error_console
        from stream_coord.render.live import LiveView, live_header, live_view

        strategy = shell.config.mask(shell.config.settings.strategy.class_ or "none")
        header = live_header(
            plan.calendar, plan.universe.symbols, strategy, coordinator.replay.speed
        )
        view = LiveView(header, len(plan.sessions), plan.calendar.zone, coordinator.moment)
        with live_view(error_console(), view) as shown:
            if not shown:
                shell.out.note("no live view: stderr is no terminal that could show it.")
            yield lambda _: None
        return

    def moved(done: ReplayedSession) -> None:
        replayed = len(coordinator.replay.sessions)
        advance(replayed, len(plan.sessions), str(done.session.date))

    with shell.out.progress("Replaying") as advance:
        yield moved
