"""Bar intervals: a whole number of microseconds with a canonical name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from stream_coord.errors import IntervalError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND}
_TEXT = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)


@total_ordering
@dataclass(frozen=True, slots=True)
class Interval:
    """The length of a bar.

    Attributes:
        micros: Length in microseconds; a whole number of seconds. ``1d`` stands for one regular
            session, whatever its length.

    >>> str(Interval.parse("60m")), Interval.parse("60m") == Interval.parse("1h")
    ('1h', True)
    """

    micros: int

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read ``<number><s|m|h|d>``, at most one day.

        Raises:
            IntervalError: `text` is no such interval.
        """
        match = _TEXT.fullmatch(text)
        micros = int(match[1]) * _UNITS[match[2]] if match else 0
        if not 0 < micros <= DAY:
            raise IntervalError(
                f"{text!r} is not an interval",
                "Write a number and a unit (s, m, h or d) up to 1d, for example 1m, 15m, 1h.",
            )
        return cls(micros)

    @property
    def is_session(self) -> bool:
        """Whether a bar of this interval covers one regular session (``1d``)."""
        return self.micros == DAY

    def __str__(self) -> str:
        for unit, micros in _UNITS.items():
            if self.micros % micros == 0:
                return f"{self.micros // micros}{unit}"
        raise AssertionError(self.micros)  # parse() allows whole seconds only

    def __lt__(self, other: Interval) -> bool:
        return self.micros < other.micros
