"""Minute files of the LEAN engine: one zip per symbol and day, described by its path.

``.../equity/usa/minute/spy/20131007_trade.zip`` holds one CSV file without a header: milliseconds
since midnight, open, high, low, close, volume. As LEAN writes ``Time - Time.Date`` and reads by
adding to the date, the time is the bar's **start** as a clock on the wall shows it: on a day of a
clock change it is not the time elapsed since midnight, and a time that the clocks skip or show
twice is a reject.

=============  =================  =========================  ==============================
kind/market    time zone          prices                     symbol
=============  =================  =========================  ==============================
equity/usa     America/New_York   488000 is 48.80            ``SPY``
equity/others  must be stated     the same                   ``SPY``
crypto         UTC                plain decimals             ``BTCUSD``
future         UTC                plain decimals             ``ES.201312``, one zip member
                                                             per expiry
=============  =================  =========================  ==============================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from zipfile import is_zipfile
from zoneinfo import ZoneInfo

from stream_coord.bars import FIELDS, Symbol
from stream_coord.clock import from_micros, to_micros
from stream_coord.errors import InputFileError, SymbolError, UsageError
from stream_coord.interval import DAY, MINUTE, SECOND, Interval
from stream_coord.sources.archives import Member, members
from stream_coord.sources.base import Part, RawBars, raw_frame
from stream_coord.sources.lines import Layout, line_texts, read_lines, to_lines
from stream_coord.sources.times import EPOCHS, check_zone, epoch_text_times, local_times

if TYPE_CHECKING:
    import polars as pl

_LAYOUT = Layout(6, ",", {name: place for place, name in enumerate(("time", *FIELDS))})
_PRICES = FIELDS[:4]
_SHARE_PRICE_UNITS = 10_000
_INTERVALS = {"minute": Interval(MINUTE), "second": Interval(SECOND)}
_ZONES = {"equity": None, "crypto": "UTC", "future": "UTC"}
_FILE = re.compile(r"([0-9]{8})_trade\.zip")
_EXPIRY = re.compile(r"_trade_([0-9]{6}(?:[0-9]{2})?)(?:_[0-9]{8})?\.csv\Z")
_OUT_OF_DAY = "out-of-range: the time is not within the file's day"


@dataclass(frozen=True)
class LeanDay:
    """What the path of a file says that the file holds.

    Attributes:
        symbol: The symbol; of futures, that all contracts of the file begin with.
        interval: The bars' interval.
        start: The day's first moment where the market is, UTC microseconds.
        end: The next day's.
    """

    symbol: Symbol
    interval: Interval
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class LeanFormat:
    """How to read LEAN's trade files.

    Attributes:
        tz: The zone of the times; None for that of the kind and market.
        symbol: The symbol; None for that of the path.

    Raises:
        UsageError: `tz` is no time zone.
    """

    tz: str | None = None
    symbol: Symbol | None = None
    name: ClassVar[str] = "lean"

    def __post_init__(self) -> None:
        if self.tz is not None:
            check_zone(self.tz)

    def matches(self, path: Path) -> bool:
        """Return whether a file is called like one of trades."""
        return _FILE.fullmatch(path.name) is not None

    def order(self, path: Path) -> tuple[str, ...]:
        """Return what to sort the files of a folder by: day by day, because a store is cut so."""
        return (path.name, *path.parts)

    def parts(self, path: Path, interval: Interval) -> Iterator[Part]:
        """Yield the zip's members."""
        origin = _Origin.of(path)
        if origin.interval != interval:
            raise InputFileError(
                f"{path} holds bars of {origin.interval}, not of {interval}",
                f"Import it by itself with --interval {origin.interval}.",
            )
        zone = self._zone(origin, path)
        for member in members(path):
            if not is_zipfile(path):
                raise InputFileError(f"{path} is not a zip archive")
            yield Part(member.name, partial(self._pieces, member, origin, zone))

    def day(self, path: Path) -> LeanDay:
        """Return what a file holds, by its path alone.

        Raises:
            InputFileError: the path is not one of LEAN's.
            UsageError: the market's time zone is not known.
        """
        origin = _Origin.of(path)
        zone = ZoneInfo(self._zone(origin, path))
        midnight = from_micros(origin.midnight).replace(tzinfo=None)
        start, end = (
            to_micros((midnight + timedelta(days=days)).replace(tzinfo=zone)) for days in (0, 1)
        )
        return LeanDay(self.symbol or origin.symbol, origin.interval, start, end)

    def day_of_any_zone(self, path: Path) -> LeanDay:
        """Return what a file may hold whose time zone is not known: its day all over the world.

        Raises:
            InputFileError: the path is not one of LEAN's.
        """
        origin = _Origin.of(path)
        span = (origin.midnight - DAY, origin.midnight + 2 * DAY)
        return LeanDay(self.symbol or origin.symbol, origin.interval, *span)

    def _zone(self, origin: _Origin, path: Path) -> str:
        home = "America/New_York" if origin.market == "usa" else None
        zone = self.tz or _ZONES[origin.kind] or home
        if zone is None:
            raise UsageError(
                f"the time zone of {path} is not known: its market is {origin.market!r}",
                "State it with --tz.",
            )
        return zone

    def _symbol(self, origin: _Origin, member: Member) -> Symbol:
        if self.symbol is not None:
            if not member.alone:
                raise UsageError(
                    f"one symbol is stated, and {member.name} is one of several contracts",
                    "Leave out --symbol.",
                )
            return self.symbol
        if origin.kind != "future":
            return origin.symbol
        expiry = _EXPIRY.search(member.file_name)
        if expiry is None:
            raise InputFileError(
                f"{member.path}!{member.file_name} does not name its expiry, "
                "as ..._trade_201312.csv does"
            )
        return Symbol.parse(f"{origin.symbol}.{expiry[1]}")

    def _pieces(self, member: Member, origin: _Origin, zone: str) -> Iterator[RawBars]:
        """Yield the bars of a day: they are few."""
        lines = to_lines(member.load(), member.name)
        table = read_lines(lines, _LAYOUT)
        if not table["reason"].null_count():
            raise InputFileError(
                f"{member.name} is no LEAN file: no line of it has {_LAYOUT.width} fields"
            )
        if origin.kind == "equity":
            table = table.with_columns(_in_dollars(table))
        times = _day_times(table["time"], origin.midnight, zone)
        frame = raw_frame(table, times, symbol=self._symbol(origin, member))
        yield RawBars(frame, partial(line_texts, lines), member.position)


