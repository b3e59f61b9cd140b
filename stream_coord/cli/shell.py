"""What all commands share: their options, and the opening of what the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_coord.clock import Clock, FixedClock, SystemClock, parse_date, parse_moment
from stream_coord.render.console import Output

if TYPE_CHECKING:
    from stream_coord.bars import Symbol
    from stream_coord.calendars import Calendar
    from stream_coord.config import Config
    from stream_coord.stores.base import BarStore
    from stream_coord.stores.ledger import Ledger
    from stream_coord.strategy import Strategy

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The settings file; default: the nearest sc.toml upwards."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and nothing else.")]
NowOption = Annotated[
    str | None,
    typer.Option("--now", metavar="TIME", help="Take this time, with offset, for the present."),
]
SymbolsOption = Annotated[
    str | None,
    typer.Option("--symbols", metavar="A,B,...", help="Only these symbols."),
]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="First session, YYYY-MM-DD.")
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="DATE", help="Last session, YYYY-MM-DD.")
]


@dataclass(frozen=True)
class Shell:
    """One call of a command: settings, clock, and where its output goes."""

    config: Config
    clock: Clock
    out: Output

    @classmethod
    def open(
        cls,
        config: Path | None,
        sets: list[str] | None,
        json: bool,
        quiet: bool,
        now: str | None,
    ) -> Shell:
        """Read the settings and show what a user should know about them."""
        from stream_coord.config import load_config

        shell = cls(load_config(config, sets=sets or ()), clock_at(now), Output(json, quiet))
        for note in shell.config.notes:
            shell.out.note(note)
        return shell

    def calendar(self) -> Calendar:
        """Open the configured calendar."""
        from stream_coord.calendars import open_calendar

        chosen = self.config.settings.calendar
        return open_calendar(
            chosen.name, chosen.hours, chosen.overrides, cache_dir=self.config.cache_dir
        )

    def store(self, *, create: bool = False) -> BarStore:
        """Open the configured bar store."""
        from stream_coord.stores import open_store

        return open_store(self.config.settings.store.url, self.config.root, create=create)

    def strategy(self, option: str | None) -> Strategy | None:
        """Load the strategy of ``--strategy``, or of the settings; None where there is none."""
        from stream_coord.strategy import load_strategy

        chosen = self.config.settings.strategy
        spec = option or chosen.class_
        # Parameters belong to the class they were written for.
        params = chosen.params if spec == chosen.class_ or not chosen.class_ else {}
        return load_strategy(spec, params, self.config.root) if spec else None

    @contextmanager
    def ledger(self, *, create: bool = False) -> Iterator[Ledger]:
        """Open the configured ledger, and close it."""
        from stream_coord.stores.ledger import open_ledger

        ledger = open_ledger(self.config.settings.ledger.url, self.config.root, create=create)
        try:
            yield ledger
        finally:
            ledger.close()


def clock_at(now: str | None) -> Clock:
    """Return the clock that ``--now`` asks for."""
    return SystemClock() if now is None else FixedClock(parse_moment(now))


def optional_date(text: str | None) -> date | None:
    """Return a date option's value."""
    return None if text is None else parse_date(text)


def chosen_symbols(option: str | None, config: Config) -> tuple[Symbol, ...]:
    """Return the symbols of ``--symbols``, or of the settings."""
    from stream_coord.bars import parse_symbols

    if option is None:
        return config.symbols
    return parse_symbols(part.strip() for part in option.split(","))
