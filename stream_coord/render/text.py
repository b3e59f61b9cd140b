"""Numbers and times as people read them."""

from __future__ import annotations

import re
from math import floor

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Return outside text with its control characters written out: none reaches a terminal.

    >>> print(printable("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def percent(value: float | None) -> str:
    """Return a percentage with two decimals, cut, not rounded: only what is whole shows 100.

    >>> percent(100 * 389 / 390), percent(99.9999), percent(100.0), percent(None)
    ('99.74', '99.99', '100.00', 'n/a')
    """
    return "n/a" if value is None else f"{floor(value * 100 + 1e-9) / 100:.2f}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "session"), plural(9357, "bar")
    ('1 session', '9,357 bars')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds(value: float) -> str:
    """Return a duration.

    >>> seconds(0.0123), seconds(3.14159)
    ('12 ms', '3.1 s')
    """
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
