"""A source of missing bars that asks an HTTP vendor; README.md has the vendor's interface.

Whatever cannot be trusted is a failure (`SourceError`) and never an answer without bars: the
minutes stay missing and are asked for again, instead of being taken for minutes without a trade.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from stream_coord.bars import FIELDS, frame_schema
from stream_coord.clock import (
    Clock,
    SystemClock,
    SystemTimer,
    Timer,
    day_number,
    from_micros,
    to_micros,
)
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources.protocol import BarRange

from .client import Client, Patience

if TYPE_CHECKING:
    import polars as pl

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

Count = Annotated[int, Meta(ge=1, le=100_000)]


class Options(Patience, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``options`` of a ``[[sources]]`` table of this kind, those of `Patience` among them.

    Attributes:
        api_key: What the vendor knows the customer by.
        from_: ``from`` in TOML: the first UTC date of the subscription.
        until: The last one; None for as far as the vendor has come.
        delay_minutes: How long after its end the vendor has a bar at the latest.
        symbols_per_request: How many symbols the vendor lets one request name.
        bars_per_page: How many bars the vendor sends at once.
    """

    api_key: Annotated[str, Meta(pattern=r"\A[!-~]+\Z")]
    from_: date = msgspec.field(name="from")
    until: date | None = None
    delay_minutes: Annotated[int, Meta(ge=0, le=100_000)] = 15
    symbols_per_request: Count = 50
    bars_per_page: Count = 10_000


class _Bar(Struct, gc=False):
    symbol: str
    time: Annotated[datetime, Meta(tz=True)]
    open: float
    high: float
    low: float
    close: float
    volume: float


class _Page(Struct):
    bars: list[_Bar]
    next_page: str | None


class _Listing(Struct):
    symbols: list[str]


