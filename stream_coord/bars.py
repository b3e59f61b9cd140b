"""The one bar schema, checked symbols, and the bar object.

Between rooms bars travel as polars frames with the columns of `COLUMNS`: ``symbol`` (String),
``start`` (Int64, UTC microseconds since the epoch), and ``open, high, low, close, volume``
(Float64). A *bar frame* has no nulls, is sorted by (symbol, start) and holds no key twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from stream_coord.errors import SymbolError

if TYPE_CHECKING:
    import polars as pl

FIELDS = ("open", "high", "low", "close", "volume")
COLUMNS = ("symbol", "start", *FIELDS)

SYNTHETIC = 1
"""Flag of a bar that no source delivered: flat, volume 0."""
FILLED = 2
"""Flag of a bar that upkeep filled during the run."""
TRUNCATED = 4
"""Flag of a derived bar whose bucket is cut by the segment's close."""

SYMBOL_PATTERN = r"^[A-Za-z0-9^$][A-Za-z0-9._:/=^$&+#@~-]{0,63}$"
_SYMBOL = re.compile(SYMBOL_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
SYMBOL_RULE = (
    "A symbol is 1 to 64 characters, begins with a letter, a digit, ^ or $, and goes on with "
    "letters, digits and . _ : / = ^ $ & + # @ ~ - ; it has no '..' in it."
)


class Symbol(str):
    """A checked symbol: a plain `str` that `Symbol.parse` let through."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Symbol:
        """Check `text` and return it as a symbol.

        Raises:
            SymbolError: `text` is no symbol.

        >>> Symbol.parse("BRK.B")
        'BRK.B'
        """
        if not _SYMBOL.match(text) or ".." in text:
            raise SymbolError(f"{text!r} is not a symbol", SYMBOL_RULE)
        return cls(text)


def parse_symbols(texts: Iterable[str]) -> tuple[Symbol, ...]:
    """Check symbols and return them without repeats, sorted by code point.

    Raises:
        SymbolError: one of them is no symbol.
    """
    return tuple(sorted({Symbol.parse(text) for text in texts}))


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One bar of one symbol, visible from `end` on.

    Attributes:
        symbol: The symbol.
        interval: The interval's name, for example ``"1m"``.
        start: UTC microseconds, the bar's key; `end` is exclusive.
        end: UTC microseconds.
        open: First price; `high`, `low` and `close` likewise.
        volume: Traded quantity.
        flags: Bits `SYNTHETIC`, `FILLED`, `TRUNCATED`.
        n: Base bars that the bar is built of (1 for a base bar).
        n_expected: Base bars that a complete one is built of.
    """

    symbol: str
    interval: str
    start: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    flags: int = 0
    n: int = 1
    n_expected: int = 1


def empty_frame() -> pl.DataFrame:
    """Return a bar frame with no rows."""
    import polars as pl

    return pl.DataFrame(schema=frame_schema())


def frame_schema() -> dict[str, pl.DataType]:
    """Return the polars schema of a bar frame."""
    import polars as pl

    return {"symbol": pl.String(), "start": pl.Int64(), **dict.fromkeys(FIELDS, pl.Float64())}
