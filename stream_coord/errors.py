"""What can go wrong, as one tree; a message says what, which value, what is allowed, what next.

::

    StreamCoordError                 exit code 1: the job failed
    |- UsageError                    exit code 2: wrong usage or configuration
    |  |- ConfigError                a settings file, environment value or --set
    |  |- SymbolError                not a symbol
    |  |- IntervalError              not an interval, or one that does not fit here
    |  `- CalendarError              unknown calendar, no session in a range
    |- InputFileError                a file that cannot be imported at all
    |- StoreError                    a bar store that cannot be read or written
    |  |- StoreMissingError          there is no store at an address
    |  |- StoreCorruptError          stored bytes are not what was written
    |  `- StoreConflictError         other writers kept winning
    |- LedgerError                   the ledger cannot be read or written
    |  `- LedgerMissingError         there is no ledger at an address
    |- SourceError                   a source of missing bars failed
    |- NoBarsError                   the store holds no bar for what was asked
    |- SessionStoreError             a wrong call on the session store
    `- StrategyError                 user code raised, or cannot be loaded
"""

from __future__ import annotations

from collections.abc import Iterable


class StreamCoordError(Exception):
    """The root of every error that stream-coord raises on purpose.

    Args:
        message: What is wrong, with the value that is wrong.
        hint: What is allowed, or what to do next; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(StreamCoordError):
    """The call itself is wrong: an argument, an option, a setting."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or impossible."""


class SymbolError(UsageError):
    """A text is not a symbol."""


class IntervalError(UsageError):
    """A text is not an interval, or the interval does not fit its place."""


class CalendarError(UsageError):
    """A calendar is unknown, or has no session where one is needed."""


class InputFileError(StreamCoordError):
    """A file cannot be imported at all (single bad rows are rejects, not errors)."""


class StoreError(StreamCoordError):
    """A bar store cannot be opened, read or written."""


class StoreMissingError(StoreError):
    """There is no bar store at an address."""


class StoreCorruptError(StoreError):
    """Stored bytes are not the bytes that were written."""


class StoreConflictError(StoreError):
    """Other writers kept committing first until the retries were used up."""


class LedgerError(StreamCoordError):
    """The ledger cannot be opened, read or written."""


class LedgerMissingError(LedgerError):
    """There is no ledger at an address."""


class SourceError(StreamCoordError):
    """A source of missing bars could not answer (an answer without bars is no error)."""


class NoBarsError(StreamCoordError):
    """The store holds no bar for what was asked."""


class SessionStoreError(StreamCoordError):
    """A call on the session store names something that it does not hold."""


class StrategyError(StreamCoordError):
    """User code raised, or could not be loaded."""


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word closest to `word`, or ``""``.

    >>> near_miss("symbls", ["symbols", "store"])
    " (did you mean 'symbols'?)"
    >>> near_miss("qqq", ["symbols", "store"])
    ''
    """
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
