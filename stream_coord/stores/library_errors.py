"""Turning what polars and deltalake raise into the one error tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stream_coord.errors import StoreError, StreamCoordError

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def library_errors_as(kind: type[StoreError], message: str, hint: str) -> Iterator[None]:
    """Raise `kind` with `message` and the library's reason for whatever the body raises.

    A panic of a Rust library is a `BaseException` that no ``except Exception`` sees: it is turned
    too. Our own errors, Ctrl-C and `SystemExit` pass as they are.
    """
    try:
        yield
    except StreamCoordError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{message}: {reason(error)}", hint) from error


def reason(error: BaseException) -> str:
    """Return the first lines of an error's text as one, free of terminal colours."""
    lines = [line.strip(" \t↳") for line in _ESCAPES.sub("", str(error)).splitlines()]
    return ": ".join(filter(None, lines[:4]))[:300] or type(error).__name__
