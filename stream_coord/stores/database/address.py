"""The addresses of databases, checked; what is refused is never printed where it may be secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_coord.errors import ConfigError, near_miss
from stream_coord.stores.database.base import Subject

if TYPE_CHECKING:
    from sqlalchemy import URL

POSTGRES = "postgresql+psycopg"

_HINT = (
    "Write sqlite:///path/to/file.db or postgresql+psycopg://user:${PASSWORD}@host:5432/database."
)
_KINDS = {"sqlite": "sqlite", "postgresql": POSTGRES, POSTGRES: POSTGRES}


def parse_address(url: str, subject: Subject) -> URL:
    """Return a database's address in parts; its driver is ``sqlite`` or `POSTGRES`.

    Raises:
        ConfigError: it is no such address. The message holds no secret.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    place = f"[{subject}] url"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"{place} is no database URL", _HINT) from None
    kind = parsed.drivername
    if kind not in _KINDS:
        close = near_miss(kind, _KINDS)
        raise ConfigError(f"{place} cannot be of the kind {kind!r}{close}", _HINT)
    if kind != "sqlite":
        _check_server(url, parsed, place)
    elif (
        parsed.database in {None, "", ":memory:"}
        or parsed.host
        or "?" in url  # make_url drops options without a value, and would name another file
    ):
        raise ConfigError(f"{place} does not name just a file", _HINT)
    return parsed.set(drivername=_KINDS[kind])


def _check_server(url: str, parsed: URL, place: str) -> None:
    if url.count("@") > 1:  # the rest of a password would be taken for the host
        raise ConfigError(
            f"{place} has more than one @", "Write the @ of a user, password or option as %40."
        )
    if not parsed.database:
        raise ConfigError(f"{place} does not name a database", _HINT)
    if {"password", "sslpassword"} & set(parsed.query):
        raise ConfigError(f"{place} has a password among its options", _HINT)
