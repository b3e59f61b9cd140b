"""``sc replay``."""

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
    strategy_setting,
    symbols_setting,
)
from stream_coord.errors import UsageError

if TYPE_CHECKING:
    from stream_coord.coordinator import ReplayedSession


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
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    now: NowOption = None,
) -> None:
    """Replay sessions, and say how good their data was.

    Without a date: the session after the current one. The current session is the oldest stored
    one. With only --from or --to: up to the newest, or from the oldest stored session.

    Example: sc replay --from 2018-11-02 --to 2018-11-23
    """
    from stream_coord.coordinator import Coordinator
    from stream_coord.render.replay import replay_json, replay_text
    from stream_coord.runs import record_replay

    if session is not None and (first is not None or last is not None):
        raise UsageError("--session does not go with --from or --to", "Give one or the other.")
    if session is not None:
        first = last = session
    dates = optional_date(first), optional_date(last)
    options = [*symbols_setting(symbols), *strategy_setting(strategy, sets)]
    with Shell.open(config, sets, json, quiet, now, options) as shell:
        with shell.out.strangers():
            acting = shell.strategy()
        plan = shell.plan(*dates, next_one=dates == (None, None))
        coordinator = Coordinator(
            plan.store, plan.interval, plan.universe, plan.sessions, acting, begun=context.obj
        )

        def moved(done: ReplayedSession) -> None:
            replayed = len(coordinator.replay.sessions)
            advance(replayed, len(plan.sessions), str(done.session.date))

        with (
            shell.ledger(create=True) as ledger,
            shell.out.progress("Replaying") as advance,
            shell.out.strangers(),
        ):
            run = record_replay(
                coordinator, ledger, shell.clock, shell.config, plan.calendar, moved
            )
        shell.out.answer(lambda: replay_text(run, plan.calendar), lambda: replay_json(run))
