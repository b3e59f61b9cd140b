"""What became of a bar that came from a feed."""

from __future__ import annotations

from enum import Enum


class Arrival(Enum):
    """What became of a bar that was handed to the session store."""

    ADDED = "added"
    """A new bar of the current or a coming minute."""
    LATE = "late"
    """A new bar of a minute that is over; an update for whoever has seen that minute."""
    DUPLICATE = "duplicate"
    """The very bar that is there already."""
    REVISED = "revised"
    """Other values for a bar that is there; the new ones win."""
    OUT_OF_SESSION = "out_of_session"
    """The session has no such minute; nothing was kept."""
