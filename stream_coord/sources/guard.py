"""A source in a frame: whatever it does, its callers see the protocol kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, frame_schema
from stream_coord.compute.validate import END_OF_TIME
from stream_coord.errors import SourceError, StreamCoordError
from stream_coord.interval import DAY, Interval
from stream_coord.sources.options import in_settings
from stream_coord.sources.protocol import BarRange, BarSource
from stream_coord.sources.ranges import Span, clip, joined

if TYPE_CHECKING:
    import polars as pl


_FIRST_START = 365 * DAY
"""The start of 1971: an earlier one is a time in seconds or milliseconds, most likely."""


class GuardedSource:
    """A `BarSource` that raises nothing but `SourceError`, and answers in the form promised.

    Args:
        source: The source, perhaps a plugin's.
        mask: Hides secrets in a text.
    """

    def __init__(self, source: BarSource, mask: Callable[[str], str]) -> None:
        self._source = source
        self._mask = mask

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return what the source covers, sorted and cut to `ranges`."""
        spans: dict[str, list[Span]] = {}
        with self._errors():
            for each in self._source.coverage(interval, ranges):
                spans.setdefault(each.symbol, []).append((each.start, each.end))
            extents = {
                symbol: joined(span for span in own if span[0] < span[1])
                for symbol, own in spans.items()
            }
            return clip(ranges, extents)

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the source's bars with the columns and types of a bar frame."""
        with self._errors():
            return checked_bars(self._source.bars(interval, ranges), ranges)

    @property
    def troubles(self) -> list[str]:
        """What the source could not read so far, and does not cover therefore."""
        return [self._mask(text) for text in getattr(self._source, "troubles", ())]

    def close(self) -> None:
        """Close the source; that it cannot be closed is of no interest to anybody."""
        with suppress(SourceError), self._errors():
            self._source.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StreamCoordError as error:
            said = in_settings(error, ". ")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- polars panics are no Exceptions, and a
            # plugin's sys.exit() is no reason to stop either
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        else:
            return
        # Not `from` the error: its traceback may show what is masked here.
        raise SourceError(self._mask(said)) from None


def checked_bars(answer: pl.DataFrame, ranges: Sequence[BarRange] = ()) -> pl.DataFrame:
    """Return a source's answer with the columns and types of a bar frame.

    Args:
        answer: The answer.
        ranges: What it was asked for.

    Raises:
        SourceError: it is none, or one to another question: of no symbol that was asked for, or of
            times in another unit.
    """
    import polars as pl

    if not isinstance(answer, pl.DataFrame):
        raise SourceError(f"it answered with a {type(answer).__name__}, not with a polars frame")
    absent = [name for name in COLUMNS if name not in answer.columns]
    if absent:
        raise SourceError(f"its answer has no column {', '.join(absent)}")
    kind = answer.schema["start"]
    if not kind.is_integer() and len(answer):  # a time of another unit would be another time
        raise SourceError(f"its column start is {kind}, not Int64 in UTC microseconds")
    bars = answer.select(pl.col(name).cast(kind) for name, kind in frame_schema().items())
    if ranges and len(bars):
        _check_keys(bars, ranges)
    return bars


def _check_keys(bars: pl.DataFrame, ranges: Sequence[BarRange]) -> None:
    """Check that bars have symbols and times, and can be an answer to a question of `ranges`."""
    import polars as pl

    for name in COLUMNS[:2]:
        if nulls := bars[name].null_count():
            raise SourceError(f"{nulls} of the {len(bars)} rows of its answer have no {name}")
    first = min(_FIRST_START, *(each.start for each in ranges))
    strange = bars.filter(~pl.col("start").is_between(first, END_OF_TIME, closed="left"))
    if len(strange):
        raise SourceError(
            f"a start in its answer is {strange['start'][0]}: in UTC microseconds, that is not "
            "within 1971 to 2099"
        )
    asked = {str(each.symbol) for each in ranges}
    if not bars["symbol"].is_in(list(asked)).any():
        raise SourceError(
            f"its answer holds no symbol that was asked for, such as {min(asked)!r}, but "
            f"{bars['symbol'][0]!r}"
        )
