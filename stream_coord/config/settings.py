"""The settings with their types, defaults, limits and documentation.

What stands here is all there is: reading, checking, the commented file that ``sc init`` writes and
the list of allowed keys are made of these classes. A unit is the last word of a setting's name.
"""

# No `from __future__ import annotations` here: types that are texts cost milliseconds to evaluate
# at each start.
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

NOT_BUILT = ("prefetch",)
"""Sections, or dotted keys, that are read and checked but have no effect in this version."""


def is_built(key: str) -> bool:
    """Tell whether the setting of a dotted key has an effect in this version.

    >>> is_built("store.url"), is_built("prefetch.enabled")
    (True, False)
    """
    return not any(key == name or key.startswith(name + ".") for name in NOT_BUILT)


Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0, le=10_000)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Minutes = Annotated[int, Meta(ge=1, le=1_440)]


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where bars are kept."""

    url: Annotated[
        Text,
        Meta(
            description="A Delta Lake directory or bucket as delta:PATH; or sqlite:///PATH or "
            "postgresql+psycopg://USER:${NAME}@HOST/DATABASE. A relative path starts at this "
            "file's folder."
        ),
    ] = "delta:data/bars"


class LedgerSettings(Struct, frozen=True, kw_only=True):
    """The database of what happened: sessions, gaps, revisions, rejects, runs."""

    url: Annotated[
        Text,
        Meta(
            description="sqlite:///PATH, a relative path starts at this file's folder; or "
            "postgresql+psycopg://USER:${NAME}@HOST/DATABASE, the password from the environment."
        ),
    ] = "sqlite:///data/ledger.db"


class CalendarSettings(Struct, frozen=True, kw_only=True):
    """When the market trades."""

    name: Annotated[
        Text, Meta(description="A calendar of pandas-market-calendars, such as NYSE or 24/7.")
    ] = "NYSE"
    hours: Annotated[
        Literal["regular", "extended"],
        Meta(
            description="Which bars are streamed: those of the regular segments, or those before "
            "and after them as well. Only regular minutes are expected."
        ),
    ] = "regular"
    overrides: Annotated[
        dict[str, object],
        Meta(
            description="Single dates and recurring times that differ from the calendar, such as "
            '{ 2025-01-09 = "closed", 12-24 = { close = "13:00" } }.'
        ),
    ] = {}


class UpkeepSettings(Struct, frozen=True, kw_only=True):
    """Keeping the data whole while a session streams."""

    enabled: Annotated[bool, Meta(description="Look after the session's data.")] = True
    check_interval_seconds: Annotated[
        Seconds, Meta(description="Simulated seconds from one check to the next.")
    ] = 60
    retry_missing_bars: Annotated[
        bool, Meta(description="Ask again for a missing minute that a source failed to tell of.")
    ] = True
    max_retries: Annotated[
        Count, Meta(description="Attempts after which a missing minute is unresolved.")
    ] = 5
    derived_intervals: Annotated[
        list[str],
        Meta(description="Coarser bars to build; whole multiples of base_interval."),
    ] = field(default_factory=lambda: ["5m", "15m"])
    auto_compute_derived: Annotated[
        bool, Meta(description="Build the derived bars as their base bars come in.")
    ] = True
    grace_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=86_400,
            description="How long after its end a bar may be absent without being missing.",
        ),
    ] = 0
    synthesize: Annotated[
        Literal["none", "flat"],
        Meta(
            description="Whether a hole in regular hours is filled with a flat bar of volume 0; "
            "such a bar is flagged, never stored and never raises quality."
        ),
    ] = "none"


class HistorySettings(Struct, frozen=True, kw_only=True):
    """The sessions before the current one."""

    enabled: Annotated[bool, Meta(description="Load trailing history.")] = True
    trailing_days: Annotated[
        Count, Meta(description="How many trading sessions (not calendar days) are kept.")
    ] = 5
    intervals: Annotated[
        list[str],
        Meta(
            description="Intervals to keep. base_interval brings that of all derived intervals; "
            "without it only today's base bars are held."
        ),
    ] = field(default_factory=lambda: ["1m", "5m"])
    auto_load: Annotated[
        bool,
        Meta(
            description="Load history when a replay starts; if not, it grows as sessions roll, or "
            "a strategy loads it."
        ),
    ] = True
    adjust: Annotated[
        Literal["split", "none"],
        Meta(
            description="Rescale history to the replayed session's terms by the splits known at "
            "its date, or leave it raw."
        ),
    ] = "split"


class PrefetchSettings(Struct, frozen=True, kw_only=True):
    """Preparing the next session ahead of time."""

    enabled: Annotated[bool, Meta(description="Prepare and use snapshots.")] = True
    window_minutes: Annotated[
        Minutes, Meta(description="How long before the next session its snapshot is built.")
    ] = 60
    check_interval_minutes: Annotated[
        Minutes, Meta(description="Minutes between two looks at the window with --watch.")
    ] = 5
    auto_activate: Annotated[
        bool, Meta(description="Start a session from its snapshot when there is a valid one.")
    ] = True
    keep: Annotated[
        int, Meta(ge=1, le=10_000, description="How many snapshots are kept; older ones go.")
    ] = 2


class SessionSettings(Struct, frozen=True, kw_only=True):
    """The session's states and boundaries."""

    auto_roll: Annotated[
        bool,
        Meta(
            description="Roll a session that a feed fills to the next one by itself; a replay "
            "always goes on."
        ),
    ] = True
    timeout_seconds: Annotated[
        Seconds,
        Meta(
            description="No bar of any symbol for so long, or for as long as a bar is, makes an "
            "active session time out."
        ),
    ] = 300
    boundary_check_interval_seconds: Annotated[
        Seconds,
        Meta(description="Seconds at most between two looks at a session that a feed fills."),
    ] = 60
    post_market_roll_delay_minutes: Annotated[
        int,
        Meta(ge=0, le=1_440, description="Minutes from the close to the automatic roll."),
    ] = 30


