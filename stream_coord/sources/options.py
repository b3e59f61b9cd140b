"""The settings of built-in sources, read as their kinds ask."""

# No `from __future__ import annotations`: msgspec evaluates the types of these classes.
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct, structs

from stream_coord.config.check import allowed, fits, show, unknown
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, StreamCoordError
from stream_coord.stores import home_path

_WORD = r"([\w/+:.%-]*[\w])"
_IN_SETTINGS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (rf"(?<!\S)--column {_WORD}=NUMBER", r"columns = { \1 = NUMBER }"),
        (rf"(?<!\S)--column {_WORD}=([0-9]+)", r"columns = { \1 = \2 }"),
        (rf"(?<!\S)--column {_WORD}=HEADER", r'columns = { \1 = "HEADER" }'),
        (r"(?<!\S)--column symbol=\.\.\.", 'columns = { symbol = "HEADER" }'),
        (rf"(?<!\S)--(label|tz|symbol) (?!to |with ){_WORD}", r'\1 = "\2"'),
        (r"\[(store|ledger)\] url", "the source's url"),
    )
]
"""Options of a command, and how they are written in a settings file."""
Text = Annotated[str, Meta(min_length=1)]


class RowOptions(Struct, frozen=True, kw_only=True):
    """What is stated of any table of bars; see `stream_coord.sources.base.TableFormat`."""

    label: Literal["open", "close"]
    tz: Text | None = None
    symbol: Text | None = None
    columns: dict[str, str | int] = {}
    time_format: Text = "iso"

    @property
    def headers(self) -> dict[str, str]:
        """The columns' names, or numbers as texts, by field."""
        return {field: str(header) for field, header in self.columns.items()}


class CsvOptions(RowOptions, frozen=True, kw_only=True):
    """What is stated of CSV files."""

    delimiter: Text = ","
    header: bool = True


class LeanOptions(Struct, frozen=True, kw_only=True):
    """What is stated of LEAN's files."""

    tz: Text | None = None
    symbol: Text | None = None


class TableOptions(RowOptions, frozen=True, kw_only=True):
    """What is stated of a table of a database."""

    table: Text
    schema: Text | None = None


class NoOptions(Struct, frozen=True, kw_only=True):
    """Nothing is stated."""


_S = TypeVar("_S", bound=Struct)


def read_options(cls: type[_S], options: Mapping[str, object]) -> _S:
    """Return a source's options as their kind asks.

    Raises:
        ConfigError: one is unknown, missing or of the wrong type.
    """
    fields = {info.encode_name: info for info in structs.fields(cls)}
    for key, value in options.items():
        if not fields:
            raise ConfigError(f"options.{key}: this kind of source has no options")
        if key not in fields:
            raise ConfigError(unknown(("options", key), fields))
        if not fits(value, fields[key].type):
            wanted = allowed(fields[key].type)
            raise ConfigError(f"options.{key} = {show(value)}: must be {wanted}")
    for key, info in fields.items():
        if info.required and key not in options:
            raise ConfigError(f"options.{key}: is missing; it must be {allowed(info.type)}")
    return cls(**options)


def no_options(settings: SourceSettings) -> None:
    """Check that a source has no options.

    Raises:
        ConfigError: it has.
    """
    read_options(NoOptions, settings.options)


def address_of(settings: SourceSettings) -> str:
    """Return a source's url.

    Raises:
        ConfigError: it has none.
    """
    if settings.url is None:
        instead = " in place of path" if settings.path is not None else ""
        raise ConfigError(f"url: is missing; a source of kind {settings.kind!r} has one{instead}")
    return settings.url


def path_of(settings: SourceSettings, root: Path) -> Path:
    """Return a source's file or folder.

    Raises:
        ConfigError: it has none.
    """
    if settings.path is None:
        instead = " in place of url" if settings.url is not None else ""
        raise ConfigError(f"path: is missing; a source of kind {settings.kind!r} has one{instead}")
    return (root / home_path(settings.path)).absolute()


def in_settings(error: StreamCoordError, joint: str = "\n") -> str:
    """Return what an error says, in the words of a source's settings, not of a command.

    Args:
        error: The error.
        joint: What is put between its message and its hint.
    """
    hint = "" if "`sc " in (error.hint or "") else error.hint or ""
    text = joint.join(filter(None, (error.message, " ".join(hint.split()))))
    for pattern, words in _IN_SETTINGS:
        text = pattern.sub(words, text)
    return re.sub(r"(?<!\S)--([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), text)
