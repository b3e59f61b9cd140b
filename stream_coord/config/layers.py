"""What overrides the settings file: environment variables, then ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args, get_origin

from msgspec import structs

from stream_coord.config.check import KeyPath, bare_type, dotted, fits, is_struct, show, unknown
from stream_coord.config.settings import Settings
from stream_coord.errors import near_miss

PREFIX = "SC_"
_TOP_KINDS: Mapping[str, object] = {
    info.encode_name: info.type for info in structs.fields(Settings)
}
_TOP_SETTINGS = [key for key, kind in _TOP_KINDS.items() if not is_struct(kind)]
_EXCLUSIVE = ("symbols", "symbols_file")


@dataclass(frozen=True)
class Override:
    """One setting from outside the file.

    Attributes:
        keys: The setting's dotted key, split.
        text: Its value as given.
        place: Where it was given, for messages.
    """

    keys: tuple[str, ...]
    text: str
    place: str


class Layers:
    """Tables of settings with overrides laid over them, knowing where each value came from.

    Args:
        tables: What the file holds; left as it is.
        place: The file, for messages.
    """

    def __init__(self, tables: Mapping[str, object], place: str) -> None:
        self.tables = dict(tables)
        self.problems: list[str] = []
        self._places: dict[KeyPath, str] = {(): place}

    def place(self, path: KeyPath) -> str:
        """Return where the value at `path` was given."""
        while path not in self._places:
            path = path[:-1]
        return self._places[path]

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Lay ``SC_SECTION__KEY`` variables over the tables; keys are their names in lower case.

        A variable without ``__`` that is no setting belongs to somebody else, unless it looks like
        a misspelt setting.
        """
        layer = []
        for name in sorted(name for name in environ if name.startswith(PREFIX)):
            keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
            if len(keys) > 1 or keys[0] in _TOP_KINDS or near_miss(keys[0], _TOP_SETTINGS):
                layer.append(Override(keys, environ[name], f"environment variable {name}"))
        self._add(layer)

    def add_sets(self, sets: Sequence[str]) -> None:
        """Lay ``section.key=value`` texts over the tables."""
        layer = []
        for text in sets:
            key, equals, value = text.partition("=")
            if equals:
                keys = tuple(part.strip() for part in key.split("."))
                layer.append(Override(keys, value.strip(), "--set"))
            else:
                self.problems.append(f"--set {show(text)}: must be section.key=value")
        self._add(layer)

    def _add(self, layer: Sequence[Override]) -> None:
        given = {override.keys[0] for override in layer}
        for key, other in (_EXCLUSIVE, reversed(_EXCLUSIVE)):
            if key in given and other not in given:
                self.tables.pop(other, None)  # --set symbols=SPY means these and no file
        for override in layer:
            try:
                kind = kind_at(override.keys)
            except LookupError as error:
                self.problems.append(f"{override.place}: {error.args[0]}")
            else:
                self._put(override, parse_value(override.text, kind))

    def _put(self, override: Override, value: object) -> None:
        table = self.tables
        for key in override.keys[:-1]:
            child = table.get(key, {})
            if not isinstance(child, dict):
                return  # the file's own value is wrong, and is reported as such
            table[key] = table = dict(child)
        table[override.keys[-1]] = value
        self._places[override.keys] = override.place


def kind_at(keys: tuple[str, ...]) -> object:
    """Return the type of the setting with these keys.

    Raises:
        LookupError: there is none; its argument says which key is wrong.
    """
    kind: object = Settings
    for depth, key in enumerate(keys, start=1):
        kind = bare_type(kind)
        if is_struct(kind):
            kinds = {info.encode_name: info.type for info in structs.fields(kind)}
            if key not in kinds:
                raise LookupError(unknown(keys[:depth], kinds))
            kind = kinds[key]
        elif kind is object or get_origin(kind) is dict:
            kind = object
        else:
            raise LookupError(
                f"{dotted(keys[: depth - 1])} is a single setting, with no keys in it"
            )
    return kind


def parse_value(text: str, kind: object) -> object:
    """Return `text` as a value of `kind`: a TOML value if that fits, else the text itself.

    A list of texts may also be written with commas, ``SPY,AIG``. What fits in no way is returned
    as TOML reads it, for the check to refuse.

    >>> parse_value("5", int), parse_value("5", str), parse_value("a, b", list[str])
    (5, '5', ['a', 'b'])
    """
    value = _toml_value(text)
    bare = bare_type(kind)
    if get_origin(bare) is list and get_args(bare)[0] is str and not isinstance(value, list):
        return _split(value if isinstance(value, str) else text)
    if value is None or (not fits(value, kind) and fits(text, kind)):
        return text
    return value


def _split(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


def _toml_value(text: str) -> object:
    """Return what `text` is as a TOML value, or None; TOML itself has no null."""
    import tomllib

    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return None
    return tables["value"] if len(tables) == 1 else None
