"""The pace of a replay: when a simulated minute is due by the wall clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from stream_coord.clock import SystemTimer, Timer
from stream_coord.errors import UsageError

FULL_SPEED = "max"
"""What stands for no pace at all, in options and answers."""

_END_OF_TIME = 2**62
_SHORTEST_SLEEP_SECONDS = 0.02
"""At most 50 wake-ups a second: what fell due meanwhile is then delivered together."""
_LONGEST_SLEEP_SECONDS = 3600.0
"""The system refuses to sleep for centuries, which a tiny factor asks for."""


class Pace:
    """Holds a replay back, so that a minute's end at `t` comes at its time on the wall clock.

    It is due ``(t - start) / factor`` after the session began to stream. Breaks within a session
    are waited for, the time between sessions is not. A replay that is behind does not wait.

    Args:
        factor: Simulated seconds per second, positive and finite; None: as fast as it goes.
        timer: What measures and sleeps; the system's by default.

    Attributes:
        factor: As given.
        waited_seconds: How long it has slept in all.
        lag_seconds: How late the newest minute came.
        largest_lag_seconds: How late the latest of all minutes came.
    """

    def __init__(self, factor: float | None = None, timer: Timer | None = None) -> None:
        self.factor = factor
        self._timer = timer or SystemTimer()
        self._anchor = self._timer.seconds()
        self._start = self._goal = 0
        self._stopped = False
        self.waited_seconds = self.lag_seconds = self.largest_lag_seconds = 0.0

    def begin(self, start: int) -> None:
        """Let a session that starts at `start` (UTC microseconds) begin now."""
        self._anchor = self._timer.seconds()
        self._start = self._goal = start
        self.lag_seconds = 0.0

    def wait_until(self, time: int) -> int:
        """Sleep until `time` is due, and note how late it is.

        Args:
            time: UTC microseconds.

        Returns:
            The simulated time that is due by now, UTC microseconds, `time` at the earliest.
        """
        factor = self.factor
        if factor is None:
            return _END_OF_TIME
        self._goal = time
        due = self._anchor + (time - self._start) / 1e6 / factor
        begun = now = self._timer.seconds()
        while now < due and not self._stopped:
            nap = max(due - now, _SHORTEST_SLEEP_SECONDS)
            self._timer.sleep(min(nap, _LONGEST_SLEEP_SECONDS))
            now = self._timer.seconds()
        self.waited_seconds += now - begun
        self.lag_seconds = max(now - due, 0.0)  # one that was stopped is early
        self.largest_lag_seconds = max(self.largest_lag_seconds, self.lag_seconds)
        return max(time, self._simulated(now, factor))

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let no simulated time pass inside: what is due later is due so much later."""
        begun = self._timer.seconds()
        try:
            yield
        finally:
            self._anchor += self._timer.seconds() - begun

    def stop(self) -> None:
        """Wait no more, for this minute or any other; from any thread."""
        self._stopped = True
        self._timer.wake()

    def clock(self, now: int) -> int:
        """Return the simulated time, which in a paced replay moves on between two minutes.

        Args:
            now: The end of the newest minute delivered, UTC microseconds.

        Returns:
            UTC microseconds; no later than the minute that is waited for. Safe from any thread.
        """
        if self.factor is None:
            return now
        reached = self._simulated(self._timer.seconds(), self.factor)
        return max(now, min(reached, self._goal))

    def _simulated(self, wall_seconds: float, factor: float) -> int:
        passed = (wall_seconds - self._anchor) * factor * 1e6
        return self._start + int(min(passed, _END_OF_TIME))


def parse_speed(text: str) -> float | None:
    """Read ``max`` (None) or a factor.

    Raises:
        UsageError: `text` is neither.

    >>> parse_speed("60"), parse_speed("max")
    (60.0, None)
    """
    if text == FULL_SPEED:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:  # nan neither
        raise UsageError(
            f"{text!r} is not a speed",
            "--speed takes max, or simulated seconds per second: a finite number above 0, "
            "for example 60.",
        )
    return factor
