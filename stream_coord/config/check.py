"""From plain tables to settings, with every problem told and not only the first."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from typing import Annotated, Final, TypeGuard, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct, inspect, structs

from stream_coord.bars import SYMBOL_RULE, Symbol
from stream_coord.config.masking import expand, hide_whole, is_secret_name, shown_form
from stream_coord.config.settings import Settings
from stream_coord.errors import IntervalError, SymbolError, near_miss
from stream_coord.interval import DAY, Interval

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys, and positions within lists."""

MAX_DEPTH = 32
MAX_SOURCES = 64
"""As many as the bits in which a minute remembers who was asked for it."""
_BAD: Final = object()
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CLEAN = "a text of valid Unicode without NUL"
_SCALAR = "a number (64 bits, not NaN), a text, true or false, a time, a list or a table"
_INT64 = range(-(2**63), 2**63)

_S = TypeVar("_S", bound=Struct)


class Checker:
    """Reads values as the settings' types ask, and collects what is wrong.

    Args:
        environ: Where ``${NAME}`` is looked up.
        place: Tells where the value of a key path was written, for messages.
    """

    def __init__(self, environ: Mapping[str, str], place: Callable[[KeyPath], str]) -> None:
        self.problems: list[str] = []
        self.hint: str | None = None
        self._environ = environ
        self._place = place

    def report(self, path: KeyPath, what: str) -> object:
        """Note one problem of the value at `path`."""
        self.problems.append(f"{self._place(path)}: {dotted(path)}{what}")
        return _BAD

    def refuse(self, path: KeyPath, value: object, allowed: str) -> object:
        """Note that `value` is not what is allowed at `path`."""
        return self.report(path, f" = {show(value)}: must be {allowed}")

    def settings(self, tables: Mapping[str, object]) -> Settings:
        """Return the settings; where a value is wrong, its default stands in."""
        settings = self._struct(Settings, tables, ())
        return settings if isinstance(settings, Settings) else Settings()

    def _value(self, kind: object, value: object, path: KeyPath) -> object:
        bare = bare_type(kind)
        if is_struct(bare):
            return self._struct(bare, value, path)
        if get_origin(bare) is list:
            return self._list(get_args(bare)[0], value, path)
        if get_origin(bare) is dict:
            return self._free(value, path) if isinstance(value, dict) else self._table(value, path)
        if isinstance(value, str):
            value = self._text(value, path)
        if value is _BAD or fits(value, kind):
            return value
        return self.refuse(path, value, allowed(kind))

    def _struct(self, cls: type[_S], table: object, path: KeyPath) -> _S | object:
        if not isinstance(table, Mapping):
            return self._table(table, path)
        fields = {info.encode_name: info for info in structs.fields(cls)}
        for key in table:
            if key not in fields:
                place = self._place((*path, key))
                self.problems.append(f"{place}: {unknown((*path, key), fields)}")
        values, complete = {}, True
        for key, info in fields.items():
            if key in table:
                value = self._value(info.type, table[key], (*path, key))
                if value is not _BAD:
                    values[info.name] = value
            elif info.required:
                self.report((*path, key), f": is missing; it must be {allowed(info.type)}")
            complete &= info.name in values or not info.required
        return cls(**values) if complete else _BAD

    def _list(self, kind: object, value: object, path: KeyPath) -> object:
        if not isinstance(value, list):
            items = f"tables, written as [[{dotted(path)}]]" if is_struct(kind) else "texts"
            return self.refuse(path, value, f"a list of {items}")
        read = [self._value(kind, item, (*path, i)) for i, item in enumerate(value)]
        return _BAD if any(item is _BAD for item in read) else read

    def _table(self, value: object, path: KeyPath) -> object:
        return self.refuse(path, value, f"a table, written as [{dotted(path)}]")

    def _free(self, value: object, path: KeyPath) -> object:
        """Read a value whose type is the user's own affair: anything that TOML can hold."""
        if len(path) > MAX_DEPTH:
            return self.report(path[:4], f" ...: is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            items = value.items()
            return {self._key(key, path): self._free(item, (*path, key)) for key, item in items}
        if isinstance(value, list):
            return [self._free(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, path)
        return value if _is_scalar(value) else self.refuse(path, value, _SCALAR)

    def _key(self, key: object, path: KeyPath) -> str:
        if isinstance(key, str) and _is_clean(key):
            return key
        self.report(path, f": the key {show(key)} must be {_CLEAN}")
        return ""

    def _text(self, value: str, path: KeyPath) -> object:
        if not _is_clean(value):
            return self.refuse(path, value, _CLEAN)
        try:
            text = expand(value, self._environ)
        except ValueError as error:
            return self.report(path, f": {error}")
        secret = any(isinstance(key, str) and is_secret_name(key) for key in path)
        return hide_whole(text) if secret else text


def check_meaning(checker: Checker, settings: Settings, tables: Mapping[str, object]) -> Settings:
    """Report impossible values and return the settings with intervals that fit the base interval.

    Default intervals that do not fit a `base_interval` of the user's own choice are left out;
    intervals that the user wrote are errors then.
    """
    if "symbols_file" in tables and tables.get("symbols"):
        checker.report(("symbols_file",), ": is given beside symbols; keep one of the two")
    _check_sources(checker, settings)
    if settings.strategy.class_ is not None:
        module, _, name = settings.strategy.class_.rpartition(":")
        if not (module and name.isidentifier()):
            form = "module:Class or path.py:Class"
            checker.refuse(("strategy", "class"), settings.strategy.class_, form)
    return _fit_intervals(checker, settings, tables)


def _check_sources(checker: Checker, settings: Settings) -> None:
    names: set[str] = set()
    if len(settings.sources) > MAX_SOURCES:
        checker.report(("sources",), f": are {len(settings.sources)}; at most {MAX_SOURCES}")
    for i, source in enumerate(settings.sources):
        if source.name in names:
            checker.refuse(("sources", i, "name"), source.name, "a name of its own")
        if source.url is not None and source.path is not None:
            checker.report(("sources", i, "path"), ": is given beside url; keep one of the two")
        for n, text in enumerate(source.allow_nonpositive):
            _check_symbol(checker, text, ("sources", i, "allow_nonpositive", n))
        names.add(source.name)


def _check_symbol(checker: Checker, text: str, path: KeyPath) -> None:
    try:
        Symbol.parse(text)
    except SymbolError:
        checker.hint = SYMBOL_RULE
        checker.refuse(path, text, "a symbol")


def _fit_intervals(checker: Checker, settings: Settings, tables: Mapping[str, object]) -> Settings:
    base = _interval(checker, settings.base_interval, ("base_interval",))
    if base and (base.is_session or DAY % base.micros):
        allowed_base = "shorter than 1d and divide a day, such as 1m or 1h"
        checker.report(("base_interval",), f" = {show(str(base))}: must be {allowed_base}")
        base = None

    def fitting(section: str, key: str, texts: list[str], least: int) -> list[str]:
        table = tables.get(section)
        chosen = isinstance(table, Mapping) and key in table
        kept = []
        for i, text in enumerate(texts):
            interval = _interval(checker, text, (section, key, i))
            if not (interval and base) or _times(interval, base) >= least:
                kept.append(text)
            elif chosen:
                wanted = f"a whole multiple of base_interval ({base})"
                more = ", and longer than it" if least > 1 else ""
                checker.refuse((section, key, i), text, wanted + more)
        return kept

    derived = fitting("upkeep", "derived_intervals", settings.upkeep.derived_intervals, 2)
    history = fitting("history", "intervals", settings.history.intervals, 1)
    return structs.replace(
        settings,
        upkeep=structs.replace(settings.upkeep, derived_intervals=derived),
        history=structs.replace(settings.history, intervals=history or [settings.base_interval]),
    )


def _times(interval: Interval, base: Interval) -> int:
    """Return how many base intervals make up `interval`; 0 if it is no whole number of them."""
    times, rest = divmod(interval.micros, base.micros)
    return 0 if rest else times


def _interval(checker: Checker, text: str, path: KeyPath) -> Interval | None:
    try:
        return Interval.parse(text)
    except IntervalError:
        wanted = "a number and a unit (s, m, h or d) up to 1d, such as 1m, 15m, 1h"
        checker.refuse(path, text, wanted)
        return None


def is_struct(kind: object) -> TypeGuard[type[Struct]]:
    """Tell whether a type is one of the settings' tables."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def bare_type(kind: object) -> object:
    """Return a type without its `Annotated` limits and documentation."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def fits(value: object, kind: object) -> bool:
    """Tell whether `value` is of the type `kind` and within its limits; ``true`` is not 1."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def allowed(kind: object) -> str:
    """Say what a setting of the type `kind` may be.

    >>> allowed(bool)
    'true or false'
    """
    return _allowed(inspect.type_info(kind))


def _allowed(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(type=inner):
            return _allowed(inner)
        case inspect.UnionType(types=kinds):
            return _allowed(kinds[0])
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.LiteralType(values=values):
            return " or ".join(repr(value) for value in values)
    what = "a table" if isinstance(info, inspect.DictType) else "a text"
    return f"{what} that is not empty" if getattr(info, "min_length", None) else what


def unknown(path: KeyPath, known: Iterable[str]) -> str:
    """Say that the last key of `path` is none of `known`."""
    key, names = path[-1], list(known)
    close = near_miss(key, names) if isinstance(key, str) else ""
    return f"unknown key {dotted(path)}{close}; allowed: {', '.join(names)}"


def dotted(path: KeyPath) -> str:
    """Return a key path for people.

    >>> dotted(("sources", 0, "url"))
    'sources[0].url'
    """
    text = ""
    for key in path:
        bare = isinstance(key, str) and _BARE_KEY.fullmatch(key)
        text += f"[{key}]" if isinstance(key, int) else f".{key if bare else show(key)}"
    return text.removeprefix(".")


class _Shortener(reprlib.Repr):
    """Short on purpose: what is inside a list or table may be secret, and is not the problem."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 0, 60, 60

    def repr_bool(self, value: bool, _level: int) -> str:
        return str(value).lower()

    def repr_int(self, value: int, _level: int) -> str:
        # Python refuses to print an integer of thousands of digits, which 0xfff... can be.
        return str(value) if value in _INT64 else f"an integer of {value.bit_length()} bits"


def show(value: object) -> str:
    """Return a short form of any value, on one line and with nothing secret in it."""
    return _Shortener().repr(shown_form(value) if isinstance(value, str) else value)


def _is_scalar(value: object) -> bool:
    if isinstance(value, int):
        return value in _INT64
    return isinstance(value, (date, time)) or (isinstance(value, float) and not math.isnan(value))


def _is_clean(text: str) -> bool:
    # What comes from the environment or a command line may hold undecodable bytes.
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