@dataclass(frozen=True)
class _Origin:
    """What a file's path says of it; `midnight` is its day's, in microseconds of local time."""

    kind: str
    market: str
    interval: Interval
    symbol: Symbol
    midnight: int

    @classmethod
    def of(cls, path: Path) -> _Origin:
        kind, market, resolution, ticker, name = ("", "", "", "", *path.absolute().parts)[-5:]
        match = _FILE.fullmatch(name)
        try:
            if match and kind.lower() in _ZONES:
                day = datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC)
                interval = _INTERVALS[resolution.lower()]
                symbol = Symbol.parse(ticker.upper())
                return cls(kind.lower(), market.lower(), interval, symbol, to_micros(day))
        except (ValueError, KeyError, SymbolError):
            pass
        raise InputFileError(
            f"{path} is not where LEAN keeps trades",
            "The path must end in KIND/MARKET/minute/SYMBOL/YYYYMMDD_trade.zip; "
            f"KIND is one of {', '.join(_ZONES)}.",
        )


def _day_times(text: pl.Series, midnight: int, zone: str) -> pl.DataFrame:
    """Return the times (see `sources.times`) of milliseconds since a midnight in `zone`."""
    import polars as pl

    since = epoch_text_times(text, EPOCHS["epoch-ms"])
    inside = since["start"].is_between(0, DAY, closed="left")
    local = pl.select(pl.when(inside).then(since["start"] + midnight)).to_series()
    reason = pl.coalesce(since["reason"], pl.when(~inside).then(pl.lit(_OUT_OF_DAY)), "reason")
    return local_times(local, zone).with_columns(reason=reason)


def _in_dollars(table: pl.DataFrame) -> list[pl.Series]:
    """Return the prices of shares, each the double closest to its decimal number."""
    import polars as pl

    # By numpy: polars divides by a scalar by multiplying with its inverse, which is not exact.
    scaled = (pl.Series(p, table[p].to_numpy() / _SHARE_PRICE_UNITS) for p in _PRICES)
    return [prices.set(table[prices.name].is_null(), None) for prices in scaled]
