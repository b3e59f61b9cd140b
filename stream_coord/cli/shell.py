"""What all commands share: their options, and the opening of what the settings name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_coord.clock import Clock, FixedClock, SystemClock, parse_date, parse_moment
from stream_coord.errors import LedgerMissingError, StreamCoordError
from stream_coord.render.console import Output

if TYPE_CHECKING:
    from stream_coord.calendars import Calendar
    from stream_coord.config import Config
    from stream_coord.opening import Plan
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
    list[str] | None,
    typer.Option("--symbols", metavar="A,B,...", help="Only these symbols; repeatable."),
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
    @contextmanager
    def open(
        cls,
        config: Path | None,
        sets: list[str] | None,
        json: bool,
        quiet: bool,
        now: str | None,
        options: Sequence[str] = (),
    ) -> Iterator[Shell]:
        """Read the settings and show what a user should know about them.

        No error that passes through the body shows a secret of the settings.

        Args:
            config: ``--config``.
            sets: ``--set``.
            json: ``--json``.
            quiet: ``--quiet``.
            now: ``--now``.
            options: What other options mean as settings; they win over `sets`.
        """
        from stream_coord.config import load_config

        loaded = load_config(config, sets=[*(sets or ()), *options])
        shell = cls(loaded, clock_at(now), Output(json, quiet))
        for note in loaded.notes:
            shell.out.note(note)
        try:
            yield shell
        except StreamCoordError as error:
            error.message = loaded.mask(error.message)
            error.hint = error.hint and loaded.mask(error.hint)
            raise

    def plan(self, first: date | None, last: date | None, *, next_one: bool = False) -> Plan:
        """Open calendar and store, and choose sessions and symbols.

        Args:
            first: The first session; None: the oldest stored.
            last: The last session; None: the newest stored.
            next_one: Take the session after the current one instead.
        """
        from stream_coord.opening import plan_replay

        plan = plan_replay(self.config, first, last, next_one=next_one)
        for note in plan.universe.notes:
            self.out.note(note)
        return plan

    def calendar(self) -> Calendar:
        """Open the configured calendar."""
        from stream_coord.opening import calendar_of

        return calendar_of(self.config)

    def store(self, *, create: bool = False) -> BarStore:
        """Open the configured bar store."""
        from stream_coord.opening import store_of

        return store_of(self.config, create=create)

    def strategy(self) -> Strategy | None:
        """Load the strategy of the settings; None where there is none."""
        from stream_coord.opening import strategy_of

        return strategy_of(self.config)

    def ledger(self, *, create: bool = False) -> AbstractContextManager[Ledger]:
        """Open the configured ledger, and close it."""
        from stream_coord.opening import ledger_of

        return ledger_of(self.config, create=create)

    @contextmanager
    def job_ledger(self, without: str, *, dry_run: bool) -> Iterator[Ledger | None]:
        """Open the ledger of a job that fills gaps, and close it.

        Args:
            without: What becomes of a dry run where there is no ledger, for the user.
            dry_run: Neither make a ledger nor bring it up to date.
        """
        from stream_coord.stores.ledger import open_ledger

        with ExitStack() as opened:
            ledger = None
            if not dry_run:
                ledger = opened.enter_context(self.ledger(create=True))
            else:
                url, root = self.config.settings.ledger.url, self.config.root
                try:
                    ledger = opened.enter_context(open_ledger(url, root, migrate=False))
                except LedgerMissingError as error:
                    self.out.note(f"{self.config.mask(error.message)}: {without}.")
            yield ledger

    def note_waiting(self) -> None:
        """Say that another process fills gaps, and that this one waits."""
        other = "another `sc roll` or `sc fill-gaps`"
        self.out.note(f"{other} works on this ledger; waiting for it to end.")


def clock_at(now: str | None) -> Clock:
    """Return the clock that ``--now`` asks for."""
    return SystemClock() if now is None else FixedClock(parse_moment(now))


def optional_date(text: str | None) -> date | None:
    """Return a date option's value."""
    return None if text is None else parse_date(text)


def symbols_setting(option: list[str] | None) -> list[str]:
    """Return ``--symbols`` as an override of the settings.

    Raises:
        SymbolError: a part of it is no symbol.
    """
    from stream_coord.bars import parse_symbols

    if option is None:
        return []
    symbols = parse_symbols(part.strip() for text in option for part in text.split(","))
    return [f"symbols={_toml(list(symbols))}"]


def strategy_setting(option: str | None, sets: list[str] | None) -> list[str]:
    """Return ``--strategy`` as an override of the settings.

    A path is looked for here first. The parameters in the settings are those of another class, so
    that only ``--set strategy.params...`` goes with it.
    """
    if option is None:
        return []
    place, colon, name = option.rpartition(":")
    if place.endswith(".py") and Path(place).is_file():
        option = f"{Path(place).absolute()}{colon}{name}"
    own = [text for text in sets or () if text.partition("=")[0].startswith("strategy.params")]
    return [f"strategy.class={_toml(option)}", "strategy.params={}", *own]


def _toml(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON text or list of texts is TOML as well
