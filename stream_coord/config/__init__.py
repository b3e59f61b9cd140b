"""The configuration: a TOML file, overridden by the environment, overridden by ``--set``.

It is checked as a whole, and one error names everything that is wrong with it. Texts that hold a
secret are `MaskedText`: settings can be printed and dumped without showing it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from stream_coord.bars import SYMBOL_RULE, Symbol
from stream_coord.config.check import Checker, KeyPath, check_meaning, show
from stream_coord.config.files import (
    current_folder,
    nearest_file,
    printable,
    read_text,
    read_toml,
    reason,
)
from stream_coord.config.layers import Layers
from stream_coord.config.masking import MaskedText, mask_secrets, shown_form
from stream_coord.config.settings import Settings, is_built
from stream_coord.errors import ConfigError, SymbolError
from stream_coord.interval import Interval

_MAX_PROBLEMS_SHOWN = 100
_MAY_HOLD_SECRETS = ("store", "ledger", "sources", "strategy")


@dataclass(frozen=True)
class Config:
    """Checked settings, and where they came from.

    Attributes:
        settings: The effective settings. Texts of ``store``, ``ledger``, ``sources`` and
            ``strategy`` that hold a secret are `MaskedText`; all others are plain.
        path: The TOML file; None when there is none.
        root: The folder that relative paths start from: the file's, or the current one.
        notes: Warnings to show to the user.
        digest: XXH3-128 as 32 hex digits over the settings that can change what a replay delivers
            or how that is rated: symbols, base interval, calendar, upkeep, history, session, and
            the sources' names and kinds in order. Addresses, secrets, prefetch settings and the
            strategy are not in it. Order and spelling of keys, symbols and intervals do not matter.
    """

    settings: Settings
    path: Path | None
    root: Path
    notes: tuple[str, ...]
    digest: str
    _symbols: tuple[Symbol, ...] = field(default=(), repr=False)
    _shown: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The checked symbols, sorted by code point; empty: all that the store holds."""
        return self._symbols

    @property
    def base_interval(self) -> Interval:
        """The interval that is stored and streamed."""
        return Interval.parse(self.settings.base_interval)

    @property
    def cache_dir(self) -> Path:
        """The folder for what can be computed again."""
        return self.root / ".sc"

    def dump(self) -> str:
        """Return the effective settings as TOML, with ``${NAME}`` or ``***`` for what is secret."""
        import tomli_w

        return tomli_w.dumps(self._shown)

    def mask(self, text: str) -> str:
        """Return `text`, bound for a log or a ledger, without the secrets of these settings."""
        return mask_secrets(text, self._secrets)

    @cached_property
    def _secrets(self) -> frozenset[str]:
        secrets: set[str] = set()

        def collect(text: str) -> str:
            if isinstance(text, MaskedText):
                secrets.update(text.secrets)
            return text

        _tables(self.settings, collect)
        return frozenset(secrets)


