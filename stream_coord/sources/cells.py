"""Values of databases as columns of bars: symbols, times and prices in whatever type they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeVar
from zoneinfo import ZoneInfo

import numpy as np

from stream_coord.clock import from_micros
from stream_coord.errors import SourceError
from stream_coord.sources.times import EPOCHS, datetime_times, epoch_text_times, text_times
from stream_coord.sources.times import epoch_times as whole_times

if TYPE_CHECKING:
    import polars as pl

_T = TypeVar("_T")

_DATE_FIRST = {"iso": "%Y-%m-%d"} | {text: text for text in ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")}
_SLACK = timedelta(hours=3)
"""More than clocks are ever set back."""


@dataclass(frozen=True)
class TimeColumn:
    """How a table keeps its times.

    Attributes:
        kind: ``number``, ``text``, ``utc`` (a timestamp with a zone) or ``local`` (without one).
        time_format: Of numbers and texts; see `stream_coord.sources.times.check_time_format`.
        tz: The zone of times that carry no offset of their own.
    """

    kind: Literal["number", "text", "utc", "local"]
    time_format: str
    tz: str | None

    @classmethod
    def of(cls, example: object, time_format: str, tz: str | None) -> TimeColumn:
        """Return the form of times that look like `example`.

        Raises:
            SourceError: they are of no usable type, or what is needed to read them is not stated.
        """
        match example:
            case bool():
                pass
            case int() | float() | Decimal():
                if time_format not in EPOCHS:
                    raise SourceError(
                        "its times are numbers, and their unit is not stated",
                        f"State it with time_format, one of {', '.join(EPOCHS)}.",
                    )
                return cls("number", time_format, tz)
            case datetime():
                if example.tzinfo is None and tz is None:
                    raise SourceError(
                        "its times have no zone, and none is stated",
                        'State it with tz = "America/New_York", for example.',
                    )
                return cls("local" if example.tzinfo is None else "utc", time_format, tz)
            case str():
                return cls("text", time_format, tz)
        raise SourceError(
            f"its times are of the type {type(example).__name__}",
            "They must be timestamps, numbers since the epoch, or texts.",
        )

    @property
    def prefix(self) -> str | None:
        """The format of the date that texts begin with, if they sort by it."""
        if self.kind != "text":
            return None
        return next((p for f, p in _DATE_FIRST.items() if self.time_format.startswith(f)), None)

    def days(self, values: Sequence[object]) -> pl.Series:
        """Return the day (Int32, since 1970) that values show, be their hour what it may.

        Null where none can be read, or the values show no day.
        """
        import polars as pl

        if self.kind == "local":
            local = pl.Series(_only(values, datetime), dtype=pl.Datetime("us"))
            return local.dt.date().to_physical()
        text = pl.Series(_only(values, str), dtype=pl.String)
        if self.prefix is None:
            return text.clear(len(text)).cast(pl.Int32)
        length = len("YYYY") + len(self.prefix) - len("%Y")
        return text.str.slice(0, length).str.to_date(self.prefix, strict=False).to_physical()

    def bounds(self, start: int, end: int) -> tuple[object, object] | None:
        """Return values a, b of the column so that a <= time < b is true of [start, end).

        It may be true of times around as well. None: times of this form do not sort by time.
        """
        if self.kind == "number":
            return _scaled(start, EPOCHS[self.time_format]), -_scaled(
                -end, EPOCHS[self.time_format]
            )
        if self.kind == "utc":
            return from_micros(start), from_micros(end)
        if self.kind == "local":
            zone = ZoneInfo(self.tz or "UTC")
            low, high = (
                from_micros(at).astimezone(zone).replace(tzinfo=None) for at in (start, end)
            )
            return low - _SLACK, high + _SLACK
        prefix = self.prefix
        if prefix is None:
            return None
        # Dates alone, and a day more on both sides: texts may carry any offset.
        low, high = from_micros(start) - timedelta(days=1), from_micros(end) + timedelta(days=2)
        return low.strftime(prefix), high.strftime(prefix)

    def times(self, values: Sequence[object]) -> pl.DataFrame:
        """Return ``start`` and ``reason`` (see `stream_coord.sources.times`) of each value.

        Raises:
            UsageError: texts carry no offset, and no zone is stated.
        """
        import polars as pl

        if self.kind == "text":
            text = pl.Series(_only(values, str), dtype=pl.String)
            return text_times(text, self.time_format, self.tz)
        if self.kind == "number":
            places = EPOCHS[self.time_format]
            if all(type(value) is int for value in values):
                return whole_times(pl.Series(values, dtype=pl.Int64, strict=False), places)
            return epoch_text_times(pl.Series(map(_digits, values), dtype=pl.String), places)
        naive = pl.Series(_only(values, datetime), dtype=pl.Datetime("us"))
        return datetime_times(naive, "UTC" if self.kind == "utc" else self.tz)


def numbers(values: Sequence[object]) -> pl.Series:
    """Return values as Float64, each the double that is closest; NaN for what is no number."""
    import polars as pl

    try:
        column = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        column = np.array(list(map(_number, values)))
    return pl.Series(column, dtype=pl.Float64)


def symbols(values: Sequence[object]) -> pl.Series:
    """Return values as String; what is no text is null. The blanks after a CHAR(n) go."""
    import polars as pl

    return pl.Series(_only(values, str), dtype=pl.String).str.strip_chars_end(" ")


def _number(value: object) -> float:
    if not isinstance(value, (int, float, Decimal, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _digits(value: object) -> str | None:
    """Return a number as decimal digits; None for what has none."""
    match value:
        case bool() | None:
            return None
        case int():
            return str(value)
        case Decimal() if value.is_finite():
            return format(value, "f")
        case float() if math.isfinite(value):
            return format(Decimal(value), "f")
    return None


def _only(values: Sequence[object], kind: type[_T]) -> list[_T | None]:
    return [value if isinstance(value, kind) else None for value in values]


def _scaled(micros: int, places: int) -> int:
    """Return microseconds in a unit of 10 ** `places` microseconds, rounded down."""
    factor, divisor = 10 ** max(-places, 0), 10 ** max(places, 0)
    return int(micros * factor // divisor)
