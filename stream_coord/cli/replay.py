"""``sc replay``."""

from __future__ import annotations

from typing import Annotated

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
    from stream_coord.planning import choose_sessions, choose_universe, next_to_replay
    from stream_coord.render.replay import replay_json, replay_text
    from stream_coord.runs import record_replay

    if session is not None and (first is not None or last is not None):
        raise UsageError("--session does not go with --from or --to", "Give one or the other.")
    shell = Shell.open(config, sets, json, quiet, now)
    acting = shell.strategy(strategy)
    calendar, store, interval = shell.calendar(), shell.store(), shell.config.base_interval
    dates = optional_date(session or first), optional_date(session or last)
    if dates == (None, None):
        dates = (next_to_replay(calendar, store, interval).date,) * 2
    sessions = choose_sessions(calendar, store, interval, *dates)
    universe = choose_universe(store, interval, sessions, chosen_symbols(symbols, shell.config))
    for note in universe.notes:
        shell.out.note(note)
    coordinator = Coordinator(store, interval, universe, sessions, acting, begun=context.obj)
    with (
        shell.ledger(create=True) as ledger,
        shell.out.progress("Replaying") as advance,
    ):
        run = record_replay(
            coordinator,
            ledger,
            shell.clock,
            shell.config,
            calendar,
            lambda done: advance(
                len(coordinator.replay.sessions), len(sessions), str(done.session.date)
            ),
        )
    shell.out.show(replay_text(run, calendar))
    shell.out.document(replay_json(run))
