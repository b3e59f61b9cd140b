"""Where bars and what happened to them are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from stream_coord.stores.base import BarStore

_EXAMPLE = (
    "Write delta:PATH (for example delta:data/bars or delta:s3://bucket/bars), "
    "sqlite:///PATH or postgresql+psycopg://user:${PASSWORD}@host:5432/database."
)
_KINDS = ("delta", "sqlite", "postgresql", "postgresql+psycopg")


def open_store(url: str, root: Path, *, create: bool = False) -> BarStore:
    """Open the bar store at `url`.

    Args:
        url: ``delta:PATH`` with a directory, or ``delta:s3://bucket/folder`` (``gs://``, ...);
            ``sqlite:///relative/path`` or ``sqlite:////absolute/path``; or
            ``postgresql+psycopg://user:password@host:port/database``.
        root: What a relative path is relative to.
        create: Make the store if there is none (in PostgreSQL its tables, not the database).

    Raises:
        ConfigError: `url` is no address of a store.
        StoreMissingError: there is no store.
        StoreError: it cannot be opened.
    """
    kind, colon, rest = url.partition(":")
    if not colon:
        raise ConfigError(f"{url!r} is not the address of a store", _EXAMPLE)
    if kind not in _KINDS:  # what follows may hold a password: it is never printed
        raise ConfigError(
            f"no store is of the kind {kind + ':'!r}{near_miss(kind, _KINDS)}", _EXAMPLE
        )
    if kind == "delta":
        from stream_coord.stores.delta import DeltaStore

        return DeltaStore(_delta_root(rest, root), create=create)
    from stream_coord.stores.database.address import parse_address
    from stream_coord.stores.sql import SqlStore

    address = parse_address(url, "store")
    if kind == "sqlite":
        from stream_coord.stores.sql.sqlite import SqliteDatabase

        return SqlStore(SqliteDatabase((root / str(address.database)).absolute()), create=create)
    from stream_coord.stores.sql.postgres import PostgresDatabase

    return SqlStore(PostgresDatabase(url, root), create=create)


def home_path(text: str) -> Path:
    """Return a path, with the home folder for a ``~`` at its beginning.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{text!r} begins with the home folder of a user who is not known here",
            "Write the path in full.",
        ) from error


def _delta_root(place: str, root: Path) -> str:
    """Return the directory or bucket of a Delta store; `place` is what follows ``delta:``."""
    place = place.removeprefix("file://")
    if "://" not in place:
        if not place:
            raise ConfigError("'delta:' names no directory", _EXAMPLE)
        return str((root / home_path(place)).absolute())
    if "@" in place or "?" in place:
        raise ConfigError(
            "the address of a store must hold no credentials",
            "Set them in the environment, for example AWS_ACCESS_KEY_ID.",
        )
    return place.rstrip("/")
