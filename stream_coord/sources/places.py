"""Where addresses lead to: whether two of them are the same store or file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream_coord.errors import ConfigError, near_miss
from stream_coord.stores import home_path

_KINDS = ("delta", "sqlite", "postgresql", "postgresql+psycopg")
_HINT = "Write delta:PATH, sqlite:///PATH or postgresql+psycopg://USER:${NAME}@HOST:PORT/DATABASE."
_LOCAL = {"", "localhost", "127.0.0.1", "::1", "[::1]"}


@dataclass(frozen=True)
class Place:
    """Where a database, a Delta table or a file is.

    Attributes:
        kind: What is there.
        where: Equal for the same place, without secrets.
        path: Of a file or folder on this machine; None of another place.
    """

    kind: Literal["delta", "sqlite", "postgresql"]
    where: str
    path: Path | None = None

    def is_at(self, other: Place) -> bool:
        """Tell whether both are the same file, table or database, whatever links lead there."""
        if self.kind != other.kind or self.path is None or other.path is None:
            return (self.kind, self.where) == (other.kind, other.where)
        try:
            return self.path.samefile(other.path)
        except OSError:  # one of them is not there yet
            return self.path.resolve() == other.path.resolve()


def store_place(url: str, root: Path) -> Place:
    """Return where the address of a store leads; opens nothing.

    Raises:
        ConfigError: it is no such address.
    """
    kind, colon, rest = url.partition(":")
    if not colon:
        raise ConfigError(f"{url!r} is not the address of a store", _HINT)
    if kind not in _KINDS:  # what follows may hold a password: it is never printed
        raise ConfigError(f"no store is of the kind {kind + ':'!r}{near_miss(kind, _KINDS)}", _HINT)
    if kind != "delta":
        return database_place(url, root)
    rest = rest.removeprefix("file://")
    if not rest:
        raise ConfigError("'delta:' names no directory", _HINT)
    if "://" in rest:
        return Place("delta", rest.rstrip("/"))
    path = (root / home_path(rest)).absolute()
    return Place("delta", str(path), path)


def database_place(url: str, root: Path) -> Place:
    """Return where the address of a database leads; opens nothing.

    Raises:
        ConfigError: it is no such address.
    """
    from stream_coord.stores.database.address import parse_address

    address = parse_address(url, "store")
    if address.drivername == "sqlite":
        path = (root / str(address.database)).absolute()
        return Place("sqlite", str(path), path)
    host = address.host or ""
    server = "" if host in _LOCAL else host.lower()
    options = sorted((name, str(value)) for name, value in address.query.items())
    # An option may lead to another schema, so that other options are another place.
    where = f"{server}:{address.port or 5432}/{address.database}?{options}"
    return Place("postgresql", where)
