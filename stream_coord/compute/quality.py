"""What a session's data was worth: one row per symbol-session, and the gaps behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QualityRow:
    """The expected minutes of one symbol in one session, by what became of them.

    ``expected = present + missing + no_trade + unresolved``; `present` includes `filled` and never
    a synthetic bar.

    Attributes:
        symbol: The symbol.
        session: The session's date, ``YYYY-MM-DD``.
        expected: Grid minutes up to now, less the grace period.
        present: Minutes with a real bar.
        missing: Minutes with no bar that nobody has explained yet.
        no_trade: Minutes that every source answered for and has no bar of.
        unresolved: Minutes given up on after the last retry.
        filled: Minutes of `present` that upkeep filled.

    >>> row = QualityRow("SPY", "2018-11-23", 200, 197, missing=1, no_trade=2)
    >>> row.quality, row.coverage
    (98.5, 99.5)
    """

    symbol: str
    session: str
    expected: int
    present: int
    missing: int = 0
    no_trade: int = 0
    unresolved: int = 0
    filled: int = 0

    @property
    def quality(self) -> float | None:
        """Minutes present, in percent of those expected; None when none was expected."""
        return _percent(self.present, self.expected)

    @property
    def coverage(self) -> float | None:
        """Minutes present or known to have no trade, in percent; None when none was expected."""
        return _percent(self.present + self.no_trade, self.expected)


@dataclass(frozen=True, slots=True)
class GapRow:
    """A maximal run of grid minutes of one symbol that have no bar and share a state.

    Attributes:
        symbol: The symbol.
        session: The session's date, ``YYYY-MM-DD``.
        start: UTC microseconds of the first such minute.
        end: UTC microseconds at which the last such minute ends (exclusive).
        minutes: Grid minutes in it; less than ``end - start`` where it spans a break.
        state: ``missing``, ``no_trade``, ``filled`` or ``unresolved``.
        kind: ``minutes``; ``session`` where it is a symbol's whole session; ``before_first`` where
            it ends before the symbol's first stored bar begins.
        source: The identity of the source that filled it.
        tries: How often it was asked for in vain because a source failed.
        last_try: When it was asked for last, UTC microseconds; None for never.
        asked: The identities of the sources that were asked.
        empty: The identities of those that have confirmed that they have no bar.
    """

    symbol: str
    session: str
    start: int
    end: int
    minutes: int
    state: str
    kind: str = "minutes"
    source: str | None = None
    tries: int = 0
    last_try: int | None = None
    asked: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