class SourceSettings(Struct, frozen=True, kw_only=True):
    """Where missing bars can be asked for; one table for each source, asked in this order."""

    name: Annotated[Text, Meta(description="The source's own name.", examples=["backup"])]
    kind: Annotated[
        Text,
        Meta(
            description="store or table (with url), csv, parquet or lean (with path), or what an "
            "installed plugin offers.",
            examples=["store"],
        ),
    ]
    url: Annotated[
        Text | None, Meta(description="Its address; or path.", examples=["delta:../other/bars"])
    ] = None
    path: Annotated[
        Text | None, Meta(description="Its folder or file; or url.", examples=["archive"])
    ] = None
    compare: Annotated[
        bool,
        Meta(
            description="Ask it also for minutes that a source before it delivered, to see where "
            "the two disagree."
        ),
    ] = True
    allow_nonpositive: Annotated[
        list[str], Meta(description="Symbols whose prices may be zero or below.")
    ] = []
    options: Annotated[dict[str, object], Meta(description="What its kind asks for.")] = {}


class StrategySettings(Struct, frozen=True, kw_only=True):
    """The strategy that a replay drives."""

    class_: Annotated[
        Text | None,
        Meta(
            description="module:Class or path.py:Class, looked for in this file's folder first.",
            examples=["my_strategy.py:MyStrategy"],
        ),
    ] = field(name="class", default=None)
    params: Annotated[
        dict[str, object],
        Meta(description="Keyword arguments of the class, such as { fast = 5 }."),
    ] = {}


class Settings(Struct, frozen=True, kw_only=True):
    """All settings."""

    symbols: Annotated[
        list[str], Meta(description="The symbols to replay; empty: all that the store holds.")
    ] = []
    symbols_file: Annotated[
        Text | None,
        Meta(
            description="A text file with one symbol a line, instead of symbols.",
            examples=["symbols.txt"],
        ),
    ] = None
    base_interval: Annotated[
        str, Meta(description="The interval that is stored and streamed; it divides a day.")
    ] = "1m"
    store: StoreSettings = field(default_factory=StoreSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    calendar: CalendarSettings = field(default_factory=CalendarSettings)
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    prefetch: PrefetchSettings = field(default_factory=PrefetchSettings)
    session: SessionSettings = field(default_factory=SessionSettings)
    sources: list[SourceSettings] = []
    strategy: StrategySettings = field(default_factory=StrategySettings)