_PAGE = msgspec.json.Decoder(_Page)
_LISTING = msgspec.json.Decoder(_Listing)


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks for: the bars of some symbols at each of some starts (UTC us)."""

    symbols: frozenset[str]
    starts: range


def questions(
    ranges: Sequence[BarRange], step: int, symbols_at_once: int, bars_at_once: int
) -> Iterator[Question]:
    """Join ranges into few questions.

    A question is widened over the minutes between two ranges, and over further symbols, as long as
    the answer to all of it fits on one page.

    Args:
        ranges: What is to be asked for, in any order.
        step: The interval in microseconds.
        symbols_at_once: The most symbols of a question.
        bars_at_once: The most bars of a question; one range that has more is not cut.
    """
    names = sorted({part.symbol for part in ranges})
    by_start = sorted(ranges, key=lambda part: (part.start, part.symbol))
    for i in range(0, len(names), symbols_at_once):
        group = set(names[i : i + symbols_at_once])
        asked: frozenset[str] = frozenset()
        first = last = 0
        for part in (part for part in by_start if part.symbol in group):
            wider, end = asked | {part.symbol}, max(last, part.end)
            if asked and len(wider) * (end - first) > bars_at_once * step:
                yield Question(asked, range(first, last, step))
                asked = frozenset()
            if asked:
                asked, last = wider, end
            else:
                asked, first, last = frozenset({part.symbol}), part.start, part.end
        yield Question(asked, range(first, last, step))


class HttpBars:
    """A `BarSource`: kind ``http-bars``.

    Args:
        settings: Its ``[[sources]]`` table.
        root: The settings file's folder; not needed here, as no path is relative to it.
        clock: Tells which bars the vendor can have; None for the wall clock.
        timer: Measures and waits; None for the machine's own.

    Raises:
        ConfigError: a setting is missing or wrong.
    """

    def __init__(
        self,
        settings: SourceSettings,
        root: Path,
        clock: Clock | None = None,
        timer: Timer | None = None,
    ) -> None:
        try:
            self._options = msgspec.convert(settings.options, Options)
        except msgspec.ValidationError as error:
            raise ConfigError(f"options: {error}") from error
        url = _checked_url(settings.url)
        self._client = Client(url, self._options.api_key, self._options, timer or SystemTimer())
        self._clock = clock or SystemClock()
        self._listed: dict[str, bool] = {}

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts of `ranges` that the subscription covers, of symbols the vendor has.

        Raises:
            SourceError: the vendor could not be asked for its symbols.
        """
        first = day_number(self._options.from_) * DAY
        last = self._clock.now() - self._options.delay_minutes * MINUTE
        if self._options.until is not None:
            last = min(last, (day_number(self._options.until) + 1) * DAY)
        last -= last % interval.micros  # a bar that is under way there is not covered
        parts = [
            BarRange(part.symbol, max(part.start, first), min(part.end, last)) for part in ranges
        ]
        parts = [part for part in parts if part.start < part.end]
        self._learn({part.symbol for part in parts})
        return [part for part in parts if self._listed[part.symbol]]

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the bars of `ranges`, and others that came along with them.

        Raises:
            SourceError: one of the requests failed.
        """
        import polars as pl

        limits = (self._options.symbols_per_request, self._options.bars_per_page)
        asked = questions(ranges, interval.micros, *limits)
        bars = [bar for question in asked for bar in self._answers(interval, question)]
        columns: dict[str, list[object]] = {
            name: [getattr(bar, name) for bar in bars] for name in ("symbol", *FIELDS)
        }
        columns["start"] = [to_micros(bar.time) for bar in bars]
        return pl.DataFrame(columns, schema_overrides=frame_schema())

    def close(self) -> None:
        """Close the connections, and forget which symbols the vendor has."""
        self._client.close()
        self._listed.clear()

    def _learn(self, symbols: Collection[str]) -> None:
        """Ask which symbols the vendor has: of one that it does not know, it covers nothing."""
        new = sorted(set(symbols) - self._listed.keys())
        at_once = self._options.symbols_per_request
        for i in range(0, len(new), at_once):
            group = new[i : i + at_once]
            known = self._client.get("/symbols", {"symbols": ",".join(group)}, _LISTING).symbols
            self._listed |= {symbol: symbol in known for symbol in group}

    def _answers(self, interval: Interval, question: Question) -> Iterator[_Bar]:
        """Yield the bars of all pages; each page must bring new ones, so that there is an end."""
        query = {
            "symbols": ",".join(sorted(question.symbols)),
            "interval": str(interval),
            "from": _moment(question.starts.start),
            "to": _moment(question.starts.stop),
        }
        seen: set[tuple[str, int]] = set()
        while True:
            page = self._client.get("/bars", query, _PAGE)
            for bar in page.bars:
                self._check(bar, question, seen)
                yield bar
            if page.next_page is None:
                return
            if not page.bars:
                raise self._client.failure("sent a page without bars that is not the last")
            query["page"] = page.next_page

    def _check(self, bar: _Bar, question: Question, seen: set[tuple[str, int]]) -> None:
        key = (bar.symbol, to_micros(bar.time))
        place = f"the bar of {bar.symbol[:64]!r} at {bar.time.isoformat()}"
        if bar.symbol not in question.symbols or key[1] not in question.starts:
            raise self._client.failure(f"sent {place}, which was not asked for")
        if key in seen:
            raise self._client.failure(f"sent {place} twice")
        seen.add(key)


def _moment(micros: int) -> str:
    return f"{from_micros(micros):%Y-%m-%dT%H:%M:%SZ}"


def _checked_url(text: str | None) -> str:
    """Return a URL that a key may be sent to, without a slash at its end."""
    hint = 'Write url = "https://HOST/PATH"; plain http:// is for this machine only.'
    if text is None:
        raise ConfigError("url: is missing", hint)
    try:
        url = parse_url(str(text))
    except HTTPError as error:
        raise ConfigError("url: is not a URL", hint) from error
    safe = url.scheme == "https" or (url.scheme == "http" and url.host in _THIS_MACHINE)
    if not (safe and url.host) or url.auth or url.query or url.fragment:
        raise ConfigError("url: is not one that a key can be sent to", hint)
    return url.url.rstrip("/")
