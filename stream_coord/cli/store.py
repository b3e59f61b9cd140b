"""``sc store``: the commands on whole stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from stream_coord.cli.guard import guarded
from stream_coord.cli.shell import (
    ConfigOption,
    JsonOption,
    QuietOption,
    SetOption,
    Shell,
    SymbolsOption,
    optional_date,
)
from stream_coord.errors import UsageError
from stream_coord.render.console import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_coord.copying import CopyChoice
    from stream_coord.stores.base import BarStore

UrlArgument = Annotated[
    str | None,
    typer.Argument(metavar="URL", help="The store, such as delta:data/bars; else the settings'."),
]
FirstDateOption = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="First UTC date, YYYY-MM-DD.")
]
LastDateOption = Annotated[
    str | None, typer.Option("--to", metavar="DATE", help="Last UTC date, YYYY-MM-DD.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
]


def store_app() -> typer.Typer:
    """Return the commands of ``sc store``."""
    app = typer.Typer(help="Look into, verify, compact and copy bar stores.", no_args_is_help=True)
    for name, command in _COMMANDS.items():
        app.command(name)(guarded(command))
    return app


def info(
    url: UrlArgument = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a store holds; reads no bars.

    Without URL: the store of the settings. A password belongs into the environment, and into URL
    as ${NAME}, in single quotes.

    Example: sc store info 'postgresql+psycopg://sc:${PGPASSWORD}@localhost/bars'
    """
    from stream_coord.render.store import info_json, info_text
    from stream_coord.storing import store_info

    with _opened(url, config, sets, json, quiet) as (store, out):
        found = store_info(store)
        out.answer(lambda: info_text(found), lambda: info_json(found))


def verify(
    url: UrlArgument = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every bar of a store and compare it with its checksum; exit 1 if one is damaged.

    All damage is listed, by interval, UTC date and symbol.

    Example: sc store verify delta:data/bars
    """
    from stream_coord.render.store import damage_lines, verification_json, verification_text
    from stream_coord.storing import verify_store

    with _opened(url, config, sets, json, quiet) as (store, out):
        with out.progress("Verifying") as advance:
            found = verify_store(store, advance)
        out.answer(lambda: verification_text(found), lambda: verification_json(found))
        if found.damaged:
            out.fail(damage_lines(found.damaged))
            raise typer.Exit(1)


def compact(
    url: UrlArgument = None,
    retain_hours: Annotated[
        int | None,
        typer.Option(
            "--retain-hours",
            metavar="N",
            help="Keep replaced files so long, for those who still read them; default 168.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge a store's small files, and delete what nobody needs any more.

    Bars and data versions stay as they are; commands that run at the same time go on. It may be
    stopped anywhere, and run again. A SQL database is told to compact itself.

    Example: sc store compact delta:data/bars --retain-hours 24
    """
    from stream_coord.render.store import compaction_json, compaction_text
    from stream_coord.stores.base import RETAIN_HOURS

    hours = RETAIN_HOURS if retain_hours is None else retain_hours
    with _opened(url, config, sets, json, quiet) as (store, out):
        with out.progress("Compacting") as advance:
            done = store.compact(retain_hours=hours, dry_run=dry_run, on_progress=advance)
        out.answer(
            lambda: compaction_text(done, dry_run=dry_run),
            lambda: compaction_json(done, dry_run=dry_run),
        )


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy from.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The store to copy to.")],
    symbols: SymbolsOption = None,
    first: FirstDateOption = None,
    last: LastDateOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy bars from one store to another: only the symbol-days whose checksums differ.

    DST is made if there is none. It is as if SRC's bars were imported: they replace others of
    the same key, and what only DST holds stays; where that leaves a difference, it is reported and
    the exit code is 1. A copy that was stopped goes on when it is run again.

    Example: sc store copy delta:data/bars sqlite:///bars.db --from 2018-11-01
    """
    from stream_coord.render.store import copied_failures, copied_json, copied_text

    begun = perf_counter()
    choice = _choice(symbols, first, last)
    out = Output(json, quiet)
    with _opened_pair(source, target, dry_run) as (src, dst):
        from stream_coord.copying import copy_store

        with _resumable(out), out.progress("Copying") as advance:
            done = copy_store(src, dst, choice, dry_run=dry_run, on_progress=advance)
        seconds = perf_counter() - begun
        out.answer(
            lambda: copied_text(done, seconds, dry_run=dry_run),
            lambda: copied_json(done, seconds, dry_run=dry_run),
        )
        if failures := copied_failures(done):
            out.fail(failures)
            raise typer.Exit(1)


@contextmanager
def _opened(
    url: str | None, config: ConfigOption, sets: SetOption, json: bool, quiet: bool
) -> Iterator[tuple[BarStore, Output]]:
    """Open the store that is named, without any settings; or else that of the settings."""
    if url is None:
        with Shell.open(config, sets, json, quiet, None) as shell, closing(shell.store()) as store:
            yield store, shell.out
        return
    from stream_coord.storing import StoreAddress

    if config is not None or sets:
        raise UsageError(
            "URL does not go with --config or --set", "Without URL it is the settings' store."
        )
    address = StoreAddress.parse(url)
    with address.masked(), closing(address.open()) as store:
        yield store, Output(json, quiet)


@contextmanager
def _opened_pair(
    source: str, target: str, dry_run: bool
) -> Iterator[tuple[BarStore, BarStore | None]]:
    """Open both stores; make the target, unless it is a dry run."""
    from stream_coord.storing import StoreAddress

    addresses = StoreAddress.parse(source), StoreAddress.parse(target)
    with addresses[0].masked(), addresses[1].masked(), closing(addresses[0].open()) as src:
        dst = addresses[1].open_if_there() if dry_run else addresses[1].open(create=True)
        with nullcontext() if dst is None else closing(dst):
            yield src, dst


@contextmanager
def _resumable(out: Output) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        out.note("what was copied so far is whole; run it again to go on.")
        raise


def _choice(symbols: SymbolsOption, first: str | None, last: str | None) -> CopyChoice:
    from stream_coord.bars import parse_symbols
    from stream_coord.copying import CopyChoice

    named = None
    if symbols is not None:
        named = parse_symbols(part.strip() for text in symbols for part in text.split(","))
    return CopyChoice(named, optional_date(first), optional_date(last))


_COMMANDS: dict[str, Callable[..., None]] = {
    "info": info,
    "verify": verify,
    "compact": compact,
    "copy": copy,
}