def load_config(
    path: Path | None,
    *,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> Config:
    """Read the settings file and what overrides it.

    Args:
        path: The TOML file; None for the nearest ``sc.toml``, from `cwd` upwards.
        sets: ``section.key=value`` texts; they override the environment.
        environ: Holds ``SC_SECTION__KEY`` overrides and the variables of ``${NAME}``.
        cwd: The folder that a relative `path` starts from; None for the current one.

    Raises:
        ConfigError: there is no file, it cannot be read, or settings are unknown, of the wrong
            type or impossible; the message has one line for each.
    """
    cwd = (cwd or current_folder()).absolute()
    path = nearest_file(cwd) if path is None else cwd / path
    place = printable(path.relative_to(cwd) if path.is_relative_to(cwd) else path)
    return _build(read_toml(path, place), path, path.parent, place, sets, environ)


def config_from_tables(
    tables: Mapping[str, object],
    *,
    root: Path,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Return the configuration of settings that stand in no file; otherwise as `load_config`.

    Args:
        tables: What TOML would hold.
        root: The folder that relative paths start from.
        sets: ``section.key=value`` texts; they override the environment.
        environ: Holds ``SC_SECTION__KEY`` overrides and the variables of ``${NAME}``.

    Raises:
        ConfigError: settings are unknown, of the wrong type or impossible.
    """
    return _build(tables, None, root.absolute(), "settings", sets, environ)


def _build(
    tables: Mapping[str, object],
    path: Path | None,
    root: Path,
    place: str,
    sets: Sequence[str],
    environ: Mapping[str, str],
) -> Config:
    layers = Layers(tables, place)
    layers.add_environment(environ)
    layers.add_sets(sets)
    checker = Checker(environ, layers.place)
    checked = check_meaning(checker, checker.settings(layers.tables), layers.tables)
    symbols = _read_symbols(checker, checked, root)
    _check_files(checker, checked, root)
    _raise_problems(layers.problems + checker.problems, checker.hint)
    # A calendar's name is in every report: only these sections keep their texts masked.
    settings = structs.replace(
        msgspec.convert(_tables(checked, str), Settings),
        **{section: getattr(checked, section) for section in _MAY_HOLD_SECRETS},
    )
    return Config(
        settings=settings,
        path=path,
        root=root,
        notes=_notes(layers.tables),
        digest=_digest(settings, symbols),
        _symbols=symbols,
        _shown=_tables(checked, shown_form),
    )


def _tables(settings: Struct, text: Callable[[str], str]) -> dict[str, object]:
    """Return settings as TOML tables, each text as `text` makes it; what is None has no key."""

    def builtin(value: object) -> object:
        match value:
            case Struct():
                return _tables(value, text)
            case dict():
                return {key: builtin(item) for key, item in value.items()}
            case list():
                return [builtin(item) for item in value]
            case str():
                return text(value)
        return value

    values = zip(settings.__struct_encode_fields__, structs.astuple(settings), strict=True)
    return {key: builtin(value) for key, value in values if value is not None}


def _check_files(checker: Checker, settings: Settings, root: Path) -> None:
    """Report a SQLite file that is to be both store and ledger: each write has both open."""
    urls = (settings.store.url, settings.ledger.url)
    if all(url.startswith("sqlite:///") for url in urls):
        store, ledger = (root.joinpath(url.removeprefix("sqlite:///")).resolve() for url in urls)
        if store == ledger:
            what = " names the file of [store] url: a SQLite file cannot be both; name another"
            checker.report(("ledger", "url"), what)


def _read_symbols(checker: Checker, settings: Settings, root: Path) -> tuple[Symbol, ...]:
    """Return the symbols of the settings or of their file, checked and sorted."""
    texts: list[tuple[KeyPath, str, str]]
    texts = [(("symbols", i), "", text) for i, text in enumerate(settings.symbols)]
    if settings.symbols_file is not None:
        texts = _symbols_in(settings.symbols_file, root, checker)
    symbols = set()
    for path, where, text in texts:
        try:
            symbols.add(Symbol.parse(text))
        except SymbolError:
            checker.hint = SYMBOL_RULE
            checker.report(path, f"{where} = {show(text)}: must be a symbol")
    return tuple(sorted(symbols))


def _symbols_in(name: str, root: Path, checker: Checker) -> list[tuple[KeyPath, str, str]]:
    """Return what stands in a file of one symbol a line; ``#`` begins a comment."""
    path: KeyPath = ("symbols_file",)
    try:
        lines = read_text(root / name).split("\n")
    except (OSError, ValueError) as error:
        checker.report(path, f" = {show(name)}: {reason(error)}")
        return []
    texts = ((n, re.split(r"(?:^|\s)#", line)[0].strip()) for n, line in enumerate(lines, start=1))
    found = [(path, f" (line {n} of {show(name)})", text) for n, text in texts if text]
    if not found:
        checker.report(path, f" = {show(name)}: holds no symbol")
    return found


def _raise_problems(problems: Sequence[str], hint: str | None) -> None:
    if not problems:
        return
    lines = list(problems[:_MAX_PROBLEMS_SHOWN])
    if more := len(problems) - len(lines):
        lines.append(f"... and {more} more")
    if len(problems) > 1:
        lines.insert(0, f"{len(problems)} settings are wrong:")
    raise ConfigError("\n".join(lines), hint)


def _notes(tables: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a user should know about settings that are right."""
    keys = []
    for section, value in tables.items():
        keys += [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
    idle = [key for key in keys if not is_built(key)]
    return (f"checked, but without effect in this version: {', '.join(idle)}",) if idle else ()


def _digest(settings: Settings, symbols: Sequence[str]) -> str:
    from xxhash import xxh3_128_hexdigest

    derived = {"derived_intervals": _lengths(settings.upkeep.derived_intervals)}
    history = {"intervals": _lengths(settings.history.intervals)}
    content = {
        "symbols": [str(symbol) for symbol in symbols],
        "base_interval": _lengths([settings.base_interval]),
        "calendar": _tables(settings.calendar, str),
        "upkeep": _tables(settings.upkeep, str) | derived,
        "history": _tables(settings.history, str) | history,
        "session": _tables(settings.session, str),
        "sources": [(str(source.name), str(source.kind)) for source in settings.sources],
    }
    return xxh3_128_hexdigest(msgspec.json.encode(content, order="sorted"))


def _lengths(intervals: Sequence[str]) -> list[int]:
    return sorted({Interval.parse(text).micros for text in intervals})
