"""Upkeep: what is done about minutes without a bar, in a replay and in a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_coord.calendars import Session
from stream_coord.compute.quality import GapRow
from stream_coord.interval import MINUTE, Interval

if TYPE_CHECKING:
    from stream_coord.upkeep.asking import Enquirer

__all__ = ["Upkeep"]


@dataclass(frozen=True)
class Upkeep:
    """How a run looks after its data.

    Attributes:
        enquirer: Asks the sources; None: there is nobody to ask.
        derived: Intervals whose bars are built, delivered and part of the digest; ascending.
        check_micros: Simulated time from one check to the next.
        attempts: How often a minute is asked for before it is unresolved; at least 1.
        grace_micros: How long after its end a bar may be absent without being missing.
        synthesize: Whether holes in regular hours get flat bars.
        timeout_micros: How long no bar of any symbol may come before the session is timed out.
        remembered: Returns what the ledger knows of the gaps of a session and some symbols.
    """

    enquirer: Enquirer | None = None
    derived: tuple[Interval, ...] = ()
    check_micros: int = MINUTE
    attempts: int = 1
    grace_micros: int = 0
    synthesize: bool = False
    timeout_micros: int = 5 * MINUTE
    remembered: Callable[[Session, Sequence[str]], Sequence[GapRow]] = lambda _, __: ()

    def close(self) -> None:
        """Let go of the sources' files and connections; they reopen when they are asked again."""
        if self.enquirer is not None:
            self.enquirer.close()
