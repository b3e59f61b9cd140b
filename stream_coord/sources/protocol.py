"""What a source of missing bars is: the protocol that built-in sources and plugins keep.

A plugin is a package with an entry point in the group `ENTRY_POINTS`::

    [project.entry-points."stream_coord.sources"]
    my-vendor = "my_package:MyVendor"

The entry point's name is the ``kind`` of a ``[[sources]]`` table, and its object is called as
``MyVendor(settings, root)`` with that table's `SourceSettings` and the folder at which relative
paths start. It returns a `BarSource`, raises `ConfigError` where a setting is wrong, and opens
nothing: files and connections are opened at the first question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stream_coord.config.settings import SourceSettings
from stream_coord.interval import Interval

if TYPE_CHECKING:
    import polars as pl

ENTRY_POINTS = "stream_coord.sources"
"""The group in which installed packages offer kinds of sources."""


@dataclass(frozen=True, slots=True, order=True)
class BarRange:
    """The bars of one symbol whose starts lie in [start, end).

    Attributes:
        symbol: The symbol.
        start: UTC microseconds since the epoch.
        end: UTC microseconds since the epoch; after `start`.
    """

    symbol: str
    start: int
    end: int


class BarSource(Protocol):
    """Where bars can be asked for.

    The calls of one source never overlap, but may come from different threads. It may have an
    attribute ``troubles``, texts that say what it could not read of what it has: a user is told.
    """

    def coverage(self, interval: Interval, ranges: Sequence[BarRange]) -> Sequence[BarRange]:
        """Return the parts of `ranges` for which this source can tell whether there was a bar.

        What it covers and then does not deliver in `bars` counts as confirmed empty, so a source
        that may merely have a hole there should leave the part out.

        Args:
            interval: The length of the bars.
            ranges: Sorted by symbol and start, not overlapping.

        Returns:
            Sorted by symbol and start, not overlapping, each within one of `ranges`.

        Raises:
            SourceError: it cannot tell at present; it will be asked again.
        """
        ...

    def bars(self, interval: Interval, ranges: Sequence[BarRange]) -> pl.DataFrame:
        """Return the bars of `ranges` in one answer.

        Args:
            interval: The length of the bars.
            ranges: What `coverage` returned, or parts of it; sorted, not overlapping.

        Returns:
            The columns of a bar frame: ``symbol`` (String), ``start`` (Int64, UTC microseconds),
            ``open, high, low, close, volume`` (Float64); columns and rows in any order. More than
            asked for is ignored. No rows: the source answered, and has none.

        Raises:
            SourceError: the source failed; nothing follows for any of the ranges, and it will be
                asked again.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; a closed source may be asked again and reopens."""
        ...


SourceFactory = Callable[[SourceSettings, Path], BarSource]
"""Makes a source of its settings and the folder at which relative paths start."""


@dataclass(frozen=True)
class NamedSource:
    """A source as it is configured.

    Attributes:
        name: Its name in the settings.
        identity: ``name: kind address``, the address without secrets: what the ledger remembers
            it by, so that another address is another source.
        source: The source.
        compare: Whether it is asked for minutes that a source before it delivered, so that
            disagreements are seen.
        allow_nonpositive: Symbols whose prices may be zero or below.
    """

    name: str
    identity: str
    source: BarSource
    compare: bool = True
    allow_nonpositive: frozenset[str] = field(default_factory=frozenset)
