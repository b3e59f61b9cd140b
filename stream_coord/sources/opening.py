"""The configured sources, made: built-in ones and those of installed plugins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import msgspec

from stream_coord.config import Config
from stream_coord.config.check import show
from stream_coord.config.masking import shown_form
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, StreamCoordError, near_miss
from stream_coord.sources.files import LeanSource, TableFilesSource
from stream_coord.sources.guard import GuardedSource
from stream_coord.sources.options import in_settings
from stream_coord.sources.places import Place, database_place, store_place
from stream_coord.sources.protocol import (
    ENTRY_POINTS,
    BarSource,
    NamedSource,
    SourceFactory,
)
from stream_coord.sources.store import StoreSource
from stream_coord.sources.table import TableSource

BUILT_IN: dict[str, SourceFactory] = {
    "store": StoreSource,
    "csv": TableFilesSource,
    "parquet": TableFilesSource,
    "lean": LeanSource,
    "table": TableSource,
}
_PASSWORD = re.compile(r"(://[^/@:]*):[^/@]*@")
_METHODS = ("coverage", "bars", "close")


def sources_of(config: Config) -> tuple[NamedSource, ...]:
    """Make the configured sources, in their order; no file and no connection is opened.

    What they raise later is a `SourceError` without the settings' secrets.

    Raises:
        ConfigError: a kind is unknown, a setting is missing, unknown or impossible, a source is
            the configured store itself, or a plugin cannot be loaded or raises.
    """
    return tuple(
        _named_source(config, number, settings)
        for number, settings in enumerate(config.settings.sources)
    )


def _named_source(config: Config, number: int, settings: SourceSettings) -> NamedSource:
    place = f"sources[{number}] ({settings.name})"
    make = BUILT_IN.get(settings.kind)
    with _errors(place, config.mask):
        if make is not None:
            source = make(settings, config.root)
            _check_place(config, settings)
        else:
            source = _plugin(settings, config.root)
    return NamedSource(
        name=settings.name,
        identity=_identity(settings),
        source=GuardedSource(source, config.mask),
        compare=settings.compare,
        allow_nonpositive=frozenset(settings.allow_nonpositive),
    )


def _identity(settings: SourceSettings) -> str:
    """Return what the ledger knows a source by: whoever is told otherwise may answer otherwise.

    Its options are in it as a short hash, less the secrets: a new password makes no new source.
    """
    address = _PASSWORD.sub(r"\1@", shown_form(settings.url or settings.path or ""))
    parts = [settings.kind, address]
    if settings.kind == "table":
        names = (settings.options.get("schema"), settings.options.get("table"))
        parts.append(".".join(shown_form(name) for name in names if isinstance(name, str)))
    if settings.options:
        parts.append(f"#{_options_hash(settings.options)}")
    return f"{settings.name}: {' '.join(filter(None, parts))}"


def _options_hash(options: Mapping[str, object]) -> str:
    from xxhash import xxh3_64_hexdigest

    def shown(value: object) -> object:
        if isinstance(value, str):
            return shown_form(value)
        if isinstance(value, Mapping):
            return {key: shown(item) for key, item in value.items()}
        return [shown(item) for item in value] if isinstance(value, list) else value

    text = msgspec.json.encode(shown(options), order="sorted", enc_hook=str)
    return xxh3_64_hexdigest(text)[:6]


@contextmanager
def _errors(place: str, mask: Callable[[str], str]) -> Iterator[None]:
    """Say of which source's settings an error tells, without a secret."""
    try:
        yield
    except StreamCoordError as error:
        raise ConfigError(mask(f"{place}: {in_settings(error)}")) from None


def _check_place(config: Config, settings: SourceSettings) -> None:
    """Check that a source is not the store, nor a SQLite file that is open otherwise too.

    A SQLite file loses its locks where two copies of SQLite in one process have it open: bar
    stores are read by ADBC's, ledgers and tables by Python's.
    """
    own, ledger = config.settings.store.url, config.settings.ledger.url
    if settings.kind == "store" and settings.url is not None:
        place = store_place(settings.url, config.root)
        if place.is_at(store_place(own, config.root)):
            raise ConfigError("url: is that of [store], which cannot be its own source")
        _refuse_file(place, "the ledger's", [database_place(ledger, config.root)])
    elif settings.kind == "table" and settings.url is not None:
        stores = [
            store_place(url, config.root)
            for url in (own, *(s.url for s in config.settings.sources if s.kind == "store"))
            if url is not None
        ]
        _refuse_file(database_place(settings.url, config.root), "a bar store's", stores)


def _refuse_file(place: Place, whose: str, others: list[Place]) -> None:
    if place.kind == "sqlite" and any(map(place.is_at, others)):
        raise ConfigError(f"url: is {whose} SQLite file, which cannot be read otherwise as well")


def _plugin(settings: SourceSettings, root: Path) -> BarSource:
    """Make the source of an installed plugin.

    Raises:
        ConfigError: there is none of this kind, or what it offers is no source.
    """
    entry = _entry_point(settings.kind)
    whose = f"the plugin {entry.value!r} of the kind {entry.name!r}"
    try:
        source = entry.load()(settings, root)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except StreamCoordError as error:
        raise ConfigError(f"{whose}: {error}") from error
    except BaseException as error:  # a panic or sys.exit() is no Exception
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"{whose} failed: {said}") from error
    if missing := [name for name in _METHODS if not callable(getattr(source, name, None))]:
        raise ConfigError(
            f"{whose} made a {type(source).__name__}, which has no {', '.join(missing)}",
            "See stream_coord.sources.protocol for what a source has.",
        )
    made: BarSource = source
    return made


def _entry_point(kind: str) -> EntryPoint:
    plugins = entry_points(group=ENTRY_POINTS)
    found = {entry.value: entry for entry in plugins if entry.name == kind}
    if not found:
        known = [*BUILT_IN, *sorted(plugins.names)]
        raise ConfigError(
            f"kind = {show(kind)}: there is no such kind of source{near_miss(kind, known)}",
            f"There are {', '.join(known)}; a plugin is a package with an entry point of the "
            f"group {ENTRY_POINTS}.",
        )
    if len(found) > 1:
        raise ConfigError(f"kind = {show(kind)}: several plugins offer it: {', '.join(found)}")
    return next(iter(found.values()))
