"""Sizes, repetitions and samples that the benchmarks share."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path

from benchmarks.sample import BASE, Sample, nyse_sessions, synthetic_bars
from stream_coord.calendars import Calendar, Session, open_calendar
from stream_coord.session.block import Block


class Lab:
    """Where benchmarks work; samples are made when first asked for.

    Args:
        folder: A folder of its own, for stores and files.
        quick: Tiny sizes and one repetition, to see that everything runs; its times say nothing.

    Attributes:
        few: How many symbols a small universe has.
        many: How many a large one has.
        repeats: How often a figure is measured.
        seconds: How long a run of a timed statement lasts.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.few, self.many = (4, 12) if quick else (100, 5_000)
        self.repeats = 1 if quick else 5
        self.seconds = 0.001 if quick else 0.1
        self.block = cache(self._block)
        self.sample = cache(self._sample)

    @property
    def cache_dir(self) -> Path:
        """Where the calendar keeps its schedule: the folder that `sc` uses here."""
        return self.folder / ".sc"

    @cached_property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions, oldest first; of a small universe all are stored."""
        return nyse_sessions(6 if self.quick else 250, self.cache_dir)

    @cached_property
    def calendar(self) -> Calendar:
        """The calendar of the sessions."""
        return open_calendar("NYSE", cache_dir=self.cache_dir)

    def sessions_of(self, symbols: int) -> tuple[Session, ...]:
        """Return the first sessions, as many as make a replay of some length."""
        return self.sessions[: 20 if symbols == self.few else 2]

    def _block(self, symbols: int, session: Session) -> Block:
        """Return a session's bars of so many symbols."""
        frame = synthetic_bars(symbols, session)
        block = Block.empty(frame["symbol"].unique(maintain_order=True).to_list(), [session], BASE)
        block.fill(frame)
        return block

    def _sample(self, symbols: int) -> Sample:
        """Return the store of so many symbols: all sessions of few, two of many."""
        sessions = self.sessions if symbols == self.few else self.sessions_of(symbols)
        return Sample.write(self.folder / f"bars-{symbols}", symbols, sessions)
