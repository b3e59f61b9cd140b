"""Where bars and what happened to them are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_coord.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from stream_coord.stores.base import BarStore

_EXAMPLE = "Write delta:PATH, for example delta:data/bars or delta:s3://bucket/bars."


def open_store(url: str, root: Path, *, create: bool = False) -> BarStore:
    """Open the bar store at `url`.

    Args:
        url: ``delta:PATH`` with a directory, or ``delta:s3://bucket/folder`` (``gs://``, ...).
        root: What a relative PATH is relative to.
        create: Make the store if there is none.

    Raises:
        ConfigError: `url` is no address of a store.
        StoreError: there is no store, or it cannot be opened.
    """
    from stream_coord.stores.delta import DeltaStore

    return DeltaStore(_delta_root(url, root), create=create)


def _delta_root(url: str, root: Path) -> str:
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ConfigError(f"{url!r} is not the address of a store", _EXAMPLE)
    if scheme != "delta":  # what follows the scheme may hold a password: it is never printed
        raise ConfigError(
            f"this version has only Delta stores, none of the kind {scheme + ':'!r}"
            + near_miss(scheme, ["delta"]),
            _EXAMPLE,
        )
    rest = rest.removeprefix("file://")
    if "://" not in rest:
        if not rest:
            raise ConfigError(f"{url!r} names no directory", _EXAMPLE)
        return str((root / Path(rest).expanduser()).absolute())
    if "@" in rest or "?" in rest:
        raise ConfigError(
            "the address of a store must hold no credentials",
            "Set them in the environment, for example AWS_ACCESS_KEY_ID.",
        )
    return rest.rstrip("/")
