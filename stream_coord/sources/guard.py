"""A source in a frame: whatever it does, its callers see the protocol kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from stream_coord.bars import COLUMNS, frame_schema
from stream_coord.errors import SourceError, StreamCoordError
from stream_coord.interval import Interval
from stream_coord.sources.options import in_settings
from stream_coord.sources.protocol import BarRange, BarSource
from stream_coord.sources.ranges import Span, clip, joined

if TYPE_CHECKING:
    import polars as pl


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
            return checked_bars(self._source.bars(interval, ranges))

    def close(self) -> None:
        """Close the source; that it cannot be closed is of no interest to anybody."""
        with suppress(SourceError), self._errors():
            self._source.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StreamCoordError as error:
            said = in_settings(error)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- polars panics are no Exceptions, and a
            # plugin's sys.exit() is no reason to stop either
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        else:
            return
        # Not `from` the error: its traceback may show what is masked here.
        raise SourceError(self._mask(said)) from None


def checked_bars(answer: pl.DataFrame) -> pl.DataFrame:
    """Return a source's answer with the columns and types of a bar frame.

    Raises:
        SourceError: it is none.
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
    return answer.select(pl.col(name).cast(kind) for name, kind in frame_schema().items())
